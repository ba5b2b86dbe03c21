//! A running emulator.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use dps_attestation::{GroupKey, SymmetricKey};
use dps_state_machine::IdScope;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use zeroize::Zeroizing;

use crate::{
    behavior::{Behavior, ConnectionFault, Fault},
    config::{ANY_DEVICE, Config, Secret},
    config_error::ConfigError,
    core::{
        Core, KnownDevice, Service, ServicePolicy, WEBHOOK_QUEUE,
        clock::{self, ClockSetting},
        events::{EventLog, Recorder, SinkEnd, Transport},
    },
    enrollment::{Enrollment, EnrollmentName},
    server::{self, Admin, Facts, Guard, Shared, Start},
    tls::{ServerCertificates, server_config},
};

impl Config {
    /// Starts the emulator. It serves when this returns.
    ///
    /// # Errors
    /// [`StartError`]: a setting that can't be used, or a port that can't be had.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    ///
    /// # Panics
    /// When it is called outside of a tokio runtime.
    pub async fn start(self) -> Result<Emulator, StartError> {
        Emulator::start(self).await
    }
}

/// The provisioning service on loopback: real sockets, real TLS, real credential checks.
///
/// Dropping it stops it at once; [`Emulator::stop`] does so in an orderly manner. It lives in the tokio runtime
/// that it was started in.
pub struct Emulator {
    id_scope: IdScope,
    group_key: Option<GroupKey>,
    ca_pem: String,
    https_port: u16,
    mqtt_port: u16,
    amqp_port: u16,
    admin_port: Option<u16>,
    admin_token: Option<Secret<String>>,
    shared: Arc<Shared>,
    stopping: watch::Sender<bool>,
    /// Aborted when dropped.
    tasks: JoinSet<()>,
    sink: Option<SinkEnd>,
    service_owner: Option<ServicePolicy>,
    is_seed_set_aside: bool,
}

impl Emulator {
    /// How long [`Emulator::stop`] waits for requests that are being answered.
    const PATIENCE: Duration = Duration::from_secs(1);

    /// A configuration to fill and start.
    pub fn builder() -> Config {
        Config::new()
    }

