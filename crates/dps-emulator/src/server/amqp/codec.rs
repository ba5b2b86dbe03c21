//! What devices send: frames and messages, as values by their places.

use serde_amqp::{Value, described::Described, descriptor::Descriptor};

use super::guard::split_value;

/// The largest frame that is taken, in bytes; it is in our OPEN.
pub(super) const MAX_FRAME_SIZE: u32 = 64 * 1024;

/// One frame.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) sasl: bool,
    pub(super) channel: u16,
    /// What it is; `None` for an empty one, which only says that the device is there.
    pub(super) code: Option<u64>,
    pub(super) fields: Fields,
    pub(super) payload: Vec<u8>,
}

/// Values by their places; what is missing at the end is absent.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Fields(Vec<Value>);

impl Fields {
    pub(super) fn get(&self, place: usize) -> Option<&Value> {
        self.0.get(place).filter(|value| **value != Value::Null)
    }

    pub(super) fn u32(&self, place: usize) -> Option<u32> {
        match self.get(place)? {
            Value::Ubyte(number) => Some((*number).into()),
            Value::Ushort(number) => Some((*number).into()),
            Value::Uint(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn flag(&self, place: usize) -> bool {
        self.get(place) == Some(&Value::Bool(true))
    }

    pub(super) fn text(&self, place: usize) -> Option<&str> {
        self.get(place).and_then(text)
    }

    pub(super) fn binary(&self, place: usize) -> &[u8] {
        match self.get(place) {
            Some(Value::Binary(bytes)) => bytes,
            _ => &[],
        }
    }

    /// The pairs of a map whose keys are texts.
    pub(super) fn named(&self, place: usize) -> Vec<(&str, &Value)> {
        self.get(place).map(named).unwrap_or_default()
    }

    /// The fields of a described list.
    pub(super) fn described(&self, place: usize) -> Option<Self> {
        described(self.get(place)?.clone()).map(|(_, fields)| fields)
    }
}

/// A string or a symbol.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Symbol(symbol) => Some(symbol.as_str()),
        _ => None,
    }
}

fn named(map: &Value) -> Vec<(&str, &Value)> {
    match map {
        Value::Map(map) => {
            map.iter().filter_map(|(key, value)| Some((text(key)?, value))).collect()
        }
        _ => Vec::new(),
    }
}

/// Takes one frame from the front, of `max` bytes at most: the frame and its size in bytes. `None` while it is not whole.
pub(super) fn decode(bytes: &[u8], max: u32) -> Result<Option<(Frame, usize)>, &'static str> {
    // What can be no frame is refused by its first byte that shows it.
    let mut least = [0; 4];
    least.iter_mut().zip(bytes).for_each(|(least, byte)| *least = *byte);
    let size = u32::from_be_bytes(least);
    if size > max || size < 8 && bytes.len() >= 4 {
        return Err("a frame is too small or too large");
    }
    if bytes.get(4).is_some_and(|offset| *offset < 2) || bytes.get(5).is_some_and(|kind| *kind > 1)
    {
        return Err("a frame is of no known kind");
    }
    if bytes.len() < 4 {
        return Ok(None);
    }
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let Some(frame) = bytes.get(..size) else { return Ok(None) };
    let [_, _, _, _, offset @ 2..=255, kind @ (0 | 1), high, low, ..] = frame else {
        return Err("a frame is of no known kind");
    };
    let channel = u16::from_be_bytes([*high, *low]);
    let body =
        frame.get(usize::from(*offset) * 4..).ok_or("a frame's body begins outside of it")?;
    let sasl = *kind == 1;
    if body.is_empty() {
        let frame = Frame { sasl, channel, code: None, fields: Fields::default(), payload: vec![] };
        return Ok(Some((frame, size)));
    }
    let (value, payload) = section(body)?;
    let (code, fields) = described(value).ok_or("a frame does not say what it is")?;
    let frame = Frame { sasl, channel, code: Some(code), fields, payload: payload.to_vec() };
    Ok(Some((frame, size)))
}

fn section(bytes: &[u8]) -> Result<(Value, &[u8]), &'static str> {
    let (value, rest) = split_value(bytes).ok_or("a value is not whole")?;
    let value = serde_amqp::from_slice(value).map_err(|_| "a value can't be read")?;
    Ok((value, rest))
}

fn described(value: Value) -> Option<(u64, Fields)> {
    let (code, value) = taken_apart(value)?;
    match value {
        Value::List(fields) => Some((code, Fields(fields))),
        other => Some((code, Fields(vec![other]))),
    }
}

fn taken_apart(value: Value) -> Option<(u64, Value)> {
    let Value::Described(described) = value else { return None };
    let Described { descriptor, value } = *described;
    let code = match descriptor {
        Descriptor::Code(code) => code,
        // Names are allowed, and nobody is known to send them.
        Descriptor::Name(_) => return None,
    };
    Some((code, value))
}

/// A message as far as the service looks at it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Message {
    pub(super) message_id: Option<Value>,
    pub(super) correlation_id: Option<Value>,
    pub(super) application: Vec<(String, Value)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// Reads a whole message. Its body may be data, or a text or bytes as a value.
    pub(super) fn read(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut message = Self::default();
        while !bytes.is_empty() {
            let (value, rest) = section(bytes)?;
            bytes = rest;
            match taken_apart(value).ok_or("a section does not say what it is")? {
                (0x73, Value::List(fields)) => {
                    let fields = Fields(fields);
                    message.message_id = fields.get(0).cloned();
                    message.correlation_id = fields.get(5).cloned();
                }
                (0x74, map) => message.application.extend(
                    named(&map).into_iter().map(|(name, value)| (name.to_owned(), value.clone())),
                ),
                (0x75 | 0x77, Value::Binary(part)) => message.body.extend(part.as_slice()),
                (0x77, Value::String(text)) => message.body.extend(text.as_bytes()),
                _ => {}
            }
        }
        Ok(message)
    }

    /// The value of an application property.
    pub(super) fn property(&self, name: &str) -> Option<&Value> {
        self.application.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }
}
