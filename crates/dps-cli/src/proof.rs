//! By what a device proves itself at its hub: the same answer for a registration, for a stored assignment and for the agent.

use std::time::Duration;

use dps_client::{
    Attestation, CertificateFolder, Error, RegistrationId, RegistrationResult, StoredCertificate,
};
use dps_provisioner::{Assignment, HubCredential};
use tokio::time::Instant;

use crate::{
    credential::{Credential, KeyPlace},
    files::Deadline,
    issue::{self, Delivery},
};

/// By what a device can prove itself at its hub: the certificate that the service has issued when it is there, or else the
/// one of the given credentials that the service took.
#[derive(Debug)]
pub(crate) struct Proofs {
    /// The credentials that are given now, in their order.
    attestations: Vec<Attestation>,
    /// How each of them is handed over.
    forms: Vec<HubCredential>,
    /// The folder for the certificate that the service issues.
    folder: Option<CertificateFolder>,
    /// Where the key of that certificate is, if it is not beside it.
    key: Option<KeyPlace>,
}

impl Proofs {
    /// `attestations` are what was read of the given credentials, as the hub takes it.
    pub(crate) fn new(
        attestations: Vec<Attestation>,
        given: &[Credential],
        folder: Option<CertificateFolder>,
        key: Option<KeyPlace>,
    ) -> Self {
        let form = |(number, read)| form(read, given.get(number));
        let forms = attestations.iter().enumerate().map(form).collect();
        Self { attestations, forms, folder, key }
    }

    /// What the device is handed over by if all goes well: one of these.
    pub(crate) fn expected(&self) -> Vec<HubCredential> {
        match &self.folder {
            Some(folder) => vec![self.issued_form(folder, self.key.is_none())],
            None => self.forms.clone(),
        }
    }

    /// The given credentials, one of which it is handed over by when no certificate came.
    pub(crate) fn given(&self) -> &[HubCredential] {
        &self.forms
    }

    /// A stored result, whose credential is counted among those that are given now. When it is not among them the first one
    /// stands in for it.
    pub(crate) fn of_stored(&self, assignment: &Assignment) -> RegistrationResult {
        let mut result = assignment.result.clone();
        let taken = assignment.credential_among(&self.attestations);
        if taken.is_none() && self.issued(&assignment.identity.registration_id).is_none() {
            tracing::warn!(
                "the credential that the service took is none of those that are given now; the first of these is used, and --force registers with them"
            );
        }
        result.credential = taken.unwrap_or_default();
        result
    }

    /// The issued certificate, if it is there, with the names of its files.
    pub(crate) fn certificate(&self, id: &RegistrationId) -> Option<Delivery> {
        Delivery::in_use(self.folder.as_ref()?, id)
    }

    /// So many credentials were given.
    pub(crate) fn count(&self) -> usize {
        self.attestations.len()
    }

    /// How the device is handed over. `taken` is the number of the credential that the service took.
    pub(crate) fn handed_over(&self, id: &RegistrationId, taken: usize) -> HubCredential {
        match (&self.folder, self.issued(id)) {
            (Some(folder), Some(stored)) => self.issued_form(folder, stored.key_pem().is_some()),
            _ => self.forms.get(taken).cloned().unwrap_or(HubCredential::Kept),
        }
    }

    /// The same for a connection, within this time.
    pub(crate) async fn at_hub(
        &self,
        id: &RegistrationId,
        taken: usize,
        time: Duration,
    ) -> Result<Option<Attestation>, Error> {
        let Some(stored) = self.issued(id) else {
            return Ok(self.attestations.get(taken).cloned());
        };
        let key = self.key.clone().filter(|_| stored.key_pem().is_none());
        let credential = Credential::Stored(Box::new(stored), key.map(Box::new));
        let deadline = Deadline { at: Instant::now() + time, after: time };
        credential.load(id, deadline).await.map(Some)
    }

    fn issued(&self, id: &RegistrationId) -> Option<StoredCertificate> {
        issue::in_use(self.folder.as_ref()?, id)
    }

    fn issued_form(&self, folder: &CertificateFolder, has_key: bool) -> HubCredential {
        let key = match &self.key {
            _ if has_key => Some(folder.key_path().display().to_string()),
            Some(place) => place.name(),
            None => None,
        };
        match key {
            Some(key) => HubCredential::Certificate { chain: folder.chain_path(), key },
            None => HubCredential::Kept,
        }
    }
}

/// How a credential that was given and read is handed over.
fn form(read: &Attestation, given: Option<&Credential>) -> HubCredential {
    match (read, given.and_then(Credential::certificate_files)) {
        (Attestation::SymmetricKey(key), _) => HubCredential::SymmetricKey(key.clone()),
        (_, Some((chain, key))) => HubCredential::Certificate { chain: chain.into(), key },
        _ => HubCredential::Kept,
    }
}
