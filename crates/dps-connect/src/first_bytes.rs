//! Which protocol a peer speaks, told by the first bytes that it sends: on a wrong port it is another one than ours.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep, timeout_at},
};

/// So many bytes tell one protocol from another.
const ENOUGH: usize = 128;
/// So many bytes of an unknown protocol are shown. Of an echo of what we sent they reach no secret.
const SHOWN: usize = 16;
/// How long the rest of a greeting is waited for, once its first bytes are known to be none of ours.
const REST_TIME: Duration = Duration::from_millis(100);

/// What servers of other protocols send first.
const KNOWN: [(&[u8], &str); 18] = [
    (b"HTTP/", "an HTTP server"),
    (b"AMQP", "an AMQP server"),
    (b"SSH-", "an SSH server"),
    (b"\x14\x03", "a TLS server"),
    (b"\x15\x03", "a TLS server"),
    (b"\x16\x03", "a TLS server"),
    (b"* OK", "an IMAP server"),
    (b"* BYE", "an IMAP server"),
    (b"+OK", "a POP3 server"),
    (b"-ERR", "a Redis or POP3 server"),
    (b"-NOAUTH", "a Redis server"),
    (b"-DENIED", "a Redis server"),
    (b"+PONG", "a Redis server"),
    (b"RFB ", "a VNC server"),
    (b"INFO {", "a NATS server"),
    (b"PUT /", "an echo of what is sent to it"),
    (b"GET /", "an echo of what is sent to it"),
    (b"OPTIONS ", "an echo of what is sent to it"),
];

/// Says what the first bytes of a peer show: `it is an SSH server`, or `it begins "\x01\x02"`.
#[must_use]
pub(crate) fn describe(bytes: &[u8]) -> String {
    match name(bytes) {
        Some(name) => format!("it is {name}"),
        None => {
            let shown = bytes.get(..SHOWN).unwrap_or(bytes);
            format!("it begins \"{}\"", shown.escape_ascii())
        }
    }
}

/// Whether they are those of a protocol that has a name here.
#[cfg(feature = "websocket")]
pub(crate) fn is_known(bytes: &[u8]) -> bool {
    name(bytes).is_some()
}

fn name(bytes: &[u8]) -> Option<&'static str> {
    if let Some((_, name)) = KNOWN.iter().find(|(start, _)| bytes.starts_with(start)) {
        return Some(name);
    }
    let says = |word: &[u8]| bytes.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    Some(match bytes {
        // A reply of three digits: https://www.rfc-editor.org/rfc/rfc5321#section-4.2.1
        [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', ..] => {
            match (says(b"smtp") || says(b"mail"), says(b"ftp")) {
                (true, _) => "an SMTP server",
                (_, true) => "an FTP server",
                _ => "an SMTP or FTP server",
            }
        }
        // The frame SETTINGS: https://www.rfc-editor.org/rfc/rfc9113#section-3.4
        [0, 0, _, 4, 0, 0, 0, 0, 0, ..] => "an HTTP/2 server",
        // The options of https://www.rfc-editor.org/rfc/rfc854
        [0xff, 0xfb..=0xfe, ..] => "a Telnet server",
        [_, 0, 0, 0, 0x0a, ..] => "a MySQL server",
        [0x10, _, 0, 4, b'M', b'Q', b'T', b'T', ..] => "an echo of what is sent to it",
        [_, _, _, ..] if begins_mqtt(bytes) => "an MQTT broker",
        [0xe0, 0, ..] => "an MQTT broker",
        _ => return None,
    })
}

/// Whether these can be the first bytes of an MQTT broker: CONNACK, or DISCONNECT by a broker that does not take us.
/// See <https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html#_Toc3901074>.
#[must_use]
pub fn begins_mqtt(bytes: &[u8]) -> bool {
    matches!(
        bytes,
        [] | [0x20 | 0xe0]
            | [0x20, 2..=0x7f]
            | [0x20, 2..=0x7f, 0 | 1, ..]
            | [0x20, 0x80..=0xff, ..]
            | [0xe0, 0..=0x7f, ..]
    )
}

/// Whether this can be the first byte of TLS. See <https://www.rfc-editor.org/rfc/rfc8446#section-5.1>.
pub(crate) fn begins_tls(first: u8) -> bool {
    (0x14..=0x18).contains(&first)
}

/// Whether more bytes would not tell more.
fn is_told(bytes: &[u8]) -> bool {
    // What a line says may tell more than how it begins.
    bytes.len() >= ENOUGH || bytes.contains(&b'\n') || name(bytes).is_some_and(is_one)
}

fn is_one(name: &str) -> bool {
    !name.contains(" or ")
}

/// What has come, with what else of a greeting comes at once: it tells what the peer is.
///
/// # Cancel safety
/// Dropping the future loses what it has read.
pub async fn greeting(stream: &mut (impl AsyncRead + Unpin), came: &[u8]) -> Vec<u8> {
    let until = Instant::now() + REST_TIME;
    let mut bytes = came.to_vec();
    while !is_told(&bytes)
        && matches!(timeout_at(until, stream.read_buf(&mut bytes)).await, Ok(Ok(1..)))
    {}
    bytes
}

