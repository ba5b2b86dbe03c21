//! The command `dps`: registers a device with the Azure IoT Hub Device Provisioning Service, emulates that service,
//! derives device keys and signs SAS tokens.

mod advice;
mod agent;
mod apart;
mod cert;
mod cli;
mod clock;
mod config;
mod connect;
mod credential;
mod derive_key;
mod device_file;
mod doctor;
#[cfg_attr(not(feature = "emulator"), path = "without_emulator.rs")]
mod embedded;
#[cfg(feature = "emulator")]
mod emulate;
mod files;
mod generated;
mod given;
mod handover;
mod hook;
mod interrupt;
mod issue;
mod kept;
mod output;
mod pkcs11;
mod progress;
mod proof;
mod register;
mod report;
mod runtime;
mod sas_token;
mod seconds;
mod status;
mod style;
mod tpm;
mod trace;

use std::{ffi::OsString, process::ExitCode};

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use cli::{Cli, Command};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let code = match parse(&arguments) {
        Ok((command, matches)) => match device_file::load(&matches) {
            Ok(()) => run(&command, &matches),
            Err(error) => {
                let reporter = report::Reporter::new(cli::asks_for_json(&arguments));
                reporter.failed(&error, &report::Context::default())
            }
        },
        Err(error) => cli::explain(&error, &arguments),
    };
    output::flush();
    code
}

fn parse(arguments: &[OsString]) -> Result<(Command, ArgMatches), clap::Error> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((cli.command, matches))
}

fn run(command: &Command, matches: &ArgMatches) -> ExitCode {
    match command {
        Command::Register(arguments) => register::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Agent(arguments) => agent::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        #[cfg(feature = "emulator")]
        Command::Emulate(arguments) => emulate::run(arguments),
        Command::DeriveKey(arguments) => derive_key::run(arguments),
        Command::SasToken(arguments) => sas_token::run(arguments),
        Command::Tpm(command) => tpm::run(command),
        Command::Cert(command) => cert::run(command),
        Command::Config(command) => config::run(command, matches),
        Command::Completions(arguments) => generated::completions(arguments),
        Command::Man(arguments) => generated::pages(arguments),
    }
}
