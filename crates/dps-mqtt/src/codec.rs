//! Requests to bytes and bytes to [`Response`]s, without any I/O.
//!
//! Packets are those of <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>, topics those of
//! <https://learn.microsoft.com/azure/iot-dps/iot-dps-mqtt-support>.

use std::{fmt, time::SystemTime};

use bytes::{Bytes, BytesMut};
use dps_connect::{Config, Protocol};
use dps_state_machine::{
    ConfigurationError, Error, OperationId, ProtocolError, ProtocolResult, RegistrationId,
    RegistrationRequest, Response, Stage, retry_after,
};
use percent_encoding::{
    AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode,
};
use rumqttc::{
    Packet, Publish, QoS, Subscribe,
    mqttbytes::{self, v4::Connect},
};

#[cfg(feature = "hub")]
pub(crate) mod hub;
pub mod reason;

/// The port and the WebSocket subprotocol of MQTT.
pub const PROTOCOL: Protocol = Protocol { tls_port: 8883, subprotocol: "mqtt" };

/// The largest body of an answer that is read, in bytes (1 MiB).
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The largest packet that is read, in bytes: the largest body and its topic.
const MAX_PACKET_BYTES: usize = MAX_ANSWER_BYTES + 64 * 1024;

/// The one filter that the service lets a device subscribe to.
const ANSWERS: &str = "$dps/registrations/res/#";

/// All but what RFC 3986 lets stand anywhere: <https://www.rfc-editor.org/rfc/rfc3986#section-2.3>.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What would end a value in a topic, or make the topic a filter.
const TOPIC_ENCODED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'#').add(b'%').add(b'&').add(b'+').add(b'/').add(b'?');

/// Appends the packet that begins a session. `password` is the SAS token, if there is one; `keep_alive` is in
/// seconds.
///
/// # Errors
/// [`Error::Configuration`] when a setting can't be written into a packet.
pub fn connect(
    out: &mut BytesMut,
    config: &Config,
    registration_id: &RegistrationId,
    keep_alive: u16,
    password: Option<&str>,
) -> Result<(), Error> {
    let user_name = format!(
        "{}/registrations/{registration_id}/api-version={}&ClientVersion={}",
        config.id_scope,
        config.api_version,
        utf8_percent_encode(&config.user_agent, ENCODED)
    );
    connect_as(out, registration_id.as_str(), user_name, keep_alive, password).map_err(|error| {
        let reason = format!("CONNECT can't carry it: {error}");
        ConfigurationError::new("user agent", &config.user_agent, &reason).into()
    })
}

fn connect_as(
    out: &mut BytesMut,
    client_id: &str,
    user_name: String,
    keep_alive: u16,
    password: Option<&str>,
) -> Result<(), mqttbytes::Error> {
    let mut connect = Connect::new(client_id);
    connect.keep_alive = keep_alive;
    match password {
        Some(token) => connect.set_credentials(user_name, Bytes::copy_from_slice(token.as_bytes())),
        None => connect.set_username(user_name),
    };
    write(out, &Packet::Connect(connect))
}

/// Appends the packet that asks for the service's answers.
///
/// # Errors
/// [`Error::Protocol`] never, as long as the packet id is not 0.
pub fn subscribe(out: &mut BytesMut, packet_id: u16) -> Result<(), Error> {
    let mut subscribe = Subscribe::new(ANSWERS, QoS::AtLeastOnce);
    subscribe.pkid = packet_id;
    write(out, &Packet::Subscribe(subscribe))
        .map_err(|error| ProtocolError::unreadable(Stage::Register, error.to_string()).into())
}

/// Appends the packet that registers the device. `request_id` comes back with the answer.
///
/// # Errors
/// [`Error::Configuration`] when the request can't be written into a packet: it can say that the assignment is to
/// be made anew, and no topic is known that carries this.
pub fn register(
    out: &mut BytesMut,
    request: &RegistrationRequest,
    request_id: &str,
    packet_id: u16,
) -> Result<(), Error> {
    if request.is_forced() {
        let reason = "MQTT can't carry it; http, amqp and amqp-ws can";
        return Err(ConfigurationError::new("forceRegistration", "true", reason).into());
    }
    let topic = format!("$dps/registrations/PUT/iotdps-register/?$rid={request_id}");
    publish(out, topic, request.body(), packet_id)
        .map_err(|error| ConfigurationError::new("request", "", &error.to_string()).into())
}

