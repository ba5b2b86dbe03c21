//! The hub that an assigned device connects to.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_emulator::{
    Attestation, CaCertificates, CertificatePolicy, Emulator, Enrollment, Event, EventKind,
    GroupAttestation, GroupKey, HubOperation, HubRefusal, Method, SymmetricKey, Thumbprint,
    Transport,
};
use mqtt_proto::{
    QoS,
    v3::{Connect, Packet},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

use crate::{
    device::*,
    support::{tls, token},
    websocket::over_websocket,
};

const HUB: &str = Enrollment::DEFAULT_HUB;

/// A token for a device's hub that holds for an hour.
fn hub_token(hub: &str, device: &str, key: &SymmetricKey) -> String {
    expiring(hub, device, key, 3600)
}

fn expiring(hub: &str, device: &str, key: &SymmetricKey, seconds: i64) -> String {
    let resource = format!("{hub}/devices/{device}");
    let resource = utf8_percent_encode(&resource, NON_ALPHANUMERIC);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let expiry = i64::try_from(now.as_secs()).unwrap() + seconds;
    let signature = key.signature(&format!("{resource}\n{expiry}"));
    let signature = STANDARD.encode(signature.expose());
    let signature = utf8_percent_encode(&signature, NON_ALPHANUMERIC);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}")
}

fn connect_to(hub: &str, device: &str, password: Option<String>) -> Connect {
    let user_name = format!("{hub}/{device}/?api-version=2021-04-12&DeviceClientType=packets%2F1");
    let mut connect = Connect::new(device.into(), 60);
    connect.username = Some(user_name.as_str().into());
    connect.password = password.map(|password| password.into_bytes().into());
    connect
}

fn one_device() -> Enrollment {
    Enrollment::individual("dev-1".parse().unwrap(), Attestation::symmetric_key(key()))
}

/// An emulator that has assigned the device of its one enrollment, which shows a token.
async fn assigned(enrollment: Enrollment) -> Emulator {
    let emulator = Emulator::builder().enrollment(enrollment).start().await.unwrap();
    assign(&emulator, connect(&emulator)).await;
    emulator
}

/// Registers over MQTT.
async fn assign(emulator: &Emulator, connect: Connect) {
    assign_with(emulator, tls(emulator, rustls::DEFAULT_VERSIONS, None), connect).await;
}

async fn assign_with(emulator: &Emulator, config: rustls::ClientConfig, connect: Connect) {
    let mut device = reach_with(emulator, config).await;
    device.send([connect.into(), subscribe(ANSWERS, QoS::Level1)]).await;
    device.bytes(9).await;
    device.send([publish(&format!("{REGISTER}1"), "{}", Some(2))]).await;
    assert_eq!(device.answer().await.unwrap().json()["status"], "assigned");
}

/// CONNACK's code.
async fn knock(emulator: &Emulator, config: rustls::ClientConfig, connect: Connect) -> u8 {
    let mut device = reach_with(emulator, config).await;
    device.send([connect.into()]).await;
    let connack = device.bytes(4).await;
    assert_eq!(connack[..3], b"\x20\x02\x00"[..]);
    connack[3]
}

async fn knock_with_key(emulator: &Emulator, connect: Connect) -> u8 {
    knock(emulator, tls(emulator, rustls::DEFAULT_VERSIONS, None), connect).await
}

fn hub_events(emulator: &Emulator) -> Vec<EventKind> {
    let kinds = emulator.events().snapshot().into_iter().map(|event: Event| event.kind);
    let is_hub = |kind: &EventKind| {
        matches!(
            kind,
            EventKind::HubConnected { .. }
                | EventKind::HubRefused { .. }
                | EventKind::Telemetry { .. }
                | EventKind::HubRequest { .. }
        )
    };
    kinds.filter(is_hub).collect()
}

