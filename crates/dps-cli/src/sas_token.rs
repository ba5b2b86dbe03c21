//! `dps sas-token`.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dps_client::{Error, SasToken, SymmetricKey};
use zeroize::Zeroizing;

use crate::{
    credential::{SYMMETRIC_KEY, SYMMETRIC_KEY_FILE, symmetric_key},
    files::Source,
    given::{self, named, variable, wrong},
    report::{Reporter, print},
};

/// The last second that a four-digit year has: the end of 9999.
const LATEST: u64 = 253_402_300_799;

const DETAILS: &str = "\
Only the token is printed. Until it expires it is as good as the key: keep it out of logs.

Examples:
  dps sas-token --id-scope 0ne00AABBCC --registration-id pump-17 --symmetric-key-file pump-17.key
  dps sas-token --id-scope 0ne00AABBCC --registration-id pump-17 --symmetric-key-file - \\
      --expiry 1893456000 < pump-17.key";

#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    #[command(flatten)]
    device: given::Device,
    /// File with the device's symmetric key in base64; `-` reads standard input. DPS_SYMMETRIC_KEY can hold the
    /// key itself
    #[arg(long, value_name = "FILE")]
    symmetric_key_file: Option<String>,
    /// How long the token is good for, from now on
    #[arg(long, value_name = "SECONDS", default_value = "3600", allow_negative_numbers = true)]
    expires_in: String,
    /// When the token expires, in seconds since 1970
    #[arg(long, value_name = "UNIX", conflicts_with = "expires_in", allow_negative_numbers = true)]
    expiry: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match sign(arguments) {
        Ok(token) => print(&token),
        Err(error) => Reporter::new(false).failed(&error, None),
    }
}

fn sign(arguments: &Arguments) -> Result<Zeroizing<String>, Error> {
    let (id_scope, id) = arguments.device.require()?;
    let expiry = arguments.expiry()?;
    let token = SasToken::sign(&arguments.key()?, &id_scope, &id, expiry);
    Ok(Zeroizing::new(format!("{}\n", token.expose())))
}

impl Arguments {
    fn expiry(&self) -> Result<SystemTime, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (flag, text, from) = match &self.expiry {
            Some(text) => ("--expiry", text, 0),
            None => ("--expires-in", &self.expires_in, now),
        };
        let at = text.parse::<u64>().ok().and_then(|seconds| from.checked_add(seconds));
        at.filter(|at| *at > from && *at <= LATEST)
            .and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at)))
            .ok_or_else(|| {
                wrong(
                    flag,
                    text,
                    "give a whole number of seconds, at least 1 and none past the year 9999",
                )
            })
    }

    fn key(&self) -> Result<SymmetricKey, Error> {
        if let Some(path) = &self.symmetric_key_file {
            let file = Source::new(SYMMETRIC_KEY_FILE, path);
            return symmetric_key(&file, &file.text(&file.read()?)?);
        }
        let missing = "it is missing; give it, or set DPS_SYMMETRIC_KEY";
        let key = variable(SYMMETRIC_KEY)?.map(Zeroizing::new);
        key.ok_or_else(|| wrong(SYMMETRIC_KEY_FILE, "", missing))?
            .parse()
            .map_err(|error| named(SYMMETRIC_KEY, "", error))
    }
}
