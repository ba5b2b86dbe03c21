//! The rules of the service: enrollments, credentials, operations. It reads no clock and records nothing.
//!
//! [`Service::authenticate`] judges what the peer showed; [`Service::register`], [`Service::query`],
//! [`Service::look_up`] and [`Service::update`] take what came of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use dps_attestation::SymmetricKey;
use dps_state_machine::{IdScope, RegistrationId};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use tokio::sync::mpsc;

use super::{clock, service_api::ServicePolicy};
use crate::{
    behavior::Pace, config_error::ConfigError, enrollment::Enrollment, keys::CaCertificates,
};

mod allocation;
mod api_version;
mod authenticate;
mod chain;
mod devices;
mod enrollments;
mod error;
mod guid;
mod hub;
mod issuing;
mod kept;
mod known;
mod registration;
mod registrations;
mod reply;
mod sas;
mod script;
mod tpm;
mod updates;
mod webhook;
mod x509;

#[cfg(test)]
mod tests;

pub(crate) use api_version::ApiVersion;
pub(crate) use authenticate::Credential;
pub(crate) use error::ServiceError;
pub(crate) use guid::Guids;
pub(crate) use hub::HubDevice;
#[cfg(feature = "state")]
pub(crate) use kept::{Record, RecordKind};
pub use known::KnownDevice;
pub(crate) use registration::Registration;
pub(crate) use reply::{Reply, http_date};
pub(crate) use sas::SasToken;
pub(crate) use script::takes_the_place;
pub(crate) use tpm::{TpmKeys, challenge_reply};
pub(crate) use webhook::{QUEUE, WebhookCall};
pub(crate) use x509::info as certificate_info;

use devices::Devices;
use enrollments::Enrollments;
pub(crate) use enrollments::{EnrollmentId, Kind, Stored};
use issuing::{CertificateRequest, IssuingCa};
use registrations::{Device, Operation, Progress, to_json};
use script::Cursor;
use tpm::Tpms;
use webhook::Webhook;

/// How the state of a registration names a TPM.
const TPM: &str = "tpm";

/// How an instance of the service is set up, its enrollments aside.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id_scope: IdScope,
    /// The hubs in the order of their latency, the nearest first.
    pub(crate) nearest_hubs: Vec<String>,
    /// The CA certificates that groups refer to, by their names.
    pub(crate) verified_cas: BTreeMap<String, CaCertificates>,
    /// How long a device whose enrollment does not say it takes to be assigned.
    pub(crate) pace: Pace,
    /// The hubs of an enrollment that was made without any.
    pub(crate) linked_hubs: Vec<String>,
    /// Who may use the service API.
    pub(crate) policies: Vec<ServicePolicy>,
    /// What goes wrong with the calls of the service API.
    pub(crate) api_faults: Vec<script::Fault>,
}

/// One instance of the provisioning service.
pub(crate) struct Service {
    pub(super) instance: Instance,
    pub(super) enrollments: Enrollments,
    devices: Devices,
    /// How many devices have been dealt one of several hubs, by [`EnrollmentId::dealt`].
    turns: HashMap<EnrollmentId, usize>,
    tpms: Tpms,
    /// What goes wrong with the calls of the service API, and which fault is next.
    api_faults: (Vec<script::Fault>, Cursor),
    /// Where the calls of webhooks go.
    webhooks: Option<mpsc::Sender<WebhookCall>>,
    pub(super) guids: Guids,
    /// Made when it is needed first.
    issuing: Option<IssuingCa>,
    /// What is not in the file of the state as it is.
    changed: kept::Changed,
}

/// A device whose credential was found right.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated {
    pub(crate) registration_id: RegistrationId,
    pub(crate) enrollment: EnrollmentId,
    /// As the enrollment has it.
    pub(crate) enrollment_name: String,
    /// What the state of the registration says of the credential.
    attested: (&'static str, Value),
}