fn last_refusal(emulator: &Emulator) -> String {
    match hub_events(emulator).pop() {
        Some(EventKind::HubRefused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// The device at its hub, with the subscriptions that SDKs make.
async fn at_hub(emulator: &Emulator) -> TlsDevice {
    let mut device = reach(emulator).await;
    device.send([connect_to(HUB, "dev-1", Some(hub_token(HUB, "dev-1", &key()))).into()]).await;
    assert_eq!(device.bytes(4).await, b"\x20\x02\x00\x00");
    for filter in ["$iothub/twin/res/#", "$iothub/credentials/res/#"] {
        device.send([subscribe(filter, QoS::Level1)]).await;
        assert_eq!(device.bytes(5).await, b"\x90\x03\x00\x01\x01", "{filter}");
    }
    device
}

#[tokio::test]
async fn a_device_is_let_in_by_the_hub_that_it_is_assigned_to_and_by_no_other() {
    let emulator =
        Emulator::builder().enrollment(one_device().device_id("pump")).start().await.unwrap();
    let good = || connect_to(HUB, "pump", Some(hub_token(HUB, "pump", &key())));
    assert_eq!(knock_with_key(&emulator, good()).await, 5);
    assert!(last_refusal(&emulator).contains("no device with this id was assigned"));
    assign(&emulator, connect(&emulator)).await;
    assert_eq!(knock_with_key(&emulator, good()).await, 0);
    let Some(EventKind::HubConnected {
        registration_id, hub, device_id, method, transport, ..
    }) = hub_events(&emulator).pop()
    else {
        panic!()
    };
    assert_eq!(
        (registration_id.as_str(), hub.as_str(), device_id.as_str()),
        ("dev-1", HUB, "pump")
    );
    assert_eq!((method, transport), (Method::SymmetricKey, Transport::Mqtt));

    let other: SymmetricKey = "YW5vdGhlciBkZXZpY2UncyBrZXk=".parse().unwrap();
    for (connect, code, says) in [
        (connect_to(HUB, "dev-1", Some(hub_token(HUB, "dev-1", &key()))), 5, "no device with"),
        (connect_to(HUB, "PUMP", Some(hub_token(HUB, "PUMP", &key()))), 5, "no device with"),
        (
            connect_to("b.localhost", "pump", Some(hub_token("b.localhost", "pump", &key()))),
            5,
            "another hub, \"hub.localhost\"",
        ),
        (connect_to(HUB, "pump", Some(hub_token(HUB, "pump", &other))), 5, "right key"),
        (connect_to(HUB, "pump", Some(hub_token(HUB, "dev-1", &key()))), 5, "something else"),
        (connect_to(HUB, "pump", Some(expiring(HUB, "pump", &key(), -9))), 5, "expired"),
        (
            connect_to(HUB, "pump", Some(token(emulator.id_scope().as_str(), "dev-1", &key()))),
            5,
            "something else",
        ),
        (connect_to(HUB, "pump", Some("junk".into())), 5, "SharedAccessSignature"),
        (connect_to(HUB, "pump", None), 5, "neither a SAS token"),
    ] {
        assert_eq!(knock_with_key(&emulator, connect).await, code, "{says}");
        let reason = last_refusal(&emulator);
        assert!(reason.contains(says), "{reason}: {says}");
    }
    let mut client_id = good();
    client_id.client_id = "dev-1".into();
    assert_eq!(knock_with_key(&emulator, client_id).await, 2);
    for (user_name, code) in [
        (format!("{HUB}/pump/?DeviceClientType=x"), 4),
        (format!("{HUB}/pump/module/?api-version=2021-04-12"), 5),
        (format!("{HUB}/pump"), 5),
    ] {
        let mut connect = good();
        connect.username = Some(user_name.as_str().into());
        assert_eq!(knock_with_key(&emulator, connect).await, code, "{user_name}");
    }
}

#[tokio::test]
async fn a_device_of_a_group_shows_a_token_by_its_derived_key() {
    let group: GroupKey = "c29tZSBncm91cCdzIGtleQ==".parse().unwrap();
    let attestation = GroupAttestation::symmetric_key(group.clone());
    let enrollment = Enrollment::group("factory", attestation);
    let emulator = Emulator::builder().enrollment(enrollment).start().await.unwrap();
    // The key is derived from the registration id as written.
    let key = group.derive(&"Dev-7".parse().unwrap());
    let scope = emulator.id_scope().to_string();
    assign(&emulator, connect_as(&emulator, "Dev-7", Some(token(&scope, "Dev-7", &key)))).await;
    let connect = connect_to(HUB, "Dev-7", Some(hub_token(HUB, "Dev-7", &key)));
    assert_eq!(knock_with_key(&emulator, connect).await, 0);
    let group: SymmetricKey = group.expose_base64().parse().unwrap();
    let connect = connect_to(HUB, "Dev-7", Some(hub_token(HUB, "Dev-7", &group)));
    assert_eq!(knock_with_key(&emulator, connect).await, 5);
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn showing(emulator: &Emulator, (chain, key): &Chain) -> rustls::ClientConfig {
    tls(emulator, rustls::DEFAULT_VERSIONS, Some((chain.clone(), key.clone_key())))
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

#[tokio::test]
async fn a_device_shows_the_certificate_that_belongs_to_its_enrollment() {
    let own = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let leaf = named(name).self_signed(&key).unwrap().der().clone();
        (vec![leaf], private(&key))
    };
    let (mine, other) = (own("dev-1"), own("dev-1"));
    let attestation = Attestation::thumbprint(Thumbprint::of_der(&mine.0[0]));
    let individual = Enrollment::individual("dev-1".parse().unwrap(), attestation);
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = named("factory CA");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let ca = Issuer::new(ca, ca_key);
    let member = |name: &str| {
        let key = KeyPair::generate().unwrap();
        (vec![named(name).signed_by(&key, &ca).unwrap().der().clone()], private(&key))
    };
    let group = GroupAttestation::x509(CaCertificates::from_pem(&ca_pem).unwrap());
    let emulator = Emulator::builder()
        .enrollment(individual)
        .enrollment(Enrollment::group("factory", group))
        .start()
        .await
        .unwrap();
    let (seven, eight) = (member("dev-7"), member("dev-8"));
    for (id, chain) in [("dev-1", &mine), ("dev-7", &seven)] {
        assign_with(&emulator, showing(&emulator, chain), connect_as(&emulator, id, None)).await;
    }
    for (id, chain, code) in [
        ("dev-1", &mine, 0),
        ("dev-1", &other, 5),
        ("dev-1", &seven, 5),
        ("dev-7", &seven, 0),
        ("dev-7", &member("dev-7"), 0),
        ("dev-7", &eight, 5),
        ("dev-7", &mine, 5),
    ] {
        let config = showing(&emulator, chain);
        assert_eq!(knock(&emulator, config, connect_to(HUB, id, None)).await, code, "{id}");
    }
    let with_key = connect_to(HUB, "dev-1", Some(hub_token(HUB, "dev-1", &key())));
    assert_eq!(knock_with_key(&emulator, with_key).await, 5);
    let methods = hub_events(&emulator).into_iter().filter_map(|kind| match kind {
        EventKind::HubConnected { method, .. } => Some(method),
        _ => None,
    });
    assert_eq!(methods.collect::<Vec<_>>(), [Method::X509; 3]);
}

#[tokio::test]
async fn a_hub_refuses_as_the_enrollment_says() {
    for (refusal, code, says) in [
        (HubRefusal::Disabled, 5, "disabled"),
        (HubRefusal::UnknownDevice, 5, "does not know"),
        (HubRefusal::Moved, 5, "moved to another hub"),
        (HubRefusal::Throttled, 3, "throttling"),
    ] {
        let emulator = assigned(one_device().hub_refusal(refusal)).await;
        let connect = connect_to(HUB, "dev-1", Some(hub_token(HUB, "dev-1", &key())));
        assert_eq!(knock_with_key(&emulator, connect).await, code, "{refusal:?}");
        let reason = last_refusal(&emulator);
        assert!(reason.contains(says), "{reason}: {says}");
        let wrong = connect_to(HUB, "dev-1", Some(hub_token(HUB, "dev-2", &key())));
        assert_eq!(knock_with_key(&emulator, wrong).await, 5, "the credential comes first");
    }
}

#[tokio::test]
async fn telemetry_becomes_events() {
    let emulator = assigned(one_device()).await;
    let mut device = at_hub(&emulator).await;
    let long = "x".repeat(256 * 1024);
    let long_json = format!("[\"{}\"]", "x".repeat(20 * 1024));
    let topic = "devices/dev-1/messages/events/";
    for (topic, body, pid) in [
        (topic.to_owned(), r#"{"t": 1.50}"#, Some(7)),
        (format!("{topic}%24.ct=application%2Fjson&level=7"), "\u{1}bin", None),
        (topic.trim_end_matches('/').to_owned(), "", Some(8)),
        (topic.to_owned(), long.as_str(), Some(9)),
        (topic.to_owned(), long_json.as_str(), Some(10)),
    ] {
        device.send([publish(&topic, body, pid)]).await;
        if let Some(pid) = pid {
            assert_eq!(device.bytes(4).await, [0x40, 2, 0, u8::try_from(pid).unwrap()]);
        }
    }
    let telemetry = hub_events(&emulator).into_iter().filter_map(|kind| match kind {
        EventKind::Telemetry { properties, qos, body_bytes, payload, base64, .. } => {
            let payload = payload.map(|payload| payload.get().to_owned());
            Some((properties.into_iter().collect::<Vec<_>>(), qos, body_bytes, payload, base64))
        }
        _ => None,
    });
    let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = vec![
        (vec![], 1, 11, Some(r#"{"t": 1.50}"#.to_owned()), None),
        (
            vec![property("$.ct", "application/json"), property("level", "7")],
            0,
            4,
            None,
            Some(STANDARD.encode(b"\x01bin")),
        ),
        (vec![], 1, 0, None, None),
        // What looks like a key is masked here as in every event.
        (vec![], 1, long.len(), None, Some("***".to_owned())),
        (vec![], 1, long_json.len(), None, Some("***".to_owned())),
    ];
    assert_eq!(telemetry.collect::<Vec<_>>(), expected);
    device.send([publish(topic, &format!("{long}x"), Some(11))]).await;
    assert!(device.is_closed().await, "it is too large");
}

#[tokio::test]
async fn the_twin_is_had_and_reported_properties_are_merged_into_it() {
    let emulator = assigned(one_device()).await;
    let mut device = at_hub(&emulator).await;
    let get = || publish("$iothub/twin/GET/?$rid=a%20b", "", None);
    device.send([get()]).await;
    let answer = device.answer().await.unwrap();
    assert_eq!(answer.topic, "$iothub/twin/res/200/?$rid=a%20b");
    let none = json!({"desired": {"$version": 1}, "reported": {"$version": 1}});
    assert_eq!(answer.json(), none);
    let report = |body: &str| publish("$iothub/twin/PATCH/properties/reported/?$rid=7", body, None);
    for (body, topic) in [
        (r#"{"a": {"b": 1, "c": 2}}"#, "204/?$rid=7&$version=2"),
        (r#"{"a": {"b": null}}"#, "204/?$rid=7&$version=3"),
        ("[", "400/?$rid=7"),
    ] {
        device.send([report(body)]).await;
        let answer = device.answer().await.unwrap();
        assert_eq!(answer.topic, format!("$iothub/twin/res/{topic}"));
        assert_eq!(answer.body.is_empty(), topic.starts_with("204"));
    }
    device.send([get()]).await;
    let twin = device.answer().await.unwrap().json();
    assert_eq!(twin["reported"], json!({"a": {"c": 2}, "$version": 3}));
    // Another session finds the same twin; without an id there is no answer.
    let mut again = at_hub(&emulator).await;
    again.send([publish("$iothub/twin/GET/", "", None), get()]).await;
    assert_eq!(again.answer().await.unwrap().json(), twin);
    let Some(EventKind::HubRequest { operation, statuses, .. }) = hub_events(&emulator).pop()
    else {
        panic!()
    };
    assert_eq!((operation, statuses), (HubOperation::Twin, vec![200]));
}

#[tokio::test]
async fn what_nothing_comes_by_may_be_subscribed_to_and_what_no_device_has_may_not() {
    let emulator = assigned(one_device()).await;
    let mut device = at_hub(&emulator).await;
    for (filter, code) in [
        ("$iothub/methods/POST/#", 1),
        ("$iothub/twin/PATCH/properties/desired/#", 1),
        ("devices/dev-1/messages/devicebound/#", 1),
        ("devices/dev-2/messages/devicebound/#", 0x80),
        ("$iothub/#", 0x80),
        ("#", 0x80),
        (ANSWERS, 0x80),
    ] {
        device.send([subscribe(filter, QoS::Level2)]).await;
        assert_eq!(device.bytes(5).await, [0x90, 3, 0, 1, code], "{filter}");
    }
    device.send([Packet::Pingreq]).await;
    assert_eq!(device.bytes(2).await, b"\xd0\x00");
    device.send([publish("$iothub/methods/res/200/?$rid=1", "{}", Some(4))]).await;
    assert_eq!(device.bytes(4).await, b"\x40\x02\x00\x04");
    for topic in ["devices/dev-2/messages/events/", "$iothub/other", "$dps/registrations/", "a"] {
        let mut device = at_hub(&emulator).await;
        device.send([publish(topic, "", None)]).await;
        assert!(device.is_closed().await, "{topic}");
    }
}

#[tokio::test]
async fn a_second_session_of_a_device_ends_the_first_and_leaves_its_registration_alone() {
    let emulator = assigned(one_device()).await;
    let mut registering = ready(&emulator).await;
    let mut first = at_hub(&emulator).await;
    let mut second = at_hub(&emulator).await;
    assert!(first.is_closed().await);
    second.send([Packet::Pingreq]).await;
    assert_eq!(second.bytes(2).await, b"\xd0\x00");
    registering.send([register("1")]).await;
    assert_eq!(registering.answer().await.unwrap().json()["status"], "assigned");
}

#[tokio::test]
async fn devices_whose_ids_differ_in_case_only_are_two_and_the_case_of_a_hub_makes_no_other() {
    let other = Enrollment::individual("dev-2".parse().unwrap(), Attestation::symmetric_key(key()));
    let builder = Emulator::builder().enrollment(one_device().device_id("Pump"));
    let emulator = builder.enrollment(other.device_id("pump")).start().await.unwrap();
    assign(&emulator, connect(&emulator)).await;
    let second = token(emulator.id_scope().as_str(), "dev-2", &key());
    assign(&emulator, connect_as(&emulator, "dev-2", Some(second))).await;
    let at = async |hub: &str, device_id: &str| {
        let mut device = reach(&emulator).await;
        let token = Some(hub_token(hub, device_id, &key()));
        device.send([connect_to(hub, device_id, token).into()]).await;
        assert_eq!(device.bytes(4).await, b"\x20\x02\x00\x00");
        device
    };
    let mut upper = at(HUB, "Pump").await;
    let mut lower = at(HUB, "pump").await;
    for device in [&mut upper, &mut lower] {
        device.send([Packet::Pingreq]).await;
        assert_eq!(device.bytes(2).await, b"\xd0\x00");
    }
    at(&HUB.to_ascii_uppercase(), "pump").await;
    assert!(lower.is_closed().await);
}

#[tokio::test]
async fn the_hub_is_reached_over_websocket_too() {
    let emulator = assigned(one_device()).await;
    let mut device = over_websocket(&emulator).await;
    device.send([connect_to(HUB, "dev-1", Some(hub_token(HUB, "dev-1", &key()))).into()]).await;
    assert_eq!(device.bytes(4).await, b"\x20\x02\x00\x00");
    device.send([publish("devices/dev-1/messages/events/", "1", Some(3))]).await;
    assert_eq!(device.bytes(4).await, b"\x40\x02\x00\x03");
    let [EventKind::HubConnected { transport, .. }, EventKind::Telemetry { .. }] =
        &hub_events(&emulator)[..]
    else {
        panic!()
    };
    assert_eq!(*transport, Transport::MqttWs);
}

fn request_for(name: &str) -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let request = named(name).serialize_request(&key).unwrap();
    (key, STANDARD.encode(request.der()))
}

#[tokio::test]
async fn a_certificate_is_issued_by_the_hub_and_lets_the_device_in() {
    let enrollment = one_device().certificate_policy(CertificatePolicy::issue_for_days(1));
    let emulator = assigned(enrollment).await;
    let mut device = at_hub(&emulator).await;
    let (new_key, csr) = request_for("dev-1");
    let ask =
        |body: &str| publish("$iothub/credentials/POST/issueCertificate/?$rid=9", body, Some(2));
    device.send([ask(&json!({"id": "dev-1", "csr": csr, "replace": "*"}).to_string())]).await;
    let accepted = device.answer().await.unwrap();
    assert_eq!(accepted.topic, "$iothub/credentials/res/202/?$rid=9");
    let issued = device.answer().await.unwrap();
    assert_eq!(issued.topic, "$iothub/credentials/res/200/?$rid=9");
    assert_eq!(issued.json()["correlationId"], accepted.json()["correlationId"]);
    let issued = issued.json();
    let chain = issued["certificates"].as_array().unwrap().iter();
    let chain =
        chain.map(|der| CertificateDer::from(STANDARD.decode(der.as_str().unwrap()).unwrap()));
    let mut chain: Vec<_> = chain.collect();
    assert_eq!(chain.len(), 3);
    chain.pop();
    let shown = (chain, private(&new_key));
    let config = showing(&emulator, &shown);
    assert_eq!(knock(&emulator, config, connect_to(HUB, "dev-1", None)).await, 0);
    let config = showing(&emulator, &shown);
    assert_eq!(knock(&emulator, config, connect_to(HUB, "dev-2", None)).await, 5);

    let mut device = at_hub(&emulator).await;
    let long = "A".repeat(9000);
    let foreign = request_for("dev-2").1;
    let body = |body: Value| body.to_string();
    for (body, statuses, code) in [
        (String::new(), vec![400], 400_004),
        ("{\"id\": \"dev-1\", \"csr\":".into(), vec![400], 400_006),
        ("[]".into(), vec![400], 400_004),
        (body(json!({"id": "dev-1", "csr": ""})), vec![400], 400_004),
        (body(json!({"id": "dev-1", "csr": long})), vec![400], 400_004),
        (body(json!({"id": "dev-1", "csr": "!!"})), vec![400], 400_004),
        (body(json!({"id": "dev-2", "csr": csr})), vec![400], 400_004),
        (body(json!({"id": "dev-1", "csr": csr, "x": 1})), vec![400], 400_004),
        (body(json!({"id": "dev-1", "csr": csr, "replace": "123"})), vec![400], 400_004),
        (body(json!({"id": "dev-1", "csr": csr, "replace": "db8c-1"})), vec![412], 412_001),
        (body(json!({"id": "dev-1", "csr": "MAA="})), vec![202, 400], 400_037),
        (body(json!({"id": "dev-1", "csr": foreign})), vec![202, 400], 400_037),
    ] {
        device.send([ask(&body)]).await;
        let mut last = Value::Null;
        for status in &statuses {
            let answer = device.answer().await.unwrap();
            assert_eq!(answer.topic, format!("$iothub/credentials/res/{status}/?$rid=9"), "{body}");
            last = answer.json();
        }
        assert_eq!(last["errorCode"], code, "{body}");
    }
}

#[tokio::test]
async fn without_a_policy_the_hub_issues_no_certificate() {
    let emulator = assigned(one_device()).await;
    let mut device = at_hub(&emulator).await;
    let body = json!({"id": "dev-1", "csr": request_for("dev-1").1}).to_string();
    device
        .send([publish("$iothub/credentials/POST/issueCertificate/?$rid=9", &body, Some(2))])
        .await;
    assert!(device.answer().await.unwrap().topic.contains("/202/"));
    assert_eq!(device.answer().await.unwrap().json()["errorCode"], 400_037);
}

#[tokio::test]
async fn no_event_of_a_hub_has_a_secret_whatever_field_it_stood_in() {
    let emulator = assigned(one_device()).await;
    let secret = key().expose_base64().to_string();
    let good = hub_token(HUB, "dev-1", &key());
    let signature = good.split('&').find_map(|field| field.strip_prefix("sig=")).unwrap();
    let encoded = utf8_percent_encode(&secret, NON_ALPHANUMERIC).to_string();
    let fields = [
        format!("{encoded}/dev-1/?api-version=2021-04-12"),
        format!("{HUB}/{encoded}/?api-version=2021-04-12"),
        format!("{HUB}/dev-1/?api-version={encoded}"),
        format!("{HUB}/dev-1/?api-version=2021-04-12&DeviceClientType={encoded}"),
    ];
    for user_name in fields {
        let mut connect = connect_to(HUB, "dev-1", Some(good.clone()));
        connect.username = Some(user_name.as_str().into());
        knock_with_key(&emulator, connect).await;
    }
    for password in [secret.clone(), format!("SharedAccessSignature sr={encoded}&sig=a&se=1")] {
        knock_with_key(&emulator, connect_to(HUB, "dev-1", Some(password))).await;
    }
    let mut device = at_hub(&emulator).await;
    let topic = format!("devices/dev-1/messages/events/{encoded}=1&a={encoded}");
    device.send([publish(&topic, &json!({"key": secret}).to_string(), Some(2))]).await;
    let report = publish(
        "$iothub/twin/PATCH/properties/reported/?$rid=7",
        &json!({"key": secret, "token": good}).to_string(),
        None,
    );
    device.send([report]).await;
    device.answer().await.unwrap();
    for event in emulator.events().snapshot() {
        let line = serde_json::to_string(&event).unwrap();
        for text in [secret.as_str(), encoded.as_str(), signature] {
            assert!(!line.contains(text), "{line} has {text}");
        }
    }
}