/// Appends the packet that asks for the operation's status. `request_id` comes back with the answer.
///
/// # Errors
/// [`Error::Protocol`] when the service's operation id is such that no topic can carry it.
pub fn query(
    out: &mut BytesMut,
    operation_id: &OperationId,
    request_id: &str,
    packet_id: u16,
) -> Result<(), Error> {
    let topic = format!(
        "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={request_id}&operationId={}",
        utf8_percent_encode(operation_id.as_str(), TOPIC_ENCODED)
    );
    publish(out, topic, Vec::new(), packet_id).map_err(|error| {
        let reason = format!("no topic can carry the operation id {operation_id:.64?}: {error}");
        ProtocolError::unreadable(Stage::Query, reason).into()
    })
}

/// Appends the packet that keeps the connection alive.
pub fn ping(out: &mut BytesMut) {
    out.extend_from_slice(&[0xC0, 0]);
}

/// Appends the packet that ends a session.
pub fn disconnect(out: &mut BytesMut) {
    out.extend_from_slice(&[0xE0, 0]);
}

/// Appends the reply that a packet wants, if it wants one: deliveries are acknowledged, and the steps of exactly-once
/// delivery are answered ([4.3.3](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html#_Toc398718102)).
pub fn reply(out: &mut BytesMut, packet: &Incoming) {
    let (kind, packet_id) = match packet {
        Incoming::Delivery(Delivery { qos: QoS::AtLeastOnce, packet_id, .. }) => (0x40, *packet_id),
        Incoming::Delivery(Delivery { qos: QoS::ExactlyOnce, packet_id, .. }) => (0x50, *packet_id),
        Incoming::Received { packet_id } => (0x62, *packet_id),
        Incoming::Released { packet_id } => (0x70, *packet_id),
        _ => return,
    };
    out.extend_from_slice(&[kind, 2]);
    out.extend_from_slice(&packet_id.to_be_bytes());
}

fn publish(
    out: &mut BytesMut,
    topic: String,
    body: Vec<u8>,
    packet_id: u16,
) -> Result<(), mqttbytes::Error> {
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, body);
    publish.pkid = packet_id;
    write(out, &Packet::Publish(publish))
}

fn write(out: &mut BytesMut, packet: &Packet) -> Result<(), mqttbytes::Error> {
    // On its own: CONNECT is written right at the start of a buffer only, and nothing may be left half written.
    let mut alone = BytesMut::with_capacity(packet.size());
    packet.write(&mut alone, usize::MAX)?;
    out.unsplit(alone);
    Ok(())
}

/// A packet from the service.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Incoming {
    /// CONNACK 0: the session is accepted.
    Accepted,
    /// CONNACK with another code: the session is refused.
    Refused(Refusal),
    /// SUBACK: the subscription is accepted.
    Subscribed,
    /// SUBACK with a code from 128 on: the subscription is refused.
    SubscriptionRefused(u8),
    /// Something was published: see [`answer`].
    Delivery(Delivery),
    /// The answer to [`ping`].
    Pong,
    /// DISCONNECT: the service ends the session, for this reason if it speaks MQTT 5.
    Disconnected(Option<u8>),
    /// PUBACK: the service has our publication.
    Acknowledged {
        /// Which.
        packet_id: u16,
    },
    /// PUBREC, which [`reply`] answers: the service has our publication.
    Received {
        /// Which.
        packet_id: u16,
    },
    /// PUBREL, which [`reply`] answers.
    Released {
        /// Of which delivery.
        packet_id: u16,
    },
    /// Anything else: acknowledgements.
    Other,
}

impl Incoming {
    /// What the standard calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Accepted | Self::Refused(_) => "CONNACK",
            Self::Subscribed | Self::SubscriptionRefused(_) => "SUBACK",
            Self::Delivery(_) => "PUBLISH",
            Self::Pong => "PINGRESP",
            Self::Disconnected(_) => "DISCONNECT",
            Self::Acknowledged { .. } => "PUBACK",
            Self::Received { .. } => "PUBREC",
            Self::Released { .. } => "PUBREL",
            Self::Other => "PUBCOMP or UNSUBACK",
        }
    }
}

