//! A TCP connection whose pace can be cut to a byte at a time.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// See the module.
pub(crate) struct SlowStream {
    pub(crate) tcp: TcpStream,
    pace: Pace,
    pause: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// How long lies between two bytes, until something else has happened.
#[derive(Clone)]
pub(crate) struct Pace {
    millis: Arc<AtomicU64>,
    until: Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>,
}

impl Pace {
    /// No limit; whatever is set later holds until the future is ready.
    pub(crate) fn new<F: Future<Output = ()> + Send + 'static>(
        until: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Self { millis: Arc::default(), until: Arc::new(move || Box::pin(until())) }
    }

    pub(crate) fn set(&self, every: Duration) {
        self.millis.store(every.as_millis() as u64, Ordering::Relaxed);
    }

    fn pause(&self) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let millis = self.millis.load(Ordering::Relaxed);
        if millis == 0 {
            return None;
        }
        let pace = self.clone();
        Some(Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(millis)) => {}
                () = (pace.until)() => pace.set(Duration::ZERO),
            }
        }))
    }
}

impl SlowStream {
    pub(crate) fn new(tcp: TcpStream, pace: Pace) -> Self {
        Self { tcp, pace, pause: None }
    }
}

impl AsyncRead for SlowStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SlowStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let pause = self.pace.pause();
        let part = if pause.is_some() { bytes.get(..1).unwrap_or(bytes) } else { bytes };
        let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, part))?;
        self.pause = pause;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
