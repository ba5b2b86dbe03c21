//! The credentials of a device, all of one kind, and where they came from.

use std::{sync::Arc, time::SystemTime};

use dps_client::{
    Attestation, ConfigurationError, Error, GroupKey, RegistrationId, RequestKey,
    StoredCertificate, SymmetricKey, X509Identity, parse_certificates,
    pkcs11::Pkcs11Key,
    tpm::{KeySource, Password, Tpm, TpmSigningKey},
};
use zeroize::Zeroizing;

use crate::{
    files::{Deadline, Source, aside},
    given::{
        CERT, GROUP_KEY_FILE, KEY, Level, REQUEST_KEY, SYMMETRIC_KEY, SYMMETRIC_KEY_FILE, TPM,
        TPM_KEY_PASSWORD_FILE, named, variable, wrong,
    },
    pkcs11::{Pkcs11Flags, TokenKey},
    tpm::{self, TpmFlags},
};

/// The credential, by flags, the environment or the configuration file, in this order. There may be several of one kind.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Credential (one kind)")]
pub(crate) struct Flags {
    /// File with the device's symmetric key in base64; `-` reads standard input. DPS_SYMMETRIC_KEY can hold the
    /// key itself. Given several times, each next key is tried when the service refuses the one before
    #[arg(long, value_name = "FILE")]
    symmetric_key_file: Vec<String>,
    /// File with the key of the enrollment group, from which the device's is derived; `-` reads standard input. For
    /// the factory: keep group keys off devices
    #[arg(long, value_name = "FILE")]
    group_key_file: Option<String>,
    /// File with the device's certificate, followed by its chain. Several are tried as several symmetric keys are
    #[arg(long, value_name = "PEM")]
    cert: Vec<String>,
    /// File with the certificate's private key, not encrypted; a TSS2 PRIVATE KEY is used by the TPM, and so is the key at
    /// tpm:HANDLE. A PKCS#11 token has it at a URI like 'pkcs11:token=T;object=K?pin-source=file:PATH'
    #[arg(long, value_name = "PEM|tpm:HANDLE|pkcs11:URI")]
    key: Vec<String>,
    /// Key of the certificate that is asked for, as --key has it; a new one on P-256 without it. One in a TPM or a token
    /// stays there, and only the chain is stored
    #[arg(long, value_name = "PEM|tpm:HANDLE|pkcs11:URI")]
    request_key: Option<String>,
    /// File with the password of the key that --key or --request-key names, if that is in a TPM
    #[arg(long, value_name = "FILE")]
    tpm_key_password_file: Option<String>,
    #[command(flatten)]
    pkcs11: Pkcs11Flags,
    #[command(flatten)]
    tpm: TpmFlags,
}

/// A credential that was chosen and not read yet.
#[derive(Debug)]
pub(crate) enum Credential {
    SymmetricKeyFile(Source),
    SymmetricKey(Zeroizing<String>),
    GroupKeyFile(Source),
    X509(Box<Certificate>),
    /// The one that is to be renewed.
    Stored(Box<StoredCertificate>, Option<Box<KeyPlace>>),
    Tpm(Tpm),
}

/// A certificate, and where its key is.
#[derive(Debug)]
pub(crate) struct Certificate {
    certificates: Source,
    key: KeyPlace,
}

/// Where a private key is.
#[derive(Clone, Debug)]
pub(crate) struct KeyPlace {
    /// Without a PIN.
    source: Source,
    token: Option<TokenKey>,
    password: Password,
    tpm: TpmFlags,
}

impl Flags {
    /// All files that they name, whichever of them is the credential.
    pub(crate) fn files(&self) -> Result<Vec<Source>, Error> {
        let mut keys = KEY.files(&self.key)?;
        keys.extend(REQUEST_KEY.file(self.request_key.as_ref())?);
        let mut files = SYMMETRIC_KEY_FILE.files(&self.symmetric_key_file)?;
        files.extend(GROUP_KEY_FILE.file(self.group_key_file.as_ref())?);
        files.extend(CERT.files(&self.cert)?);
        files.extend(self.secret_files()?);
        files.extend(self.pkcs11.files(&keys)?);
        files.extend(keys);
        Ok(files)
    }

    /// Whether a TPM is given, which may name the device.
    pub(crate) fn has_tpm(&self) -> Result<bool, Error> {
        Ok(TPM.find(self.tpm.tpm.as_ref())?.is_some())
    }

    /// As [`TpmFlags::ensure_there`].
    pub(crate) fn ensure_tpm_there(&self) -> Result<(), Error> {
        self.tpm.ensure_there()
    }

