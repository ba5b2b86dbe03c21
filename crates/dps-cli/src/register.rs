//! `dps register`.

mod subject;

use std::{
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use dps_client::{
    Attestation, CertificateFolder, Client, Config, Endpoint, Error, IdScope, Json, NoProxy, Proxy,
    ProxyChoice, RegistrationId, RegistrationRequest, Roots, Settings, Stage, TimeoutError,
    TimeoutScope, Transport, TransportChoice, client_with_fallback,
};
use dps_emulator::Emulator;
use dps_provisioner::{AssignmentFile, Identity, Provisioner};

use crate::{
    advice::Advice,
    agent::{self, Duty},
    config::Found,
    connect,
    credential::{self, Credential, KeyPlace},
    embedded,
    files::{Deadline, Source},
    given::{self, Given, named, wrong},
    handover,
    interrupt::Interrupts,
    issue::{Order, Renewed},
    kept::{self, Kept},
    progress::{Progress, Shown},
    report::{self, Context, Reporter, Success},
    runtime,
    seconds::Seconds,
    status,
    trace::{self, Verbosity},
};

const TIMEOUT: Seconds = Seconds { zero: false, at_most: Duration::from_secs(24 * 3600) };
/// The time for the whole registration if nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_FLOOR: Seconds = Seconds { zero: true, at_most: Duration::from_secs(3600) };

const DETAILS: &str = "\
Each flag has a variable named after it, like DPS_TIMEOUT for --timeout;
1 switches one like DPS_JSON on. A flag wins over its variable, and an empty
variable counts as unset. `-` in place of a file, and `@-` as the payload,
read standard input. Hosts in NO_PROXY are reached without the proxy.

Exit codes:
    0 assigned
    2 configuration: bad usage, a bad value, an unreadable file
    3 rejected by the service
    4 connection: none could be made, or it broke
    5 timeout
    6 protocol: the service's answer makes no sense
    7 rejected for now: the same command can succeed later
    8 credential: the TPM or the token failed or can't be used
    9 assigned, without the certificate that was asked for
   10 assigned, and not connected to its hub
   11 assigned, and not handed over by --output or --exec
  130 cancelled by SIGINT (Ctrl-C)
  143 cancelled by SIGTERM
    1 anything else, like standard output that can't be written

Examples:
  # No service at hand: one on this machine, with an enrollment of its own.
  dps register --emulator

  # An individual enrollment, its key in a file.
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key

  # A certificate with its chain, a payload, the result as JSON.
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --cert chain.pem --key key.pem --payload '{\"site\": \"north\"}' --json

  # The secondary key when the service refuses the primary one.
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file primary.key --symmetric-key-file secondary.key

  # Whatever this network lets through.
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key --transport auto

  # A TPM, whose endorsement key is in the enrollment (`dps tpm show`).
  dps register --id-scope 0ne00AABBCC --transport amqp --tpm /dev/tpmrm0

  # Against `dps emulate --https-port 8443 --ca-out ca.pem`. The ID scope is
  # in its first line, and the group key, which belongs into group.key.
  dps register --endpoint localhost:8443 --ca-file ca.pem \\
      --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --group-key-file group.key

  # A certificate that the service issues, into the folder `certificate`, if
  # the enrollment has a policy for issuing them.
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key --request-certificate certificate

  # At each boot: registers the first time, and needs no network later.
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key --state assignment.json

  # For a unit of systemd, with EnvironmentFile= for this file.
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key --output env dps.env

  # Until the service has time for it.
  until dps register --emulator; do test $? = 7 || break; sleep 60; done";

#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    /// Registers with an emulator of its own on free ports of this machine, needing nothing else
    #[arg(long, conflicts_with_all = [
        "endpoint", "ca_file", "platform_roots", "proxy", "symmetric_key_file", "group_key_file", "cert", "key", "tpm",
    ])]
    emulator: bool,
    /// Folder for a certificate that the service issues: asks for one with a key of its own, and stores both
    #[arg(long, value_name = "DIR")]
    request_certificate: Option<String>,
    /// Connects the assigned device to its hub, by MQTT (over WebSocket for mqtt-ws and amqp-ws), and says what that met
    #[arg(long)]
    connect: bool,
    /// Where the hub is; without it the hub's own name, or the emulator for a name under localhost
    #[arg(long, value_name = "HOST[:PORT]")]
    hub_endpoint: Option<String>,
    /// File that keeps the assignment: one that is there is printed without the network, unless it is of another device
    /// or with --force
    #[arg(long, value_name = "FILE", conflicts_with = "emulator")]
    state: Option<String>,
    #[command(flatten)]
    handover: handover::HandoverFlags,
    #[command(flatten)]
    registration: Registration,
}

