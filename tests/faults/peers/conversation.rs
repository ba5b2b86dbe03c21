//! What goes over the transport, as far as the man in the middle must understand it: where one message of the service
//! ends and the next begins, which step of the registration it belongs to, and whether it is WebSocket's.

use dps_client::{Stage, Transport};

/// What kind of message it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// CONNACK, the outcome of SASL: the service's word on the session.
    Session,
    /// SUBACK.
    Subscription,
    /// The answer to a request.
    Answer,
    /// Anything else: acknowledgements, and HTTP, where no kinds need to be distinguished.
    Other,
}

/// One message of the service, without the WebSocket frame around it.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Which step it belongs to; `None` for what is between two steps.
    pub(crate) step: Option<Stage>,
    pub(crate) kind: Kind,
    pub(crate) bytes: Vec<u8>,
}

/// One connection's conversation.
#[derive(Debug)]
pub(crate) struct Conversation {
    protocol: Protocol,
    /// Whether the upgrade has been answered; true from the start without WebSocket.
    upgraded: bool,
    websocket: bool,
    asked: Option<Stage>,
    up: Vec<u8>,
    heard: Vec<u8>,
    down: Vec<u8>,
    plain: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Mqtt,
    Amqp,
}

/// What a request has in it, whatever the transport.
const REQUESTS: [(&[u8], Stage); 4] = [
    (b"iotdps-register", Stage::Register),
    (b"/register?", Stage::Register),
    (b"iotdps-get-operationstatus", Stage::Query),
    (b"/operations/", Stage::Query),
];

impl Conversation {
    pub(crate) fn new(transport: Transport) -> Self {
        let (protocol, websocket) = match transport {
            Transport::Mqtt => (Protocol::Mqtt, false),
            Transport::MqttWs => (Protocol::Mqtt, true),
            Transport::Amqp => (Protocol::Amqp, false),
            Transport::AmqpWs => (Protocol::Amqp, true),
            _ => (Protocol::Http, false),
        };
        Self {
            protocol,
            upgraded: !websocket,
            websocket,
            asked: None,
            up: Vec::new(),
            heard: Vec::new(),
            down: Vec::new(),
            plain: Vec::new(),
        }
    }

    /// Listens to what the client says.
    pub(crate) fn client_says(&mut self, bytes: &[u8]) {
        if self.websocket {
            self.up.extend(bytes);
            if !self.upgraded {
                return;
            }
            while let Some(payload) = unmasked(&mut self.up) {
                self.heard.extend(payload);
            }
        } else {
            self.heard.extend(bytes);
        }
        while let Some((end, stage)) = first_request(&self.heard) {
            self.asked = Some(stage);
            self.heard.drain(..end);
        }
    }

    /// The whole messages that have come from the service by now.
    pub(crate) fn service_says(&mut self, bytes: &[u8]) -> Vec<Message> {
        self.down.extend(bytes);
        let mut messages = Vec::new();
        if !self.upgraded {
            let Some(end) = find(&self.down, b"\r\n\r\n") else { return messages };
            let head = self.down.drain(..end + 4).collect();
            messages.push(Message { step: Some(Stage::Websocket), kind: Kind::Other, bytes: head });
            self.upgraded = true;
            // What the client has sent beside its own head.
            if let Some(end) = find(&self.up, b"\r\n\r\n") {
                self.up.drain(..end + 4);
            }
            self.client_says(&[]);
        }
        if !self.websocket {
            self.plain.append(&mut self.down);
            self.take_messages(&mut messages);
        }
        while self.websocket
            && let Some((frame, payload)) = frame(&mut self.down)
        {
            match payload {
                Some(payload) => {
                    self.plain.extend(payload);
                    self.take_messages(&mut messages);
                }
                None => messages.push(Message { step: None, kind: Kind::Other, bytes: frame }),
            }
        }
        messages
    }

    fn take_messages(&mut self, messages: &mut Vec<Message>) {
        while let Some(bytes) = self.take_message() {
            let (step, kind) = self.place(&bytes);
            let bytes = if self.websocket { framed(&bytes) } else { bytes };
            messages.push(Message { step, kind, bytes });
        }
    }

