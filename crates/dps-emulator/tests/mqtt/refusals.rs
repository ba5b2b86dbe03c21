//! What the service refuses.

use dps_emulator::{Behavior, EventKind, SymmetricKey};
use mqtt_proto::{Protocol, QoS, v3::Connect};
use serde_json::json;

use crate::{
    device::*,
    support::{event_names, token},
};

async fn connack(change: impl FnOnce(&mut Connect)) -> (Vec<u8>, String, Vec<String>) {
    let emulator = behaving(Behavior::new()).await;
    let mut device = reach(&emulator).await;
    let mut packet = connect(&emulator);
    change(&mut packet);
    device.send([packet.into(), subscribe(ANSWERS, QoS::Level1), register("1")]).await;
    let answer = device.bytes(100).await;
    assert!(device.is_closed().await);
    (answer, closed(&emulator).await, event_names(&emulator))
}

#[tokio::test]
async fn credentials_are_checked_for_real() {
    let wrong: SymmetricKey = "YW5vdGhlciBkZXZpY2UncyBrZXk=".parse().unwrap();
    let passwords = [
        Some(token(dps_emulator::Config::DEFAULT_ID_SCOPE, "dev-1", &wrong)),
        Some(token(dps_emulator::Config::DEFAULT_ID_SCOPE, "dev-2", &key())),
        Some("SharedAccessSignature sr=x".to_owned()),
        Some("\u{7f}".to_owned()),
        Some(String::new()),
        None,
    ];
    for password in passwords {
        let shown = format!("{password:?}");
        let (answer, reason, names) =
            connack(|c| c.password = password.map(|p| p.into_bytes().into())).await;
        assert_eq!(answer, b"\x20\x02\x00\x05", "{shown}");
        assert_eq!(reason, "CONNACK 5: the credential was refused");
        assert!(names.iter().any(|name| name == "authentication-failed"), "{names:?}");
    }
    let (answer, ..) = connack(|c| c.password = Some(vec![0xff, 0xfe].into())).await;
    assert_eq!(answer, b"\x20\x02\x00\x05");
}

#[tokio::test]
async fn a_session_is_for_the_device_that_it_names() {
    let (answer, reason, _) = connack(|c| c.client_id = "dev-2".into()).await;
    assert_eq!(answer, b"\x20\x02\x00\x02");
    assert_eq!(reason, "CONNACK 2: the client id is not the registration id");
    let (answer, ..) = connack(|c| c.client_id = "".into()).await;
    assert_eq!(answer, b"\x20\x02\x00\x02");
    for user_name in
        [None, Some("dev-1"), Some("hub.azure-devices.net/dev-1/?api-version=2021-06-01")]
    {
        let (answer, ..) = connack(|c| c.username = user_name.map(Into::into)).await;
        assert_eq!(answer, b"\x20\x02\x00\x05", "{user_name:?}");
    }
}

#[tokio::test]
async fn other_versions_of_mqtt_are_refused() {
    let (answer, reason, _) = connack(|c| c.protocol = Protocol::V310).await;
    assert_eq!(answer, b"\x20\x02\x00\x01");
    assert!(reason.contains("another version"), "{reason}");
    let emulator = behaving(Behavior::new()).await;
    let mut device = reach(&emulator).await;
    device.send_bytes(b"\x10\x12\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x05dev-1").await;
    assert_eq!(device.bytes(100).await, b"\x20\x02\x00\x01");
}