/// Who registers where, and how: what `dps cert renew` takes too.
#[derive(Debug, clap::Args)]
pub(crate) struct Registration {
    #[command(flatten)]
    device: given::Device,
    /// The transport: http, mqtt, mqtt-ws, amqp or amqp-ws, or auto for the first that gets through; http without it
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<String>,
    /// The service; its global endpoint without it
    #[arg(long, value_name = "HOST[:PORT]")]
    endpoint: Option<String>,
    /// File with certificates of authorities to trust besides the built-in ones
    #[arg(long, value_name = "PEM")]
    ca_file: Option<String>,
    /// Trusts the authorities that this system trusts, instead of the built-in ones
    #[arg(long)]
    platform_roots: bool,
    // Not as a doc comment: that would take the brackets for links.
    #[arg(
        long,
        value_name = "URL|env",
        help = "HTTP proxy to go through: http://[USER:PASSWORD@]HOST[:PORT], or env for the one that HTTPS_PROXY or else ALL_PROXY names"
    )]
    proxy: Option<String>,
    /// Waits for the answer to each step of MQTT and AMQP, for brokers that need it
    #[arg(long)]
    step_by_step: bool,
    /// JSON object for a custom allocation, or @FILE with one
    #[arg(long, value_name = "JSON|@FILE")]
    payload: Option<String>,
    /// Plug-and-play model id; goes into the payload
    #[arg(long, value_name = "ID")]
    model_id: Option<String>,
    /// Has the service allocate anew, even if the device is assigned already (not over MQTT)
    #[arg(long)]
    force: bool,
    /// Time for the whole registration, 60 without it; fractions are fine
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<String>,
    /// Shortest wait between two requests: 2 without it, since the service throttles faster ones; 0.5 with --emulator
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    poll_floor: Option<String>,
    /// Prints one JSON object on one line of standard output, failures included
    #[arg(long)]
    json: bool,
    /// Shows neither progress nor warnings, only how it ended
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(flatten)]
    credential: credential::Flags,
}

/// What a command does of all that a registration can.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    is_emulated: bool,
    /// The folder for the certificate that is asked for.
    folder: Option<CertificateFolder>,
    /// Whether the one that is there is renewed, and is the credential if none is given.
    renews: bool,
    /// Whether the device connects to its hub, and where that is if it was said.
    connects: Option<Option<Endpoint>>,
    /// The hub that renews it, in place of the service, and the device's id there.
    hub: Option<(String, Option<String>)>,
    /// Where the assignment is kept.
    state: Option<AssignmentFile>,
    /// What another program gets.
    handover: Option<handover::Plan>,
    /// What is set, when that is to be checked and nothing else to be done.
    found: Option<Found>,
    /// Whether the service is only asked what it keeps of the device.
    looks_up: bool,
    /// What the agent does, which goes on until it is told to end.
    duty: Option<Duty>,
}

impl Plan {
    /// To ask for a new certificate in place of the one in this folder.
    pub(crate) fn renew(folder: CertificateFolder) -> Self {
        Self { folder: Some(folder), renews: true, ..Self::default() }
    }

    /// To ask the service what it keeps of the device.
    pub(crate) fn look_up() -> Self {
        Self { looks_up: true, ..Self::default() }
    }

    /// To keep the device registered.
    pub(crate) fn agent(
        state: AssignmentFile,
        duty: Duty,
        handover: Option<handover::Plan>,
    ) -> Self {
        Self { state: Some(state), duty: Some(duty), handover, ..Self::default() }
    }