    /// Asks them for something, aside when files with passwords are read for it: they may be pipes.
    pub(crate) async fn aside<T: Send + 'static>(
        &self,
        deadline: Deadline,
        what: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if self.secret_files()?.is_empty() {
            return what(self);
        }
        let flags = self.clone();
        let done = aside(deadline, move || what(&flags)).await;
        done.map_err(|reason| wrong("file with a password or a PIN", "", &reason))?
    }

    /// As [`Self::find`], and at least one.
    pub(crate) fn choose(&self) -> Result<Vec<Credential>, Error> {
        let found = self.find(false)?;
        if found.is_empty() {
            return Err(wrong(
                "credential",
                "",
                "none was given; give --symmetric-key-file, DPS_SYMMETRIC_KEY in the environment, --group-key-file, --cert with --key, or --tpm",
            ));
        }
        Ok(found)
    }

    /// The credentials that were given, in the order in which they are tried, all of one kind: by flags, or else by
    /// variables. `has_stored` says whether a stored certificate stands in for them.
    pub(crate) fn find(&self, has_stored: bool) -> Result<Vec<Credential>, Error> {
        let Self { symmetric_key_file, group_key_file, cert, key, tpm, .. } = self;
        // What is from a lower level stands in for a flag, but adds no second credential to one.
        let levels = [
            SYMMETRIC_KEY_FILE.level(!symmetric_key_file.is_empty())?,
            variable(SYMMETRIC_KEY)?.map(|_| Level::Variable),
            GROUP_KEY_FILE.level(group_key_file.is_some())?,
            CERT.level(!cert.is_empty())?,
            KEY.level(!key.is_empty())?,
            TPM.level(tpm.tpm.is_some())?,
        ];
        let Some(level) = levels.iter().flatten().min().copied() else { return Ok(vec![]) };
        let [by_key_file, by_key, by_group, by_cert, by_cert_key, by_tpm] =
            levels.map(|of| of == Some(level));
        // Each kind behind its name, which says where it came from.
        let mut given = Vec::new();
        if by_key_file {
            let files = SYMMETRIC_KEY_FILE.files(symmetric_key_file)?;
            let from = SYMMETRIC_KEY_FILE.source(!symmetric_key_file.is_empty()).to_owned();
            given.push((from, files.into_iter().map(Credential::SymmetricKeyFile).collect()));
        }
        if by_group && let Some(file) = GROUP_KEY_FILE.file(group_key_file.as_ref())? {
            given.push((file.from.to_owned(), vec![Credential::GroupKeyFile(file)]));
        }
        if by_key && let Some(key) = variable(SYMMETRIC_KEY)? {
            let key = Credential::SymmetricKey(Zeroizing::new(key));
            given.push((SYMMETRIC_KEY.to_owned(), vec![key]));
        }
        // Beside a certificate it says where the TPM is that holds the key, and so it does beside another credential and a
        // key that a certificate is requested for.
        let holds_request_key = (has_stored || !given.is_empty())
            && REQUEST_KEY.find(self.request_key.as_ref())?.is_some();
        let with_certificate = by_cert || by_cert_key;
        if by_tpm && !with_certificate && !holds_request_key {
            let from = TPM.source(tpm.tpm.is_some()).to_owned();
            given.push((from, vec![Credential::Tpm(tpm.open()?)]));
        }
        let (certificates, keys) = match with_certificate {
            true => (CERT.files(cert)?, KEY.files(key)?),
            false => (vec![], vec![]),
        };
        if let Some(pairs) = self.certificates(certificates, keys)? {
            let names = [CERT.source(!cert.is_empty()), KEY.source(!key.is_empty())];
            given.push((names.join(" with "), pairs));
        }
        let names: Vec<&str> = given.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(" and ");
        match (given.pop(), given.is_empty()) {
            (Some((_, of_one_kind)), true) => Ok(of_one_kind),
            (Some(_), false) => Err(wrong(
                "credential",
                "",
                &format!("give one, or several of one kind; there are {names}"),
            )),
            (None, _) => Ok(vec![]),
        }
    }

    /// Each certificate with its key; `None` when there is none.
    fn certificates(
        &self,
        certificates: Vec<Source>,
        keys: Vec<Source>,
    ) -> Result<Option<Vec<Credential>>, Error> {
        match (certificates.first(), keys.first()) {
            (None, None) => return Ok(None),
            (Some(cert), None) => return Err(wrong(cert.from, "", "it needs --key too")),
            (None, Some(key)) => return Err(wrong(key.from, "", "it needs --cert too")),
            (Some(cert), Some(_)) if certificates.len() != keys.len() => {
                let (all, of) = (certificates.len(), keys.len());
                let reason = format!("there are {all} of it and {of} of --key; give one for each");
                return Err(wrong(cert.from, "", &reason));
            }
            (Some(_), Some(_)) => {}
        }
        let password = self.key_password()?;
        let pairs = certificates.into_iter().zip(keys).map(|(certificates, key)| {
            let of = Certificate { certificates, key: self.place(key, password.clone())? };
            Ok(Credential::X509(Box::new(of)))
        });
        pairs.collect::<Result<_, Error>>().map(Some)
    }

    /// Where the key is that a certificate is requested for, if one was given.
    pub(crate) fn request_key(&self) -> Result<Option<KeyPlace>, Error> {
        let given = REQUEST_KEY.file(self.request_key.as_ref())?;
        given.map(|key| self.place(key, self.key_password()?)).transpose()
    }

    fn key_password(&self) -> Result<Password, Error> {
        tpm::password(TPM_KEY_PASSWORD_FILE, self.tpm_key_password_file.as_ref())
    }

    fn place(&self, key: Source, password: Password) -> Result<KeyPlace, Error> {
        let token = self.pkcs11.key(&key)?;
        let source = token.as_ref().map_or(key, |token| token.source.clone());
        Ok(KeyPlace { source, token, password, tpm: self.tpm.clone() })
    }
}

