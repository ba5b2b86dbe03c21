//! Registrations: what a device has begun, how far that is, and what it comes to.

use std::{collections::BTreeMap, time::SystemTime};

use dps_state_machine::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    ApiVersion, Authenticated, EnrollmentId, Registration, Reply, Service, ServiceError, TPM,
    allocation::Assignment,
    issuing::{CertificateRequest, IssuingCa, pem},
    script::{self, Cursor},
    webhook::Webhook,
};
use crate::{
    behavior::{Behavior, Outcome},
    core::clock,
    enrollment::{Allocation, ReturnedPayload},
    hub::Twin,
    issuance::CertificatePolicy,
};

/// What the service knows of a device that has registered.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Device {
    /// As it was written first.
    pub(super) registration_id: String,
    pub(super) enrollment: EnrollmentId,
    #[serde(default, skip_serializing_if = "Operation::is_begun_anew")]
    pub(super) operation: Option<Operation>,
    pub(super) assignment: Option<Assignment>,
    /// Which of the devices it is that are dealt several hubs in turn.
    pub(super) turn: Option<usize>,
    pub(super) allocations: usize,
    pub(super) register: Cursor,
    pub(super) query: Cursor,
    /// Whether the device has installed the update of its enrollment.
    pub(super) updated: bool,
    /// Its id at the hub, once it is assigned.
    pub(super) device_id: Option<String>,
    /// The one that a webhook has given, in place of the enrollment's.
    pub(super) initial_twin: Option<Json>,
    pub(super) twin: Twin,
}

/// One registration: under way, or its last result.
#[derive(Serialize, Deserialize)]
pub(super) struct Operation {
    pub(super) id: String,
    pub(super) etag: String,
    pub(super) begun: SystemTime,
    pub(super) progress: Progress,
    /// The payload that the device sent and whether it forced the allocation.
    pub(super) payload: Option<Json>,
    pub(super) force: bool,
    #[serde(skip)]
    pub(super) csr: Option<CertificateRequest>,
    #[serde(skip)]
    pub(super) webhook: Webhook,
}

/// The answer about an operation.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OperationStatus<'a> {
    operation_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_state: Option<&'a Fields>,
    status: &'a str,
}

#[derive(Serialize, Deserialize)]
pub(super) enum Progress {
    PollsLeft(u32),
    Done {
        status: String,
        /// With all fields that any api-version has.
        state: Json,
        /// What only the answer about the operation says besides: the certificate that was issued.
        issued: Fields,
    },
}

/// What a registration has come to, with all fields that any api-version has.
#[derive(Serialize)]
struct State {
    #[serde(flatten)]
    fields: BTreeMap<&'static str, Value>,
    /// To the letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Json>,
}

/// Fields of an object.
pub(super) type Fields = BTreeMap<String, Json>;

