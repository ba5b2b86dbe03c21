//! The admin port: plain HTTP on loopback, for people and scripts.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{Shared, stream::Stream};
use crate::core::events::{EventLog, PORTION};

/// Connections at once; more are closed on arrival.
const MAX_CONNECTIONS: usize = 64;

/// Accepts and serves until the emulator stops.
pub(crate) async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most often: trying again at once would only keep a processor busy.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
        let shared = shared.clone();
        tasks.spawn(async move {
            let _slot = slot;
            serve(stream, shared.core.log(), shared.limits.idle_timeout).await;
        });
    }
    // Whoever still reads does so from a server that is going away.
    tasks.shutdown().await;
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, log: EventLog, idle: Duration) {
    let service = hyper::service::service_fn(move |request| {
        let response = answer(&request, log.clone());
        async move { Ok::<_, Infallible>(response) }
    });
    // Whoever leaves an answer unread is cut off.
    let stream = Stream::new(stream, Arc::default(), idle);
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(8192)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "an admin connection failed");
    }
}

fn answer(request: &Request<Incoming>, log: EventLog) -> Response<Either<Full<Bytes>, Events>> {
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        _ if !is_for_loopback(request) => text(
            StatusCode::FORBIDDEN,
            "the Host must be localhost or an address of this machine's loopback",
        ),
        "/health" | "/events" if !is_get => {
            text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served")
        }
        "/health" => {
            let health =
                json!({ "status": "ok", "events": log.len(), "droppedEvents": log.dropped() });
            whole(StatusCode::OK, "application/json", &format!("{health}\n"))
        }
        "/events" => {
            let query = request.uri().query().unwrap_or_default();
            let since = query.split('&').find_map(|pair| pair.strip_prefix("since="));
            match since.map_or(Ok(0), str::parse) {
                Ok(next) => {
                    let events = Events { end: log.len(), next, log };
                    response(StatusCode::OK, "application/x-ndjson", Either::Right(events))
                }
                Err(_) => text(StatusCode::BAD_REQUEST, "since must be an event's sequence number"),
            }
        }
        path => text(
            StatusCode::NOT_FOUND,
            &format!("{path:.128?} is not served; there are /health and /events?since=SEQUENCE"),
        ),
    }
}

/// Whether the request is for a name or an address of the loopback. A page in a browser could otherwise read what is
/// served here, by a name of its own that leads to this machine.
fn is_for_loopback(request: &Request<Incoming>) -> bool {
    let host = request.headers().get(header::HOST);
    let authority = match (request.uri().authority(), host) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) => host.to_str().ok().and_then(|host| host.parse().ok()),
        // Browsers always send one.
        (None, None) => return true,
    };
    let Some(authority) = authority else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    host.parse().map_or_else(
        |_| host.eq_ignore_ascii_case("localhost"),
        |address: IpAddr| address.is_loopback(),
    )
}

/// The lines of the log that were there when the request came, a portion at a time.
struct Events {
    log: EventLog,
    next: u64,
    end: u64,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.next >= this.end {
            return Poll::Ready(None);
        }
        let (first, mut lines) = this.log.lines(this.next, PORTION);
        lines.truncate(usize::try_from(this.end.saturating_sub(first)).unwrap_or(usize::MAX));
        this.next = first + u64::try_from(lines.len()).unwrap_or(u64::MAX);
        Poll::Ready((!lines.is_empty()).then(|| Ok(Frame::data(lines.concat().into()))))
    }
}

fn text(status: StatusCode, text: &str) -> Response<Either<Full<Bytes>, Events>> {
    whole(status, "text/plain", &format!("{text}\n"))
}

fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: &str,
) -> Response<Either<Full<Bytes>, Events>> {
    response(status, content_type, Either::Left(Full::from(body.to_owned())))
}

fn response<B>(status: StatusCode, content_type: &'static str, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt as _, time::Instant};

    use super::*;
    use crate::core::events::{EventKind, Recorder};

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_an_answer_unread_or_asks_nothing_is_disconnected() {
        let recorder = Recorder::new();
        for _ in 0..1000 {
            let closed = EventKind::Closed { reason: "why".into(), received: 0, sent: 0 };
            recorder.record(1, closed);
        }
        for request in ["GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /ev", ""] {
            let idle = Duration::from_secs(60);
            // Room for a small part of the answer.
            let (mut reader, server) = tokio::io::duplex(1024);
            reader.write_all(request.as_bytes()).await.unwrap();
            let begin = Instant::now();
            let served = serve(server, recorder.log(), idle);
            tokio::time::timeout(2 * idle, served).await.expect("it is disconnected");
            assert!(begin.elapsed() >= idle, "{request:?}: {:?}", begin.elapsed());
        }
    }

    #[tokio::test]
    async fn events_come_in_portions_and_end_where_the_log_did() {
        let recorder = Recorder::new();
        let record = |reason: String| {
            recorder.record(1, EventKind::Closed { reason, received: 0, sent: 0 });
        };
        (0..5).for_each(|_| record("x".repeat(50_000)));
        let log = recorder.log();
        let mut events = Events { next: 1, end: log.len(), log };
        record("later".into());
        let mut portions: Vec<Vec<u8>> = Vec::new();
        while let Some(frame) =
            std::future::poll_fn(|cx| Pin::new(&mut events).poll_frame(cx)).await
        {
            portions.push(frame.unwrap().into_data().unwrap().to_vec());
        }
        assert!(portions.len() > 1 && portions.iter().all(|portion| portion.len() < 200_000));
        let text = String::from_utf8(portions.concat()).unwrap();
        assert_eq!(text.lines().count(), 4);
        assert!(!text.contains("later"));
    }
}
