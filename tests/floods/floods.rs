//! What a peer may send without end.

use dps_client::Transport;

/// One kind of flood.
pub(crate) struct Flood {
    pub(crate) name: String,
    pub(crate) is_http: bool,
    /// What the peer sends first, so that the client goes on.
    pub(crate) first: Vec<u8>,
    /// What it sends again and again.
    pub(crate) again: Vec<u8>,
    /// What the error says of it.
    pub(crate) says: Option<&'static str>,
}

const CONNACK: &[u8] = b"\x20\x02\0\0";

/// The SASL header, the offer of PLAIN, success, and the header of AMQP.
const AMQP_START: &[u8] = b"AMQP\x03\x01\0\0\
    \0\0\0\x15\x02\x01\0\0\0\x53\x40\xc0\x08\x01\xa3\x05PLAIN\
    \0\0\0\x10\x02\x01\0\0\0\x53\x44\xc0\x03\x01\x50\0\
    AMQP\0\x01\0\0";

type Row = (&'static str, &'static [u8], &'static [u8], &'static str);

const MQTT: &[Row] = &[
    ("pingresp", CONNACK, b"\xd0\0", "the last one PINGRESP"),
    ("pingresp_before_suback", b"", b"\xd0\0", "begins with CONNACK"),
    ("puback", CONNACK, b"\x40\x02\x12\x34", "the last one PUBACK"),
    ("suback", CONNACK, b"\x90\x03\0\x01\x01", "the last one SUBACK"),
    ("pubrec_that_is_answered", CONNACK, b"\x50\x02\x12\x34", "the last one PUBREC"),
    ("publish", CONNACK, b"\x30\x04\0\x01xy", "the last one PUBLISH"),
    ("publish_that_is_acknowledged", CONNACK, b"\x32\x06\0\x01x\0\x07y", "the last one PUBLISH"),
];

const AMQP: &[Row] = &[
    ("empty_frame", AMQP_START, b"\0\0\0\x08\x02\0\0\0", "the last one an empty frame"),
    ("flow", AMQP_START, b"\0\0\0\x0c\x02\0\0\0\0\x53\x13\x45", "the last one flow"),
];

const WEBSOCKET: &[Row] = &[
    ("ping", b"", b"\x89\0", "the last one a WebSocket ping"),
    ("pong", b"", b"\x8a\0", "the last one a WebSocket pong"),
    ("continuation", b"\x02\0", b"\0\0", "the last one an empty WebSocket frame"),
    ("empty_message", b"", b"\x82\0", "the last one an empty WebSocket frame"),
];

pub(crate) fn of(transport: Transport) -> Vec<Flood> {
    let own = match transport {
        Transport::Mqtt | Transport::MqttWs => MQTT,
        Transport::Amqp | Transport::AmqpWs => AMQP,
        _ => return http(),
    };
    if matches!(transport, Transport::Mqtt | Transport::Amqp) {
        return own.iter().map(|row| flood(row, false, &|bytes| bytes.to_vec())).collect();
    }
    let framed = own.iter().map(|row| flood(row, true, &message));
    let frames = WEBSOCKET.iter().map(|row| flood(row, true, &|bytes| bytes.to_vec()));
    let start = if transport == Transport::MqttWs { CONNACK } else { AMQP_START };
    // The same once the protocol above has begun.
    let later = WEBSOCKET.iter().map(|(name, first, again, says)| Flood {
        name: format!("{name}_later"),
        is_http: true,
        first: [&message(start), *first].concat(),
        again: again.to_vec(),
        says: Some(*says),
    });
    framed.chain(frames).chain(later).collect()
}

fn flood(row: &Row, is_http: bool, put: &dyn Fn(&[u8]) -> Vec<u8>) -> Flood {
    let (name, first, again, says) = *row;
    let first = if first.is_empty() { Vec::new() } else { put(first) };
    Flood { name: name.to_owned(), is_http, first, again: put(again), says: Some(says) }
}

fn http() -> Vec<Flood> {
    let row = |name: &str, first: &str, again: &str| Flood {
        name: name.to_owned(),
        is_http: true,
        first: first.into(),
        again: again.into(),
        says: None,
    };
    let body = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    vec![
        row("continue", "", "HTTP/1.1 100 Continue\r\n\r\n"),
        row("early_hints", "", "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n"),
        row("small_chunks", body, "1\r\nx\r\n"),
    ]
}

/// One binary message.
fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0x82, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}
