//! What the service sends: performatives and sections as lists of values by their places.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html#section-performatives>.

use serde_amqp::{
    Value,
    described::Described,
    descriptor::Descriptor,
    primitives::{Array, Binary, Symbol},
};

pub(super) const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
pub(super) const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// An error with its condition, its description and pairs for its info map.
pub(super) fn error(
    condition: &str,
    description: Option<String>,
    info: impl IntoIterator<Item = (&'static str, Value)>,
) -> Value {
    let info = map(info, symbol);
    list(0x1d, [symbol(condition), or_null(description.map(Value::String)), info])
}

pub(super) fn mechanisms(out: &mut Vec<u8>, names: &[&str]) {
    let names = names.iter().map(|name| symbol(name)).collect();
    let mechanisms = list(0x40, [Value::Array(Array(names))]);
    raw_frame(out, 1, 0, &encoded(&mechanisms), &[]);
}

pub(super) fn sasl_challenge(out: &mut Vec<u8>, challenge: &[u8]) {
    let challenge = Value::Binary(Binary::from(challenge));
    raw_frame(out, 1, 0, &encoded(&list(0x42, [challenge])), &[]);
}

pub(super) fn sasl_outcome(out: &mut Vec<u8>, code: u8) {
    raw_frame(out, 1, 0, &encoded(&list(0x44, [Value::Ubyte(code)])), &[]);
}

/// `idle_time_out` is in milliseconds.
pub(super) fn open(
    out: &mut Vec<u8>,
    max_frame_size: u32,
    idle_time_out: u32,
    open_error: Option<Value>,
) {
    let properties = open_error.map(|error| map([("com.microsoft:open-error", error)], symbol));
    let no_locales_nor_capabilities = [const { Value::Null }; 4];
    let fields = [
        text("dps-emulator"),
        Value::Null,
        Value::Uint(max_frame_size),
        Value::Ushort(u16::MAX),
        Value::Uint(idle_time_out),
    ];
    let fields = fields.into_iter().chain(no_locales_nor_capabilities);
    frame(out, 0, &list(0x10, fields.chain([or_null(properties)])));
}

pub(super) fn begin(out: &mut Vec<u8>, channel: u16, incoming_window: u32) {
    let fields = [
        Value::Ushort(channel),
        Value::Uint(0),
        Value::Uint(incoming_window),
        Value::Uint(u32::MAX),
    ];
    frame(out, channel, &list(0x11, fields));
}

/// The answer to an attach: the same link, seen from here.
pub(super) struct AttachAs<'a> {
    pub(super) name: &'a str,
    pub(super) handle: u32,
    pub(super) receives: bool,
    pub(super) source: Option<&'a str>,
    pub(super) target: Option<&'a str>,
    /// The link is about to be refused: it leads nowhere.
    pub(super) refused: bool,
}

pub(super) fn attach(out: &mut Vec<u8>, channel: u16, link: &AttachAs<'_>) {
    const MIXED: Value = Value::Ubyte(2);
    const FIRST: Value = Value::Ubyte(0);
    let end = |code, address: Option<&str>| match link.refused {
        true => Value::Null,
        false => list(code, [or_null(address.map(text))]),
    };
    let fields = [
        text(link.name),
        Value::Uint(link.handle),
        Value::Bool(link.receives),
        MIXED,
        FIRST,
        end(0x28, link.source),
        end(0x29, link.target),
        Value::Null,
        Value::Bool(false),
        if link.receives { Value::Null } else { Value::Uint(0) },
    ];
    frame(out, channel, &list(0x12, fields));
}

/// Both windows of a session, and a link's side of it: its handle, delivery count and credit.
pub(super) struct FlowAs {
    pub(super) next_incoming_id: u32,
    pub(super) incoming_window: u32,
    pub(super) next_outgoing_id: u32,
    pub(super) link: Option<(u32, u32, u32)>,
}

pub(super) fn flow(out: &mut Vec<u8>, channel: u16, flow: &FlowAs) {
    let session = [flow.next_incoming_id, flow.incoming_window, flow.next_outgoing_id, u32::MAX];
    let link = flow.link.map(|(handle, count, credit)| [handle, count, credit]);
    let fields = session.into_iter().chain(link.into_iter().flatten());
    frame(out, channel, &list(0x13, fields.map(Value::Uint)));
}

