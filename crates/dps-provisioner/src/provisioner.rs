//! One device and its assignment: what is stored, when it is to register, and what its hub says.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::SystemTime,
};

use dps_client::{
    CertificateFolder, Client, ConfigurationError, Error, RegistrationRequest, StoredCertificate,
    Transport,
};

use crate::{
    assignment::{Assignment, Identity, Record, seconds},
    file::{AssignmentFile, Found},
    policy::{HubHistory, HubRefusal, NextStep, RecoveryPolicy},
};

/// A device's life around its registrations. It knows the client, and no transport.
///
/// Nothing here reads a clock: each method that needs the time takes it.
#[derive(Debug)]
pub struct Provisioner {
    file: AssignmentFile,
    identity: Identity,
    policy: RecoveryPolicy,
    certificate: Option<CertificateFolder>,
    record: Option<Record>,
    /// What is wrong with the file that was found.
    damage: Option<String>,
    not_stored: Option<Error>,
    /// Whether the file could be written when that was tried last.
    has_room: bool,
}

/// Why a device is to register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Due {
    /// No assignment is stored.
    Missing,
    /// What was stored can't be read any more.
    Damaged,
    /// What is stored is of another ID scope, registration id or endpoint.
    IdentityChanged,
    /// The hub gave cause for it, by the [`RecoveryPolicy`].
    HubRefused,
    /// The device's certificate is missing, can't be read, or is [due](StoredCertificate::renewal_due) for renewal.
    Certificate,
}

impl Provisioner {
    /// Reads what is stored. No network is touched, and nothing is written.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the file and what to do: it can't be read, a newer version wrote it, or it
    /// belongs to another program. A damaged one is no error: see [`Due::Damaged`].
    pub fn open(file: AssignmentFile, identity: Identity) -> Result<Self, Error> {
        let mut provisioner = Self {
            file,
            identity,
            policy: RecoveryPolicy::default(),
            certificate: None,
            record: None,
            damage: None,
            not_stored: None,
            has_room: false,
        };
        match provisioner.file.read()? {
            Found::Nothing => {}
            Found::Whole(record) => provisioner.record = Some(*record),
            Found::Damaged(reason) => provisioner.damage = Some(reason),
        }
        Ok(provisioner)
    }

