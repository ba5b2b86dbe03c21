//! What goes out: binary messages, and the replies that the rules ask for.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::AsyncWrite;
use zeroize::{Zeroize, Zeroizing};

use super::frame::{self, Opcode};

/// The largest message that is written, and how much waits to be written, in bytes (64 KiB).
const MOST: usize = 64 * 1024;

/// Writes frames.
pub(super) struct Outgoing {
    /// Whole frames, and how much of them was written. Tokens are among what goes out.
    waiting: Zeroizing<Vec<u8>>,
    written: usize,
    /// The answer to the last ping: only that one is owed.
    pong: Option<Vec<u8>>,
    /// A close frame was made: nothing more may follow.
    closed: bool,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        // A buffer that grows leaves pieces behind; a token fits this one.
        let waiting = Zeroizing::new(Vec::with_capacity(4 * 1024));
        Self { waiting, written: 0, pong: None, closed: false }
    }

    /// Whether anything was not written yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.pong.is_some()
    }

    /// Answers a ping with the next that is written.
    pub(super) fn pong(&mut self, payload: Vec<u8>) {
        self.pong = Some(payload);
    }

    /// Ends the session with the next that is written, unless that was done.
    pub(super) fn close(&mut self, payload: &[u8]) -> io::Result<()> {
        if !self.closed {
            self.append_pong()?;
            self.append(Opcode::Close, payload)?;
            self.closed = true;
        }
        Ok(())
    }

    /// Takes bytes for a message; [`poll_flush`](Self::poll_flush) sends them.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let part = bytes.get(..MOST).unwrap_or(bytes);
        if part.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.waiting.len() + part.len() > MOST {
            ready!(self.poll_drain(cx, stream))?;
        }
        self.append(Opcode::Binary, part)?;
        Poll::Ready(Ok(part.len()))
    }

    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        self.append_pong()?;
        ready!(self.poll_drain(cx, stream))?;
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.waiting.zeroize();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    fn append_pong(&mut self) -> io::Result<()> {
        // While others wait to be written, a newer ping may take its place.
        if self.closed || self.waiting.len() > MOST {
            return Ok(());
        }
        match self.pong.take() {
            Some(payload) => self.append(Opcode::Pong, &payload),
            None => Ok(()),
        }
    }

    fn append(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        frame::append(&mut self.waiting, opcode, payload, fresh_mask()?);
        Ok(())
    }
}

/// A mask must not be foreseen: <https://www.rfc-editor.org/rfc/rfc6455#section-10.3>.
fn fresh_mask() -> io::Result<[u8; 4]> {
    let mut mask = [0; 4];
    let filled = SystemRandom::new().fill(&mut mask);
    filled.map_err(|_| io::Error::other("this system gave no random numbers"))?;
    Ok(mask)
}
