//! The command `dps`: registers a device with the Azure IoT Hub Device Provisioning Service, emulates that service,
//! derives device keys and signs SAS tokens.

mod advice;
mod cert;
mod cli;
mod clock;
mod connect;
mod credential;
mod derive_key;
mod doctor;
mod embedded;
mod emulate;
mod files;
mod generated;
mod given;
mod interrupt;
mod issue;
mod kept;
mod output;
mod pkcs11;
mod progress;
mod register;
mod report;
mod runtime;
mod sas_token;
mod seconds;
mod style;
mod tpm;
mod trace;

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let code = match Cli::try_parse_from(&arguments) {
        Ok(Cli { command }) => match command {
            Command::Register(arguments) => register::run(&arguments),
            Command::Doctor(arguments) => doctor::run(&arguments),
            Command::Emulate(arguments) => emulate::run(&arguments),
            Command::DeriveKey(arguments) => derive_key::run(&arguments),
            Command::SasToken(arguments) => sas_token::run(&arguments),
            Command::Tpm(command) => tpm::run(&command),
            Command::Cert(command) => cert::run(&command),
            Command::Completions(arguments) => generated::completions(&arguments),
            Command::Man(arguments) => generated::pages(&arguments),
        },
        Err(error) => cli::explain(&error, &arguments),
    };
    output::flush();
    code
}