/// Why there is no session: the return codes of CONNACK but 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// 1: the version of MQTT.
    ProtocolVersion,
    /// 2: the client id.
    ClientId,
    /// 3: the server is unavailable.
    Unavailable,
    /// 4: the user name or the password.
    Credential,
    /// 5: the device is not authorized.
    Unauthorized,
    /// From 128 on: a reason code of MQTT 5, see [`reason`].
    Reason(u8),
}

impl Refusal {
    /// See [`reason::may_concern_the_start`].
    #[must_use]
    pub fn may_concern_the_start(self) -> bool {
        matches!(self, Self::Reason(code) if reason::may_concern_the_start(code))
    }
}

/// Something that was published.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    topic: Bytes,
    body: Bytes,
    qos: QoS,
    packet_id: u16,
}

/// Bytes that are no packet of a server, or one that is too large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Takes the next packet from what came; `None` while more is to come.
///
/// # Errors
/// [`Unreadable`] in words; nothing after it can be read.
pub fn read(incoming: &mut BytesMut) -> Result<Option<Incoming>, Unreadable> {
    // A reserved type is an error at the first byte: junk may announce a length that never comes.
    if let Some(kind @ (0 | 15)) = incoming.first().map(|first| first >> 4) {
        return Err(Unreadable(format!("it is not MQTT (packet type {kind})")));
    }
    if let Some(packet) = reason::read(incoming) {
        return Ok(Some(packet));
    }
    let packet = match Packet::read(incoming, MAX_PACKET_BYTES) {
        Ok(packet) => packet,
        Err(mqttbytes::Error::InsufficientBytes(_)) => return Ok(None),
        Err(mqttbytes::Error::PayloadSizeLimitExceeded(_)) => {
            return Err(Unreadable(too_large()));
        }
        Err(error) => return Err(Unreadable(format!("it is not MQTT ({error})"))),
    };
    Ok(Some(match packet {
        Packet::ConnAck(ack) => match ack.code {
            rumqttc::ConnectReturnCode::Success => Incoming::Accepted,
            rumqttc::ConnectReturnCode::RefusedProtocolVersion => {
                Incoming::Refused(Refusal::ProtocolVersion)
            }
            rumqttc::ConnectReturnCode::BadClientId => Incoming::Refused(Refusal::ClientId),
            rumqttc::ConnectReturnCode::ServiceUnavailable => {
                Incoming::Refused(Refusal::Unavailable)
            }
            rumqttc::ConnectReturnCode::BadUserNamePassword => {
                Incoming::Refused(Refusal::Credential)
            }
            rumqttc::ConnectReturnCode::NotAuthorized => Incoming::Refused(Refusal::Unauthorized),
        },
        Packet::SubAck(_) => Incoming::Subscribed,
        Packet::Publish(publish) => Incoming::Delivery(Delivery {
            qos: publish.qos,
            packet_id: publish.pkid,
            topic: publish.topic,
            body: publish.payload,
        }),
        Packet::PingResp => Incoming::Pong,
        Packet::Disconnect => Incoming::Disconnected(None),
        Packet::PubAck(ack) => Incoming::Acknowledged { packet_id: ack.pkid },
        Packet::PubRec(received) => Incoming::Received { packet_id: received.pkid },
        Packet::PubRel(release) => Incoming::Released { packet_id: release.pkid },
        Packet::PubComp(_) | Packet::UnsubAck(_) => Incoming::Other,
        _ => return Err(Unreadable("it is a packet that only clients send".to_owned())),
    }))
}

fn too_large() -> String {
    format!("it is larger than {MAX_ANSWER_BYTES} bytes")
}

