//! WebSocket as the MQTT and AMQP transports use it on port 443: the upgrade, and a stream of bytes over its messages.
//!
//! See <https://www.rfc-editor.org/rfc/rfc6455> and, for the path,
//! <https://learn.microsoft.com/azure/iot-dps/iot-dps-mqtt-support>.
//!
//! The frames are made and read here, not by a library: tokens go through them, and the one that there is logs every
//! frame with its content.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::failure::Closed;

mod frame;
mod incoming;
mod outgoing;
mod refusal;
mod upgrade;

use incoming::{Incoming, Next};
use outgoing::Outgoing;
pub use upgrade::accept_key;
pub(crate) use upgrade::upgrade;

/// Where the service takes WebSocket upgrades.
pub const PATH: &str = "/$iothub/websocket";

/// The largest message that is read, in bytes: an answer of 1 MiB, and what its protocol puts around it.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024 + 64 * 1024;

/// A WebSocket as a stream of bytes: what is written goes out in binary messages, what binary messages bring is
/// read. Pings are answered while somebody reads or writes. The peer's close is the end of the stream; one that says
/// why is an [`io::ErrorKind::UnexpectedEof`] with a [`Closed`] inside.
///
/// A peer that breaks the rules of WebSocket, or sends text, gives an [`io::Error`] with a [`Violation`](crate::failure::Violation) inside.
pub struct WsBytes<S> {
    inner: S,
    incoming: Incoming,
    outgoing: Outgoing,
    /// Nothing more is read.
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WsBytes<S> {
    /// The client's end of a stream whose upgrade is done.
    pub async fn client(stream: S) -> Self {
        Self::new(stream, Vec::new())
    }

    /// `read_ahead` is what came after the upgrade.
    fn new(inner: S, read_ahead: Vec<u8>) -> Self {
        Self { inner, incoming: Incoming::new(read_ahead), outgoing: Outgoing::new(), ended: false }
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The next bytes of messages; none at the end.
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let end = match ready!(self.incoming.poll_next(cx, &mut self.inner, buffer))? {
                Next::Read => return Poll::Ready(Ok(())),
                Next::Ping(payload) => {
                    self.outgoing.pong(payload);
                    None
                }
                Next::Close(payload) => {
                    let reason = frame::close_reason(&payload);
                    self.outgoing.close(frame::close_reply(&payload))?;
                    Some(reason.map_or(Ok(()), |reason| Err(Closed::new(reason).into())))
                }
                Next::End => Some(Ok(())),
            };
            // The reply goes out if it can; nobody waits for it.
            let _ = self.outgoing.poll_flush(cx, &mut self.inner);
            if let Some(end) = end {
                self.ended = true;
                return Poll::Ready(end);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WsBytes<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.outgoing.is_waiting() {
            // What is owed, like the answer to a ping; nobody waits for it here.
            let _ = this.outgoing.poll_flush(cx, &mut this.inner);
        }
        let read = ready!(this.poll_next(cx, buffer));
        // What comes after a broken rule means nothing.
        this.ended |= read.is_err();
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WsBytes<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.outgoing.poll_write(cx, &mut this.inner, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.outgoing.poll_flush(cx, &mut this.inner)
    }

    /// Ends the session with a close frame, without waiting for the peer's, and closes the stream below.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.outgoing.close(&[])?;
        ready!(this.outgoing.poll_flush(cx, &mut this.inner))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for WsBytes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither what was sent nor what was received: secrets pass through here.
        f.debug_struct("WsBytes").field("ended", &self.ended).finish_non_exhaustive()
    }
}
