//! A stream that counts, that gives up on a peer that does not read, that can be slowed down, and that can be cut
//! after what was written has gone out.

use std::{
    io,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::lock::lock;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    sync::{Notify, watch},
    time::Sleep,
};

/// What a transport can do to its stream while another layer (HTTP, WebSocket) owns it.
#[derive(Default)]
pub(crate) struct Control {
    received: AtomicU64,
    sent: AtomicU64,
    drip: Mutex<Option<(usize, Duration)>>,
    cut_after_flush: AtomicBool,
    cut: Notify,
}

impl Control {
    /// From now on only this many bytes go out at a time; `None` lifts it.
    pub(crate) fn drip(&self, pace: Option<(usize, Duration)>) {
        *lock(&self.drip) = pace;
    }

    fn pace(&self) -> Option<(usize, Duration)> {
        *lock(&self.drip)
    }

    /// Cuts the connection now.
    pub(crate) fn cut(&self) {
        self.cut.notify_one();
    }

    /// Cuts the connection once all that was written has gone out.
    pub(crate) fn cut_after_flush(&self) {
        self.cut_after_flush.store(true, Ordering::Release);
    }

    /// Waits until the connection is to be cut; whoever owns the stream then drops it.
    pub(crate) async fn is_cut(&self) {
        self.cut.notified().await;
    }

    /// Bytes that came in and that went out.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }
}

/// Closes a stream, and reads for a moment what the peer still sends: bytes left unread would turn the close into a
/// reset that eats what was said last.
pub(super) async fn see_out(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    stopping: &mut watch::Receiver<bool>,
) {
    /// How long a peer may take to hang up.
    const LINGER: Duration = Duration::from_millis(500);
    let end_of_session = async {
        if stream.shutdown().await.is_ok() {
            swallow(stream, stopping).await;
        }
    };
    tokio::time::timeout(LINGER, end_of_session).await.ok();
}

/// Reads and forgets until the peer is gone.
pub(super) async fn swallow(
    stream: &mut (impl AsyncRead + Unpin),
    stopping: &mut watch::Receiver<bool>,
) {
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        _ = tokio::io::copy(stream, &mut nowhere) => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}

/// See the module.
pub(crate) struct Stream<S> {
    inner: S,
    control: std::sync::Arc<Control>,
    /// Until when nothing more goes out.
    pause: Option<Pin<Box<Sleep>>>,
    /// How long the peer may leave what was written unread.
    patience: Duration,
    /// When that is over, while the peer does.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Stream<S> {
    pub(crate) fn new(inner: S, control: std::sync::Arc<Control>, patience: Duration) -> Self {
        Self { inner, control, pause: None, patience, stalled: None }
    }

    /// Turns waiting for the peer to read into an error once it has taken too long.
    fn bounded<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        let count = buf.filled().len().saturating_sub(before);
        this.control.received.fetch_add(to_u64(count), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let pace = this.control.pace();
        if let Some(pause) = &mut this.pause {
            // What went out before the pause must not wait for its end.
            let _ = Pin::new(&mut this.inner).poll_flush(cx)?;
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let some = match pace {
            Some((count, _)) => bytes.get(..count.max(1)).unwrap_or(bytes),
            None => bytes,
        };
        let poll = Pin::new(&mut this.inner).poll_write(cx, some);
        let written = ready!(this.bounded(cx, poll))?;
        this.control.sent.fetch_add(to_u64(written), Ordering::Relaxed);
        if let Some((_, every)) = pace {
            this.pause = Some(Box::pin(tokio::time::sleep(every)));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_flush(cx);
        ready!(this.bounded(cx, poll))?;
        if this.control.cut_after_flush.swap(false, Ordering::AcqRel) {
            this.control.cut();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.bounded(cx, poll)
    }
}

fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
