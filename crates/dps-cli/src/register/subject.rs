//! What `dps register` would register with, for `dps doctor`: each part by itself, since what is wrong with one says nothing
//! about the others.

use std::{
    path::PathBuf,
    time::{Instant, SystemTime},
};

use dps_client::{Attestation, Config, Error, GroupKey, RegistrationId, SymmetricKey, Transport};
use dps_doctor::{Limits, Subject};
use dps_provisioner::Due;

use super::{
    Arguments, Plan, Registration, only_one_reads_stdin, payload_file, prepare::NO_FOLDER,
};
use crate::{
    credential::{self, Credential, KeyPlace},
    files::{Deadline, Source},
    given::{self, wrong},
    proof::Proofs,
};

/// A name for what needs one while the device's own is not known.
const NOBODY: &str = "nobody";

impl Arguments {
    /// The flags that every command about one device has.
    pub(crate) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Reads all of it. The hub is the one that was named, or else that of the stored assignment.
    pub(crate) async fn subject(&self, start: Instant) -> Result<Subject, Error> {
        let hub = self.hub()?;
        let registration = &self.registration;
        let timeout = registration.timeout()?;
        let deadline = Deadline { at: (start + timeout).into(), after: timeout };
        let flags = &registration.credential;
        let credentials = flags.aside(deadline, credential::Flags::choose).await;
        let ca_file = given::CA_FILE.file(registration.ca_file.as_ref())?;
        let payload_file = registration.payload()?.and_then(|payload| payload_file(&payload));
        let files = credentials.iter().flatten().flat_map(Credential::files);
        only_one_reads_stdin(files.chain(&ca_file).chain(&payload_file))?;
        let credential = credentials.map(|all| all.into_iter().next());
        let id = registration.id_of(credential.as_ref().ok().and_then(Option::as_ref)).await;
        let mut subject = registration.plain_subject(id, deadline).await?;
        subject.limits = Limits::within(timeout);
        let read = credential.as_ref().ok().and_then(Option::as_ref);
        let secrets = flags.secret_files()?;
        let keys = read.map(Credential::key_files).unwrap_or_default();
        let are_files = keys.into_iter().chain(&secrets).filter(|file| is_file(file));
        subject.key_files = are_files.map(|file| PathBuf::from(&file.path)).collect();
        let id = subject.registration_id.clone().or_else(|_| NOBODY.parse())?;
        match &credential {
            Ok(Some(credential)) => match credential.with_group_key(&id, deadline).await {
                Ok((attestation, group)) => {
                    subject.credential = Ok(attestation);
                    subject.group_key = group;
                }
                Err(error) => subject.credential = Err(error),
            },
            Ok(None) => {}
            Err(error) => subject.credential = Err(error.clone()),
        }
        subject.request = Some(registration.request(id, deadline).await);
        let plan = self.parts();
        let device = plan.as_ref().ok().and_then(|plan| registration.stored_device(plan).ok()?);
        let kept = device.as_ref().and_then(|device| device.assignment());
        let kept = kept.map(|kept| kept.result.assigned_hub.parse());
        subject.hub = hub.map(Ok).or(kept);
        let request_key = flags.aside(deadline, credential::Flags::request_key).await;
        subject.files = match (plan, request_key) {
            (Ok(plan), Ok(None)) if plan.writes_nothing() => None,
            (Ok(plan), Ok(key)) => {
                let given = read.map(std::slice::from_ref).unwrap_or_default();
                Some(self.odd_files(plan, &subject, given, key))
            }
            (Err(error), _) | (_, Err(error)) => Some(Err(error)),
        };
        Ok(subject)
    }

    /// What is odd about the files that are kept and written.
    ///
    /// # Errors
    /// What would end a registration before it begins.
    fn odd_files(
        &self,
        plan: Plan,
        subject: &Subject,
        given: &[Credential],
        request_key: Option<KeyPlace>,
    ) -> Result<Vec<String>, Error> {
        if plan.is_emulated {
            let reason = "a registration with it meets no network, and there is nothing to look at; leave it out";
            return Err(wrong(given::EMULATOR.flag, "", reason));
        }
        self.registration.ensure_files_apart(&plan)?;
        self.ensure_places(&plan)?;
        let due = self
            .registration
            .stored_device(&plan)?
            .and_then(|it| it.registration_due(SystemTime::now()));
        let path = plan.state.as_ref().map(|file| file.path().display()).into_iter();
        let odd = match due {
            Some(Due::Damaged) => Some("the stored assignment is damaged"),
            Some(Due::IdentityChanged) => {
                Some("the stored assignment is of another ID scope, registration id or endpoint")
            }
            _ => None,
        };
        if let (None, Some(key)) = (&plan.folder, &request_key) {
            return Err(key.source().wrong(NO_FOLDER));
        }
        if let Some(handover) = plan.handover {
            let read = subject.credential.iter().cloned().collect();
            handover.ready(&Proofs::new(read, given, plan.folder, request_key))?;
        }
        Ok(path.zip(odd).map(|(path, odd)| format!("{path}: {odd}")).collect())
    }
}

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

    /// Where it registers, by which way.
    async fn plain_subject(
        &self,
        registration_id: Result<RegistrationId, Error>,
        deadline: Deadline,
    ) -> Result<Subject, Error> {
        let id = registration_id.clone().or_else(|_| NOBODY.parse())?;
        let choice = self.transport();
        let any_transport = choice.as_ref().is_ok_and(|choice| choice.fixed().is_none());
        let transport = choice.map(|choice| choice.fixed().unwrap_or(Transport::Http));
        let mut subject =
            Subject::new(transport.clone().unwrap_or(Transport::Http), nothing()?, id);
        subject.transport = transport;
        subject.any_transport = any_transport;
        subject.endpoint = self.endpoint();
        subject.id_scope = self.device.id_scope();
        subject.proxy = self.proxy().map(Option::unwrap_or_default);
        subject.roots = self.roots(deadline).await;
        subject.registration_id = registration_id;
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

fn is_file(source: &Source) -> bool {
    !source.is_stdin() && PathBuf::from(&source.path).is_file()
}

/// What every part of is replaced.
fn nothing() -> Result<Config, Error> {
    Ok(Config::new("0ne".parse()?, SymmetricKey::from_bytes(b"the key of no device")?.into()))
}

impl Credential {
    /// Those of its files that hold a key.
    fn key_files(&self) -> Vec<&Source> {
        let files = self.files();
        let is_key =
            |file: &&Source| file.from != given::CERT.flag && file.from != given::CERT.variable;
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
