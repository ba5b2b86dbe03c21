//! What an emulator is started with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use dps_attestation::{GroupKey, SymmetricKey};
use dps_state_machine::IdScope;
use ring::{
    digest::SHA256,
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};
use rustls_pki_types::ServerName;
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    behavior::{ConnectionFault, Fault, Pace},
    config_error::ConfigError,
    core::{Clock, Instance, ServicePolicy, clock::ClockSetting},
    enrollment::{Enrollment, GroupAttestation},
    hub::check_hub,
    keys::CaCertificates,
    tls::Ca,
};

mod file;
#[cfg(feature = "state")]
mod kept;
mod limits;

pub use limits::Limits;

/// The group of [`Config::with_any_device`].
pub(crate) const ANY_DEVICE: &str = "group";

/// What an emulator is started with. Built from code with [`Emulator::builder`](crate::Emulator::builder), or from a
/// TOML file.
///
/// Without any setting it has no enrollments, serves each transport on a free port of the loopback addresses, and no
/// admin port.
#[must_use]
#[derive(Debug, Default)]
pub struct Config {
    pub(crate) id_scope: Option<IdScope>,
    pub(crate) enrollments: Vec<Enrollment>,
    pub(crate) bind: Vec<IpAddr>,
    pub(crate) https_port: u16,
    pub(crate) mqtt_port: u16,
    pub(crate) amqp_port: u16,
    pub(crate) admin_port: Option<u16>,
    pub(crate) admin_listen: Vec<IpAddr>,
    pub(crate) admin_token: Option<Secret<String>>,
    pub(crate) server_names: Vec<String>,
    pub(crate) server_certificate: ServerCertificate,
    pub(crate) ca: Option<Ca>,
    pub(crate) connection_faults: Vec<ConnectionFault>,
    pub(crate) events: Option<Sink>,
    pub(crate) limits: Limits,
    /// Whether [`Config::with_any_device`] was called, and whether it made the key.
    pub(crate) has_any_device: bool,
    #[cfg(feature = "state")]
    is_group_key_fresh: bool,
    /// In seconds; less than 0 is behind.
    pub(crate) clock_ahead: f64,
    pub(crate) seed: Option<Secret<[u8; 32]>>,
    pub(crate) nearest_hubs: Vec<String>,
    pub(crate) verified_cas: BTreeMap<String, CaCertificates>,
    pub(crate) pace: Pace,
    /// [`Enrollment::DEFAULT_HUB`] where there are none.
    pub(crate) linked_hubs: Option<Vec<String>>,
    pub(crate) service_policies: Vec<ServicePolicy>,
    pub(crate) service_faults: Vec<Fault>,
    #[cfg(feature = "state")]
    pub(crate) state: Option<crate::state::StatePlace>,
    /// Whether the file of the state has another seed than the one that was set.
    pub(crate) is_seed_set_aside: bool,
    /// Those that a configuration file names.
    files: Vec<PathBuf>,
}

impl Config {
    /// A TOML file that has every key, explained. Its keys and certificates are made up.
    pub const EXAMPLE: &str = include_str!("../emulator.toml");

    /// The ID scope that is served unless another is set.
    pub const DEFAULT_ID_SCOPE: &str = "0ne00E4A9D1";

    /// A configuration without enrollments. The same as [`Emulator::builder`](crate::Emulator::builder).
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a configuration from TOML text. Its keys are listed in the [crate's documentation](crate#the-configuration-file).
    /// Files that it names are looked up from the current directory.
    ///
    /// # Errors
    /// [`ConfigError`] that names the enrollment, the key and what is wrong with it.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        file::parse(text, Path::new(""))
    }