#[tokio::test]
async fn a_device_without_an_enrollment_is_refused_in_answer_to_its_request() {
    let emulator = behaving(Behavior::new()).await;
    let scope = emulator.id_scope().to_string();
    let unknown = connect_as(&emulator, "dev-2", Some(token(&scope, "dev-2", &key())));
    let mut elsewhere = connect(&emulator);
    let user_name = "0ne00000000/registrations/dev-1/api-version=2021-06-01";
    elsewhere.username = Some(user_name.into());
    let mut old = connect(&emulator);
    old.username =
        Some(format!("{scope}/registrations/dev-1/api-version=1999-01-01").as_str().into());
    for (connect, status, code) in
        [(unknown, 404, 404_201), (elsewhere, 404, 404_201), (old, 400, 400_000)]
    {
        let mut device = reach(&emulator).await;
        device.send([connect.into(), subscribe(ANSWERS, QoS::Level1), register("1")]).await;
        let answer = device.answer().await.unwrap();
        assert_eq!(answer.topic, format!("$dps/registrations/res/{status}/?$rid=1"));
        assert_eq!(answer.json()["errorCode"], code);
        assert!(answer.json()["trackingId"].as_str().is_some_and(|id| !id.is_empty()));
    }
}

#[tokio::test]
async fn other_filters_are_refused_one_by_one() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = reach(&emulator).await;
    device.send([connect(&emulator).into()]).await;
    device.bytes(4).await;
    for filter in [
        "#",
        "+/registrations/res/#",
        "$dps/registrations/#",
        "$dps/#",
        "a",
        "$dps/registrations/res/+",
    ] {
        device.send([subscribe(filter, QoS::Level1)]).await;
        assert_eq!(device.bytes(5).await, b"\x90\x03\x00\x01\x80", "{filter}");
    }
    // One good filter between two bad ones.
    device
        .send_bytes(
            b"\x82\x25\x00\x09\x00\x01#\x00\x00\x18$dps/registrations/res/#\x02\x00\x01a\x01",
        )
        .await;
    assert_eq!(device.bytes(7).await, b"\x90\x05\x00\x09\x80\x01\x80");
}

#[tokio::test]
async fn what_no_device_may_send_ends_the_session() {
    let cases: [(&[u8], &str); 9] = [
        (b"\x30\x05\x00\x01aXY", "no publication to \"a\" is taken"),
        (b"\x34\x06\x00\x01a\x00\x01X", "QoS 2"),
        (b"\x62\x02\x00\x01", "QoS 2"),
        (b"\x20\x02\x00\x00", "only servers"),
        (b"\xd0\x00", "only servers"),
        (b"\x00\x00", "no packet of this kind"),
        (b"\x30\xff\xff\xff\xff", "malformed"),
        (b"\x30\xff\xff\xff\x01", "too large"),
        (b"\x82\x02\x00\x01", "empty subscription"),
    ];
    for (bytes, says) in cases {
        let emulator = behaving(Behavior::new()).await;
        let mut device = ready(&emulator).await;
        device.send_bytes(bytes).await;
        assert!(device.is_closed().await, "{bytes:x?}");
        let reason = closed(&emulator).await;
        assert!(reason.contains(says), "{reason} should say {says}");
    }
    let emulator = behaving(Behavior::new()).await;
    let mut twice = ready(&emulator).await;
    twice.send([connect(&emulator).into()]).await;
    assert!(twice.is_closed().await);
    assert!(closed(&emulator).await.contains("twice"));
    let emulator = behaving(Behavior::new()).await;
    let mut rude = reach(&emulator).await;
    rude.send([register("1")]).await;
    assert!(rude.is_closed().await);
    assert!(closed(&emulator).await.contains("the first packet is not CONNECT"));
}

#[tokio::test]
async fn requests_without_what_they_need_are_answered_with_what_is_missing() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = ready(&emulator).await;
    let no_operation = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid=7";
    device.send([publish(no_operation, "", Some(2))]).await;
    let answer = device.answer().await.unwrap();
    assert_eq!(answer.topic, "$dps/registrations/res/400/?$rid=7");
    assert!(answer.json()["message"].to_string().contains("operation ID"), "{answer:?}");
    device.send([query("8", "4.unknown")]).await;
    assert_eq!(device.answer().await.unwrap().json()["errorCode"], 404_202);
    let answers = emulator.events().snapshot();
    let refused =
        answers.iter().filter(|e| matches!(e.kind, EventKind::Answer { status: 400.., .. }));
    assert_eq!(refused.count(), 2);
}

