//! A stream of bytes over the messages of a WebSocket.

use std::{
    io::{self, Cursor},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// The largest frame that is read, in bytes; above all that the service takes.
const MAX_FRAME: usize = 256 * 1024;
/// How much goes into one message, and how much may wait to be sent, in bytes.
const MAX_WAITING: usize = 64 * 1024;

/// So many frames may come in a row with no part of a message.
const MAX_IDLE: u32 = 10_000;

/// What is written goes out in binary messages, and what binary messages bring is read. Pings are answered while
/// somebody reads or writes; a close is answered and is the end of the stream.
pub(crate) struct WebSocket<S> {
    inner: S,
    /// What came and is not a whole frame yet.
    incoming: Vec<u8>,
    /// What messages brought and nobody has read yet.
    ready: Cursor<Vec<u8>>,
    /// Whether a message goes on with the next data frame.
    in_message: bool,
    /// How many frames have come since the last with a part of a message in it.
    idle: u32,
    outgoing: Vec<u8>,
    /// How much of it has gone out.
    sent: usize,
    is_close_sent: bool,
    ended: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// The server's end of a stream whose upgrade is done.
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            incoming: Vec::new(),
            ready: Cursor::default(),
            in_message: false,
            idle: 0,
            outgoing: Vec::new(),
            sent: 0,
            is_close_sent: false,
            ended: false,
        }
    }

    /// Takes what is whole from what came.
    fn take_frames(&mut self) -> io::Result<()> {
        while !self.ended {
            check_start(&self.incoming, self.in_message)?;
            let Some((header, payload)) = take_frame(&mut self.incoming)? else { break };
            self.idle += 1;
            if self.idle > MAX_IDLE {
                return Err(violation(format!("{MAX_IDLE} frames came with no part of a message")));
            }
            match header.opcode {
                OpCode::Data(_) => {
                    self.in_message = !header.is_final;
                    if !payload.is_empty() {
                        self.idle = 0;
                    }
                    self.ready.get_mut().extend(payload);
                }
                // While others wait to be sent, a newer ping may take its place.
                OpCode::Control(Control::Ping) if self.outgoing.len() < MAX_WAITING => {
                    self.append(OpCode::Control(Control::Pong), &payload)?;
                }
                OpCode::Control(Control::Close) => {
                    self.append_close(&payload)?;
                    self.ended = true;
                }
                OpCode::Control(_) => {}
            }
        }
        Ok(())
    }

    fn append(&mut self, opcode: OpCode, payload: &[u8]) -> io::Result<()> {
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        let length = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        header.format(length, &mut self.outgoing).map_err(io::Error::other)?;
        self.outgoing.extend(payload);
        Ok(())
    }

    fn append_close(&mut self, payload: &[u8]) -> io::Result<()> {
        if std::mem::replace(&mut self.is_close_sent, true) {
            return Ok(());
        }
        self.append(OpCode::Control(Control::Close), payload)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.outgoing.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Pin::new(&mut self.inner).poll_flush(cx)
    }
}

/// Refuses what can't begin a frame of ours by its first byte that shows it, however much of the frame is missing.
/// See <https://www.rfc-editor.org/rfc/rfc6455#section-5.2>.
fn check_start(incoming: &[u8], in_message: bool) -> io::Result<()> {
    match incoming {
        [first, ..] if first & 0x70 != 0 => {
            Err(violation("a frame of an extension that was not agreed on"))
        }
        [first, ..] if matches!(first & 0x0f, 3..=7 | 11..=15) => {
            Err(violation("a frame of no known opcode"))
        }
        [first, ..] if first & 0x0f <= 2 && in_message != (first & 0x0f == 0) => {
            Err(violation("a message inside of another one, or a part of none"))
        }
        [first, ..] if first & 0x0f == 1 => Err(violation("a text message where bytes belong")),
        [_, second, ..] if second & 0x80 == 0 => {
            Err(violation("a frame without a mask from a client"))
        }
        _ => Ok(()),
    }
}

/// Takes one whole frame from the front, its mask taken off.
fn take_frame(incoming: &mut Vec<u8>) -> io::Result<Option<(FrameHeader, Vec<u8>)>> {
    let mut cursor = Cursor::new(&*incoming);
    let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(violation)? else {
        return Ok(None);
    };
    let is_control = matches!(header.opcode, OpCode::Control(_));
    if is_control && (length > 125 || !header.is_final) {
        return Err(violation("a control frame that is too long or in pieces"));
    }
    let mask = header.mask.unwrap_or_default();
    let length = usize::try_from(length).ok().filter(|length| *length <= MAX_FRAME);
    let length = length.ok_or_else(|| violation("a frame that is too large"))?;
    let start = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
    let Some(payload) = incoming.get(start..start.saturating_add(length)) else { return Ok(None) };
    let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    incoming.drain(..start + length);
    Ok(Some((header, payload)))
}

