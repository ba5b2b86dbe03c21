//! An answer of the service as the bytes of each transport, and back through the transport's own codec.

use std::time::SystemTime;

use bytes::BytesMut;
use dps_amqp::codec::{Body, Outcome};
use dps_client::{Stage, Transport};
use dps_connect::internal::websocket::WsBytes;
use dps_http::internal::codec as http_codec;
use dps_mqtt::codec::Incoming;
use dps_state_machine::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::inputs::{Input, Value};

/// An answer as the service means it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: &'static str,
}

const REQUEST_ID: &str = "1a2b3c4d";
const CORRELATION_ID: &str = "0c4a1e8e-5b1f-4a57-9b7e-3f1f5a3c2d10";

/// What the transport's codec makes of the answer's bytes; `None` when the transport can't carry it.
pub(crate) async fn response(
    transport: Transport,
    stage: Stage,
    answer: Answer,
    input: &Input,
    now: SystemTime,
) -> Option<Response> {
    if input.is_typed() && !matches!(transport, Transport::Amqp | Transport::AmqpWs) {
        return None;
    }
    Some(match transport {
        Transport::Http => http(answer, input, now),
        Transport::Mqtt => mqtt(&publish(answer, input), stage, now),
        Transport::MqttWs => mqtt(&over_websocket(&publish(answer, input)).await, stage, now),
        Transport::Amqp => amqp(&frame(answer, input), now),
        Transport::AmqpWs => amqp(&over_websocket(&frame(answer, input)).await, now),
        other => panic!("{other} is not known here"),
    })
}

fn http(answer: Answer, input: &Input, now: SystemTime) -> Response {
    let mut headers = HeaderMap::new();
    for text in input.texts() {
        // The client underneath trims; what no header can carry does not come.
        let name = HeaderName::from_bytes(input.key.as_bytes()).expect("a header's name");
        headers.append(name, HeaderValue::from_bytes(text.trim().as_bytes()).expect("a value"));
    }
    let status = StatusCode::from_u16(answer.status).expect("a status");
    http_codec::response(status, Version::HTTP_11, &headers, answer.body.into(), now)
}