    /// To ask a hub for it, under this device id or else the registration id, at this place or else under its name.
    pub(crate) fn at_hub(
        self,
        hub: String,
        device_id: Option<String>,
        endpoint: Option<Endpoint>,
    ) -> Self {
        Self { hub: Some((hub, device_id)), connects: Some(endpoint), ..self }
    }

    /// The device of the file, which registers for its certificate too.
    fn watched(&self, device: Provisioner) -> Provisioner {
        match &self.folder {
            Some(folder) => device.certificate(folder.clone()),
            None => device,
        }
    }

    /// The folder whose certificate is renewed.
    fn renewed(&self) -> Option<&CertificateFolder> {
        self.folder.as_ref().filter(|_| self.renews)
    }
}

/// All that is needed, read and checked.
struct Prepared {
    client: Client,
    credentials: usize,
    request: RegistrationRequest,
    /// Its assignment is kept in a file.
    device: Option<Provisioner>,
    order: Option<Order>,
    hub: Option<connect::Plan>,
    /// How the service is asked what it keeps, by each credential.
    look_up: Option<Vec<Config>>,
    handover: Option<handover::Ready>,
    time: Time,
    /// Serves for as long as it is kept.
    _emulator: Option<Emulator>,
}

/// The time for the whole registration, and what is left of it once all is prepared.
#[derive(Clone, Copy)]
struct Time {
    whole: Duration,
    left: Duration,
}

/// How much is said, and in which form.
struct Manner {
    reporter: Reporter,
    shown: Shown,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    arguments.registration.run(|| arguments.plan())
}

impl Arguments {
    /// Reads and checks all that a registration needs, and prints what was found.
    pub(crate) fn check(&self, found: Found) -> ExitCode {
        self.registration.run(|| Ok(Plan { found: Some(found), ..self.plan()? }))
    }
}

impl Registration {
    /// Registers by the plan, which is made once it is known how to say what is wrong with it.
    pub(crate) fn run(&self, plan: impl FnOnce() -> Result<Plan, Error>) -> ExitCode {
        let start = Instant::now();
        // Whatever is wrong with the rest, a failure says which device it is about.
        let mut context = Context {
            registration_id: self.device.known_id().map(|id| id.to_string()),
            endpoint: self.known_endpoint().map(|endpoint| endpoint.to_string()),
            ..Context::default()
        };
        let reporter = Reporter::new(self.json);
        let Manner { reporter, shown } = match self.manner() {
            Ok(manner) => manner,
            Err(error) => return reporter.failed(&error, &context),
        };
        match self.transport() {
            Ok(transport) => context.transport = Some(transport),
            Err(error) => return reporter.failed(&error, &context),
        }
        let plan = match plan() {
            Ok(plan) => plan,
            Err(error) => return reporter.failed(&error, &context),
        };
        match self.stored(&plan, start) {
            Ok(None) => {}
            Ok(Some(success)) => return reporter.succeeded(&success),
            Err(error) => return reporter.failed(&error, &context),
        }
        if plan.looks_up {
            context.transport = Some(Transport::Http.into());
        }
        context.renewed = plan.renewed().cloned();
        let progress = Progress::new(start, shown);
        let ended = runtime::block_on(|interrupts| async {
            Ok(session(self, plan, &progress, reporter, context.clone(), interrupts).await)
        });
        ended.unwrap_or_else(|error| reporter.failed(&error, &context))
    }

    /// What is stored, when nothing but that is asked for: no credential is read then, and no network is touched.
    fn stored(&self, plan: &Plan, start: Instant) -> Result<Option<Success>, Error> {
        let Some(file) = &plan.state else { return Ok(None) };
        let endpoint = given::ENDPOINT.find(self.endpoint.as_ref())?;
        let endpoint = endpoint.map(|given| given.parse::<Endpoint>()).transpose()?;
        let device = kept::open(file, &self.device, endpoint)?.map(|device| plan.watched(device));
        let goes_on = plan.connects.is_some()
            || plan.handover.is_some()
            || plan.found.is_some()
            || plan.duty.is_some();
        if goes_on || given::FORCE.is_on(self.force)? {
            return Ok(None);
        }
        let Some(device) = device else { return Ok(None) };
        Ok(kept::stored(&device).map(|assignment| {
            let mut success = Success::stored(assignment);
            success.elapsed = start.elapsed();
            success
        }))
    }
}

