//! One device and its assignment: what is stored, when it is to register, and what its hub says.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::{Duration, SystemTime},
};

use dps_client::{
    Attestation, CertificateFolder, Client, ConfigurationError, Error, IssuedCertificates,
    RegistrationRequest, StoredCertificate, Transport,
};

use crate::{
    assignment::{Assignment, Identity, Record, seconds},
    file::{AssignmentFile, Found, PreparedFile},
    policy::{HubHistory, HubRefusal, LONGEST_RETRY_AFTER, NextStep, RecoveryPolicy},
    wait::Wait,
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
    credentials: Vec<Attestation>,
    record: Option<Record>,
    /// The assignment that the file had when it was read or written last. Another one there comes from another process.
    in_file: Option<Assignment>,
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
    /// The device's certificate is missing, can't be read, is that of another device, or is
    /// [due](StoredCertificate::renewal_due) for renewal, and is not [put off](Provisioner::put_certificate_off).
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
            credentials: Vec::new(),
            record: None,
            in_file: None,
            damage: None,
            not_stored: None,
            has_room: false,
        };
        match provisioner.file.read()? {
            Found::Nothing => {}
            Found::Whole(record) => {
                provisioner.in_file = Some(record.assignment.clone());
                provisioner.record = Some(*record);
            }
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

    /// Names the device's credentials, in the order in which the client tries them. Which one the service took is stored by
    /// its fingerprint then, and [found again](Assignment::credential_among) whatever others there are later.
    #[must_use]
    pub fn credentials(mut self, credentials: impl IntoIterator<Item = Attestation>) -> Self {
        self.credentials = credentials.into_iter().collect();
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

    /// Why the device is to register now; `None` when the stored assignment is good. A clock that is wrong or was set puts
    /// no registration off for longer than it was to wait.
    #[must_use]
    pub fn registration_due(&self, now: SystemTime) -> Option<Due> {
        let is_over = |wait: Wait| wait.left(now).is_zero();
        self.assignment_due().or_else(|| match self.hub_wait() {
            Some(wait) if is_over(wait) => Some(Due::HubRefused),
            _ => {
                let is_due = self.certificate_due_in(now).is_some_and(|left| left.is_zero());
                (is_due && self.certificate_wait().is_none_or(is_over)).then_some(Due::Certificate)
            }
        })
    }

    /// Why there is no assignment.
    pub(crate) fn assignment_due(&self) -> Option<Due> {
        match (&self.record, self.own_record()) {
            (None, _) if self.damage.is_some() => Some(Due::Damaged),
            (None, _) => Some(Due::Missing),
            (Some(_), None) => Some(Due::IdentityChanged),
            _ => None,
        }
    }

    /// How long it is until a certificate is due by its dates; `None` when the device is to have none.
    pub(crate) fn certificate_due_in(&self, now: SystemTime) -> Option<Duration> {
        self.certificate.as_ref()?;
        let stored = self.stored_certificate();
        let due = stored.and_then(|it| it.renewal_due(None).duration_since(now).ok());
        Some(due.unwrap_or_default())
    }

    /// What is wrong with the file that was found, if it was damaged. The next registration keeps it aside as
    /// `FILE.damaged`.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Why what was to be stored last is not in the file, if that failed. It is in use all the same, and the next change
    /// stores it too. An [`Agent`](crate::Agent) tries it again each minute.
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
        let asks = request.requests_certificate();
        let result = client.register(request).await?;
        // Another process may have met the hub since.
        let stored = match file.read() {
            Ok(Found::Whole(record)) => Some(*record),
            _ => self.record.take(),
        };
        let (mut hub, certificate_wait) = stored
            .filter(|record| record.assignment.identity == self.identity)
            .map(|record| (record.hub, record.certificate_wait))
            .unwrap_or_default();
        hub.registered();
        let certificate_wait = certificate_wait.filter(|_| !asks);
        let taken = result.transport.as_deref().and_then(|name| name.parse().ok());
        let transport = taken.or(transport);
        let identity = self.identity.clone();
        let stored_at = seconds::time(seconds::of(now()));
        let credential = self.credentials.get(result.credential);
        let credential = credential.and_then(Attestation::fingerprint);
        let assignment = Assignment { identity, result, stored_at, transport, credential };
        let record = Record { assignment, hub, register_wait: None, certificate_wait };
        self.store(file, &record);
        self.has_room = self.not_stored.is_none();
        self.damage = None;
        Ok(&self.record.insert(record).assignment)
    }

    /// Takes what another process has stored since, by another registration or of the hub. Says whether the device has
    /// another assignment by that. A file that can't be read, or that holds that of another device, changes nothing.
    pub fn refresh(&mut self) -> bool {
        self.look().unwrap_or(false)
    }

    fn look(&mut self) -> Result<bool, Error> {
        let Found::Whole(found) = self.file.read()? else { return Ok(false) };
        // What was there from the beginning may be replaced.
        let is_known = self.in_file.as_ref() == Some(&found.assignment);
        if found.assignment.identity != self.identity && !is_known {
            return Err(self.file.wrong("it is that of another device by now; name another file"));
        }
        // What could not be stored is newer than what is there.
        if !is_known || self.not_stored.is_none() {
            self.in_file = Some(found.assignment.clone());
            self.record = Some(*found);
            self.damage = None;
            self.not_stored = None;
        }
        Ok(!is_known)
    }

    /// What to do after a connection to the hub ended so, or could not be made. The counts of it are stored.
    ///
    /// A registration that an earlier report has led to stays as it is until it is made or the device is connected: it is
    /// what to do next, after what is left of its wait, and nothing is counted until then. When another process has
    /// registered the device meanwhile, the report is one of a former hub: then it counts for nothing, and the device
    /// connects to the hub of its new [`assignment`](Self::assignment).
    #[must_use]
    pub fn report(&mut self, refusal: HubRefusal, now: SystemTime) -> NextStep {
        let (policy, lot) = (self.policy, lot());
        if self.own_record().is_none() && !self.refresh() {
            return NextStep::Register { after: Duration::ZERO };
        }
        let after = policy.reconnect.wait(1, lot).unwrap_or_default();
        let mut next = NextStep::ConnectToHub { after };
        self.change(|record| {
            let pending = record.register_wait.filter(|_| !refusal.was_connected());
            next = match pending {
                Some(wait) => NextStep::Register { after: wait.left(now) },
                None => policy.next(&mut record.hub, refusal, now, lot),
            };
            record.register_wait = match next {
                NextStep::Register { after } => pending.or_else(|| Some(Wait::new(now, after))),
                _ => None,
            };
        });
        next
    }

    /// The device is connected to its hub: all that was wrong before is forgotten.
    pub fn report_connected(&mut self) {
        self.change(|record| {
            record.hub.connected();
            record.register_wait = None;
        });
    }

    /// The last registration brought no certificate, or one that could not be taken: none is [due](Due::Certificate) for a
    /// while, which this returns and stores. That is 24 hours when the service issues none, which only an operator changes,
    /// or else [`next_try_after`](StoredCertificate::next_try_after) of the certificate that is there, or
    /// [`recover`](RecoveryPolicy::recover)'s longest wait without one.
    pub fn put_certificate_off(&mut self, now: SystemTime) -> Duration {
        let issued = self.assignment().map(|it| &it.result.certificates);
        let at_least = match issued {
            Some(IssuedCertificates::Issued(_) | IssuedCertificates::Unreadable { .. }) => {
                Duration::ZERO
            }
            _ => LONGEST_RETRY_AFTER,
        };
        let wait = match self.stored_certificate() {
            Some(stored) => stored.next_try_after(now, at_least),
            None => self.policy.recover.cap.max(at_least),
        };
        self.change(|record| record.certificate_wait = Some(Wait::new(now, wait)));
        wait
    }

    /// How long no certificate is asked for, though one is due by its dates; `None` when none is put off.
    #[must_use]
    pub fn certificate_put_off(&self, now: SystemTime) -> Option<Duration> {
        let left = self.certificate_wait()?.left(now);
        let is_due = self.certificate_due_in(now).is_some_and(|left| left.is_zero());
        (is_due && !left.is_zero()).then_some(left)
    }

    /// The certificate that the device has. One of another device in its folder is none.
    pub(crate) fn stored_certificate(&self) -> Option<StoredCertificate> {
        let stored = self.certificate.as_ref()?.load().ok()?;
        stored.is_of(&self.identity.registration_id).then_some(stored)
    }

    pub(crate) fn folder(&self) -> Option<&CertificateFolder> {
        self.certificate.as_ref()
    }

    pub(crate) fn policy_in_use(&self) -> RecoveryPolicy {
        self.policy
    }

    /// What is left to wait for until the registration that the hub gave cause for.
    pub(crate) fn hub_wait(&self) -> Option<Wait> {
        self.own_record()?.register_wait
    }

    /// How long no certificate is asked for.
    pub(crate) fn certificate_wait(&self) -> Option<Wait> {
        self.own_record()?.certificate_wait
    }

    fn own_record(&self) -> Option<&Record> {
        self.record.as_ref().filter(|record| record.assignment.identity == self.identity)
    }

    /// Stores what could not be stored before.
    pub(crate) fn store_again(&mut self) {
        if self.not_stored.is_some() {
            self.change(|_| {});
        }
    }

    /// Changes what is stored of this assignment, and stores it if it has changed. Nothing is changed when another
    /// process has stored another assignment.
    fn change(&mut self, change: impl FnOnce(&mut Record)) {
        let file = self.file.lock();
        let file = match self.look() {
            Ok(true) => return,
            Ok(false) => file,
            Err(error) => Err(error),
        };
        let Some(former) = self.own_record().cloned() else { return };
        let mut record = former.clone();
        change(&mut record);
        if record != former || self.not_stored.is_some() {
            let known = self.not_stored.as_ref().map(ToString::to_string);
            match file {
                Ok(file) => self.store(file, &record),
                Err(error) => self.not_stored = Some(error),
            }
            if let Some(error) = &self.not_stored
                && known != Some(error.to_string())
            {
                tracing::warn!(%error, "the assignment, or what the hub did, is not stored");
            }
        }
        self.record = Some(record);
    }

    fn store(&mut self, file: PreparedFile, record: &Record) {
        self.not_stored = file.store(record).err();
        // As it is read: what differs from that comes from another process.
        if let (None, Ok(Found::Whole(found))) = (&self.not_stored, file.read()) {
            self.in_file = Some(found.assignment);
        }
    }
}

/// A random number from 0 to 1, for jitter. A new hasher has new keys: that needs no crate.
pub(crate) fn lot() -> f64 {
    RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64
}
