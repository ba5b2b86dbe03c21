//! Enrollments as records: made, read, changed under etags, deleted, refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_emulator::{
    CaCertificates, Emulator, Enrollment, EventKind, Fault, RetryAfter, Thumbprint,
};
use serde_json::{Value, json};

use crate::tool::{Tool, refused};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const TPM: &str = "AToAAQALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAgAAAAAAAEA6BZPp8ETnOtHwPoWWechpH03MmOSWcSsOozMycx9QHzMCdQUocupztEGr4xyViDQF/R8K8tSMAcQtEm5V/ex5RXYhm+Czm23TWl5bwsQW87eeiaVHez6pS6qd3mtuCJpPoIW8ICSRzgE8qjtVqmCABB6U/obDFCWTVLJYgnA7En8sSdSkVjr+YYubQiuUFJosC+js1TA3azBDcqQ7t97GOjKoqt/BpL5aPbUQfMGXe5TkNUEqalJXv3Jxoeu5FxUGhrEVClQXrMELT1n7gfWkBu7m365cCWqahR2gPUduxjWCT7za9GwEzTs6bTh1GlogVCpsaFf5quDgnVqkMWU7Q==";

fn symmetric(id: &str) -> Value {
    json!({ "registrationId": id, "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY } } })
}

fn certificate(is_ca: bool) -> String {
    let mut params = rcgen::CertificateParams::default();
    if is_ca {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

/// A record with more fields.
fn with(id: &str, more: Value) -> Value {
    let mut record = symmetric(id);
    record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    record
}

/// Everything in `wanted` is in `got`.
#[track_caller]
fn has(got: &Value, wanted: &Value) {
    match (got, wanted) {
        (Value::Object(got_fields), Value::Object(wanted)) => {
            wanted.iter().for_each(|(name, value)| {
                has(got_fields.get(name).unwrap_or_else(|| panic!("no {name} in {got}")), value);
            });
        }
        _ => assert_eq!(got, wanted),
    }
}

#[tokio::test]
async fn every_kind_of_record_is_made_and_given_back() {
    let ca: CaCertificates = certificate(true).parse().unwrap();
    let config = Emulator::builder().verified_ca("root", ca).linked_hubs(["linked"]);
    let mut tool = Tool::at(config).await;
    let leaf = certificate(false);
    let der: String = leaf.lines().filter(|line| !line.starts_with('-')).collect();
    let root = certificate(true);
    let everything = json!({
        "registrationId": "everything", "deviceId": "other",
        "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY, "secondaryKey": KEY }, "tpm": null, "x509": null },
        "capabilities": { "iotEdge": true }, "initialTwin": { "tags": { "a": 1 }, "properties": { "desired": { "b": [true] } } },
        "optionalDeviceInformation": { "color": "blue" }, "provisioningStatus": "disabled",
        "reprovisionPolicy": { "updateHubAssignment": true, "migrateDeviceData": false },
        "iotHubs": ["a", "b"], "allocationPolicy": "geoLatency",
    });
    let x509 = |name: &str, primary: Value| json!({ "type": "x509", "x509": { name: { "primary": primary } } });
    for (path, record) in [
        ("/enrollments/everything", everything),
        ("/enrollments/dev%3A1", symmetric("dev:1")),
        (
            "/enrollments/pem",
            json!({ "registrationId": "pem", "attestation": x509("clientCertificates", json!({ "certificate": leaf })) }),
        ),
        (
            "/enrollmentGroups/ca",
            json!({ "enrollmentGroupId": "ca", "attestation": x509("signingCertificates", json!({ "certificate": root })) }),
        ),
        (
            "/enrollmentgroups/ref",
            json!({ "enrollmentGroupId": "ref", "attestation": x509("caReferences", json!("root")) }),
        ),
        (
            "/enrollments/tpm",
            json!({ "registrationId": "tpm", "attestation": { "type": "tpm", "tpm": { "endorsementKey": TPM, "storageRootKey": TPM } } }),
        ),
        (
            "/enrollments/never",
            json!({ "registrationId": "never", "attestation": { "type": "symmetricKey" }, "reprovisionPolicy": { "updateHubAssignment": false, "migrateDeviceData": false }, "iotHubHostName": "h", "allocationPolicy": "static" }),
        ),
        (
            "/enrollments/bare-tpm",
            json!({ "registrationId": "bare-tpm", "attestation": { "type": "tpm", "tpm": { "endorsementKey": TPM, "storageRootKey": null } } }),
        ),
        ("/enrollments/issues", with("issues", json!({ "credentialPolicyName": "default" }))),
        (
            "/enrollments/issues-2021",
            with(
                "issues-2021",
                json!({ "clientCertificateIssuancePolicy": { "certificateAuthorityName": "issuing" } }),
            ),
        ),
        (
            "/enrollments/issues-2026",
            with(
                "issues-2026",
                json!({ "namespaceName": "factory", "certificateAuthorityName": "issuing", "certificatePolicyName": "devices" }),
            ),
        ),
        (
            "/enrollmentGroups/custom",
            json!({ "enrollmentGroupId": "custom", "attestation": { "type": "symmetricKey" }, "allocationPolicy": "custom", "customAllocationDefinition": { "webhookUrl": "http://localhost:1/", "apiVersion": "2021-10-01" } }),
        ),
    ] {
        for version in ["2018-09-01-preview", "2019-03-31", "2021-10-01", "2026-11-01"] {
            tool.api_version = version;
            let made = tool.update(path, "*", &record).await;
            assert_eq!(made.status, 200, "{path}: {}", made.json());
            has(&made.json(), &record_without_nulls(&record));
        }
        let got = tool.get(path).await;
        let record = got.json();
        assert_eq!(got.header("etag"), record["etag"].as_str());
        let etag = record["etag"].as_str().unwrap();
        assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        assert!(record["createdDateTimeUtc"].as_str() < record["lastUpdatedDateTimeUtc"].as_str());
        // What was read can be written again as it is.
        let again = tool.update(path, etag, &record).await;
        assert_eq!(again.status, 200, "{}", again.json());
        has(&again.json(), &json!({ "iotHubs": record["iotHubs"] }));
    }
    // The form in which one client sends certificates.
    let bare = json!({ "registrationId": "pem", "attestation": x509("clientCertificates", json!({ "certificate": der })) });
    let shown = tool.update("/enrollments/pem", "*", &bare).await.json();
    let shown = &shown["attestation"]["x509"]["clientCertificates"]["primary"];
    let thumbprint = Thumbprint::of_pem(&leaf).unwrap().to_string();
    assert_eq!(shown["info"]["sha256Thumbprint"], thumbprint);
    assert_eq!(shown["certificate"], leaf.replace("\r\n", "\n"));
    assert_eq!(tool.get("/enrollments/tpm").await.json()["iotHubs"], json!(["linked"]));
}

fn record_without_nulls(record: &Value) -> Value {
    match record {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(name, value)| (name.clone(), record_without_nulls(value))).collect()
        }
        other => other.clone(),
    }
}

#[tokio::test]
async fn keys_that_are_left_out_are_made_and_stay_and_are_told_only_when_asked_for() {
    let tool = Tool::start().await;
    for (path, field) in
        [("/enrollments/d", "registrationId"), ("/enrollmentGroups/d", "enrollmentGroupId")]
    {
        let record = json!({ field: "d", "attestation": { "type": "symmetricKey" } });
        let made = tool.put(path, &record).await.json();
        let keys = &made["attestation"]["symmetricKey"];
        let [primary, secondary] =
            ["primaryKey", "secondaryKey"].map(|name| keys[name].as_str().unwrap());
        assert_eq!(STANDARD.decode(primary).unwrap().len(), 64);
        assert_ne!(primary, secondary);
        let got = tool.get(path).await.json();
        assert_eq!(got["attestation"], json!({ "type": "symmetricKey", "symmetricKey": {} }));
        tool.update(path, made["etag"].as_str().unwrap(), &got).await;
        let mechanism = tool.send("POST", &format!("{path}/attestationmechanism"), &[], "").await;
        assert_eq!(mechanism.json(), made["attestation"]);
    }
}

#[tokio::test]
async fn etags_decide_who_writes() {
    let tool = Tool::start().await;
    let path = "/enrollments/dev-1";
    let record = symmetric("dev-1");
    refused(&tool.get(path).await, 404_201, "not found");
    refused(&tool.update(path, "\"old\"", &record).await, 404_201, "not found");
    refused(&tool.send("DELETE", path, &[], "").await, 404_201, "not found");
    let first = tool.put(path, &record).await.json();
    refused(&tool.put("/enrollments/DEV-1", &symmetric("DEV-1")).await, 409_201, "If-Match");
    let etag = first["etag"].as_str().unwrap();
    let second = tool.update(path, etag, &record).await.json();
    assert_ne!(second["etag"], first["etag"]);
    assert_eq!(second["createdDateTimeUtc"], first["createdDateTimeUtc"]);
    refused(&tool.update(path, etag, &record).await, 412_201, "get it again");
    refused(&tool.send("DELETE", path, &[("If-Match", etag)], "").await, 412_201, "get it again");
    // Without its quotes, as one client sends it.
    let bare = second["etag"].as_str().unwrap().trim_matches('"');
    let third = tool.update(path, bare, &record).await.json();
    let last = third["etag"].as_str().unwrap();
    let deleted = tool.send("DELETE", path, &[("If-Match", last)], "").await;
    assert_eq!((deleted.status, deleted.body.as_slice()), (204, &b""[..]));
    refused(&tool.get(path).await, 404_201, "not found");
}

#[tokio::test]
async fn bodies_that_are_no_records_are_refused_with_the_field() {
    let tool = Tool::start().await;
    let change = |name: &str, value: Value| {
        let mut record = symmetric("dev-1");
        record[name] = value;
        record
    };
    let with =
        |attestation: Value| json!({ "registrationId": "dev-1", "attestation": attestation });
    let x509 = |primary: Value| {
        with(json!({ "type": "x509", "x509": { "clientCertificates": { "primary": primary } } }))
    };
    let webhook = |url: &str| {
        let mut record = change("allocationPolicy", json!("custom"));
        record["customAllocationDefinition"] = json!({ "webhookUrl": url, "apiVersion": "1" });
        record
    };
    let two_hubs = |hub: &str| {
        let mut record = change("iotHubs", json!(["one", "two"]));
        record["iotHubHostName"] = json!(hub);
        record
    };
    for (record, says) in [
        (json!([]), "the body must be a JSON object"),
        (json!({}), "registrationId: it is missing"),
        (json!({ "registrationId": 7 }), "registrationId: invalid type"),
        (json!({ "registrationId": "a b" }), "registrationId: "),
        (symmetric("dev-2"), "registrationId: it is another than the one in the path"),
        (json!({ "registrationId": "dev-1" }), "attestation: it is missing"),
        (with(json!("x509")), "attestation must be a JSON object"),
        (with(json!({})), "attestation.type: it is missing"),
        (with(json!({ "type": "none" })), "attestation.type: it must be symmetricKey"),
        (
            with(json!({ "type": "symmetricKey", "symmetricKey": { "primaryKey": "c2hvcnQ=" } })),
            "attestation.symmetricKey.primaryKey: ",
        ),
        (
            with(json!({ "type": "symmetricKey", "symmetricKey": { "key": "x" } })),
            "attestation.symmetricKey.key: there is no such field",
        ),
        (
            with(json!({ "type": "symmetricKey", "tpm": {} })),
            "attestation.tpm: the type is another one",
        ),
        (with(json!({ "type": "tpm" })), "attestation.tpm: it is missing"),
        (
            with(json!({ "type": "tpm", "tpm": { "endorsementKey": "AToA" } })),
            "attestation.tpm.endorsementKey: ",
        ),
        (
            with(
                json!({ "type": "tpm", "tpm": { "endorsementKey": TPM, "storageRootKey": "AToA" } }),
            ),
            "attestation.tpm.storageRootKey: ",
        ),
        (with(json!({ "type": "x509" })), "attestation.x509: it is missing"),
        (
            with(json!({ "type": "x509", "x509": {} })),
            "attestation.x509.clientCertificates: it is missing",
        ),
        (x509(json!({})), "attestation.x509.clientCertificates.primary.certificate: it is missing"),
        (
            x509(json!({ "certificate": "x" })),
            "attestation.x509.clientCertificates.primary.certificate: ",
        ),
        (
            x509(json!({ "info": { "sha256Thumbprint": "12" } })),
            "primary.info.sha256Thumbprint: it must have 64",
        ),
        (change("color", json!(1)), "color: there is no such field"),
        (change("iotHubs", json!("a")), "iotHubs: invalid type"),
        (change("iotHubs", json!([""])), "iotHubs: it must be a host name"),
        (change("capabilities", json!({ "iotEdge": "yes" })), "capabilities.iotEdge: invalid type"),
        (change("initialTwin", json!({ "tags": 1 })), "initialTwin.tags: "),
        (
            change("initialTwin", json!({ "properties": { "reported": {} } })),
            "initialTwin.properties.reported: there is no such field",
        ),
        (
            change("provisioningStatus", json!("off")),
            "provisioningStatus: it must be one of enabled, disabled",
        ),
        (change("allocationPolicy", json!("best")), "allocationPolicy: it must be one of hashed"),
        (change("allocationPolicy", json!("custom")), "customAllocationDefinition: it is missing"),
        (webhook("ftp://localhost/"), "customAllocationDefinition.webhookUrl: give an http"),
        (webhook("http://localhost:99999/"), "a port is at most 65535"),
        (webhook("http://localhost:/"), "a port is at most 65535"),
        (webhook("https://user:secret@localhost/"), "without a user name"),
        (
            change("reprovisionPolicy", json!({ "migrate": true })),
            "reprovisionPolicy.migrate: there is no such field",
        ),
        (change("deviceId", json!(1)), "deviceId: invalid type"),
        (change("deviceId", json!("")), "deviceId: it must be 1 to 128"),
        (change("deviceId", json!("ü /\n")), "deviceId: it must be 1 to 128"),
        (change("iotHubHostName", json!("two words")), "iotHubHostName: it must be a host name"),
        (change("iotHubs", json!(["a", "<script>"])), "iotHubs: it must be a host name"),
        (two_hubs("one"), "iotHubHostName: iotHubs has others"),
        (change("namespaceName", json!("ab")), "namespaceName: it must have 3 to 64 characters"),
        (
            change("certificatePolicyName", json!("a".repeat(65))),
            "certificatePolicyName: it must have 3 to 64 characters",
        ),
        (
            change("clientCertificateIssuancePolicy", json!({})),
            "clientCertificateIssuancePolicy.certificateAuthorityName: it is missing",
        ),
    ] {
        let answer = tool.put("/enrollments/dev-1", &record).await;
        refused(&answer, 400_012, says);
    }
    let group =
        |attestation: Value| json!({ "enrollmentGroupId": "g", "attestation": attestation });
    for (record, says) in [
        (group(json!({ "type": "tpm" })), "a group has no tpm"),
        (
            group(json!({ "type": "x509", "x509": {} })),
            "signingCertificates: give this or caReferences",
        ),
        (
            group(json!({ "type": "x509", "x509": { "caReferences": { "primary": "no" } } })),
            "caReferences.primary: there is no CA",
        ),
        (
            group(
                json!({ "type": "x509", "x509": { "signingCertificates": { "primary": { "certificate": certificate(false) } } } }),
            ),
            "it is no authority",
        ),
    ] {
        refused(&tool.put("/enrollmentGroups/g", &record).await, 400_012, says);
    }
    refused(&tool.send("PUT", "/enrollments/dev-1", &[], "{").await, 400_012, "body");
    let text = [("Content-Type", "text/plain")];
    let sent = symmetric("dev-1").to_string();
    refused(
        &tool.send("PUT", "/enrollments/dev-1", &text, &sent).await,
        415_000,
        "application/json",
    );
    refused(&tool.send("PATCH", "/enrollments/dev-1", &[], &sent).await, 405_000, "Method");
    refused(&tool.get("/enrollments/dev-1/twin").await, 404_000, "twin");
    assert!(tool.emulator.enrollments().is_empty());
}

#[tokio::test]
async fn api_versions_are_checked() {
    let mut tool = Tool::start().await;
    for (version, says) in [("", "missing"), ("2020-01-01", "2021-10-01")] {
        tool.api_version = version;
        refused(&tool.get("/enrollments/a").await, 400_000, says);
    }
    for version in [
        "2017-11-15",
        "2018-04-01",
        "2018-11-01",
        "2019-01-15",
        "2019-02-15-preview",
        "2021-06-01",
        "2026-11-02-preview",
    ] {
        tool.api_version = version;
        refused(&tool.get("/enrollments/a").await, 404_201, "not found");
    }
}

#[tokio::test]
async fn a_script_makes_the_service_api_fail_as_well() {
    let throttled = Fault::refuse(429).retry_after(RetryAfter::Seconds(7)).times(2);
    let tool = Tool::at(Emulator::builder().service_faults([throttled])).await;
    let record = symmetric("dev-1");
    for _ in 0..2 {
        let answer = tool.put("/enrollments/dev-1", &record).await;
        refused(&answer, 429_001, "Too many");
        assert_eq!(answer.header("retry-after"), Some("7"));
    }
    assert_eq!(tool.put("/enrollments/dev-1", &record).await.status, 200, "none was served before");
}

#[tokio::test]
async fn what_the_configuration_made_is_a_record_too_and_keeps_what_the_service_lacks() {
    let key = KEY.parse().unwrap();
    let attestation = dps_emulator::Attestation::symmetric_key(key);
    let behavior = dps_emulator::Behavior::new().polls(3);
    let enrollment =
        Enrollment::individual("pump".parse().unwrap(), attestation).behavior(behavior);
    let tool = Tool::at(Emulator::builder().enrollment(enrollment)).await;
    let record = tool.get("/enrollments/PUMP").await.json();
    assert_eq!(record["registrationId"], "pump");
    let etag = record["etag"].as_str().unwrap();
    assert_eq!(tool.update("/enrollments/pump", etag, &record).await.status, 200);
    assert_eq!(tool.register("pump", KEY).await.json()["status"], "assigning");
    assert_eq!(tool.emulator.enrollments()[0].to_json()["polls"], 3);
    let event = tool.emulator.events().snapshot().into_iter().find_map(|event| match event.kind {
        EventKind::ServiceCall { method, path, policy, status, .. } if method == "PUT" => {
            Some((path, policy, status))
        }
        _ => None,
    });
    let owner = Some("provisioningserviceowner".to_owned());
    assert_eq!(event, Some(("/enrollments/pump".to_owned(), owner, 200)));
}

#[tokio::test]
async fn with_a_seed_the_keys_that_are_made_are_the_same_each_run() {
    let mut runs = Vec::new();
    for seed in [Some("one"), Some("one"), Some("two"), None, None] {
        let config = Emulator::builder();
        let tool = Tool::at(match seed {
            Some(seed) => config.seed(seed),
            None => config,
        })
        .await;
        let record = json!({ "registrationId": "d", "attestation": { "type": "symmetricKey" } });
        let made = tool.put("/enrollments/d", &record).await.json();
        runs.push(made["attestation"]["symmetricKey"]["primaryKey"].as_str().unwrap().to_owned());
    }
    assert_eq!(runs[0], runs[1]);
    let different: std::collections::BTreeSet<_> = runs.iter().skip(1).collect();
    assert_eq!(different.len(), 4);
}