/// One registration and the end of the session. How it ended is reported here, so that nobody has to wait for the end
/// of the session.
async fn session(
    registration: &Registration,
    plan: Plan,
    progress: &Arc<Progress>,
    reporter: Reporter,
    mut context: Context,
    mut interrupts: Interrupts,
) -> ExitCode {
    let transport = context.transport.unwrap_or(Transport::Http.into());
    let renews_at = plan.hub.clone();
    let found = plan.found.clone();
    let duty = plan.duty.clone();
    let prepared = tokio::select! {
        biased;
        () = interrupts.next() => Err(Error::Cancelled),
        prepared = registration.prepare(plan, transport, progress, &mut context) => prepared,
    };
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return reporter.failed(&error, &context),
    };
    let Prepared { client, credentials, request, mut device, mut order, mut hub, .. } = prepared;
    let Prepared { look_up, handover, time, _emulator, .. } = prepared;
    if let Some(found) = found {
        return reporter.found(&found);
    }
    if let Some(duty) = duty
        && let Some(device) = device.take()
    {
        let agent = dps_provisioner::Agent::new(device, client, request, transport.fixed());
        let around = agent::Around::new(reporter, context, interrupts, handover);
        return agent::keep(duty, agent, around).await;
    }
    let registration_id = request.registration_id().clone();
    if let Some(configs) = look_up {
        let steps = dps_client::Progress::new(progress.observer());
        let asking = status::ask(configs, &registration_id, &steps);
        let asked = tokio::select! {
            biased;
            () = interrupts.next() => Err(Error::Cancelled),
            asked = tokio::time::timeout(time.left, asking) => asked.unwrap_or_else(|_| {
                Err(TimeoutError::new(Stage::Query, TimeoutScope::Request, time.whole).into())
            }),
        };
        return match asked {
            Ok(state) => reporter.shows(&registration_id, &state),
            Err(error) => reporter.failed(&error, &context),
        };
    }
    if let Some((name, device_id)) = renews_at
        && let (Some(hub), Some(order)) = (hub.take(), order.take())
    {
        let device_id = device_id.unwrap_or_else(|| registration_id.to_string());
        context.endpoint = Some(name.clone());
        let renewing = hub.renew(&name, &device_id, &registration_id, order);
        let renewed = tokio::select! {
            biased;
            () = interrupts.next() => Err(Error::Cancelled),
            renewed = tokio::time::timeout(time.left, renewing) => renewed.unwrap_or_else(|_| {
                let stage = Stage::Register;
                Err(TimeoutError::new(stage, TimeoutScope::Registration, time.whole).into())
            }),
        };
        return match renewed {
            Ok(delivery) => reporter.renewed(&registration_id, &name, &delivery),
            Err(error) => reporter.failed(&error, &context),
        };
    }
    let stored = device.as_ref().filter(|_| !request.is_forced()).and_then(kept::stored);
    let mut kept = stored.map(|assignment| Kept::new(assignment, kept::Source::Stored));
    let stored = stored.map(|assignment| assignment.result.clone());
    let order = order.filter(|_| stored.is_none());
    let outcome = {
        let mut registering = pin!(async {
            match (stored, &mut device) {
                (Some(stored), _) => Ok(stored),
                (None, None) => client.register(request).await,
                (None, Some(device)) => {
                    let new = kept::register(device, &client, request, transport).await;
                    new.map(|(registered, stored)| {
                        kept = Some(stored);
                        registered
                    })
                }
            }
        });
        tokio::select! {
            // Interrupts come first: a service that sends without end does not hide them.
            biased;
            () = interrupts.next() => tokio::select! {
                biased;
                // Twice: at once, without an end of the session.
                () = interrupts.next() => return reporter.failed(&Error::Cancelled, &context),
                (outcome, _) = async { tokio::join!(registering, client.end_session()) } => outcome,
            },
            outcome = &mut registering => outcome,
        }
    };
    let elapsed = progress.elapsed();
    let code = match outcome {
        Ok(registered) => {
            let certificate =
                order.map(|order| order.fulfil(&registration_id, &registered.certificates));
            let hub = match hub {
                None => None,
                Some(hub) => {
                    let left = time.left.saturating_sub(progress.elapsed());
                    tokio::select! {
                        biased;
                        () = interrupts.next() => {
                            return reporter.failed(&Error::Cancelled, &context);
                        }
                        met = hub.carry_out(&registration_id, &registered, left) => Some(met),
                    }
                }
            };
            let hub = match &mut device {
                Some(device) => hub.map(|met| met.reported(device)),
                None => hub,
            };
            let mut success = Success {
                registration_id,
                transport,
                registered,
                credentials,
                elapsed,
                certificate,
                hub,
                kept,
                handed: None,
            };
            if let Some(handover) = handover
                && handover.carry_out(&mut success, &mut interrupts).await.is_none()
            {
                return reporter.failed(&Error::Cancelled, &context);
            }
            reporter.succeeded(&success)
        }
        Err(error) => {
            context.chosen = progress.transport();
            context.operation_id = progress.operation_id().map(|id| id.as_str().to_owned());
            reporter.failed(&in_given_terms(error, time, registration.force), &context)
        }
    };
    tokio::select! {
        biased;
        () = interrupts.next() => {}
        ended = client.end_session() => if let Err(error) = ended {
            tracing::debug!(%error, "the session did not end well");
        },
    }
    code
}