    /// Reads a configuration from a TOML file. Files that it names are looked up from its own folder.
    ///
    /// # Errors
    /// [`ConfigError`], also when the file can't be read.
    pub fn from_toml_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = file::read(path, "configuration file")?;
        file::parse(&text, path.parent().unwrap_or(Path::new("")))
    }

    /// Adds what takes any device: a symmetric-key group named `group`, with the key given or a fresh one
    /// ([`Emulator::group_key`](crate::Emulator::group_key) tells it), and, with CA certificates, an X.509 group named
    /// `x509-group`.
    ///
    /// # Errors
    /// [`ConfigError`] when the system has no randomness for a fresh key.
    pub fn with_any_device(
        mut self,
        group_key: Option<GroupKey>,
        group_ca: Option<CaCertificates>,
    ) -> Result<Self, ConfigError> {
        self.has_any_device = true;
        #[cfg(feature = "state")]
        {
            self.is_group_key_fresh = group_key.is_none();
        }
        let group = self.any_device(group_key)?;
        self = self.enrollment(group);
        if let Some(ca) = group_ca {
            self = self.enrollment(Enrollment::group("x509-group", GroupAttestation::x509(ca)));
        }
        Ok(self)
    }

    /// The group with this key or one that is made.
    fn any_device(&self, key: Option<GroupKey>) -> Result<Enrollment, ConfigError> {
        let key = match key {
            Some(key) => key,
            None => GroupKey::from_bytes(&*self.secret("group-key")?)
                .map_err(|error| ConfigError::from_parser("group-key", &error))?,
        };
        Ok(Enrollment::group(ANY_DEVICE, GroupAttestation::symmetric_key(key)))
    }

    /// Makes what is fresh at each start the same each time: ids of operations and answers, etags, and keys, that of
    /// [`Config::with_any_device`] among them, which is called after it. The authorities, the server certificate and the
    /// admin port's token stay fresh. **Whoever knows the seed knows the keys.**
    pub fn seed(mut self, seed: impl AsRef<[u8]>) -> Self {
        let mut digest = Zeroizing::new([0; 32]);
        digest.copy_from_slice(ring::digest::digest(&SHA256, seed.as_ref()).as_ref());
        self.seed = Some(Secret(digest));
        self
    }

    /// Keeps enrollments, what devices were assigned, and all keys in this file, which is made if need be: an emulator that is
    /// started with it again goes on where the last one was, however that ended. Keys and the authority of the server
    /// certificate that are set, in whatever order, are kept too, and hold where they are not set again. Only the seed stays that
    /// of the file: [`Emulator::is_seed_set_aside`](crate::Emulator::is_seed_set_aside).
    ///
    /// The enrollments of the configuration are taken when they are new or other than at the last start; one that was
    /// changed or removed while the emulator ran stays so otherwise. At most one emulator has the file
    /// open. It is a database of SQLite, readable by its owner only, and **it has all keys in it.** It is opened by
    /// [`Config::start`], whose error says what is wrong with it.
    #[cfg(feature = "state")]
    pub fn state(self, path: impl Into<PathBuf>) -> Self {
        self.with_state(path.into(), false)
    }

    /// As [`Config::state`], from a file that is there and stays as it is: what happens is forgotten at the end.
    #[cfg(feature = "state")]
    pub fn state_read_only(self, path: impl Into<PathBuf>) -> Self {
        self.with_state(path.into(), true)
    }

    #[cfg(feature = "state")]
    fn with_state(mut self, path: PathBuf, is_read_only: bool) -> Self {
        self.state = Some(crate::state::StatePlace { path, is_read_only });
        self
    }

    /// Takes the documented ports where none is set: 8443 for HTTPS, 8883 for MQTT, 5671 for AMQP, and 8080 for the admin
    /// port; and, without another seed, the seed `fixed`.
    pub fn fixed(mut self) -> Self {
        let ports = [
            (&mut self.https_port, 8443),
            (&mut self.mqtt_port, 8883),
            (&mut self.amqp_port, 5671),
            (self.admin_port.get_or_insert(0), 8080),
        ];
        ports.into_iter().filter(|(port, _)| **port == 0).for_each(|(port, fixed)| *port = fixed);
        if self.seed.is_none() { self.seed("fixed") } else { self }
    }

    /// What nobody can guess, or with a seed what follows from it and the name.
    pub(crate) fn secret(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
        let mut secret = Zeroizing::new([0; 32]);
        match &self.seed {
            Some(seed) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &*seed.0);
                secret.copy_from_slice(hmac::sign(&key, name.as_bytes()).as_ref());
            }
            None => SystemRandom::new()
                .fill(&mut *secret)
                .map_err(|_| ConfigError::new(name, "the system's random source failed"))?,
        }
        Ok(secret)
    }

    /// Sets the ID scope; without it, [`Config::DEFAULT_ID_SCOPE`].
    pub fn id_scope(mut self, id_scope: IdScope) -> Self {
        self.id_scope = Some(id_scope);
        self
    }

    /// Adds an enrollment.
    pub fn enrollment(mut self, enrollment: Enrollment) -> Self {
        self.enrollments.push(enrollment);
        self
    }

    /// Sets the order in which hubs are near, the nearest first, for enrollments with
    /// [`Allocation::GeoLatency`](crate::Allocation::GeoLatency).
    pub fn nearest_hubs<H: Into<String>>(mut self, hubs: impl IntoIterator<Item = H>) -> Self {
        self.nearest_hubs = hubs.into_iter().map(Into::into).collect();
        self
    }

    /// Adds CA certificates that groups may refer to by this name, as by those that were uploaded to the service and
    /// verified. Another one of the same name is replaced.
    pub fn verified_ca(mut self, name: impl Into<String>, ca: CaCertificates) -> Self {
        self.verified_cas.insert(name.into(), ca);
        self
    }

    /// Sets the hubs that the service is linked to: those of an enrollment that is made by the service API without any.
    /// [`Enrollment::DEFAULT_HUB`] by default.
    pub fn linked_hubs<H: Into<String>>(mut self, hubs: impl IntoIterator<Item = H>) -> Self {
        self.linked_hubs = Some(hubs.into_iter().map(Into::into).collect());
        self
    }

    /// Adds a policy by whose key the service API can be used; another one of the same name is replaced. Without one
    /// that is named [`ServicePolicy::OWNER`], there is one with a fresh key, which
    /// [`Emulator::service_connection_string`](crate::Emulator::service_connection_string) tells.
    pub fn service_policy(mut self, policy: ServicePolicy) -> Self {
        self.service_policies.retain(|other| other.name != policy.name);
        self.service_policies.push(policy);
        self
    }

    /// Sets what goes wrong with the calls of the service API, one fault for each call with a right token.
    pub fn service_faults(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.service_faults = faults.into_iter().collect();
        self
    }

    /// Sets the addresses to listen on; without it, `127.0.0.1` and, where there is one, `::1`. The admin port
    /// stays on loopback whatever is set here; [`Config::admin_listen`] sets its own. An address that comes twice counts once.
    pub fn bind(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.bind = once_each(addresses);
        self
    }

    /// Sets the port for HTTPS; 0, the default, is any free one.
    pub fn https_port(mut self, port: u16) -> Self {
        self.https_port = port;
        self
    }

    /// Sets the port for MQTT over TLS; 0, the default, is any free one. MQTT over WebSocket is on the HTTPS port.
    pub fn mqtt_port(mut self, port: u16) -> Self {
        self.mqtt_port = port;
        self
    }

    /// Sets the port for AMQP over TLS; 0, the default, is any free one. AMQP over WebSocket is on the HTTPS port.
    pub fn amqp_port(mut self, port: u16) -> Self {
        self.amqp_port = port;
        self
    }

    /// Serves what `openapi.json` of this crate says, like `/health`, `/events` and `/clock`, over plain HTTP on this
    /// port; 0 is any free one.
    pub fn admin_port(mut self, port: u16) -> Self {
        self.admin_port = Some(port);
        self
    }

    /// As [`Config::admin_port`], unless one was set before.
    pub fn admin_port_or(mut self, port: u16) -> Self {
        self.admin_port.get_or_insert(port);
        self
    }

    /// Sets the addresses of the admin port, on any free port unless [`Config::admin_port`] sets one. Beyond loopback, or
    /// with [`Config::admin_token`], each request but those for the health must show the token.
    pub fn admin_listen(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.admin_listen = once_each(addresses);
        self
    }

    /// Sets the token of the admin port: 1 to 512 visible ASCII characters. Without it, a fresh one is made when the
    /// port listens beyond loopback; [`Emulator::admin_token`](crate::Emulator::admin_token) tells it.
    pub fn admin_token(mut self, token: impl Into<String>) -> Self {
        self.admin_token = Some(Secret(Zeroizing::new(token.into())));
        self
    }

    /// Adds names or addresses to the server certificate, beside `localhost`, `127.0.0.1` and `::1`.
    pub fn server_names<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.server_names.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets what is wrong with the server certificate; nothing, by default.
    pub fn server_certificate(mut self, certificate: ServerCertificate) -> Self {
        self.server_certificate = certificate;
        self
    }

    /// Takes a certificate authority from two PEM files for the server certificate; without it, a fresh one with a name of
    /// its own is made at each start.
    ///
    /// # Errors
    /// [`ConfigError`] when the certificate is no authority or out of its dates, or the key is not its own.
    pub fn authority(mut self, certificate: &[u8], key: &[u8]) -> Result<Self, ConfigError> {
        self.ca = Some(Ca::read(certificate, key, SystemTime::now())?);
        Ok(self)
    }

    /// Makes an authority as [`Config::authority`] takes it: its certificate, which is valid for ten years, and its key, both
    /// as PEM.
    ///
    /// # Errors
    /// [`ConfigError`] when the system has no randomness.
    pub fn make_authority() -> Result<(String, Zeroizing<String>), ConfigError> {
        let made = Ca::make(SystemTime::now());
        let made = made.map_err(|error| ConfigError::new("ca-key", &error.to_string()))?;
        Ok(made.to_pem())
    }

    /// The certificate of the authority that [`Config::authority`] or the configuration file gave, as PEM.
    #[must_use]
    pub fn authority_pem(&self) -> Option<&str> {
        self.ca.as_ref().map(Ca::pem)
    }

    /// The files that the configuration file names; nothing may be written to them.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The enrollments that it has so far.
    pub fn enrollments(&self) -> &[Enrollment] {
        &self.enrollments
    }

    /// Sets what goes wrong with the first connections, one fault for each.
    pub fn connection_faults(mut self, faults: impl IntoIterator<Item = ConnectionFault>) -> Self {
        self.connection_faults = faults.into_iter().collect();
        self
    }

    /// Writes every event to this sink as a line of JSON, from a thread of its own.
    pub fn events_to(mut self, sink: impl Write + Send + 'static) -> Self {
        self.events = Some(Sink(Box::new(sink)));
        self
    }

    /// Sets how far the service's clock is ahead, 100 years at most: a device whose clock is behind signs tokens that have expired,
    /// and shows certificates that have, too.
    pub fn clock_ahead(mut self, ahead: Duration) -> Self {
        self.clock_ahead = ahead.as_secs_f64();
        self
    }

    /// Sets how far the service's clock is behind, 100 years at most and not before 1970.
    pub fn clock_behind(mut self, behind: Duration) -> Self {
        self.clock_ahead = -behind.as_secs_f64();
        self
    }

    /// Sets how long the service takes to assign a device whose enrollment does not say it; [`Pace::Fast`] by default.
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Sets the bounds that keep a hostile peer from using the emulator up.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The ID scope that is served.
    pub(crate) fn chosen_id_scope(&self) -> Result<IdScope, ConfigError> {
        let default = || Self::DEFAULT_ID_SCOPE.parse();
        let chosen = self.id_scope.clone().map_or_else(default, Ok);
        chosen.map_err(|error| ConfigError::from_parser("id-scope", &error))
    }

    /// How the service is set up.
    pub(crate) fn instance(&self) -> Result<Instance, ConfigError> {
        Ok(Instance {
            id_scope: self.chosen_id_scope()?,
            nearest_hubs: self.nearest_hubs.clone(),
            verified_cas: self.verified_cas.clone(),
            pace: self.pace,
            linked_hubs: self
                .linked_hubs
                .clone()
                .unwrap_or_else(|| vec![Enrollment::DEFAULT_HUB.to_owned()]),
            policies: self.policies()?,
            api_faults: self.service_faults.clone(),
        })
    }

    /// The clock as it is at the start.
    pub(crate) fn clock(&self) -> Result<Clock, ConfigError> {
        let clock = Clock::default();
        clock.set("clock-ahead", ClockSetting::Ahead(self.clock_ahead))?;
        Ok(clock)
    }

    /// The policies of the service API, that of the owner first.
    fn policies(&self) -> Result<Vec<ServicePolicy>, ConfigError> {
        let others = self.service_policies.iter().filter(|policy| !policy.is_owner()).cloned();
        Ok([self.owner()?].into_iter().chain(others).collect())
    }

    fn owner(&self) -> Result<ServicePolicy, ConfigError> {
        if let Some(owner) = self.service_policies.iter().find(|policy| policy.is_owner()) {
            return Ok(owner.clone());
        }
        let key = SymmetricKey::from_bytes(&*self.secret("service-key")?);
        let key = key.map_err(|error| ConfigError::from_parser("service-key", &error))?;
        Ok(ServicePolicy::with_all_rights(ServicePolicy::OWNER, key))
    }

    /// Checks the server names, the limits, the clock, and that the enrollments can stand beside each other, as
    /// [`Config::start`] and the readers of TOML do before anything else.
    ///
    /// # Errors
    /// [`ConfigError`] that names the setting, its value and what would be right.
    pub fn check(&self) -> Result<(), ConfigError> {
        for name in &self.server_names {
            if ServerName::try_from(name.as_str()).is_err() {
                let wrong = ConfigError::new("server-names", "give a host name or an IP address");
                return Err(wrong.value(name.chars()));
            }
        }
        self.clock()?;
        if let Some(token) = &self.admin_token
            && (!(1..=512).contains(&token.0.len())
                || !token.0.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let reason = "it must be 1 to 512 visible ASCII characters, without spaces";
            return Err(ConfigError::new("admin-token", reason));
        }
        if self.linked_hubs.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::new("linked-hubs", "give at least one host name"));
        }
        let linked = self.linked_hubs.iter().flatten().map(|hub| ("linked-hubs", hub));
        for (field, hub) in linked.chain(self.nearest_hubs.iter().map(|hub| ("nearest-hubs", hub)))
        {
            check_hub(hub).map_err(|reason| ConfigError::new(field, reason).value(hub.chars()))?;
        }
        if self.service_policies.iter().any(|policy| policy.name.is_empty()) {
            return Err(ConfigError::new("service-policy, name", "it is empty; give one"));
        }
        self.limits.check()?;
        Enrollment::check_all(&self.enrollments, &self.verified_cas)
    }
}

/// Each address at its first place.
fn once_each(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    addresses.into_iter().filter(|address| seen.insert(*address)).collect()
}

/// What is not shown, and wiped when it is gone.
#[derive(Clone)]
pub(crate) struct Secret<T: Zeroize>(pub(crate) Zeroizing<T>);

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where events are written.
pub(crate) struct Sink(pub(crate) Box<dyn Write + Send>);

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink(..)")
    }
}

/// What is wrong with the server certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ServerCertificate {
    /// Nothing.
    #[default]
    Valid,
    /// It expired yesterday.
    Expired,
    /// It is valid from tomorrow on.
    NotYetValid,
    /// It has none of the loopback names, only those given with [`Config::server_names`], or
    /// `other.invalid`.
    WrongName,
    /// It was issued by another CA than the one that [`Emulator::ca_pem`](crate::Emulator::ca_pem) gives.
    WrongCa,
}
