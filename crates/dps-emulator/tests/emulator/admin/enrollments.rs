//! Enrollments by the admin port: what is put there is what devices meet at once.

use serde_json::json;

use super::{register, started};

const KEY: &str = "c29tZSBkZXZpY2UncyBrZXk=";

#[tokio::test]
async fn what_is_added_replaced_and_removed_is_what_devices_meet_at_once() {
    let (emulator, port) = started().await;
    assert_eq!(register(&emulator, "new-1").await, 404);
    let new = json!({ "registration-id": "new-1", "symmetric-key": KEY, "hub": "one.example" });
    let added = port.send("POST /enrollments", &new.to_string()).await;
    assert_eq!((added.status, &added.json()["hub"]), (201, &json!("one.example")));
    assert_eq!(register(&emulator, "new-1").await, 200);
    assert_eq!(port.get("/devices/new-1").await.json()["assignedHub"], "one.example");
    let (status, field, value, _) =
        port.send("POST /enrollments", &new.to_string()).await.refused();
    assert_eq!((status, field.as_str(), value.as_str()), (409, "name", "new-1"));

    let other = json!({ "registration-id": "NEW-1", "symmetric-key": KEY, "enabled": false });
    assert_eq!(port.send("PUT /enrollments/new-1", &other.to_string()).await.status, 200);
    assert_eq!(port.get("/enrollments/new-1").await.json()["enabled"], false);
    register(&emulator, "new-1").await;
    assert_eq!(port.get("/devices/new-1").await.json()["status"], "disabled");

    let read = port.get("/enrollments").await.json();
    assert_eq!(read["enrollments"].as_array().unwrap().len(), 3);
    for enrollment in read["enrollments"].as_array().unwrap() {
        let path = format!("PUT /enrollments/{}", enrollment["registration-id"].as_str().unwrap());
        let again = port.send(&path, &enrollment.to_string()).await;
        assert_eq!((again.status, &again.json()), (200, enrollment), "what is read can be sent");
    }
    assert_eq!(port.send("DELETE /enrollments/New-1", "").await.status, 204);
    assert_eq!(port.send("DELETE /enrollments/New-1", "").await.refused().0, 404);
    assert_eq!(register(&emulator, "new-1").await, 404);
}

#[tokio::test]
async fn json_comes_back_to_the_letter_also_with_what_toml_lacks() {
    let (_emulator, port) = started().await;
    for key in ["payload", "initial-twin", "device-information", "update"] {
        let value = r#"{"tags":{"large":12345678901234567890,"none":null}}"#;
        let sent = format!(r#"{{"registration-id":"j","symmetric-key":"{KEY}","{key}":{value}}}"#);
        let put = port.send("PUT /enrollments/j", &sent).await;
        assert!(put.status < 300, "{key}: {put:?}");
        assert_eq!(put.json()[key], value, "{key}");
    }
}

#[tokio::test]
async fn an_individual_enrollment_and_a_group_may_have_one_name() {
    let (_emulator, port) = started().await;
    let group = json!({ "group": "pump-17", "symmetric-key": KEY });
    assert_eq!(port.send("PUT /enrollments/pump-17", &group.to_string()).await.status, 201);
    assert!(port.get("/enrollments/pump-17").await.json()["group"].is_null());
    assert_eq!(port.get("/enrollments/pump-17?kind=group").await.json()["group"], "pump-17");
    assert_eq!(port.send("DELETE /enrollments/pump-17?kind=group", "").await.status, 204);
    assert_eq!(port.get("/enrollments/pump-17?kind=individual").await.status, 200);
    assert_eq!(port.get("/enrollments/pump-17?kind=group").await.refused().0, 404);
    let (status, field, value, _) = port.get("/enrollments/pump-17?kind=both").await.refused();
    assert_eq!((status, field.as_str(), value.as_str()), (400, "kind", "both"));
}

#[tokio::test]
async fn a_behavior_is_set_as_a_whole_and_begins_anew() {
    let (emulator, port) = started().await;
    let path = "PUT /enrollments/PUMP-17/behavior";
    let refuses = json!({ "register": [{ "refuse": 429, "times": 1 }] });
    for _ in 0..2 {
        assert_eq!(
            port.send(path, &refuses.to_string()).await.json()["register"][0]["refuse"],
            429
        );
        assert_eq!(register(&emulator, "pump-17").await, 429);
        assert_eq!(register(&emulator, "pump-17").await, 200);
    }
    assert_eq!(port.send(path, r#"{"polls": 2}"#).await.json()["polls"], 2);
    let read = port.get("/enrollments/pump-17").await.json();
    assert!(read["register"].is_null() && read["symmetric-key"] == KEY, "{read}");
    assert_eq!(port.send("PUT /enrollments/nobody/behavior", "{}").await.refused().0, 404);
    for (body, field, value) in [
        (r#"{"hub": "x"}"#, "hub", "x"),
        (r#"{"polls": -1}"#, "polls", "-1"),
        (r#"{"outcome": 7}"#, "outcome", "7"),
    ] {
        let (status, named, shown, message) = port.send(path, body).await.refused();
        assert_eq!((status, named.as_str()), (400, field), "{body}: {message}");
        assert!(shown.contains(value) || message.contains(value), "{body}: {shown} {message}");
    }
}

#[tokio::test]
async fn an_enrollment_that_can_not_be_is_refused_without_showing_its_key() {
    let (_emulator, port) = started().await;
    for (body, field) in [
        (json!({ "registration-id": "a b", "symmetric-key": KEY }), "registration-id"),
        (json!({ "registration-id": "a", "symmetric-key": "c2VjcmV0*" }), "symmetric-key"),
        (json!({ "registration-id": "a", "certificate-file": "/etc/passwd" }), "certificate-file"),
        (json!({ "registration-id": "a", "symmetric-key": KEY, "hub": "" }), "hub"),
        (json!({ "group": "", "symmetric-key": KEY }), "group"),
        (json!({ "symmetric-key": KEY }), "registration-id"),
    ] {
        let got = port.send("POST /enrollments", &body.to_string()).await;
        let (status, named, ..) = got.refused();
        assert_eq!((status, named.as_str()), (400, field), "{got:?}");
        assert!(!got.body.contains(KEY) && !got.body.contains("c2VjcmV0"), "{got:?}");
    }
    let mismatched = json!({ "registration-id": "other", "symmetric-key": KEY });
    let (status, field, value, _) =
        port.send("PUT /enrollments/pump-17", &mismatched.to_string()).await.refused();
    assert_eq!((status, field.as_str(), value.as_str()), (400, "name", "other"));
}

#[tokio::test]
async fn with_a_seed_ids_and_keys_are_the_same_each_run_and_after_a_reset() {
    let mut runs = Vec::new();
    for seed in ["one", "one", "two"] {
        let config = super::config().seed(seed).with_any_device(None, None).unwrap();
        assert!(!format!("{config:?}").contains("Zeroizing"), "the seed is not shown");
        let emulator = config.start().await.unwrap();
        let mut ids = Vec::new();
        for _ in 0..2 {
            register(&emulator, "pump-17").await;
            ids.push(emulator.devices()[0].operation_id.clone());
            emulator.reset().unwrap();
        }
        assert_eq!(ids[0], ids[1], "after a reset");
        runs.push((ids, emulator.group_key().unwrap().expose_base64().to_string()));
    }
    assert_eq!(runs[0], runs[1]);
    assert!(runs[0].0 != runs[2].0 && runs[0].1 != runs[2].1);
}