impl Flags {
    /// Files with a PIN or a password, which may be given beside any credential.
    pub(crate) fn secret_files(&self) -> Result<Vec<Source>, Error> {
        let key = TPM_KEY_PASSWORD_FILE.file(self.tpm_key_password_file.as_ref())?;
        let others = [key, self.pkcs11.pin_file()?].into_iter().flatten();
        Ok(others.chain(self.tpm.password_files()?).collect())
    }
}

impl Credential {
    /// The files that it is in.
    pub(crate) fn files(&self) -> Vec<&Source> {
        match self {
            Self::SymmetricKeyFile(file) | Self::GroupKeyFile(file) => vec![file],
            Self::SymmetricKey(_) | Self::Stored(..) | Self::Tpm(_) => vec![],
            Self::X509(of) => vec![&of.certificates, &of.key.source],
        }
    }

    /// Reads its files, and checks that it can be the device's. Its dates are for [`Self::check`] to judge, or for the transport
    /// at the registration.
    pub(crate) async fn read(
        &self,
        registration_id: &RegistrationId,
        deadline: Deadline,
    ) -> Result<Attestation, Error> {
        let attestation = self.load(registration_id, deadline).await?;
        match self.check(&attestation, registration_id) {
            Err(error) if !error.is_retryable() => Err(error),
            _ => Ok(attestation),
        }
    }

    /// Checks what was read, its dates too. The transport does so too, but does not know the file.
    pub(crate) fn check(
        &self,
        read: &Attestation,
        registration_id: &RegistrationId,
    ) -> Result<(), Error> {
        let Attestation::X509(identity) = read else { return Ok(()) };
        let checked = identity.preflight(registration_id, SystemTime::now());
        checked.map_err(|error| match self {
            Self::X509(of) => blamed(error, &of.certificates, &of.key.source),
            _ => error,
        })
    }

    /// The names of the files with the certificate and its key, or the URI of that. Standard input has no name.
    pub(crate) fn certificate_files(&self) -> Option<(String, String)> {
        match self {
            Self::X509(of) if !of.certificates.is_stdin() => {
                Some((of.certificates.path.clone(), of.key.name()?))
            }
            _ => None,
        }
    }

    /// Reads its files.
    pub(crate) async fn load(
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
            Self::Tpm(tpm) => Ok(Attestation::from_tpm(tpm.clone())),
            Self::Stored(stored, key) => {
                let identity = match key {
                    Some(key) => key.private_key(deadline).await?.identity(stored.chain_pem())?,
                    None => stored.identity()?,
                };
                Ok(identity.into())
            }
            Self::X509(of) => {
                let chain = of.certificates.read_until(deadline).await?;
                let blame = |error| blamed(error, &of.certificates, &of.key.source);
                let key = of.key.private_key(deadline).await?;
                key.identity(&chain).map_err(blame).map(Into::into)
            }
        }
    }
}

/// The private key of a certificate.
enum PrivateKey {
    Here(Zeroizing<Vec<u8>>),
    InTpm(TpmSigningKey),
    InToken(Pkcs11Key),
}

impl PrivateKey {
    /// The key with the certificates that it belongs to.
    fn identity(self, chain: &[u8]) -> Result<X509Identity, Error> {
        let certificates = || parse_certificates(chain);
        match self {
            Self::Here(private) => X509Identity::from_pem(chain, &private),
            Self::InTpm(key) => X509Identity::from_signing_key(certificates()?, Arc::new(key)),
            Self::InToken(key) => X509Identity::from_signing_key(certificates()?, Arc::new(key)),
        }
    }
}

