//! The TPM: its flags, `dps tpm show` and `dps tpm sign`.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use dps_client::{
    Error, SasToken,
    tpm::{KeySource, Password, Tpm, TpmConfig, TpmSigningKey},
};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    device_file::ConfigFlag,
    files::Source,
    given::{self, Setting, named, wrong},
    output::print,
    report::{Context, Reporter},
    runtime,
    sas_token::Expiry,
};

/// The device that Linux has for it.
const DEFAULT: &str = "/dev/tpmrm0";

/// Which TPM, which of its handles, and the passwords of its hierarchies.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "TPM")]
pub(crate) struct TpmFlags {
    /// The TPM: /dev/tpmrm0, swtpm:HOST:PORT or swtpm:/PATH. It is the credential by itself; beside --cert or another
    /// credential it says where --key or --request-key is, /dev/tpmrm0 without it
    #[arg(long, value_name = "TPM")]
    pub(crate) tpm: Option<String>,
    /// Where the endorsement key is kept; 0x81010001 without it
    #[arg(long, value_name = "HANDLE")]
    tpm_endorsement_handle: Option<String>,
    /// Where the storage root key is kept; 0x81000001 without it
    #[arg(long, value_name = "HANDLE")]
    tpm_storage_handle: Option<String>,
    /// Where the key for the hub is kept; 0x81000100 without it
    #[arg(long, value_name = "HANDLE")]
    tpm_identity_handle: Option<String>,
    /// File with the password of the endorsement hierarchy
    #[arg(long, value_name = "FILE")]
    tpm_endorsement_password_file: Option<String>,
    /// File with the password of the owner hierarchy
    #[arg(long, value_name = "FILE")]
    tpm_owner_password_file: Option<String>,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  dps tpm show
  dps tpm sign --hub my-hub.azure-devices.net --device-id pump-17

`dps tpm COMMAND --help` has more.";

const SHOW_DETAILS: &str = "\
Both keys are made when the TPM has none yet, which can take it a minute. Put
the endorsement key and the registration id into an individual enrollment.

Examples:
  dps tpm show
  dps tpm show --json --tpm swtpm:localhost:2321";

const SIGN_DETAILS: &str = "\
Only the token is printed: the password of the device at its hub. Until it
expires it is as good as the key: keep it out of logs.

Examples:
  dps tpm sign --hub my-hub.azure-devices.net --device-id pump-17";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Prints the registration id and the public keys of a TPM, as an enrollment needs them
    #[command(after_help = SHOW_DETAILS)]
    Show(Show),
    /// Signs a SAS token for the hub, with the key that a registration put into the TPM
    #[command(after_help = SIGN_DETAILS)]
    Sign(Sign),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Prints one JSON object on one line of standard output, failures included
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: TpmFlags,
    #[command(flatten)]
    _file: ConfigFlag,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Sign {
    /// The hub that the device was assigned to
    #[arg(long, value_name = "HOST")]
    hub: Option<String>,
    /// The device's name at the hub
    #[arg(long, value_name = "ID")]
    device_id: Option<String>,
    #[command(flatten)]
    expiry: Expiry,
    #[command(flatten)]
    flags: TpmFlags,
    #[command(flatten)]
    _file: ConfigFlag,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    registration_id: String,
    endorsement_key: String,
    storage_root_key: String,
}

pub(crate) fn run(command: &Command) -> ExitCode {
    let reporter = match command {
        Command::Show(show) => match given::JSON.is_on(show.json) {
            Ok(json) => Reporter::new(json),
            Err(error) => return Reporter::for_people().failed(&error, &Context::default()),
        },
        Command::Sign(_) => Reporter::for_people(),
    };
    let text = runtime::block_on(|mut interrupts| async move {
        let text = async {
            match command {
                Command::Show(show) => show.text().await,
                Command::Sign(sign) => sign.token().await,
            }
        };
        tokio::select! {
            biased;
            () = interrupts.next() => Err(Error::Cancelled),
            text = text => text,
        }
    });
    match text {
        Ok(text) => print(&text),
        Err(error) => reporter.failed(&error, &Context::default()),
    }
}

impl Show {
    async fn text(&self) -> Result<Zeroizing<String>, Error> {
        let keys = self.flags.open()?.keys().await?;
        let shown = Shown {
            registration_id: keys.registration_id()?.to_string(),
            endorsement_key: keys.endorsement_key(),
            storage_root_key: keys.storage_root_key(),
        };
        let mut text = Zeroizing::new(String::new());
        // Writing to a String does not fail.
        let _ = if given::JSON.is_on(self.json)? {
            writeln!(text, "{}", serde_json::to_string(&shown).unwrap_or_default())
        } else {
            let Shown { registration_id, endorsement_key, storage_root_key } = &shown;
            writeln!(
                text,
                "registration id:  {registration_id}\nendorsement key:  {endorsement_key}\nstorage root key: {storage_root_key}"
            )
        };
        Ok(text)
    }
}

impl Sign {
    async fn token(&self) -> Result<Zeroizing<String>, Error> {
        let hub = given::HUB.require(self.hub.as_ref())?;
        let device_id = given::DEVICE_ID.require(self.device_id.as_ref())?;
        let expiry = self.expiry.find()?;
        let key = self.flags.open()?.stored_key();
        let token = SasToken::sign_for_hub(&key, &hub.text, &device_id.text, expiry).await?;
        Ok(Zeroizing::new(format!("{}\n", token.expose())))
    }
}

impl TpmFlags {
    #[cfg(test)]
    pub(crate) const NONE: Self = Self {
        tpm: None,
        tpm_endorsement_handle: None,
        tpm_storage_handle: None,
        tpm_identity_handle: None,
        tpm_endorsement_password_file: None,
        tpm_owner_password_file: None,
    };

