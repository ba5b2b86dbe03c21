//! One device and one emulated service.

use std::{sync::Arc, time::Duration};

use dps_client::{
    Attestation, Client, Config, Error, RegistrationId, RegistrationRequest, RegistrationResult,
    Roots, Settings, Transport, X509Identity, client,
    pkcs11::{Pkcs11Key, Pkcs11Options},
};
use dps_emulator::{
    Behavior, CaCertificates, Emulator, Enrollment, Event, EventKind, GroupAttestation, GroupKey,
    SymmetricKey,
};

use crate::{
    cell::{Cell, Credential},
    hardware::key_in_token,
    identity::Authority,
    outside_key::OutsideKey,
    shared_tpm::SharedTpm,
    signer::OutsideSigner,
};

/// The device of every bench.
pub const DEVICE: &str = "dev-1";

/// A service with an enrollment for the device of a cell, and what that device needs to register.
#[derive(Debug)]
pub struct Bench {
    /// The cell.
    pub cell: Cell,
    /// The service.
    pub emulator: Emulator,
    /// The device's credential, and where the service is.
    pub config: Config,
    /// The name of the device's enrollment at the service.
    pub enrollment: &'static str,
    /// The device's registration id.
    pub device: &'static str,
    /// The TPM of a device that has one.
    pub tpm: Option<SharedTpm>,
}

impl Bench {
    /// A service that behaves as its script says.
    pub async fn new(cell: Cell, behavior: Behavior) -> Self {
        Self::with(cell, |enrollment| enrollment.behavior(behavior)).await
    }

    /// A service in good health that assigns at once.
    pub async fn healthy(cell: Cell) -> Self {
        Self::new(cell, Behavior::new()).await
    }

    /// A service whose enrollment for the device is changed before it starts.
    pub async fn with(cell: Cell, change: impl FnOnce(Enrollment) -> Enrollment) -> Self {
        Self::with_service(cell, change, |service| service).await
    }

    /// A service that is changed before it starts, beside its enrollment.
    pub async fn with_service(
        cell: Cell,
        change: impl FnOnce(Enrollment) -> Enrollment,
        change_service: impl FnOnce(dps_emulator::Config) -> dps_emulator::Config,
    ) -> Self {
        Self::start(cell, DEVICE, change, change_service).await
    }

    /// A service in good health that knows a device by another name.
    pub async fn of_device(cell: Cell, device: &'static str) -> Self {
        Self::start(cell, device, |enrollment| enrollment, |service| service).await
    }

    async fn start(
        cell: Cell,
        device: &'static str,
        change: impl FnOnce(Enrollment) -> Enrollment,
        change_service: impl FnOnce(dps_emulator::Config) -> dps_emulator::Config,
    ) -> Self {
        let tpm = match cell.credential {
            Credential::X509Swtpm | Credential::Tpm => Some(SharedTpm::take().await),
            _ => None,
        };
        let (enrollment, attestation) = enroll(cell.credential, device, tpm.as_ref()).await;
        let name = if enrollment.name() == FACTORY { FACTORY } else { device };
        let service = Emulator::builder().enrollment(change(enrollment));
        let emulator = change_service(service).start().await.expect("an emulator on loopback");
        let config = config_for(&emulator, cell.transport, attestation);
        Self { cell, emulator, config, enrollment: name, device, tpm }
    }

    /// The request of the bench's device.
    #[must_use]
    pub fn request(&self) -> RegistrationRequest {
        RegistrationRequest::new(registration_id(self.device))
    }

    /// A client with bounds that suit loopback.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_with(self.config.clone(), fast())
    }

    /// A client with a configuration and bounds of its own.
    #[must_use]
    pub fn client_with(&self, config: Config, settings: Settings) -> Client {
        client(self.cell.transport, config, settings)
            .expect("a client for a transport that is built")
    }

    /// Registers the device once and ends the session.
    ///
    /// # Errors
    /// The registration's.
    pub async fn register(&self) -> Result<RegistrationResult, Error> {
        self.register_with(self.config.clone()).await
    }

    /// Registers the device once with another configuration and ends the session.
    ///
    /// # Errors
    /// The registration's.
    pub async fn register_with(&self, config: Config) -> Result<RegistrationResult, Error> {
        let client = client(self.cell.transport, config, fast())?;
        let outcome = client.register(self.request()).await;
        settle(&client).await;
        outcome
    }

    /// What happened at the service, picked from its events. Over HTTP a TPM is challenged in an exchange of its own:
    /// those are left out, so that a case finds the same requests in every cell.
    pub fn events<V>(&self, pick: impl FnMut(Event) -> Option<V>) -> Vec<V> {
        let mut events = self.emulator.events().snapshot();
        if self.cell.credential == Credential::Tpm && self.cell.transport == Transport::Http {
            leave_challenges_out(&mut events);
        }
        events.into_iter().filter_map(pick).collect()
    }

    /// The operations that were asked for: `register`, `query`.
    #[must_use]
    pub fn requests(&self) -> Vec<dps_emulator::Operation> {
        self.events(|event| match event.kind {
            EventKind::Request { operation, .. } => Some(operation),
            _ => None,
        })
    }

    /// When each request came, in milliseconds.
    #[must_use]
    pub fn request_times(&self) -> Vec<u64> {
        self.events(|event| {
            matches!(event.kind, EventKind::Request { .. }).then_some(event.elapsed_ms)
        })
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.events(|event| matches!(event.kind, EventKind::Connected { .. }).then_some(())).len()
    }

    /// How many connections got as far as TLS.
    #[must_use]
    pub fn secure_connections(&self) -> usize {
        self.events(|event| matches!(event.kind, EventKind::TlsEstablished { .. }).then_some(()))
            .len()
    }
}

