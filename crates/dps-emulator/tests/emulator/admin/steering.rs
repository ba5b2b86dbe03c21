//! The clock, the reset, devices and faults of connections.

use std::time::{Duration, SystemTime};

use dps_emulator::{Attestation, ClockSetting, ConnectionFault, Enrollment};
use serde_json::{Value, json};

use super::{key, register, started};

#[tokio::test]
async fn the_clock_goes_ahead_and_back_and_stands_still() {
    let (emulator, port) = started().await;
    let put = async |body: Value| port.send("PUT /clock", &body.to_string()).await.json();
    let first = port.get("/clock").await.json();
    assert_eq!((&first["ahead"], &first["frozen"]), (&json!(0), &json!(false)));
    // A token holds for an hour; its clock decides.
    for (body, status) in [
        (json!({"ahead": 3000}), 200),
        (json!({"ahead": 4000}), 401),
        (json!({"advance": -4000}), 200),
        (json!({"ahead": -86400}), 200),
        (json!({"at": "2099-12-31T23:59:59+01:00"}), 401),
        (json!({"ahead": 0, "frozen": false}), 200),
    ] {
        put(body.clone()).await;
        assert_eq!(register(&emulator, "pump-17").await, status, "{body}");
    }
    let frozen = put(json!({"at": "2030-01-31T12:00:00Z", "frozen": true})).await;
    assert_eq!(
        (&frozen["now"], &frozen["frozen"]),
        (&json!("2030-01-31T12:00:00.000Z"), &json!(true))
    );
    assert_eq!(port.get("/clock").await.json()["now"], frozen["now"]);
    assert_eq!(put(json!({"advance": 0.5})).await["now"], "2030-01-31T12:00:00.500Z");
    assert_eq!(
        emulator.clock_now(),
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_896_091_200_500)
    );
    assert_eq!(put(json!({"frozen": false})).await["frozen"], false);
    emulator.set_clock(ClockSetting::Ahead(-2.5)).unwrap();
    assert_eq!(port.get("/clock").await.json()["ahead"], -2.5);
}