impl Authenticated {
    /// Whether a TPM answered its challenge.
    pub(crate) fn has_tpm(&self) -> bool {
        self.attested.0 == TPM
    }
}

impl Service {
    pub(crate) fn new(
        instance: Instance,
        enrollments: Vec<Enrollment>,
        seed: [u8; 32],
        now: SystemTime,
    ) -> Result<Self, ConfigError> {
        let api_faults = instance.api_faults.clone();
        let mut service = Self {
            instance,
            enrollments: Enrollments::default(),
            devices: Devices::default(),
            turns: HashMap::new(),
            tpms: Tpms::default(),
            api_faults: (api_faults, Cursor::default()),
            webhooks: None,
            guids: Guids::new(seed),
            issuing: None,
            changed: kept::Changed::default(),
        };
        enrollments.into_iter().try_for_each(|enrollment| service.add(now, enrollment))?;
        Ok(service)
    }

    /// Forgets all that devices have done. Enrollments and their behavior stay.
    pub(crate) fn forget_devices(&mut self) {
        self.devices.clear();
        self.turns.clear();
        self.tpms.clear();
    }

    /// Forgets what one device has done; says whether it was known.
    pub(crate) fn forget_device(&mut self, registration_id: &str) -> bool {
        self.tpms.forget(registration_id);
        self.devices.remove(registration_id)
    }

    /// Puts all back as it was with these enrollments and this seed. The issuing CA stays: whoever trusts it goes on to.
    pub(crate) fn reset(
        &mut self,
        enrollments: Vec<Enrollment>,
        seed: [u8; 32],
        now: SystemTime,
    ) -> Result<(), ConfigError> {
        let fresh = Self::new(self.instance.clone(), enrollments, seed, now)?;
        let (issuing, webhooks) = (self.issuing.take(), self.webhooks.take());
        let changed = self.all_names();
        *self = Self { issuing, webhooks, changed, ..fresh };
        Ok(())
    }

    /// The key that a TPM was given for its hub.
    pub(crate) fn hub_key(&self, registration_id: &str) -> Option<SymmetricKey> {
        self.tpms.hub_key(registration_id)
    }

    /// The answer that refuses.
    pub(crate) fn refuse(&mut self, now: SystemTime, error: &ServiceError) -> Reply {
        let tracking_id = self.guids.next();
        Reply::refusal(tracking_id, &clock::rfc3339(now), error)
    }

    /// The devices that an enrollment has let in, by their names in lower case and in order.
    pub(super) fn devices_of(&self, id: &EnrollmentId) -> Vec<String> {
        self.devices.of_enrollment(id)
    }

    pub(super) fn next_api_fault(&mut self) -> Option<script::Fault> {
        let (faults, cursor) = &mut self.api_faults;
        cursor.next(faults)
    }

    /// Sets what goes wrong with the calls of the service API from now on.
    pub(crate) fn set_api_faults(&mut self, faults: Vec<script::Fault>) {
        self.api_faults = (faults, Cursor::default());
    }

    /// Lets the script's fault loose on an answer.
    pub(super) fn apply(
        &mut self,
        now: SystemTime,
        reply: Reply,
        fault: Option<script::Fault>,
    ) -> Reply {
        let Some(fault) = fault else { return reply };
        let reply = match &fault.refuse {
            Some(refusal) => self.refuse(now, &ServiceError::from(refusal)),
            None => reply,
        };
        reply.with_fault(&fault, now)
    }

    fn enrollment(&self, id: &EnrollmentId) -> Option<&Arc<Enrollment>> {
        self.enrollments.get(id).map(|stored| &stored.enrollment)
    }

    /// The individual enrollment of a device.
    fn individual(&self, registration_id: &str) -> Option<&Arc<Enrollment>> {
        self.enrollment(&EnrollmentId::new(Kind::Individual, registration_id))
    }
}

/// Registration ids are compared without case, as the service does.
fn key(registration_id: &str) -> String {
    registration_id.to_ascii_lowercase()
}