#[tokio::test]
async fn a_request_without_an_id_is_answered_with_an_empty_one() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = ready(&emulator).await;
    for fields in ["?rid=1", "?", "", "/", "/?rid=1&$ridx=2", "/?$rid", "/?$rid="] {
        let topic = format!("$dps/registrations/PUT/iotdps-register{fields}");
        device.send([publish(&topic, BODY, Some(2))]).await;
        let answer = device.answer().await.unwrap();
        assert_eq!(answer.topic, "$dps/registrations/res/200/?$rid=", "{topic}");
        assert_eq!(answer.json()["status"], "assigned");
    }
}

#[tokio::test]
async fn unknown_publications_to_the_service_are_answered_with_404_and_do_no_harm() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = ready(&emulator).await;
    let long = format!("$dps/registrations/{}/?$rid=9", "x".repeat(60_000));
    for (topic, rid) in [
        ("$dps/registrations/POST/iotdps-get-registration/?$rid=7", "7"),
        ("$dps/registrations/PUT/iotdps-other/?$rid=a%20b", "a%20b"),
        ("$dps/registrations/GET/iotdps-register/?$rid=7&$rid=8", "7"),
        ("$dps/registrations/res/200/?$rid=7", "7"),
        ("$dps/registrations/PUT/iotdps-register/more/?$rid=7", "7"),
        ("$dps/registrations/", ""),
        ("$dps/other/?$rid=7", "7"),
        ("$dps/", ""),
        ("$dps/?", ""),
        ("$dps/\u{e9}\u{1f600}/?$rid=%ff&=&&", "%EF%BF%BD"),
        (&long, "9"),
    ] {
        for (body, pid) in [("", None), ("{", Some(2))] {
            device.send([publish(topic, body, pid)]).await;
            let answer = device.answer().await.unwrap();
            assert_eq!(answer.topic, format!("$dps/registrations/res/404/?$rid={rid}"));
            assert_eq!(answer.json()["errorCode"], 404_000, "{topic}");
        }
    }
    device.send([register("7")]).await;
    assert_eq!(device.answer().await.unwrap().json()["status"], "assigned");
}

#[tokio::test]
async fn the_topics_of_updates_are_answered_by_the_api_version_that_has_them() {
    let emulator = behaving(Behavior::new()).await;
    let scope = emulator.id_scope().to_string();
    let etags = |service: &str, agent: &str| json!({service: "\"1\"", agent: "\"1\""});
    let none = etags("serviceConfigEtag", "agentInfoEtag");
    let draft = etags("serviceConfigETag", "agentInfoETag");
    for (version, fetched) in [
        ("2026-11-02-preview", Some(&none)),
        ("2026-11-15-preview", Some(&draft)),
        ("2026-11-01", None),
    ] {
        let mut connect = connect(&emulator);
        let user_name = format!("{scope}/registrations/dev-1/api-version={version}");
        connect.username = Some(user_name.as_str().into());
        let mut device = reach(&emulator).await;
        device.send([connect.into(), subscribe(ANSWERS, QoS::Level1)]).await;
        device.bytes(9).await;
        for (name, expected) in [
            ("iotdps-get-onboarding-deviceupdate", fetched.cloned()),
            ("iotdps-get-deviceupdate", fetched.cloned()),
            ("iotdps-report-deviceupdatestatus", fetched.map(|_| json!({}))),
        ] {
            let topic = format!("$dps/registrations/POST/{name}/?$rid=5");
            device.send([publish(&topic, r#"{"workflowId":"w"}"#, Some(2))]).await;
            let answer = device.answer().await.unwrap();
            let status = if expected.is_some() { 200 } else { 404 };
            assert_eq!(answer.topic, format!("$dps/registrations/res/{status}/?$rid=5"));
            match expected {
                Some(expected) => assert_eq!(answer.json(), expected, "{version} {name}"),
                None => {
                    let body = answer.json();
                    assert_eq!(body["errorCode"], 404_000);
                    let message = body["message"].as_str().unwrap();
                    assert!(message.contains("updates in 2026-11-01"), "{message}");
                }
            }
        }
    }
}