/// Says it of what was given on the command line: of the flag, and of all of the time.
fn in_given_terms(error: Error, Time { whole, left }: Time, is_forced: bool) -> Error {
    match error {
        Error::Timeout(mut timeout) if timeout.after == left => {
            timeout.after = whole;
            Error::Timeout(timeout)
        }
        Error::Configuration(error) if error.field == "forceRegistration" => {
            named(given::FORCE.source(is_forced), "", Error::Configuration(error))
        }
        other => other,
    }
}

impl Arguments {
    fn plan(&self) -> Result<Plan, Error> {
        let folder = given::REQUEST_CERTIFICATE.find(self.request_certificate.as_ref())?;
        let folder = folder.map(|given| {
            CertificateFolder::open(&given.text).map_err(|error| named(given.from, "", error))
        });
        let is_emulated = self.is_emulated()?;
        let endpoint = given::HUB_ENDPOINT.find(self.hub_endpoint.as_ref())?;
        let endpoint = endpoint.map(|given| given.parse::<Endpoint>()).transpose()?;
        let connects = given::CONNECT.is_on(self.connect)?.then_some(endpoint);
        if self.hub_endpoint.is_some() && connects.is_none() {
            return Err(wrong(given::HUB_ENDPOINT.flag, "", "it needs --connect too"));
        }
        let json = given::JSON.is_on(self.registration.json)?;
        let handover = self.handover.plan(json)?;
        let state = if is_emulated { None } else { kept::file(self.state.as_ref())? };
        Ok(Plan {
            is_emulated,
            folder: folder.transpose()?,
            connects,
            state,
            handover,
            ..Plan::default()
        })
    }

    fn is_emulated(&self) -> Result<bool, Error> {
        let registration = &self.registration;
        let flags = [
            ("--endpoint", registration.endpoint.is_some()),
            ("--ca-file", registration.ca_file.is_some()),
            ("--platform-roots", registration.platform_roots),
            ("--proxy", registration.proxy.is_some()),
        ];
        let is_on = given::EMULATOR.is_on(self.emulator)?;
        match flags.iter().find(|(_, is_given)| *is_given) {
            Some((flag, _)) if is_on => {
                Err(wrong(given::EMULATOR.variable, "", &format!("it does not go with {flag}")))
            }
            _ => Ok(is_on),
        }
    }
}

