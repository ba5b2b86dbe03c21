//! A TLS server that answers each request with the bytes that the test gave, whatever they are.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::support::{ServerStream, head, listen_tls, swallow};

/// What the server sees, in order.
#[derive(Debug)]
pub(crate) enum Event {
    /// A request, on which connection (counted from 1).
    Request { connection: usize, head: String, body: Vec<u8> },
    /// That connection is closed.
    Closed(usize),
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
}

/// An answer, and whether the connection is closed after it.
#[derive(Clone)]
pub(crate) struct Answer {
    bytes: Vec<u8>,
    close: bool,
}

impl Answer {
    pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self { bytes: bytes.as_ref().to_vec(), close: false }
    }

    pub(crate) fn with(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
        Self::raw([head.as_bytes(), body].concat())
    }

    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::with("200 OK", "", body)
    }

    pub(crate) fn then_close(mut self) -> Self {
        self.close = true;
        self
    }
}

impl Server {
    /// Gives the answers in order, over all connections; after the last it is silent.
    pub(crate) async fn start(
        config: ServerConfig,
        answers: impl IntoIterator<Item = Answer>,
    ) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, events) = mpsc::unbounded_channel();
        let address = listen_tls(config, move |tls| {
            let connection = connections.fetch_add(1, Ordering::SeqCst) + 1;
            let (answers, tell) = (Arc::clone(&answers), tell.clone());
            async move {
                serve(tls, connection, &answers, &tell).await;
                // The test may be over.
                let _ = tell.send(Event::Closed(connection));
            }
        })
        .await;
        Self { address, events }
    }

    /// The next request: its connection, head and body.
    pub(crate) async fn request(&mut self) -> (usize, String, Vec<u8>) {
        loop {
            match self.events.recv().await.unwrap() {
                Event::Request { connection, head, body } => return (connection, head, body),
                Event::Closed(_) => {}
            }
        }
    }

    /// Waits until the connection is closed.
    pub(crate) async fn closed(&mut self, connection: usize) {
        while !matches!(self.events.recv().await.unwrap(), Event::Closed(c) if c == connection) {}
    }
}

async fn serve(
    mut tls: ServerStream,
    connection: usize,
    answers: &Mutex<VecDeque<Answer>>,
    tell: &mpsc::UnboundedSender<Event>,
) {
    loop {
        let head = head(&mut tls).await;
        // What is cut short is no request.
        if !head.ends_with("\r\n\r\n") {
            return;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        if tls.read_exact(&mut body).await.is_err() {
            return;
        }
        let _ = tell.send(Event::Request { connection, head, body });
        let answer = answers.lock().unwrap().pop_front();
        let Some(answer) = answer else { return swallow(tls).await };
        if tls.write_all(&answer.bytes).await.is_err() || tls.flush().await.is_err() {
            return;
        }
        if answer.close {
            let _ = tls.shutdown().await;
            return;
        }
    }
}
