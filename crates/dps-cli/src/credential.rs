//! The one credential of a device, and where it came from.

use std::time::SystemTime;

use dps_client::{
    Attestation, ConfigurationError, Error, GroupKey, RegistrationId, SymmetricKey, X509Identity,
};
use zeroize::Zeroizing;

use crate::{
    files::{Deadline, Source},
    given::{named, variable, wrong},
};

pub(crate) const SYMMETRIC_KEY_FILE: &str = "--symmetric-key-file";
pub(crate) const GROUP_KEY_FILE: &str = "--group-key-file";
pub(crate) const SYMMETRIC_KEY: &str = "DPS_SYMMETRIC_KEY";
const CERT: &str = "--cert";
const KEY: &str = "--key";

/// One credential, by a flag or by the environment; a flag wins over the environment.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Credential (exactly one)")]
pub(crate) struct Flags {
    /// File with the device's symmetric key in base64; `-` reads standard input. DPS_SYMMETRIC_KEY can hold the
    /// key itself
    #[arg(long, value_name = "FILE")]
    symmetric_key_file: Option<String>,
    /// File with the key of the enrollment group, from which the device's is derived; `-` reads standard input. For
    /// the factory: keep group keys off devices
    #[arg(long, value_name = "FILE")]
    group_key_file: Option<String>,
    /// File with the device's certificate, followed by its chain
    #[arg(long, value_name = "PEM", requires = "key")]
    cert: Option<String>,
    /// File with the certificate's private key, not encrypted
    #[arg(long, value_name = "PEM", requires = "cert")]
    key: Option<String>,
}

/// A credential that was chosen and not read yet.
#[derive(Debug)]
pub(crate) enum Credential {
    SymmetricKeyFile(Source),
    SymmetricKey(Zeroizing<String>),
    GroupKeyFile(Source),
    X509 { certificates: Source, key: Source },
}

impl Flags {
    /// The one credential that was given.
    pub(crate) fn choose(&self) -> Result<Credential, Error> {
        let Self { symmetric_key_file, group_key_file, cert, key } = self;
        let x509 = cert.as_ref().zip(key.as_ref());
        let mut given = Vec::new();
        let mut names = Vec::new();
        if let Some(path) = symmetric_key_file {
            given.push(Credential::SymmetricKeyFile(Source::new(SYMMETRIC_KEY_FILE, path)));
            names.push(SYMMETRIC_KEY_FILE);
        }
        if let Some(path) = group_key_file {
            given.push(Credential::GroupKeyFile(Source::new(GROUP_KEY_FILE, path)));
            names.push(GROUP_KEY_FILE);
        }
        if let Some((cert, key)) = x509 {
            let (certificates, key) = (Source::new(CERT, cert), Source::new(KEY, key));
            given.push(Credential::X509 { certificates, key });
            names.push("--cert with --key");
        }
        if given.is_empty()
            && let Some(key) = variable(SYMMETRIC_KEY)?
        {
            return Ok(Credential::SymmetricKey(Zeroizing::new(key)));
        }
        match (given.pop(), given.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(_), false) => {
                let reason = format!("give one; there are {}", names.join(" and "));
                Err(wrong("credential", "", &reason))
            }
            (None, _) => Err(wrong(
                "credential",
                "",
                "none was given; give --symmetric-key-file, DPS_SYMMETRIC_KEY in the environment, --group-key-file, or --cert with --key",
            )),
        }
    }
}

impl Credential {
    /// The files that it is in.
    pub(crate) fn files(&self) -> Vec<&Source> {
        match self {
            Self::SymmetricKeyFile(file) | Self::GroupKeyFile(file) => vec![file],
            Self::SymmetricKey(_) => vec![],
            Self::X509 { certificates, key } => vec![certificates, key],
        }
    }

    /// Reads its files.
    pub(crate) async fn read(
        &self,
        registration_id: &RegistrationId,
        deadline: Deadline,
    ) -> Result<Attestation, Error> {
        match self {
            Self::SymmetricKeyFile(source) => {
                symmetric_key(source, &source.text_until(deadline).await?).map(Into::into)
            }
            Self::SymmetricKey(text) => {
                let key: SymmetricKey =
                    text.parse().map_err(|error| named(SYMMETRIC_KEY, "", error))?;
                Ok(key.into())
            }
            Self::GroupKeyFile(source) => {
                let group = group_key(source, &source.text_until(deadline).await?)?;
                Ok(group.derive(registration_id).into())
            }
            Self::X509 { certificates, key } => {
                let chain = certificates.read_until(deadline).await?;
                let private = key.read_until(deadline).await?;
                let blame = |error| blamed(error, certificates, key);
                let identity = X509Identity::from_pem(&chain, &private).map_err(blame)?;
                // The transport does so too, but does not know the file.
                identity.preflight(registration_id, SystemTime::now()).map_err(blame)?;
                Ok(identity.into())
            }
        }
    }
}

/// The device's key, as a file has it.
pub(crate) fn symmetric_key(source: &Source, text: &str) -> Result<SymmetricKey, Error> {
    text.parse().map_err(|error| named(source.from, &source.path, error))
}

/// The key of a group, as a file has it.
pub(crate) fn group_key(source: &Source, text: &str) -> Result<GroupKey, Error> {
    text.parse().map_err(|error| named(source.from, &source.path, error))
}

/// Names the file of the two that the error is about.
fn blamed(error: Error, certificates: &Source, key: &Source) -> Error {
    let Error::Configuration(error) = error else { return error };
    let ConfigurationError { field, value, reason, .. } = &*error;
    let source = if *field == "private key" { key } else { certificates };
    match value.as_str() {
        "" => source.wrong(reason),
        value => source.wrong(&format!("{value}: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Flags =
        Flags { symmetric_key_file: None, group_key_file: None, cert: None, key: None };

    #[test]
    fn several_credentials_are_refused_by_name() {
        let file = || Some("f".to_owned());
        let both = Flags { symmetric_key_file: file(), group_key_file: file(), ..NONE };
        let message = both.choose().unwrap_err().to_string();
        assert!(message.ends_with("--symmetric-key-file and --group-key-file"), "{message}");
        let all = Flags { cert: file(), key: file(), ..both };
        let message = all.choose().unwrap_err().to_string();
        assert!(message.ends_with("--group-key-file and --cert with --key"), "{message}");
    }
}