impl Registration {
    /// Nothing is given that only a registration has.
    pub(crate) fn ensure_asks_only(&self) -> Result<(), Error> {
        let other_transport = self.transport.as_ref().is_some_and(|name| name != "http");
        let flags = [
            (given::PAYLOAD, self.payload.is_some()),
            (given::MODEL_ID, self.model_id.is_some()),
            (given::FORCE, self.force),
            (given::TRANSPORT, other_transport),
        ];
        match flags.iter().find(|(_, is_given)| *is_given) {
            Some((setting, _)) => Err(wrong(
                setting.flag,
                "",
                "the status is asked for over HTTPS, and nothing is registered; leave it out",
            )),
            None => Ok(()),
        }
    }

    fn manner(&self) -> Result<Manner, Error> {
        let json = given::JSON.is_on(self.json)?;
        let quiet = given::QUIET.is_on(self.quiet)?;
        let level = self.verbosity.level()?;
        if !quiet || level > 0 {
            trace::start(level);
        }
        if !quiet {
            given::unknown_variables().iter().for_each(|warning| report::warn(warning));
        }
        let shown = match json || quiet {
            true => Shown::Nothing,
            false => Shown::at_standard_error(level > 0),
        };
        Ok(Manner { reporter: Reporter::new(json), shown })
    }

    fn transport(&self) -> Result<TransportChoice, Error> {
        let Some(given) = given::TRANSPORT.find(self.transport.as_ref())? else {
            return Ok(Transport::Http.into());
        };
        let transport: TransportChoice = given.parse()?;
        transport.ensure_built().map_err(|error| named(given.from, "", error))?;
        Ok(transport)
    }