/// What a refused session means: an answer of the service, or a protocol error.
///
/// # Errors
/// [`Error::Protocol`] when the peer does not speak MQTT 3.1.1.
pub fn refusal(refusal: Refusal, stage: Stage) -> Result<Response, Error> {
    let response = |status, reason| Ok(Response::refusal(status, reason));
    match refusal {
        Refusal::ProtocolVersion => {
            let reason = "CONNACK 1: it does not take MQTT 3.1.1";
            Err(ProtocolError::unreadable(stage, reason).into())
        }
        Refusal::ClientId => response(400, "CONNACK 2: the client id was rejected"),
        Refusal::Unavailable => response(503, "CONNACK 3: the service is unavailable"),
        Refusal::Credential => response(401, "CONNACK 4: bad user name or password"),
        Refusal::Unauthorized => response(401, "CONNACK 5: not authorized"),
        Refusal::Reason(code @ reason::UNSUPPORTED_VERSION) => {
            let reason = format!("CONNACK {code}: {}", reason::meaning(code));
            Err(ProtocolError::unreadable(stage, reason).into())
        }
        Refusal::Reason(code) => {
            let reason = format!("CONNACK {code}: {}", reason::meaning(code));
            Ok(Response::refusal(reason::status(code), reason))
        }
    }
}

/// Why the service ended the session, in words.
#[must_use]
pub fn disconnection(reason: Option<u8>) -> String {
    match reason {
        None => "it sent DISCONNECT".to_owned(),
        Some(code) => format!("it sent DISCONNECT {code}: {}", reason::meaning(code)),
    }
}

/// What a refused subscription means.
#[must_use]
pub fn subscription_refusal(code: u8) -> Response {
    let (status, meaning) = match code {
        // The one code that MQTT 3.1.1 has for it.
        0x80 => (403, "it was refused"),
        code => (reason::status(code), reason::meaning(code)),
    };
    Response::refusal(status, format!("SUBACK {code}: the subscription to {ANSWERS}: {meaning}"))
}

/// The answer in a delivery, as the state machine takes it; `None` when it answers some other request, or is no answer.
/// One without a request id answers the request that waits: there is one at a time. `now` is what a retry-after date
/// counts from.
///
/// # Errors
/// [`ProtocolError`] when it is the answer to this request and makes no sense.
pub fn answer(
    delivery: &Delivery,
    request_id: &str,
    stage: Stage,
    now: SystemTime,
) -> Result<Option<Response>, ProtocolError> {
    let Some(topic) = Topic::parse(&delivery.topic) else { return Ok(None) };
    let id = topic.values("$rid").chain(topic.values("rid")).next();
    if id.is_some_and(|id| !id.eq_ignore_ascii_case(request_id)) {
        return Ok(None);
    }
    let protocol_result = topic.protocol_result();
    let nonsense = |status, reason| {
        let mut error = ProtocolError::unreadable(stage, reason);
        error.status = status;
        error.protocol_result = protocol_result.clone();
        Err(error)
    };
    let digits = topic.status.bytes().all(|byte| byte.is_ascii_digit());
    let Some(status) = topic.status.parse().ok().filter(|_| digits) else {
        if id.is_none() {
            return Ok(None);
        }
        let reason = format!("{:.32?} in its topic is no status", topic.status);
        return nonsense(None, reason);
    };
    if delivery.body.len() > MAX_ANSWER_BYTES {
        return nonsense(Some(status), too_large());
    }
    let retry_after = retry_after::parse(topic.values("retry-after"), now);
    Ok(Some(
        Response::new(status, delivery.body.to_vec())
            .retry_after(retry_after)
            .protocol_result(protocol_result),
    ))
}

/// The topic of an answer, taken apart: `$dps/registrations/res/{status}/?{name}={value}&…`.
struct Topic<'a> {
    whole: &'a str,
    status: &'a str,
    fields: Vec<(String, String)>,
}

impl<'a> Topic<'a> {
    fn parse(topic: &'a [u8]) -> Option<Self> {
        let whole = str::from_utf8(topic).ok()?;
        let rest = whole.strip_prefix("$dps/registrations/res/")?;
        let (path, fields) = rest.split_once('?').unwrap_or((rest, ""));
        let fields = fields
            .split('&')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| (decoded(name), decoded(value)))
            .collect();
        Some(Self { whole, status: path.trim_end_matches('/'), fields })
    }

    /// The values of the given name, without regard to case.
    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = move |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_str())
    }

    /// `topic`, `status`, then every name and value.
    fn protocol_result(&self) -> ProtocolResult {
        let head = [("topic", self.whole), ("status", self.status)];
        let fields = self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        head.into_iter().chain(fields).collect()
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests;
