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
use dps_state_machine::{IdScope, Json, RegistrationId};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{clock, service_api::ServicePolicy};
use crate::{
    behavior::{Behavior, Outcome, Pace},
    config_error::ConfigError,
    enrollment::{Allocation, Enrollment, EnrollmentName, ReturnedPayload},
    hub::Twin,
    issuance::CertificatePolicy,
    keys::CaCertificates,
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

use allocation::Assignment;
use api_version::Certificates;
use devices::Devices;
use enrollments::Enrollments;
pub(crate) use enrollments::{EnrollmentId, Kind, Stored};
use guid::Guids;
use issuing::{CertificateRequest, IssuingCa, pem};
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
    /// How many devices of each enrollment have got a hub.
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

/// What the service knows of a device that has registered.
#[derive(Default, Serialize, Deserialize)]
struct Device {
    /// As it was written first.
    registration_id: String,
    enrollment: EnrollmentId,
    #[serde(default, skip_serializing_if = "Operation::is_begun_anew")]
    operation: Option<Operation>,
    assignment: Option<Assignment>,
    /// Which of its enrollment's devices it is, in the order in which they got a hub.
    turn: Option<usize>,
    allocations: usize,
    register: Cursor,
    query: Cursor,
    /// Whether the device has installed the update of its enrollment.
    updated: bool,
    /// Its id at the hub, once it is assigned.
    device_id: Option<String>,
    /// The one that a webhook has given, in place of the enrollment's.
    initial_twin: Option<Json>,
    twin: Twin,
}

/// One registration: under way, or its last result.
#[derive(Serialize, Deserialize)]
struct Operation {
    id: String,
    etag: String,
    begun: SystemTime,
    #[serde(with = "api_version::by_name")]
    api_version: &'static ApiVersion,
    progress: Progress,
    /// The payload that the device sent and whether it forced the allocation.
    payload: Option<Json>,
    force: bool,
    #[serde(skip)]
    csr: Option<CertificateRequest>,
    #[serde(skip)]
    webhook: Webhook,
}

/// The answer about an operation.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OperationStatus<'a> {
    operation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_state: Option<&'a Json>,
    status: &'a str,
}

#[derive(Serialize, Deserialize)]
enum Progress {
    PollsLeft(u32),
    Done {
        status: String,
        state: Json,
        /// What only the answer about the operation says besides: the certificate that was issued.
        issued: Fields,
    },
}

