//! What can't begin the protocol of a listener ends the connection by its first byte that shows it.

use std::{net::SocketAddr, time::Duration};

use dps_emulator::Emulator;
use rustls::DEFAULT_VERSIONS;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Device, connect, connect_to, tls};

/// Far less than the limits for what may still become a request.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn emulator() -> Emulator {
    Emulator::builder().with_any_device(None, None).unwrap().start().await.unwrap()
}

/// Sends the bytes, and reads what comes until the other end closes.
async fn assert_closes(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8], case: &str) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    let mut heard = Vec::new();
    let closed = tokio::time::timeout(AT_ONCE, stream.read_to_end(&mut heard)).await;
    assert!(closed.is_ok(), "{case}: {bytes:02x?}, then silence, must not stay open");
}

#[tokio::test]
async fn plain_text_where_tls_belongs_is_answered_with_an_alert() {
    let emulator = emulator().await;
    for port in [emulator.https_port(), emulator.mqtt_port(), emulator.amqp_port()] {
        for bytes in
            [&b"G"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x10\x10\x00\x04MQTT", b"A", b"\x80", b"\0"]
        {
            let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            tcp.write_all(bytes).await.unwrap();
            let mut heard = Vec::new();
            let read = tokio::time::timeout(AT_ONCE, tcp.read_to_end(&mut heard)).await;
            read.unwrap_or_else(|_| panic!("{port} {bytes:02x?}")).unwrap();
            assert_eq!(heard, [21, 3, 3, 0, 2, 2, 10], "{bytes:02x?}");
        }
    }
}

#[tokio::test]
async fn what_is_not_the_protocol_of_the_port_is_not_waited_for_inside_of_tls() {
    let emulator = emulator().await;
    let cases: [(&str, u16, &[&[u8]]); 3] = [
        (
            "http",
            emulator.https_port(),
            &[b"\x16", b"\0", b"\x10", b"AMQP\0", b"GET\x7f", b"(", b"\x80"],
        ),
        (
            "mqtt",
            emulator.mqtt_port(),
            &[b"\0", b"G", b"A", b"\x16", b"\x20", b"\x11", b"\x30", b"\xc0", b"\xff"],
        ),
        (
            "amqp",
            emulator.amqp_port(),
            &[b"\0", b"G", b"\x16", b"\x10", b"AMQX", b"AMQP\x01", b"AMQP\0\0"],
        ),
    ];
    for (transport, port, inputs) in cases {
        for bytes in inputs {
            assert_closes(inside_tls(&emulator, port).await.stream, bytes, transport).await;
        }
    }
    // The name of the protocol comes later, and so does what an AMQP frame is.
    for bytes in [
        &b"\x10\x20\x01"[..],
        b"\x10\x20\x00\x04X",
        b"\x10\x20\x00\x06MQX",
        b"\x10\xff\xff\xff\xff",
    ] {
        assert_closes(inside_tls(&emulator, emulator.mqtt_port()).await.stream, bytes, "mqtt")
            .await;
    }
    for rest in [&b"\x01"[..], b"\0\x02", b"\0\0\0\x01", b"\0\0\0\x20\x01", b"\0\0\0\x20\x02\x02"] {
        let bytes = [b"AMQP\x03\x01\0\0", rest].concat();
        assert_closes(inside_tls(&emulator, emulator.amqp_port()).await.stream, &bytes, "amqp")
            .await;
    }
}

#[tokio::test]
async fn a_frame_of_websocket_that_cannot_be_ours_is_not_waited_for() {
    let emulator = emulator().await;
    for subprotocol in ["mqtt", "AMQPWSB10"] {
        // Of the last two, the frame is right and what it brings is not.
        for bytes in [
            &b"\x83"[..],
            b"\x8b",
            b"\xc2",
            b"\x81",
            b"\x01",
            b"\x80",
            b"\0",
            b"G",
            b"\x82\x02",
            b"\x82\x81\0\0\0\0G",
            b"\x82\x81\0\0\0\0\0",
        ] {
            let mut device = connect(&emulator).await.unwrap();
            let request = format!(
                "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
            );
            assert_eq!(device.ask(&request).await.unwrap().status, 101);
            assert_closes(device.stream, bytes, subprotocol).await;
        }
    }
}

#[tokio::test]
async fn what_is_no_http_is_not_waited_for_at_the_admin_port() {
    let config = Emulator::builder().with_any_device(None, None).unwrap().admin_port(0);
    let emulator = config.start().await.unwrap();
    for bytes in [&b"\x16"[..], b"\0", b"\x10", b"("] {
        let port = emulator.admin_port().unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert_closes(tcp, bytes, "admin").await;
    }
}

async fn inside_tls(emulator: &Emulator, port: u16) -> Device {
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    connect_to(address, tls(emulator, DEFAULT_VERSIONS, None), "localhost").await.unwrap()
}
