//! Requests as messages, and messages as answers.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-messaging-v1.0-os.html#section-message-format>.

use std::time::SystemTime;

use dps_state_machine::{OperationId, RegistrationRequest, Response, retry_after};
use fe2o3_amqp_types::messaging::{ApplicationProperties, Data, Properties};

use crate::{
    codec::{Fields, encoded},
    value::{Malformed, Value},
};

/// The largest body of an answer that is read, in bytes (1 MiB).
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The message that registers the device.
#[must_use]
pub fn register(request: &RegistrationRequest, correlation_id: &str) -> Vec<u8> {
    let properties = ApplicationProperties::builder()
        .insert("iotdps-operation-type", "iotdps-register")
        .insert("iotdps-forceRegistration", request.is_forced())
        .build();
    message(correlation_id, &properties, request.body())
}

/// The message that asks for the operation's status.
#[must_use]
pub fn query(operation_id: &OperationId, correlation_id: &str) -> Vec<u8> {
    let properties = ApplicationProperties::builder()
        .insert("iotdps-operation-type", "iotdps-get-operationstatus")
        .insert("iotdps-operation-id", operation_id.as_str())
        .build();
    message(correlation_id, &properties, Vec::new())
}

fn message(correlation_id: &str, application: &ApplicationProperties, body: Vec<u8>) -> Vec<u8> {
    let properties = Properties {
        message_id: Some(correlation_id.to_owned().into()),
        correlation_id: Some(correlation_id.to_owned().into()),
        ..Properties::default()
    };
    let mut message = encoded(&properties);
    message.extend(encoded(application));
    message.extend(encoded(&Data::from(body)));
    message
}

/// A message from the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    correlation_id: Option<String>,
    /// Its properties, then its application properties.
    properties: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The properties of a message in their order.
const PROPERTIES: [&str; 13] = [
    "message-id",
    "user-id",
    "to",
    "subject",
    "reply-to",
    "correlation-id",
    "content-type",
    "content-encoding",
    "absolute-expiry-time",
    "creation-time",
    "group-id",
    "group-sequence",
    "reply-to-group-id",
];

impl Answer {
    /// Reads a whole message: its body may be in data sections, or a text or bytes as a value.
    ///
    /// # Errors
    /// [`Malformed`] when it is no message, or its body is larger than [`MAX_ANSWER_BYTES`].
    pub fn read(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        while !bytes.is_empty() {
            let Value::Described(section, content) = Value::read(&mut bytes)? else {
                return Err(Malformed::new("a section of a message does not say what it is"));
            };
            match (section, *content) {
                (0x73, properties) => answer.read_properties(&Fields(properties.into_list())),
                (0x74, properties) => answer.properties.extend(
                    properties
                        .into_named()
                        .map(|(name, value)| (name.to_owned(), value.to_string())),
                ),
                (0x75 | 0x77, Value::Binary(part)) => answer.body.extend(part),
                (0x77, Value::Text(text)) => answer.body.extend(text.as_bytes()),
                (0x76 | 0x77, Value::Null) => {}
                (0x75..=0x77, _) => {
                    return Err(Malformed::new("its body is neither data nor text"));
                }
                // Headers, annotations and footers are the transport's own.
                _ => {}
            }
        }
        match answer.body.len() {
            0..=MAX_ANSWER_BYTES => Ok(answer),
            _ => Err(too_large()),
        }
    }

    fn read_properties(&mut self, fields: &Fields<'_>) {
        for (place, name) in PROPERTIES.into_iter().enumerate() {
            let Some(value) = fields.get(place) else { continue };
            if name == "correlation-id" {
                self.correlation_id = Some(value.to_string());
            }
            self.properties.push((name.to_owned(), value.to_string()));
        }
    }

    /// Whether it answers the request of this id.
    #[must_use]
    pub fn answers(&self, correlation_id: &str) -> bool {
        self.correlation_id.as_deref().is_some_and(|id| id.eq_ignore_ascii_case(correlation_id))
    }

    /// The answer, as the state machine takes it. `now` is what a retry-after date counts from.
    #[must_use]
    pub fn into_response(self, now: SystemTime) -> Response {
        let asked =
            self.properties.iter().filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
        let retry_after = retry_after::parse(asked.map(|(_, value)| value.as_str()), now);
        Response::new(200, self.body)
            .retry_after(retry_after)
            .protocol_result(self.properties.into_iter().collect())
    }
}

pub(crate) fn too_large() -> Malformed {
    Malformed::new(format!("it is larger than {MAX_ANSWER_BYTES} bytes"))
}
