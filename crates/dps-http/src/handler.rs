//! The transport as the state machine drives it.

use std::{
    fmt, io,
    time::{Duration, SystemTime},
};

use dps_connect::{Config, REFUSAL_BODY_TIME, catch_up, failure, tls_config};
use dps_state_machine::{
    ConfigurationError, ConnectionError, Error, OperationId, Progress, ProtocolError,
    RegistrationRequest, Response, Stage, TransportHandlers,
};
use http::StatusCode;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout};

use crate::{
    codec::{self, MAX_ANSWER_BYTES},
    config::Link,
    watch::Watch,
};

/// The client underneath takes a connection back in a task of its own, a moment after the answer. Who asks before
/// that gets a second connection, so such a request waits; none against the service follows that fast.
const BREATH: Duration = Duration::from_millis(10);

/// Registers over HTTPS, with a SAS token in each request or with the device's certificate.
///
/// One connection is made at the first request and kept for the polls, until the end of the session. Nothing is
/// sent twice: a request on a connection that breaks fails, and the next one makes a new connection.
pub struct HttpTransport {
    config: Config,
    tls: ClientConfig,
    link: Option<Link>,
}

impl HttpTransport {
    /// A transport without a connection yet. No I/O.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the setting that can't be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        let tls = tls_config(&config)?;
        Ok(Self { config, tls, link: None })
    }

    async fn exchange(
        &mut self,
        stage: Stage,
        request: http::Request<Vec<u8>>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let request = convert(request)?;
        let link = match &mut self.link {
            Some(link) => link,
            none => none.insert(Link::new(&self.config, &self.tls)?),
        };
        if let Some(free) = link.free.take() {
            tokio::time::sleep_until(free).await;
            catch_up().await;
        }
        link.watch.follow(progress);
        let watch = link.watch.clone();
        let broken = |error| failed(stage, &watch, error);
        let mut answer = link.execute(request).await.map_err(broken)?;
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
        link.free = Some(Instant::now() + BREATH);
        let response = codec::response(status, version, &headers, body, SystemTime::now());
        let refused = status == StatusCode::UNAUTHORIZED;
        Ok(response.hint(self.config.credential_hint(codec::date(&headers)).filter(|_| refused)))
    }
}

impl TransportHandlers for HttpTransport {
    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.config.preflight(request.registration_id())?;
        let token = self.config.sas_token(request.registration_id(), progress).await?;
        let authorization = token.as_ref().map(|token| token.expose());
        let put = codec::register(&self.config, request, authorization)?;
        self.exchange(Stage::Register, put, progress).await
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let token = self.config.sas_token(request.registration_id(), progress).await?;
        let authorization = token.as_ref().map(|token| token.expose());
        let get = codec::query(&self.config, request, operation_id, authorization)?;
        self.exchange(Stage::Query, get, progress).await
    }

    /// HTTP has no end of the session: the connection is closed.
    async fn end_session(&mut self) -> Result<(), Error> {
        self.link = None;
        Ok(())
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport")
            .field("config", &self.config)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// To the client's own type.
fn convert(request: http::Request<Vec<u8>>) -> Result<reqwest::Request, Error> {
    let host = request.uri().host().unwrap_or_default().to_owned();
    reqwest::Request::try_from(request)
        .map_err(|e| ConfigurationError::new("endpoint", host, &e.to_string()).into())
}

fn is_refusal(status: StatusCode) -> bool {
    status.as_u16() >= 300
}

/// Reads to the body's end, and says whether that was it: what is longer than [`MAX_ANSWER_BYTES`] is left.
async fn read_body(mut answer: reqwest::Response, body: &mut Vec<u8>) -> reqwest::Result<bool> {
    while let Some(chunk) = answer.chunk().await? {
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
