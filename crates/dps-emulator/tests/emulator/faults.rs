//! Everything that can be made to go wrong on a real socket.

use std::time::Duration;

use crate::support::{PATIENCE, Requests, connect, connect_with, idle_for, tls};
use dps_emulator::{
    Attestation, Behavior, Body, ConnectionFault, Delivery, Emulator, Enrollment, EventKind, Fault,
    Limits, RetryAfter, ServerCertificate, SymmetricKey,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

fn key() -> SymmetricKey {
    "c29tZSBkZXZpY2UncyBrZXk=".parse().unwrap()
}

async fn behaving(behavior: Behavior) -> (Emulator, Requests) {
    let enrollment =
        Enrollment::individual("dev-1".parse().unwrap(), Attestation::symmetric_key(key()));
    let emulator =
        Emulator::builder().enrollment(enrollment.behavior(behavior)).start().await.unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &key());
    (emulator, requests)
}

async fn closed(emulator: &Emulator) -> String {
    let is_closed = |event: &dps_emulator::Event| matches!(event.kind, EventKind::Closed { .. });
    let events = emulator.events();
    let event = tokio::time::timeout(PATIENCE, events.wait_for(is_closed)).await;
    match event.expect("closed in time").expect("closed at all").kind {
        EventKind::Closed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn refusals_and_retry_after_come_as_scripted() {
    let behavior = Behavior::new()
        .on_register(Fault::refuse(429).retry_after(RetryAfter::Seconds(1)))
        .on_register(Fault::refuse(503).retry_after(RetryAfter::DateIn(9)))
        .on_register(
            Fault::error(409_203, "busy")
                .retry_after(RetryAfter::Raw(vec!["1".into(), "x".into()])),
        )
        .on_register(Fault::with_body(Body::Html).status(502));
    let (emulator, requests) = behaving(behavior).await;
    let mut device = connect(&emulator).await.unwrap();
    let throttled = device.ask(&requests.register()).await.unwrap();
    assert_eq!((throttled.status, throttled.header("retry-after")), (429, Some("1")));
    let unavailable = device.ask(&requests.register()).await.unwrap();
    assert!(unavailable.header("retry-after").is_some_and(|date| date.ends_with("GMT")));
    let twice = device.ask(&requests.register()).await.unwrap();
    assert_eq!(twice.header("x-ms-error-code"), Some("409203"));
    let values: Vec<_> = twice.headers.iter().filter(|(name, _)| name == "retry-after").collect();
    assert_eq!(values.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), ["1", "x"]);
    let html = device.ask(&requests.register()).await.unwrap();
    assert_eq!((html.status, html.header("content-type")), (502, Some("text/html")));
    assert_eq!(device.ask(&requests.register()).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_answer_that_never_comes_leaves_the_connection_open() {
    let (emulator, requests) =
        behaving(Behavior::new().on_register(Fault::deliver(Delivery::Never))).await;
    let mut device = connect(&emulator).await.unwrap();
    device.send(requests.register()).await;
    let events = emulator.events();
    let answer = events.wait_for(|event| matches!(event.kind, EventKind::Answer { .. })).await;
    let EventKind::Answer { delivery, .. } = answer.unwrap().kind else { unreachable!() };
    assert_eq!(delivery, Delivery::Never);
    drop(device);
    assert!(!closed(&emulator).await.contains("scripted"));
}

#[tokio::test]
async fn connections_close_at_the_step_that_was_chosen() {
    for (delivery, body) in [
        (Delivery::CloseBefore, None),
        (Delivery::CloseMid(0), Some(0)),
        (Delivery::CloseMid(10), Some(10)),
        (Delivery::CloseAfter, Some(usize::MAX)),
    ] {
        let (emulator, requests) =
            behaving(Behavior::new().on_register(Fault::deliver(delivery))).await;
        let mut device = connect(&emulator).await.unwrap();
        let answer = device.ask(&requests.register()).await;
        match (answer, body) {
            (None, None) => {}
            (Some(answer), Some(usize::MAX)) => {
                assert!(answer.complete && answer.json()["status"] == "assigned");
                assert_eq!(answer.header("connection"), None, "it closes without a word");
            }
            (Some(answer), Some(length)) => {
                assert_eq!((answer.body.len(), answer.complete), (length, false), "{delivery:?}");
            }
            (answer, _) => panic!("{delivery:?}: {answer:?}"),
        }
        assert!(device.is_closed().await, "{delivery:?}");
        assert_eq!(closed(&emulator).await, "scripted");
        let mut again = connect(&emulator).await.unwrap();
        assert_eq!(again.ask(&requests.register()).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_long_answer_is_whole_before_the_connection_closes() {
    let fault = Fault::with_body(Body::Oversized(3_000_000)).delivery(Delivery::CloseAfter);
    let (emulator, requests) = behaving(Behavior::new().on_register(fault)).await;
    let mut device = connect(&emulator).await.unwrap();
    let answer = device.ask(&requests.register()).await.unwrap();
    assert!(answer.complete && answer.body.len() == 3_000_000);
    assert!(device.is_closed().await);
}

#[tokio::test]
async fn a_slow_answer_drips_and_the_next_one_does_not() {
    let drip = Delivery::Drip { bytes: 16, every: Duration::from_millis(1) };
    let (emulator, requests) = behaving(Behavior::new().on_register(Fault::deliver(drip))).await;
    let mut device = connect(&emulator).await.unwrap();
    device.send(requests.register()).await;
    let mut received = Vec::new();
    let mut reads = Vec::new();
    while !received.ends_with(b"\"assigned\"}") {
        let count = device.stream.read_buf(&mut received).await.unwrap();
        assert_ne!(count, 0);
        reads.push(count);
    }
    assert!(reads.iter().take(3).all(|count| count % 16 == 0), "{reads:?}");
    assert!(reads.len() > 3, "{reads:?}");
    let started = std::time::Instant::now();
    assert_eq!(device.ask(&requests.register()).await.unwrap().status, 200);
    assert!(started.elapsed() < PATIENCE);
}

#[tokio::test]
async fn connections_fail_before_anyone_is_known() {
    let (emulator, requests) = behaving(Behavior::new()).await;
    for fault in [
        ConnectionFault::CloseOnAccept,
        ConnectionFault::GarbageForTls,
        ConnectionFault::CloseAfterTls,
    ] {
        emulator.set_connection_faults([ConnectionFault::Pass, fault]);
        let mut good = connect(&emulator).await.unwrap();
        match connect(&emulator).await {
            Err(_) => assert_ne!(fault, ConnectionFault::CloseAfterTls),
            Ok(mut device) => {
                assert_eq!(fault, ConnectionFault::CloseAfterTls);
                assert!(device.is_closed().await);
            }
        }
        assert_eq!(good.ask(&requests.register()).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn connections_hang_before_anyone_is_known() {
    let (emulator, requests) = behaving(Behavior::new()).await;
    emulator.set_connection_faults([ConnectionFault::HangOnAccept, ConnectionFault::HangAfterTls]);
    let silent = TcpStream::connect(("127.0.0.1", emulator.https_port())).await.unwrap();
    let mut mute = connect(&emulator).await.unwrap();
    mute.send(requests.register()).await;
    let mut good = connect(&emulator).await.unwrap();
    assert_eq!(good.ask(&requests.register()).await.unwrap().status, 200);
    drop(silent);
    assert_eq!(closed(&emulator).await, "scripted: no TLS");
    emulator.stop().await;
    assert!(mute.is_closed().await);
}

#[tokio::test]
async fn the_server_certificate_is_wrong_where_it_was_asked_to_be() {
    for (certificate, says) in [
        (ServerCertificate::Expired, "xpired"),
        (ServerCertificate::NotYetValid, "valid yet"),
        (ServerCertificate::WrongName, "not valid for"),
        (ServerCertificate::WrongCa, "nvalid peer certificate"),
    ] {
        let emulator = Emulator::builder().server_certificate(certificate).start().await.unwrap();
        let error = connect(&emulator).await.err().unwrap().to_string();
        assert!(error.contains(says), "{certificate:?}: {error}");
        let events = emulator.events();
        let failed =
            |event: &dps_emulator::Event| matches!(event.kind, EventKind::TlsFailed { .. });
        assert!(tokio::time::timeout(PATIENCE, events.wait_for(failed)).await.unwrap().is_some());
    }
    let name = "global.azure-devices-provisioning.net";
    let emulator = Emulator::builder().server_names([name]).start().await.unwrap();
    for name in [name, "localhost", "127.0.0.1", "::1"] {
        let config = tls(&emulator, rustls::DEFAULT_VERSIONS, None);
        assert!(connect_with(&emulator, config, name).await.is_ok(), "{name}");
    }
    for name in ["no\u{e9}", "a b", "", "[::1]", "host:443", "https://host", "*.host", "a..b"] {
        let bad = Emulator::builder().server_names([name]).start().await.unwrap_err().to_string();
        let shown = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        assert_eq!(bad, format!("server-names{shown}: give a host name or an IP address"));
    }
}

#[tokio::test]
async fn slow_peers_are_disconnected_at_each_step() {
    let short = Duration::from_millis(50);
    let mut limits = idle_for(50);
    limits.handshake_timeout = short;
    limits.body_timeout = short;
    let enrollment =
        Enrollment::individual("dev-1".parse().unwrap(), Attestation::symmetric_key(key()));
    let emulator = Emulator::builder().enrollment(enrollment).limits(limits).start().await.unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &key());

    let mut no_tls = TcpStream::connect(("127.0.0.1", emulator.https_port())).await.unwrap();
    let mut end = [0; 1];
    let read = tokio::time::timeout(PATIENCE, no_tls.read(&mut end)).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    assert!(closed(&emulator).await.contains("too long"));

    let mut idle = connect(&emulator).await.unwrap();
    assert!(idle.is_closed().await);
    let mut slow_head = connect(&emulator).await.unwrap();
    slow_head.send("PUT /0ne").await;
    assert!(slow_head.answer().await.is_none_or(|answer| answer.status == 408));
    let mut slow_body = connect(&emulator).await.unwrap();
    let request = requests.register();
    slow_body.send(&request[..request.len() - 1]).await;
    assert_eq!(slow_body.answer().await.unwrap().status, 408);
    assert!(slow_body.is_closed().await, "the rest of the body is not waited for");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_disconnected() {
    let limits = idle_for(50);
    let flood = Fault::with_body(Body::Oversized(Body::MAX_OVERSIZED));
    let enrollment =
        Enrollment::individual("dev-1".parse().unwrap(), Attestation::symmetric_key(key()))
            .behavior(Behavior::new().on_register(flood));
    let emulator = Emulator::builder().enrollment(enrollment).limits(limits).start().await.unwrap();
    let mut device = connect(&emulator).await.unwrap();
    device.send(Requests::with_key(&emulator, "dev-1", &key()).register()).await;
    let reason = closed(&emulator).await;
    assert!(reason.contains("HTTP failed"), "{reason}");
}

#[tokio::test]
async fn a_service_whose_clock_is_ahead_finds_tokens_expired() {
    for (ahead, status) in [(3000, 200), (4000, 401)] {
        let enrollment =
            Enrollment::individual("dev-1".parse().unwrap(), Attestation::symmetric_key(key()));
        let emulator = Emulator::builder()
            .enrollment(enrollment)
            .clock_ahead(Duration::from_secs(ahead))
            .start()
            .await
            .unwrap();
        let requests = Requests::with_key(&emulator, "dev-1", &key());
        let answer = connect(&emulator).await.unwrap().ask(&requests.register()).await.unwrap();
        assert_eq!(answer.status, status, "{ahead}");
        emulator.set_clock_ahead(Duration::ZERO);
        let answer = connect(&emulator).await.unwrap().ask(&requests.register()).await.unwrap();
        assert_eq!(answer.status, 200, "its clock is right again");
    }
}

/// A service for one device, with room for so many connections.
async fn small(max_connections: usize) -> (Emulator, Requests) {
    let patience = Duration::from_millis(500);
    let mut limits = Limits::default();
    limits.max_connections = max_connections;
    limits.handshake_timeout = patience;
    let enrollment =
        Enrollment::individual("dev-1".parse().unwrap(), Attestation::symmetric_key(key()));
    let emulator = Emulator::builder().enrollment(enrollment).limits(limits).start().await.unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &key());
    (emulator, requests)
}

#[tokio::test]
async fn there_is_room_for_so_many_and_no_more() {
    let (emulator, requests) = small(2).await;
    let mut first = connect(&emulator).await.unwrap();
    assert_eq!(first.ask(&requests.register()).await.unwrap().status, 200);
    let mut second = connect(&emulator).await.unwrap();
    assert_eq!(second.ask(&requests.register()).await.unwrap().status, 200);
    assert!(connect(&emulator).await.is_err());
    assert_eq!(closed(&emulator).await, "too many connections");
    assert_eq!(first.ask(&requests.register()).await.unwrap().status, 200);
    let seen = emulator.events().len();
    drop(second);
    let is_closed = |event: &dps_emulator::Event| matches!(event.kind, EventKind::Closed { .. });
    let events = emulator.events();
    let over = tokio::time::timeout(PATIENCE, events.wait_for_since(seen, is_closed)).await;
    assert!(over.unwrap().is_some());
    assert!(connect(&emulator).await.is_ok());
}

#[tokio::test]
async fn the_oldest_stranger_makes_room_and_devices_that_are_known_stay() {
    let (emulator, requests) = small(3).await;
    let mut known = connect(&emulator).await.unwrap();
    assert_eq!(known.ask(&requests.register()).await.unwrap().status, 200);
    let seen = emulator.events().len();
    let mut silent = TcpStream::connect(("127.0.0.1", emulator.https_port())).await.unwrap();
    let connected = |event: &dps_emulator::Event| matches!(event.kind, EventKind::Connected { .. });
    emulator.events().wait_for_since(seen, connected).await.unwrap();
    let mut idle = connect(&emulator).await.unwrap();
    let mut device = connect(&emulator).await.unwrap();
    assert_eq!(device.ask(&requests.register()).await.unwrap().status, 200);
    let read = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 16])).await.unwrap();
    assert!(read.is_ok_and(|count| count == 0), "the oldest idle connection is still open");
    assert_eq!(closed(&emulator).await, "made room for another connection");
    let anonymous = Requests::with_certificate(&emulator, "dev-1");
    assert_eq!(idle.ask(&anonymous.register()).await.unwrap().status, 401);
    assert_eq!(known.ask(&requests.register()).await.unwrap().status, 200);
}

#[tokio::test]
async fn any_number_of_idle_connections_keeps_no_device_out() {
    let (emulator, requests) = small(4).await;
    let address = ("127.0.0.1", emulator.https_port());
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
        let mut device = connect(&emulator).await.unwrap();
        assert_eq!(device.ask(&requests.register()).await.unwrap().status, 200);
        let seen = emulator.events().len();
        drop(device);
        let is_closed =
            |event: &dps_emulator::Event| matches!(event.kind, EventKind::Closed { .. });
        emulator.events().wait_for_since(seen, is_closed).await.unwrap();
    }
    assert_eq!(silent.len(), 20);
}

#[tokio::test]
async fn dripping_a_frame_of_amqp_wins_no_time() {
    let limits = idle_for(100);
    let emulator = Emulator::builder().limits(limits).start().await.unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", emulator.amqp_port())).await.unwrap();
    let config = std::sync::Arc::new(tls(&emulator, rustls::DEFAULT_VERSIONS, None));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let stream = tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    // The head of a large frame, and then a byte of it now and then for as long as it is taken.
    writer.write_all(b"AMQP\x03\x01\x00\x00\x00\x00\x10\x00\x02\x01\x00\x00").await.unwrap();
    let drip = async {
        while writer.write_all(b"\0").await.is_ok() && writer.flush().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let read = async { reader.read_to_end(&mut Vec::new()).await };
    let outcome = tokio::time::timeout(PATIENCE, async { tokio::join!(drip, read) }).await;
    assert!(outcome.is_ok(), "dripping wins time");
    assert_eq!(closed(&emulator).await, "idle for too long");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let emulator = Emulator::builder().start().await.unwrap();
    let mut device = connect(&emulator).await.unwrap();
    let endless = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "x".repeat(20_000));
    // The other side may stop reading before the last byte.
    device.stream.write_all(endless.as_bytes()).await.ok();
    assert!(device.answer().await.is_none_or(|answer| answer.status == 431));
    assert!(device.is_closed().await);
}
