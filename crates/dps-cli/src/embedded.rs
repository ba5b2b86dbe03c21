//! The emulator that `dps register --emulator` registers with: real sockets and real TLS on free loopback ports,
//! and an enrollment made up on the spot.

use std::{fmt::Display, time::Duration};

use dps_client::{
    Config, Endpoint, Error, IdScope, RegistrationId, Roots, Transport, TransportChoice,
};
pub(crate) use dps_emulator::Emulator;
use dps_emulator::{
    Attestation, Behavior, CertificatePolicy, Enrollment, RetryAfter, ReturnedPayload, SymmetricKey,
};

use crate::given::wrong;

/// The shortest wait between two polls: nobody is throttled here, and a person waits for the result.
pub(crate) const POLL_FLOOR: Duration = Duration::from_millis(500);

/// A configuration file of `dps emulate` with every key.
pub(crate) const EXAMPLE: &str = dps_emulator::Config::EXAMPLE;

const REGISTRATION_ID: &str = "my-device";

/// A service that is up, and a device that it knows.
pub(crate) struct Embedded {
    pub(crate) emulator: Emulator,
    pub(crate) config: Config,
    pub(crate) registration_id: RegistrationId,
}

/// Starts it, with the ID scope and the registration id that were given. It assigns the device with the second
/// poll, so that there is something to see.
pub(crate) async fn start(
    id_scope: Option<IdScope>,
    registration_id: Option<RegistrationId>,
    transport: TransportChoice,
) -> Result<Embedded, Error> {
    let registration_id = registration_id.map_or_else(|| REGISTRATION_ID.parse(), Ok)?;
    let key = SymmetricKey::random()?;
    let attestation = Attestation::symmetric_key(key.clone());
    let enrollment = Enrollment::individual(registration_id.clone(), attestation)
        .payload(ReturnedPayload::Echo)
        .certificate_policy(CertificatePolicy::issue_for_days(30))
        .behavior(Behavior::new().polls(2).retry_after(RetryAfter::Seconds(0)));
    let mut service = Emulator::builder().enrollment(enrollment);
    if let Some(id_scope) = id_scope {
        service = service.id_scope(id_scope);
    }
    let emulator = service.start().await.map_err(failed)?;
    let Some(port) = port(&emulator, transport) else {
        return Err(failed(format!("it does not serve {transport}")));
    };
    let endpoint: Endpoint = format!("localhost:{port}").parse()?;
    let mut config = Config::new(emulator.id_scope().clone(), key.into());
    config.endpoint = endpoint;
    config.roots = Roots::empty().with_pem(emulator.ca_pem().as_bytes())?;
    Ok(Embedded { emulator, config, registration_id })
}

/// Where it serves MQTT.
pub(crate) fn mqtt_endpoint(emulator: &Emulator) -> Endpoint {
    let port = emulator.mqtt_port();
    // A name and a number: there is nothing that can fail to parse.
    format!("localhost:{port}").parse().unwrap_or_default()
}

/// The port for a transport; `None` when the emulator doesn't serve it.
fn port(emulator: &Emulator, transport: TransportChoice) -> Option<u16> {
    // Where one of several is chosen: most of them have the port of HTTPS.
    match transport.fixed().unwrap_or(Transport::Http) {
        Transport::Http | Transport::MqttWs | Transport::AmqpWs => Some(emulator.https_port()),
        Transport::Mqtt => Some(emulator.mqtt_port()),
        Transport::Amqp => Some(emulator.amqp_port()),
        _ => None,
    }
}

fn failed(reason: impl Display) -> Error {
    wrong("--emulator", "", &reason.to_string())
}
