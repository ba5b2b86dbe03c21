//! `dps emulate`.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _},
    net::IpAddr,
    path::Path,
    process::ExitCode,
    sync::mpsc,
    thread,
    time::SystemTime,
};

use dps_client::{Error, internal as secret};
use dps_emulator::{
    CaCertificates, Config, ConfigError, Emulator, Enrollment, GroupAttestation, GroupKey, Pace,
    ServicePolicy, StartError, SymmetricKey,
};
use tokio::sync::oneshot;

use crate::{
    apart::Files,
    device_file,
    files::Source,
    given::{
        self, ADMIN_LISTEN, ADMIN_PORT, ADMIN_TOKEN_FILE, AMQP_PORT, CA_CERT, CA_KEY, CA_OUT,
        CONFIG, EVENTS, FAST, FIXED, GROUP_CA, Given, HTTPS_PORT, LISTEN, MQTT_PORT, NAME,
        READ_ONLY, SEED, STATE, Setting, wrong,
    },
    interrupt::{self, Interrupts},
    output::{self, print},
    report::{self, Context, Reporter},
    runtime,
    trace::{self, Verbosity},
};

const GROUP_KEY: &str = "--group-key";
const SERVICE_KEY: &str = "--service-key";

const DETAILS: &str = "\
Without --config any registration id is assigned that shows the right
credential: a SAS token signed with a key derived from the group key or, with
--group-ca, a certificate of that authority.

When it serves, the first line on standard output is one JSON object:
  {\"ready\": true, \"idScope\", \"httpsPort\", \"mqttPort\", \"amqpPort\",
   \"adminPort\", \"adminToken\", \"caFile\", \"groupKey\",
   \"serviceConnectionString\"}
Ctrl-C or SIGTERM stops it, with exit code 0; 130 or 143 before it serves.

A program that starts it as its child gives --stop-at-eof and a pipe as its
standard input: nothing is left running then, even if that program crashes.

Each flag but --group-key and --service-key has a variable named after it,
like DPS_HTTPS_PORT for --https-port; where a flag may be repeated, commas
separate the values.

Examples:
  # Any free ports; devices trust ca.pem.
  dps emulate --ca-out ca.pem

  # The ports and the name that devices have built in; events on the output.
  dps emulate --https-port 443 --mqtt-port 8883 --amqp-port 5671 \\
      --name global.azure-devices-provisioning.net --ca-out ca.pem --events -

  # Enrollments, faults and limits from a file, beginning with one that has
  # every key.
  dps emulate --example-config > emulator.toml
  dps emulate --config emulator.toml --https-port 8443 --ca-out ca.pem";

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    /// Port for HTTPS and every WebSocket; 0 or without it any free one
    #[arg(long, value_name = "PORT")]
    https_port: Option<String>,
    /// Port for MQTT; 0 or without it any free one
    #[arg(long, value_name = "PORT")]
    mqtt_port: Option<String>,
    /// Port for AMQP; 0 or without it any free one
    #[arg(long, value_name = "PORT")]
    amqp_port: Option<String>,
    /// Port by which it is watched and steered, over plain HTTP on loopback; 0 or without it any free one
    #[arg(long, value_name = "PORT")]
    admin_port: Option<String>,
    /// Address of the admin port, may be repeated; 127.0.0.1 and ::1 without it. Beyond loopback it wants a token
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Vec<String>,
    /// File with the token that the admin port wants; beyond loopback a fresh one without it
    #[arg(long, value_name = "FILE|-")]
    admin_token_file: Option<String>,
    /// Address to listen on, may be repeated; 127.0.0.1 and ::1 without it
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Another name or address for the server certificate, may be repeated
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// TOML file with enrollments and how the service behaves; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Prints a file for --config that has every key, explained, and does nothing else
    #[arg(long)]
    example_config: bool,
    /// Assigns a device with the first answer; without it, as the service does, with the first query, 3 seconds later.
    /// An enrollment of the file that says `polls` or `retry-after` keeps what it says
    #[arg(long)]
    fast: bool,
    /// Key of the enrollment group `group` in base64, a throwaway; a fresh one without it
    #[arg(long, value_name = "B64")]
    group_key: Option<String>,
    /// Key in base64 of the policy provisioningserviceowner of the service API, a throwaway; a fresh one without it
    #[arg(long, value_name = "B64")]
    service_key: Option<String>,
    /// File with the authorities of the enrollment group `x509-group`
    #[arg(long, value_name = "PEM")]
    group_ca: Option<String>,
    /// Certificate of the emulator's own authority, with --ca-key; a fresh one at each start without them
    #[arg(long, value_name = "PEM")]
    ca_cert: Option<String>,
    /// Key of the authority of --ca-cert
    #[arg(long, value_name = "PEM")]
    ca_key: Option<String>,
    /// Where to write the certificate of the emulator's own authority, which devices must trust
    #[arg(long, value_name = "FILE")]
    ca_out: Option<String>,
    /// Where to write every connection, authentication, request and answer, as lines of JSON; `-` is standard
    /// output
    #[arg(long, value_name = "FILE|-")]
    events: Option<String>,
    /// Stops when standard input ends, as it does with the program that holds the other end, however that ends
    #[arg(long)]
    stop_at_eof: bool,
    /// Makes ids, etags and keys that are fresh otherwise follow from this text or number: the same each run
    #[arg(long, value_name = "TEXT")]
    seed: Option<String>,
    /// Takes https 8443, mqtt 8883, amqp 5671 and admin 8080 where no port is given, `--seed fixed`, and an authority that stays
    #[arg(long)]
    fixed: bool,
    /// File that keeps enrollments, assignments and keys, made if need be; nothing outlives the emulator without it
    #[arg(long, value_name = "FILE")]
    state: Option<String>,
    /// Leaves the file of --state as it is
    #[arg(long)]
    read_only: bool,
    /// Shows no warnings, and no lines to paste at a terminal
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    verbosity: Verbosity,
}

