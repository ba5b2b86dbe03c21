//! Certificates that the service issues.

use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::{
    CertificateRequest, ConnectionProfile, Error, IssuedCertificates, IssuedChain,
    RegistrationRequest, RegistrationResult, RequestKey,
};
use dps_conformance::{Bench, Cell, Credential, DEVICE, adjusted, fast, settle};
use dps_emulator::{
    Behavior, CaCertificates, CertificatePolicy, Enrollment, EventKind, Fault, GroupAttestation,
    Operation, RetryAfter,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PublicKeyData as _};
use serde_json::json;

use crate::{Case, case};

const DAY: Duration = Duration::from_secs(86_400);
const RSA: &[u8] = include_bytes!("../../crates/dps-attestation/tests/data/rsa2048.pkcs1.pem");
const P384: &[u8] = include_bytes!("../../crates/dps-attestation/tests/data/p384.sec1.pem");

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_certificate_that_is_asked_for_comes_with_its_whole_chain).after_the_handshake(),
        case!(a_device_asks_checks_and_registers_with_its_new_certificate),
        case!(a_chain_is_told_by_keys_and_signatures_whatever_the_order_it_came_in)
            .after_the_handshake(),
        case!(a_chain_comes_after_polls_too).after_the_handshake(),
        case!(assigned_without_the_chain_is_an_outcome_of_its_own).after_the_handshake(),
        case!(what_is_no_chain_costs_no_assignment).after_the_handshake(),
        case!(a_request_for_a_certificate_is_refused_by_what_is_wrong_with_it)
            .after_the_handshake(),
        case!(an_api_version_that_was_given_is_kept_for_a_certificate_too).after_the_handshake(),
        case!(one_client_registers_with_and_without_a_certificate).after_the_handshake(),
        case!(a_trust_bundle_and_a_connection_profile_are_handed_over).after_the_handshake(),
    ]
}