impl Service {
    /// Takes a registration: begins an operation, or goes on with the one that is under way.
    pub(crate) fn register(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        registration: Result<Registration, ServiceError>,
    ) -> Reply {
        let (Some(behavior), device) = self.behavior_and_device(who) else {
            return self.refuse(now, &ServiceError::NOT_FOUND);
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
        api_version: &'static ApiVersion,
        operation_id: &str,
    ) -> Reply {
        let (Some(behavior), device) = self.behavior_and_device(who) else {
            return self.refuse(now, &ServiceError::NOT_FOUND);
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
            let reply = self.refuse(now, &ServiceError::OPERATION_NOT_FOUND);
            return self.apply(now, reply, fault);
        }
        let reply = self.report(now, who, api_version, &behavior, true);
        self.apply(now, reply, fault)
    }

    /// Tells what has become of the device's last registration, without the certificate that was issued with it.
    pub(crate) fn look_up(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        api_version: &ApiVersion,
    ) -> Reply {
        let device = self.device(who);
        let found = device.operation.as_ref().map(|operation| match &operation.progress {
            Progress::PollsLeft(_) => ("assigning".to_owned(), device.assigning(who, operation)),
            Progress::Done { status, state, .. } => {
                (status.clone(), api_version.shape(state, &Fields::new()))
            }
        });
        self.devices.bound(who.registration_id.as_str());
        let Some((status, state)) = found else {
            return self.refuse(now, &ServiceError::NOT_FOUND);
        };
        Reply::ok(200, &state).registration_status(&status, Some(&state)).tracked(self.guids.next())
    }

    fn begin(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        registration: Registration,
        behavior: &Behavior,
    ) -> Reply {
        if registration.csr.is_some() && self.policy(who) == CertificatePolicy::Refuse {
            return self.refuse(now, &ServiceError::NO_CERTIFICATE_POLICY);
        }
        let (id, etag) = (self.guids.next_operation(), self.guids.next_etag());
        // Nothing else is done with it, and it may be large.
        let echoes = self.enrollment(&who.enrollment).is_some_and(|enrollment| {
            matches!(enrollment.payload, ReturnedPayload::Echo)
                || matches!(enrollment.allocation, Allocation::Custom { .. })
        });
        let polls = behavior.polls_at(self.instance.pace);
        let device = self.device(who);
        match &mut device.operation {
            // What is new in a registration that is repeated counts, and what the former ones had stays.
            Some(operation) if matches!(operation.progress, Progress::PollsLeft(_)) => {
                let payload = registration.payload.filter(|_| echoes);
                operation.payload = payload.or(operation.payload.take());
                operation.force |= registration.force;
                operation.csr = registration.csr.or(operation.csr.take());
            }
            other => {
                *other = Some(Operation {
                    id,
                    etag,
                    begun: now,
                    progress: Progress::PollsLeft(polls),
                    payload: registration.payload.filter(|_| echoes),
                    force: registration.force,
                    csr: registration.csr,
                    webhook: Webhook::default(),
                });
            }
        }
        self.ask_webhook(who);
        self.report(now, who, registration.api_version, behavior, false)
    }

    /// What the device's operation has come to; ends it when no poll is left. Only a poll is told the state of one that
    /// is under way.
    fn report(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        api_version: &'static ApiVersion,
        behavior: &Behavior,
        polled: bool,
    ) -> Reply {
        let tracking_id = self.guids.next();
        let retry_after = behavior.retry_after_at(self.instance.pace);
        let due = self.device(who).operation.as_mut().filter(|operation| operation.is_due());
        let due = due.map(|operation| Registration {
            api_version,
            payload: operation.payload.take(),
            force: operation.force,
            csr: operation.csr.take(),
        });
        if let Some(registration) = due {
            let done = self.end(now, who, behavior, registration);
            if let Some(operation) = &mut self.device(who).operation {
                operation.progress = done;
            }
        }
        let device = self.device(who);
        let Some(operation) = &device.operation else {
            return self.refuse(now, &ServiceError::OPERATION_NOT_FOUND);
        };
        let id = &operation.id;
        let reply = match &operation.progress {
            Progress::PollsLeft(_) => {
                let status = "assigning";
                let state = polled.then(|| device.assigning(who, operation));
                let registration_state = state.as_ref();
                Reply::ok(202, &OperationStatus { operation_id: id, registration_state, status })
                    .registration_status(status, None)
                    .pending(id.clone())
                    .retry_after(&retry_after, now)
            }
            Progress::Done { status, state, issued } => {
                let state = api_version.shape(state, issued);
                let registration_state = Some(&state);
                Reply::ok(200, &OperationStatus { operation_id: id, registration_state, status })
                    .registration_status(status, registration_state)
            }
        };
        reply.tracked(tracking_id)
    }

    fn end(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        behavior: &Behavior,
        Registration { payload, force, csr, .. }: Registration,
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
        let mut fields = BTreeMap::new();
        let mut set = |name: &'static str, value: Value| fields.insert(name, value);
        let mut returned = None;
        set("registrationId", json!(who.registration_id.as_str()));
        let tpm_key = self.tpms.assigned(who.registration_id.as_str()).ok();
        let dealt = enrollment.allocation == Allocation::Evenly && enrollment.hubs.len() > 1;
        let turn = if dealt { self.turn(who) } else { 0 };
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
                // However it is spelled this time, it stays one device at its hub.
                let first =
                    if enrollment.is_group() { &device.registration_id } else { &enrollment.name };
                let device_id = enrollment.device_id.as_ref().unwrap_or(first).clone();
                set("deviceId", json!(device_id));
                device.device_id = Some(device_id);
                let own = enrollment.substatus.as_ref().unwrap_or(&assignment.substatus);
                set("substatus", json!(own));
                set("connectionProfile", json!("classic"));
                let own = chosen.and_then(|chosen| {
                    device.initial_twin = chosen.initial_twin;
                    chosen.payload
                });
                returned = own.or(match &enrollment.payload {
                    ReturnedPayload::Fixed(payload) => Some(payload.clone()),
                    ReturnedPayload::Echo => payload,
                    ReturnedPayload::None => None,
                });
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
        let state = to_json(&State { fields, payload: returned });
        let issued = issued.and_then(|csr| self.issue(now, who, &csr));
        let (status, issued) = (status.to_owned(), issued.unwrap_or_default());
        Progress::Done { status, state, issued }
    }

    /// What the answers of all api-versions say of a certificate for a device's request, if the policy of its enrollment is
    /// to issue one.
    fn issue(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        csr: &CertificateRequest,
    ) -> Option<Fields> {
        let CertificatePolicy::Issue { lifetime } = self.policy(who) else { return None };
        let chain = self.issuing_ca(now)?.issue(csr, lifetime, now).ok()?;
        let leaf = chain.first().map(|leaf| pem(leaf))?;
        let etag = self.guids.next();
        let bundle = self.issuing_ca(now)?.trust_bundle(now, &etag);
        let fields = [
            ("issuedCertificateChain", json!(chain)),
            ("issuedClientCertificate", json!(leaf)),
            ("trustBundle", bundle),
        ];
        Some(fields.map(|(name, value)| (name.to_owned(), value.into())).into())
    }

    /// The issuing CA; `None` when the system has no randomness to make it from.
    pub(crate) fn issuing_ca(&mut self, now: SystemTime) -> Option<&IssuingCa> {
        if self.issuing.is_none() {
            self.issuing = IssuingCa::make(now).ok();
            self.changed.issuing_ca();
        }
        self.issuing.as_ref()
    }

    pub(super) fn policy(&self, who: &Authenticated) -> CertificatePolicy {
        self.enrollment(&who.enrollment).map(|it| it.certificate_policy).unwrap_or_default()
    }

    /// The state of a device's registration as the service API tells it, without what proves who it is.
    pub(crate) fn registration_state(&self, registration_id: &str) -> Option<Value> {
        let device = self.devices.get(registration_id)?;
        match &device.operation.as_ref()?.progress {
            Progress::PollsLeft(_) => {
                Some(json!({ "registrationId": registration_id, "status": "assigning" }))
            }
            Progress::Done { state, .. } => {
                let mut state: Value = state.read().ok()?;
                for name in ["tpm", "x509", "symmetricKey", "connectionProfile"] {
                    state.as_object_mut()?.remove(name);
                }
                Some(state)
            }
        }
    }

    pub(super) fn behavior_and_device(
        &mut self,
        who: &Authenticated,
    ) -> (Option<Behavior>, &mut Device) {
        let behavior =
            self.enrollment(&who.enrollment).map(|enrollment| enrollment.behavior.clone());
        (behavior, self.device(who))
    }

    pub(super) fn device(&mut self, who: &Authenticated) -> &mut Device {
        self.devices.of(who.registration_id.as_str(), &who.enrollment)
    }

    fn turn(&mut self, who: &Authenticated) -> usize {
        if let Some(turn) = self.device(who).turn {
            return turn;
        }
        let next = self.turns.entry(who.enrollment.dealt()).or_default();
        let turn = *next;
        *next += 1;
        self.device(who).turn = Some(turn);
        turn
    }
}

impl Device {
    /// The state of a registration that is under way.
    fn assigning(&self, who: &Authenticated, operation: &Operation) -> Fields {
        let created = self.assignment.as_ref().map_or(operation.begun, |former| former.created);
        let state = [
            ("registrationId", who.registration_id.as_str()),
            ("createdDateTimeUtc", &clock::rfc3339(created)),
            ("lastUpdatedDateTimeUtc", &clock::rfc3339(operation.begun)),
            ("status", "assigning"),
            ("etag", &operation.etag),
        ];
        state.map(|(name, value)| (name.to_owned(), json!(value).into())).into()
    }
}

/// Of texts, numbers and what is JSON already: there is nothing that can fail to serialize.
pub(super) fn to_json(fields: &impl Serialize) -> Json {
    Json::new(fields).unwrap_or_else(|_| Value::Null.into())
}
