//! Devices at their hubs: who is let in, their twins, and certificates in place of those that they have.
//! See docs/emulator/fidelity.md for the sources.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_state_machine::RegistrationId;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CertificateRequest, Credential, Reply, Service, ServiceError, authenticate::Claim, chain,
    clock, x509,
};
use crate::{
    enrollment::{Enrollment, Members},
    hub::NotAdmitted,
    issuance::CertificatePolicy,
    keys::CaCertificates,
};

/// The longest request for a certificate that the hub takes, in characters of base64.
const LONGEST_CSR: usize = 8 * 1024;
/// How long the hub works on a request for a certificate at most, as it says.
const ISSUING_TIME: Duration = Duration::from_secs(12 * 3600);

/// A device at its hub, whose credential was found right.
#[derive(Clone, Debug)]
pub(crate) struct HubDevice {
    pub(crate) hub: String,
    pub(crate) device_id: String,
    pub(crate) registration_id: RegistrationId,
}

impl Service {
    /// Lets a device in that was assigned to this hub under this id and shows the credential that its enrollment implies:
    /// a SAS token by the enrollment's key or the one that its TPM was given, the certificate that it registers with, or one
    /// that was issued to it.
    pub(crate) fn admit(
        &self,
        now: SystemTime,
        hub: &str,
        device_id: &str,
        credential: Credential<'_>,
    ) -> Result<HubDevice, NotAdmitted> {
        let (device, enrollment) = self.assigned(hub, device_id)?;
        self.check_at_hub(now, &device, enrollment, credential)
            .map_err(|error| NotAdmitted::new(error.reason))?;
        match enrollment.hub_refusal {
            Some(refusal) => Err(refusal.into()),
            None => Ok(device),
        }
    }

    fn assigned(
        &self,
        hub: &str,
        device_id: &str,
    ) -> Result<(HubDevice, &Enrollment), NotAdmitted> {
        let mut elsewhere = None;
        // Most often it is the registration id.
        let named_so = self.devices.get(device_id).into_iter();
        for device in named_so.chain(self.devices.all()) {
            let (Some(id), Some(assignment)) = (&device.device_id, &device.assignment) else {
                continue;
            };
            // See <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-identity-registry#device-identity-properties>.
            if id != device_id {
                continue;
            }
            if assignment.hub.eq_ignore_ascii_case(hub)
                && let Ok(registration_id) = device.registration_id.parse()
                && let Some(enrollment) = self.enrollment(&device.enrollment)
            {
                let (hub, device_id) = (hub.to_owned(), id.clone());
                return Ok((HubDevice { hub, device_id, registration_id }, enrollment));
            }
            elsewhere = Some(&assignment.hub);
        }
        Err(NotAdmitted::new(match elsewhere {
            Some(other) => format!("the device is assigned to another hub, {other:?}"),
            None => "no device with this id was assigned to a hub".to_owned(),
        }))
    }

    fn check_at_hub(
        &self,
        now: SystemTime,
        HubDevice { hub, device_id, registration_id: id }: &HubDevice,
        enrollment: &Enrollment,
        credential: Credential<'_>,
    ) -> Result<(), ServiceError> {
        if let Credential::Certificates(chain) = credential
            && self.was_issued(now, chain, &[device_id, id.as_str()])
        {
            return Ok(());
        }
        let resource = format!("{hub}/devices/{device_id}");
        let tpm_key = self.tpms.hub_key(id.as_str());
        let claim = Claim { now, resource, id, credential, tpm_key };
        match &enrollment.members {
            Members::One(attestation) => claim.proves_one(attestation).map(drop),
            Members::Group(attestation) => {
                let cas = &self.instance.verified_cas;
                let proved = claim.proves_membership(attestation, &enrollment.name, cas);
                let wrong = || {
                    Err(ServiceError::unauthorized(
                        "the enrollment wants another kind of credential",
                    ))
                };
                proved.unwrap_or_else(wrong).map(drop)
            }
        }
    }

