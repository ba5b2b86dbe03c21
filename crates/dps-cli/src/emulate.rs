//! `dps emulate`.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    path::Path,
    process::ExitCode,
    sync::mpsc,
};

use dps_client::Error;
use dps_emulator::{
    CaCertificates, Config, ConfigError, Emulator, Enrollment, GroupAttestation, SymmetricKey,
};
use serde::Serialize;

use crate::{
    files::Source,
    given::wrong,
    interrupt::Interrupts,
    report::{Reporter, print},
    runtime, secret,
    trace::Verbosity,
};

const CONFIG: &str = "--config";
const GROUP_KEY: &str = "--group-key";
const GROUP_CA: &str = "--group-ca";
const CA_OUT: &str = "--ca-out";
const NAME: &str = "--name";
const EVENTS: &str = "--events";

const DETAILS: &str = "\
Without --config any registration id is assigned that shows the right credential: a SAS token signed
with a key derived from the group key or, with --group-ca, a certificate of that authority.

When it serves, the first line on standard output is one JSON object:
  {\"ready\": true, \"idScope\", \"httpsPort\", \"mqttPort\", \"amqpPort\", \"adminPort\", \"caFile\", \"groupKey\"}
Ctrl-C or SIGTERM stops it.

Examples:
  # Any free ports; devices trust ca.pem.
  dps emulate --ca-out ca.pem
  # The ports and the name that devices have built in; events on standard output.
  dps emulate --https-port 443 --mqtt-port 8883 --amqp-port 5671 --ca-out ca.pem --events - \\
      --name global.azure-devices-provisioning.net
  # Enrollments, faults and limits from a file, beginning with one that has every key.
  dps emulate --example-config > emulator.toml
  dps emulate --config emulator.toml --https-port 8443 --ca-out ca.pem";

#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    /// Port for HTTPS and every WebSocket; 0 or without it any free one
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// Port for MQTT; 0 or without it any free one
    #[arg(long, value_name = "PORT")]
    mqtt_port: Option<u16>,
    /// Port for AMQP; 0 or without it any free one
    #[arg(long, value_name = "PORT")]
    amqp_port: Option<u16>,
    /// Port for /health and /events, over plain HTTP on loopback; 0 or without it any free one
    #[arg(long, value_name = "PORT")]
    admin_port: Option<u16>,
    /// Address to listen on, may be repeated; 127.0.0.1 and ::1 without it
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<IpAddr>,
    /// Another name or address for the server certificate, may be repeated
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// TOML file with enrollments and how the service behaves; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Prints a file for --config that has every key, explained, and does nothing else
    #[arg(long)]
    example_config: bool,
    /// Key of the enrollment group `group` in base64, a throwaway; a fresh one without it
    #[arg(long, value_name = "B64")]
    group_key: Option<String>,
    /// File with the authorities of the enrollment group `x509-group`
    #[arg(long, value_name = "PEM")]
    group_ca: Option<String>,
    /// Where to write the certificate of the emulator's own authority, which devices must trust
    #[arg(long, value_name = "FILE")]
    ca_out: Option<String>,
    /// Where to write every connection, authentication, request and answer, as lines of JSON; `-` is standard
    /// output
    #[arg(long, value_name = "FILE|-")]
    events: Option<String>,
    #[command(flatten)]
    verbosity: Verbosity,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ready<'a> {
    ready: bool,
    id_scope: &'a str,
    https_port: Option<u16>,
    mqtt_port: Option<u16>,
    amqp_port: Option<u16>,
    admin_port: Option<u16>,
    ca_file: Option<&'a str>,
    /// A throwaway, unlike a real group's.
    group_key: Option<&'a str>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.example_config {
        return print(Config::EXAMPLE);
    }
    arguments.verbosity.start();
    match runtime::block_on(|interrupts| serve(arguments, interrupts)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Reporter::new(false).failed(&error, None),
    }
}

async fn serve(arguments: &Arguments, mut interrupts: Interrupts) -> Result<(), Error> {
    let (config, ready) = arguments.events(arguments.config()?)?;
    let emulator = tokio::select! {
        biased;
        () = interrupts.next() => return Ok(()),
        started = config.start() => started.map_err(|error| wrong("emulator", "", &error.to_string()))?,
    };
    arguments.write_ca(&emulator)?;
    print(&arguments.ready_line(&emulator));
    drop(ready);
    interrupts.next().await;
    tokio::select! {
        () = emulator.stop() => {}
        // Twice: at once.
        () = interrupts.next() => {}
    }
    Ok(())
}