/// Section 3.3 of MQTT 3.1.1, quality of service 0.
fn publish(answer: Answer, input: &Input) -> Vec<u8> {
    let mut topic = format!("$dps/registrations/res/{}/?$rid={REQUEST_ID}", answer.status);
    for text in input.texts() {
        // As a service must: what would end the value is encoded.
        let value: String = text
            .chars()
            .map(|c| match c {
                '&' | '#' | '+' | '%' | '=' => format!("%{:02X}", u32::from(c)),
                other => other.to_string(),
            })
            .collect();
        topic += &format!("&{}={value}", input.key);
    }
    let mut rest = Vec::new();
    rest.extend((topic.len() as u16).to_be_bytes());
    rest.extend(topic.as_bytes());
    rest.extend(answer.body.as_bytes());
    let mut packet = vec![0x30];
    let mut length = rest.len();
    loop {
        let more = length > 0x7f;
        packet.push((length & 0x7f) as u8 | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    packet.extend(rest);
    packet
}

fn mqtt(packet: &[u8], stage: Stage, now: SystemTime) -> Response {
    let read = dps_mqtt::codec::read(&mut BytesMut::from(packet)).expect("a packet");
    let Some(Incoming::Delivery(delivery)) = read else { panic!("not published: {read:?}") };
    let answer = dps_mqtt::codec::answer(&delivery, REQUEST_ID, stage, now);
    answer.expect("an answer that makes sense").expect("the answer to our request")
}

/// A message with its properties, or a rejection with its information.
fn frame(answer: Answer, input: &Input) -> Vec<u8> {
    let mut entries = Vec::new();
    // A map has each key once: a second value goes under another spelling.
    let keys = [input.key, "Retry-After", "RETRY-AFTER"];
    for (value, key) in input.values.iter().zip(keys) {
        entries.push((key, *value));
    }
    if answer.status < 300 {
        let mut payload =
            described(0x73, list(&[&[], &[], &[], &[], &[], &string(CORRELATION_ID)]));
        let named = entries.iter().flat_map(|(key, value)| [string(key), encoded(*value)]);
        payload.extend(described(0x74, map(named)));
        payload.extend(described(0x75, binary(answer.body.as_bytes())));
        let transfer = described(0x14, list(&[&[0x43], &[0x43]]));
        framed_amqp([transfer, payload].concat())
    } else {
        let named = entries.iter().flat_map(|(key, value)| [symbol(key), encoded(*value)]);
        let error = list(&[&symbol("amqp:internal-error"), &string(answer.body), &map(named)]);
        let rejected = described(0x25, list(&[&described(0x1d, error)]));
        let receiver = [0x41];
        framed_amqp(described(0x15, list(&[&receiver, &[0x43], &[0x43], &[0x41], &rejected])))
    }
}

fn amqp(frame: &[u8], now: SystemTime) -> Response {
    let (frame, _) = dps_amqp::codec::decode(frame).expect("a frame").expect("a whole one");
    match frame.body {
        Body::Transfer { payload, .. } => {
            let answer = dps_amqp::codec::message::Answer::read(&payload).expect("a message");
            assert!(answer.answers(CORRELATION_ID));
            answer.into_response(now)
        }
        Body::Disposition { outcome: Some(Outcome::Rejected(Some(failure))), .. } => {
            failure.into_response(now)
        }
        other => panic!("neither a message nor a rejection: {other:?}"),
    }
}

fn framed_amqp(body: Vec<u8>) -> Vec<u8> {
    let size = (body.len() + 8) as u32;
    [&size.to_be_bytes()[..], &[2, 0, 0, 0], &body].concat()
}

fn described(code: u8, value: Vec<u8>) -> Vec<u8> {
    [vec![0x00, 0x53, code], value].concat()
}

/// Absent fields are empty here.
fn list(fields: &[&[u8]]) -> Vec<u8> {
    let null: &[u8] = &[0x40];
    let all: Vec<&[u8]> =
        fields.iter().map(|field| if field.is_empty() { null } else { *field }).collect();
    compound(0xd0, fields.len(), &all.concat())
}

fn map(fields: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let fields: Vec<Vec<u8>> = fields.collect();
    compound(0xd1, fields.len(), &fields.concat())
}

fn compound(code: u8, count: usize, fields: &[u8]) -> Vec<u8> {
    let size = (fields.len() + 4) as u32;
    [&[code][..], &size.to_be_bytes(), &(count as u32).to_be_bytes(), fields].concat()
}

fn encoded(value: Value) -> Vec<u8> {
    match value {
        Value::Text(text) => string(text),
        Value::Int(number) => [&[0x71][..], &number.to_be_bytes()].concat(),
        Value::Long(number) => [&[0x81][..], &number.to_be_bytes()].concat(),
        Value::Ulong(number) => [&[0x80][..], &number.to_be_bytes()].concat(),
        Value::SmallUint(number) => vec![0x52, number],
        Value::Double(number) => [&[0x82][..], &number.to_be_bytes()].concat(),
        Value::Bool(yes) => vec![if yes { 0x41 } else { 0x42 }],
    }
}

fn string(text: &str) -> Vec<u8> {
    with_length(0xb1, text.as_bytes())
}

fn symbol(text: &str) -> Vec<u8> {
    with_length(0xb3, text.as_bytes())
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    with_length(0xb0, bytes)
}

fn with_length(code: u8, bytes: &[u8]) -> Vec<u8> {
    [&[code][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// What comes out of a WebSocket when this is sent into it by a server.
async fn over_websocket(bytes: &[u8]) -> Vec<u8> {
    let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
    let length = u16::try_from(bytes.len()).expect("a short message").to_be_bytes();
    // A whole binary message, and a close.
    let frames = [&[0x82, 126], &length[..], bytes, &[0x88, 0]].concat();
    theirs.write_all(&frames).await.expect("room");
    let mut device = WsBytes::client(ours).await;
    let mut read = Vec::new();
    device.read_to_end(&mut read).await.expect("what was sent");
    read
}
