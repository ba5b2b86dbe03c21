//! Credentials that the service refuses, and odd ones that it takes.

use std::time::Duration;

use dps_client::{Config, Error, ErrorKind, Roots, Stage, Transport, client, client_with_fallback};
use dps_conformance::{Authority, Bench, Cell, DEVICE, adjusted, config_for, fast, settle};
use dps_emulator::{
    Attestation, Behavior, Emulator, Enrollment, EventKind, Fault, Pair, SymmetricKey, Thumbprint,
};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let without_key: fn(Cell) -> bool = |cell| !cell.has_key();
    let with_key: fn(Cell) -> bool = Cell::has_key;
    let in_memory = "it makes a certificate whose key is in memory";
    vec![
        case!(a_wrong_credential_is_rejected),
        case!(an_unknown_device_is_rejected),
        case!(a_wrong_id_scope_is_rejected),
        case!(another_devices_credential_is_rejected_or_refused_before_any_io),
        case!(an_expired_token_is_rejected).skip("a certificate has no token", without_key),
        case!(a_secondary_key_is_taken)
            .skip("it has no secondary key", |cell| !cell.has_symmetric_key()),
        case!(an_expired_certificate_is_refused_before_any_io)
            .skip("a key doesn't expire", with_key)
            .skip(in_memory, Cell::has_tls_hardware),
        case!(a_chain_that_was_not_sent_is_named)
            .skip("a key has no chain", with_key)
            .skip(in_memory, Cell::has_tls_hardware),
        case!(a_certificate_known_by_its_thumbprint_is_taken)
            .skip("a key has none", with_key)
            .skip(in_memory, Cell::has_tls_hardware),
        case!(a_registration_id_of_any_shape_registers),
        case!(a_common_name_in_another_case_is_the_registration_id)
            .skip("a key has no common name", with_key),
        case!(the_next_credential_is_tried_when_one_is_refused),
        case!(no_secret_is_in_any_error),
    ]
}

fn assert_refused(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert_eq!(error.stage(), Some(Stage::Authenticate), "{error}");
    assert_eq!(error.status(), Some(401), "{error}");
    assert!(!error.is_retryable() && error.hint().is_some());
}

/// The bench's configuration with a credential of somebody else's.
async fn with_foreign_certificate(bench: &Bench) -> Config {
    let other = Bench::healthy(bench.cell).await;
    config_for(&bench.emulator, bench.cell.transport, other.config.attestation.clone())
}

async fn a_wrong_credential_is_rejected(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let error = bench.register_with(with_foreign_certificate(&bench).await).await.unwrap_err();
    assert_refused(&error);
    let refused = bench.events(|event| match event.kind {
        EventKind::AuthenticationFailed { registration_id, .. } => Some(registration_id),
        _ => None,
    });
    assert_eq!(refused, [DEVICE]);
    // The right one still works.
    bench.register().await.unwrap();
}

async fn an_unknown_device_is_rejected(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    bench.emulator.remove_enrollment(bench.enrollment).unwrap();
    let error = bench.register().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(matches!(error.status(), Some(401 | 404)), "{error}");
    assert!(!error.is_retryable() && error.hint().is_some());
}

async fn a_wrong_id_scope_is_rejected(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let config =
        adjusted(bench.config.clone(), |config| config.id_scope = "0ne00FFFFFF".parse().unwrap());
    let error = bench.register_with(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(matches!(error.status(), Some(401 | 404)), "{error}");
}

async fn another_devices_credential_is_rejected_or_refused_before_any_io(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    let request = dps_client::RegistrationRequest::new("dev-2".parse().unwrap());
    let error = client.register(request).await.unwrap_err();
    settle(&client).await;
    if cell.has_key() {
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    } else {
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains(DEVICE), "{error}");
        assert_eq!(bench.connections(), 0);
    }
}

async fn an_expired_token_is_rejected(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let config = adjusted(bench.config.clone(), |config| config.sas_lifetime = Duration::ZERO);
    assert_refused(&bench.register_with(config).await.unwrap_err());
}

async fn a_secondary_key_is_taken(cell: Cell) {
    let (primary, key) = (SymmetricKey::random().unwrap(), SymmetricKey::random().unwrap());
    let attestation = Attestation::SymmetricKey(Pair { primary, secondary: Some(key.clone()) });
    let enrollment = Enrollment::individual(DEVICE.parse().unwrap(), attestation);
    let bench = Bench::healthy(cell).await;
    bench.emulator.remove_enrollment(bench.enrollment).unwrap();
    bench.emulator.add_enrollment(enrollment).unwrap();
    let config = config_for(&bench.emulator, cell.transport, key.into());
    bench.register_with(config).await.unwrap();
}

