//! Devices that register over HTTPS.

use std::{net::SocketAddr, sync::Arc};

use crate::support::{Chain, Requests, connect, connect_with, tls};
use dps_emulator::{
    Attestation, Behavior, CaCertificates, Config, Emulator, Enrollment, EventKind,
    GroupAttestation, Method, RetryAfter, SymmetricKey, Thumbprint,
};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

fn key() -> SymmetricKey {
    "c29tZSBkZXZpY2UncyBrZXk=".parse().unwrap()
}

fn one_device() -> Enrollment {
    Enrollment::individual("dev-1".parse().unwrap(), Attestation::symmetric_key(key()))
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

fn self_signed(name: &str) -> Chain {
    let key = KeyPair::generate().unwrap();
    let certificate = named(name).self_signed(&key).unwrap();
    (vec![certificate.der().clone()], private(&key))
}

#[tokio::test]
async fn a_device_registers_and_polls_on_one_connection() {
    let behavior = Behavior::new().polls(2).retry_after(RetryAfter::Seconds(1));
    let emulator = Emulator::builder()
        .id_scope("0ne00AABBCC".parse().unwrap())
        .enrollment(one_device().assign_to("hub-1.azure-devices.net").behavior(behavior))
        .start()
        .await
        .unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &key());
    let mut device = connect(&emulator).await.unwrap();

    let answer = device.ask(&requests.register()).await.unwrap();
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.header("x-ms-request-id").is_some_and(|id| id.len() == 36), "{answer:?}");
    assert!(answer.header("date").is_some() && answer.header("x-ms-error-code").is_none());
    let operation = answer.json()["operationId"].as_str().unwrap().to_owned();
    let location = "https://localhost/0ne00AABBCC/registrations/dev-1/operations/".to_owned();
    assert_eq!(answer.header("location"), Some(&*(location + &operation)));

    let waiting = device.ask(&requests.query(&operation)).await.unwrap();
    assert_eq!((waiting.status, waiting.header("retry-after")), (202, Some("1")));
    let done = device.ask(&requests.query(&operation)).await.unwrap();
    assert_eq!(
        (done.status, done.header("retry-after"), done.header("location")),
        (200, None, None)
    );
    let body = done.json();
    assert_eq!(body["status"], "assigned");
    assert_eq!(body["registrationState"]["assignedHub"], "hub-1.azure-devices.net");
    assert_eq!(body["registrationState"]["deviceId"], "dev-1");
    emulator.stop().await;
}

#[tokio::test]
async fn client_certificates_are_taken_with_both_versions_of_tls() {
    let (chain, key) = self_signed("dev-1");
    let thumbprint = Thumbprint::of_der(&chain[0]);
    let enrollment =
        Enrollment::individual("dev-1".parse().unwrap(), Attestation::thumbprint(thumbprint));
    let emulator = Emulator::builder().enrollment(enrollment).start().await.unwrap();
    let requests = Requests::with_certificate(&emulator, "dev-1");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = tls(&emulator, &[version], Some((chain.clone(), key.clone_key())));
        let mut device = connect_with(&emulator, config, "127.0.0.1").await.unwrap();
        let answer = device.ask(&requests.register()).await.unwrap();
        assert_eq!(answer.json()["status"], "assigned", "{version:?}");
    }
    let config = tls(&emulator, rustls::DEFAULT_VERSIONS, Some(self_signed("dev-1")));
    let mut foreign = connect_with(&emulator, config, "localhost").await.unwrap();
    let answer = foreign.ask(&requests.register()).await.unwrap();
    assert_eq!(
        (answer.status, answer.json()["message"].as_str()),
        (401, Some("Invalid certificate"))
    );
    let mut anonymous = connect(&emulator).await.unwrap();
    let answer = anonymous.ask(&requests.register()).await.unwrap();
    assert_eq!(answer.header("x-ms-error-code"), Some("401000"));
    let methods: Vec<_> = emulator
        .events()
        .snapshot()
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::Authenticated { method, .. } => Some((method, true)),
            EventKind::AuthenticationFailed { method, .. } => Some((method, false)),
            _ => None,
        })
        .collect();
    let expected =
        [(Method::X509, true), (Method::X509, true), (Method::X509, false), (Method::None, false)];
    assert_eq!(methods, expected);
}

