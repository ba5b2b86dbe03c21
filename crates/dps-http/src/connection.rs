//! The HTTP client of one session, and one exchange over its connection.

use std::{
    io,
    time::{Duration, SystemTime},
};

use dps_connect::{
    Config,
    internal::{
        REFUSAL_BODY_TIME, catch_up,
        failure::{self, Peer},
    },
};
use dps_state_machine::{ConnectionError, Error, Progress, ProtocolError, Response, Stage};
use http::StatusCode;
use reqwest::{Client, Request};
use rustls::ClientConfig;
use tokio::{
    task::coop::consume_budget,
    time::{Instant, timeout},
};

use crate::{
    codec::{self, DEFAULT_PORT, MAX_ANSWER_BYTES},
    config,
    watch::{AnotherAddress, FRESH, Kept, Watch},
};

/// The client underneath takes a connection back in a task of its own, a moment after the answer. Who asks before
/// that gets a second connection, so such a request waits; none against the service follows that fast.
const BREATH: Duration = Duration::from_millis(10);

/// The client of one session, and the watch on its connections.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    pub(crate) watch: Watch,
    /// When the connection that carried the last answer is surely free again.
    free: Option<Instant>,
    /// When a connection was made that no request has gone over yet.
    ahead: Option<Instant>,
}

impl Connection {
    /// None is made before the first request.
    pub(crate) fn new(config: &Config, tls: &ClientConfig) -> Result<Self, Error> {
        let watch = Watch::new(Peer::of(config, DEFAULT_PORT)?, config);
        let client = config::client(config, tls, &watch)?;
        Ok(Self { client, watch, free: None, ahead: None })
    }

    /// Whether a connection stands, as far as is known: the last request was answered, or it was just made.
    pub(crate) fn stands(&self) -> bool {
        self.free.is_some() || self.ahead.is_some_and(|at| at.elapsed() < FRESH)
    }

    /// Makes the connection that the first request will go over. The client underneath makes none but for a request: this
    /// one is not sent, because the connection is kept from the client.
    pub(crate) async fn connect(
        &mut self,
        request: Request,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.begin(progress);
        self.watch.keep_next(true);
        let outcome = self.execute(request).await;
        self.watch.keep_next(false);
        match outcome {
            Err(error) if failure::find::<Kept>(&error).is_some() => {
                self.ahead = Some(Instant::now());
                Ok(())
            }
            Err(error) => Err(failed(Stage::Connect, &self.watch, error)),
            Ok(_) => Err(ProtocolError::unreadable(Stage::Connect, "nothing was asked").into()),
        }
    }

    fn begin(&self, progress: &Progress) {
        self.watch.follow(progress);
        if let Some(proxy) = self.watch.peer().proxy() {
            proxy.hide(progress);
        }
    }

    /// Sends the request and reads the answer.
    pub(crate) async fn exchange(
        &mut self,
        stage: Stage,
        request: Request,
        progress: &Progress,
    ) -> Result<Response, Error> {
        if let Some(free) = self.free.take() {
            tokio::time::sleep_until(free).await;
            catch_up().await;
        }
        self.ahead = None;
        self.begin(progress);
        let broken = |error| failed(stage, &self.watch, error);
        let mut answer = match self.execute(request).await {
            Ok(answer) => answer,
            Err(error) => {
                let failed = broken(error);
                // The client underneath does not say what came.
                let heard = match &failed {
                    // So it says of an answer that does not begin as HTTP does.
                    Error::Protocol(e) if e.reason.contains("HTTP version") => {
                        self.watch.not_http(stage).await
                    }
                    _ => None,
                };
                return Err(heard.unwrap_or(failed));
            }
        };
        let (status, version) = (answer.status(), answer.version());
        let headers = std::mem::take(answer.headers_mut());
        let mut body = Vec::new();
        let read = read_body(answer, &mut body);
        if is_refusal(status) {
            // What came until then counts: the status has been read, and a connection that breaks does not take it back.
            let _ = timeout(REFUSAL_BODY_TIME, read).await;
        } else if !read.await.map_err(broken)? {
            let reason = format!("it is larger than {MAX_ANSWER_BYTES} bytes");
            let mut error = ProtocolError::unreadable(stage, reason);
            error.status = Some(status.as_u16());
            error.protocol_result = codec::protocol_result(status, version, &headers);
            return Err(error.into());
        }
        self.free = Some(Instant::now() + BREATH);
        Ok(codec::response(status, version, &headers, body, SystemTime::now()))
    }

    /// Sends the request. While a connection for it is made, another address than the first may turn out to answer
    /// sooner; then nothing has been sent, and the second attempt goes there.
    pub(crate) async fn execute(&self, request: Request) -> reqwest::Result<reqwest::Response> {
        let Some(again) = request.try_clone() else { return self.client.execute(request).await };
        match self.client.execute(request).await {
            Err(error) if failure::find::<AnotherAddress>(&error).is_some() => {
                self.client.execute(again).await
            }
            outcome => outcome,
        }
    }
}

fn is_refusal(status: StatusCode) -> bool {
    status.as_u16() >= 300
}

/// Reads to the body's end, and says whether that was it: what is longer than [`MAX_ANSWER_BYTES`] is left.
async fn read_body(mut answer: reqwest::Response, body: &mut Vec<u8>) -> reqwest::Result<bool> {
    while let Some(chunk) = answer.chunk().await? {
        // A body in a million chunks leaves other tasks their turns.
        consume_budget().await;
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Ok(false);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(true)
}

/// What it means that there is no answer, or only a part of it.
fn failed(stage: Stage, watch: &Watch, error: reqwest::Error) -> Error {
    let error = error.without_url();
    if let Some(known) = failure::find::<ConnectionError>(&error) {
        return failure::into_error(known.clone());
    }
    if let Some(reason) = nonsense(&error) {
        return ProtocolError::unreadable(stage, reason).into();
    }
    failure::because(failure::lost(stage, watch.peer(), &error), error).into()
}

/// Whether what came is not HTTP, rather than that something did not come.
fn nonsense(error: &reqwest::Error) -> Option<String> {
    let hyper = failure::find::<hyper::Error>(error)?;
    if hyper.is_parse() {
        return Some(format!("it is not HTTP ({hyper})"));
    }
    let encoding = failure::find::<io::Error>(hyper).filter(|io| {
        let tls = failure::find::<rustls::Error>(*io).is_some();
        !tls && matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
    })?;
    Some(format!("its transfer encoding is broken ({encoding})"))
}
