//! The upgrade from HTTP to WebSocket, on the client's side.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_state_machine::ConnectionError;
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{PATH, WsBytes, frame::Role};
use crate::{
    carrier::WEBSOCKET_PORT,
    endpoint::host_and_port,
    failure::{self, Peer},
};

/// The largest head of an answer to the upgrade, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Asks for the upgrade and checks the answer.
///
/// See <https://www.rfc-editor.org/rfc/rfc6455#section-4.1>.
pub(crate) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    peer: &Peer,
    subprotocol: &str,
    user_agent: &str,
) -> Result<WsBytes<S>, ConnectionError> {
    let broke = |error: io::Error| failure::websocket_broke(peer, &error).source(error);
    let key = fresh_key()
        .ok_or_else(|| failure::websocket(peer, "this system gave no random numbers"))?;
    let request = request(peer, &key, subprotocol, user_agent);
    stream.write_all(request.as_bytes()).await.map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await.map_err(broke)? == 0 {
            return Err(broke(io::ErrorKind::UnexpectedEof.into()));
        }
        match Head::parse(&answer) {
            Ok(Some((head, length))) => {
                head.check(peer, &key, subprotocol)?;
                let read_ahead = answer.split_off(length);
                return Ok(WsBytes::new(stream, read_ahead, Role::Client));
            }
            Ok(None) if answer.len() < MAX_HEAD => {}
            Ok(None) => return Err(failure::websocket(peer, "its answer is too long")),
            Err(NotHttp) => return Err(failure::websocket(peer, "its answer is not HTTP")),
        }
    }
}

fn request(peer: &Peer, key: &str, subprotocol: &str, user_agent: &str) -> String {
    let host = match peer.port() {
        WEBSOCKET_PORT if peer.host().contains(':') => format!("[{}]", peer.host()),
        WEBSOCKET_PORT => peer.host().to_owned(),
        port => host_and_port(peer.host(), port),
    };
    format!(
        "GET {PATH} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\nUser-Agent: {user_agent}\r\n\r\n"
    )
}

/// 16 random bytes in base64.
fn fresh_key() -> Option<String> {
    let mut nonce = [0; 16];
    SystemRandom::new().fill(&mut nonce).ok()?;
    Some(STANDARD.encode(nonce))
}

/// What a server answers to the key of an upgrade, as `Sec-WebSocket-Accept`.
#[must_use]
pub fn accept_key(key: &str) -> String {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.finish())
}

/// The head of the answer to the upgrade.
#[derive(Debug, PartialEq, Eq)]
struct Head<'a> {
    status: u16,
    /// The line after `HTTP/1.1`.
    line: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

#[derive(Debug, PartialEq, Eq)]
struct NotHttp;

impl<'a> Head<'a> {
    /// The head and its length; `None` while more is to come.
    fn parse(answer: &'a [u8]) -> Result<Option<(Self, usize)>, NotHttp> {
        const VERSION: &[u8] = b"HTTP/1.";
        if !VERSION.iter().zip(answer).all(|(expected, byte)| expected == byte) {
            return Err(NotHttp);
        }
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = answer.get(..end).and_then(|head| str::from_utf8(head).ok()).ok_or(NotHttp)?;
        let mut lines = text.split("\r\n");
        let (_, line) = lines.next().and_then(|line| line.split_once(' ')).ok_or(NotHttp)?;
        let code = line.split(' ').next().filter(|code| code.len() == 3);
        let status = code.and_then(|code| code.parse().ok()).ok_or(NotHttp)?;
        let fields = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name, value.trim())))
            .collect::<Option<_>>()
            .ok_or(NotHttp)?;
        Ok(Some((Self { status, line, fields }, end + 4)))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.fields
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .flat_map(|(_, value)| value.split(',').map(str::trim))
    }

    fn has(&self, name: &str, token: &str) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(token))
    }

    fn check(&self, peer: &Peer, key: &str, subprotocol: &str) -> Result<(), ConnectionError> {
        if self.status != 101 {
            return Err(failure::websocket_refused(peer, self.status, self.line));
        }
        if !self.has("Upgrade", "websocket") || !self.has("Connection", "upgrade") {
            return Err(failure::websocket(peer, "its answer upgrades to something else"));
        }
        if !self.values("Sec-WebSocket-Accept").eq([accept_key(key).as_str()]) {
            return Err(failure::websocket(peer, "its answer does not belong to our request"));
        }
        if let Some(extension) = self.values("Sec-WebSocket-Extensions").next() {
            let reason = format!("it uses the extension {extension:?}, which was not asked for");
            return Err(failure::websocket(peer, &reason));
        }
        // Servers differ in how they spell it.
        let spoken: Vec<_> = self.values("Sec-WebSocket-Protocol").collect();
        match spoken.as_slice() {
            [spoken] if spoken.eq_ignore_ascii_case(subprotocol) => Ok(()),
            [] => {
                let reason = format!("it does not say that it speaks {subprotocol:?}");
                Err(failure::websocket(peer, &reason).permanent())
            }
            spoken => {
                let spoken = spoken.join(", ");
                let reason = format!("it speaks {spoken:?}, not {subprotocol:?}");
                Err(failure::websocket(peer, &reason).permanent())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_key_gives_the_known_answer() {
        // The example of RFC 6455, section 1.3.
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (one, other) = (fresh_key().unwrap(), fresh_key().unwrap());
        assert!(one != other && one.len() == 24, "{one} {other}");
    }

    #[test]
    fn a_head_is_read_up_to_its_end_and_no_further() {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nA:b\r\nC: d , e\r\n\r\nrest";
        let (head, length) = Head::parse(answer).unwrap().unwrap();
        assert_eq!((head.status, head.line), (101, "101 Switching Protocols"));
        assert_eq!(head.fields, [("A", "b"), ("C", "d , e")]);
        assert!(head.values("c").eq(["d", "e"]) && head.has("c", "E") && !head.has("A", "c"));
        assert_eq!(&answer[length..], b"rest");
        for partial in ["", "HT", "HTTP/1.1 101", "HTTP/1.1 101 Sure\r\nA: b\r\n"] {
            assert_eq!(Head::parse(partial.as_bytes()), Ok(None), "{partial}");
        }
        for junk in [
            "SSH-2.0",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 1o1 No\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\r\n\r\n",
        ] {
            assert_eq!(Head::parse(junk.as_bytes()), Err(NotHttp), "{junk}");
        }
    }
}