#[tokio::test]
async fn a_clock_that_can_not_be_is_refused_by_the_name_of_its_field() {
    let (_emulator, port) = started().await;
    for (body, field, value) in [
        (r#"{"ahead": 3153600001}"#, "ahead", "3153600001"),
        (r#"{"ahead": -3153600001}"#, "ahead", "-3153600001"),
        (r#"{"advance": 1e300}"#, "advance", "1000000"),
        (r#"{"ahead": "1h"}"#, "ahead", "\"1h\""),
        (r#"{"ahead": null}"#, "ahead", "null"),
        (r#"{"at": "1969-12-31T23:59:59Z"}"#, "at", "1969"),
        (r#"{"at": "2200-01-01T00:00:00Z"}"#, "at", "2200"),
        (r#"{"at": "2030-01-31T12:00:00"}"#, "at", "2030"),
        (r#"{"at": 1896091200}"#, "at", "1896091200"),
        (r#"{"frozen": 1}"#, "frozen", "1"),
        (r#"{"froze": true}"#, "froze", "true"),
        (r#"{"ahead": 1, "advance": 1}"#, "body", ""),
        (r#"{"ahead": 1, "at": "2030-01-31T12:00:00Z", "frozen": true}"#, "body", ""),
        ("{}", "body", ""),
        ("", "body", ""),
        ("[1]", "body", ""),
    ] {
        let got = port.send("PUT /clock", body).await;
        let (status, named, shown, _) = got.refused();
        assert_eq!((status, named.as_str()), (400, field), "{body}: {got:?}");
        assert!(shown.contains(value), "{body}: {got:?}");
    }
    let now = port.get("/clock").await.json();
    assert_eq!((&now["ahead"], &now["frozen"]), (&json!(0), &json!(false)), "it is as it was");
}

#[tokio::test]
async fn devices_are_known_by_any_case_of_their_ids_until_they_are_forgotten() {
    let (emulator, port) = started().await;
    assert_eq!(port.get("/devices").await.json(), json!({"devices": []}));
    assert_eq!(port.get("/devices/pump-17").await.refused().0, 404);
    for id in ["Valve:3", "pump-17"] {
        assert_eq!(register(&emulator, id).await, 200);
    }
    let devices = port.get("/devices").await.json();
    let ids: Vec<_> = devices["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| &device["registrationId"])
        .collect();
    assert_eq!(ids, ["pump-17", "Valve:3"]);
    for path in ["/devices/Valve:3", "/devices/VALVE%3a3"] {
        let device = port.get(path).await.json();
        assert_eq!(
            (&device["enrollment"], &device["status"]),
            (&json!("Valve:3"), &json!("assigned"))
        );
        assert_eq!(device["substatus"], "initialAssignment");
        assert!(
            device["assignedHub"].is_string() && device["createdDateTimeUtc"].is_string(),
            "{device}"
        );
    }
    assert_eq!(port.send("DELETE /devices/PUMP-17", "").await.status, 204);
    let (status, field, value, _) = port.send("DELETE /devices/pump-17", "").await.refused();
    assert_eq!((status, field.as_str(), value.as_str()), (404, "id", "pump-17"));
    assert_eq!(emulator.devices().len(), 1);
    assert_eq!(port.send("DELETE /devices", "").await.status, 204);
    assert_eq!(emulator.devices(), []);
}

#[tokio::test]
async fn faults_of_connections_are_read_and_set_as_the_file_has_them() {
    let (emulator, port) = started().await;
    let list = json!({"connections": ["close-on-accept", "pass", {"mqtt": {"cut-after": {"packets": 2}}}, {"amqp": "no-credit"},
        {"amqp": {"reject": {"condition": 1, "retry-after": {"text": 7}}}}, {"amqp": {"modify": {"undeliverable-here": true}}}]});
    assert_eq!(port.send("PUT /connections", &list.to_string()).await.json(), list);
    let read = port.get("/connections").await;
    assert_eq!(read.json(), list, "what is read can be sent");
    assert_eq!(emulator.connection_faults()[0], ConnectionFault::CloseOnAccept);
    assert!(
        crate::support::connect(&emulator).await.is_err(),
        "the first connection meets the first fault"
    );
    assert_eq!(port.get("/connections").await.json()["connections"].as_array().unwrap().len(), 5);
    for (body, field, value) in [
        (r#"{"connections": ["nonsense"]}"#, "connections", "nonsense"),
        (r#"{"connections": "pass"}"#, "connections", "pass"),
        (r#"{"connections": [{"mqtt": "nonsense"}]}"#, "connections", "nonsense"),
        (r#"{"faults": []}"#, "faults", "[]"),
        ("{}", "connections", ""),
    ] {
        let (status, named, shown, message) = port.send("PUT /connections", body).await.refused();
        assert_eq!((status, named.as_str()), (400, field), "{body}");
        assert!(shown.contains(value) && !message.is_empty(), "{body}: {shown}");
    }
    assert_eq!(port.get("/connections").await.json()["connections"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn a_reset_puts_all_back_but_the_log_and_the_authorities() {
    let (emulator, port) = started().await;
    let authorities = [port.get("/ca.pem").await.body, port.get("/issuing-ca.pem").await.body];
    assert_eq!(register(&emulator, "pump-17").await, 200);
    let new = Enrollment::individual("new".parse().unwrap(), Attestation::symmetric_key(key()));
    emulator.add_enrollment(new).unwrap();
    emulator.remove_enrollment("Valve:3").unwrap();
    emulator.set_connection_faults([ConnectionFault::CloseAfterTls]);
    port.send("PUT /clock", r#"{"ahead": 9999, "frozen": true}"#).await;
    let events = emulator.events().len();
    for body in ["", "{}"] {
        assert_eq!(port.send("POST /reset", body).await.status, 204);
    }
    assert_eq!(emulator.devices(), []);
    assert_eq!(emulator.connection_faults(), []);
    let clock = port.get("/clock").await.json();
    assert_eq!((&clock["ahead"], &clock["frozen"]), (&json!(0), &json!(false)));
    assert_eq!(register(&emulator, "Valve:3").await, 200);
    assert_eq!(register(&emulator, "new").await, 404);
    assert!(emulator.events().len() > events);
    assert!(port.get("/events").await.body.contains(r#""event":"reset""#));
    assert_eq!(
        [port.get("/ca.pem").await.body, port.get("/issuing-ca.pem").await.body],
        authorities
    );
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let (_emulator, port) = started().await;
    let large = " ".repeat(1024 * 1024 + 1);
    let (status, field, _, message) = port.send("PUT /clock", &large).await.refused();
    assert_eq!((status, field.as_str()), (413, "body"));
    assert!(message.contains("1048576"), "{message}");
}