/// The performative before a part of a message.
pub(super) fn transfer(handle: u32, delivery_id: u32, first: bool, more: bool) -> Vec<u8> {
    let [id, tag, format] = match first {
        true => [
            Value::Uint(delivery_id),
            Value::Binary(Binary::from(delivery_id.to_be_bytes())),
            Value::Uint(0),
        ],
        false => [const { Value::Null }; 3],
    };
    let fields = [Value::Uint(handle), id, tag, format, Value::Bool(false), Value::Bool(more)];
    encoded(&list(0x14, fields))
}

/// What becomes of a device's delivery.
pub(super) enum Verdict {
    Accepted,
    Rejected(Value),
    Released,
    Modified { undeliverable_here: bool },
}

pub(super) fn disposition(out: &mut Vec<u8>, channel: u16, delivery_id: u32, verdict: Verdict) {
    let state = match verdict {
        Verdict::Accepted => list(0x24, []),
        Verdict::Rejected(error) => list(0x25, [error]),
        Verdict::Released => list(0x26, []),
        Verdict::Modified { undeliverable_here } => {
            list(0x27, [Value::Bool(true), Value::Bool(undeliverable_here)])
        }
    };
    let (receiver, settled) = (Value::Bool(true), Value::Bool(true));
    let fields = [receiver, Value::Uint(delivery_id), Value::Null, settled, state];
    frame(out, channel, &list(0x15, fields));
}

pub(super) fn detach(out: &mut Vec<u8>, channel: u16, handle: u32, error: Option<Value>) {
    let closed = Value::Bool(true);
    frame(out, channel, &list(0x16, [Value::Uint(handle), closed, or_null(error)]));
}

pub(super) fn end(out: &mut Vec<u8>, channel: u16) {
    frame(out, channel, &list(0x17, []));
}

pub(super) fn close(out: &mut Vec<u8>, error: Option<Value>) {
    frame(out, 0, &list(0x18, [or_null(error)]));
}

pub(super) fn heartbeat(out: &mut Vec<u8>) {
    raw_frame(out, 0, 0, &[], &[]);
}

/// An answer's message: all before its body, so that the body can be cut where the script says.
pub(super) fn message(
    correlation_id: Option<Value>,
    properties: impl IntoIterator<Item = (&'static str, Value)>,
    body: &[u8],
    as_value: bool,
) -> Vec<u8> {
    let before_it = [const { Value::Null }; 5];
    let mut message = encoded(&list(0x73, before_it.into_iter().chain([or_null(correlation_id)])));
    message.extend(encoded(&described(0x74, map(properties, text))));
    let body = Value::Binary(Binary::from(body));
    message.extend(encoded(&described(if as_value { 0x77 } else { 0x75 }, body)));
    message
}

pub(super) fn raw_frame(out: &mut Vec<u8>, kind: u8, channel: u16, body: &[u8], payload: &[u8]) {
    let size = u32::try_from(8 + body.len() + payload.len()).unwrap_or(u32::MAX);
    out.extend(size.to_be_bytes());
    out.extend([2, kind]);
    out.extend(channel.to_be_bytes());
    out.extend(body);
    out.extend(payload);
}

fn frame(out: &mut Vec<u8>, channel: u16, performative: &Value) {
    raw_frame(out, 0, channel, &encoded(performative), &[]);
}

fn list(code: u64, fields: impl IntoIterator<Item = Value>) -> Value {
    described(code, Value::List(fields.into_iter().collect()))
}

fn described(code: u64, value: Value) -> Value {
    Value::Described(Box::new(Described { descriptor: Descriptor::Code(code), value }))
}

fn map(
    pairs: impl IntoIterator<Item = (&'static str, Value)>,
    key: impl Fn(&str) -> Value,
) -> Value {
    Value::Map(pairs.into_iter().map(|(name, value)| (key(name), value)).collect())
}

fn symbol(name: &str) -> Value {
    Value::Symbol(Symbol::from(name))
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn or_null(value: Option<Value>) -> Value {
    value.unwrap_or_default()
}

fn encoded(value: &Value) -> Vec<u8> {
    // Numbers, texts and collections of both: there is nothing that can fail to serialize.
    serde_amqp::to_vec(value).unwrap_or_default()
}
