//! WebSocket: the answer to an upgrade, and frames in both directions.

use std::{
    io::{self, Cursor},
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll},
    time::Duration,
};

use dps_attestation::{Attestation, SymmetricKey};
use dps_connect::{
    Config, Opened, fuzzing,
    internal::{
        failure::{self, Closed, Peer, Violation},
        websocket::{MAX_MESSAGE_BYTES, WsBytes, accept_key},
    },
};
use dps_state_machine::Stage;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tungstenite::{Message, WebSocket, protocol::Role};

use crate::stream::{self, Scripted};

static PEER: LazyLock<Peer> = LazyLock::new(|| {
    let key = SymmetricKey::from_bytes(b"the key of a device").expect("a key");
    let config = Config::new("0ne00AABBCC".parse().expect("a scope"), Attestation::from(key));
    Peer::of(&config, 443).expect("a peer")
});

/// The first byte says which: `u`, the answer to an upgrade; else, frames to the client. What comes; the first byte:
/// see [`Scripted`].
pub fn run(data: &[u8]) {
    let (kind, data) = data.split_first().unwrap_or((&0, &[]));
    let within = Duration::from_secs(20);
    match kind {
        b'u' => stream::run(within, upgrade(data)),
        _ => stream::run(within, async {
            read(WsBytes::client(Scripted::new(data).0).await, data).await
        }),
    };
    if data.len() < 512 {
        stream::run(within, round_trip(data));
    }
}

async fn upgrade(data: &[u8]) {
    let (stream, _) = Scripted::new(data);
    match fuzzing::upgrade(Accepting { inner: stream, seen: Vec::new() }, &PEER, "mqtt").await {
        Ok(Opened::Refused(refusal)) => {
            assert!((300..600).contains(&refusal.status), "{refusal:?}");
            assert!(refusal.body.len() < 32 * 1024, "{} bytes", refusal.body.len());
        }
        Ok(Opened::Ready(stream)) => {
            let text = String::from_utf8_lossy(data).to_lowercase();
            assert!(text.contains("http/1.") && text.contains(" 101"), "{text:?}");
            assert!(
                text.contains("mqtt") && text.contains("websocket") && text.contains("*accept*")
            );
            read(stream, data).await;
        }
        Err(error) => {
            assert!(matches!(error.stage, Stage::Websocket | Stage::Authenticate), "{error}");
            assert!(error.to_string().len() < 32 * 1024);
        }
    }
}

/// Reads all that there is. What came out was in what came in, and an end is one that is known.
async fn read<S: AsyncRead + AsyncWrite + Unpin>(mut stream: WsBytes<S>, data: &[u8]) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).await;
    assert!(bytes.len() <= data.len().min(MAX_MESSAGE_BYTES));
    if let Err(error) = end {
        let broken = failure::find::<Violation>(&error).is_some();
        assert!(broken || error.kind() != io::ErrorKind::Other, "{error}");
        let closed = failure::find::<Closed>(&error);
        assert!(closed.is_none_or(|closed| closed.to_string().len() < 600), "{error}");
    }
    let mut more = [0];
    assert!(!matches!(stream.read(&mut more).await, Ok(1..)), "an end is an end");
    stream.shutdown().await.ok();
}

/// What the client writes, in whatever portions, another implementation reads.
async fn round_trip(data: &[u8]) {
    let (near, mut far) = tokio::io::duplex(256);
    let write = async {
        let mut near = WsBytes::client(near).await;
        for part in data.chunks(usize::from(data.first().copied().unwrap_or_default()) + 1) {
            near.write_all(part).await.expect("room");
            near.flush().await.expect("room");
        }
        near.shutdown().await.expect("room");
    };
    let read = async {
        let mut frames = Vec::new();
        far.read_to_end(&mut frames).await.expect("an end");
        frames
    };
    let ((), frames) = tokio::join!(write, read);
    let mut server = WebSocket::from_raw_socket(Cursor::new(frames), Role::Server, None);
    let mut bytes = Vec::new();
    while let Ok(Message::Binary(part)) = server.read() {
        bytes.extend(part);
    }
    assert_eq!(bytes, data);
}

/// Puts the right answer to the client's key in the place of `*ACCEPT*`.
struct Accepting {
    inner: Scripted,
    seen: Vec<u8>,
}

impl AsyncRead for Accepting {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepting {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.seen.extend(bytes);
        let head = String::from_utf8_lossy(&this.seen);
        if let Some((_, key)) = head.split_once("Sec-WebSocket-Key: ") {
            let key = key.split("\r\n").next().unwrap_or_default();
            this.inner.replace(b"*ACCEPT*", accept_key(key).as_bytes());
        }
        Pin::new(&mut this.inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