    fn take_message(&mut self) -> Option<Vec<u8>> {
        let length = match self.protocol {
            Protocol::Http => self.plain.len(),
            Protocol::Mqtt => mqtt_length(&self.plain)?,
            Protocol::Amqp if self.plain.starts_with(b"AMQP") => 8,
            Protocol::Amqp => {
                let size = self.plain.first_chunk::<4>()?;
                usize::try_from(u32::from_be_bytes(*size)).ok()?.max(8)
            }
        };
        if length == 0 || self.plain.len() < length {
            return None;
        }
        Some(self.plain.drain(..length).collect())
    }

    fn place(&self, bytes: &[u8]) -> (Option<Stage>, Kind) {
        match self.protocol {
            Protocol::Http => (self.asked, Kind::Other),
            Protocol::Mqtt => match bytes.first().map_or(0, |first| first >> 4) {
                2 => (Some(Stage::Authenticate), Kind::Session),
                9 => (self.asked, Kind::Subscription),
                3 => (self.asked, Kind::Answer),
                _ => (self.asked, Kind::Other),
            },
            Protocol::Amqp => match (bytes.get(5), performative(bytes)) {
                _ if bytes.starts_with(b"AMQP\x03") => (Some(Stage::Authenticate), Kind::Other),
                _ if bytes.starts_with(b"AMQP") => (None, Kind::Other),
                (Some(1), Some(0x44)) => (Some(Stage::Authenticate), Kind::Session),
                (Some(1), _) => (Some(Stage::Authenticate), Kind::Other),
                (_, Some(0x14)) => (self.asked, Kind::Answer),
                _ => (self.asked, Kind::Other),
            },
        }
    }
}

/// What the frame of a message is about; only the encodings that servers use.
fn performative(frame: &[u8]) -> Option<u8> {
    let body = frame.get(usize::from(*frame.get(4)?) * 4..)?;
    match body {
        [0, 0x53, code, ..] => Some(*code),
        [0, 0x80, _, _, _, _, _, _, _, code, ..] => Some(*code),
        _ => None,
    }
}

fn first_request(heard: &[u8]) -> Option<(usize, Stage)> {
    REQUESTS
        .iter()
        .filter_map(|(needle, stage)| Some((find(heard, needle)? + needle.len(), *stage)))
        .min_by_key(|(end, _)| *end)
}

pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn mqtt_length(packet: &[u8]) -> Option<usize> {
    let (mut length, mut shift) = (0_usize, 0_u32);
    for (place, byte) in packet.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return Some(place + 2 + length);
        }
    }
    None
}

/// Takes a whole frame of the service: its bytes, and what it carries if it is data.
fn frame(bytes: &mut Vec<u8>) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let (head, length) = frame_head(bytes)?;
    let whole = head + length;
    if bytes.len() < whole {
        return None;
    }
    let frame: Vec<u8> = bytes.drain(..whole).collect();
    let is_data = frame.first().is_some_and(|first| first & 0x0f <= 2);
    let payload = is_data.then(|| frame.get(head..).unwrap_or_default().to_vec());
    Some((frame, payload))
}

/// Takes a whole frame of the client and gives what it carries.
fn unmasked(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (head, length) = frame_head(bytes)?;
    if bytes.len() < head + 4 + length {
        return None;
    }
    let frame: Vec<u8> = bytes.drain(..head + 4 + length).collect();
    let mask = frame.get(head..head + 4)?.to_vec();
    let payload = frame.get(head + 4..)?;
    Some(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}

/// The length of a frame's head without the mask, and of what it carries.
fn frame_head(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.get(1)? & 0x7f {
        126 => {
            let length = bytes.get(2..)?.first_chunk::<2>()?;
            Some((4, usize::from(u16::from_be_bytes(*length))))
        }
        127 => {
            let length = bytes.get(2..)?.first_chunk::<8>()?;
            Some((10, usize::try_from(u64::from_be_bytes(*length)).ok()?))
        }
        short => Some((2, usize::from(short))),
    }
}

/// A frame around a payload, as a server sends it.
fn framed(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x82];
    match payload.len() {
        length @ ..126 => frame.push(length as u8),
        length @ ..=0xffff => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// The frame by which a server closes, with a code and a word.
pub(crate) fn close_frame(code: u16, word: &str) -> Vec<u8> {
    let mut frame = vec![0x88, (word.len() + 2) as u8];
    frame.extend(code.to_be_bytes());
    frame.extend(word.as_bytes());
    frame
}