    pub(crate) fn password_files(&self) -> Result<impl Iterator<Item = Source> + use<>, Error> {
        let (endorsement, owner) =
            (&self.tpm_endorsement_password_file, &self.tpm_owner_password_file);
        let endorsement = given::TPM_ENDORSEMENT_PASSWORD_FILE.file(endorsement.as_ref())?;
        let owner = given::TPM_OWNER_PASSWORD_FILE.file(owner.as_ref())?;
        Ok(endorsement.into_iter().chain(owner))
    }

    /// The TPM; it is not opened before it is asked something.
    pub(crate) fn open(&self) -> Result<Tpm, Error> {
        let address = match given::TPM.find(self.tpm.as_ref())? {
            Some(given) => given.parse()?,
            None => DEFAULT.parse()?,
        };
        let mut config = TpmConfig::new(address);
        for (setting, flag, handle) in [
            (
                given::TPM_ENDORSEMENT_HANDLE,
                &self.tpm_endorsement_handle,
                &mut config.endorsement_handle,
            ),
            (given::TPM_STORAGE_HANDLE, &self.tpm_storage_handle, &mut config.storage_handle),
            (given::TPM_IDENTITY_HANDLE, &self.tpm_identity_handle, &mut config.identity_handle),
        ] {
            if let Some(given) = setting.find(flag.as_ref())? {
                *handle = read_handle(&given)?;
            }
        }
        config.endorsement_password = password(
            given::TPM_ENDORSEMENT_PASSWORD_FILE,
            self.tpm_endorsement_password_file.as_ref(),
        )?;
        config.owner_password =
            password(given::TPM_OWNER_PASSWORD_FILE, self.tpm_owner_password_file.as_ref())?;
        Tpm::new(config)
    }

    /// Checks that the device is there, as far as that can be seen without a word to it.
    pub(crate) fn ensure_there(&self) -> Result<(), Error> {
        let is_device = |path: &str| {
            Path::new(path).metadata().is_ok_and(|there| !there.is_file() && !there.is_dir())
        };
        match given::TPM.find(self.tpm.as_ref())? {
            Some(given) if !given.text.starts_with("swtpm:") && !is_device(&given.text) => {
                Err(wrong(given.from, &given.text, "there is no such device on this machine"))
            }
            _ => Ok(()),
        }
    }

    /// A private key in the TPM. What the TPM is asked for it is asked aside.
    pub(crate) async fn signing_key(
        &self,
        source: KeySource,
        password: Password,
    ) -> Result<TpmSigningKey, Error> {
        let tpm = self.open()?;
        let key = tokio::task::spawn_blocking(move || TpmSigningKey::new(&tpm, &source, password));
        match key.await {
            Ok(key) => Ok(key?),
            Err(error) => Err(wrong(given::KEY.flag, "", &format!("it can't be read: {error}"))),
        }
    }
}

/// A handle in hexadecimal digits behind `0x`; the library says which ones are taken.
fn read_handle(given: &given::Given) -> Result<u32, Error> {
    let digits = given.text.strip_prefix("0x").or_else(|| given.text.strip_prefix("0X"));
    let handle = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let reason = "give a persistent handle, like 0x81000002";
    handle.ok_or_else(|| wrong(given.from, &given.text, reason))
}

/// The password in a file.
pub(crate) fn password(setting: Setting, flag: Option<&String>) -> Result<Password, Error> {
    let Some(file) = setting.file(flag)? else { return Ok(Password::default()) };
    Password::from_bytes(&file.read_password()?)
        .map_err(|error| named(file.from, &file.path, error))
}
