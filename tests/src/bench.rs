//! One device and one emulated service.

use std::{sync::Arc, time::Duration};

use dps_client::{
    Attestation, Client, Config, Error, RegistrationRequest, RegistrationResult, Roots, Settings,
    Transport, X509Identity, client, parse_certificates,
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
        let (enrollment, attestation) = enroll(cell.credential, device);
        let name = match cell.credential {
            Credential::SymmetricKey | Credential::Signer => device,
            _ => "factory",
        };
        let service = Emulator::builder().enrollment(change(enrollment));
        let emulator = change_service(service).start().await.expect("an emulator on loopback");
        let config = config_for(&emulator, cell.transport, attestation);
        Self { cell, emulator, config, enrollment: name, device }
    }

    /// The request of the bench's device.
    #[must_use]
    pub fn request(&self) -> RegistrationRequest {
        RegistrationRequest::new(self.device.parse().expect("a registration id"))
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

    /// What happened at the service, picked from its events.
    pub fn events<V>(&self, pick: impl FnMut(Event) -> Option<V>) -> Vec<V> {
        self.emulator.events().snapshot().into_iter().filter_map(pick).collect()
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

/// An enrollment, and the credential of a device that it knows.
fn enroll(credential: Credential, device: &str) -> (Enrollment, Attestation) {
    let id: dps_client::RegistrationId = device.parse().expect("a registration id");
    match credential {
        Credential::SymmetricKey => {
            let key = SymmetricKey::random().expect("a key");
            let attestation = key.clone().into();
            (Enrollment::individual(id, dps_emulator::Attestation::symmetric_key(key)), attestation)
        }
        Credential::Signer => {
            let (enrollment, attestation) = enroll(Credential::SymmetricKey, device);
            (enrollment, Attestation::from_signer(OutsideSigner::new(attestation)))
        }
        Credential::X509SigningKey => {
            let (enrollment, attestation) = enroll(Credential::X509, device);
            let identity = attestation.x509().expect("an X.509 identity");
            (enrollment, OutsideKey::new(&identity).identity().into())
        }
        Credential::GroupKey => {
            let key = GroupKey::random().expect("a key");
            let attestation = key.derive(&id).into();
            (Enrollment::group("factory", GroupAttestation::symmetric_key(key)), attestation)
        }
        Credential::X509 => {
            let (enrollment, line) = factory();
            (enrollment, line.device(device).with_chain([&line]).identity().into())
        }
        Credential::X509SoftHsm => {
            let (enrollment, line) = factory();
            let (key, uri) = key_in_token();
            let chain = line.device_with(key, device).with_chain([&line]).chain_pem();
            let chain = parse_certificates(chain.as_bytes()).expect("certificates");
            let uri = uri.parse().expect("a URI");
            let key = Pkcs11Key::open(&uri, &Pkcs11Options::default()).expect("the key");
            let identity = X509Identity::from_signing_key(chain, Arc::new(key));
            (enrollment, identity.expect("an identity").into())
        }
    }
}

/// A group that knows a root, and the line whose devices are in the group.
fn factory() -> (Enrollment, Authority) {
    let root = Authority::root("Factory root");
    let ca = CaCertificates::from_pem(&root.pem).expect("a CA certificate");
    let line = root.intermediate("Line 4");
    (Enrollment::group("factory", GroupAttestation::X509(ca)), line)
}
