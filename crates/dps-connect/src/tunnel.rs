//! The tunnel through an HTTP proxy.

use std::io;

use dps_state_machine::ConnectionError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::{
    failure::{self, Peer},
    proxy::Proxy,
};

/// The largest head of a proxy's reply that is read, in bytes.
const MAX_HEAD: usize = 8 * 1024;

/// Asks the proxy for a tunnel to the peer. When it returns, the next byte of the stream is the peer's.
///
/// See <https://www.rfc-editor.org/rfc/rfc9110#name-connect>.
pub(crate) async fn open(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    peer: &Peer,
    user_agent: &str,
) -> Result<(), ConnectionError> {
    let broke =
        |error: io::Error| failure::because(failure::proxy_unreachable(proxy, &error), error);
    let refused = |reason: &str| failure::proxy_refused(proxy, peer, reason);
    stream
        .write_all(request(proxy, &peer.address(), user_agent).as_bytes())
        .await
        .map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut head = Vec::new();
    loop {
        // One byte at a time: what comes after the head is TLS's.
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(refused("it closed the connection without an answer"));
            }
            Err(error) => return Err(broke(error)),
        }
        match status(&head) {
            Reply::Partial if head.len() < MAX_HEAD => {}
            Reply::Partial => return Err(refused("its answer is too long")),
            Reply::NotHttp => return Err(refused("its answer is not HTTP")),
            Reply::Status(200..=299, _) => return Ok(()),
            Reply::Status(407, _) => return Err(failure::proxy_authentication(proxy)),
            Reply::Status(_, line) => return Err(refused(&format!("it answered {line:?}"))),
        }
    }
}

fn request(proxy: &Proxy, target: &str, user_agent: &str) -> Zeroizing<String> {
    let authorization = proxy
        .authorization()
        .map(|value| Zeroizing::new(format!("Proxy-Authorization: {}\r\n", value.as_str())));
    Zeroizing::new(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {user_agent}\r\n{}\r\n",
        authorization.as_ref().map_or("", |line| line.as_str())
    ))
}

#[derive(Debug, PartialEq, Eq)]
enum Reply<'a> {
    /// More is to come.
    Partial,
    /// No more is worth waiting for.
    NotHttp,
    /// The head is complete: the status, and the line after `HTTP/1.1`.
    Status(u16, &'a str),
}

/// Reads as much of a reply's head as there is.
fn status(head: &[u8]) -> Reply<'_> {
    const VERSION: &[u8] = b"HTTP/1.";
    if !VERSION.iter().zip(head).all(|(expected, byte)| expected == byte) {
        return Reply::NotHttp;
    }
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else { return Reply::Partial };
    let line = head.get(VERSION.len()..end).and_then(|line| str::from_utf8(line).ok());
    let Some((minor, line)) = line.and_then(|line| line.trim_end().split_once(' ')) else {
        return Reply::NotHttp;
    };
    let code = line.split_once(' ').map_or(line, |(code, _)| code);
    let three_digits = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
    match code.parse() {
        Ok(code) if three_digits && matches!(minor, "0" | "1") => {
            let done = head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n");
            if done { Reply::Status(code, line) } else { Reply::Partial }
        }
        _ => Reply::NotHttp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_up_to_its_end_and_refused_at_once_when_it_is_no_http() {
        let cases: &[(&[u8], Reply<'_>)] = &[
            (b"", Reply::Partial),
            (b"HTT", Reply::Partial),
            (b"HTTP/1.1 200 OK\r\n", Reply::Partial),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n", Reply::Partial),
            (b"HTTP/1.1 200 OK\r\n\r\n", Reply::Status(200, "200 OK")),
            (b"HTTP/1.0 200\r\nA: b\r\n\r\n", Reply::Status(200, "200")),
            (b"HTTP/1.1 403 No way\n\n", Reply::Status(403, "403 No way")),
            (b"SSH", Reply::NotHttp),
            (b"HTTP/2", Reply::NotHttp),
            (b"HTTP/1.1\r\n", Reply::NotHttp),
            (b"HTTP/1.1 2000 OK\r\n", Reply::NotHttp),
            (b"HTTP/1.1 +20 OK\r\n", Reply::NotHttp),
            (b"HTTP/1.7 200 OK\r\n", Reply::NotHttp),
            (b"HTTP/1.1 \xff\r\n", Reply::NotHttp),
        ];
        for (head, reply) in cases {
            assert_eq!(&status(head), reply, "{}", String::from_utf8_lossy(head));
        }
    }
}