mod descriptors;
mod events;
mod fixed;
mod ready;
mod registrations;

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.example_config {
        return print(Config::EXAMPLE);
    }
    runtime::block_on(|interrupts| serve(arguments, interrupts))
        .unwrap_or_else(|error| Reporter::for_people().failed(&error, &Context::default()))
}

async fn serve(arguments: &Arguments, mut interrupts: Interrupts) -> Result<ExitCode, Error> {
    let level = arguments.verbosity.level()?;
    // One line for each registration is what most want to see; the traces are for those who look for more.
    if level > 1 {
        trace::start(level);
    } else {
        trace::start_for_errors();
    }
    let quiet = given::QUIET.is_on(arguments.quiet)?;
    let stop_at_eof = given::STOP_AT_EOF.is_on(arguments.stop_at_eof)?;
    if !quiet {
        given::unknown_variables().iter().for_each(|warning| report::warn(warning));
        clock_warning(SystemTime::now()).iter().for_each(|warning| report::warn(warning));
    }
    descriptors::allow_all();
    let (emulator, ready, ca_file) = tokio::select! {
        biased;
        () = interrupts.next() => return Ok(ExitCode::from(interrupt::exit_code())),
        started = start(arguments) => started?,
    };
    if emulator.is_seed_set_aside() && !quiet {
        report::warn(&arguments.seed_set_aside()?);
    }
    let has_token = ADMIN_TOKEN_FILE.find(arguments.admin_token_file.as_ref())?.is_some();
    let printed = print(&ready::line(&emulator, ca_file.as_deref(), has_token));
    if printed != ExitCode::SUCCESS {
        // Whoever started it waits for the line.
        emulator.stop().await;
        return Ok(printed);
    }
    drop(ready);
    if !quiet && std::io::stderr().is_terminal() {
        output::note(&ready::welcome(&emulator, ca_file.as_deref()));
    }
    let reported = async {
        if level > 0 {
            registrations::tell(&emulator.events()).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        () = interrupts.next() => {}
        () = end_of_input(), if stop_at_eof => {}
        () = reported => {}
    }
    tokio::select! {
        () = emulator.stop() => Ok(ExitCode::SUCCESS),
        // Twice: at once.
        () = interrupts.next() => Ok(ExitCode::from(interrupt::exit_code())),
    }
}

/// Waits until standard input ends, or can't be read. Nobody waits for the thread that reads it.
async fn end_of_input() {
    let (sender, ended) = oneshot::channel::<()>();
    let read = move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        drop(sender);
    };
    if thread::Builder::new().name("input".to_owned()).spawn(read).is_err() {
        report::warn("no thread can be started to read standard input: its end stops nothing");
        std::future::pending().await
    }
    let _ = ended.await;
}

