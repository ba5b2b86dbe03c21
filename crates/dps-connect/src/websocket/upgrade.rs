//! The upgrade from HTTP to WebSocket, on the client's side.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_state_machine::ConnectionError;
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{PATH, WsBytes, refusal::refusal};
use crate::{
    carrier::WEBSOCKET_PORT,
    connector::Opened,
    endpoint::host_and_port,
    failure::{self, Peer},
    first_bytes::greeting,
    head::{Head, begins_http},
};

/// The largest head of an answer to the upgrade, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Asks for the upgrade and checks the answer, which may be the service's refusal.
///
/// See <https://www.rfc-editor.org/rfc/rfc6455#section-4.1>.
pub(crate) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    peer: &Peer,
    subprotocol: &str,
    user_agent: &str,
) -> Result<Opened<WsBytes<S>>, ConnectionError> {
    let broke = |error: io::Error| failure::because(failure::websocket_broke(peer, &error), error);
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
        let head = match Head::parse(&answer, MAX_HEAD) {
            Ok(head) => head,
            Err(_) if !begins_http(&answer) => {
                let heard = greeting(&mut stream, &answer).await;
                return Err(failure::websocket_not_http(peer, &heard));
            }
            Err(error) => return Err(failure::websocket(peer, &error.to_string())),
        };
        let Some((head, length)) = head else { continue };
        let read_ahead = answer.get(length..).unwrap_or_default().to_vec();
        if head.status != 101 {
            return refusal(&mut stream, peer, &head, read_ahead).await.map(Opened::Refused);
        }
        check(&head, peer, &key, subprotocol)?;
        return Ok(Opened::Ready(WsBytes::new(stream, read_ahead)));
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

/// Whether the upgrade is the one that was asked for.
fn check(head: &Head, peer: &Peer, key: &str, subprotocol: &str) -> Result<(), ConnectionError> {
    if !head.has("Upgrade", "websocket") || !head.has("Connection", "upgrade") {
        return Err(failure::websocket(peer, "its answer upgrades to something else"));
    }
    if !head.values("Sec-WebSocket-Accept").eq([accept_key(key).as_str()]) {
        return Err(failure::websocket(peer, "its answer does not belong to our request"));
    }
    if let Some(extension) = head.values("Sec-WebSocket-Extensions").next() {
        let reason = format!("it uses the extension {extension:?}, which was not asked for");
        return Err(failure::websocket(peer, &reason));
    }
    // Servers differ in how they spell it.
    let spoken: Vec<_> = head.values("Sec-WebSocket-Protocol").collect();
    match spoken.as_slice() {
        [spoken] if spoken.eq_ignore_ascii_case(subprotocol) => Ok(()),
        [] => {
            let reason = format!("it does not say that it speaks {subprotocol:?}");
            Err(failure::websocket(peer, &reason).permanent())
        }
        spoken => {
            let spoken = spoken.join(", ");
            Err(failure::websocket_speaks(peer, &spoken, subprotocol))
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
}