/// Ends the session; what the end of the session meets is no matter here.
pub async fn settle(client: &Client) {
    let _end_of_session = client.end_session().await;
}

/// Bounds that suit loopback: a broken case fails soon, a healthy one never waits for nothing.
#[must_use]
pub fn fast() -> Settings {
    let mut settings = Settings::default();
    settings.request_timeout = Duration::from_secs(10);
    settings.registration_timeout = Duration::from_secs(20);
    settings.poll_interval = Duration::from_millis(20);
    settings.poll_floor = Duration::from_millis(10);
    settings.max_backoff = Duration::from_millis(100);
    settings.jitter_percent = 0;
    settings
}

/// Settings, or a configuration, with some of the fields changed.
#[must_use]
pub fn adjusted<T>(mut settings: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut settings);
    settings
}

/// Where a service is and whom to trust, for a device with the given credential.
#[must_use]
pub fn config_for(emulator: &Emulator, transport: Transport, attestation: Attestation) -> Config {
    let roots = Roots::empty().with_pem(emulator.ca_pem().as_bytes()).expect("the emulator's CA");
    let port = match transport {
        Transport::Amqp => emulator.amqp_port(),
        Transport::Mqtt => emulator.mqtt_port(),
        _ => emulator.https_port(),
    };
    let mut config = Config::new(emulator.id_scope().clone(), attestation);
    config.endpoint = format!("localhost:{port}").parse().expect("an endpoint");
    config.roots = roots;
    config
}

/// A challenge is a 401 without an error code, to a request that nothing vouched for.
fn leave_challenges_out(events: &mut Vec<Event>) {
    let mut challenges = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let mut later =
            events.iter().skip(index).filter(|later| later.connection == event.connection);
        if let (
            Some(Event { kind: EventKind::Request { .. }, sequence: request, .. }),
            Some(Event {
                kind: EventKind::Answer { status: 401, error_code: None, .. },
                sequence: answer,
                ..
            }),
        ) = (later.next(), later.next())
        {
            challenges.extend([*request, *answer]);
        }
    }
    events.retain(|event| !challenges.contains(&event.sequence));
}

/// The name of every group.
const FACTORY: &str = "factory";

/// An enrollment, and the credential of a device that it knows.
async fn enroll(
    credential: Credential,
    device: &str,
    tpm: Option<&SharedTpm>,
) -> (Enrollment, Attestation) {
    let tpm = || tpm.expect("a TPM");
    match credential {
        Credential::SymmetricKey => symmetric_key(device),
        Credential::Signer => {
            let (enrollment, attestation) = symmetric_key(device);
            (enrollment, Attestation::from_signer(OutsideSigner::new(attestation)))
        }
        Credential::GroupKey => {
            let key = GroupKey::random().expect("a key");
            let attestation = key.derive(&registration_id(device)).into();
            (Enrollment::group(FACTORY, GroupAttestation::symmetric_key(key)), attestation)
        }
        Credential::X509 => x509(|line| line.device(device).with_chain([line]).identity()),
        Credential::X509SigningKey => x509(|line| {
            OutsideKey::new(&line.device(device).with_chain([line]).identity()).identity()
        }),
        Credential::X509SoftHsm => {
            let uri = key_in_token().parse().expect("a URI");
            let key = Pkcs11Key::open(&uri, &Pkcs11Options::default()).expect("the key");
            x509(|line| line.identity(device, Arc::new(key)))
        }
        Credential::X509Swtpm => x509(|line| line.identity(device, Arc::new(tpm().signing_key()))),
        Credential::Tpm => {
            let tpm = tpm().tpm();
            let keys = tpm.keys().await.expect("the keys of the TPM");
            let endorsement_key = keys.endorsement_key().parse().expect("an endorsement key");
            let known = dps_emulator::Attestation::tpm(endorsement_key);
            let enrollment = Enrollment::individual(registration_id(device), known);
            (enrollment, Attestation::from_tpm(tpm.clone()))
        }
    }
}

fn symmetric_key(device: &str) -> (Enrollment, Attestation) {
    let key = SymmetricKey::random().expect("a key");
    let known = dps_emulator::Attestation::symmetric_key(key.clone());
    (Enrollment::individual(registration_id(device), known), key.into())
}

/// A group that knows a root, and a device whose certificate is by an intermediate of that root.
fn x509(issue: impl FnOnce(&Authority) -> X509Identity) -> (Enrollment, Attestation) {
    let root = Authority::root("Factory root");
    let identity = issue(&root.intermediate("Line 4"));
    let ca = CaCertificates::from_pem(&root.pem).expect("a CA certificate");
    (Enrollment::group(FACTORY, GroupAttestation::x509(ca)), identity.into())
}

fn registration_id(device: &str) -> RegistrationId {
    device.parse().expect("a registration id")
}
