//! Custom allocation: what a webhook is asked, and what is made of its answer.
//! See <https://learn.microsoft.com/azure/iot-dps/concepts-custom-allocation>.

use dps_state_machine::Json;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Authenticated, Device, Kind, Operation, Progress, Service};
use crate::{
    behavior::Outcome,
    core::service_api::record_without_keys,
    enrollment::{Allocation, Enrollment, Reprovisioning},
};

/// How many calls wait for their turn; a registration beyond them fails.
pub(crate) const QUEUE: usize = 1024;

/// A call that a server is to make.
pub(crate) struct WebhookCall {
    pub(crate) url: String,
    pub(crate) body: Vec<u8>,
    pub(crate) registration_id: String,
    operation_id: String,
}

/// How far the webhook of an operation is.
#[derive(Clone, Default)]
pub(super) enum Webhook {
    /// None is asked.
    #[default]
    Unasked,
    Asked,
    Answered(Result<Chosen, String>),
}

/// What a webhook has answered.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chosen {
    pub(super) iot_hub_host_name: String,
    pub(super) initial_twin: Option<Json>,
    pub(super) payload: Option<Json>,
}

impl Operation {
    /// Whether nothing more is awaited but polls.
    pub(super) fn is_due(&self) -> bool {
        matches!(self.progress, Progress::PollsLeft(0)) && !matches!(self.webhook, Webhook::Asked)
    }
}

impl Device {
    /// What the webhook of its operation has said, which nobody needs a second time.
    pub(super) fn take_webhook(&mut self) -> Webhook {
        self.operation.as_mut().map(|it| std::mem::take(&mut it.webhook)).unwrap_or_default()
    }

    /// Whether an allocation would run at all.
    fn moves(&self, enrollment: &Enrollment, force: bool) -> bool {
        self.assignment.is_none() || enrollment.reprovisioning != Reprovisioning::Never || force
    }
}

impl Service {
    /// Where the calls go that are to be made from now on.
    pub(crate) fn set_webhooks(&mut self, calls: mpsc::Sender<WebhookCall>) {
        self.webhooks = Some(calls);
    }

    /// Asks the webhook of the device's enrollment about the operation that is under way, if it has one; only once.
    pub(super) fn ask_webhook(&mut self, who: &Authenticated) {
        let Some(stored) = self.enrollments.get(&who.enrollment).cloned() else { return };
        let enrollment = &stored.enrollment;
        let Allocation::Custom { webhook, .. } = &enrollment.allocation else { return };
        let ends_well =
            matches!(enrollment.behavior.outcome, Outcome::Assigned | Outcome::Status(_));
        let calls = self.webhooks.clone();
        let device = self.device(who);
        let Some(Operation { force, webhook: Webhook::Unasked, .. }) = device.operation else {
            return;
        };
        if !enrollment.enabled || !ends_well || !device.moves(enrollment, force) {
            return;
        }
        let Some(operation) = &mut device.operation else { return };
        let kind = match who.enrollment.kind {
            Kind::Individual => "individualEnrollment",
            Kind::Group => "enrollmentGroup",
        };
        let (name, attested) = &who.attested;
        let body = json!({
            (kind): record_without_keys(&stored),
            "deviceRuntimeContext": {
                "registrationId": who.registration_id.as_str(),
                "currentIotHubHostName": device.assignment.as_ref().map(|it| &it.hub),
                "currentDeviceId": device.device_id,
                (*name): attested,
                "payload": operation.payload,
            },
            "linkedHubs": enrollment.hubs,
        });
        let call = WebhookCall {
            url: webhook.clone(),
            body: body.to_string().into_bytes(),
            registration_id: who.registration_id.to_string(),
            operation_id: operation.id.clone(),
        };
        operation.webhook = match calls.map(|calls| calls.try_send(call)) {
            Some(Ok(())) => Webhook::Asked,
            _ => Webhook::Answered(Err("too many webhooks are being called".to_owned())),
        };
    }

    /// Takes what came of a call; says which hub was chosen, or what is wrong.
    pub(crate) fn webhook_answered(
        &mut self,
        call: &WebhookCall,
        answer: Result<Vec<u8>, String>,
    ) -> Result<String, String> {
        let device = self.devices.get_mut(&call.registration_id);
        let device = device.ok_or("the device was forgotten meanwhile")?;
        let enrollment = self.enrollments.get(&device.enrollment);
        let hubs = enrollment.map_or(&[][..], |stored| &stored.enrollment.hubs);
        let chosen = answer.and_then(|body| {
            let chosen: Chosen = serde_json::from_slice(&body)
                .map_err(|error| format!("the webhook's answer can't be read: {error}"))?;
            if !hubs.iter().any(|hub| hub.eq_ignore_ascii_case(&chosen.iot_hub_host_name)) {
                let reason = "the webhook's iotHubHostName is none of the enrollment's hubs";
                return Err(format!("{reason}: {:?}", chosen.iot_hub_host_name));
            }
            let objects = [("initialTwin", &chosen.initial_twin), ("payload", &chosen.payload)];
            for (field, value) in objects {
                if value.as_ref().is_some_and(|value| !value.is_object()) {
                    return Err(format!("the webhook's {field} must be a JSON object"));
                }
            }
            Ok(chosen)
        });
        let told = chosen.clone().map(|chosen| chosen.iot_hub_host_name);
        if let Some(operation) = &mut device.operation
            && operation.id == call.operation_id
        {
            operation.webhook = Webhook::Answered(chosen);
        }
        told
    }
}