    /// Sets what follows from a refusal of the hub.
    #[must_use]
    pub fn policy(mut self, policy: RecoveryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// A registration is due for the certificate in this folder too. Asking for one and storing it is up to the caller,
    /// or to an [`Agent`](crate::Agent).
    #[must_use]
    pub fn certificate(mut self, folder: CertificateFolder) -> Self {
        self.certificate = Some(folder);
        self
    }

    /// Who the device is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The assignment of this identity, if there is one. It stays in use while a registration is due, and after one that
    /// failed.
    #[must_use]
    pub fn assignment(&self) -> Option<&Assignment> {
        let stored = self.record.as_ref().map(|record| &record.assignment);
        stored.filter(|assignment| assignment.identity == self.identity)
    }

    /// What the hub did since the device was last connected to it.
    #[must_use]
    pub fn hub(&self) -> HubHistory {
        self.own_record().map(|record| record.hub).unwrap_or_default()
    }

    /// Why the device is to register now; `None` when the stored assignment is good.
    #[must_use]
    pub fn registration_due(&self, now: SystemTime) -> Option<Due> {
        match (&self.record, self.own_record()) {
            (None, _) if self.damage.is_some() => Some(Due::Damaged),
            (None, _) => Some(Due::Missing),
            (Some(_), None) => Some(Due::IdentityChanged),
            (_, Some(record)) if record.register_at.is_some_and(|at| at <= now) => {
                Some(Due::HubRefused)
            }
            _ => {
                let stored = self.certificate.as_ref().map(CertificateFolder::load);
                let is_due = |stored: StoredCertificate| stored.renewal_due(None) <= now;
                stored.is_some_and(|stored| stored.map_or(true, is_due)).then_some(Due::Certificate)
            }
        }
    }

    /// What is wrong with the file that was found, if it was damaged. The next registration keeps it aside as
    /// `FILE.damaged`.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Why what was to be stored last is not in the file, if that failed. It is in use all the same, and the next change
    /// stores it too.
    #[must_use]
    pub fn not_stored(&self) -> Option<&Error> {
        self.not_stored.as_ref()
    }

    /// Registers, and stores what comes. Whether that is due is for the caller to decide: one that was told to register
    /// calls this at any time. `transport` is the one that the client uses, to be remembered; a client that chooses among
    /// several says itself which one it took.
    ///
    /// # Errors
    /// Those of a registration, and before it [`Error::Configuration`] when the request is of another registration id, or
    /// when the file can't be written or another process has its lock. The former assignment stays stored and in use
    /// then. What comes and then can't be stored is no error: see [`not_stored`](Self::not_stored).
    ///
    /// # Cancel safety
    /// Dropping the future cancels the registration and changes nothing here.
    pub async fn register(
        &mut self,
        client: &Client,
        request: RegistrationRequest,
        transport: Option<Transport>,
        now: impl Fn() -> SystemTime,
    ) -> Result<&Assignment, Error> {
        let id = request.registration_id();
        if *id != self.identity.registration_id {
            let reason =
                format!("the assignment is to be that of {}", self.identity.registration_id);
            return Err(ConfigurationError::new("registration id", id.as_str(), &reason).into());
        }
        // Once is enough: a device whose service is away tries for days, and its disk may wear out.
        let file = if self.has_room { self.file.lock()? } else { self.file.prepare()? };
        self.has_room = true;
        let result = client.register(request).await?;
        // Another process may have met the hub since.
        let stored = match file.read() {
            Ok(Found::Whole(record)) => Some(*record),
            _ => self.record.take(),
        };
        let mut hub = stored
            .filter(|record| record.assignment.identity == self.identity)
            .map(|record| record.hub)
            .unwrap_or_default();
        hub.registered();
        let taken = result.transport.as_deref().and_then(|name| name.parse().ok());
        let transport = taken.or(transport);
        let identity = self.identity.clone();
        let stored_at = seconds::time(seconds::of(now()));
        let assignment = Assignment { identity, result, stored_at, transport };
        let record = Record { assignment, hub, register_at: None };
        self.not_stored = file.store(&record).err();
        self.has_room = self.not_stored.is_none();
        self.damage = None;
        Ok(&self.record.insert(record).assignment)
    }

    /// What to do after a connection to the hub ended so, or could not be made. The counts of it are stored.
    #[must_use]
    pub fn report(&mut self, refusal: HubRefusal, now: SystemTime) -> NextStep {
        let (policy, lot) = (self.policy, lot());
        let mut next = NextStep::Register { after: std::time::Duration::ZERO };
        self.change(|record| {
            next = policy.next(&mut record.hub, refusal, now, lot);
            record.register_at = match next {
                NextStep::Register { after } => now.checked_add(after),
                _ => None,
            };
        });
        next
    }

    /// The device is connected to its hub: all that was wrong before is forgotten.
    pub fn report_connected(&mut self) {
        self.change(|record| {
            record.hub.connected();
            record.register_at = None;
        });
    }

    pub(crate) fn folder(&self) -> Option<&CertificateFolder> {
        self.certificate.as_ref()
    }

    pub(crate) fn policy_in_use(&self) -> RecoveryPolicy {
        self.policy
    }

    /// When the hub's refusal has the device register, if it does.
    pub(crate) fn register_at(&self) -> Option<SystemTime> {
        self.own_record()?.register_at
    }

    fn own_record(&self) -> Option<&Record> {
        self.record.as_ref().filter(|record| record.assignment.identity == self.identity)
    }

    /// Changes what is stored of this identity, and stores it if it has changed.
    fn change(&mut self, change: impl FnOnce(&mut Record)) {
        let identity = &self.identity;
        let own = self.record.as_mut().filter(|record| record.assignment.identity == *identity);
        let Some(record) = own else { return };
        let former = record.clone();
        change(record);
        if *record == former && self.not_stored.is_none() {
            return;
        }
        self.not_stored = self.file.lock().and_then(|file| file.store(record)).err();
        if let Some(error) = &self.not_stored {
            tracing::warn!(%error, "what the hub did is not stored");
        }
    }
}

/// A random number from 0 to 1, for jitter. A new hasher has new keys: that needs no crate.
pub(crate) fn lot() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
