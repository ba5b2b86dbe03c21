//! A stream whose other end is the input.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the code under test has written.
pub(crate) type Written = Arc<Mutex<Vec<u8>>>;

/// Gives what the input has, a few bytes at a time, and keeps what is written.
pub(crate) struct Scripted {
    rest: Vec<u8>,
    chunk: usize,
    /// At its end it stays open and says nothing more.
    stays: bool,
    written: Written,
}

impl Scripted {
    /// The first byte of the input says how: bit 7, whether the stream stays open at its end; the others, how many
    /// bytes come at a time, 0 for all at once.
    pub(crate) fn new(data: &[u8]) -> (Self, Written) {
        let (how, rest) = data.split_first().unwrap_or((&0, &[]));
        let chunk = match how & 0x7f {
            0 => usize::MAX,
            some => some.into(),
        };
        let written = Written::default();
        let stream =
            Self { rest: rest.to_vec(), chunk, stays: how & 0x80 != 0, written: written.clone() };
        (stream, written)
    }

    /// Replaces the first `old` in what is still to come.
    pub(crate) fn replace(&mut self, old: &[u8], new: &[u8]) {
        if let Some(at) = self.rest.windows(old.len()).position(|window| window == old) {
            self.rest.splice(at..at + old.len(), new.iter().copied());
        }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &[u8] {
        &self.rest
    }
}

impl AsyncRead for Scripted {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_empty() && this.stays {
            return Poll::Pending;
        }
        let count = this.chunk.min(this.rest.len()).min(buffer.remaining());
        buffer.put_slice(&this.rest[..count]);
        this.rest.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.written.lock().expect("no holder of the lock panics").extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs it to its end; `None` when it has none within that time. The clock is paused: waiting takes no time.
pub(crate) fn run<T>(within: Duration, future: impl Future<Output = T>) -> Option<T> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
    }
    RUNTIME
        .with(|runtime| runtime.block_on(async { tokio::time::timeout(within, future).await.ok() }))
}