/// Reads what is needed, starts it, and writes the file with its authority. What may wait for another process, like a
/// named pipe, is read and written on another thread.
async fn start(
    arguments: &Arguments,
) -> Result<(Emulator, mpsc::Sender<()>, Option<String>), Error> {
    let aside = arguments.clone();
    let (config, ready, kept) = blocking(move || {
        let mut files = aside.files()?;
        files.check()?;
        let mut config = aside.config()?;
        files.read.extend(in_the_file(&config));
        files.check()?;
        let kept = aside.kept(&config)?;
        if let Some(kept) = &kept {
            files.written.push(kept.key.clone());
            files.check()?;
            config = kept.authority(config)?;
        }
        let (config, ready) = aside.events(config)?;
        Ok((config, ready, kept.map(|kept| kept.certificate.text)))
    })
    .await?;
    let state = STATE.find(arguments.state.as_ref())?;
    let emulator = config.start().await.map_err(|error| match (&error, state) {
        (StartError::Config(error), Some(Given { from, text })) if error.field() == "state" => {
            wrong(from, &text, error.reason())
        }
        _ => wrong("emulator", "", &error.to_string()),
    })?;
    if kept.is_some() {
        return Ok((emulator, ready, kept));
    }
    let ca_file = CA_OUT.find(arguments.ca_out.as_ref())?;
    if let Some(Given { from, text }) = ca_file.clone() {
        ensure_path(from, &text)?;
        let pem = emulator.ca_pem().to_owned();
        blocking(move || fs::write(&text, pem).map_err(|error| unwritable(from, &text, &error)))
            .await?;
    }
    Ok((emulator, ready, ca_file.map(|given| given.text)))
}

/// The files that the configuration file names.
fn in_the_file(config: &Config) -> Vec<Given> {
    let named = config.files().iter().map(|path| path.display().to_string());
    named.map(|text| Given { from: "the configuration file", text }).collect()
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(wrong("emulator", "", &error.to_string())))
}

/// What is odd about this machine's clock.
fn clock_warning(now: SystemTime) -> Option<&'static str> {
    (now < SystemTime::UNIX_EPOCH).then_some(
        "this machine's clock says that it is before 1970: no certificate and no token is valid then; set the clock",
    )
}

impl Arguments {
    /// The files that flags or their variables name.
    fn files(&self) -> Result<Files, Error> {
        let written = [
            EVENTS.find(self.events.as_ref())?,
            CA_OUT.find(self.ca_out.as_ref())?,
            STATE.find(self.state.as_ref())?,
        ];
        let read = [
            CONFIG.find(self.config.as_ref())?,
            GROUP_CA.find(self.group_ca.as_ref())?,
            CA_CERT.find(self.ca_cert.as_ref())?,
            CA_KEY.find(self.ca_key.as_ref())?,
            ADMIN_TOKEN_FILE.find(self.admin_token_file.as_ref())?,
        ];
        // What SQLite keeps beside the state.
        let logs =
            STATE.find(self.state.as_ref())?.into_iter().flat_map(|Given { text, .. }| {
                ["-wal", "-shm", "-journal"]
                    .map(|ending| Given { from: "the log of --state", text: text.clone() + ending })
            });
        let written = written.into_iter().flatten().collect();
        Ok(Files { written, read: read.into_iter().flatten().chain(logs).collect() })
    }

    /// The authority that `--fixed` keeps, unless another is given.
    fn kept(&self, config: &Config) -> Result<Option<fixed::Kept>, Error> {
        if !FIXED.is_on(self.fixed)? {
            return Ok(None);
        }
        if let Some(pem) = config.authority_pem() {
            return match CA_OUT.find(self.ca_out.as_ref())? {
                Some(file) => fixed::ensure_kept(&file, pem).map(|()| None),
                None => Ok(None),
            };
        }
        let kept = fixed::Kept::find(self.ca_out.as_ref())?;
        ensure_path(kept.certificate.from, &kept.certificate.text)?;
        Ok(Some(kept))
    }

