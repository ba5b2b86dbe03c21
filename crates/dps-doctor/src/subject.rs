//! What is examined.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use dps_client::{
    Attestation, Config, Endpoint, Error, GroupKey, IdScope, ProxyChoice, RegistrationId,
    RegistrationRequest, Roots, SymmetricKey, Transport,
};

/// All that a registration would take. Each part is there, or the error that reading it gave: what is wrong with one does
/// not hide what is wrong with the others.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Subject {
    /// The transport that a registration would take.
    pub transport: Result<Transport, Error>,
    /// Whether any other that gets through would do as well, as with the transport `auto`. Then each is tried in the order of
    /// [`Auto`](dps_client::Auto), and the first that lets the device in, or refuses it, decides.
    pub any_transport: bool,
    /// The service.
    pub endpoint: Result<Endpoint, Error>,
    /// Which instance of the service.
    pub id_scope: Result<IdScope, Error>,
    /// The device's name there.
    pub registration_id: Result<RegistrationId, Error>,
    /// The proxy to go through.
    pub proxy: Result<ProxyChoice, Error>,
    /// Who may vouch for the server.
    pub roots: Result<Roots, Error>,
    /// How the device proves who it is.
    pub credential: Result<Attestation, Error>,
    /// What a registration would send besides; `None` for nothing.
    pub request: Option<Result<RegistrationRequest, Error>>,
    /// The key of the group that the device's key was derived from, if it was.
    pub group_key: Option<GroupKey>,
    /// What is odd about the files that a registration would keep or write, or why it could not begin for them; `None` when
    /// there are none.
    pub files: Option<Result<Vec<String>, Error>>,
    /// Files with keys in them, whose permissions are looked at.
    pub key_files: Vec<PathBuf>,
    /// Where the hub is, if that is known; otherwise the service is asked.
    pub hub: Option<Result<Endpoint, Error>>,
    /// The ports of the transports.
    pub ports: Ports,
    /// Bounds on the time.
    pub limits: Limits,
    /// This machine's clock.
    pub clock: fn() -> SystemTime,
}

/// The ports of the transports, for an endpoint that names none. One that names a port names that of the chosen transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ports {
    /// That of `http`, `mqtt-ws` and `amqp-ws`.
    pub https: u16,
    /// That of `mqtt`.
    pub mqtt: u16,
    /// That of `amqp`.
    pub amqp: u16,
    /// Whether they hold too for an endpoint that names a port, as for an emulator. Otherwise only that port is looked at.
    pub are_known: bool,
}

/// Bounds on the time that an examination takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The whole.
    pub total: Duration,
    /// One step, like a connection or an answer.
    pub step: Duration,
    /// A step that the registration does not need, like the port of another transport, or an answer where any transport
    /// would do and another one is connected.
    pub aside: Duration,
    /// A lookup that takes longer is slow.
    pub lookup: Duration,
}

impl Default for Ports {
    /// See <https://learn.microsoft.com/azure/iot-dps/concepts-service>.
    fn default() -> Self {
        Self { https: 443, mqtt: 8883, amqp: 5671, are_known: false }
    }
}

impl Default for Limits {
    /// Those within a minute.
    fn default() -> Self {
        Self::within(Duration::from_secs(60))
    }
}

impl Limits {
    /// For a registration that has so long: a step takes a sixth of it at most (but 5 s if there are three times as many),
    /// one that is not needed 5 s, and a lookup is slow after 2 s.
    #[must_use]
    pub fn within(total: Duration) -> Self {
        const SHORT: Duration = Duration::from_secs(5);
        let exact = (total / 6).max(SHORT).min(total / 3);
        // It is told in tenths of a second.
        let tenths = Duration::from_secs_f64((exact.as_secs_f64() * 10.0).floor() / 10.0);
        let step = if tenths.is_zero() { exact } else { tenths };
        Self { total, step, aside: step.min(SHORT), lookup: Duration::from_secs(2) }
    }
}

/// In seconds, to a tenth.
pub(crate) fn in_words(length: Duration) -> String {
    format!("{} s", (length.as_secs_f64() * 10.0).round() / 10.0)
}

impl Subject {
    /// What an application would register with.
    #[must_use]
    pub fn new(transport: Transport, config: Config, registration_id: RegistrationId) -> Self {
        Self {
            transport: Ok(transport),
            any_transport: false,
            endpoint: Ok(config.endpoint),
            id_scope: Ok(config.id_scope),
            registration_id: Ok(registration_id),
            proxy: Ok(config.proxy),
            roots: Ok(config.roots),
            credential: Ok(config.attestation),
            request: None,
            group_key: None,
            files: None,
            key_files: Vec::new(),
            hub: None,
            ports: Ports::default(),
            limits: Limits::default(),
            clock: SystemTime::now,
        }
    }

    /// The transport, or else the default one, so that the network is looked at in any case.
    pub(crate) fn transport(&self) -> Transport {
        *self.transport.as_ref().unwrap_or(&Transport::Http)
    }

    /// The same, with a transport that the port of the endpoint is for, where any would do.
    pub(crate) fn at_its_port(&self) -> Self {
        let mut at = self.clone();
        let port = self.endpoint.as_ref().ok().and_then(Endpoint::port);
        if let (true, false, Some(port)) = (self.any_transport, self.ports.are_known, port) {
            let own = [Transport::Mqtt, Transport::Amqp];
            let own = own.into_iter().find(|of| self.ports.of(*of) == port);
            at.transport = self.transport.clone().map(|any| own.unwrap_or(any));
        }
        at
    }

    pub(crate) fn host(&self) -> Option<&str> {
        self.endpoint.as_ref().ok().map(Endpoint::host)
    }

    /// What a connection is made by, to the given host and without the device's symmetric key or TPM, which no connection needs:
    /// an X.509 certificate is shown in the handshake.
    pub(crate) fn config(&self, endpoint: &Endpoint) -> Option<Config> {
        let nobody = SymmetricKey::from_bytes(b"the key of no device").ok()?;
        let attestation = match &self.credential {
            Ok(x509 @ (Attestation::X509(_) | Attestation::X509Files(_))) => x509.clone(),
            _ => nobody.into(),
        };
        let id_scope = self.id_scope.as_ref().ok().cloned();
        let id_scope = id_scope.or_else(|| "0ne".parse().ok())?;
        let mut config = Config::new(id_scope, attestation);
        config.endpoint = endpoint.clone();
        config.proxy = self.proxy.as_ref().ok()?.clone();
        config.roots = self.roots.as_ref().ok()?.clone();
        config.connect_timeout = Some(self.limits.step);
        Some(config)
    }

    /// The endpoint of a transport; `None` where nothing says its port.
    pub(crate) fn endpoint_of(&self, transport: Transport) -> Option<Endpoint> {
        let endpoint = self.endpoint.as_ref().ok()?;
        let port = self.ports.of(transport);
        match endpoint.port() {
            Some(own) if self.ports.of(self.transport()) == port => Some(endpoint.with_port(own)),
            Some(_) if !self.ports.are_known => None,
            _ => Some(endpoint.with_port(port)),
        }
    }
}

impl Ports {
    pub(crate) fn of(self, transport: Transport) -> u16 {
        match transport {
            Transport::Mqtt => self.mqtt,
            Transport::Amqp => self.amqp,
            _ => self.https,
        }
    }
}