fn issuing(
    behavior: Behavior,
) -> impl FnOnce(dps_emulator::Enrollment) -> dps_emulator::Enrollment {
    |enrollment| {
        enrollment.certificate_policy(CertificatePolicy::issue_for_days(30)).behavior(behavior)
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn signed(params: &CertificateParams, key: &KeyPair) -> CertificateRequest {
    let request = params.serialize_request(key).unwrap();
    CertificateRequest::from_der(request.der().to_vec()).unwrap()
}

async fn register(
    bench: &Bench,
    request: RegistrationRequest,
) -> Result<RegistrationResult, Error> {
    let client = bench.client();
    let outcome = client.register(request).await;
    settle(&client).await;
    outcome
}

fn api_versions(bench: &Bench) -> Vec<String> {
    bench.events(|event| match event.kind {
        EventKind::Request { api_version, .. } => api_version,
        _ => None,
    })
}

async fn a_certificate_that_is_asked_for_comes_with_its_whole_chain(cell: Cell) {
    let bench = Bench::with(cell, issuing(Behavior::new())).await;
    let key = KeyPair::generate().unwrap();
    let mut greedy = params(DEVICE);
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let request = bench.request().certificate_request(signed(&greedy, &key));
    let registered = register(&bench, request).await.unwrap();
    assert_eq!(registered.device_id, DEVICE);
    let IssuedCertificates::Issued(chain) = &registered.certificates else {
        panic!("{registered:?}")
    };
    let [leaf, issuer, root] = &chain[..] else { panic!("{registered:?}") };
    let own = key.subject_public_key_info();
    assert!(leaf.windows(own.len()).any(|part| part == own), "the leaf has the device's key");
    assert!(root != issuer && leaf != issuer);
    assert_eq!(api_versions(&bench), ["2026-11-01"]);
}

/// By keys of every kind; where the credential's key is outside of the process, by that one.
async fn a_device_asks_checks_and_registers_with_its_new_certificate(cell: Cell) {
    let mut bench = Bench::with(cell, issuing(Behavior::new())).await;
    let key = match cell.credential {
        Credential::SymmetricKey | Credential::X509 | Credential::Tpm => RequestKey::generate(),
        Credential::GroupKey => RequestKey::from_pem(RSA),
        Credential::Signer => RequestKey::from_pem(P384),
        Credential::X509SigningKey | Credential::X509SoftHsm | Credential::X509Swtpm => {
            let identity = bench.config.attestation.x509().unwrap();
            RequestKey::from_signing_key(identity.certified_key().key.clone())
        }
    };
    let key = key.unwrap();
    let device = DEVICE.parse().unwrap();
    let request = bench.request().certificate_request(key.request(&device).unwrap());
    let registered = register(&bench, request).await.unwrap();
    let now = SystemTime::now();
    let issued = key.verify(registered.certificates.chain(), &device, now).unwrap();
    assert_eq!(issued.certificates().len(), 3);
    assert!(issued.not_before() <= now && now + 29 * DAY < issued.not_after());
    assert!(issued.not_after() <= now + 31 * DAY);
    let root = bench.emulator.issuing_ca_pem().unwrap();
    assert_openssl_takes(&issued, &root, cell);

    bench.emulator.remove_enrollment(bench.enrollment).unwrap();
    let root = CaCertificates::from_pem(&root).unwrap();
    let renewed = Enrollment::group("renewed", GroupAttestation::x509(root));
    bench.emulator.add_enrollment(renewed.assign_to("renewed-hub")).unwrap();
    bench.config.attestation = issued.identity().into();
    assert_eq!(bench.register().await.unwrap().assigned_hub, "renewed-hub");
}

/// The contract defines no order; and what came for another key must not be taken.
async fn a_chain_is_told_by_keys_and_signatures_whatever_the_order_it_came_in(cell: Cell) {
    let bench = Bench::with(cell, issuing(Behavior::new())).await;
    let (key, device) = (RequestKey::generate().unwrap(), DEVICE.parse().unwrap());
    let request = bench.request().certificate_request(key.request(&device).unwrap());
    let first = register(&bench, request.clone()).await.unwrap();
    let mut chain: Vec<_> =
        first.certificates.chain().iter().map(|der| STANDARD.encode(der)).collect();
    chain.rotate_left(1);
    let fault = Fault::with("registrationState.issuedCertificateChain", chain);
    bench.emulator.set_behavior(bench.enrollment, Behavior::new().on_register(fault)).unwrap();
    let turned = register(&bench, request).await.unwrap();
    let certificates = turned.certificates.chain();
    assert_ne!(certificates, first.certificates.chain());
    let now = SystemTime::now();
    let issued = key.verify(certificates, &device, now).unwrap();
    assert!(issued.certificates().eq(first.certificates.chain()));
    let other = RequestKey::generate().unwrap();
    let error = other.verify(certificates, &device, now).unwrap_err();
    assert!(error.to_string().contains("has the key of the request"), "{error}");
    assert!(!error.is_retryable(), "{error}");
}

fn assert_openssl_takes(issued: &IssuedChain, root: &str, cell: Cell) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("issued-{cell}"));
    std::fs::create_dir_all(&folder).unwrap();
    let (root_path, chain_path) = (folder.join("root.pem"), folder.join("chain.pem"));
    std::fs::write(&root_path, root).unwrap();
    std::fs::write(&chain_path, issued.to_pem()).unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"]).arg(&root_path);
    openssl.arg("-untrusted").arg(&chain_path).arg(&chain_path);
    let output =
        openssl.output().unwrap_or_else(|error| panic!("openssl: {error}; install openssl"));
    assert!(output.status.success(), "{output:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}

async fn a_chain_comes_after_polls_too(cell: Cell) {
    let behavior = Behavior::new().polls(2).retry_after(RetryAfter::Seconds(0));
    let bench = Bench::with(cell, issuing(behavior)).await;
    let key = KeyPair::generate().unwrap();
    let request = bench.request().certificate_request(signed(&params(DEVICE), &key));
    let registered = register(&bench, request).await.unwrap();
    assert_eq!((registered.polls, registered.certificates.chain().len()), (2, 3));
    assert_eq!(api_versions(&bench), ["2026-11-01"; 3]);
    assert_eq!(bench.requests(), [Operation::Register, Operation::Query, Operation::Query]);
}

async fn assigned_without_the_chain_is_an_outcome_of_its_own(cell: Cell) {
    let bench =
        Bench::with(cell, |enrollment| enrollment.certificate_policy(CertificatePolicy::Ignore))
            .await;
    let key = KeyPair::generate().unwrap();
    let request = bench.request().certificate_request(signed(&params(DEVICE), &key));
    let registered = register(&bench, request).await.unwrap();
    assert_eq!(registered.device_id, DEVICE);
    assert_eq!(registered.certificates, IssuedCertificates::Missing);
    let without = register(&bench, bench.request()).await.unwrap();
    assert_eq!(without.certificates, IssuedCertificates::NotRequested);
}

async fn what_is_no_chain_costs_no_assignment(cell: Cell) {
    for odd in [json!("text"), json!([5]), json!(["no base64"]), json!({"a": 1})] {
        let fault = Fault::with("registrationState.issuedCertificateChain", odd.clone());
        let bench = Bench::with(cell, issuing(Behavior::new().on_register(fault))).await;
        let key = KeyPair::generate().unwrap();
        let request = bench.request().certificate_request(signed(&params(DEVICE), &key));
        let registered = register(&bench, request).await.unwrap();
        assert_eq!(registered.device_id, DEVICE);
        let IssuedCertificates::Unreadable { reason } = &registered.certificates else {
            panic!("{odd}: {registered:?}")
        };
        assert!(reason.contains("issuedCertificateChain"), "{reason}");
    }
}

async fn a_request_for_a_certificate_is_refused_by_what_is_wrong_with_it(cell: Cell) {
    let key = KeyPair::generate().unwrap();
    let good = signed(&params(DEVICE), &key);
    let mut forged = good.der().to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let issue = CertificatePolicy::issue_for_days(30);
    for (policy, csr, code, says) in [
        (CertificatePolicy::Refuse, good, 400_000, "not configured"),
        (issue, signed(&params("another"), &key), 400_000, "common name"),
        (issue, CertificateRequest::from_der(forged).unwrap(), 400_000, "not signed"),
        (issue, signed(&params(DEVICE), &ed25519), 400_000, "weak"),
        (issue, CertificateRequest::from_der([0x30, 0]).unwrap(), 400_040, "can't be decoded"),
    ] {
        let bench = Bench::with(cell, |enrollment| enrollment.certificate_policy(policy)).await;
        let request = bench.request().certificate_request(csr);
        let error = register(&bench, request).await.unwrap_err();
        assert_eq!(error.error_code(), Some(code), "{says}: {error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.is_retryable(), "{error}");
    }
}

async fn an_api_version_that_was_given_is_kept_for_a_certificate_too(cell: Cell) {
    let bench = Bench::with(cell, issuing(Behavior::new())).await;
    let key = KeyPair::generate().unwrap();
    let request = bench.request().certificate_request(signed(&params(DEVICE), &key));
    for (version, comes) in [("2021-06-01", false), ("2025-07-01-preview", true)] {
        let config =
            adjusted(bench.config.clone(), |config| config.api_version = version.parse().unwrap());
        let client = bench.client_with(config, fast());
        let outcome = client.register(request.clone()).await;
        settle(&client).await;
        match outcome {
            Ok(registered) => assert!(comes && registered.certificates.chain().len() == 3),
            Err(error) => assert!(!comes && error.error_code() == Some(400_012), "{error}"),
        }
    }
    assert_eq!(api_versions(&bench), ["2021-06-01", "2025-07-01-preview"]);
}

/// A session that began by one version of the interface serves no request of another.
async fn one_client_registers_with_and_without_a_certificate(cell: Cell) {
    let bench = Bench::with(cell, issuing(Behavior::new())).await;
    let key = KeyPair::generate().unwrap();
    let client = bench.client();
    for asks in [false, true, true, false] {
        let mut request = bench.request();
        if asks {
            request = request.certificate_request(signed(&params(DEVICE), &key));
        }
        let registered = client.register(request).await.unwrap();
        assert_eq!(registered.certificates.chain().len(), if asks { 3 } else { 0 });
    }
    settle(&client).await;
    let versions = ["2021-06-01", "2026-11-01", "2026-11-01", "2021-06-01"];
    assert_eq!(api_versions(&bench), versions);
}

async fn a_trust_bundle_and_a_connection_profile_are_handed_over(cell: Cell) {
    let bundle = json!({
        "id": "fleet", "etag": "1", "new": 7,
        "certificates": [{"certificate": "PEM", "metadata": {"subjectName": "CN=x"}}],
    });
    let fault = Fault::with("registrationState.trustBundle", bundle.clone())
        .and_with("registrationState.connectionProfile", "mqttV9");
    let bench = Bench::new(cell, Behavior::new().on_register(fault)).await;
    let registered = bench.register().await.unwrap();
    let Some(ConnectionProfile::Other(word)) = registered.connection_profile else {
        panic!("{:?}", registered.connection_profile)
    };
    assert_eq!(word, "mqttV9");
    let read = registered.trust_bundle.unwrap();
    assert_eq!((read.id.as_deref(), read.etag.as_deref()), (Some("fleet"), Some("1")));
    assert_eq!(read.certificates[0].pem, "PEM");
    assert_eq!(read.json.read::<serde_json::Value>().unwrap(), bundle);
}
