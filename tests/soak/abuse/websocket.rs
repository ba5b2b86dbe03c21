//! Abuse of WebSockets.

use std::io;

use dps_client::Transport;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::client::TlsStream;

use super::{
    Abuse, FEW, FLOOD,
    target::{Target, read_until, wait_for_close},
};

/// Upgrades, and then these frames: once at the beginning, then over and over.
struct Frames<'a> {
    subprotocol: &'a str,
    first: &'a [u8],
    then: &'a [u8],
    listen: bool,
}

/// Binary, not the last fragment, 1 byte, masked with zeros.
const FRAGMENT: &[u8] = &[0x02, 0x81, 0, 0, 0, 0, b'x'];
/// A continuation that is not the last one.
const CONTINUATION: &[u8] = &[0x00, 0x81, 0, 0, 0, 0, b'x'];
/// An empty continuation.
const NOTHING: &[u8] = &[0x00, 0x80, 0, 0, 0, 0];
const PING: &[u8] = &[0x89, 0x80, 0, 0, 0, 0];
/// Binary, 2^62 bytes are announced.
const HUGE: &[u8] = &[0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Binary, one byte without a mask: what a client must not send.
const UNMASKED: &[u8] = &[0x82, 0x01, b'x'];

pub(super) const ABUSES: &[Abuse] = &[
    Abuse::new("WebSocket: upgraded and silent (MQTT)", FLOOD, Transport::MqttWs, |target| {
        Box::pin(async move { wait_for_close(&mut upgrade(&target, "mqtt").await?).await })
    }),
    Abuse::new("WebSocket: upgraded and silent (AMQP)", FLOOD, Transport::AmqpWs, |target| {
        Box::pin(async move { wait_for_close(&mut upgrade(&target, "AMQPWSB10").await?).await })
    }),
    Abuse::new("WebSocket: upgraded and gone", FEW, Transport::MqttWs, |target| {
        Box::pin(async move { upgrade(&target, "mqtt").await.map(drop) })
    }),
    Abuse::new("WebSocket: one huge frame", FEW, Transport::MqttWs, |target| {
        Box::pin(send(
            target,
            Frames { subprotocol: "mqtt", first: HUGE, then: &[0; 4096], listen: true },
        ))
    }),
    Abuse::new("WebSocket: fragments without end", FEW, Transport::MqttWs, |target| {
        Box::pin(send(
            target,
            Frames { subprotocol: "mqtt", first: FRAGMENT, then: CONTINUATION, listen: true },
        ))
    }),
    Abuse::new("WebSocket: empty fragments without end", FEW, Transport::AmqpWs, |target| {
        Box::pin(send(
            target,
            Frames { subprotocol: "AMQPWSB10", first: FRAGMENT, then: NOTHING, listen: true },
        ))
    }),
    Abuse::new("WebSocket: pings without end", FEW, Transport::MqttWs, |target| {
        Box::pin(send(target, Frames { subprotocol: "mqtt", first: b"", then: PING, listen: true }))
    }),
    Abuse::new("WebSocket: pings without end, pongs unread", FEW, Transport::AmqpWs, |target| {
        Box::pin(send(
            target,
            Frames { subprotocol: "AMQPWSB10", first: b"", then: PING, listen: false },
        ))
    }),
    Abuse::new("WebSocket: frames without a mask", FEW, Transport::MqttWs, |target| {
        Box::pin(send(
            target,
            Frames { subprotocol: "mqtt", first: b"", then: UNMASKED, listen: true },
        ))
    }),
    Abuse::new("WebSocket: noise after the upgrade", FEW, Transport::AmqpWs, |target| {
        Box::pin(send(
            target,
            Frames { subprotocol: "AMQPWSB10", first: b"", then: &[0xff; 512], listen: true },
        ))
    }),
];

async fn upgrade(
    target: &Target,
    subprotocol: &str,
) -> io::Result<TlsStream<tokio::net::TcpStream>> {
    let mut stream = target.tls().await?;
    let request = format!(
        "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let answer = read_until(&mut stream, b"\r\n\r\n").await?;
    if answer.starts_with(b"HTTP/1.1 101") {
        return Ok(stream);
    }
    Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()))
}

async fn send(target: Target, frames: Frames<'static>) -> io::Result<()> {
    let Frames { subprotocol, first, then, listen } = frames;
    // Many at a time, so that it is the emulator that is kept busy.
    let then = then.repeat((4096 / then.len().max(1)).max(1));
    let (mut reader, mut writer) = tokio::io::split(upgrade(&target, subprotocol).await?);
    let conversation = async {
        writer.write_all(first).await?;
        loop {
            writer.write_all(&then).await?;
        }
    };
    if !listen {
        return conversation.await;
    }
    tokio::select! {
        outcome = conversation => outcome,
        outcome = wait_for_close(&mut reader) => outcome,
    }
}