    async fn start(mut config: Config) -> Result<Self, StartError> {
        config.check()?;
        let clock = config.clock()?;
        let (https_port, https) = bind("https-port", &config.bind, config.https_port)?;
        let (mqtt_port, mqtts) = bind("mqtt-port", &config.bind, config.mqtt_port)?;
        let (amqp_port, amqps) = bind("amqp-port", &config.bind, config.amqp_port)?;
        let admin_port =
            config.admin_port.or_else(|| (!config.admin_listen.is_empty()).then_some(0));
        let admin = admin_port.map(|port| bind("admin-port", &config.admin_listen, port));
        let (admin_port, admin) = admin.transpose()?.unzip();
        let admin_token = match config.admin_token.take() {
            None if config.admin_listen.iter().any(|address| !address.is_loopback()) => {
                Some(fresh_token()?)
            }
            given => given,
        };
        let mut recorder = Recorder::new();
        let sink = config.events.take().map(|sink| recorder.copy_to(sink.0)).transpose();
        let sink = sink.map_err(StartError::Events)?;
        // All that may be wrong with the configuration was told: a start that fails changes nothing that is kept.
        #[cfg(feature = "state")]
        let mut file = config.take_kept()?;
        let instance = config.instance()?;
        let id_scope = instance.id_scope.clone();
        #[cfg(feature = "state")]
        let starts = file.as_ref().map_or(0, crate::state::StateFile::starts);
        #[cfg(not(feature = "state"))]
        let starts = 0;
        // What is kept has ids of earlier starts.
        let seed = config.secret(&match starts {
            0 => "ids".to_owned(),
            starts => format!("ids of start {starts}"),
        })?;
        let service_owner = instance.policies.first().cloned();
        let start = Start {
            enrollments: config.enrollments,
            connection_faults: config.connection_faults,
            clock_ahead: config.clock_ahead,
            seed,
        };
        #[cfg(feature = "state")]
        let service = match &mut file {
            None => Service::new(instance, start.enrollments.clone(), *start.seed, clock.now())?,
            Some(file) => {
                let mut service = Service::new(instance, Vec::new(), *start.seed, clock.now())?;
                for enrollment in file.restore(&mut service, start.enrollments.clone())? {
                    service.put(clock.now(), enrollment)?;
                }
                file.begin(service.take_changes())?;
                service
            }
        };
        #[cfg(not(feature = "state"))]
        let service = Service::new(instance, start.enrollments.clone(), *start.seed, clock.now())?;
        let group_key = service.group_key(ANY_DEVICE).filter(|_| config.has_any_device).cloned();
        let core = Core::new(service, clock, recorder);
        #[cfg(feature = "state")]
        let core = core.kept_in(file);
        let core = Arc::new(core);
        let Config { server_names, server_certificate, ca, .. } = config;
        let certificates =
            ServerCertificates::new(&server_names, server_certificate, ca, core.clone());
        let tls = certificates.and_then(|certificates| {
            let ca_pem = certificates.ca_pem().to_owned();
            Ok((ca_pem, server_config(certificates)?))
        });
        let (ca_pem, tls) =
            tls.map_err(|error| ConfigError::new("server-certificate", &error.to_string()))?;
        let shared = Arc::new(Shared::new(core, config.limits, tls, start));
        let (stopping, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (transport, listeners) in
            [(Transport::Http, https), (Transport::Mqtt, mqtts), (Transport::Amqp, amqps)]
        {
            for listener in listeners {
                tasks.spawn(server::accept(listener, transport, shared.clone(), stop.clone()));
            }
        }
        let (webhooks, calls) = mpsc::channel(WEBHOOK_QUEUE);
        shared.core.service().set_webhooks(webhooks);
        tasks.spawn(server::call_webhooks(calls, shared.core.clone(), stop.clone()));
        let facts = Facts {
            ready: true,
            id_scope: id_scope.to_string(),
            https_port,
            mqtt_port,
            amqp_port,
            admin_port: admin_port.unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION"),
            started_at: clock::rfc3339(SystemTime::now()),
            ca_pem: ca_pem.clone(),
        };
        let guard = Guard::new(config.admin_listen, server_names, admin_token.clone());
        let admin_side = Arc::new(Admin::new(shared.clone(), facts, guard, stop));
        for listener in admin.into_iter().flatten() {
            tasks.spawn(admin_side.clone().accept(listener));
        }
        Ok(Self {
            id_scope,
            group_key,
            ca_pem,
            https_port,
            mqtt_port,
            amqp_port,
            admin_port,
            admin_token,
            shared,
            stopping,
            tasks,
            sink,
            service_owner,
            is_seed_set_aside: config.is_seed_set_aside,
        })
    }

    /// The root of the CA that issues certificates to devices, as PEM; `None` when the system has no randomness to make
    /// it from.
    #[must_use]
    pub fn issuing_ca_pem(&self) -> Option<String> {
        let core = &self.shared.core;
        let now = core.clock().now();
        Some(core.service().issuing_ca(now)?.root_pem().to_owned())
    }

    /// The ID scope that it serves.
    #[must_use]
    pub fn id_scope(&self) -> &IdScope {
        &self.id_scope
    }

    /// The key that the group of [`Config::with_any_device`] has at the start: in the file of a state it may have got another,
    /// or none since it was removed.
    #[must_use]
    pub fn group_key(&self) -> Option<&GroupKey> {
        self.group_key.as_ref()
    }

    /// Whether the file of the state was made with another seed than [`Config::seed`] or [`Config::fixed`] set: its keys and
    /// ids go on, and the seed that was set is of no effect.
    #[must_use]
    pub fn is_seed_set_aside(&self) -> bool {
        self.is_seed_set_aside
    }

    /// The certificate of its CA: what devices must trust.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The port that serves HTTPS.
    #[must_use]
    pub fn https_port(&self) -> u16 {
        self.https_port
    }

    /// The port that serves MQTT over TLS.
    #[must_use]
    pub fn mqtt_port(&self) -> u16 {
        self.mqtt_port
    }

    /// The port that serves AMQP over TLS.
    #[must_use]
    pub fn amqp_port(&self) -> u16 {
        self.amqp_port
    }

    /// The port by which it is watched and steered.
    #[must_use]
    pub fn admin_port(&self) -> Option<u16> {
        self.admin_port
    }

    /// What requests to the admin port must show as `Authorization: Bearer TOKEN`; `None` when they need none.
    #[must_use]
    pub fn admin_token(&self) -> Option<&str> {
        self.admin_token.as_ref().map(|token| token.0.as_str())
    }

    /// Where a transport is served, as `localhost:PORT`.
    #[must_use]
    pub fn endpoint(&self, transport: Transport) -> String {
        let port = match transport {
            Transport::Http | Transport::MqttWs | Transport::AmqpWs => self.https_port,
            Transport::Mqtt => self.mqtt_port,
            Transport::Amqp => self.amqp_port,
        };
        format!("localhost:{port}")
    }

    /// What a tool for the service API takes: `HostName=localhost:PORT;SharedAccessKeyName=..;SharedAccessKey=..`. The
    /// port is left out where it is 443: one client can't take any.
    #[must_use]
    pub fn service_connection_string(&self) -> String {
        let host = match self.https_port {
            443 => "localhost".to_owned(),
            port => format!("localhost:{port}"),
        };
        let (name, key) = match &self.service_owner {
            Some(owner) => (owner.name.as_str(), owner.key.expose_base64()),
            None => Default::default(),
        };
        format!("HostName={host};SharedAccessKeyName={name};SharedAccessKey={}", *key)
    }

    /// What happened so far, and what is going to.
    #[must_use]
    pub fn events(&self) -> EventLog {
        self.shared.core.log()
    }

    /// Adds an enrollment to the running service.
    ///
    /// # Errors
    /// [`ConfigError`] when another enrollment has the name, or a setting of it can't be used.
    pub fn add_enrollment(&self, enrollment: Enrollment) -> Result<(), ConfigError> {
        let now = self.clock_now();
        self.shared.core.service().add(now, enrollment)
    }

    /// Puts an enrollment into the place of the one with its name, which it gives back; `None` when there was none, and
    /// it is added. Devices keep what they were assigned, and a script of faults starts anew if it is another one.
    ///
    /// # Errors
    /// [`ConfigError`] when a setting of it can't be used.
    pub fn replace_enrollment(
        &self,
        enrollment: Enrollment,
    ) -> Result<Option<Enrollment>, ConfigError> {
        let now = self.clock_now();
        let former = self.shared.core.service().put(now, enrollment)?;
        Ok(former.map(Arc::unwrap_or_clone))
    }

    /// The enrollments as they are now, those of single devices first, in the order of their names.
    #[must_use]
    pub fn enrollments(&self) -> Vec<Enrollment> {
        self.shared.core.service().enrollments().cloned().collect()
    }

    /// Removes an enrollment, and forgets its devices.
    ///
    /// # Errors
    /// [`ConfigError`] when there is none with this name.
    pub fn remove_enrollment<'a>(
        &self,
        name: impl Into<EnrollmentName<'a>>,
    ) -> Result<(), ConfigError> {
        self.shared.core.service().remove(name.into())
    }

