//! A service in good health, a device that it knows, and what a fault is planted in.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::PoisonError,
    time::SystemTime,
};

use dps_client::{
    Attestation, Config, RegistrationId, RegistrationRequest, Roots, SymmetricKey, Transport,
    client,
};
use dps_conformance::{Authority, fast, settle};
use dps_connect::internal::LOOKUP;
use dps_doctor::Subject;
use dps_emulator::{CaCertificates, Emulator, Enrollment, EventKind, GroupAttestation, Operation};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub(crate) const DEVICE: &str = "pump-17";
/// A name of this machine.
pub(crate) const HOST: &str = "dps.test";
/// The service's own name, which is this machine here.
pub(crate) const PUBLIC: &str = "global.azure-devices-provisioning.net";

/// Names mean what they mean in these tests, whatever the system says.
pub(crate) fn answer_lookups() {
    *LOOKUP.write().unwrap_or_else(PoisonError::into_inner) = |host, port| {
        let v4 = |last| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port));
        Ok(match host {
            HOST | PUBLIC | "other.test" => vec![v4(1)],
            "two.test" => vec![v4(2), v4(1)],
            "both.test" => vec![SocketAddr::from((Ipv6Addr::LOCALHOST, port)), v4(1)],
            "silent.test" => loop {
                std::thread::park();
            },
            _ => return Err(io::Error::other("no such name")),
        })
    };
}

pub(crate) struct Scene {
    pub(crate) emulator: Emulator,
    pub(crate) key: SymmetricKey,
    credential: Attestation,
}

impl Scene {
    /// With a symmetric key.
    pub(crate) async fn new() -> Self {
        Self::changed(|service| service).await
    }

    /// With a service that is changed before it starts.
    pub(crate) async fn changed(
        change: impl FnOnce(dps_emulator::Config) -> dps_emulator::Config,
    ) -> Self {
        let key = SymmetricKey::random().unwrap();
        let known = dps_emulator::Attestation::symmetric_key(key.clone());
        let enrollment = Enrollment::individual(device(), known);
        Self::start(enrollment, key.clone(), key.into(), change).await
    }

    /// With a certificate of an authority that the service knows.
    pub(crate) async fn with_certificate(issue: impl FnOnce(Authority) -> Authority) -> Self {
        let authority = issue(Authority::root("Factory"));
        let known = CaCertificates::from_pem(&authority.pem).unwrap();
        let enrollment = Enrollment::group("factory", GroupAttestation::x509(known));
        let identity = authority.device(DEVICE).identity();
        Self::start(enrollment, other_key(), identity.into(), |service| service).await
    }

    async fn start(
        enrollment: Enrollment,
        key: SymmetricKey,
        credential: Attestation,
        change: impl FnOnce(dps_emulator::Config) -> dps_emulator::Config,
    ) -> Self {
        let names = [HOST, PUBLIC, "two.test", "both.test"];
        let service = Emulator::builder()
            .enrollment(enrollment)
            .bind([Ipv4Addr::LOCALHOST.into()])
            .server_names(names);
        let emulator = change(service).start().await.unwrap();
        Self { emulator, key, credential }
    }

    pub(crate) async fn register(&self) {
        let mut config = self.config();
        config.endpoint = config.endpoint.with_port(self.emulator.https_port());
        let client = client(Transport::Http, config, fast()).unwrap();
        client.register(RegistrationRequest::new(device())).await.unwrap();
        settle(&client).await;
    }

    fn config(&self) -> Config {
        let roots = Roots::empty().with_pem(self.emulator.ca_pem().as_bytes()).unwrap();
        let mut config = Config::new(self.emulator.id_scope().clone(), self.credential.clone());
        config.endpoint = HOST.parse().unwrap();
        config.roots = roots;
        config
    }

    /// A device in good health, over HTTP.
    pub(crate) fn subject(&self) -> Subject {
        let mut subject = Subject::new(Transport::Http, self.config(), device());
        subject.ports.https = self.emulator.https_port();
        subject.ports.mqtt = self.emulator.mqtt_port();
        subject.ports.amqp = self.emulator.amqp_port();
        subject.ports.are_known = true;
        subject.request = Some(Ok(RegistrationRequest::new(device())));
        // No step of a healthy one takes so long, however busy the machine.
        subject.limits.step = std::time::Duration::from_secs(30);
        subject.limits.aside = subject.limits.step;
        subject.limits.total = std::time::Duration::from_secs(120);
        subject
    }

    /// What a device has that reaches nobody.
    pub(crate) fn unreachable() -> Subject {
        let config = Config::new("0ne00AABBCC".parse().unwrap(), other_key().into());
        Subject::new(Transport::Http, config, device())
    }

    /// What devices have asked of the service.
    pub(crate) fn requests(&self) -> Vec<Operation> {
        let events = self.emulator.events().snapshot().into_iter();
        let asked = events.filter_map(|event| match event.kind {
            EventKind::Request { operation, .. } => Some(operation),
            _ => None,
        });
        asked.collect()
    }
}

pub(crate) fn device() -> RegistrationId {
    DEVICE.parse().unwrap()
}

pub(crate) fn other_key() -> SymmetricKey {
    SymmetricKey::random().unwrap()
}

/// A clock before 1970.
pub(crate) fn before_1970() -> SystemTime {
    SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(1)
}

/// A clock that was never set.
pub(crate) fn never_set() -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(946_684_800)
}

/// A port where nobody listens as long as the socket is kept.
pub(crate) fn closed() -> (TcpSocket, u16) {
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = taken.local_addr().unwrap().port();
    (taken, port)
}

/// A port that lets nobody in as long as what comes with it is kept: Linux drops what comes to a listener whose queue is
/// full.
pub(crate) async fn silent() -> ((TcpListener, [TcpStream; 2]), u16) {
    let hole = TcpSocket::new_v4().unwrap();
    hole.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let hole = hole.listen(1).unwrap();
    let at = hole.local_addr().unwrap();
    let queued = [TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap()];
    ((hole, queued), at.port())
}
