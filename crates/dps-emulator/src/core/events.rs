//! What happened: every connection, authentication, request and answer, with its time.

use std::{collections::BTreeMap, net::SocketAddr};

use dps_state_machine::Json;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::behavior::Delivery;

mod log;
mod shown;
mod sink;

pub use log::EventLog;
pub(crate) use log::{Line, PORTION, Recorder};
pub(crate) use sink::SinkEnd;

/// One thing that happened. It is written to and read from one line of JSON; no secret is ever in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
#[non_exhaustive]
pub struct Event {
    /// Counts up from 0, without gaps.
    pub sequence: u64,
    /// Milliseconds since the emulator started, by a clock that never jumps.
    pub elapsed_ms: u64,
    /// The time of day in UTC.
    pub time: String,
    /// Which connection, counted from 1.
    pub connection: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl Event {
    /// The device that it is about, as written; `None` for what has no device yet.
    #[must_use]
    pub fn registration_id(&self) -> Option<&str> {
        match &self.kind {
            EventKind::Request { registration_id, .. }
            | EventKind::Authenticated { registration_id, .. }
            | EventKind::AuthenticationFailed { registration_id, .. }
            | EventKind::Answer { registration_id, .. }
            | EventKind::HubConnected { registration_id, .. }
            | EventKind::Telemetry { registration_id, .. }
            | EventKind::HubRequest { registration_id, .. }
            | EventKind::WebhookAnswered { registration_id, .. } => Some(registration_id),
            _ => None,
        }
    }

    /// Whether it is a request of this kind.
    #[must_use]
    pub fn is_request(&self, wanted: Operation) -> bool {
        matches!(self.kind, EventKind::Request { operation, .. } if operation == wanted)
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

/// From JSON only. The payload is read aside, since a tagged enum does not keep it to the letter.
impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = BTreeMap::<String, Json>::deserialize(deserializer)?;
        let sent = fields.remove("payload").filter(|payload| payload.get() != "null");
        let others = Json::new(&fields).map_err(D::Error::custom)?;
        let mut others = serde_json::Deserializer::from_str(others.get());
        let mut event = Self::deserialize(&mut others).map_err(D::Error::custom)?;
        if let EventKind::Request { payload, .. }
        | EventKind::Telemetry { payload, .. }
        | EventKind::HubRequest { payload, .. } = &mut event.kind
        {
            *payload = sent;
        }
        Ok(event)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum EventKind {
    /// A connection was accepted.
    Connected {
        /// The protocol of the port.
        transport: Transport,
        /// The other end.
        peer: SocketAddr,
        /// This end.
        local: SocketAddr,
    },
    /// TLS is up.
    TlsEstablished {
        /// For example `TLSv1_3`.
        version: String,
        /// The name that the peer asked for.
        server_name: Option<String>,
        /// How many certificates the peer sent.
        client_certificates: usize,
        /// The SHA-256 thumbprint of the peer's own.
        thumbprint: Option<String>,
    },
    /// TLS did not come up.
    TlsFailed {
        /// Why.
        reason: String,
    },
    /// A request came in.
    Request {
        /// The protocol that it came by.
        transport: Transport,
        /// What it asks for.
        operation: Operation,
        /// Which device asks, as written.
        registration_id: String,
        /// Which operation it asks about.
        operation_id: Option<String>,
        /// The api-version, as written.
        api_version: Option<String>,
        /// Whether it forces the allocation.
        force: bool,
        /// The headers or properties that matter, credentials left out.
        headers: BTreeMap<String, String>,
        /// The size of its body.
        body_bytes: usize,
        /// The payload for the allocation, to the letter.
        #[serde(skip_deserializing)]
        payload: Option<Json>,
    },
    /// A credential was found right.
    Authenticated {
        /// Whose.
        registration_id: String,
        /// The enrollment that it belongs to.
        enrollment: String,
        /// What kind of credential it is.
        method: Method,
    },
    /// A credential was refused.
    AuthenticationFailed {
        /// Whose, as written.
        registration_id: String,
        /// What kind of credential it is.
        method: Method,
        /// The service's code.
        error_code: u32,
        /// The true reason, which the answer does not always tell.
        reason: String,
    },
    /// A request was answered, or would have been but for a fault.
    Answer {
        /// The protocol that it goes by.
        transport: Transport,
        /// What it answers.
        operation: Operation,
        /// To which device.
        registration_id: String,
        /// As HTTP counts it.
        status: u16,
        /// The status word of the registration, when the answer has one.
        registration_status: Option<String>,
        /// The service's code, when it is a refusal or says that the registration has failed.
        error_code: Option<u32>,
        /// The id of the answer.
        tracking_id: String,
        /// The values of its retry-after.
        retry_after: Vec<String>,
        /// The size of its body.
        body_bytes: usize,
        /// How it is delivered.
        delivery: Delivery,
    },
    /// The emulator was put back to what it was at its start.
    Reset {},
    /// A device has connected to its hub.
    HubConnected {
        /// The protocol.
        transport: Transport,
        /// As whom it is registered.
        registration_id: String,
        /// The hub.
        hub: String,
        /// Its id there.
        device_id: String,
        /// What kind of credential it showed.
        method: Method,
        /// The api-version, as written.
        api_version: String,
        /// What the device says of its software.
        client_type: Option<String>,
    },
    /// A hub has refused a device.
    HubRefused {
        /// The protocol.
        transport: Transport,
        /// The hub, as written.
        hub: String,
        /// Which device, as written.
        device_id: String,
        /// What kind of credential it showed.
        method: Method,
        /// The true reason, which the answer does not tell.
        reason: String,
    },
    /// A device has sent a message to its hub.
    Telemetry {
        /// As whom it is registered.
        registration_id: String,
        /// The hub.
        hub: String,
        /// Its id there.
        device_id: String,
        /// The message's properties.
        properties: BTreeMap<String, String>,
        /// MQTT's quality of service: 0 or 1.
        qos: u8,
        /// The size of its body.
        body_bytes: usize,
        /// The body to the letter, if it is JSON of at most 16 KiB.
        #[serde(skip_deserializing)]
        payload: Option<Json>,
        /// The first 1024 bytes of any other body, as base64. What looks like a key is masked, here as in every event.
        base64: Option<String>,
    },
    /// A device has asked its hub for something, and was answered.
    HubRequest {
        /// As whom it is registered.
        registration_id: String,
        /// What it asked for.
        operation: HubOperation,
        /// The size of the request's body.
        body_bytes: usize,
        /// The status of each answer, as HTTP counts it.
        statuses: Vec<u16>,
        /// The patch of reported properties, to the letter, if it has at most 16 KiB.
        #[serde(skip_deserializing)]
        payload: Option<Json>,
    },
    /// A call of the service API was answered, or would have been but for a fault.
    ServiceCall {
        /// As HTTP has it, for example `PUT`.
        method: String,
        /// The path, without its query.
        path: String,
        /// The policy that the caller has proved to have.
        policy: Option<String>,
        /// As HTTP counts it.
        status: u16,
        /// The service's code, when it is a refusal.
        error_code: Option<u32>,
        /// The id of the answer.
        tracking_id: String,
    },
    /// A webhook for custom allocation was called. No connection has this event: its number is 0.
    WebhookAnswered {
        /// The device that is to get a hub.
        registration_id: String,
        /// The hub that was chosen.
        hub: Option<String>,
        /// Why none was.
        reason: Option<String>,
    },
    /// A connection is over.
    Closed {
        /// Why.
        reason: String,
        /// Bytes that came in, TLS not counted.
        received: u64,
        /// Bytes that went out, TLS not counted.
        sent: u64,
    },
}

/// A protocol that devices speak to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Transport {
    /// HTTPS.
    Http,
    /// MQTT over TLS.
    Mqtt,
    /// MQTT over WebSocket.
    MqttWs,
    /// AMQP over TLS.
    Amqp,
    /// AMQP over WebSocket.
    AmqpWs,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// To register.
    Register,
    /// How far an operation is.
    Query,
    /// What has become of a device's last registration.
    Lookup,
    /// For an update of a device's software before it is assigned.
    OnboardingUpdate,
    /// For an update of a device's software.
    SoftwareUpdate,
    /// To take note of how an update went.
    UpdateStatus,
    /// Something that the service doesn't know.
    Unknown,
}

/// What a device asks its hub for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HubOperation {
    /// Its twin.
    Twin,
    /// To take properties that it reports.
    ReportedProperties,
    /// A certificate in place of the one that it has.
    IssueCertificate,
}

/// The kind of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Method {
    /// None was given.
    None,
    /// A SAS token.
    SymmetricKey,
    /// A TLS client certificate.
    X509,
    /// A SAS token by the key of a TPM's challenge.
    Tpm,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_written_is_read_back_with_its_payload_to_the_letter() {
        let payload = r#"{"z":1.50,"n":12345678901234567890123,"z":{"a": "\ud800"}}"#;
        for payload in [Some(payload.parse().unwrap()), None] {
            let event = Event {
                sequence: 1,
                elapsed_ms: 2,
                time: "2026-01-01T00:00:00Z".into(),
                connection: 3,
                kind: EventKind::Request {
                    transport: Transport::MqttWs,
                    operation: Operation::Register,
                    registration_id: "pump-17".into(),
                    operation_id: None,
                    api_version: None,
                    force: false,
                    headers: BTreeMap::new(),
                    body_bytes: 7,
                    payload,
                },
            };
            let line = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event, "{line}");
        }
        let closed = r#"{"sequence":0,"elapsedMs":0,"time":"","connection":1,"event":"closed","reason":"","received":0,"sent":0}"#;
        let event: Event = serde_json::from_str(closed).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), closed);
    }
}