/// Fields of an object.
type Fields = BTreeMap<String, Json>;

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

    /// All enrollments, those of single devices first, in the order of their names.
    pub(crate) fn enrollments(&self) -> impl Iterator<Item = &Enrollment> {
        let kinds = [Kind::Individual, Kind::Group].into_iter();
        kinds.flat_map(|kind| self.enrollments.of_kind(kind).values()).map(|it| &*it.enrollment)
    }

    /// The enrollment that a program or a person means.
    pub(crate) fn enrollment_named(
        &self,
        name: EnrollmentName<'_>,
    ) -> Result<&Enrollment, ConfigError> {
        let id = self.enrollments.find(name)?;
        let unknown = || ConfigError::new("enrollment", "there is none with this name");
        self.enrollments.get(&id).map(|stored| &*stored.enrollment).ok_or_else(unknown)
    }

    /// Adds an enrollment whose name is not taken.
    pub(crate) fn add(
        &mut self,
        now: SystemTime,
        enrollment: Enrollment,
    ) -> Result<(), ConfigError> {
        if self.enrollments.get(&EnrollmentId::of(&enrollment)).is_some() {
            return Err(enrollment.name_is_taken());
        }
        self.put(now, enrollment).map(|_| ())
    }

    /// Adds an enrollment, or puts it into the place of the one with its name, which it gives back. What its devices
    /// were assigned stays; with another behavior, each starts at the beginning of the script.
    pub(crate) fn put(
        &mut self,
        now: SystemTime,
        enrollment: Enrollment,
    ) -> Result<Option<Arc<Enrollment>>, ConfigError> {
        enrollment.check(&self.instance.verified_cas)?;
        let id = EnrollmentId::of(&enrollment);
        let (behavior, tpm) = (enrollment.behavior.clone(), enrollment.tpm().cloned());
        let etag = self.guids.next_record_etag();
        let former = self.enrollments.put(enrollment, etag, now).map(|stored| stored.enrollment);
        if let Some(former) = &former {
            if former.behavior != behavior {
                self.restart_scripts(&id);
            }
            if former.tpm() != tpm.as_ref() {
                self.tpms.forget(former.name());
            }
        }
        Ok(former)
    }

    /// Removes an enrollment; its devices are forgotten with it.
    pub(crate) fn remove(&mut self, name: EnrollmentName<'_>) -> Result<(), ConfigError> {
        let id = self.enrollments.find(name)?;
        self.remove_id(&id);
        Ok(())
    }

    pub(super) fn remove_id(&mut self, id: &EnrollmentId) {
        let removed = self.enrollments.remove(id);
        self.devices.forget(id);
        self.turns.remove(id);
        if let (Kind::Individual, Some(removed)) = (id.kind, removed) {
            self.tpms.forget(removed.enrollment.name());
        }
    }

    /// Sets the behavior toward an enrollment's devices; each starts at the beginning of the new script.
    pub(crate) fn set_behavior(
        &mut self,
        now: SystemTime,
        name: EnrollmentName<'_>,
        behavior: Behavior,
    ) -> Result<(), ConfigError> {
        let id = self.enrollments.find(name)?;
        let etag = self.guids.next_record_etag();
        self.enrollments.change(&id, etag, now, |enrollment| enrollment.behavior = behavior);
        self.restart_scripts(&id);
        Ok(())
    }

    /// Enables or disables an enrollment.
    pub(crate) fn set_enabled(
        &mut self,
        now: SystemTime,
        name: EnrollmentName<'_>,
        enabled: bool,
    ) -> Result<(), ConfigError> {
        let id = self.enrollments.find(name)?;
        let etag = self.guids.next_record_etag();
        self.enrollments.change(&id, etag, now, |enrollment| enrollment.enabled = enabled);
        Ok(())
    }

    fn restart_scripts(&mut self, id: &EnrollmentId) {
        for name in self.devices.of_enrollment(id) {
            if let Some(device) = self.devices.get_mut(&name) {
                device.register = Cursor::default();
                device.query = Cursor::default();
            }
        }
    }

    /// Forgets all that devices have done. Enrollments and their behavior stay.
    pub(crate) fn forget_devices(&mut self) {
        self.devices.clear();
        self.turns.clear();
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

    /// Takes a registration: begins an operation, or goes on with the one that is under way.
    pub(crate) fn register(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        registration: Result<Registration, ServiceError>,
    ) -> Reply {
        let (Some(behavior), device) = self.behavior_and_device(who) else {
            return self.refuse(now, &ServiceError::not_found());
        };
        let fault = device.register.next(&behavior.register);
        let replaced = fault.as_ref().is_some_and(script::takes_the_place);
        let reply = match registration {
            _ if replaced => Reply::empty(200),
            Ok(registration) => self.begin(now, who, registration, &behavior),
            Err(error) => return self.refuse(now, &error),
        };
        self.devices.bound(who.registration_id.as_str());
        self.apply(now, reply, fault)
    }

    /// Tells how far an operation is; each call is one poll.
    pub(crate) fn query(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        operation_id: &str,
    ) -> Reply {
        let (Some(behavior), device) = self.behavior_and_device(who) else {
            return self.refuse(now, &ServiceError::not_found());
        };
        let fault = device.query.next(&behavior.query);
        if fault.as_ref().is_some_and(script::takes_the_place) {
            return self.apply(now, Reply::empty(200), fault);
        }
        let polled = match &mut device.operation {
            Some(operation) if operation.id == operation_id => {
                if let Progress::PollsLeft(left) = &mut operation.progress
                    && *left != u32::MAX
                {
                    *left = left.saturating_sub(1);
                }
                true
            }
            _ => false,
        };
        if !polled {
            let reply = self.refuse(now, &ServiceError::operation_not_found());
            return self.apply(now, reply, fault);
        }
        let reply = self.report(now, who, &behavior, true);
        self.apply(now, reply, fault)
    }

    /// Tells what has become of the device's last registration, without the certificate that was issued with it.
    pub(crate) fn look_up(&mut self, now: SystemTime, who: &Authenticated) -> Reply {
        let device = self.device(who);
        let found = device.operation.as_ref().map(|operation| match &operation.progress {
            Progress::PollsLeft(_) => ("assigning".to_owned(), device.assigning(who, operation)),
            Progress::Done { status, state, .. } => (status.clone(), state.clone()),
        });
        self.devices.bound(who.registration_id.as_str());
        let Some((status, state)) = found else {
            return self.refuse(now, &ServiceError::not_found());
        };
        Reply::ok(200, &state).registration_status(&status).tracked(self.guids.next())
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

    fn begin(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        registration: Registration,
        behavior: &Behavior,
    ) -> Reply {
        if registration.csr.is_some() && self.policy(who) == CertificatePolicy::Refuse {
            return self.refuse(now, &ServiceError::no_certificate_policy());
        }
        let (id, etag) = (self.guids.next_operation(), self.guids.next_etag());
        // Nothing else is done with it, and it may be large.
        let echoes = self.enrollment(&who.enrollment).is_some_and(|enrollment| {
            matches!(enrollment.payload, ReturnedPayload::Echo)
                || matches!(enrollment.allocation, Allocation::Custom { .. })
        });
        let polls = behavior.polls_at(self.instance.pace);
        let device = self.device(who);
        let under_way =
            matches!(&device.operation, Some(Operation { progress: Progress::PollsLeft(_), .. }));
        if let (true, Some(operation), Some(_)) =
            (under_way, &mut device.operation, &registration.csr)
        {
            // The device may have made another key meanwhile.
            operation.csr = registration.csr;
            operation.api_version = registration.api_version;
        } else if !under_way {
            device.operation = Some(Operation {
                id,
                etag,
                begun: now,
                api_version: registration.api_version,
                progress: Progress::PollsLeft(polls),
                payload: registration.payload.filter(|_| echoes),
                force: registration.force,
                csr: registration.csr,
                webhook: Webhook::default(),
            });
            self.ask_webhook(who);
        }
        self.report(now, who, behavior, false)
    }

    /// What the device's operation has come to; ends it when no poll is left. Only a poll is told the state of one that
    /// is under way.
    fn report(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        behavior: &Behavior,
        polled: bool,
    ) -> Reply {
        let tracking_id = self.guids.next();
        let retry_after = behavior.retry_after_at(self.instance.pace);
        let due = self.device(who).operation.as_ref().filter(|operation| operation.is_due());
        let due = due.map(|operation| Registration {
            api_version: operation.api_version,
            payload: operation.payload.clone(),
            force: operation.force,
            csr: operation.csr.clone(),
        });
        if let Some(registration) = due {
            let done = self.end(now, who, behavior, registration);
            if let Some(operation) = &mut self.device(who).operation {
                operation.progress = done;
                operation.payload = None;
            }
        }
        let device = self.device(who);
        let Some(operation) = &device.operation else {
            return self.refuse(now, &ServiceError::operation_not_found());
        };
        let id = &operation.id;
        let reply = match &operation.progress {
            Progress::PollsLeft(_) => {
                let status = "assigning";
                let state = polled.then(|| device.assigning(who, operation));
                let registration_state = state.as_ref();
                Reply::ok(202, &OperationStatus { operation_id: id, registration_state, status })
                    .registration_status(status)
                    .pending(id.clone())
                    .retry_after(&retry_after, now)
            }
            Progress::Done { status, state, issued } => {
                let state = with_fields(state, issued);
                let registration_state = Some(&state);
                Reply::ok(200, &OperationStatus { operation_id: id, registration_state, status })
                    .registration_status(status)
            }
        };
        reply.tracked(tracking_id)
    }

    fn end(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        behavior: &Behavior,
        Registration { api_version, payload, force, csr }: Registration,
    ) -> Progress {
        let Some(enrollment) = self.enrollment(&who.enrollment).cloned() else {
            return Progress::PollsLeft(0);
        };
        let etag = self.guids.next_etag();
        let (chosen, failed) = match self.device(who).take_webhook() {
            Webhook::Answered(Ok(chosen)) => (Some(chosen), None),
            Webhook::Answered(Err(reason)) => {
                let message = format!("Custom allocation failed: {reason}");
                (None, Some(Outcome::failed(400_207, message)))
            }
            Webhook::Unasked | Webhook::Asked => (None, None),
        };
        let outcome = match &failed {
            _ if !enrollment.enabled => &Outcome::Disabled,
            Some(failed) => failed,
            None => &behavior.outcome,
        };
        let mut state = BTreeMap::new();
        let mut set = |name: &'static str, value: Value| state.insert(name, Json::from(value));
        let mut returned = None;
        set("registrationId", json!(who.registration_id.as_str()));
        let tpm_key = self.tpms.assigned(who.registration_id.as_str()).ok();
        let turn = self.turn(who);
        let nearest = self.instance.nearest_hubs.clone();
        let mut issued = None;
        let device = self.device(who);
        let status = match outcome {
            Outcome::Assigned | Outcome::Status(_) => {
                let assignment =
                    device.allocate(&enrollment, turn, &nearest, now, force, chosen.as_ref());
                set("createdDateTimeUtc", json!(clock::rfc3339(assignment.created)));
                set("lastUpdatedDateTimeUtc", json!(clock::rfc3339(assignment.updated)));
                set("assignedHub", json!(assignment.hub));
                let own_id = who.registration_id.as_str();
                let device_id = enrollment.device_id.as_deref().unwrap_or(own_id);
                set("deviceId", json!(device_id));
                device.device_id = Some(device_id.to_owned());
                if api_version.substatus {
                    let own = enrollment.substatus.as_ref().unwrap_or(&assignment.substatus);
                    set("substatus", json!(own));
                }
                if api_version.connection_profile {
                    set("connectionProfile", json!("classic"));
                }
                let own = chosen.and_then(|chosen| {
                    device.initial_twin = chosen.initial_twin;
                    chosen.payload
                });
                returned = match (&enrollment.payload, payload) {
                    _ if own.is_some() => api_version.payload.zip(own),
                    (ReturnedPayload::Fixed(payload), _) => {
                        api_version.payload.zip(Some(payload.clone()))
                    }
                    (ReturnedPayload::Echo, Some(payload)) => {
                        api_version.payload.zip(Some(payload))
                    }
                    _ => None,
                };
                let (name, value) = match &who.attested {
                    (TPM, _) => (TPM, tpm_key.unwrap_or_default()),
                    attested => attested.clone(),
                };
                set(name, value);
                issued = csr;
                match outcome {
                    Outcome::Status(word) => word,
                    _ => "assigned",
                }
            }
            Outcome::Failed { error_code, message } => {
                set("createdDateTimeUtc", json!(clock::rfc3339(now)));
                set("lastUpdatedDateTimeUtc", json!(clock::rfc3339(now)));
                set("errorCode", json!(error_code));
                set("errorMessage", json!(message));
                "failed"
            }
            Outcome::Disabled => {
                set("createdDateTimeUtc", json!(clock::rfc3339(now)));
                set("lastUpdatedDateTimeUtc", json!(clock::rfc3339(now)));
                "disabled"
            }
        };
        set("status", json!(status));
        set("etag", json!(etag));
        state.extend(returned);
        let issued = issued.and_then(|csr| self.issue(now, who, &csr, api_version));
        let (status, issued) = (status.to_owned(), issued.unwrap_or_default());
        Progress::Done { status, state: to_json(&state), issued }
    }

    /// What the answer says of a certificate for a device's request, if the policy of its enrollment is to issue one.
    fn issue(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        csr: &CertificateRequest,
        api_version: &ApiVersion,
    ) -> Option<Fields> {
        let CertificatePolicy::Issue { lifetime } = self.policy(who) else { return None };
        let chain = self.issuing_ca(now)?.issue(csr, lifetime, now).ok()?;
        if api_version.certificates == Certificates::Der {
            return Some([("issuedCertificateChain".to_owned(), json!(chain).into())].into());
        }
        let leaf = chain.first().map(|leaf| pem(leaf))?;
        let etag = self.guids.next();
        let bundle = self.issuing_ca(now)?.trust_bundle(now, &etag);
        let fields =
            [("issuedClientCertificate", json!(leaf).into()), ("trustBundle", bundle.into())];
        Some(fields.map(|(name, value)| (name.to_owned(), value)).into())
    }

    /// The issuing CA; `None` when the system has no randomness to make it from.
    pub(crate) fn issuing_ca(&mut self, now: SystemTime) -> Option<&IssuingCa> {
        if self.issuing.is_none() {
            self.issuing = IssuingCa::make(now).ok();
            self.changed.issuing_ca();
        }
        self.issuing.as_ref()
    }

    fn policy(&self, who: &Authenticated) -> CertificatePolicy {
        self.enrollment(&who.enrollment).map(|it| it.certificate_policy).unwrap_or_default()
    }

    /// The state of a device's registration as the service API tells it, without what proves who it is.
    pub(super) fn registration_state(&self, registration_id: &str) -> Option<Value> {
        let device = self.devices.get(registration_id)?;
        match &device.operation.as_ref()?.progress {
            Progress::PollsLeft(_) => {
                Some(json!({ "registrationId": registration_id, "status": "assigning" }))
            }
            Progress::Done { state, .. } => {
                let mut state: Value = state.read().ok()?;
                for name in ["tpm", "x509", "symmetricKey", "issuedCertificateChain"] {
                    state.as_object_mut()?.remove(name);
                }
                Some(state)
            }
        }
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

    fn behavior_and_device(&mut self, who: &Authenticated) -> (Option<Behavior>, &mut Device) {
        let behavior =
            self.enrollment(&who.enrollment).map(|enrollment| enrollment.behavior.clone());
        (behavior, self.device(who))
    }

    fn device(&mut self, who: &Authenticated) -> &mut Device {
        self.devices.of(who.registration_id.as_str(), &who.enrollment)
    }

    fn turn(&mut self, who: &Authenticated) -> usize {
        if let Some(turn) = self.device(who).turn {
            return turn;
        }
        let next = self.turns.entry(who.enrollment.clone()).or_default();
        let turn = *next;
        *next += 1;
        self.device(who).turn = Some(turn);
        turn
    }

    fn enrollment(&self, id: &EnrollmentId) -> Option<&Arc<Enrollment>> {
        self.enrollments.get(id).map(|stored| &stored.enrollment)
    }

    /// The individual enrollment of a device.
    fn individual(&self, registration_id: &str) -> Option<&Arc<Enrollment>> {
        self.enrollment(&EnrollmentId::new(Kind::Individual, registration_id))
    }
}

impl Device {
    /// The state of a registration that is under way.
    fn assigning(&self, who: &Authenticated, operation: &Operation) -> Json {
        let created = self.assignment.as_ref().map_or(operation.begun, |former| former.created);
        let state = json!({
            "registrationId": who.registration_id.as_str(),
            "createdDateTimeUtc": clock::rfc3339(created),
            "lastUpdatedDateTimeUtc": clock::rfc3339(operation.begun),
            "status": "assigning",
            "etag": operation.etag,
        });
        state.into()
    }
}

/// The object with more fields, and the others to the letter.
fn with_fields(object: &Json, more: &Fields) -> Json {
    if more.is_empty() {
        return object.clone();
    }
    let mut fields: BTreeMap<String, Json> = object.read().unwrap_or_default();
    fields.extend(more.clone());
    to_json(&fields)
}

/// Of texts, numbers and what is JSON already: there is nothing that can fail to serialize.
fn to_json(fields: &impl Serialize) -> Json {
    Json::new(fields).unwrap_or_else(|_| Value::Null.into())
}

/// Registration ids are compared without case, as the service does.
fn key(registration_id: &str) -> String {
    registration_id.to_ascii_lowercase()
}
