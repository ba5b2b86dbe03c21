//! WebSockets to servers on loopback, good and bad.
#![cfg(feature = "websocket")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use dps_connect::{
    Connector, Opened,
    internal::{
        failure::{self, Closed, Violation},
        websocket::{MAX_MESSAGE_BYTES, WsBytes, accept_key},
    },
};
use dps_state_machine::{ConnectionError, Error, Progress, Response, Stage, Step};
use futures_util::{SinkExt, StreamExt};
use support::{refusals::Cut, *};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

const TLS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// A server that answers each upgrade with what the function makes of the key, then echoes messages.
async fn upgrading(ca: &Authority, answer: fn(&str) -> String) -> SocketAddr {
    let config = server_config(&ca.server(|_| {}), None, TLS);
    listen_tls(config, move |mut tls| async move {
        let request = head(&mut tls).await;
        assert!(request.starts_with("GET /$iothub/websocket HTTP/1.1\r\nHost: localhost:"));
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
        tls.write_all(answer(key.unwrap()).as_bytes()).await.unwrap();
        let mut socket = WebSocketStream::from_raw_socket(tls, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    })
    .await
}

fn switching(key: &str, protocol: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{protocol}\r\n",
        accept_key(key)
    )
}

fn answered(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nRetry-After: 3\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn ready<S: std::fmt::Debug>(opened: Result<Opened<S>, Error>) -> S {
    match opened.unwrap() {
        Opened::Ready(stream) => stream,
        refused => panic!("{refused:?}"),
    }
}

fn refusal<S: std::fmt::Debug>(opened: Result<Opened<S>, Error>) -> Response {
    match opened.unwrap() {
        Opened::Refused(response) => response,
        ready => panic!("{ready:?}"),
    }
}

async fn refused(ca: &Authority, answer: fn(&str) -> String) -> ConnectionError {
    let address = upgrading(ca, answer).await;
    let connector = Connector::new(config(&localhost(address), ca.roots())).unwrap();
    transport::connection_error(connector.websocket("mqtt", &Progress::default()).await)
}

#[tokio::test]
async fn bytes_flow_once_the_server_has_switched_however_it_spells_the_subprotocol() {
    let ca = Authority::new("ca");
    let address = upgrading(&ca, |key| switching(key, "sec-websocket-protocol: MQTT\r\n")).await;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let progress = Progress::new(move |step| seen.lock().unwrap().push(step.clone()));
    let config = config(&localhost(address), ca.roots());
    let mut ws = ready(Connector::new(config).unwrap().websocket("mqtt", &progress).await);
    ws.write_all(b"hello").await.unwrap();
    ws.flush().await.unwrap();
    let mut echoed = [0; 5];
    ws.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
    ws.shutdown().await.unwrap();
    let steps = steps.lock().unwrap();
    assert_eq!(steps[steps.len() - 2..], [Step::Websocket, Step::Connected]);
    assert_eq!(steps.iter().filter(|step| **step == Step::Connected).count(), 1);
}

#[tokio::test]
async fn every_refusal_says_what_the_server_answered() {
    let ca = Authority::new("ca");
    type Case = (fn(&str) -> String, &'static str, bool);
    let cases: [Case; 12] = [
        (|_| answered("403 Forbidden", "<html>no</html>"), "403 Forbidden", false),
        (|_| answered("401 Unauthorized", "{}"), "401 Unauthorized", false),
        (|_| answered("404 Not Found", "[\"errorCode\"]"), "404 Not Found", false),
        (|_| answered("302 Found", ""), "302 Found", false),
        (|_| answered("408 Slow", ""), "408 Slow", true),
        (|_| answered("200 OK", r#"{"errorCode":401002}"#), "200 OK", false),
        (|_| "SSH-2.0-server\r\n".into(), "it does not speak HTTP: it is an SSH server", false),
        (|_| format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(70_000)), "too long", true),
        (
            |key| switching(key, "Sec-WebSocket-Protocol: stomp\r\n"),
            "\"stomp\", not \"mqtt\"",
            false,
        ),
        (|key| switching(key, ""), "does not say", false),
        (|_| switching("other", "Sec-WebSocket-Protocol: mqtt\r\n"), "does not belong", true),
        (
            |key| switching(key, "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            "permessage-deflate",
            true,
        ),
    ];
    for (answer, says, retryable) in cases {
        let error = refused(&ca, answer).await;
        assert_eq!(error.stage, Stage::Websocket, "{error}");
        assert!(error.to_string().contains(says), "{error} should say {says}");
        assert_eq!(error.retryable, retryable, "{error}");
        assert!(error.hint.is_some() && !error.lost, "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_by_the_service_is_an_answer() {
    const JSON: &str = r#"{"errorCode":401002,"trackingId":"t-1"}"#;
    let ca = Authority::new("ca");
    let chunks = "8;a=b\r\n{\"errorC\r\n1f\r\node\":401002,\"trackingId\":\"t-1\"}\r\n0\r\n\r\n";
    let chunked = format!("HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let long = "x".repeat(100_000);
    let cases = [
        (answered("429 Busy", JSON), 429, JSON, Some(3)),
        (answered("503 Busy", ""), 503, "", Some(3)),
        (answered("502 Bad Gateway", "<html>"), 502, "<html>", Some(3)),
        (answered("500 Oh", &long), 500, &long[..16 * 1024], Some(3)),
        (answered("401 No", JSON), 401, JSON, Some(3)),
        (answered("409 Both", &[JSON, "  "].concat()), 409, &[JSON, "  "].concat(), Some(3)),
        (format!("{}HTTP/1.1 200 OK", answered("400 No", JSON)), 400, JSON, Some(3)),
        (chunked, 401, JSON, None),
        // Its end is that of the connection.
        (format!("HTTP/1.0 403 No\r\n\r\n{JSON}"), 403, JSON, None),
    ];
    for (answer, status, body, seconds) in cases {
        let server = server_config(&ca.server(|_| {}), None, TLS);
        let address = listen_tls(server, move |mut tls| {
            let answer = answer.clone();
            async move {
                head(&mut tls).await;
                // In two parts, and the client may have read enough before the end.
                let (first, rest) = answer.split_at(answer.len() / 2);
                tls.write_all(first.as_bytes()).await.unwrap();
                tls.flush().await.unwrap();
                let _ = tls.write_all(rest.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        })
        .await;
        let connector = Connector::new(config(&localhost(address), ca.roots())).unwrap();
        let response = refusal(connector.websocket("mqtt", &Progress::default()).await);
        assert_eq!(response.status, status, "{body}");
        assert_eq!(String::from_utf8(response.body).unwrap(), body, "{status}");
        assert_eq!(response.retry_after.map(|time| time.as_secs()), seconds, "{status}");
        assert_eq!(response.protocol_result.get("status"), Some(&*status.to_string()), "{body}");
        assert_eq!(
            response.protocol_result.get("retry-after").is_some(),
            seconds.is_some(),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_read_however_odd_its_head_is() {
    let ca = Authority::new("ca");
    for answer in refusals::odd_heads() {
        let tls = server_config(&ca.server(|_| {}), None, TLS);
        let address = refusals::answering(tls, answer.clone(), Cut::Closed).await;
        let response = upgrade_refused(&ca, address).await;
        refusals::is_kept(&response, 429, &answer);
        assert_eq!(response.body, refusals::JSON.as_bytes(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_refusal_whose_body_does_not_come_whole_keeps_its_status() {
    let ca = Authority::new("ca");
    let cases = refusals::cut_bodies().into_iter().map(async |(status, cut, answer)| {
        let tls = server_config(&ca.server(|_| {}), None, TLS);
        let address = refusals::answering(tls, answer.clone(), cut).await;
        refusals::is_kept(&upgrade_refused(&ca, address).await, status, &answer);
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn an_upgrade_is_taken_however_odd_its_head_is() {
    let ca = Authority::new("ca");
    type Switch = fn(&str) -> String;
    let answers: [Switch; 6] = [
        |accept| {
            format!(
                "Connection: , upgrade\r\nUpgrade: ,websocket\r\n{accept}\r\nSec-WebSocket-Protocol: mqtt,\r\n\r\n"
            )
        },
        |accept| {
            format!(
                "Connection: keep-alive,\r\n Upgrade\r\nUpgrade: websocket\r\n{accept}\r\nSec-WebSocket-Protocol:\r\n\tmqtt\r\n\r\n"
            )
        },
        |accept| {
            format!(
                "Connection: Upgrade\nUpgrade: websocket\n{accept}\nSec-WebSocket-Protocol: mqtt\n\n"
            )
        },
        |accept| {
            format!(
                "no field\r\nServer: é\r\nConnection : Upgrade\r\nUpgrade: websocket\r\n{accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
            )
        },
        |accept| {
            format!(
                "Connection: Upgrade\r\nUpgrade: websocket\r\n{accept}\r\nSec-WebSocket-Extensions: ,\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
            )
        },
        |accept| {
            format!(
                "Connection: Upgrade\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n{accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
            )
        },
    ];
    for (number, switch) in answers.into_iter().enumerate() {
        let tls = server_config(&ca.server(|_| {}), None, TLS);
        let address = listen_tls(tls, move |mut tls| async move {
            let request = head(&mut tls).await;
            let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
            let accept = format!("Sec-WebSocket-Accept: {}", accept_key(key.unwrap()));
            let first = "HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 101 Auf geht’s\r\n";
            tls.write_all([first, &switch(&accept)].concat().as_bytes()).await.unwrap();
            tls.write_all(b"\x82\x02hi").await.unwrap();
            swallow(tls).await;
        })
        .await;
        let connector = Connector::new(config(&localhost(address), ca.roots())).unwrap();
        let mut ws = ready(connector.websocket("mqtt", &Progress::default()).await);
        let mut bytes = [0; 2];
        ws.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hi", "{number}");
    }
}

async fn upgrade_refused(ca: &Authority, address: SocketAddr) -> Response {
    let connector = Connector::new(config(&localhost(address), ca.roots())).unwrap();
    refusal(connector.websocket("mqtt", &Progress::default()).await)
}

#[tokio::test]
async fn a_server_that_closes_or_hangs_is_named_with_the_stage() {
    let ca = Authority::new("ca");
    let closing = server_config(&ca.server(|_| {}), None, TLS);
    let closing = listen_tls(closing, |mut tls| async move {
        head(&mut tls).await;
    })
    .await;
    let hanging = server_config(&ca.server(|_| {}), None, TLS);
    let hanging = listen_tls(hanging, swallow).await;
    for (address, says) in [(closing, "closed the connection"), (hanging, "no WebSocket upgrade")] {
        let config = adjusted(config(&localhost(address), ca.roots()), |config| {
            config.connect_timeout = Some(std::time::Duration::from_millis(500))
        });
        let error = Connector::new(config)
            .unwrap()
            .websocket("mqtt", &Progress::default())
            .await
            .unwrap_err();
        assert_eq!(error.stage(), Some(Stage::Websocket), "{address:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// A client's end, and the bare stream of the server's.
async fn bare() -> (WsBytes<DuplexStream>, DuplexStream) {
    let (client, server) = duplex(4 * MAX_MESSAGE_BYTES);
    (WsBytes::client(client).await, server)
}

async fn read_all(ws: &mut WsBytes<DuplexStream>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    ws.read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[tokio::test]
async fn fragments_are_joined_pings_answered_and_a_close_is_the_end() {
    let (mut ws, mut server) = bare().await;
    server
        .write_all(b"\x02\x03one\x89\x02hi\x80\x04 two\x82\x00\x88\x07\x03\xf0later")
        .await
        .unwrap();
    let mut bytes = Vec::new();
    let end = ws.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!(bytes, b"one two");
    assert_eq!(failure::find::<Closed>(&end).unwrap().to_string(), "WebSocket close 1008 (later)");
    assert_eq!(read_all(&mut ws).await.unwrap(), b"", "an end is an end");
    drop(ws);
    let mut sent = Vec::new();
    server.read_to_end(&mut sent).await.unwrap();
    // A pong and a close, both masked.
    assert_eq!((sent[0], sent[1]), (0x8a, 0x82), "{sent:x?}");
    assert_eq!((sent[8], sent[9]), (0x88, 0x87), "{sent:x?}");
}

#[tokio::test]
async fn a_stream_that_ends_without_a_close_is_at_its_end_too() {
    let (mut ws, mut server) = bare().await;
    server.write_all(b"\x82\x03one").await.unwrap();
    drop(server);
    assert_eq!(read_all(&mut ws).await.unwrap(), b"one");
}

#[tokio::test]
async fn what_breaks_the_rules_is_distinguished_from_what_breaks_the_connection() {
    let too_large = u64::try_from(MAX_MESSAGE_BYTES + 1).unwrap().to_be_bytes();
    let cases: [&[u8]; 5] = [
        b"\x81\x02hi",
        b"\xc2\x02hi",
        b"\x82\x82\0\0\0\0hi",
        b"\x80\x02hi",
        &[&b"\x82\x7f"[..], &too_large].concat(),
    ];
    for bytes in cases {
        let (mut ws, mut server) = bare().await;
        server.write_all(bytes).await.unwrap();
        let error = read_all(&mut ws).await.unwrap_err();
        assert!(failure::find::<Violation>(&error).is_some(), "{bytes:x?}: {error:?}");
    }
}

/// What the other implementation gets and sends, while ours echoes.
#[tokio::test]
async fn another_implementation_understands_ours_and_ours_it() {
    let (ours, theirs) = duplex(100);
    let mut ours = WsBytes::client(ours).await;
    let mut theirs = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
    let echoing = async {
        let (mut buffer, mut all) = (vec![0; 70_000], Vec::new());
        let end = loop {
            match ours.read(&mut buffer).await {
                Ok(read @ 1..) => {
                    all.extend_from_slice(&buffer[..read]);
                    ours.write_all(&buffer[..read]).await.unwrap();
                    ours.flush().await.unwrap();
                }
                end => break end.unwrap_err(),
            }
        };
        assert_eq!(end.to_string(), "WebSocket close 1001 (going)");
        all
    };
    let sending = async {
        let mut sent = Vec::new();
        for length in [0, 1, 125, 126, 65_535, 65_536, 200_000] {
            let message: Vec<u8> = (0..length).map(|n: u32| n.to_be_bytes()[3]).collect();
            let ping = Message::Ping(format!("{length}").into());
            theirs.send(ping).await.unwrap();
            let (mut sink, mut stream) = (&mut theirs).split();
            let mut echoed = Vec::new();
            let mut pongs = 0;
            let reading = async {
                while echoed.len() < message.len() || pongs == 0 {
                    match stream.next().await.unwrap().unwrap() {
                        Message::Binary(bytes) => echoed.extend_from_slice(&bytes),
                        Message::Pong(_) => pongs += 1,
                        other => panic!("{other:?}"),
                    }
                }
            };
            let binary = Message::Binary(message.clone().into());
            let (written, ()) = tokio::join!(sink.send(binary), reading);
            written.unwrap();
            assert!(echoed == message, "{length}");
            sent.extend_from_slice(&message);
        }
        let reason = CloseFrame { code: CloseCode::Away, reason: "going".into() };
        theirs.send(Message::Close(Some(reason.clone()))).await.unwrap();
        assert_eq!(theirs.next().await.unwrap().unwrap(), Message::Close(Some(reason)));
        sent
    };
    let (received, sent) = tokio::join!(echoing, sending);
    assert!(received == sent);
}

#[tokio::test]
async fn of_many_pings_the_last_is_answered_and_nothing_piles_up() {
    let (client, mut server) = duplex(1024);
    let mut client = WsBytes::client(client).await;
    let pinging = async {
        for _ in 0..9_000 {
            server.write_all(b"\x89\x02hi").await.unwrap();
        }
        server.write_all(b"\x82\x04done").await.unwrap();
        server
    };
    let mut done = [0; 4];
    let (mut server, read) = tokio::join!(pinging, client.read_exact(&mut done));
    assert_eq!((read.unwrap(), &done), (4, b"done"));
    drop(client);
    let mut pongs = Vec::new();
    server.read_to_end(&mut pongs).await.unwrap();
    assert!(!pongs.is_empty() && pongs.len() < 2048, "{} bytes", pongs.len());
}

#[tokio::test]
async fn large_writes_arrive_whole_at_the_other_end() {
    let (client, server) = duplex(64);
    let mut client = WsBytes::client(client).await;
    let mut server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
    let sent: Vec<u8> = (0..300_000_u32).map(|n| n.to_be_bytes()[3]).collect();
    let expected = sent.clone();
    let writing = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let reading = async {
        let mut received = Vec::new();
        while let Some(Ok(message)) = server.next().await {
            received.extend(message.into_data());
        }
        received
    };
    let (received, ()) = tokio::join!(reading, writing);
    assert!(received == expected);
    assert_eq!(client.write_all(b"late").await.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}
