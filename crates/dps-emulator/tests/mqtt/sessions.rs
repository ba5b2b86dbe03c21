//! Sessions as they should be.

use std::time::Duration;

use dps_emulator::{
    Behavior, Enrollment, EventKind, GroupAttestation, Method, Operation, RetryAfter, Transport,
};
use mqtt_proto::{Pid, QoS, v3::Packet};

use crate::support;
use crate::{
    device::*,
    support::{event_names, tls, token},
};

#[tokio::test]
async fn a_flight_of_three_packets_is_answered_and_so_is_each_poll() {
    let behavior = Behavior::new().polls(1).retry_after(RetryAfter::Seconds(3));
    let emulator = behaving(behavior).await;
    let mut device = reach(&emulator).await;
    device.send([connect(&emulator).into(), subscribe(ANSWERS, QoS::Level1), register("r1")]).await;
    assert_eq!(device.bytes(4).await, b"\x20\x02\x00\x00");
    assert_eq!(device.bytes(5).await, b"\x90\x03\x00\x01\x01");
    assert_eq!(device.bytes(4).await, b"\x40\x02\x00\x02", "acknowledged first");
    let assigning = device.answer().await.unwrap();
    assert_eq!(assigning.topic, "$dps/registrations/res/202/?$rid=r1&retry-after=3");
    assert!(assigning.at_least_once);
    let operation = assigning.json()["operationId"].as_str().unwrap().to_owned();
    assert_eq!(assigning.json()["status"], "assigning");

    device.send([Packet::Puback(Pid::try_from(1).unwrap()), query("r2", &operation)]).await;
    let assigned = device.answer().await.unwrap();
    assert_eq!(assigned.topic, "$dps/registrations/res/200/?$rid=r2");
    assert_eq!(assigned.json()["registrationState"]["deviceId"], "dev-1");
    device.send([Packet::Disconnect]).await;
    assert!(device.is_closed().await);
    assert_eq!(closed(&emulator).await, "the peer ended the session");

    let events = emulator.events().snapshot();
    let expected = [
        "connected",
        "tls-established",
        "authenticated",
        "request",
        "answer",
        "request",
        "answer",
        "closed",
    ];
    assert_eq!(event_names(&emulator), expected);
    let EventKind::Connected { transport: Transport::Mqtt, .. } = events[0].kind else { panic!() };
    let EventKind::Authenticated { method: Method::SymmetricKey, .. } = events[2].kind else {
        panic!()
    };
    let EventKind::Request { transport, operation, api_version, headers, force, .. } =
        &events[3].kind
    else {
        panic!()
    };
    assert_eq!((*transport, *operation, *force), (Transport::Mqtt, Operation::Register, false));
    assert_eq!(api_version.as_deref(), Some("2021-06-01"));
    assert_eq!(headers["client-version"], "packets/1");
    assert!(!format!("{events:?}").contains("SharedAccessSignature"), "no secret is recorded");
}

#[tokio::test]
async fn a_certificate_registers_without_a_password() {
    let (authority, chain) = certificate("dev-9");
    let ca = dps_emulator::CaCertificates::from_pem(&authority).unwrap();
    let emulator = dps_emulator::Emulator::builder()
        .enrollment(Enrollment::group("factory", GroupAttestation::x509(ca)))
        .start()
        .await
        .unwrap();
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let config = tls(&emulator, versions, Some((chain.0.clone(), chain.1.clone_key())));
        let mut device = reach_with(&emulator, config).await;
        let connect = connect_as(&emulator, "dev-9", None);
        let body = r#"{"registrationId":"dev-9"}"#;
        let register = publish(&format!("{REGISTER}1"), body, Some(2));
        device.send([connect.into(), subscribe(ANSWERS, QoS::Level1), register]).await;
        let answer = device.answer().await.unwrap();
        assert_eq!(answer.json()["registrationState"]["deviceId"], "dev-9");
    }
}

fn certificate(name: &str) -> (String, crate::support::Chain) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "Factory");
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let mut leaf = rcgen::CertificateParams::default();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.distinguished_name.push(rcgen::DnType::CommonName, name);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    (pem, (vec![leaf.der().clone()], key.into()))
}