    /// The key for its hub that a device with a TPM was given; `None` before its first challenge.
    #[must_use]
    pub fn hub_key(&self, registration_id: &str) -> Option<SymmetricKey> {
        self.shared.core.service().hub_key(registration_id)
    }

    /// Sets the behavior toward an enrollment's devices; each starts at the beginning of the new script.
    ///
    /// # Errors
    /// [`ConfigError`] when there is none with this name.
    pub fn set_behavior<'a>(
        &self,
        enrollment: impl Into<EnrollmentName<'a>>,
        behavior: Behavior,
    ) -> Result<(), ConfigError> {
        let now = self.clock_now();
        self.shared.core.service().set_behavior(now, enrollment.into(), behavior)
    }

    /// Enables or disables an enrollment.
    ///
    /// # Errors
    /// [`ConfigError`] when there is none with this name.
    pub fn set_enabled<'a>(
        &self,
        enrollment: impl Into<EnrollmentName<'a>>,
        enabled: bool,
    ) -> Result<(), ConfigError> {
        let now = self.clock_now();
        self.shared.core.service().set_enabled(now, enrollment.into(), enabled)
    }

    /// Sets what goes wrong with the calls of the service API, one fault for each call with a right token.
    pub fn set_service_faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.core.service().set_api_faults(faults.into_iter().collect());
    }

    /// Sets what goes wrong with the next connections, one fault for each, in place of what was left.
    pub fn set_connection_faults(&self, faults: impl IntoIterator<Item = ConnectionFault>) {
        self.shared.script_connections(faults);
    }

    /// What goes wrong with the next connections.
    #[must_use]
    pub fn connection_faults(&self) -> Vec<ConnectionFault> {
        self.shared.scripted_connections()
    }

    /// Sets how far the service's clock is ahead; zero puts it right. More than 100 years change nothing.
    pub fn set_clock_ahead(&self, ahead: Duration) {
        self.set_clock(ClockSetting::Ahead(ahead.as_secs_f64())).ok();
    }

    /// Sets the service's clock, or lets it stand still or go on.
    ///
    /// # Errors
    /// [`ConfigError`] when it would be more than 100 years from this machine's clock, or before 1970. The clock is then as
    /// it was.
    pub fn set_clock(&self, setting: ClockSetting) -> Result<(), ConfigError> {
        self.shared.core.clock().set("clock", setting)
    }

    /// The time by the service's clock.
    #[must_use]
    pub fn clock_now(&self) -> SystemTime {
        self.shared.core.clock().now()
    }

    /// Puts it back to what it was at its start: enrollments, what is known of devices, faults, the clock, and, with a
    /// seed, the ids that come next. The log of events goes on, connections stay open, and the authorities are the same.
    ///
    /// # Errors
    /// [`ConfigError`] when the clock of its start has become one that can't be.
    pub fn reset(&self) -> Result<(), ConfigError> {
        self.shared.reset()
    }

    /// What is known of each device that has registered, ordered by registration ids.
    #[must_use]
    pub fn devices(&self) -> Vec<KnownDevice> {
        self.shared.core.service().known_devices()
    }

    /// Forgets what one device has done; says whether it was known.
    pub fn forget_device(&self, registration_id: &str) -> bool {
        self.shared.core.service().forget_device(registration_id)
    }

    /// Forgets all that devices have done: assignments, operations, and their places in the scripts.
    pub fn forget_devices(&self) {
        self.shared.core.service().forget_devices();
    }

    /// Stops: takes no more connections, gives requests that are being answered one second, closes every
    /// connection, and waits until all events are written. The ports are free when it returns.
    ///
    /// # Cancel safety
    /// Dropping the future stops the emulator at once.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        let finish = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Self::PATIENCE, finish).await.is_err() {
            self.tasks.shutdown().await;
        }
        let sink = self.sink.take();
        // The last one who could record an event: the thread that writes them ends after it.
        drop(self);
        if let Some(sink) = sink {
            sink.wait(Self::PATIENCE).await;
        }
    }
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator")
            .field("id_scope", &self.id_scope)
            .field("https_port", &self.https_port)
            .field("mqtt_port", &self.mqtt_port)
            .field("amqp_port", &self.amqp_port)
            .field("admin_port", &self.admin_port)
            .finish_non_exhaustive()
    }
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port can't be had.
    #[error("{setting}: can't listen on {address}: {source}; {}", advice(source))]
    Bind {
        /// The port's setting, for example `https-port`.
        setting: &'static str,
        /// The address and port.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The thread that writes events can't be started.
    #[error("can't write events: {0}")]
    Events(#[source] io::Error),
}

fn bind(
    setting: &'static str,
    addresses: &[IpAddr],
    port: u16,
) -> Result<(u16, Vec<TcpListener>), StartError> {
    server::bind(addresses, port).map_err(|(address, source)| StartError::Bind {
        setting,
        address,
        source,
    })
}

/// What to do about a port that can't be had.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => "give an address of this machine",
        io::ErrorKind::PermissionDenied => "take the right to it, or give a port from 1024 on",
        _ => "give another port, or 0 for any free one",
    }
}

/// What nobody can guess, as text.
fn fresh_token() -> Result<Secret<String>, ConfigError> {
    Ok(Secret(Zeroizing::new(URL_SAFE_NO_PAD.encode(*Config::new().secret("admin-token")?))))
}
