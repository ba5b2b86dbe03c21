//! The command line as a whole, and what is said when it can't be read.

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};
use dps_client::{ConfigurationError, internal as secret};

#[cfg(feature = "emulator")]
use crate::emulate;
use crate::{
    agent, cert, config, derive_key, doctor, generated, given, output, pkcs11, register, report,
    sas_token, status, tpm,
};

const EXAMPLES: &str = "\
Examples:
  dps register --emulator
  dps register --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key
  dps doctor --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key
  dps emulate --ca-out ca.pem
  dps derive-key --registration-id pump-17 --group-key-file group.key \\
      > pump-17.key

`dps COMMAND --help` has more.";

macro_rules! long_version {
    ($pkcs11:literal) => {
        concat!(
            env!("CARGO_PKG_VERSION"),
            env!("COMMIT_OF_DPS"),
            "\ntransports: http, mqtt, mqtt-ws, amqp, amqp-ws",
            "\nTLS: 1.2 and 1.3, by rustls with ring",
            "\nPKCS#11: ",
            $pkcs11,
        )
    };
}

/// What `--version` says; `-V` says the first line without the commit.
const LONG_VERSION: &str = if pkcs11::LOADS_MODULES {
    long_version!("by the token's module")
} else {
    long_version!("none, since a static program can't load a token's module")
};

/// Device provisioning for Azure IoT: register a device, emulate the service, derive keys, sign SAS tokens.
#[derive(Debug, Parser)]
#[command(name = "dps", version, long_version = LONG_VERSION, after_help = EXAMPLES, term_width = 78)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Registers a device and prints its hub and device id
    Register(Box<register::Arguments>),
    /// Looks at all that stands between this device and its registration, and says what to do next
    Doctor(Box<doctor::Arguments>),
    /// Keeps a device registered for as long as it runs, and its certificate renewed
    Agent(Box<agent::Arguments>),
    /// Shows what the service keeps of a device's registration, without registering it
    Status(Box<status::Arguments>),
    /// Serves the provisioning service on this machine, with real TLS and real credential checks
    #[cfg(feature = "emulator")]
    Emulate(emulate::Arguments),
    /// Derives a device's key from the key of its enrollment group
    DeriveKey(derive_key::Arguments),
    /// Signs a SAS token with a device's key
    SasToken(sas_token::Arguments),
    /// Shows the keys of a TPM, and signs with the one for the hub
    #[command(subcommand, after_help = tpm::EXAMPLES)]
    Tpm(tpm::Command),
    /// Shows the certificate that a registration brought, and when to renew it
    #[command(subcommand, after_help = cert::EXAMPLES)]
    Cert(cert::Command),
    /// Checks the configuration file of a device, or prints an example
    #[command(subcommand, after_help = config::EXAMPLES)]
    Config(config::Command),
    /// Prints the completions of this command for a shell
    Completions(generated::Completions),
    /// Writes the manual pages of this command into a folder
    Man(generated::Pages),
}

/// Prints what clap has to say: help and the version as they are, a usage error in the form that was asked for.
pub(crate) fn explain(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let json = asks_for_json(arguments);
    let rendered = error.render().to_string();
    if error.exit_code() == 0 {
        return output::print(&rendered);
    }
    if let Some(message) = unfit(arguments, &rendered) {
        return wrong(&message, json);
    }
    if json {
        return wrong(&in_one_line(&rendered), true);
    }
    output::note(&secret::masked(&rendered));
    ExitCode::from(2)
}

fn wrong(message: &str, json: bool) -> ExitCode {
    let error = ConfigurationError::new("command line", "", message).into();
    report::Reporter::new(json).failed(&error, &report::Context::default())
}

/// Which argument can't be one, if there is such: not what it says, which may be a secret. `rendered` is what clap says:
/// of a secret in its right place it says nothing.
fn unfit(arguments: &[OsString], rendered: &str) -> Option<String> {
    let (place, what) = arguments.iter().enumerate().find_map(|(place, word)| {
        let Some(text) = word.to_str() else {
            return Some((place, "is not UTF-8 text".to_owned()));
        };
        if text.contains("-----BEGIN ") {
            return Some((place, "is PEM text; name a file that holds it".to_owned()));
        }
        let value = text.split_once('=').filter(|_| text.starts_with("--")).map_or(text, |v| v.1);
        let what = secret::kind(value).filter(|_| rendered.contains(value))?;
        Some((
            place,
            format!("holds {what}, which is not repeated here, and does not belong there"),
        ))
    })?;
    let before = place.checked_sub(1).and_then(|before| arguments.get(before)?.to_str());
    let after = before.filter(|word| word.starts_with("--"));
    let after = after.map(|flag| format!(", after {flag},")).unwrap_or_default();
    Some(format!("argument {place}{after} {what}"))
}

pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().skip(1).take_while(|word| *word != "--").any(|word| word == "--json")
        || given::JSON.is_on(false).unwrap_or(false)
}

/// What is wrong, without the usage that follows it.
fn in_one_line(rendered: &str) -> String {
    let text = rendered.strip_prefix("error: ").unwrap_or(rendered);
    let paragraphs = text.split("\n\n").take_while(|paragraph| {
        !paragraph.starts_with("Usage:") && !paragraph.starts_with("For more information")
    });
    let words: Vec<&str> = paragraphs.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use dps_client::Transport;

    use crate::generated::with_subcommands;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_version_names_every_transport() {
        let names: Vec<_> = Transport::ALL.iter().map(|transport| transport.as_str()).collect();
        let line = format!("\ntransports: {}\n", names.join(", "));
        assert!(LONG_VERSION.contains(&line), "{LONG_VERSION}");
        assert!(Transport::ALL.iter().all(|transport| transport.is_built()));
    }

    #[test]
    fn help_is_as_it_was_written_whatever_the_terminal() {
        let mut cli = Cli::command();
        cli.build();
        for command in with_subcommands(&cli) {
            let Some(details) = command.get_after_help() else { continue };
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains(&details.to_string()), "{} wraps:\n{help}", command.get_name());
        }
    }

    /// What the README names that is a flag of another program.
    const OF_OTHERS: &[&str] = &[
        "--all-features",
        "--bin",
        "--locked",
        "--no-default-features",
        "--now",
        "--open",
        "--package",
        "--path",
        "--quiet",
        "--release",
        "--strip-components",
        "--target",
    ];

    #[test]
    fn each_flag_and_exit_code_of_the_readme_is_in_the_help() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
        let readme = std::fs::read_to_string(readme).unwrap();
        let mut cli = Cli::command();
        cli.build();
        let commands = with_subcommands(&cli);
        let ours = commands.iter().flat_map(|command| command.get_arguments());
        let ours: Vec<String> =
            ours.filter_map(|flag| Some(format!("--{}", flag.get_long()?))).collect();
        let words = readme.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let flags =
            words.filter(|word| word.starts_with("--") && word.contains(char::is_alphabetic));
        let unknown: Vec<_> = flags
            .filter(|flag| !OF_OTHERS.contains(flag) && !ours.iter().any(|known| known == flag))
            .collect();
        assert_eq!(unknown, Vec::<&str>::new(), "the README names flags that dps does not know");

        let help: String =
            commands.iter().map(|&it| it.clone().render_long_help().to_string()).collect();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let rows = readme.lines().filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let ["", kind, _, code, ""] = cells.as_slice() else { return None };
            code.parse::<u8>().ok()?;
            Some(format!("{code} {}", kind.trim_matches(['`', '(', ')'])))
        });
        let rows: Vec<String> = rows.collect();
        assert!(rows.len() >= 9, "{rows:?}");
        for row in rows {
            assert!(help.contains(&row), "the help does not say the exit code {row:?}: {help}");
        }
    }

    #[test]
    fn a_usage_error_is_one_line_that_names_what_was_given() {
        let rendered = |words: &[&str]| {
            in_one_line(&Cli::try_parse_from(words).unwrap_err().render().to_string())
        };
        for (words, names) in [
            (&["dps", "register", "--frobnicate=1"][..], "--frobnicate"),
            (&["dps", "register", "stray"], "stray"),
            (&["dps", "register", "--emulator", "--endpoint", "h"], "--endpoint"),
            (&["dps", "enroll"], "enroll"),
        ] {
            let message = rendered(words);
            assert!(message.contains(names), "{message}");
            assert!(!message.contains(['\n']) && !message.contains("Usage"), "{message}");
        }
    }

    #[test]
    fn json_counts_only_as_a_flag() {
        let asks =
            |words: &[&str]| asks_for_json(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(asks(&["dps", "register", "--bogus", "--json"]));
        assert!(!asks(&["--json", "register"]) && !asks(&["dps", "register", "--", "--json"]));
    }
}
