//! `--config`: the configuration file of the device, which gives what neither a flag nor a variable does.

use std::{path::Path, sync::OnceLock};

use clap::ArgMatches;
use dps_client::{ConfigurationError, DeviceFile, Error, FileValue};

use crate::{
    embedded,
    given::{CONFIG, Given, wrong},
};

/// Read once, before the command looks at anything else.
static FILE: OnceLock<DeviceFile> = OnceLock::new();

/// The flag, for each command that reads the file: to have it in its arguments is all that it needs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConfigFlag {
    /// Configuration file of the device, for what neither a flag nor its variable gives; `dps config example` prints one
    #[arg(long = "config", value_name = "FILE")]
    // `load` reads it, for all commands at once.
    device_file: Option<String>,
}

/// The names of the arguments that name the file.
const NAMES: [&str; 2] = ["device_file", "checked_file"];

/// Reads the file that the flag or its variable names, if the command that was given takes one.
pub(crate) fn load(command: &ArgMatches) -> Result<(), Error> {
    let arguments = innermost(command);
    let mut taken = NAMES.into_iter().filter_map(|name| arguments.try_get_one::<String>(name).ok());
    let Some(first) = taken.next() else { return Ok(()) };
    let flag = first.or_else(|| taken.flatten().next());
    if let Some(given) = CONFIG.find(flag)? {
        let file = DeviceFile::read(&given.text).map_err(|error| explained(&given, error))?;
        // Nobody else sets it.
        let _ = FILE.set(file);
    }
    Ok(())
}

/// The arguments of the command behind its groups.
pub(crate) fn innermost(mut arguments: &ArgMatches) -> &ArgMatches {
    while let Some((_, inner)) = arguments.subcommand() {
        arguments = inner;
    }
    arguments
}

/// The file's name, if there is one.
pub(crate) fn path() -> Option<&'static Path> {
    FILE.get().map(DeviceFile::path)
}

/// What the file says for a key.
pub(crate) fn get(key: &str) -> Option<&'static FileValue> {
    FILE.get()?.get(key)
}

/// Names the flag or the variable where the error names no line, and says so of a file for the emulator.
fn explained(given: &Given, error: Error) -> Error {
    let Error::Configuration(error) = error else { return error };
    if error.field == "configuration file" {
        return wrong(given.from, &given.text, &error.reason);
    }
    let line = error.field.strip_prefix(&given.text).unwrap_or_default();
    let key = line.split_once(": ").map_or("", |(_, key)| key);
    if is_of_the_emulator(key) && !DeviceFile::keys().any(|known| known == key) {
        let reason =
            "there is no such key; this is a file for `dps emulate --config`, not one of a device";
        return ConfigurationError::new(error.field.clone(), "", reason).into();
    }
    Error::Configuration(error)
}

/// Whether the emulator's file has such a key or table beside others, not within a table: its example has all.
fn is_of_the_emulator(key: &str) -> bool {
    let mut is_in_table = false;
    embedded::EXAMPLE.lines().any(|line| {
        let line = line.trim_start_matches(['#', ' ']);
        let name = match line.strip_prefix('[') {
            Some(table) => {
                is_in_table = true;
                table.trim_start_matches('[').split_once(']')
            }
            None => line.split_once(" = ").filter(|_| !is_in_table),
        };
        name.is_some_and(|(name, _)| name == key)
    })
}

#[cfg(feature = "emulator")]
/// What to say of a file that the emulator refuses for this reason, if it is one of a device.
pub(crate) fn instead_of_the_emulators(reason: &str) -> Option<&'static str> {
    let is_ours = |key| reason.contains(&format!("unknown field `{key}`"));
    DeviceFile::keys().any(is_ours).then_some(
        "this is a configuration file of a device, for `dps register --config`, not one for the emulator",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;

    /// Flags of a registration that say how the command talks, or that hold for one run of it.
    const NO_KEYS: [&str; 7] =
        ["config", "emulator", "help", "json", "quiet", "show-keys", "verbose"];

    #[test]
    fn each_flag_of_a_registration_is_a_key_of_the_file_and_each_key_is_a_flag() {
        let command = Cli::command();
        let register = command.find_subcommand("register").unwrap();
        let flags = register.get_arguments().filter_map(clap::Arg::get_long);
        let flags: Vec<&str> = flags.filter(|flag| !NO_KEYS.contains(flag)).collect();
        let keys: Vec<&str> = DeviceFile::keys().collect();
        for flag in &flags {
            assert!(
                keys.contains(flag),
                "--{flag} is no key: add it to dps-client/src/device_file/keys.rs and device.toml"
            );
        }
        for key in keys {
            assert!(flags.contains(&key), "{key} is no flag of dps register");
        }
    }
}