    /// Where the admin port listens, and the token that it wants.
    fn admin(&self, mut config: Config) -> Result<Config, Error> {
        let addresses = addresses(ADMIN_LISTEN, &self.admin_listen)?;
        if !addresses.is_empty() {
            config = config.admin_listen(addresses);
        }
        if let Some(file) = ADMIN_TOKEN_FILE.file(self.admin_token_file.as_ref())? {
            if file.is_stdin() && given::STOP_AT_EOF.is_on(self.stop_at_eof)? {
                return Err(
                    file.wrong("it does not go with --stop-at-eof, which reads standard input too")
                );
            }
            let token = file.text(&file.read()?)?;
            config = config.admin_token(token.trim());
            config.check().map_err(|error| match error.field() {
                "admin-token" => file.wrong(error.reason()),
                _ => misread(CONFIG.flag, error.given(), &error),
            })?;
        }
        Ok(config)
    }

    fn config(&self) -> Result<Config, Error> {
        let group_key = match &self.group_key {
            Some(text) => {
                let key = text.parse::<GroupKey>();
                Some(key.map_err(|error| given::named(GROUP_KEY, "", error))?)
            }
            None => None,
        };
        let group_ca = GROUP_CA.file(self.group_ca.as_ref())?;
        let group_ca = group_ca.map(|file| read_group_ca(&file)).transpose()?;
        let file = CONFIG.find(self.config.as_ref())?;
        let has_file = file.is_some();
        let mut config = match file {
            None => Config::new(),
            Some(Given { from, text: path }) => {
                Config::from_toml_file(&path).map_err(|e| misread(from, &path, &e))?
            }
        };
        if let Some(Given { from, text }) = SEED.find(self.seed.as_ref())? {
            if text.is_empty() {
                return Err(wrong(from, "", "it is empty; give a text or a number"));
            }
            config = config.seed(text);
        }
        if FIXED.is_on(self.fixed)? {
            config = config.fixed();
        }
        let authority = (CA_CERT.file(self.ca_cert.as_ref())?, CA_KEY.file(self.ca_key.as_ref())?);
        config = match authority {
            (None, None) => config,
            (Some(certificate), Some(key)) => {
                let authority = config.authority(&certificate.read()?, &key.read()?);
                authority.map_err(|error| {
                    let file = if error.field() == "ca-key" { key } else { certificate };
                    wrong(file.from, &file.path, error.reason())
                })?
            }
            (Some(certificate), None) => {
                return Err(wrong(certificate.from, &certificate.path, "give --ca-key with it"));
            }
            (None, Some(key)) => {
                return Err(wrong(key.from, &key.path, "give --ca-cert with it"));
            }
        };
        config = self.state(config)?;
        config = match (group_key, group_ca) {
            // The file has enrollments of its own: there is no need for a key that nobody asked for.
            (None, None) if has_file => config,
            (None, Some(ca)) if has_file => {
                config.enrollment(Enrollment::group("x509-group", GroupAttestation::x509(ca)))
            }
            (key, ca) => config.with_any_device(key, ca).map_err(|e| misread(GROUP_KEY, "", &e))?,
        };
        if let Some(text) = &self.service_key {
            let key = text.parse::<SymmetricKey>();
            let key = key.map_err(|error| given::named(SERVICE_KEY, "", error))?;
            config =
                config.service_policy(ServicePolicy::with_all_rights(ServicePolicy::OWNER, key));
        }
        if config.enrollments().is_empty() && !given::QUIET.is_on(self.quiet)? {
            report::warn(
                "the configuration file has no enrollment: no device can register; add an [[enrollment]]",
            );
        }
        let names = NAME.list(&self.name)?;
        let name = names.first().map_or(NAME.flag, |name| name.from);
        config = config.server_names(names.iter().map(|name| &name.text));
        // What the file says was checked when it was read.
        config.check().map_err(|error| match error.enrollment() {
            None => misread(name, error.given(), &error),
            Some("x509-group") => misread(GROUP_CA.flag, "", &error),
            Some(_) => misread(GROUP_KEY, "", &error),
        })?;
        config = config.pace(if FAST.is_on(self.fast)? { Pace::Fast } else { Pace::Service });
        let addresses = addresses(LISTEN, &self.listen)?;
        if !addresses.is_empty() {
            config = config.bind(addresses);
        }
        config = self.admin(config)?;
        if let Some(port) = port(HTTPS_PORT, self.https_port.as_ref())? {
            config = config.https_port(port);
        }
        if let Some(port) = port(MQTT_PORT, self.mqtt_port.as_ref())? {
            config = config.mqtt_port(port);
        }
        if let Some(port) = port(AMQP_PORT, self.amqp_port.as_ref())? {
            config = config.amqp_port(port);
        }
        Ok(match port(ADMIN_PORT, self.admin_port.as_ref())? {
            Some(port) => config.admin_port(port),
            None => config.admin_port_or(0),
        })
    }

