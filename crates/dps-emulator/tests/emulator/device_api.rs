//! The device API beyond a registration: the status lookup, updates, and what each api-version has.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_emulator::{
    Allocation, Attestation, Behavior, CertificatePolicy, Emulator, Enrollment, EventKind,
    Operation, Pace, Reprovisioning, ReturnedPayload, SymmetricKey,
};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

use crate::support::{Answer, Device, Requests, connect};

fn key() -> SymmetricKey {
    "c29tZSBkZXZpY2UncyBrZXk=".parse().unwrap()
}

fn one_device() -> Enrollment {
    Enrollment::individual("dev-1".parse().unwrap(), Attestation::symmetric_key(key()))
}

struct Bench {
    emulator: Emulator,
    requests: Requests,
    device: Device,
}

impl Bench {
    async fn new(enrollment: Enrollment) -> Self {
        Self::at_pace(enrollment, Pace::Fast).await
    }

    async fn at_pace(enrollment: Enrollment, pace: Pace) -> Self {
        let emulator = Emulator::builder().enrollment(enrollment).pace(pace).start().await.unwrap();
        let requests = Requests::with_key(&emulator, "dev-1", &key());
        let device = connect(&emulator).await.unwrap();
        Self { emulator, requests, device }
    }

    /// `path` is what follows the registration.
    async fn ask(&mut self, method: &str, path: &str, version: &str, body: &str) -> Answer {
        let scope = &self.requests.scope;
        let path = format!("/{scope}/registrations/dev-1{path}?api-version={version}");
        let request = self.requests.request(method, &path, body);
        self.device.ask(&request).await.unwrap()
    }

    async fn register(&mut self, version: &str, body: &str) -> Answer {
        self.ask("PUT", "/register", version, body).await
    }

    fn operations(&self) -> Vec<Operation> {
        let events = self.emulator.events().snapshot().into_iter();
        let operations = events.filter_map(|event| match event.kind {
            EventKind::Request { operation, .. } => Some(operation),
            _ => None,
        });
        operations.collect()
    }
}

fn request_for(name: &str) -> (Vec<u8>, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
    (request.der().to_vec(), request.pem().unwrap())
}

#[tokio::test]
async fn at_the_pace_of_the_service_the_first_query_says_that_the_device_is_assigned() {
    let mut bench = Bench::at_pace(one_device(), Pace::Service).await;
    let first = bench.register("2021-06-01", "{}").await;
    assert_eq!((first.status, first.header("retry-after")), (202, Some("3")));
    let body = first.json();
    assert_eq!((&body["status"], body.get("registrationState")), (&json!("assigning"), None));
    let path = format!("/operations/{}", body["operationId"].as_str().unwrap());
    let second = bench.ask("GET", &path, "2021-06-01", "").await;
    assert_eq!((second.status, &second.json()["status"]), (200, &json!("assigned")));
}