    async fn prepare(
        &self,
        plan: Plan,
        transport: TransportChoice,
        progress: &Arc<Progress>,
        context: &mut Context,
    ) -> Result<Prepared, Error> {
        let timeout = self.timeout()?;
        let deadline = Deadline { at: (progress.start() + timeout).into(), after: timeout };
        let poll_floor = given::POLL_FLOOR.find(self.poll_floor.as_ref())?;
        let poll_floor = poll_floor.map(|given| POLL_FLOOR.parse(&given)).transpose()?;
        let mut settings = Settings::default();
        let request_key = self.credential.aside(deadline, credential::Flags::request_key).await?;
        let mut others = Vec::new();
        let mut given = Vec::new();
        let mut tpm = None;
        let (mut config, registration_id, emulator) = if plan.is_emulated {
            let (id_scope, registration_id) = self.device.find()?;
            settings.poll_floor = embedded::POLL_FLOOR;
            let embedded = embedded::start(id_scope, registration_id, transport).await?;
            (embedded.config, embedded.registration_id, Some(embedded.emulator))
        } else {
            let renewed = plan.renewed().map(Renewed::load).transpose()?;
            let (id_scope, id) = if plan.hub.is_some() {
                // A hub has none.
                let (id_scope, id) = self.device.find()?;
                (id_scope.map_or_else(|| "0ne".parse(), Ok)?, id)
            } else {
                match renewed.is_some() || self.credential.has_tpm()? {
                    true => self.device.require_id_scope()?,
                    false => self.device.require().map(|(id_scope, id)| (id_scope, Some(id)))?,
                }
            };
            let (credentials, id) = match renewed {
                Some(renewed) => {
                    let id = id.map_or_else(|| renewed.registration_id(), Ok)?;
                    let given = self.credential.aside(deadline, |flags| flags.find(true)).await?;
                    (renewed.or_given(given, request_key.clone())?, Some(id))
                }
                None => (self.credential.aside(deadline, credential::Flags::choose).await?, id),
            };
            let id = match (id, credentials.first()) {
                // A check makes no keys in a TPM, whose name nobody knows then.
                (id, Some(Credential::Tpm(_))) if plan.found.is_some() => {
                    self.credential.ensure_tpm_there()?;
                    id.map_or_else(|| "tpm".parse(), Ok)?
                }
                (None, Some(Credential::Tpm(tpm))) => tpm.keys().await?.registration_id()?,
                (id, _) => id.map_or_else(|| self.device.require().map(|(_, id)| id), Ok)?,
            };
            if let Some(Credential::Tpm(own)) = credentials.first() {
                tpm = Some(own.clone());
            }
            context.registration_id = Some(id.to_string());
            let config;
            let key = request_key.as_ref();
            (config, others) =
                self.config(id_scope, &id, &credentials, key, deadline, context).await?;
            given = credentials;
            (config, id, None)
        };
        config.pipelined = !given::STEP_BY_STEP.is_on(self.step_by_step)?;
        context.registration_id = Some(registration_id.to_string());
        context.endpoint = Some(config.endpoint.to_string());
        let request = self.request(registration_id, deadline).await?;
        let device = plan.state.as_ref().map(|file| {
            let device = Provisioner::open(file.clone(), Identity::of(&config, &request))?;
            Ok::<_, Error>(plan.watched(device))
        });
        let device = device.transpose()?;
        let order = match (plan.folder, request_key) {
            (Some(_), key) if plan.found.is_some() => {
                if let Some(key) = key {
                    key.request_key(deadline).await?;
                }
                None
            }
            (Some(folder), key) => Some(Order::prepare(folder, plan.renews, key, deadline).await?),
            (None, Some(key)) => {
                let reason = "it needs --request-certificate too";
                return Err(key.source().wrong(reason));
            }
            (None, None) => None,
        };
        let request = match &order {
            Some(order) => order.add_to(request)?,
            None => request,
        };
        let time = Time { whole: timeout, left: timeout.saturating_sub(progress.elapsed()) };
        settings.request_timeout = settings.request_timeout.min(time.left);
        settings.registration_timeout = time.left;
        settings.poll_floor = poll_floor.unwrap_or(settings.poll_floor);
        let credentials = others.len() + 1;
        let handover = plan.handover.map(|handover| {
            let read = [&config.attestation].into_iter().chain(&others);
            handover.ready(read, &given, given::CA_FILE.file(self.ca_file.as_ref())?)
        });
        let handover = handover.transpose()?;
        let hub = plan.connects.map(|endpoint| {
            let own = tpm.map_or_else(
                || config.attestation.clone(),
                |tpm| Attestation::from_signer(tpm.stored_key()),
            );
            let attestations = [own].into_iter().chain(others.iter().cloned()).collect();
            let embedded = emulator.as_ref().map(embedded::mqtt_endpoint);
            connect::Plan::new(config.clone(), attestations, transport, endpoint, embedded)
        });
        let look_up = plan.looks_up.then(|| {
            let others = others.iter().map(|attestation| {
                let mut config = config.clone();
                config.attestation = attestation.clone();
                config
            });
            [config.clone()].into_iter().chain(others).collect()
        });
        let worked = device.as_ref().and_then(|device| device.assignment()?.transport);
        let transport = transport.preferring(worked);
        let client = client_with_fallback(transport, config, others, settings)?;
        client.observe(progress.observer());
        let _emulator = emulator;
        Ok(Prepared {
            client,
            credentials,
            request,
            device,
            order,
            hub,
            look_up,
            handover,
            time,
            _emulator,
        })
    }

    fn timeout(&self) -> Result<Duration, Error> {
        let given = given::TIMEOUT.find(self.timeout.as_ref())?;
        given.map_or(Ok(DEFAULT_TIMEOUT), |given| TIMEOUT.parse(&given))
    }

    /// The endpoint, when one was given that is one.
    fn known_endpoint(&self) -> Option<Endpoint> {
        given::ENDPOINT.find(self.endpoint.as_ref()).ok()??.parse().ok()
    }

