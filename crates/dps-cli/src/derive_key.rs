//! `dps derive-key`.

use std::process::ExitCode;

use dps_client::Error;
use zeroize::Zeroizing;

use crate::{
    credential::{GROUP_KEY_FILE, group_key},
    files::Source,
    given,
    report::{Reporter, print},
};

const DETAILS: &str = "\
Only the key is printed, in base64. It is a secret: send it to a file that its owner alone can read.

Examples:
  (umask 077; dps derive-key --registration-id pump-17 --group-key-file group.key > pump-17.key)
  vault read -field=key dps/group | dps derive-key --registration-id pump-17 --group-key-file -";

#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    /// The device's name at the service, exactly as it registers [env: DPS_REGISTRATION_ID]
    #[arg(long, value_name = "ID")]
    registration_id: Option<String>,
    /// File with the key of the enrollment group in base64; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    group_key_file: String,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match derive(arguments) {
        Ok(key) => print(&key),
        Err(error) => Reporter::new(false).failed(&error, None),
    }
}

fn derive(arguments: &Arguments) -> Result<Zeroizing<String>, Error> {
    let id = given::REGISTRATION_ID.require(arguments.registration_id.as_ref())?.parse()?;
    let file = Source::new(GROUP_KEY_FILE, &arguments.group_key_file);
    let group = group_key(&file, &file.text(&file.read()?)?)?;
    Ok(Zeroizing::new(format!("{}\n", *group.derive(&id).expose_base64())))
}