#[tokio::test]
async fn pings_are_answered_and_silence_ends_the_session_half_as_late_again_as_promised() {
    let limits = support::idle_for(3_600_000);
    let emulator = started(Behavior::new(), |config| config.limits(limits)).await;
    let mut device = reach(&emulator).await;
    let mut hasty = connect(&emulator);
    hasty.keep_alive = 1;
    device.send([hasty.into(), Packet::Pingreq]).await;
    assert_eq!(device.bytes(6).await, b"\x20\x02\x00\x00\xd0\x00");
    let silent = std::time::Instant::now();
    assert!(device.is_closed().await);
    assert!(silent.elapsed() >= Duration::from_millis(1400), "{:?}", silent.elapsed());
    assert_eq!(closed(&emulator).await, "idle for too long");
}

#[tokio::test]
async fn a_peer_that_says_nothing_or_drips_is_let_go() {
    let limits = support::idle_for(200);
    let emulator = started(Behavior::new(), |config| config.limits(limits)).await;
    let mut silent = reach(&emulator).await;
    assert!(silent.is_closed().await);
    assert_eq!(closed(&emulator).await, "idle for too long");
    let mut dripping = reach(&emulator).await;
    // As many bytes of one packet as it takes.
    let mut sent = 0;
    while dripping.stream_is_open(b"\x10").await {
        sent += 1;
        assert!(sent < 1000, "dripping wins no time");
    }
}

impl TlsDevice {
    async fn stream_is_open(&mut self, bytes: &[u8]) -> bool {
        use tokio::io::AsyncWriteExt as _;
        let pause = tokio::time::timeout(Duration::from_millis(20), self.is_closed()).await;
        pause.is_err()
            && self.stream.write_all(bytes).await.is_ok()
            && self.stream.flush().await.is_ok()
    }
}

#[tokio::test]
async fn answers_go_to_subscribers_only_as_often_as_they_asked_for() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = reach(&emulator).await;
    device.send([connect(&emulator).into(), register("r0"), Packet::Pingreq]).await;
    assert_eq!(device.bytes(4).await, b"\x20\x02\x00\x00");
    assert_eq!(device.bytes(6).await, b"\x40\x02\x00\x02\xd0\x00", "nobody listens");

    device.send([subscribe(ANSWERS, QoS::Level0), register("r1")]).await;
    assert_eq!(device.bytes(5).await, b"\x90\x03\x00\x01\x00");
    assert!(!device.answer().await.unwrap().at_least_once);
    device.send([subscribe(ANSWERS, QoS::Level2), register("r2")]).await;
    assert_eq!(device.bytes(5).await, b"\x90\x03\x00\x01\x01", "2 is granted as 1");
    assert!(device.answer().await.unwrap().at_least_once);

    // UNSUBSCRIBE, id 7.
    device.send_bytes(b"\xa2\x1c\x00\x07\x00\x18$dps/registrations/res/#").await;
    assert_eq!(device.bytes(4).await, b"\xb0\x02\x00\x07");
    device.send([register("r3"), Packet::Pingreq]).await;
    assert_eq!(device.bytes(6).await, b"\x40\x02\x00\x02\xd0\x00");
}

#[tokio::test]
async fn the_largest_body_is_taken_and_a_larger_one_answered() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = ready(&emulator).await;
    for (size, status) in [(96 * 1024, 200), (96 * 1024 + 1, 413)] {
        let frame = r#"{"payload":{"a":""}}"#.len();
        let body = format!(r#"{{"payload":{{"a":"{}"}}}}"#, "x".repeat(size - frame));
        device.send([publish(&format!("{REGISTER}1"), &body, Some(2))]).await;
        let answer = device.answer().await.unwrap();
        assert!(answer.topic.contains(&format!("/res/{status}/")), "{}", answer.topic);
    }
}

