//! `dps config`: the configuration file of a device, checked and shown.

use std::process::ExitCode;

use clap::{ArgMatches, parser::ValueSource};
use dps_client::{DeviceFile, Error, Printable, Proxy, internal as secret};
use serde::Serialize;

use crate::{
    device_file,
    given::{Level, SYMMETRIC_KEY, Setting, variable},
    output::print,
    register,
    report::{self, Context, Reporter},
};

pub(crate) const EXAMPLES: &str = "\
Examples:
  dps config example > dps.toml
  dps config check dps.toml

`dps config COMMAND --help` has more.";

const CHECK_DETAILS: &str = "\
Checks all that needs no network: the syntax, each key and value, the files
that are named, and whether they go together. A flag wins over its variable,
and a variable wins over the file; it prints what holds and where it is from.
A place that the registration writes to is tried, and nothing is left there.
Without FILE, --config or DPS_CONFIG it checks the flags and variables alone.

Exit codes:
    0 a registration could begin
    2 configuration: what is wrong, with the line
    8 credential: the TPM or the token failed or can't be used

Examples:
  dps config check dps.toml
  dps config check dps.toml --transport mqtt-ws --json";

const EXAMPLE_DETAILS: &str = "\
Examples:
  dps config example > dps.toml
  dps register --config dps.toml";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Checks a configuration file without the network, and prints what is set and from where
    #[command(after_help = CHECK_DETAILS)]
    Check(Box<Check>),
    /// Prints a configuration file with every key, each as a comment
    #[command(after_help = EXAMPLE_DETAILS)]
    Example,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// The file; the one of --config or DPS_CONFIG without it
    #[arg(value_name = "FILE", conflicts_with = "device_file")]
    // `device_file::load` reads it.
    checked_file: Option<String>,
    #[command(flatten)]
    registration: register::Arguments,
}

/// What is set, and from where.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    status: &'static str,
    file: Option<String>,
    settings: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    key: String,
    value: String,
    from: String,
}

pub(crate) fn run(command: &Command, arguments: &ArgMatches) -> ExitCode {
    match command {
        Command::Example => print(DeviceFile::EXAMPLE),
        Command::Check(check) => match Found::new(device_file::innermost(arguments)) {
            Ok(found) => check.registration.check(found),
            Err(error) => Reporter::for_people().failed(&error, &Context::default()),
        },
    }
}

/// Those that give the credential: one from a lower level adds none to one from a higher level.
const CREDENTIALS: [&str; 6] =
    ["symmetric-key-file", "symmetric-key", "group-key-file", "cert", "key", "tpm"];

impl Found {
    fn new(arguments: &ArgMatches) -> Result<Self, Error> {
        let mut settings = Vec::new();
        for key in DeviceFile::keys() {
            settings.extend(Row::find(key, arguments)?);
        }
        if variable(SYMMETRIC_KEY)?.is_some() {
            settings.push((Level::Variable, Row::new("symmetric-key", "***", SYMMETRIC_KEY)));
        }
        let is_credential = |row: &Row| CREDENTIALS.contains(&row.key.as_str());
        let credentials = settings.iter().filter(|(_, row)| is_credential(row));
        let best = credentials.map(|(level, _)| *level).min();
        let holds =
            |(level, row): &(Level, Row)| !is_credential(row) || best.is_none_or(|b| b == *level);
        // A TPM of any level is where such keys may be.
        let has_key = |found: &(Level, Row)| {
            matches!(found.1.key.as_str(), "key" | "request-key") && holds(found)
        };
        let has_key = settings.iter().any(has_key);
        settings.retain(|found| holds(found) || (found.1.key == "tpm" && has_key));
        let settings = settings.into_iter().map(|(_, row)| row).collect();
        let file = device_file::path().map(|path| path.display().to_string());
        Ok(Self { status: "valid", file, settings })
    }

    /// As JSON or for people.
    pub(crate) fn print(&self, json: bool) -> ExitCode {
        if json {
            return print(&report::json(self));
        }
        let width = |of: fn(&Row) -> &str| {
            self.settings.iter().map(|row| of(row).chars().count()).max().unwrap_or_default()
        };
        let (keys, values) = (width(|row| &row.key), width(|row| &row.value).min(48));
        let rows = self.settings.iter().map(|Row { key, value, from }| {
            let value = Printable::whole(value).to_string();
            format!("  {key:keys$}  {value:values$}  {}\n", Printable::whole(from))
        });
        print(&format!("valid: a registration could begin\n{}", rows.collect::<String>()))
    }
}

impl Row {
    fn new(key: &str, value: &str, from: &str) -> Self {
        // Where a password may be it is not left to how it looks.
        let value = match value.parse::<Proxy>() {
            Ok(proxy) if key == "proxy" && value != "env" => proxy.to_string(),
            _ => secret::masked(value).into_owned(),
        };
        Self { key: key.to_owned(), value, from: from.to_owned() }
    }

    fn find(key: &str, arguments: &ArgMatches) -> Result<Option<(Level, Self)>, Error> {
        let id = key.replace('-', "_");
        if arguments.value_source(&id) == Some(ValueSource::CommandLine) {
            let given = arguments.try_get_many::<String>(&id).ok().flatten();
            let given: Vec<&str> = given.into_iter().flatten().map(String::as_str).collect();
            let value = if given.is_empty() { "true".to_owned() } else { given.join(", ") };
            return Ok(Some((Level::Flag, Self::new(key, &value, &format!("--{key}")))));
        }
        if let Some(setting) = Setting::of(key)
            && let Some(value) = variable(setting.variable)?
        {
            return Ok(Some((Level::Variable, Self::new(key, &value, setting.variable))));
        }
        let value = device_file::get(key);
        Ok(value
            .map(|value| (Level::File, Self::new(key, &value.texts().join(", "), value.place()))))
    }
}
