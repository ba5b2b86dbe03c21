//! Who may register: the right credential for an enrollment of this service.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use rustls::crypto::CryptoProvider;
use serde_json::{Value, json};

use super::{
    Authenticated, CertificateDer, Enrollment, EnrollmentId, Kind, RegistrationId, Service,
    ServiceError, chain, clock, enrollments::Stored, sas::SasToken, x509,
};
use crate::{
    core::events::Method,
    enrollment::{Attestation, GroupAttestation, Members, Pair},
    keys::CaCertificates,
};
use dps_attestation::{Error, SymmetricKey};

/// What a peer showed to say who it is.
#[derive(Clone, Copy)]
pub(crate) enum Credential<'a> {
    None,
    Sas(&'a str),
    /// The certificates of the TLS handshake, whose key the peer has proved to hold; its own one first.
    Certificates(&'a [CertificateDer<'static>]),
}

impl Credential<'_> {
    pub(crate) fn method(self) -> Method {
        match self {
            Self::None => Method::None,
            Self::Sas(_) => Method::SymmetricKey,
            Self::Certificates(_) => Method::X509,
        }
    }
}

impl Service {
    /// Checks who asks. Nothing can be registered without what this returns.
    ///
    /// An individual enrollment of the registration id decides alone; without one, the groups are tried.
    pub(crate) fn authenticate(
        &self,
        now: SystemTime,
        id_scope: &str,
        registration_id: &str,
        credential: Credential<'_>,
    ) -> Result<Authenticated, ServiceError> {
        let id = self.check_id(id_scope, registration_id)?;
        let tpm_key = self.tpms.nonce(id.as_str(), now);
        let resource = format!("{id_scope}/registrations/{id}");
        let claim = Claim { now, resource, id: &id, credential, tpm_key };
        let (enrollment, attested) = match self.individual(id.as_str()) {
            Some(enrollment) => match &enrollment.members {
                Members::One(attestation) => (enrollment, claim.proves_one(attestation)?),
                Members::Group(_) => return Err(ServiceError::INTERNAL),
            },
            None => self.find_group(&claim)?,
        };
        Ok(Authenticated {
            registration_id: id,
            enrollment: EnrollmentId::of(enrollment),
            enrollment_name: enrollment.name.clone(),
            attested,
        })
    }

    /// The registration id, if it can be one, at this instance of the service.
    pub(super) fn check_id(
        &self,
        id_scope: &str,
        registration_id: &str,
    ) -> Result<RegistrationId, ServiceError> {
        if !id_scope.eq_ignore_ascii_case(self.instance.id_scope.as_str()) {
            return Err(ServiceError::SCOPE_NOT_FOUND);
        }
        registration_id.parse().map_err(|error| match error {
            // The event has the id beside it; a part of one could be a part of a secret, which nobody knows for one.
            Error::Configuration(error) => ServiceError::bad_registration_id(error.reason),
            error => ServiceError::bad_registration_id(error.to_string()),
        })
    }

    fn find_group(&self, claim: &Claim<'_>) -> Result<(&Arc<Enrollment>, Attested), ServiceError> {
        let mut closest: Option<ServiceError> = None;
        for Stored { enrollment, .. } in self.enrollments.of_kind(Kind::Group).values() {
            let Members::Group(attestation) = &enrollment.members else { continue };
            let cas = &self.instance.verified_cas;
            match claim.proves_membership(attestation, &enrollment.name, cas) {
                None => {}
                Some(Ok(attested)) => return Ok((enrollment, attested)),
                // The group whose CA was reached knows best what is wrong.
                Some(Err(error)) if closest.as_ref().is_none_or(ServiceError::is_ca_not_found) => {
                    closest = Some(error);
                }
                Some(Err(_)) => {}
            }
        }
        Err(closest.unwrap_or(match claim.credential {
            Credential::None => ServiceError::NO_CREDENTIAL,
            _ => ServiceError::NOT_FOUND,
        }))
    }
}