async fn the_next_credential_is_tried_when_one_is_refused(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let wrong = with_foreign_certificate(&bench).await;
    let right = bench.config.attestation.clone();
    let client = |config: Config, others: Vec<_>| {
        client_with_fallback(cell.transport, config, others, fast()).unwrap()
    };
    let others = vec![wrong.attestation.clone(), right.clone()];
    let falling_back = client(wrong.clone(), others.clone());
    let registered = falling_back.register(bench.request()).await.unwrap();
    assert_eq!(registered.credential, 2);
    // It goes on with the one that was taken: nothing is refused any more.
    let refusals = || {
        let refused = |event: dps_emulator::Event| {
            matches!(event.kind, EventKind::AuthenticationFailed { .. }).then_some(())
        };
        bench.events(refused).len()
    };
    assert_eq!(refusals(), 2);
    let registered = falling_back.register(bench.request()).await.unwrap();
    assert_eq!((registered.credential, refusals()), (2, 2));
    settle(&falling_back).await;

    // A service that throttles has not refused anybody.
    bench.emulator.forget_devices();
    let behavior = Behavior::new().on_register(Fault::refuse(429).times(2));
    bench.emulator.set_behavior(bench.enrollment, behavior).unwrap();
    let throttled = client(bench.config.clone(), others);
    assert_eq!(throttled.register(bench.request()).await.unwrap().credential, 0);
    settle(&throttled).await;

    let refused = client(wrong.clone(), vec![wrong.attestation]);
    let error = refused.register(bench.request()).await.unwrap_err();
    settle(&refused).await;
    assert_refused(&error);
    let hint = error.hint().unwrap();
    assert!(hint.contains("each of the 2 credentials was refused"), "{hint}");
}

async fn an_expired_certificate_is_refused_before_any_io(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let device = Authority::root("Factory root").expired_device(DEVICE);
    let config = config_for(&bench.emulator, cell.transport, device.identity().into());
    let error = bench.register_with(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("expired"), "{error}");
    assert_eq!(bench.connections(), 0);
}

async fn a_chain_that_was_not_sent_is_named(cell: Cell) {
    let root = Authority::root("Factory root");
    let line = root.intermediate("Line 4");
    let ca = dps_emulator::CaCertificates::from_pem(&root.pem).unwrap();
    let emulator = Emulator::builder()
        .enrollment(Enrollment::group("factory", dps_emulator::GroupAttestation::x509(ca)))
        .start()
        .await
        .unwrap();
    let attempt = async |device: dps_conformance::Device| {
        let config = config_for(&emulator, cell.transport, device.identity().into());
        let client = client(cell.transport, config, fast()).unwrap();
        let outcome =
            client.register(dps_client::RegistrationRequest::new(DEVICE.parse().unwrap())).await;
        settle(&client).await;
        outcome
    };
    let error = attempt(line.device(DEVICE)).await.unwrap_err();
    assert_refused(&error);
    let hint = error.hint().unwrap();
    assert!(hint.contains(DEVICE) && hint.contains("Line 4"), "{hint}");
    attempt(line.device(DEVICE).with_chain([&line])).await.unwrap();
    attempt(line.device(DEVICE).with_chain([&line, &root])).await.unwrap();
}

async fn a_certificate_known_by_its_thumbprint_is_taken(cell: Cell) {
    let device = Authority::root("Somebody").device(DEVICE);
    let thumbprint = Thumbprint::of_pem(&device.certificate).unwrap();
    let enrollment =
        Enrollment::individual(DEVICE.parse().unwrap(), Attestation::thumbprint(thumbprint));
    let emulator = Emulator::builder().enrollment(enrollment).start().await.unwrap();
    let config = config_for(&emulator, cell.transport, device.identity().into());
    let client = client(cell.transport, config, fast()).unwrap();
    let request = dps_client::RegistrationRequest::new(DEVICE.parse().unwrap());
    client.register(request).await.unwrap();
    settle(&client).await;
}

/// Each character may be the first; `.`, `_` and `:` may not be the last.
const REGISTRATION_IDS: [&str; 14] = [
    "-a",
    ".a",
    "_a",
    ":a",
    "-",
    "--",
    "._:-",
    "..a::b",
    "0",
    "a-",
    "A",
    "urn:dev:mac:0024befffe804ff1",
    "Pump-17.North_3:x",
    "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6",
];

async fn a_registration_id_of_any_shape_registers(cell: Cell) {
    for id in REGISTRATION_IDS {
        let bench = Bench::of_device(cell, id).await;
        let registered = bench.register().await.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(registered.device_id, id, "{id:?}");
    }
}

async fn a_common_name_in_another_case_is_the_registration_id(cell: Cell) {
    let bench = Bench::of_device(cell, "Pump-17.North").await;
    for id in ["pump-17.north", "PUMP-17.NORTH"] {
        let client = bench.client();
        client.register(dps_client::RegistrationRequest::new(id.parse().unwrap())).await.unwrap();
        settle(&client).await;
    }
}

async fn no_secret_is_in_any_error(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let config = with_foreign_certificate(&bench).await;
    let secret = match &config.attestation {
        dps_client::Attestation::SymmetricKey(key) => key.expose_base64().to_string(),
        _ => "PRIVATE KEY".to_owned(),
    };
    let error = bench.register_with(config.clone()).await.unwrap_err();
    let untrusting = adjusted(config.clone(), |config| {
        config.roots = Roots::empty().with_pem(Authority::root("x").pem.as_bytes()).unwrap()
    });
    let no_trust = bench.register_with(untrusting).await.unwrap_err();
    let shown = format!("{error}{error:?}{no_trust}{no_trust:?}{config:?}{:?}", bench.client());
    assert!(!shown.contains(&secret), "a secret is shown");
    assert!(!shown.contains("sig="), "a token is shown");
    assert!(Transport::ALL.contains(&cell.transport));
}