    /// Says that the file of the state has another seed.
    fn seed_set_aside(&self) -> Result<String, Error> {
        let given = SEED.find(self.seed.as_ref())?.map_or(FIXED.flag, |given| given.from);
        let state = STATE.find(self.state.as_ref())?.map_or_else(String::new, |it| it.text);
        Ok(format!(
            "{given}: the state in {state:?} was begun with another seed, and its keys and ids go on; leave {given} out, or name a new file with --state"
        ))
    }

    /// Names the file with the state.
    fn state(&self, config: Config) -> Result<Config, Error> {
        let is_read_only = READ_ONLY.is_on(self.read_only)?;
        let Some(Given { from, text }) = STATE.find(self.state.as_ref())? else {
            return match is_read_only {
                true => Err(wrong(READ_ONLY.flag, "", "give --state with it")),
                false => Ok(config),
            };
        };
        match text.as_str() {
            "" => return Err(wrong(from, "", "it is empty; name a file")),
            "-" => return Err(wrong(from, "-", "standard input keeps nothing; name a file")),
            _ => ensure_path(from, &text)?,
        }
        Ok(if is_read_only { config.state_read_only(text) } else { config.state(text) })
    }

    /// Sends the events where they are wanted. Those for standard output wait until what comes back is dropped:
    /// the line that says that the emulator is ready comes first.
    fn events(&self, config: Config) -> Result<(Config, mpsc::Sender<()>), Error> {
        let (ready, wait) = mpsc::channel();
        let config = match EVENTS.find(self.events.as_ref())? {
            None => config,
            Some(Given { text, .. }) if text == "-" => {
                config.events_to(events::AfterReady { wait: Some(wait) })
            }
            Some(Given { from, text: path }) => {
                ensure_path(from, &path)?;
                let file = File::create(&path).map_err(|error| unwritable(from, &path, &error))?;
                config.events_to(events::EventFile { file, from, path })
            }
        };
        Ok((config, ready))
    }
}

fn addresses(setting: Setting, flags: &[String]) -> Result<Vec<IpAddr>, Error> {
    let parse = |Given { from, text }: &Given| {
        let reason = "give an IP address of this machine, like 127.0.0.1";
        text.parse().map_err(|_| wrong(from, text, reason))
    };
    setting.list(flags)?.iter().map(parse).collect()
}

/// A port, as people type it.
fn port(setting: Setting, flag: Option<&String>) -> Result<Option<u16>, Error> {
    let parse = |Given { from, text }: Given| {
        let reason = "give a number from 0 to 65535; 0 takes any free port";
        text.parse().map_err(|_| wrong(from, &text, reason))
    };
    setting.find(flag)?.map(parse).transpose()
}

fn read_group_ca(source: &Source) -> Result<CaCertificates, Error> {
    CaCertificates::from_pem(&*source.read()?)
        .map_err(|error| misread(source.from, &source.path, &error))
}

/// What the emulator says of a setting, under the flag that gave it.
fn misread(flag: &'static str, value: &str, error: &ConfigError) -> Error {
    if let Some(reason) = device_file::instead_of_the_emulators(error.reason()) {
        return wrong(flag, value, reason);
    }
    let reason = match (error.enrollment(), error.given()) {
        (None, given) if given == value => error.reason().to_owned(),
        _ => error.to_string(),
    };
    wrong(flag, value, &reason)
}

/// A secret is no name for a file: everybody could read it there.
fn ensure_path(flag: &'static str, path: &str) -> Result<(), Error> {
    let is_bare = Path::new(path).parent().is_none_or(|parent| parent.as_os_str().is_empty());
    match secret::kind(path).filter(|_| is_bare) {
        Some(_) => Err(wrong(flag, path, "name a file to write to")),
        None => Ok(()),
    }
}

fn unwritable(flag: &'static str, path: &str, error: &io::Error) -> Error {
    wrong(flag, path, &format!("it can't be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_before_1970_is_warned_of() {
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert!(clock_warning(early).is_some_and(|warning| warning.contains("1970")));
        assert_eq!(clock_warning(SystemTime::now()), None);
    }
}