    /// Whether the emulator's CA issued a device's certificate, for one of these names.
    fn was_issued(
        &self,
        now: SystemTime,
        chain: &[CertificateDer<'static>],
        names: &[&str],
    ) -> bool {
        let (Some(ca), [leaf, ..]) = (&self.issuing, chain) else { return false };
        let root = CaCertificates(vec![ca.root()]);
        chain::check_chain(chain, &root, &crate::tls::provider(), now).is_ok()
            && names.iter().any(|name| x509::check_leaf(leaf, name, now).is_ok())
    }

    /// The twin as its device gets it.
    pub(crate) fn twin(&mut self, now: SystemTime, device: &HubDevice) -> Reply {
        let Some(known) = self.devices.get(device.registration_id.as_str()) else {
            return self.refuse(now, &ServiceError::NOT_FOUND);
        };
        let own = self.enrollment(&known.enrollment).and_then(|it| it.initial_twin.as_ref());
        let initial = known.initial_twin.as_ref().or(own);
        let initial: Value = initial.and_then(|twin| twin.read().ok()).unwrap_or_default();
        let desired = initial.pointer("/properties/desired").cloned();
        Reply::ok(200, &known.twin.to_json(desired.unwrap_or_else(|| json!({}))))
    }

    /// Takes reported properties: the answer, and the version that they have now.
    pub(crate) fn report_properties(
        &mut self,
        now: SystemTime,
        device: &HubDevice,
        patch: &[u8],
    ) -> (Reply, Option<u64>) {
        let known = self.devices.get_mut(device.registration_id.as_str());
        let reported = known.map(|known| known.twin.report(patch));
        self.devices.bound(device.registration_id.as_str());
        match reported.unwrap_or(Err(ServiceError::NOT_FOUND)) {
            Ok(version) => (Reply::empty(204), Some(version)),
            Err(error) => (self.refuse(now, &error), None),
        }
    }

    /// Issues a certificate in place of the one that the device has: first the hub accepts the request, then it answers.
    pub(crate) fn issue_at_hub(
        &mut self,
        now: SystemTime,
        device: &HubDevice,
        body: &[u8],
    ) -> Vec<Reply> {
        let csr = match IssueRequest::read(body, &device.device_id) {
            Ok(csr) => csr,
            Err(error) => return vec![self.refuse(now, &error)],
        };
        let correlation_id = self.guids.next();
        let expires = clock::rfc3339(now + ISSUING_TIME);
        let accepted = json!({ "correlationId": correlation_id, "operationExpires": expires });
        let chain = self.chain_for(now, device, &csr);
        let answer = match chain {
            Ok(chain) => {
                Reply::ok(200, &json!({ "correlationId": correlation_id, "certificates": chain }))
            }
            Err(error) => self.refuse(now, &error),
        };
        vec![Reply::ok(202, &accepted), answer]
    }

    fn chain_for(
        &mut self,
        now: SystemTime,
        device: &HubDevice,
        csr: &str,
    ) -> Result<Vec<String>, ServiceError> {
        let id = device.registration_id.as_str();
        let request = CertificateRequest::read(csr, &device.device_id)
            .or_else(|_| CertificateRequest::read(csr, id))
            .map_err(|error| ServiceError::no_certificate(&error.message))?;
        let enrollment = self.devices.get(id).and_then(|known| self.enrollment(&known.enrollment));
        let Some(CertificatePolicy::Issue { lifetime }) =
            enrollment.map(|it| it.certificate_policy)
        else {
            return Err(ServiceError::no_certificate("the enrollment has no policy for it"));
        };
        let ca = self.issuing_ca(now).ok_or(ServiceError::INTERNAL)?;
        ca.issue(&request, lifetime, now).map_err(|_| ServiceError::INTERNAL)
    }
}

/// A request for a certificate as the hub takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssueRequest {
    id: String,
    csr: String,
    replace: Option<String>,
}

impl IssueRequest {
    /// The request, as base64, if the hub would accept it.
    fn read(body: &[u8], device_id: &str) -> Result<String, ServiceError> {
        let wrong = |what: &str| ServiceError::hub(400_004, what);
        if body.trim_ascii().is_empty() {
            return Err(wrong("The payload is missing; it has the fields 'id' and 'csr'"));
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|_| ServiceError::hub(400_006, "The payload is not JSON"))?;
        let request = Some(value).filter(Value::is_object).map(serde_json::from_value);
        let Some(Ok(Self { id, csr, replace })) = request else {
            return Err(wrong("The payload has the fields 'id', 'csr' and 'replace', all texts"));
        };
        if id != device_id {
            return Err(wrong("The field 'id' is not the authenticated device's id"));
        }
        if csr.is_empty() || csr.len() > LONGEST_CSR || STANDARD.decode(&csr).is_err() {
            return Err(wrong("The field 'csr' must be base64 of at most 8 KB"));
        }
        // Each request is answered at once: there is none to replace.
        match replace.as_deref() {
            None | Some("*") => Ok(csr),
            Some(id) if is_request_id(id) => Err(ServiceError::hub(
                412_001,
                "There is no active certificate request with the id in 'replace'",
            )),
            Some(_) => Err(wrong("The field 'replace' is '*' or the id of a request")),
        }
    }
}

fn is_request_id(id: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (4..=36).contains(&id.len())
        && id.chars().all(fits)
        && !id.starts_with('-')
        && !id.ends_with('-')
}
