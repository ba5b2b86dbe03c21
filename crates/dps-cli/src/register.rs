//! `dps register`.

mod check;
mod files;
mod plan;
mod prepare;
mod session;
mod subject;

use std::{process::ExitCode, time::Instant};

use dps_client::{Endpoint, Error, Transport, TransportChoice};

use crate::{
    credential,
    given::{self, named, wrong},
    handover,
    issue::Delivery,
    kept,
    progress::{Progress, Shown},
    report::{self, Context, Reporter, Success},
    runtime,
    trace::{self, Verbosity},
};

pub(crate) use plan::Plan;
use prepare::{only_one_reads_stdin, payload_file};
use session::session;

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
    /// File that keeps the assignment: one that is there is printed without the network, unless it is of another device,
    /// or with --force; it stands in when a registration that is due finds no service
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

/// How much is said, and in which form.
struct Manner {
    reporter: Reporter,
    shown: Shown,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    arguments.registration.run(|| arguments.plan())
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
        let plan = plan().and_then(|plan| self.ensure_files_apart(&plan).map(|()| plan));
        let plan = match plan {
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
            || plan.renews
            || plan.handover.is_some()
            || plan.found.is_some()
            || plan.is_kept;
        if goes_on || given::FORCE.is_on(self.force)? {
            return Ok(None);
        }
        let Some(device) = device else { return Ok(None) };
        Ok(kept::stored(&device).map(|assignment| {
            let mut success = Success::stored(assignment, plan.folder.as_ref());
            let awaited = || Delivery::awaited(plan.folder.as_ref()?, &device);
            success.certificate = success.certificate.or_else(awaited);
            success.elapsed = start.elapsed();
            success
        }))
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

    /// The endpoint, when one was given that is one.
    fn known_endpoint(&self) -> Option<Endpoint> {
        given::ENDPOINT.find(self.endpoint.as_ref()).ok()??.parse().ok()
    }
}
