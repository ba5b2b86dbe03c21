//! The one credential of a device, and where it came from.

use std::time::SystemTime;

use dps_client::{
    Attestation, ConfigurationError, Error, GroupKey, RegistrationId, SymmetricKey, X509Identity,
};
use zeroize::Zeroizing;

use crate::{
    files::{Deadline, Source},
    given::{
        CERT, GROUP_KEY_FILE, KEY, SYMMETRIC_KEY, SYMMETRIC_KEY_FILE, Setting, named, variable,
        wrong,
    },
};

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
    #[arg(long, value_name = "PEM")]
    cert: Option<String>,
    /// File with the certificate's private key, not encrypted
    #[arg(long, value_name = "PEM")]
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
    /// The one credential that was given: by flags, or else by variables.
    pub(crate) fn choose(&self) -> Result<Credential, Error> {
        let Self { symmetric_key_file, group_key_file, cert, key } = self;
        let flags = [symmetric_key_file, group_key_file, cert, key];
        // A variable stands in for a flag, but adds no second credential to one.
        let by_flag = flags.iter().any(|flag| flag.is_some());
        let find = |setting: Setting, flag: &Option<String>| match flag {
            None if by_flag => Ok(None),
            flag => setting.file(flag.as_ref()),
        };
        let certificate = cert.is_some() || key.is_some() || !by_flag;
        let [cert, key] = if certificate {
            [CERT.file(cert.as_ref())?, KEY.file(key.as_ref())?]
        } else {
            [None, None]
        };
        let mut given = Vec::new();
        if let Some(file) = find(SYMMETRIC_KEY_FILE, symmetric_key_file)? {
            given.push((file.from, Credential::SymmetricKeyFile(file)));
        }
        if let Some(file) = find(GROUP_KEY_FILE, group_key_file)? {
            given.push((file.from, Credential::GroupKeyFile(file)));
        }
        match (cert, key) {
            (Some(certificates), Some(key)) => {
                given.push(("--cert with --key", Credential::X509 { certificates, key }));
            }
            (Some(cert), None) => return Err(wrong(cert.from, "", "it needs --key too")),
            (None, Some(key)) => return Err(wrong(key.from, "", "it needs --cert too")),
            (None, None) => {}
        }
        if !by_flag && let Some(key) = variable(SYMMETRIC_KEY)? {
            given.push((SYMMETRIC_KEY, Credential::SymmetricKey(Zeroizing::new(key))));
        }
        let names: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
        let names = names.join(" and ");
        match (given.pop(), given.is_empty()) {
            (Some((_, only)), true) => Ok(only),
            (Some(_), false) => {
                Err(wrong("credential", "", &format!("give one; there are {names}")))
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