impl Arguments {
    fn config(&self) -> Result<Config, Error> {
        let group_key = match &self.group_key {
            Some(text) => {
                Some(text.parse::<SymmetricKey>().map_err(|e| misread(GROUP_KEY, "", &e))?)
            }
            None => None,
        };
        let group_ca = match &self.group_ca {
            Some(path) => Some(read_group_ca(&Source::new(GROUP_CA, path))?),
            None => None,
        };
        let mut config = match &self.config {
            None => Config::new(),
            Some(path) => Config::from_toml_file(path).map_err(|e| misread(CONFIG, path, &e))?,
        };
        config = match (group_key, group_ca) {
            // The file has enrollments of its own: there is no need for a key that nobody asked for.
            (None, None) if self.config.is_some() => config,
            (None, Some(ca)) if self.config.is_some() => {
                config.enrollment(Enrollment::group("x509-group", GroupAttestation::X509(ca)))
            }
            (key, ca) => config.with_any_device(key, ca).map_err(|e| misread(GROUP_KEY, "", &e))?,
        };
        config = config.server_names(&self.name);
        // What the file says was checked when it was read.
        config.check().map_err(|error| match error.enrollment() {
            None => misread(NAME, error.given(), &error),
            Some("x509-group") => misread(GROUP_CA, "", &error),
            Some(_) => misread(GROUP_KEY, "", &error),
        })?;
        if !self.listen.is_empty() {
            config = config.bind(self.listen.iter().copied());
        }
        if let Some(port) = self.https_port {
            config = config.https_port(port);
        }
        if let Some(port) = self.mqtt_port {
            config = config.mqtt_port(port);
        }
        if let Some(port) = self.amqp_port {
            config = config.amqp_port(port);
        }
        Ok(match self.admin_port {
            Some(port) => config.admin_port(port),
            None => config.admin_port_or(0),
        })
    }

    /// Sends the events where they are wanted. Those for standard output wait until what comes back is dropped:
    /// the line that says that the emulator is ready comes first.
    fn events(&self, config: Config) -> Result<(Config, mpsc::Sender<()>), Error> {
        let (ready, wait) = mpsc::channel();
        let config = match self.events.as_deref() {
            None => config,
            Some("-") => config.events_to(AfterReady { wait: Some(wait) }),
            Some(path) => {
                ensure_path(EVENTS, path)?;
                let file = File::create(path).map_err(|error| unwritable(EVENTS, path, &error))?;
                config.events_to(Told { file, path: path.to_owned() })
            }
        };
        Ok((config, ready))
    }

    fn write_ca(&self, emulator: &Emulator) -> Result<(), Error> {
        let Some(path) = &self.ca_out else { return Ok(()) };
        ensure_path(CA_OUT, path)?;
        fs::write(path, emulator.ca_pem()).map_err(|error| unwritable(CA_OUT, path, &error))
    }

    fn ready_line(&self, emulator: &Emulator) -> String {
        let group_key = emulator.group_key().map(SymmetricKey::to_base64);
        let ready = Ready {
            ready: true,
            id_scope: emulator.id_scope().as_str(),
            https_port: Some(emulator.https_port()),
            mqtt_port: Some(emulator.mqtt_port()),
            amqp_port: Some(emulator.amqp_port()),
            admin_port: emulator.admin_port(),
            ca_file: self.ca_out.as_deref(),
            group_key: group_key.as_ref().map(|key| key.as_str()),
        };
        // Strings and numbers: there is nothing that can fail to serialize.
        serde_json::to_string(&ready).unwrap_or_default() + "\n"
    }
}

/// A file whose trouble is told: nobody may be looking at it when it can't be written any more.
struct Told {
    file: File,
    path: String,
}

impl Write for Told {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.file.write(line).inspect_err(|error| {
            let error = unwritable(EVENTS, &self.path, error);
            let warning = format!("warning: {error}; no more events are written\n");
            let _ = io::stderr().write_all(secret::masked(&warning).as_bytes());
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Standard output, from when the other end of the channel is gone.
struct AfterReady {
    wait: Option<mpsc::Receiver<()>>,
}

impl Write for AfterReady {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(wait) = self.wait.take() {
            // Nothing is ever sent: this is the end of the channel.
            let _ = wait.recv();
        }
        io::stdout().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

fn read_group_ca(source: &Source) -> Result<CaCertificates, Error> {
    let pem = source.text(&source.read()?)?;
    CaCertificates::from_pem(&pem).map_err(|error| misread(source.from, &source.path, &error))
}

/// What the emulator says of a setting, under the flag that gave it.
fn misread(flag: &'static str, value: &str, error: &ConfigError) -> Error {
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