/// `openssl x509 -req` makes them by default, and devices have them.
#[tokio::test]
async fn certificates_without_extensions_are_taken_with_both_versions_of_tls() {
    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);
    impl ResolvesClientCert for Always {
        fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    let chain =
        [include_str!("../fixtures/old-device.pem"), include_str!("../fixtures/old-middle.pem")]
            .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap());
    let key = include_str!("../fixtures/old-device.key.pem");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
    let device = Arc::new(CertifiedKey::new(chain.to_vec(), key));
    let ca = CaCertificates::from_pem(include_str!("../fixtures/old-root.pem")).unwrap();
    let group = Enrollment::group("factory", GroupAttestation::x509(ca));
    let emulator = Emulator::builder().enrollment(group).start().await.unwrap();
    let requests = Requests::with_certificate(&emulator, "dev-1");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = tls(&emulator, &[version], None);
        config.client_auth_cert_resolver = Arc::new(Always(device.clone()));
        let mut device = connect_with(&emulator, config, "localhost").await.unwrap();
        let answer = device.ask(&requests.register()).await.unwrap();
        assert_eq!(answer.json()["status"], "assigned", "{version:?}");
    }
    // Whoever shows another's certificate can't sign with its key.
    let other = KeyPair::generate().unwrap();
    let other = rustls::crypto::ring::sign::any_supported_type(&private(&other)).unwrap();
    let thief = Arc::new(CertifiedKey::new(chain.to_vec(), other));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut config = tls(&emulator, &[version], None);
        config.client_auth_cert_resolver = Arc::new(Always(thief.clone()));
        if let Ok(mut device) = connect_with(&emulator, config, "localhost").await {
            device.stream.write_all(requests.register().as_bytes()).await.ok();
            assert!(device.answer().await.is_none(), "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_group_takes_devices_whose_whole_chain_is_sent() {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = named("factory CA");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let ca = Issuer::new(ca, ca_key);
    let middle_key = KeyPair::generate().unwrap();
    let mut middle = named("line CA");
    middle.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let middle_der = middle.signed_by(&middle_key, &ca).unwrap().der().clone();
    let middle = Issuer::new(middle, middle_key);
    let device_key = KeyPair::generate().unwrap();
    let leaf = named("dev-7").signed_by(&device_key, &middle).unwrap().der().clone();

    let ca = CaCertificates::from_pem(&ca_pem).unwrap();
    let group = Enrollment::group("factory", GroupAttestation::x509(ca));
    let emulator = Emulator::builder().enrollment(group).start().await.unwrap();
    let requests = Requests::with_certificate(&emulator, "dev-7");
    for (chain, status, message) in [
        (vec![leaf.clone(), middle_der], 200, None),
        (vec![leaf], 401, Some("CA certificate not found.")),
    ] {
        let config = tls(&emulator, rustls::DEFAULT_VERSIONS, Some((chain, private(&device_key))));
        let mut device = connect_with(&emulator, config, "localhost").await.unwrap();
        let answer = device.ask(&requests.register()).await.unwrap();
        assert_eq!((answer.status, answer.json()["message"].as_str()), (status, message));
    }
}

#[tokio::test]
async fn any_device_with_a_derived_key_is_taken() {
    let config = Config::new().with_any_device(None, None).unwrap();
    let emulator = config.start().await.unwrap();
    let group_key = emulator.group_key().unwrap().clone();
    for id in ["dev-1", "Another:one_2"] {
        let requests = Requests::with_key(&emulator, id, &group_key.derive(&id.parse().unwrap()));
        let answer = connect(&emulator).await.unwrap().ask(&requests.register()).await.unwrap();
        let body = answer.json();
        assert_eq!(body["registrationState"]["deviceId"], id);
        assert_eq!(body["registrationState"]["symmetricKey"]["enrollmentGroupId"], "group");
    }
    let requests =
        Requests::with_key(&emulator, "dev-1", &group_key.expose_base64().parse().unwrap());
    let answer = connect(&emulator).await.unwrap().ask(&requests.register()).await.unwrap();
    let body = answer.json();
    assert_eq!((answer.status, &body["errorCode"]), (401, &401_002.into()));
    assert_eq!(answer.header("x-ms-error-code"), Some("401002"));
    assert_eq!(answer.header("x-ms-request-id"), body["trackingId"].as_str());
}

#[tokio::test]
async fn requests_that_make_no_sense_get_a_refusal_in_the_form_of_the_service() {
    let emulator = Emulator::builder().enrollment(one_device()).start().await.unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &key());
    let scope = emulator.id_scope().to_string();
    let path = |rest: &str| format!("/{scope}/registrations/dev-1/{rest}");
    let large = format!("{{\"payload\":{{\"a\":\"{}\"}}}}", "x".repeat(96 * 1024));
    let huge = "x".repeat(200 * 1024);
    for (request, code) in [
        (requests.request("PUT", &path("register"), "{}"), 400_000),
        (requests.request("PUT", &path("register?api-version=1999-01-01"), "{}"), 400_000),
        (requests.request("POST", &path("register?api-version=2021-06-01"), "{}"), 405_000),
        (requests.request("GET", "/", ""), 404_000),
        (requests.request("GET", "/$iothub/websocket", ""), 404_000),
        (requests.query("4.unknown"), 404_202),
        (requests.register_with("{"), 400_012),
        (requests.register_with("{\"modelId\":\"dtmi:a;1\"}"), 400_012),
        (requests.register_with("{\"registrationId\":\"dev-2\"}"), 400_000),
        (requests.register_with(&large), 413_001),
        (requests.register_with(&huge), 413_001),
        (requests.register().replace("/dev-1/", "/dev%201/"), 400_004),
        (requests.register().replace("/dev-1/", "/dev-2/"), 404_201),
        (requests.register().replacen(&scope, "0ne00OTHER", 1), 404_201),
    ] {
        let mut device = connect(&emulator).await.unwrap();
        let answer = device.ask(&request).await.unwrap();
        let body = answer.json();
        assert_eq!((u32::from(answer.status), &body["errorCode"]), (code / 1000, &code.into()));
        assert!(body["timestampUtc"].as_str().is_some_and(|time| time.ends_with('Z')), "{body}");
        assert!(body["message"].as_str().is_some_and(|text| !text.is_empty()), "{body}");
    }
}

