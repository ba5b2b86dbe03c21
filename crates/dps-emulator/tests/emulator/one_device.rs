//! An emulator with one device, `dev-1`, and our own client for it: what the tests of MQTT and AMQP begin with.

use std::time::Duration;

use dps_connect::{Carrier, Roots};
use dps_emulator::{Attestation, Behavior, Config, Emulator, Enrollment, EventKind, SymmetricKey};
use dps_state_machine::{
    Error, RegistrationRequest, RegistrationResult, Settings, StateMachine, TransportHandlers,
};

pub(crate) const BODY: &str = r#"{"registrationId":"dev-1"}"#;
pub(crate) const CARRIERS: [Carrier; 2] = [Carrier::Tls, Carrier::WebSocket];

pub(crate) fn key() -> SymmetricKey {
    "c29tZSBkZXZpY2UncyBrZXk=".parse().unwrap()
}

/// The same key as the client takes it.
pub(crate) fn device_key() -> dps_attestation::Attestation {
    let key: dps_attestation::SymmetricKey = key().expose_base64().parse().unwrap();
    key.into()
}

pub(crate) async fn behaving(behavior: Behavior) -> Emulator {
    started(behavior, |config| config).await
}

pub(crate) async fn started(behavior: Behavior, change: impl FnOnce(Config) -> Config) -> Emulator {
    let enrollment =
        Enrollment::individual("dev-1".parse().unwrap(), Attestation::symmetric_key(key()));
    change(Emulator::builder().enrollment(enrollment.behavior(behavior))).start().await.unwrap()
}

/// The configuration of a client that goes to this port over TLS.
pub(crate) fn configured(
    emulator: &Emulator,
    carrier: Carrier,
    tls_port: u16,
    attestation: dps_attestation::Attestation,
) -> dps_connect::Config {
    let port = match carrier {
        Carrier::Tls => tls_port,
        _ => emulator.https_port(),
    };
    let mut config = dps_connect::Config::new(emulator.id_scope().clone(), attestation);
    config.endpoint = format!("localhost:{port}").parse().unwrap();
    config.roots = Roots::empty().with_pem(emulator.ca_pem().as_bytes()).unwrap();
    config
}

/// A client that doesn't wait long.
pub(crate) fn impatient<W: TransportHandlers>(transport: W) -> StateMachine<W> {
    let mut settings = Settings::default();
    settings.request_timeout = Duration::from_secs(2);
    settings.poll_interval = Duration::from_millis(20);
    settings.poll_floor = Duration::from_millis(10);
    settings.max_backoff = Duration::from_millis(50);
    StateMachine::new(transport, settings)
}

pub(crate) async fn register<W>(client: &StateMachine<W>) -> Result<RegistrationResult, Error>
where
    W: TransportHandlers + 'static,
{
    client.register(RegistrationRequest::new("dev-1".parse().unwrap())).await
}

/// How many connections got as far as TLS.
pub(crate) fn secure_connections(emulator: &Emulator) -> usize {
    let events = emulator.events().snapshot();
    events.iter().filter(|event| matches!(event.kind, EventKind::TlsEstablished { .. })).count()
}