#[tokio::test]
async fn a_status_lookup_tells_what_has_become_of_the_last_registration() {
    let policy = CertificatePolicy::issue_for_days(1);
    let enrollment = one_device().certificate_policy(policy).behavior(Behavior::new().polls(1));
    let mut bench = Bench::new(enrollment).await;
    let version = "2026-11-01";
    let never = bench.ask("POST", "", version, "{}").await;
    assert_eq!((never.status, &never.json()["errorCode"]), (404, &json!(404_201)));

    let csr = STANDARD.encode(request_for("dev-1").0);
    let with_csr = json!({"registrationId": "dev-1", "csr": csr}).to_string();
    let operation = bench.register(version, &with_csr).await.json()["operationId"].take();
    let assigning = bench.ask("POST", "", version, r#"{"registrationId":"dev-1"}"#).await;
    assert_eq!((assigning.status, assigning.header("retry-after")), (200, None));
    let state = assigning.json();
    assert_eq!(
        (&state["status"], &state["registrationId"]),
        (&json!("assigning"), &json!("dev-1"))
    );
    assert!(state["etag"].is_string() && state["createdDateTimeUtc"].is_string(), "{state}");

    let path = format!("/operations/{}", operation.as_str().unwrap());
    let mut assigned =
        bench.ask("GET", &path, version, "").await.json()["registrationState"].take();
    let chain = assigned.as_object_mut().unwrap().remove("issuedCertificateChain");
    assert_eq!(chain.and_then(|chain| chain.as_array().map(Vec::len)), Some(3));
    for body in ["", "{}", r#"{"registrationId":"DEV-1","payload":{"a":1}}"#] {
        let found = bench.ask("POST", "", version, body).await;
        assert_eq!((found.status, found.json()), (200, assigned.clone()), "the bare state");
    }
    for (body, code) in [
        (with_csr.as_str(), 400_000),
        (r#"{"registrationId":"dev-2"}"#, 400_000),
        ("[]", 400_012),
        ("{", 400_012),
        (r#"{"unknown":1}"#, 400_012),
    ] {
        assert_eq!(bench.ask("POST", "", version, body).await.json()["errorCode"], code, "{body}");
    }
    assert_eq!(bench.ask("GET", "", version, "").await.status, 405);
    bench.requests.authorization = None;
    assert_eq!(bench.ask("POST", "", version, "{}").await.json()["errorCode"], 401_000);
    let lookups = bench.operations().into_iter().filter(|it| *it == Operation::Lookup).count();
    assert_eq!(lookups, 11, "a request by another method is none");
}

const ONBOARDING: [&str; 3] =
    ["/requestOnboardingUpdates", "/requestSoftwareUpdates", "/reportUpdateStatus"];
const DRAFT: [&str; 3] =
    ["/onboarding/getDeviceUpdate", "/getDeviceUpdate", "/reportDeviceUpdateStatus"];

#[tokio::test]
async fn updates_are_offered_until_the_device_reports_on_them() {
    let update = r#"{"workflowId":"w-1","updateManifest":"e30=","fileUrls":{}}"#;
    let report = |workflow: &str, outcome: &str| {
        json!({"workflowId": workflow, "installResult": {"outcome": outcome}}).to_string()
    };
    for (version, [onboarding, software, status], etag) in [
        ("2026-11-02-preview", ONBOARDING, "serviceConfigEtag"),
        ("2026-11-15-preview", DRAFT, "serviceConfigETag"),
    ] {
        let mut bench = Bench::new(one_device().update(update.parse().unwrap())).await;
        let offered = async |bench: &mut Bench, path: &str| {
            let answer = bench.ask("POST", path, version, r#"{"installedUpdateId":null}"#).await;
            assert!(answer.status == 200 && answer.json()[etag].is_string(), "{answer:?}");
            answer.json().get("updateMetadata").cloned()
        };
        let expected: Value = serde_json::from_str(update).unwrap();
        for path in [onboarding, software] {
            assert_eq!(offered(&mut bench, path).await.as_ref(), Some(&expected), "{path}");
        }
        for (workflow, outcome, again) in
            [("w-1", "IN_PROGRESS", true), ("w-2", "SUCCEEDED", true), ("w-1", "FAILED", false)]
        {
            let answer = bench.ask("POST", status, version, &report(workflow, outcome)).await;
            assert_eq!((answer.status, answer.json()), (200, json!({})));
            assert_eq!(offered(&mut bench, onboarding).await.is_some(), again, "{workflow}");
        }
        let operations = bench.operations();
        for operation in
            [Operation::OnboardingUpdate, Operation::SoftwareUpdate, Operation::UpdateStatus]
        {
            assert!(operations.contains(&operation), "{operation:?}");
        }
    }
}

#[tokio::test]
async fn without_an_update_there_is_none_and_other_api_versions_do_not_know_the_calls() {
    let mut bench = Bench::new(one_device()).await;
    let none = bench.ask("POST", ONBOARDING[0], "2026-11-02-preview", "{}").await.json();
    assert_eq!(none, json!({"serviceConfigEtag": "\"1\"", "agentInfoEtag": "\"1\""}));
    for (path, version) in [
        (ONBOARDING[0], "2026-11-01"),
        (ONBOARDING[1], "2026-11-15-preview"),
        (DRAFT[0], "2026-11-02-preview"),
        ("/requestOnboardingUpdates/x", "2026-11-02-preview"),
        ("/", "2026-11-02-preview"),
        ("/requestOnboardingUpdates", ""),
    ] {
        let answer = bench.ask("POST", path, version, "{}").await;
        assert_eq!(answer.json()["errorCode"], 404_000, "{path} {version}");
    }
    let body = bench.ask("POST", ONBOARDING[2], "2026-11-02-preview", "[]").await;
    assert_eq!(body.json()["errorCode"], 400_012);
    assert_eq!(bench.ask("PUT", ONBOARDING[0], "2026-11-02-preview", "{}").await.status, 405);
}

#[tokio::test]
async fn each_api_version_has_its_own_fields() {
    const ALL: [(&str, Option<&str>, Option<&str>, bool); 12] = [
        ("2017-11-15", None, None, false),
        ("2018-09-01-preview", Some("data"), None, false),
        ("2018-11-01", Some("data"), None, false),
        ("2019-01-15", Some("data"), None, false),
        ("2019-03-31", Some("payload"), None, false),
        ("2021-06-01", Some("payload"), None, false),
        ("2021-10-01", Some("payload"), None, false),
        ("2021-11-01-preview", Some("payload"), Some("clientCertificateCsr"), false),
        ("2025-07-01-preview", Some("payload"), Some("csr"), false),
        ("2026-11-01", Some("payload"), Some("csr"), false),
        ("2026-11-02-preview", Some("payload"), Some("csr"), true),
        ("2026-11-15-preview", Some("payload"), Some("csr"), true),
    ];
    let enrollment = one_device()
        .payload(ReturnedPayload::Echo)
        .certificate_policy(CertificatePolicy::issue_for_days(1));
    let mut bench = Bench::new(enrollment).await;
    let (der, pem) = request_for("dev-1");
    for (version, payload, csr, has_profile) in ALL {
        for field in ["payload", "data"] {
            let answer = bench.register(version, &json!({field: {"a": 1}}).to_string()).await;
            let known = payload == Some(field);
            assert_eq!(answer.status, if known { 200 } else { 400 }, "{version} {field}");
            if known {
                assert_eq!(answer.json()["registrationState"][field], json!({"a": 1}), "{version}");
            }
        }
        for (field, request) in
            [("csr", STANDARD.encode(&der)), ("clientCertificateCsr", pem.clone())]
        {
            let answer = bench.register(version, &json!({field: request}).to_string()).await;
            let known = csr == Some(field);
            assert_eq!(answer.status, if known { 200 } else { 400 }, "{version} {field}");
            let state = answer.json()["registrationState"].take();
            if known && field == "csr" {
                assert_eq!(state["issuedCertificateChain"].as_array().unwrap().len(), 3);
            } else if known {
                let leaf = state["issuedClientCertificate"].as_str().unwrap();
                assert_eq!(leaf.matches("BEGIN CERTIFICATE").count(), 1, "{leaf}");
                let bundle = &state["trustBundle"]["certificates"][0]["certificate"];
                assert_eq!(bundle.as_str(), bench.emulator.issuing_ca_pem().as_deref());
            }
        }
        let state = bench.register(version, "").await.json()["registrationState"].take();
        let profile = has_profile.then_some("classic");
        assert_eq!(state["connectionProfile"].as_str(), profile, "{version}");
        assert_eq!(state.get("substatus").is_some(), version != "2017-11-15", "{version}");
        assert_eq!(state["assignedHub"], Enrollment::DEFAULT_HUB);
    }
    // The example of the preview of 2021 has no line breaks in its armor.
    let body = json!({"clientCertificateCsr": pem.replace('\n', "")}).to_string();
    assert_eq!(bench.register("2021-11-01-preview", &body).await.status, 200);
}

#[tokio::test]
async fn a_registration_that_is_repeated_adds_what_is_new_and_each_answer_has_the_fields_of_its_api_version()
 {
    let enrollment = one_device()
        .assign_to_each(["a", "b"])
        .allocation(Allocation::EachRun)
        .reprovisioning(Reprovisioning::Never)
        .payload(ReturnedPayload::Echo)
        .certificate_policy(CertificatePolicy::issue_for_days(1));
    let mut bench = Bench::at_pace(enrollment, Pace::Service).await;
    let id = |answer: &Answer| answer.json()["operationId"].as_str().unwrap().to_owned();
    let first = format!("/operations/{}", id(&bench.register("2021-06-01", "").await));
    let state = bench.ask("GET", &first, "2021-06-01", "").await.json();
    assert_eq!(state["registrationState"]["assignedHub"], "a");

    let more = json!({ "payload": { "a": 1 }, "csr": STANDARD.encode(request_for("dev-1").0) });
    let operation = id(&bench.register("2021-06-01", "").await);
    let forced = "2026-11-02-preview&forceRegistration=true";
    assert_eq!(id(&bench.register(forced, &more.to_string()).await), operation);
    assert_eq!(id(&bench.register("2021-06-01", "").await), operation);
    let path = format!("/operations/{operation}");
    const ALL: [&str; 7] = [
        "substatus",
        "data",
        "payload",
        "issuedClientCertificate",
        "trustBundle",
        "issuedCertificateChain",
        "connectionProfile",
    ];
    for (version, fields) in [
        ("2021-06-01", &["substatus", "payload"][..]),
        ("2017-11-15", &[]),
        ("2019-01-15", &["substatus", "data"]),
        ("2021-11-01-preview", &["substatus", "payload", "issuedClientCertificate", "trustBundle"]),
        ("2026-11-01", &["substatus", "payload", "issuedCertificateChain"]),
        (
            "2026-11-02-preview",
            &["substatus", "payload", "issuedCertificateChain", "connectionProfile"],
        ),
    ] {
        let state = bench.ask("GET", &path, version, "").await.json()["registrationState"].take();
        assert_eq!(state["assignedHub"], "b", "{state}");
        let has: Vec<_> = ALL.into_iter().filter(|field| state.get(*field).is_some()).collect();
        assert_eq!(has, fields, "{version}: {state}");
        if let Some(payload) = state.get("payload").or(state.get("data")) {
            assert_eq!(payload, &json!({ "a": 1 }));
        }
    }
}
