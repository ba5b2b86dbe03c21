//! A small IoT hub, for what a device does first once it is assigned: it connects, sends telemetry, asks for its twin,
//! reports properties, and has its certificate renewed. It knows no transport; who is let in and what is answered is the
//! service's business (`core/service/hub.rs`), and what of it goes over MQTT is in `server/mqtt/hub.rs`.
//!
//! It is no hub for anything else: docs/emulator/hub.md lists what is missing.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_state_machine::Json;
use serde::{Deserialize, Serialize};

use crate::core::{
    Caller, HubDevice, Reply, Session,
    events::{EventKind, HubOperation},
};

mod names;
mod twin;

pub(crate) use names::{check_device_id, check_hub};
pub(crate) use twin::Twin;

/// The longest body of a message whose JSON is in the event, in bytes (16 KiB).
const SHOWN_JSON: usize = 16 * 1024;
/// How many bytes of any other body are in the event.
const SHOWN_BYTES: usize = 1024;

/// Why a hub refuses a device whose credential is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HubRefusal {
    /// The device is disabled there.
    Disabled,
    /// The hub has no such device: it was deleted.
    UnknownDevice,
    /// The device was moved to another hub.
    Moved,
    /// The hub takes no more connections now.
    Throttled,
}

/// Why a device is not let in.
#[derive(Debug)]
pub(crate) struct NotAdmitted {
    /// Whether it may be let in later.
    pub(crate) is_busy: bool,
    pub(crate) reason: String,
}

impl NotAdmitted {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { is_busy: false, reason: reason.into() }
    }
}

impl From<HubRefusal> for NotAdmitted {
    fn from(refusal: HubRefusal) -> Self {
        let reason = match refusal {
            HubRefusal::Disabled => "scripted: the device is disabled",
            HubRefusal::UnknownDevice => "scripted: the hub does not know the device",
            HubRefusal::Moved => "scripted: the device was moved to another hub",
            HubRefusal::Throttled => "scripted: the hub is throttling",
        };
        Self { is_busy: refusal == HubRefusal::Throttled, ..Self::new(reason) }
    }
}

/// What a device says of itself when it connects.
pub(crate) struct Arrival<'a> {
    pub(crate) hub: &'a str,
    pub(crate) device_id: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) api_version: String,
    pub(crate) client_type: Option<String>,
}

/// A device that is connected to its hub.
pub(crate) struct HubSession {
    caller: Caller,
    pub(crate) device: HubDevice,
    /// A device has one at a time.
    pub(crate) session: Session,
}

/// What a device asks its hub for.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// The version of the reported properties.
    pub(crate) version: Option<u64>,
}

impl HubSession {
    /// Lets a device in, or says why not; either is an event.
    pub(crate) fn begin(caller: &Caller, arrival: Arrival<'_>) -> Result<Self, NotAdmitted> {
        let device = caller.admit(arrival)?;
        // Of these two, the device id alone is compared with case.
        let hub = device.hub.to_ascii_lowercase();
        let session = caller.begin_session(format!("{hub}/devices/{}", device.device_id));
        Ok(Self { caller: caller.clone(), device, session })
    }

    /// Takes a message of the device, which becomes an event.
    pub(crate) fn take_telemetry(
        &self,
        properties: BTreeMap<String, String>,
        qos: u8,
        body: &[u8],
    ) {
        let payload = shown_json(body);
        let base64 =
            payload.is_none().then(|| STANDARD.encode(body.get(..SHOWN_BYTES).unwrap_or(body)));
        self.caller.record(EventKind::Telemetry {
            registration_id: self.device.registration_id.to_string(),
            hub: self.device.hub.clone(),
            device_id: self.device.device_id.clone(),
            properties,
            qos,
            body_bytes: body.len(),
            base64: base64.filter(|base64| !base64.is_empty()),
            payload,
        });
    }

    /// Answers a request of the device, once or, for a certificate, twice.
    pub(crate) fn ask(&self, operation: HubOperation, body: &[u8]) -> Vec<Answer> {
        let (now, device) = (self.caller.now(), &self.device);
        let alone = |reply| Answer { reply, version: None };
        let answers = match operation {
            HubOperation::Twin => vec![alone(self.caller.service().twin(now, device))],
            HubOperation::ReportedProperties => {
                let (reply, version) = self.caller.service().report_properties(now, device, body);
                vec![Answer { reply, version }]
            }
            HubOperation::IssueCertificate => {
                let replies = self.caller.service().issue_at_hub(now, device, body);
                replies.into_iter().map(alone).collect()
            }
        };
        self.caller.record(EventKind::HubRequest {
            registration_id: device.registration_id.to_string(),
            operation,
            body_bytes: body.len(),
            statuses: answers.iter().map(|answer| answer.reply.status).collect(),
            payload: (operation == HubOperation::ReportedProperties)
                .then(|| shown_json(body))
                .flatten(),
        });
        answers
    }
}

/// The body to the letter, if it is JSON and not too long.
fn shown_json(body: &[u8]) -> Option<Json> {
    if body.len() > SHOWN_JSON {
        return None;
    }
    str::from_utf8(body).ok()?.trim().parse().ok()
}