#[tokio::test]
async fn stopping_closes_sessions() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = ready(&emulator).await;
    let events = emulator.events();
    emulator.stop().await;
    assert!(device.is_closed().await);
    let closed = events.snapshot().into_iter().find_map(|event| match event.kind {
        EventKind::Closed { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(closed.as_deref(), Some("the emulator stops"));
}

#[tokio::test]
async fn the_answers_of_two_devices_never_cross() {
    let emulator = behaving(Behavior::new().polls(2)).await;
    let second = dps_emulator::Attestation::symmetric_key(key());
    let second = Enrollment::individual("dev-2".parse().unwrap(), second);
    emulator.add_enrollment(second.behavior(Behavior::new().polls(2))).unwrap();
    let names = ["dev-1", "dev-2"];
    let mut devices = Vec::new();
    for name in names {
        let mut device = reach(&emulator).await;
        let password = token(emulator.id_scope().as_str(), name, &key());
        let connect = connect_as(&emulator, name, Some(password));
        device.send([connect.into(), subscribe(ANSWERS, QoS::Level1)]).await;
        assert_eq!(device.bytes(9).await, b"\x20\x02\x00\x00\x90\x03\x00\x01\x01");
        devices.push(device);
    }
    let body = |name| format!("{{\"registrationId\":\"{name}\"}}");
    // Both use the same ids for their requests, and each sends before the other's answer is read.
    for (device, name) in devices.iter_mut().zip(names) {
        device.send([publish(&format!("{REGISTER}1"), &body(name), Some(2))]).await;
    }
    let mut operations = Vec::new();
    for device in &mut devices {
        operations.push(device.answer().await.unwrap().json()["operationId"].clone());
    }
    assert_ne!(operations[0], operations[1]);
    for rid in ["2", "3"] {
        for (device, operation) in devices.iter_mut().zip(&operations) {
            device.send([query(rid, operation.as_str().unwrap())]).await;
        }
        for ((device, operation), name) in devices.iter_mut().zip(&operations).zip(names) {
            let answer = device.answer().await.unwrap();
            assert!(answer.topic.contains(&format!("$rid={rid}")), "{}", answer.topic);
            assert_eq!(answer.json()["operationId"], *operation);
            if rid == "3" {
                assert_eq!(answer.json()["registrationState"]["deviceId"], name);
            }
        }
    }
    // Nobody is told of the other's operation, and nothing more comes to anyone.
    devices[0].send([query("4", operations[1].as_str().unwrap())]).await;
    assert!(devices[0].answer().await.unwrap().topic.contains("/404/"));
    for device in &mut devices {
        device.send([Packet::Disconnect]).await;
        assert!(device.is_closed().await);
    }
}

#[tokio::test]
async fn an_operation_goes_on_in_a_later_session_of_the_device() {
    let emulator = behaving(Behavior::new().polls(1)).await;
    let mut first = ready(&emulator).await;
    first.send([register("a")]).await;
    let operation = first.answer().await.unwrap().json()["operationId"].to_string();
    let mut second = ready(&emulator).await;
    second.send([query("b", operation.trim_matches('"'))]).await;
    assert!(second.answer().await.unwrap().topic.ends_with("$rid=b"));
    assert!(first.is_closed().await);
    assert!(token("0ne1", "dev-1", &key()).contains("dev%2D1"));
}

#[tokio::test]
async fn of_two_connections_with_one_client_id_the_first_is_closed() {
    let emulator = behaving(Behavior::new()).await;
    let mut first = reach(&emulator).await;
    first.begin(&emulator).await;
    // Whoever can't show the credential takes nobody's place.
    let mut stranger = reach(&emulator).await;
    stranger.send([connect_as(&emulator, "dev-1", Some("wrong".into())).into()]).await;
    assert_eq!(stranger.bytes(4).await, b"\x20\x02\x00\x05");
    first.send([register("1")]).await;
    assert_eq!(first.answer().await.unwrap().json()["status"], "assigned");

    let mut second = reach(&emulator).await;
    let mut same = connect(&emulator);
    same.client_id = "DEV-1".into();
    second.send([same.into(), subscribe(ANSWERS, QoS::Level1)]).await;
    assert_eq!(second.bytes(4).await, b"\x20\x02\x00\x00");
    assert!(first.is_closed().await);
    second.send([register("2")]).await;
    assert_eq!(second.answer().await.unwrap().json()["status"], "assigned");
    let is_first = |event: &dps_emulator::Event| {
        event.connection == 1 && matches!(event.kind, EventKind::Closed { .. })
    };
    let over = emulator.events().wait_for(is_first).await.unwrap();
    let EventKind::Closed { reason, .. } = over.kind else { unreachable!() };
    assert_eq!(reason, "the device connected again");
    // The end of the first one leaves the second its place.
    let mut third = reach(&emulator).await;
    third.begin(&emulator).await;
    assert!(second.is_closed().await);
}