    async fn config(
        &self,
        id_scope: IdScope,
        registration_id: &RegistrationId,
        credentials: &[Credential],
        request_key: Option<&KeyPlace>,
        deadline: Deadline,
        context: &mut Context,
    ) -> Result<(Config, Vec<Attestation>), Error> {
        let ca_file = given::CA_FILE.file(self.ca_file.as_ref())?;
        let payload_file = self.payload()?.and_then(|payload| payload_file(&payload));
        let files = credentials.iter().flat_map(Credential::files);
        let files = files.chain(&ca_file).chain(&payload_file);
        let files = files.chain(request_key.map(KeyPlace::source));
        only_one_reads_stdin(files)?;
        let (endpoint, proxy) = (self.endpoint()?, self.proxy()?);
        let platform_roots = given::PLATFORM_ROOTS.is_on(self.platform_roots)?;
        context.endpoint = Some(endpoint.to_string());
        context.advice = Advice {
            names_flags: true,
            has_proxy: proxy.is_some(),
            has_platform_roots: platform_roots,
            credential: credentials.first().map(Into::into),
        };
        let roots = self.roots(deadline).await?;
        let mut attestations = Vec::new();
        for credential in credentials {
            attestations.push(credential.read(registration_id, deadline).await?);
        }
        let mut attestations = attestations.into_iter();
        let Some(first) = attestations.next() else {
            return Err(wrong("credential", "", "none was given"));
        };
        let mut config = Config::new(id_scope, first);
        config.roots = roots;
        config.endpoint = endpoint;
        if let Some(proxy) = proxy {
            config.proxy = proxy;
        }
        Ok((config, attestations.collect()))
    }

    fn endpoint(&self) -> Result<Endpoint, Error> {
        let given = given::ENDPOINT.find(self.endpoint.as_ref())?;
        given.map_or_else(|| Ok(Endpoint::default()), |given| given.parse())
    }

    fn proxy(&self) -> Result<Option<ProxyChoice>, Error> {
        given::PROXY.find(self.proxy.as_ref())?.map(|given| proxy(&given)).transpose()
    }

    async fn roots(&self, deadline: Deadline) -> Result<Roots, Error> {
        let platform = given::PLATFORM_ROOTS;
        let roots = match platform.is_on(self.platform_roots)? {
            true => Roots::platform().map_err(|error| named(platform.flag, "", error))?,
            false => Roots::default(),
        };
        let Some(file) = given::CA_FILE.file(self.ca_file.as_ref())? else { return Ok(roots) };
        let pem = file.read_until(deadline).await?;
        roots.with_pem(&pem).map_err(|error| named(file.from, &file.path, error))
    }

    async fn request(
        &self,
        registration_id: RegistrationId,
        deadline: Deadline,
    ) -> Result<RegistrationRequest, Error> {
        let force = given::FORCE.is_on(self.force)?;
        let mut request = RegistrationRequest::new(registration_id).force_registration(force);
        if let Some(given) = self.payload()? {
            // What a message repeats: the text itself, or the name of the file.
            let (payload, shown) = match payload_file(&given) {
                Some(file) => (file.text_until(deadline).await?.parse::<Json>(), file.path),
                None => (given.text.parse(), given.text.clone()),
            };
            request = payload
                .and_then(|payload| request.payload(payload))
                .map_err(|error| named(given.from, &shown, error))?;
        }
        if self.model_id.as_ref().is_some_and(String::is_empty) {
            let reason = "it is empty; give one like dtmi:example:Pump;1";
            return Err(wrong(given::MODEL_ID.flag, "", reason));
        }
        if let Some(model_id) = given::MODEL_ID.find(self.model_id.as_ref())? {
            request = request.model_id(model_id.text);
        }
        let payload = given::PAYLOAD.source(self.payload.is_some());
        request.check().map_err(|error| named(payload, "", error))?;
        Ok(request)
    }

    fn payload(&self) -> Result<Option<Given>, Error> {
        given::PAYLOAD.find(self.payload.as_ref())
    }
}

/// The file that holds the payload, if it is in one.
fn payload_file(payload: &Given) -> Option<Source> {
    Some(Source::new(payload.from, payload.text.strip_prefix('@')?))
}

fn proxy(given: &Given) -> Result<ProxyChoice, Error> {
    if given.text == "env" {
        return Ok(ProxyChoice::Environment);
    }
    Ok(given.parse::<Proxy>()?.except(NoProxy::from_environment()).into())
}

fn only_one_reads_stdin<'a>(files: impl Iterator<Item = &'a Source>) -> Result<(), Error> {
    let mut readers = files.filter(|file| file.is_stdin());
    match (readers.next(), readers.next()) {
        (Some(first), Some(second)) => Err(second
            .wrong(&format!("standard input can be read once only, and {} reads it", first.from))),
        _ => Ok(()),
    }
}