#[tokio::test]
async fn what_peers_send_is_accepted() {
    let emulator = Emulator::builder().enrollment(one_device()).start().await.unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &key());
    let mut device = connect(&emulator).await.unwrap();
    let chunked = requests
        .register_with("")
        .replace("Content-Length: 0\r\n", "Transfer-Encoding: chunked\r\n")
        + "2\r\n{}\r\n0\r\n\r\n";
    for request in [
        requests.register_with(""),
        requests.register_with("{}"),
        requests.register().replace("User-Agent", "UserAgent"),
        requests.register().replace("2021-06-01", "2019-03-31&forceRegistration=true"),
        requests.register().replace("2021-06-01", "2026-11-02-preview"),
        chunked,
    ] {
        let answer = device.ask(&request).await.unwrap();
        assert_eq!(answer.status, 200, "{request}");
    }
}

#[tokio::test]
async fn both_loopback_addresses_are_served_where_there_are_both() {
    let emulator = Emulator::builder().start().await.unwrap();
    let port = emulator.https_port();
    assert_ne!(port, 0);
    assert!(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.is_ok());
    let v6 = std::net::Ipv6Addr::LOCALHOST;
    if std::net::TcpListener::bind((v6, 0)).is_ok() {
        assert!(TcpStream::connect((v6, port)).await.is_ok());
    }
    let twice = Emulator::builder().bind([std::net::Ipv4Addr::LOCALHOST.into(); 2]);
    assert!(twice.start().await.is_ok());
    let taken = Emulator::builder().https_port(port).start().await.unwrap_err().to_string();
    let says = format!("https-port: can't listen on 127.0.0.1:{port}: ");
    assert!(taken.starts_with(&says) && taken.contains("another port, or 0"), "{taken}");
}

#[tokio::test]
async fn the_running_service_can_be_changed() {
    let emulator = Emulator::builder().start().await.unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &key());
    let mut device = connect(&emulator).await.unwrap();
    let status = async |device: &mut crate::support::Device| {
        let body = device.ask(&requests.register()).await.unwrap().json();
        body["status"].as_str().map(str::to_owned)
    };
    assert_eq!(status(&mut device).await, None);
    emulator.add_enrollment(one_device()).unwrap();
    assert_eq!(status(&mut device).await.as_deref(), Some("assigned"));
    emulator.set_behavior("dev-1", Behavior::new().polls(9)).unwrap();
    assert_eq!(status(&mut device).await.as_deref(), Some("assigning"));
    emulator.forget_devices();
    emulator.set_behavior("dev-1", Behavior::new()).unwrap();
    emulator.set_enabled("dev-1", false).unwrap();
    assert_eq!(status(&mut device).await.as_deref(), Some("disabled"));
    emulator.remove_enrollment("dev-1").unwrap();
    assert_eq!(status(&mut device).await, None);
}