impl KeyPlace {
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// The name of its file, or the URI without a PIN. Standard input has no name.
    pub(crate) fn name(&self) -> Option<String> {
        match &self.token {
            Some(token) => Some(token.name()),
            None => (!self.source.is_stdin()).then(|| self.source.path.clone()),
        }
    }

    /// The key, to request a certificate for.
    pub(crate) async fn request_key(&self, deadline: Deadline) -> Result<RequestKey, Error> {
        let key = match self.private_key(deadline).await? {
            PrivateKey::Here(private) => RequestKey::from_pem(&private),
            PrivateKey::InTpm(key) => RequestKey::from_signing_key(Arc::new(key)),
            PrivateKey::InToken(key) => RequestKey::from_signing_key(Arc::new(key)),
        };
        key.map_err(|error| named(self.source.from, &self.source.path, error))
    }

    /// Reads it: a file, a handle of the TPM, or the URI of a token's key.
    async fn private_key(&self, deadline: Deadline) -> Result<PrivateKey, Error> {
        let Self { source: key, token, password, tpm } = self;
        if let Some(token) = token {
            return Ok(PrivateKey::InToken(token.open_until(deadline).await?));
        }
        let in_tpm = if key.path.starts_with("tpm:") {
            key.path.parse().map_err(|error| named(key.from, "", error))?
        } else {
            let content = key.read_until(deadline).await?;
            if !KeySource::is_key_file(&content) {
                return Ok(PrivateKey::Here(content));
            }
            KeySource::File(key.text(&content)?.to_string())
        };
        Ok(PrivateKey::InTpm(tpm.signing_key(in_tpm, password.clone()).await?))
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
    let ConfigurationError { field, value, reason, retryable, .. } = &*error;
    let source = if *field == "private key" { key } else { certificates };
    let reason = match value.as_str() {
        "" => reason.clone(),
        value => format!("{value}: {reason}"),
    };
    let mut blamed = ConfigurationError::new(source.from, source.path.as_str(), &reason);
    blamed.retryable = *retryable;
    blamed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Flags = Flags {
        symmetric_key_file: vec![],
        group_key_file: None,
        cert: vec![],
        key: vec![],
        request_key: None,
        tpm_key_password_file: None,
        pkcs11: Pkcs11Flags::NONE,
        tpm: TpmFlags::NONE,
    };

    fn files(number: usize) -> Vec<String> {
        vec!["f".to_owned(); number]
    }

    #[test]
    fn several_kinds_of_credentials_are_refused_by_name() {
        let both = Flags { symmetric_key_file: files(1), group_key_file: files(1).pop(), ..NONE };
        let message = both.choose().unwrap_err().to_string();
        assert!(message.ends_with("--symmetric-key-file and --group-key-file"), "{message}");
        let all = Flags { cert: files(1), key: files(1), ..both };
        let message = all.choose().unwrap_err().to_string();
        assert!(message.ends_with("--group-key-file and --cert with --key"), "{message}");
    }

    #[test]
    fn a_tpm_that_holds_the_key_of_a_request_is_no_credential_beside_another_one() {
        let mut tpm = TpmFlags::NONE;
        tpm.tpm = Some("/dev/tpmrm0".to_owned());
        let request_key = Some("tpm:0x81000002".to_owned());
        let alone = Flags { request_key, tpm, ..NONE };
        assert!(matches!(&alone.find(false).unwrap()[..], [Credential::Tpm(_)]));
        assert!(alone.find(true).unwrap().is_empty(), "the stored certificate is the credential");
        let beside = Flags { symmetric_key_file: files(1), ..alone };
        assert!(matches!(&beside.find(false).unwrap()[..], [Credential::SymmetricKeyFile(_)]));
        let without = Flags { request_key: None, ..beside };
        assert!(without.find(false).is_err(), "two kinds of credentials");
    }

    #[test]
    fn several_credentials_of_one_kind_are_taken_in_their_order() {
        let keys = Flags { symmetric_key_file: vec!["a".to_owned(), "b".to_owned()], ..NONE };
        let keys = keys.choose().unwrap();
        let paths: Vec<&str> = keys.iter().flat_map(|key| key.files()).map(|f| &*f.path).collect();
        assert_eq!(paths, ["a", "b"]);
        for (certs, keys, says) in [
            (2, 1, "--cert: there are 2 of it and 1 of --key; give one for each"),
            (1, 2, "--cert: there are 1 of it and 2 of --key; give one for each"),
            (1, 0, "--cert: it needs --key too"),
            (0, 2, "--key: it needs --cert too"),
        ] {
            let flags = Flags { cert: files(certs), key: files(keys), ..NONE };
            assert_eq!(flags.choose().unwrap_err().to_string(), says, "{certs} and {keys}");
        }
        let flags = Flags { cert: files(3), key: files(3), ..NONE };
        assert_eq!(flags.choose().unwrap().len(), 3);
    }
}
