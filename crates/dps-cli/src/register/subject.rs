//! What `dps register` would register with, for `dps doctor`: each part by itself, since what is wrong with one says nothing
//! about the others.

use std::{path::PathBuf, time::Instant};

use dps_client::{Attestation, Config, Error, GroupKey, RegistrationId, SymmetricKey};
use dps_doctor::{Limits, Subject};

use super::{Registration, only_one_reads_stdin, payload_file};
use crate::{
    credential::{self, Credential},
    files::{Deadline, Source},
    given,
};

/// A name for what needs one while the device's own is not known.
const NOBODY: &str = "nobody";

impl Registration {
    /// Whether one JSON object is asked for.
    pub(crate) fn wants_json(&self) -> Result<bool, Error> {
        given::JSON.is_on(self.json)
    }

    /// Whether as little is asked for as there can be.
    pub(crate) fn wants_quiet(&self) -> Result<bool, Error> {
        given::QUIET.is_on(self.quiet)
    }

    /// How much more is asked for.
    pub(crate) fn verbosity(&self) -> Result<u8, Error> {
        self.verbosity.level()
    }

    /// Reads all of it.
    pub(crate) async fn subject(&self, start: Instant) -> Result<Subject, Error> {
        let timeout = self.timeout()?;
        let deadline = Deadline { at: (start + timeout).into(), after: timeout };
        let credentials = self.credential.aside(deadline, credential::Flags::choose).await;
        let ca_file = given::CA_FILE.file(self.ca_file.as_ref())?;
        let payload_file = self.payload()?.and_then(|payload| payload_file(&payload));
        let files = credentials.iter().flatten().flat_map(Credential::files);
        only_one_reads_stdin(files.chain(&ca_file).chain(&payload_file))?;
        let credential = credentials.map(|all| all.into_iter().next());
        let registration_id = self.id_of(credential.as_ref().ok().and_then(Option::as_ref)).await;
        let id = registration_id.clone().or_else(|_| NOBODY.parse())?;
        let choice = self.transport();
        let any_transport = choice.as_ref().is_ok_and(|choice| choice.fixed().is_none());
        let transport = choice.map(|choice| choice.fixed().unwrap_or(dps_client::Transport::Http));
        let mut subject = Subject::new(
            transport.clone().unwrap_or(dps_client::Transport::Http),
            nothing()?,
            id.clone(),
        );
        subject.transport = transport;
        subject.any_transport = any_transport;
        subject.endpoint = self.endpoint();
        subject.id_scope = self.device.id_scope();
        subject.proxy = self.proxy().map(Option::unwrap_or_default);
        subject.roots = self.roots(deadline).await;
        subject.registration_id = registration_id;
        subject.limits = Limits::within(timeout);
        match credential {
            Ok(Some(credential)) => {
                let files = credential.key_files();
                subject.key_files =
                    files.into_iter().map(|file| PathBuf::from(&file.path)).collect();
                match credential.with_group_key(&id, deadline).await {
                    Ok((attestation, group)) => {
                        subject.credential = Ok(attestation);
                        subject.group_key = group;
                    }
                    Err(error) => subject.credential = Err(error),
                }
            }
            Ok(None) => {}
            Err(error) => subject.credential = Err(error),
        }
        subject.request = Some(self.request(id, deadline).await);
        Ok(subject)
    }

    /// The registration id, which a TPM can give.
    async fn id_of(&self, credential: Option<&Credential>) -> Result<RegistrationId, Error> {
        match (self.device.find_id()?, credential) {
            (Some(id), _) => Ok(id),
            (None, Some(Credential::Tpm(tpm))) => tpm.keys().await?.registration_id(),
            (None, _) => self.device.registration_id(),
        }
    }
}

/// What every part of is replaced.
fn nothing() -> Result<Config, Error> {
    Ok(Config::new("0ne".parse()?, SymmetricKey::from_bytes(b"the key of no device")?.into()))
}

impl Credential {
    /// Those of its files that hold a key.
    fn key_files(&self) -> Vec<&Source> {
        let files = self.files();
        let is_key = |file: &&Source| {
            file.from != given::CERT.flag
                && file.from != given::CERT.variable
                && !file.is_stdin()
                && PathBuf::from(&file.path).is_file()
        };
        files.into_iter().filter(is_key).collect()
    }

    /// What it is, and the group's key if it is derived from one.
    async fn with_group_key(
        &self,
        id: &RegistrationId,
        deadline: Deadline,
    ) -> Result<(Attestation, Option<GroupKey>), Error> {
        match self {
            Self::GroupKeyFile(source) => {
                let group = credential::group_key(source, &source.text_until(deadline).await?)?;
                Ok((group.derive(id).into(), Some(group)))
            }
            other => Ok((other.load(id, deadline).await?, None)),
        }
    }
}
