//! The admin port: plain HTTP on loopback, for people and scripts.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::Shared;

/// Connections at once; more are closed on arrival.
const MAX_CONNECTIONS: usize = 64;

/// Accepts and serves until told to stop.
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
            serve(stream, shared).await;
        });
    }
    // Whoever still reads does so from a server that is going away.
    tasks.shutdown().await;
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let limits = shared.limits;
    let service = hyper::service::service_fn(move |request| {
        let response = answer(&request, &shared);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(8192)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "an admin connection failed");
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let log = shared.core.log();
    let (status, content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/health") => {
            let health =
                json!({ "status": "ok", "events": log.len(), "droppedEvents": log.dropped() });
            (StatusCode::OK, "application/json", format!("{health}\n").into_bytes())
        }
        (&Method::GET | &Method::HEAD, "/events") => {
            let since = request
                .uri()
                .query()
                .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("since=")))
                .map_or(Ok(0), str::parse);
            match since {
                Ok(since) => {
                    let (_, lines) = log.lines(since, usize::MAX);
                    (StatusCode::OK, "application/x-ndjson", lines.concat().into_bytes())
                }
                Err(_) => text(StatusCode::BAD_REQUEST, "since must be an event's sequence number"),
            }
        }
        (_, "/health" | "/events") => text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served"),
        (_, path) => {
            let path: String = path.chars().take(200).collect();
            let words =
                format!("{path:?} is not served; there are /health and /events?since=SEQUENCE");
            text(StatusCode::NOT_FOUND, &words)
        }
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

fn text(status: StatusCode, text: &str) -> (StatusCode, &'static str, Vec<u8>) {
    (status, "text/plain", format!("{text}\n").into_bytes())
}
