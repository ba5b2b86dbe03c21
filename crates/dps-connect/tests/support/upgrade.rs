//! A server's end of the upgrade to WebSocket. The tests of the transports that go over it include this file.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use dps_connect::{Config, internal::websocket::accept_key};
use dps_state_machine::{Error, Progress, Settings, StateMachine, TransportHandlers};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

use crate::support::{
    ServerStream, config, head, listen_tls, localhost, swallow,
    transport::{request, trusted_tls},
};

/// Takes the upgrade to the subprotocol, and answers with it in another spelling.
async fn switch(mut tls: ServerStream, subprotocol: &str) -> Option<ServerStream> {
    let request = head(&mut tls).await;
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    assert!(request.starts_with("GET /$iothub/websocket HTTP/1.1\r\n"), "{request}");
    let asked = format!("\r\nSec-WebSocket-Protocol: {subprotocol}\r\n");
    assert!(request.contains(&asked), "{request}");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        accept_key(key),
        subprotocol.to_lowercase()
    );
    tls.write_all(answer.as_bytes()).await.ok()?;
    Some(tls)
}

/// Takes the upgrade; what is written goes out in messages, and what messages bring is read.
pub(crate) async fn accept(tls: ServerStream, subprotocol: &str) -> Option<DuplexStream> {
    let tls = switch(tls, subprotocol).await?;
    let socket = WebSocketStream::from_raw_socket(tls, Role::Server, None).await;
    let (near, far) = duplex(64 * 1024);
    let (mut from, mut to) = split(far);
    let (mut sink, mut messages) = socket.split();
    tokio::spawn(async move {
        let outgoing = async {
            let mut buffer = vec![0; 16 * 1024];
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                let message = Message::Binary(buffer[..read].to_vec().into());
                sink.send(message).await.ok()?;
            }
            sink.close().await.ok()
        };
        let incoming = async {
            while let Some(Ok(message)) = messages.next().await {
                if let Message::Binary(bytes) = message {
                    to.write_all(&bytes).await.ok()?;
                }
            }
            to.shutdown().await.ok()
        };
        tokio::join!(outgoing, incoming)
    });
    Some(near)
}

/// A server that takes the upgrade and answers what comes with these bytes; the configuration of a device that
/// trusts it.
pub(crate) async fn saying(subprotocol: &'static str, bytes: impl Into<Vec<u8>>) -> Config {
    let (tls, roots) = trusted_tls();
    let bytes = bytes.into();
    let address = listen_tls(tls, move |tls| {
        let bytes = bytes.clone();
        async move {
            let mut tls = switch(tls, subprotocol).await.unwrap();
            let _ = tls.read(&mut [0; 1024]).await;
            tls.write_all(&bytes).await.unwrap();
            swallow(tls).await;
        }
    })
    .await;
    config(&localhost(address), roots)
}

/// Whatever code a close has, be it one that must not be on the wire, and whatever stands after it.
/// See <https://www.rfc-editor.org/rfc/rfc6455#section-7.4>.
pub(crate) async fn every_close_is_a_lost_connection<T: TransportHandlers>(
    subprotocol: &'static str,
    transport: fn(Config) -> T,
) {
    let codes = [0_u16, 999, 2999, 3000, 4000, 5000, 65535].into_iter().chain(1000..=1016);
    let codes = codes.map(|code| code.to_be_bytes().to_vec());
    let words = [&b"busy"[..], b"\xff\xfe", b"\xe2\x82"];
    let with_words = words.map(|words| [b"\x03\xe8", words].concat());
    let payloads = codes.chain(with_words).chain([vec![], vec![3], vec![0]]);
    for payload in payloads {
        let length = u8::try_from(payload.len()).unwrap();
        let close = [&[0x88, length], &payload[..]].concat();
        let mut transport = transport(saying(subprotocol, close).await);
        match transport.registration_request(&request(), &Progress::default()).await {
            Err(Error::Connection(error)) => {
                assert!(error.lost && error.retryable, "{payload:x?}: {error:?}");
            }
            other => panic!("{payload:x?}: {other:?}"),
        }
    }
}

static BUSY: AtomicBool = AtomicBool::new(true);

/// Refuses the first upgrade of the process as the service does when it is busy, and takes the others.
pub(crate) async fn busy_at_first(
    mut tls: ServerStream,
    subprotocol: &str,
) -> Option<DuplexStream> {
    if !BUSY.swap(false, Ordering::SeqCst) {
        return accept(tls, subprotocol).await;
    }
    head(&mut tls).await;
    let body = r#"{"errorCode":429001,"trackingId":"t-1","message":"Too many"}"#;
    let answer = format!(
        "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tls.write_all(answer.as_bytes()).await.ok()?;
    swallow(tls).await;
    None
}

/// An upgrade that the service refuses because it is busy is waited for and tried again, as on every transport.
pub(crate) async fn is_tried_again(transport: impl TransportHandlers + 'static) {
    let begin = std::time::Instant::now();
    let mut settings = Settings::default();
    settings.poll_floor = Duration::ZERO;
    let registered = StateMachine::new(transport, settings).register(request()).await.unwrap();
    assert_eq!(registered.assigned_hub, "hub");
    assert!(!BUSY.load(Ordering::SeqCst), "it was refused once");
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}
