//! What devices meet at once of what the service API changes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    support::{Requests, connect},
    tool::Tool,
};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

#[tokio::test]
async fn a_device_meets_each_change_at_once() {
    let tool = Tool::start().await;
    let path = "/enrollments/pump";
    let mut record = json!({
        "registrationId": "pump", "iotHubs": ["one"], "allocationPolicy": "static",
        "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY, "secondaryKey": KEY } },
    });
    assert_eq!(tool.register("pump", KEY).await.status, 404);
    tool.put(path, &record).await;
    let state = |answer: crate::support::Answer| answer.json()["registrationState"].clone();
    assert_eq!(state(tool.register("pump", KEY).await)["assignedHub"], "one");
    let shown = tool.get(path).await.json();
    assert_eq!(shown["registrationState"]["assignedHub"], "one");
    let mut change = async |name: &str, value: Value| {
        record[name] = value;
        let changed = tool.update(path, "*", &record).await;
        assert_eq!(changed.status, 200, "{}", changed.json());
    };
    change("deviceId", json!("pump-one")).await;
    assert_eq!(state(tool.register("pump", KEY).await)["deviceId"], "pump-one");
    change("iotHubs", json!(["two"])).await;
    let moved = state(tool.register("pump", KEY).await);
    assert_eq!(
        (&moved["assignedHub"], &moved["substatus"]),
        (&json!("two"), &json!("deviceDataMigrated"))
    );
    change(
        "reprovisionPolicy",
        json!({ "updateHubAssignment": false, "migrateDeviceData": false }),
    )
    .await;
    change("iotHubs", json!(["three"])).await;
    assert_eq!(state(tool.register("pump", KEY).await)["assignedHub"], "two", "it stays");
    change("reprovisionPolicy", json!({ "updateHubAssignment": true, "migrateDeviceData": false }))
        .await;
    let reset = state(tool.register("pump", KEY).await);
    assert_eq!(
        (&reset["assignedHub"], &reset["substatus"]),
        (&json!("three"), &json!("deviceDataReset"))
    );
    change("provisioningStatus", json!("disabled")).await;
    assert_eq!(tool.register("pump", KEY).await.json()["status"], "disabled");
    change("provisioningStatus", json!("enabled")).await;
    let keys = json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": OTHER, "secondaryKey": OTHER } });
    change("attestation", keys).await;
    assert_eq!(tool.register("pump", KEY).await.status, 401);
    assert_eq!(tool.register("pump", OTHER).await.json()["status"], "assigned");
    tool.send("DELETE", path, &[], "").await;
    assert_eq!(tool.register("pump", OTHER).await.status, 404);
}

#[tokio::test]
async fn the_allocation_policies_choose_among_the_hubs() {
    let config = dps_emulator::Emulator::builder().nearest_hubs(["far", "b"]);
    let tool = Tool::at(config).await;
    for (policy, expected) in
        [("hashed", ["a", "b", "c"]), ("static", ["a"; 3]), ("geoLatency", ["b"; 3])]
    {
        let mut hubs = Vec::new();
        for (id, path) in [("d1", "/enrollmentGroups/g"), ("d2", ""), ("d3", "")] {
            if !path.is_empty() {
                let record = json!({
                    "enrollmentGroupId": "g", "iotHubs": ["a", "b", "c"], "allocationPolicy": policy,
                    "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY } },
                });
                tool.send("DELETE", path, &[], "").await;
                assert_eq!(tool.put(path, &record).await.status, 200);
            }
            let key: dps_emulator::GroupKey = KEY.parse().unwrap();
            let key = key.derive(&id.parse().unwrap()).expose_base64().to_string();
            let answer = tool.register(id, &key).await.json();
            hubs.push(answer["registrationState"]["assignedHub"].as_str().unwrap().to_owned());
        }
        assert_eq!(hubs, expected, "{policy}");
    }
}

#[tokio::test]
async fn a_device_that_spells_its_id_in_another_case_stays_one_device_at_its_hub() {
    let tool = Tool::start().await;
    let attestation = json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY } });
    let alone = json!({ "registrationId": "Pump", "attestation": attestation });
    let group = json!({ "enrollmentGroupId": "g", "attestation": attestation });
    assert_eq!(tool.put("/enrollments/Pump", &alone).await.status, 200);
    assert_eq!(tool.put("/enrollmentGroups/g", &group).await.status, 200);
    let group: dps_emulator::GroupKey = KEY.parse().unwrap();
    for (id, device_id) in
        [("PUMP", "Pump"), ("pump", "Pump"), ("Valve", "Valve"), ("VALVE", "Valve")]
    {
        let derived = group.derive(&id.parse().unwrap()).expose_base64().to_string();
        let key = if device_id == "Pump" { KEY } else { &derived };
        let state = tool.register(id, key).await.json()["registrationState"].take();
        assert_eq!((&state["registrationId"], &state["deviceId"]), (&json!(id), &json!(device_id)));
    }
}

#[tokio::test]
async fn individual_enrollments_are_dealt_their_hubs_in_turn() {
    let tool = Tool::start().await;
    let mut hubs = Vec::new();
    for (id, own) in [("d1", &["a", "b", "c"][..]), ("d2", &["a"]), ("d3", &["a", "b", "c"])] {
        let record = json!({
            "registrationId": id, "iotHubs": own, "allocationPolicy": "hashed",
            "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY } },
        });
        assert_eq!(tool.put(&format!("/enrollments/{id}"), &record).await.status, 200);
    }
    for id in ["d1", "d2", "d3", "d1"] {
        let answer = tool.register(id, KEY).await.json();
        hubs.push(answer["registrationState"]["assignedHub"].as_str().unwrap().to_owned());
    }
    assert_eq!(hubs, ["a", "a", "b", "a"]);
}

#[tokio::test]
async fn a_record_that_names_a_certificate_policy_has_certificates_issued() {
    let tool = Tool::start().await;
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "pump");
    let request = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let body = json!({ "registrationId": "pump", "csr": STANDARD.encode(request.der()) });
    let path = "/enrollments/pump";
    let record = json!({
        "registrationId": "pump",
        "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY } },
    });
    let mut named = record.clone();
    named["certificatePolicyName"] = json!("devices");
    for (record, chain) in [(&record, None), (&named, Some(3)), (&record, None)] {
        assert_eq!(tool.update(path, "*", record).await.status, 200);
        let requests = Requests::with_key(&tool.emulator, "pump", &KEY.parse().unwrap());
        let target =
            format!("/{}/registrations/pump/register?api-version=2026-11-01", requests.scope);
        let mut device = connect(&tool.emulator).await.unwrap();
        let answer =
            device.ask(&requests.request("PUT", &target, &body.to_string())).await.unwrap();
        let issued = &answer.json()["registrationState"]["issuedCertificateChain"];
        assert_eq!(issued.as_array().map(Vec::len), chain, "{}", answer.json());
        let code = answer.json()["errorCode"].as_u64();
        assert_eq!(code, if chain.is_none() { Some(400_000) } else { None });
    }
}