/// What came where TLS should have begun.
#[derive(Clone, Debug)]
pub(crate) struct NotTls(pub(crate) Vec<u8>);

impl fmt::Display for NotTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.0))
    }
}

impl StdError for NotTls {}

/// A stream below TLS. What comes first and is no TLS is the error [`NotTls`].
#[derive(Debug)]
pub struct Listening<S> {
    stream: S,
    heard: Heard,
}

#[derive(Debug)]
enum Heard {
    Nothing,
    Tls,
    Other(Vec<u8>, Pin<Box<Sleep>>),
}

impl<S> Listening<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, heard: Heard::Nothing }
    }

    /// The stream itself.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listening<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let stream = Pin::new(&mut this.stream);
        match &mut this.heard {
            Heard::Tls => return stream.poll_read(cx, buffer),
            Heard::Nothing => {
                ready!(stream.poll_read(cx, buffer))?;
                match buffer.filled().first() {
                    None => return Poll::Ready(Ok(())),
                    Some(first) if begins_tls(*first) => {
                        this.heard = Heard::Tls;
                        return Poll::Ready(Ok(()));
                    }
                    Some(_) => {
                        let heard = buffer.filled().to_vec();
                        buffer.clear();
                        this.heard = Heard::Other(heard, Box::pin(sleep(REST_TIME)));
                    }
                }
            }
            Heard::Other(..) => {}
        }
        this.poll_rest(cx).map(Err)
    }
}

impl<S: AsyncRead + Unpin> Listening<S> {
    /// Waits for the rest of what is no TLS.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Heard::Other(heard, rest_time) = &mut self.heard else { return Poll::Pending };
        while !is_told(heard) {
            let mut more = [0; ENOUGH];
            let mut more = ReadBuf::new(&mut more);
            match Pin::new(&mut self.stream).poll_read(cx, &mut more) {
                Poll::Ready(Ok(())) if !more.filled().is_empty() => heard.extend(more.filled()),
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(rest_time.as_mut().poll(cx));
                    break;
                }
            }
        }
        Poll::Ready(io::Error::other(NotTls(heard.clone())))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listening<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        let cases: &[(&[u8], &str)] = &[
            (b"HTTP/1.1 400 Bad Request\r\n", "it is an HTTP server"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "it is an SSH server"),
            (b"AMQP\0\x01\0\0", "it is an AMQP server"),
            (b"\x20\x02\0\x05", "it is an MQTT broker"),
            (b"\x20\x03\0\x84\0", "it is an MQTT broker"),
            (b"\xe0\0", "it is an MQTT broker"),
            (b"\x15\x03\x03\0\x02\x02\x78", "it is a TLS server"),
            (b"220 mail.example ESMTP Postfix\r\n", "it is an SMTP server"),
            (b"220 (vsFTPd 3.0.5)\r\n", "it is an FTP server"),
            (b"220 welcome\r\n", "it is an SMTP or FTP server"),
            (b"-ERR unknown command\r\n", "it is a Redis or POP3 server"),
            (b"-NOAUTH Authentication required.\r\n", "it is a Redis server"),
            (b"* OK IMAP4rev1\r\n", "it is an IMAP server"),
            (b"+OK POP3 ready\r\n", "it is a POP3 server"),
            (b"RFB 003.008\n", "it is a VNC server"),
            (b"\xff\xfd\x18", "it is a Telnet server"),
            (b"J\0\0\0\n8.0.36\0", "it is a MySQL server"),
            (b"\0\0\x12\x04\0\0\0\0\0\0\x03", "it is an HTTP/2 server"),
            (b"PUT /0ne1/registrations", "it is an echo of what is sent to it"),
            (b"\x10\x7f\0\x04MQTT\x04", "it is an echo of what is sent to it"),
            (b"\x01\"\xff", "it begins \"\\x01\\\"\\xff\""),
            (b"a very long greeting of nobody", "it begins \"a very long gree\""),
            (b"\x20\x01\0", "it begins \" \\x01\\x00\""),
        ];
        for (bytes, says) in cases {
            assert_eq!(describe(bytes), *says, "{bytes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_rest_of_a_greeting_is_waited_for_only_a_moment() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        let mut ours = Listening::new(ours);
        let talks = async {
            use tokio::io::AsyncWriteExt as _;
            for byte in b"SSH-2.0" {
                theirs.write_all(&[*byte]).await.unwrap();
                sleep(REST_TIME / 10).await;
            }
        };
        let (error, ()) = tokio::join!(async { ours.read_u8().await.unwrap_err() }, talks);
        assert!(error.to_string().contains("an SSH server"), "{error}");
        let (mut theirs, ours) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"\x20\x02").await.unwrap();
        let start = Instant::now();
        let error = Listening::new(ours).read_u8().await.unwrap_err();
        assert!(error.to_string().contains("it begins \" \\x02\""), "{error}");
        assert!(start.elapsed() <= REST_TIME * 2, "{:?}", start.elapsed());
    }
}
