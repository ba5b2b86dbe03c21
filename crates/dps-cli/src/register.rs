//! `dps register`.

use std::{
    pin::pin,
    process::ExitCode,
    time::{Duration, Instant},
};

use dps_client::{
    Client, Config, Endpoint, Error, IdScope, NoProxy, Proxy, RegistrationId, RegistrationRequest,
    Roots, Settings, Transport, client,
};
use dps_emulator::Emulator;
use serde_json::Value;

use crate::{
    credential, embedded,
    files::{Deadline, Source},
    given::{self, named, wrong},
    interrupt::Interrupts,
    progress,
    report::{Reporter, Success},
    runtime,
    seconds::Seconds,
    trace::Verbosity,
};

const TIMEOUT: Seconds =
    Seconds { flag: "--timeout", zero: false, at_most: Duration::from_secs(24 * 3600) };
const POLL_FLOOR: Seconds =
    Seconds { flag: "--poll-floor", zero: true, at_most: Duration::from_secs(3600) };
const PAYLOAD: &str = "--payload";
const MODEL_ID: &str = "--model-id";

const DETAILS: &str = "\
A flag wins over its environment variable, and an empty variable counts as unset.
`-` in place of a file, and `@-` as the payload, read standard input. Hosts in NO_PROXY are reached
without the proxy.

Exit codes: 0 assigned, 2 configuration, 3 rejected by the service, 4 connection, 5 timeout,
6 protocol, 130 cancelled.

Examples:
  # No service at hand: one on this machine, with an enrollment made up on the spot.
  dps register --emulator
  # An individual enrollment, its key in a file.
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 --symmetric-key-file pump-17.key
  # A certificate with its chain, a payload for a custom allocation, the result as JSON.
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 --cert chain.pem --key key.pem \\
      --payload '{\"site\": \"north\"}' --json
  # Against `dps emulate --ca-out ca.pem`, its idScope, httpsPort and groupKey put in place.
  dps register --endpoint localhost:8443 --ca-file ca.pem --id-scope 0ne00E4A9D1 \\
      --registration-id pump-17 --group-key-file group.key";

#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    #[command(flatten)]
    device: given::Device,
    /// The transport: http, mqtt, mqtt-ws, amqp or amqp-ws; http without it [env: DPS_TRANSPORT]
    #[arg(long, value_name = "TRANSPORT")]
    transport: Option<String>,
    /// The service; its global endpoint without it [env: DPS_ENDPOINT]
    #[arg(long, value_name = "HOST[:PORT]")]
    endpoint: Option<String>,
    /// File with certificates of authorities to trust beside the built-in ones [env: DPS_CA_FILE]
    #[arg(long, value_name = "PEM")]
    ca_file: Option<String>,
    // Not as a doc comment: that would take the brackets for links.
    #[arg(
        long,
        value_name = "URL",
        help = "HTTP proxy to go through: http://[USER:PASSWORD@]HOST[:PORT] [env: DPS_PROXY]"
    )]
    proxy: Option<String>,
    /// JSON object for a custom allocation, or @FILE with one
    #[arg(long, value_name = "JSON|@FILE")]
    payload: Option<String>,
    /// Plug-and-play model id; goes into the payload
    #[arg(long, value_name = "ID")]
    model_id: Option<String>,
    /// Has the service allocate anew, even if the device is assigned already (not over MQTT)
    #[arg(long)]
    force: bool,
    /// Time for the whole registration; fractions are fine
    #[arg(long, value_name = "SECONDS", default_value = "60", allow_negative_numbers = true)]
    timeout: String,
    /// Shortest wait between two requests: 2 without it, since the service throttles faster ones; 0.5 with --emulator
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    poll_floor: Option<String>,
    /// Registers with an emulator of its own on free ports of this machine, needing nothing else
    #[arg(long, conflicts_with_all = [
        "endpoint", "ca_file", "proxy", "symmetric_key_file", "group_key_file", "cert", "key",
    ])]
    emulator: bool,
    /// Prints one JSON object on one line of standard output, failures included
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(flatten)]
    credential: credential::Flags,
}

/// All that is needed, read and checked.
struct Prepared {
    client: Client,
    request: RegistrationRequest,
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

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let start = Instant::now();
    arguments.verbosity.start();
    let reporter = Reporter::new(arguments.json);
    let transport = match arguments.transport() {
        Ok(transport) => transport,
        Err(error) => return reporter.failed(&error, None),
    };
    runtime::block_on(|interrupts| session(arguments, transport, start, reporter, interrupts))
        .unwrap_or_else(|error| reporter.failed(&error, Some(transport)))
}

/// One registration and the end of the session. The errors are those from before the registration; its own is reported here,
/// so that nobody has to wait for the end of the session.
async fn session(
    arguments: &Arguments,
    transport: Transport,
    start: Instant,
    reporter: Reporter,
    mut interrupts: Interrupts,
) -> Result<ExitCode, Error> {
    let Prepared { client, request, time, _emulator } = tokio::select! {
        biased;
        () = interrupts.next() => return Err(Error::Cancelled),
        prepared = arguments.prepare(transport, start) => prepared?,
    };
    let registration_id = request.registration_id().clone();
    let mut registering = pin!(client.register(request));
    let outcome = tokio::select! {
        biased;
        outcome = &mut registering => outcome,
        () = interrupts.next() => tokio::select! {
            (outcome, _) = async { tokio::join!(registering, client.end_session()) } => outcome,
            // Twice: at once, without an end of the session.
            () = interrupts.next() => return Err(Error::Cancelled),
        },
    };
    let elapsed = start.elapsed();
    let code = match outcome {
        Ok(registered) => {
            reporter.succeeded(&Success { registration_id, transport, registered, elapsed })
        }
        Err(error) => reporter.failed(&in_given_terms(error, time), Some(transport)),
    };
    tokio::select! {
        ended = client.end_session() => if let Err(error) = ended {
            tracing::debug!(%error, "the session did not end well");
        },
        () = interrupts.next() => {}
    }
    Ok(code)
}

