//! The admin port: plain HTTP on loopback, by which people, scripts and the live page watch the emulator and steer it.
//!
//! A request passes the [`Guard`], which keeps browsers' pages and strangers away, and then the table of routes. What
//! is served is documented in `openapi.json`, which a test holds against the table.

use std::{
    convert::Infallible,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Method, Request, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{Shared, stream::Stream};

mod answer;
mod clock;
mod connections;
mod devices;
mod enrollments;
mod events;
mod guard;
mod page;
mod query;
mod routes;
mod status;

#[cfg(test)]
mod tests;

use answer::{Answer, Problem};
pub(crate) use guard::Guard;
pub(crate) use status::Facts;

/// What is served, for people and for programs that make clients.
const OPENAPI: &str = include_str!("../../openapi.json");

/// Connections at once; more are closed on arrival.
const MAX_CONNECTIONS: usize = 64;

/// The largest body, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// What all connections to the admin port share.
pub(crate) struct Admin {
    shared: Arc<Shared>,
    facts: Facts,
    guard: Guard,
    /// All places for connections.
    slots: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

/// A request that passed the guard.
struct Call<'a> {
    head: &'a http::request::Parts,
    /// What stands in the path where the route has a name in braces.
    name: String,
    body: Bytes,
}

impl Admin {
    pub(crate) fn new(
        shared: Arc<Shared>,
        facts: Facts,
        guard: Guard,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { shared, facts, guard, slots, stopping }
    }

    /// Accepts and serves until the emulator stops.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut tasks = JoinSet::new();
        let mut stopping = self.stopping.clone();
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
            let Ok(slot) = self.slots.clone().try_acquire_owned() else { continue };
            let admin = self.clone();
            tasks.spawn(async move {
                let _slot = slot;
                admin.serve(stream).await;
            });
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }

    async fn serve(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let (idle, mut stopping) = (self.shared.limits.idle_timeout, self.stopping.clone());
        let service = hyper::service::service_fn(move |request| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(request).await) }
        });
        // Whoever leaves an answer unread is cut off.
        let stream = Stream::new(stream, Arc::default(), idle);
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(idle)
            .max_buf_size(8192)
            .serve_connection(TokioIo::new(stream), service);
        let mut served = pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = async { stopping.wait_for(|stop| *stop).await.ok(); } => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an admin connection failed");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let is_head = request.method() == Method::HEAD;
        let answer = self.act(request).await.unwrap_or_else(Problem::into_answer);
        answer::finish(answer, is_head)
    }

    async fn act(&self, request: Request<Incoming>) -> Result<Answer, Problem> {
        let (head, body) = request.into_parts();
        self.guard.check_page(&head)?;
        let found = routes::find(&head);
        if !found.as_ref().is_ok_and(|(route, _)| route.is_open()) {
            self.guard.check_token(&head)?;
        }
        let (route, name) = found?;
        let body = if route.has_body() {
            guard::check_content_type(&head)?;
            self.read(body).await?
        } else {
            Bytes::new()
        };
        (route.act)(self, &Call { head: &head, name, body })
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Problem> {
        let read = Limited::new(body, MAX_BODY).collect();
        match tokio::time::timeout(self.shared.limits.body_timeout, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::too_large()),
            Ok(Err(error)) => Err(Problem::bad("body", "", &format!("it can't be read: {error}"))),
            Err(_) => Err(Problem::bad("body", "", "it did not come in time")),
        }
    }

    fn now(&self) -> SystemTime {
        self.shared.core.clock().now()
    }
}

impl Call<'_> {
    /// The body as a JSON object.
    fn object(&self) -> Result<serde_json::Map<String, serde_json::Value>, Problem> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Problem::bad("body", "", &format!("it must be a JSON object: {error}"))
        })
    }

    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.head.headers.get(name)?.to_str().ok()
    }
}
