//! What comes: messages, handed on as they arrive, and what stands between them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    task::coop::poll_proceed,
};

use super::{
    MAX_MESSAGE_BYTES,
    frame::{self, Header, Opcode},
};
use crate::{failure::Violation, flood::Flood};

/// How much is read at once when it is not known what comes, in bytes (4 KiB).
const CHUNK: usize = 4 * 1024;

/// Reads frames. Less than one is kept, and of a message nothing.
pub(super) struct Incoming {
    /// What came and was not looked at yet.
    ahead: Vec<u8>,
    /// How much is left of the data frame that is being read.
    left: usize,
    /// Whether the message goes on after the frame, and how long it is so far.
    message: Option<usize>,
    /// The frames since the last that had a part of a message in it.
    idle: Flood,
}

/// What came next.
pub(super) enum Next {
    /// Bytes of a message, into the caller's buffer.
    Read,
    Ping(Vec<u8>),
    Close(Vec<u8>),
    /// The stream is at its end.
    End,
}

impl Incoming {
    pub(super) fn new(ahead: Vec<u8>) -> Self {
        Self { ahead, left: 0, message: None, idle: Flood::default() }
    }

    /// `buffer` must have room.
    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Next>> {
        loop {
            if self.left > 0 {
                let read = if self.ahead.is_empty() {
                    ready!(self.poll_payload(cx, stream, buffer))?
                } else {
                    self.take_payload(buffer)
                };
                return Poll::Ready(Ok(if read == 0 { Next::End } else { Next::Read }));
            }
            // Each frame costs a piece of the task's turn: a flood of them leaves the others theirs.
            let turn = ready!(poll_proceed(cx));
            let frame = self.control_or_header()?;
            if frame.is_some() {
                turn.made_progress();
            }
            drop(turn);
            match frame {
                Some(Some(next)) => return Poll::Ready(Ok(next)),
                Some(None) => {}
                None => {
                    if ready!(self.poll_more(cx, stream))? == 0 {
                        return Poll::Ready(Ok(Next::End));
                    }
                }
            }
        }
    }

    /// Takes a whole control frame or the header of another one from what came; `None` when that is not enough,
    /// `Some(None)` when there is nothing to tell of it.
    fn control_or_header(&mut self) -> io::Result<Option<Option<Next>>> {
        let Some((header, start)) = Header::parse(&self.ahead)? else { return Ok(None) };
        let Header { is_last, opcode, length } = header;
        let in_message = match (opcode, self.message) {
            (Opcode::Binary, None) => 0,
            (Opcode::Continuation, Some(so_far)) => so_far,
            (Opcode::Binary, Some(_)) => {
                return Err(Violation::new("a message inside of another one").into());
            }
            (Opcode::Continuation, None) => {
                return Err(Violation::new("the rest of a message that was never begun").into());
            }
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                let Some(payload) = self.ahead.get(start..start + length) else {
                    return Ok(None);
                };
                let payload = payload.to_vec();
                self.ahead.drain(..start + length);
                return Ok(Some(match opcode {
                    Opcode::Close => Some(Next::Close(payload)),
                    Opcode::Ping => {
                        self.idle.note("a WebSocket ping")?;
                        Some(Next::Ping(payload))
                    }
                    _ => {
                        self.idle.note("a WebSocket pong")?;
                        None
                    }
                }));
            }
        };
        let so_far = in_message + length;
        if so_far > MAX_MESSAGE_BYTES {
            return Err(frame::too_large().into());
        }
        self.ahead.drain(..start);
        match length {
            0 => self.idle.note("an empty WebSocket frame")?,
            _ => self.idle = Flood::default(),
        }
        self.message = (!is_last).then_some(so_far);
        self.left = length;
        Ok(Some(None))
    }

    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        let mut space = [0; CHUNK];
        let mut chunk = ReadBuf::new(&mut space);
        ready!(Pin::new(stream).poll_read(cx, &mut chunk))?;
        self.ahead.extend_from_slice(chunk.filled());
        Poll::Ready(Ok(chunk.filled().len()))
    }

    /// Moves what fits of the payload from what came ahead.
    fn take_payload(&mut self, buffer: &mut ReadBuf<'_>) -> usize {
        let length = self.left.min(self.ahead.len()).min(buffer.remaining());
        let part: Vec<u8> = self.ahead.drain(..length).collect();
        buffer.put_slice(&part);
        self.left -= length;
        length
    }

    /// Reads from the stream into the buffer, but no further than the payload goes.
    fn poll_payload(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let most = self.left.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(stream).poll_read(cx, &mut part))?;
        let length = part.filled().len();
        buffer.advance(length);
        self.left = self.left.saturating_sub(length);
        Poll::Ready(Ok(length))
    }
}