/// Says it of what was given on the command line: of the flag, and of all of the time.
fn in_given_terms(error: Error, Time { whole, left }: Time) -> Error {
    match error {
        Error::Timeout(mut timeout) if timeout.after == left => {
            timeout.after = whole;
            Error::Timeout(timeout)
        }
        Error::Configuration(error) if error.field == "forceRegistration" => {
            named("--force", "", Error::Configuration(error))
        }
        other => other,
    }
}

impl Arguments {
    fn transport(&self) -> Result<Transport, Error> {
        let Some(given) = given::TRANSPORT.find(self.transport.as_ref())? else {
            return Ok(Transport::Http);
        };
        let transport: Transport = given.parse()?;
        transport.ensure_built().map_err(|error| named(given.from, "", error))?;
        Ok(transport)
    }

    async fn prepare(&self, transport: Transport, start: Instant) -> Result<Prepared, Error> {
        let timeout = TIMEOUT.parse(&self.timeout)?;
        let deadline = Deadline { at: (start + timeout).into(), after: timeout };
        let poll_floor = match &self.poll_floor {
            Some(text) => Some(POLL_FLOOR.parse(text)?),
            None => None,
        };
        let mut settings = Settings::default();
        let (config, registration_id, emulator) = if self.emulator {
            let (id_scope, registration_id) = self.device.find()?;
            settings = settings.poll_floor(embedded::POLL_FLOOR);
            let embedded = embedded::start(id_scope, registration_id, transport).await?;
            (embedded.config, embedded.registration_id, Some(embedded.emulator))
        } else {
            let (id_scope, id) = self.device.require()?;
            (self.config(id_scope, &id, deadline).await?, id, None)
        };
        let request = self.request(registration_id, deadline).await?;
        let time = Time { whole: timeout, left: timeout.saturating_sub(start.elapsed()) };
        settings = settings
            .request_timeout(settings.request_timeout.min(time.left))
            .registration_timeout(time.left)
            .poll_floor(poll_floor.unwrap_or(settings.poll_floor));
        let client = client(transport, config, settings)?;
        if !self.json {
            client.observe(progress::printer(start));
        }
        Ok(Prepared { client, request, time, _emulator: emulator })
    }

    async fn config(
        &self,
        id_scope: IdScope,
        registration_id: &RegistrationId,
        deadline: Deadline,
    ) -> Result<Config, Error> {
        let credential = self.credential.choose()?;
        let ca_file = given::CA_FILE.find(self.ca_file.as_ref())?;
        let ca_file = ca_file.map(|given| Source::new(given.from, &given.text));
        let payload_file = self.payload_file();
        let files = credential.files().into_iter().chain(&ca_file).chain(&payload_file);
        only_one_reads_stdin(files)?;
        let endpoint = given::ENDPOINT.find(self.endpoint.as_ref())?;
        let endpoint = endpoint.map(|given| given.parse::<Endpoint>()).transpose()?;
        let proxy = given::PROXY.find(self.proxy.as_ref())?;
        let proxy = proxy.map(|given| given.parse::<Proxy>()).transpose()?;
        let roots = match &ca_file {
            Some(file) => {
                let pem = file.read_until(deadline).await?;
                let with = Roots::default().with_pem(&pem);
                with.map_err(|error| named(file.from, &file.path, error))?
            }
            None => Roots::default(),
        };
        let attestation = credential.read(registration_id, deadline).await?;
        let mut config = Config::new(id_scope, attestation).roots(roots);
        if let Some(endpoint) = endpoint {
            config = config.endpoint(endpoint);
        }
        if let Some(proxy) = proxy {
            config = config.proxy(proxy.except(NoProxy::from_environment()));
        }
        Ok(config)
    }

    async fn request(
        &self,
        registration_id: RegistrationId,
        deadline: Deadline,
    ) -> Result<RegistrationRequest, Error> {
        let mut request = RegistrationRequest::new(registration_id).force_registration(self.force);
        if let Some(text) = &self.payload {
            let payload = match self.payload_file() {
                Some(file) => {
                    let text = file.text_until(deadline).await?;
                    parse_payload(&text, &file.path)?
                }
                None => parse_payload(text, text)?,
            };
            request = request.payload(payload).map_err(|error| named(PAYLOAD, "", error))?;
        }
        if let Some(model_id) = &self.model_id {
            if model_id.is_empty() {
                return Err(wrong(MODEL_ID, "", "it is empty; give one like dtmi:example:Pump;1"));
            }
            request = request.model_id(model_id);
        }
        request.check().map_err(|error| named(PAYLOAD, "", error))?;
        Ok(request)
    }

    fn payload_file(&self) -> Option<Source> {
        let path = self.payload.as_ref()?.strip_prefix('@')?;
        Some(Source::new(PAYLOAD, path))
    }
}

fn only_one_reads_stdin<'a>(files: impl Iterator<Item = &'a Source>) -> Result<(), Error> {
    let mut readers = files.filter(|file| file.is_stdin());
    match (readers.next(), readers.next()) {
        (Some(first), Some(second)) => Err(second
            .wrong(&format!("standard input can be read once only, and {} reads it", first.from))),
        _ => Ok(()),
    }
}

/// `shown` is what a message repeats: the text itself, or the name of the file.
fn parse_payload(text: &str, shown: &str) -> Result<Value, Error> {
    serde_json::from_str(text)
        .map_err(|error| wrong(PAYLOAD, shown, &format!("it is not JSON: {error}")))
}
