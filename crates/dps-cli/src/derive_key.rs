//! `dps derive-key`.

use std::process::ExitCode;

use dps_client::Error;
use zeroize::Zeroizing;

use crate::{
    credential::group_key,
    device_file::ConfigFlag,
    given::{self, wrong},
    output::print,
    report::{Context, Reporter},
};

const DETAILS: &str = "\
Only the key is printed, in base64. It is a secret: send it to a file that its
owner alone can read.

Examples:
  (umask 077; dps derive-key --registration-id pump-17 \\
      --group-key-file group.key > pump-17.key)
  vault read -field=key dps/group | dps derive-key \\
      --registration-id pump-17 --group-key-file -";

#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    /// The device's name at the service, exactly as it registers
    #[arg(long, value_name = "ID")]
    registration_id: Option<String>,
    /// File with the key of the enrollment group in base64; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    group_key_file: Option<String>,
    #[command(flatten)]
    _file: ConfigFlag,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match derive(arguments) {
        Ok(key) => print(&key),
        Err(error) => Reporter::for_people().failed(&error, &Context::default()),
    }
}

fn derive(arguments: &Arguments) -> Result<Zeroizing<String>, Error> {
    let id = given::REGISTRATION_ID.require(arguments.registration_id.as_ref())?.parse()?;
    let missing = "it is missing; give it, or set DPS_GROUP_KEY_FILE";
    let file = given::GROUP_KEY_FILE
        .file(arguments.group_key_file.as_ref())?
        .ok_or_else(|| wrong(given::GROUP_KEY_FILE.flag, "", missing))?;
    let group = group_key(&file, &file.text(&file.read()?)?)?;
    Ok(Zeroizing::new(format!("{}\n", *group.derive(&id).expose_base64())))
}
