//! Requests, read from the messages of a link.

use std::collections::BTreeMap;

use serde_amqp::Value;

use super::codec::{Message, text};
use crate::core::{Authenticated, DeviceRequest, Proof, ServiceError, events::Operation};

/// The largest message that is read, in bytes; above what the service takes, so that it can refuse it.
pub(super) const MAX_MESSAGE: usize = 160 * 1024;

/// The device that a link is for.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) registration_id: String,
    pub(super) who: Authenticated,
    pub(super) api_version: Option<String>,
    pub(super) client_version: Option<String>,
}

/// A message that comes in parts.
pub(super) struct Partial {
    pub(super) delivery_id: u32,
    pub(super) settled: bool,
    pub(super) payload: Vec<u8>,
}

impl Partial {
    /// The message, and what is wrong with it.
    pub(super) fn read(&self) -> (Message, Option<ServiceError>) {
        if self.payload.len() >= MAX_MESSAGE {
            return (Message::default(), Some(ServiceError::TOO_LARGE));
        }
        match Message::read(&self.payload) {
            Ok(message) => (message, None),
            Err(reason) => (Message::default(), Some(ServiceError::deserialization(reason))),
        }
    }
}

impl Device {
    /// What a message asks for.
    pub(super) fn request<'a>(
        &'a self,
        message: &'a Message,
        malformed: Option<ServiceError>,
    ) -> DeviceRequest<'a> {
        let property = |name| message.property(name).and_then(text);
        DeviceRequest {
            operation: match property("iotdps-operation-type") {
                Some("iotdps-register") => Operation::Register,
                Some("iotdps-get-operationstatus") => Operation::Query,
                Some("iotdps-get-registration") => Operation::Lookup,
                _ => Operation::Unknown,
            },
            registration_id: self.registration_id.clone(),
            operation_id: property("iotdps-operation-id").map(str::to_owned),
            api_version: self.api_version.clone(),
            force: message.property("iotdps-forceRegistration") == Some(&Value::Bool(true)),
            headers: telling_properties(self, message),
            body: &message.body,
            proof: Proof::Checked(Ok(&self.who)),
            malformed,
        }
    }
}

/// The properties that tell one client from another.
fn telling_properties(device: &Device, message: &Message) -> BTreeMap<String, String> {
    let shown = |value: &Value| match value {
        Value::Uuid(uuid) => format!("{uuid:?}"),
        other => text(other).map_or_else(|| format!("{other:?}"), str::to_owned),
    };
    let mut properties: BTreeMap<_, _> =
        message.application.iter().map(|(name, value)| (name.clone(), shown(value))).collect();
    let beside = [
        ("client-version", device.client_version.clone()),
        ("message-id", message.message_id.as_ref().map(shown)),
        ("correlation-id", message.correlation_id.as_ref().map(shown)),
    ];
    properties
        .extend(beside.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    properties
}