/// What the state of the registration says of the credential: a name and a value.
type Attested = (&'static str, Value);

pub(super) struct Claim<'a> {
    pub(super) now: SystemTime,
    /// What a SAS token must be for.
    pub(super) resource: String,
    pub(super) id: &'a RegistrationId,
    pub(super) credential: Credential<'a>,
    /// The key that the device's TPM was given.
    pub(super) tpm_key: Option<SymmetricKey>,
}

impl Claim<'_> {
    pub(super) fn proves_one(&self, attestation: &Attestation) -> Result<Attested, ServiceError> {
        match (attestation, self.credential) {
            (_, Credential::None) => Err(ServiceError::NO_CREDENTIAL),
            (Attestation::SymmetricKey(keys), Credential::Sas(token)) => {
                self.check_sas(token, keys)?;
                Ok(("symmetricKey", json!({})))
            }
            (Attestation::X509(certificates), Credential::Certificates(chain)) => {
                let leaf = chain.first().ok_or(ServiceError::NO_CREDENTIAL)?;
                let thumbprint = crate::Thumbprint::of_der(leaf);
                if !certificates.iter().any(|known| known.thumbprint() == thumbprint) {
                    return Err(ServiceError::invalid_certificate(format!(
                        "the enrollment does not know the certificate with thumbprint {thumbprint}"
                    )));
                }
                x509::check_leaf(leaf, self.id.as_str(), self.now)?;
                Ok(("x509", x509::describe(leaf, None)))
            }
            (Attestation::Tpm { .. }, Credential::Sas(token)) => {
                let key = self.tpm_key.clone().ok_or_else(|| {
                    ServiceError::unauthorized("the TPM was not challenged, or too long ago")
                })?;
                self.check_sas(token, &key.into())?;
                Ok((super::TPM, json!({})))
            }
            (Attestation::Tpm { .. }, Credential::Certificates(_)) => {
                Err(ServiceError::unauthorized("the enrollment wants a TPM, not a certificate"))
            }
            (Attestation::SymmetricKey(_), Credential::Certificates(_)) => Err(
                ServiceError::unauthorized("the enrollment wants a SAS token, not a certificate"),
            ),
            (Attestation::X509(_), Credential::Sas(_)) => Err(ServiceError::unauthorized(
                "the enrollment wants a certificate, not a SAS token",
            )),
        }
    }

    /// `None` when the group is for another kind of credential.
    pub(super) fn proves_membership(
        &self,
        attestation: &GroupAttestation,
        group: &str,
        cas: &BTreeMap<String, CaCertificates>,
    ) -> Option<Result<Attested, ServiceError>> {
        match (attestation, self.credential) {
            (GroupAttestation::SymmetricKey(keys), Credential::Sas(token)) => {
                let checked = self.check_sas(token, &keys.map(|key| key.derive(self.id)));
                let attested = ("symmetricKey", json!({ "enrollmentGroupId": group }));
                Some(checked.map(|()| attested))
            }
            (
                GroupAttestation::X509(_) | GroupAttestation::CaReferences(_),
                Credential::Certificates(chain),
            ) => {
                let leaf = chain.first()?;
                let provider: Arc<CryptoProvider> = crate::tls::provider();
                let checked = chain::check_chain(chain, &attestation.cas(cas), &provider, self.now)
                    .and_then(|()| x509::check_leaf(leaf, self.id.as_str(), self.now));
                Some(checked.map(|()| ("x509", x509::describe(leaf, Some(group)))))
            }
            _ => None,
        }
    }

    fn check_sas(&self, token: &str, keys: &Pair<SymmetricKey>) -> Result<(), ServiceError> {
        let token = SasToken::parse(token).map_err(ServiceError::unauthorized)?;
        token
            .check(&self.resource, clock::unix_seconds(self.now))
            .map_err(ServiceError::unauthorized)?;
        // Both keys are tried whatever the first one says, so that the time tells nothing.
        let signed = keys.iter().filter(|key| token.is_signed_with(key)).count();
        if signed == 0 {
            return Err(ServiceError::unauthorized("the token is not signed with the right key"));
        }
        Ok(())
    }
}
