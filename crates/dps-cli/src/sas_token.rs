//! `dps sas-token`.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dps_client::{Error, SasToken, SymmetricKey};
use zeroize::Zeroizing;

use crate::{
    credential::symmetric_key,
    given::{self, Given, Level, SYMMETRIC_KEY, named, variable, wrong},
    output::print,
    report::{Context, Reporter},
};

/// The last second that a four-digit year has: the end of 9999.
const LATEST: u64 = 253_402_300_799;

/// How long a token is good for if nothing else is said, in seconds.
const LIFETIME: u64 = 3600;

const DETAILS: &str = "\
Only the token is printed. Until it expires it is as good as the key: keep it
out of logs.

Examples:
  dps sas-token --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key
  dps sas-token --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file - --expiry 1893456000 < pump-17.key";

#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    #[command(flatten)]
    device: given::Device,
    /// File with the device's symmetric key in base64; `-` reads standard input. DPS_SYMMETRIC_KEY can hold the
    /// key itself
    #[arg(long, value_name = "FILE")]
    symmetric_key_file: Option<String>,
    #[command(flatten)]
    expiry: Expiry,
}

/// When a token expires.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Expiry {
    /// How long the token is good for, from now on; 3600 without it
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    expires_in: Option<String>,
    /// When the token expires, in seconds since 1970
    #[arg(long, value_name = "UNIX", conflicts_with = "expires_in", allow_negative_numbers = true)]
    expiry: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match sign(arguments) {
        Ok(token) => print(&token),
        Err(error) => Reporter::for_people().failed(&error, &Context::default()),
    }
}

fn sign(arguments: &Arguments) -> Result<Zeroizing<String>, Error> {
    let (id_scope, id) = arguments.device.require()?;
    let expiry = arguments.expiry.find()?;
    let token = SasToken::sign(&arguments.key()?, &id_scope, &id, expiry);
    Ok(Zeroizing::new(format!("{}\n", token.expose())))
}

impl Expiry {
    pub(crate) fn find(&self) -> Result<SystemTime, Error> {
        let expiry = given::EXPIRY.find(self.expiry.as_ref())?;
        let (Given { from: flag, text }, from) = match expiry {
            Some(expiry) if self.expires_in.is_none() => (expiry, 0),
            _ => {
                let expires_in = given::EXPIRES_IN.find(self.expires_in.as_ref())?;
                let default = || Given { from: given::EXPIRES_IN.flag, text: LIFETIME.to_string() };
                (expires_in.unwrap_or_else(default), now()?)
            }
        };
        let at = text.parse::<u64>().ok().and_then(|seconds| from.checked_add(seconds));
        at.filter(|at| *at > from && *at <= LATEST)
            .and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at)))
            .ok_or_else(|| {
                wrong(
                    flag,
                    &text,
                    "give a whole number of seconds, at least 1 and none past the year 9999",
                )
            })
    }
}

impl Arguments {
    fn key(&self) -> Result<SymmetricKey, Error> {
        let flag = self.symmetric_key_file.as_ref();
        let mut file = given::SYMMETRIC_KEY_FILE.file(flag)?;
        let mut key = variable(SYMMETRIC_KEY)?.map(Zeroizing::new);
        match given::SYMMETRIC_KEY_FILE.level(flag.is_some())? {
            Some(Level::Flag) => key = None,
            Some(Level::File) if key.is_some() => file = None,
            _ => {}
        }
        match (file, key) {
            (Some(file), None) => symmetric_key(&file, &file.text(&file.read()?)?),
            (None, Some(key)) => key.parse().map_err(|error| named(SYMMETRIC_KEY, "", error)),
            (Some(file), Some(_)) => {
                let reason = format!("give one; there are {} and {SYMMETRIC_KEY}", file.from);
                Err(wrong("credential", "", &reason))
            }
            (None, None) => {
                let missing = "it is missing; give it, or set DPS_SYMMETRIC_KEY";
                Err(wrong(given::SYMMETRIC_KEY_FILE.flag, "", missing))
            }
        }
    }
}

/// Seconds since 1970.
fn now() -> Result<u64, Error> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| {
        let reason = "it is before 1970, and a token needs the time; set the clock of this machine";
        wrong("clock", "", reason)
    })?;
    Ok(since.as_secs())
}