fn violation(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("WebSocket: {}", what.to_string()))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        /// How much is read at once, in bytes.
        const CHUNK: usize = 4096;
        let this = self.get_mut();
        loop {
            // What is owed, like the answer to a ping; nobody waits for it here.
            let _ = this.poll_send(cx);
            if this.ready.position() < this.ready.get_ref().len() as u64 {
                return Pin::new(&mut this.ready).poll_read(cx, buffer);
            }
            this.ready = Cursor::default();
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            let mut space = [0; CHUNK];
            let mut chunk = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            this.ended = chunk.filled().is_empty();
            this.incoming.extend(chunk.filled());
            // What comes after a broken rule means nothing.
            this.take_frames().inspect_err(|_| this.ended = true)?;
            if this.ready.get_ref().is_empty() && !this.ended {
                // A device that sends frames with nothing in them leaves the others their turns.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_close_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.outgoing.len() >= MAX_WAITING {
            ready!(this.poll_send(cx))?;
        }
        let part = bytes.get(..MAX_WAITING).unwrap_or(bytes);
        this.append(OpCode::Data(Data::Binary), part)?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    /// Sends a close, without waiting for the peer's, and closes the stream below.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.append_close(&[])?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tungstenite::{Message, protocol::Role};

    use super::*;

    /// What the server reads of these bytes, and what it has sent by then.
    async fn read(bytes: &[u8]) -> (io::Result<Vec<u8>>, Vec<u8>) {
        let (mut client, server) = tokio::io::duplex(1024 * 1024);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let mut server = WebSocket::new(server);
        let mut read = Vec::new();
        let result = server.read_to_end(&mut read).await.map(|_| read);
        drop(server);
        let mut sent = Vec::new();
        client.read_to_end(&mut sent).await.unwrap();
        (result, sent)
    }

    /// A frame with a mask of zeros, which changes nothing.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = 0x80 | u8::try_from(payload.len()).unwrap();
        [&[first, length, 0, 0, 0, 0], payload].concat()
    }

    #[tokio::test]
    async fn fragments_are_joined_pings_answered_and_a_close_is_the_end() {
        let frames = [
            frame(0x02, b"one"),
            frame(0x89, b"hi"),
            frame(0x80, b" two"),
            frame(0x8a, b""),
            frame(0x88, b"\x03\xe8"),
            frame(0x82, b"late"),
        ];
        let (read, sent) = read(&frames.concat()).await;
        assert_eq!(read.unwrap(), b"one two");
        assert_eq!(sent, b"\x8a\x02hi\x88\x02\x03\xe8");
    }

    #[tokio::test]
    async fn frames_that_break_the_rules_end_the_stream_and_are_named() {
        let too_large = [&b"\x82\xff"[..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
        for (bytes, says) in [
            (frame(0x81, b"hi"), "text"),
            (frame(0xc2, b"hi"), "extension"),
            (frame(0x80, b"hi"), "part of none"),
            ([frame(0x02, b"hi"), frame(0x82, b"hi")].concat(), "inside of another"),
            (frame(0x09, b"hi"), "control frame"),
            (b"\x82\x02hi".to_vec(), "without a mask"),
            (frame(0x83, b"hi"), "opcode"),
            (too_large, "too large"),
        ] {
            let (read, _) = read(&[bytes.clone(), frame(0x82, b"late")].concat()).await;
            let error = read.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(says), "{bytes:x?}: {error}");
        }
    }

    #[tokio::test]
    async fn another_implementation_reads_what_is_written_and_is_read() {
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let sent: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            let mut masked = Cursor::new(Vec::new());
            let mut client =
                tungstenite::WebSocket::from_raw_socket(&mut masked, Role::Client, None);
            client.send(Message::Binary(sent.clone().into())).unwrap();
            drop(client);
            assert!(read(masked.get_ref()).await.0.unwrap() == sent, "{length}");

            let (client, server) = tokio::io::duplex(1024 * 1024);
            let mut server = WebSocket::new(server);
            server.write_all(&sent).await.unwrap();
            server.shutdown().await.unwrap();
            let mut frames = Vec::new();
            { client }.read_to_end(&mut frames).await.unwrap();
            let frames = Cursor::new(frames);
            let mut client = tungstenite::WebSocket::from_raw_socket(frames, Role::Client, None);
            let mut read = Vec::new();
            while let Ok(Message::Binary(part)) = client.read() {
                read.extend(part);
            }
            assert!(read == sent, "{length}");
        }
    }
}
