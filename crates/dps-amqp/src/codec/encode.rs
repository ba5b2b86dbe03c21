//! What a device sends, written by the library.

use fe2o3_amqp_types::{
    definitions::{Fields, Handle, ReceiverSettleMode, Role, SenderSettleMode},
    messaging::{Accepted, DeliveryState, Source, Target, TargetArchetype},
    performatives::{Attach, Begin, ChannelMax, Close, Detach, Disposition, Flow, Open, Transfer},
    sasl::{SaslInit, SaslResponse},
};
use serde_amqp::{
    Value,
    primitives::{Binary, Symbol},
    serde::Serialize,
};
use zeroize::Zeroize;

use super::MAX_FRAME_SIZE;

/// The number of the link that requests go out by, and its name.
pub(crate) const SENDER: (u32, &str) = (0, "dps-requests");
/// The number of the link that answers come in by, and its name.
pub(crate) const RECEIVER: (u32, &str) = (1, "dps-answers");

/// Where both sides of a session are, in transfers.
/// See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html#doc-session-flow-control>.
#[derive(Debug, Default)]
pub(crate) struct Position {
    /// The number of the next transfer from the service; unknown before the service has begun the session.
    pub(crate) next_incoming_id: Option<u32>,
    /// The number of the next transfer to the service.
    pub(crate) next_outgoing_id: u32,
}

impl Position {
    /// How many transfers the service may send. An answer of the largest size in the smallest frames is as many.
    pub(crate) const INCOMING: u32 = 4096;
    /// How many transfers this device may send.
    pub(crate) const OUTGOING: u32 = 4096;
}

const AMQP: u8 = 0;
const SASL: u8 = 1;

pub(crate) fn sasl_init(out: &mut Vec<u8>, mechanism: &str, response: &[u8], hostname: &str) {
    let mut init = SaslInit {
        mechanism: Symbol::from(mechanism),
        initial_response: Some(Binary::from(response)),
        hostname: (!hostname.is_empty()).then(|| hostname.to_owned()),
    };
    secret_frame(out, &init);
    if let Some(response) = init.initial_response.take() {
        response.into_vec().zeroize();
    }
}

pub(crate) fn sasl_response(out: &mut Vec<u8>, response: &[u8]) {
    let response = SaslResponse { response: Binary::from(response) };
    secret_frame(out, &response);
    response.response.into_vec().zeroize();
}

pub(crate) fn open(out: &mut Vec<u8>, container_id: &str, hostname: &str) {
    let open = Open {
        container_id: container_id.to_owned(),
        hostname: Some(hostname.to_owned()),
        max_frame_size: MAX_FRAME_SIZE.into(),
        channel_max: ChannelMax(0),
        // A silent service is no harm: every request has its own bound.
        idle_time_out: None,
        outgoing_locales: None,
        incoming_locales: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    };
    frame(out, &open, &[]);
}

pub(crate) fn begin(out: &mut Vec<u8>, position: &Position) {
    let begin = Begin {
        remote_channel: None,
        next_outgoing_id: position.next_outgoing_id,
        incoming_window: Position::INCOMING,
        outgoing_window: Position::OUTGOING,
        handle_max: Handle(RECEIVER.0),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    };
    frame(out, &begin, &[]);
}

/// The link that requests go out by.
pub(crate) fn attach_sender(out: &mut Vec<u8>, address: &str, properties: [(&str, &str); 2]) {
    let mut attach = attach(SENDER, Role::Sender, properties);
    attach.snd_settle_mode = SenderSettleMode::Unsettled;
    attach.initial_delivery_count = Some(0);
    attach.source = Some(Box::default());
    attach.target = Some(Box::new(target(Some(address))));
    frame(out, &attach, &[]);
}

/// The link that answers come in by.
pub(crate) fn attach_receiver(out: &mut Vec<u8>, address: &str, properties: [(&str, &str); 2]) {
    let mut attach = attach(RECEIVER, Role::Receiver, properties);
    attach.source =
        Some(Box::new(Source { address: Some(address.to_owned()), ..Source::default() }));
    attach.target = Some(Box::new(target(None)));
    frame(out, &attach, &[]);
}

fn attach((handle, name): (u32, &str), role: Role, properties: [(&str, &str); 2]) -> Attach {
    let properties: Fields = properties
        .into_iter()
        .map(|(name, value)| (Symbol::from(name), Value::String(value.to_owned())))
        .collect();
    Attach {
        name: name.to_owned(),
        handle: Handle(handle),
        role,
        snd_settle_mode: SenderSettleMode::Mixed,
        rcv_settle_mode: ReceiverSettleMode::First,
        source: None,
        target: None,
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: None,
        max_message_size: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: Some(properties),
    }
}

fn target(address: Option<&str>) -> TargetArchetype {
    TargetArchetype::Target(Target { address: address.map(str::to_owned), ..Target::default() })
}

/// Our side of the session, and of a link if one is given: its number, its delivery count and its credit.
pub(crate) fn flow(out: &mut Vec<u8>, position: &Position, link: Option<(u32, Option<u32>, u32)>) {
    let flow = Flow {
        next_incoming_id: position.next_incoming_id,
        incoming_window: Position::INCOMING,
        next_outgoing_id: position.next_outgoing_id,
        outgoing_window: Position::OUTGOING,
        handle: link.map(|(handle, ..)| Handle(handle)),
        delivery_count: link.and_then(|(_, delivery_count, _)| delivery_count),
        link_credit: link.map(|(.., credit)| credit),
        available: None,
        drain: false,
        echo: false,
        properties: None,
    };
    frame(out, &flow, &[]);
}

/// A part of a message, as much of it as fits into a frame of the given size; what is left comes back.
pub(crate) fn transfer<'a>(
    out: &mut Vec<u8>,
    delivery_id: u32,
    first: bool,
    payload: &'a [u8],
    max_frame_size: u32,
) -> &'a [u8] {
    let mut transfer = Transfer {
        handle: Handle(SENDER.0),
        delivery_id: Some(delivery_id),
        delivery_tag: first.then(|| Binary::from(delivery_id.to_be_bytes())),
        message_format: first.then_some(0),
        settled: Some(false),
        more: true,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    };
    // The header of the frame, and with it the performative that is the longer one: with `more` set.
    let overhead = 8 + encoded(&transfer).len();
    let room = usize::try_from(max_frame_size).unwrap_or(usize::MAX).saturating_sub(overhead);
    let (part, rest) = payload.split_at_checked(room.max(1)).unwrap_or((payload, &[]));
    transfer.more = !rest.is_empty();
    frame(out, &transfer, part);
    rest
}

/// Accepts a delivery, for good.
pub(crate) fn accept(out: &mut Vec<u8>, delivery_id: u32) {
    let disposition = Disposition {
        role: Role::Receiver,
        first: delivery_id,
        last: None,
        settled: true,
        state: Some(DeliveryState::Accepted(Accepted {})),
        batchable: false,
    };
    frame(out, &disposition, &[]);
}

pub(crate) fn detach(out: &mut Vec<u8>, (handle, _): (u32, &str)) {
    frame(out, &Detach { handle: Handle(handle), closed: true, error: None }, &[]);
}

pub(crate) fn close(out: &mut Vec<u8>) {
    frame(out, &Close { error: None }, &[]);
}

pub(crate) fn heartbeat(out: &mut Vec<u8>) {
    raw_frame(out, AMQP, &[], &[]);
}

fn frame(out: &mut Vec<u8>, performative: &impl Serialize, payload: &[u8]) {
    raw_frame(out, AMQP, &encoded(performative), payload);
}

fn secret_frame(out: &mut Vec<u8>, performative: &impl Serialize) {
    let mut encoded = encoded(performative);
    raw_frame(out, SASL, &encoded, &[]);
    encoded.zeroize();
}

fn raw_frame(out: &mut Vec<u8>, kind: u8, performative: &[u8], payload: &[u8]) {
    let size = u32::try_from(8 + performative.len() + payload.len()).unwrap_or(u32::MAX);
    out.extend(size.to_be_bytes());
    // The body begins after two words; the channel is always the first.
    out.extend([2, kind, 0, 0]);
    out.extend(performative);
    out.extend(payload);
}

pub(crate) fn encoded(value: &impl Serialize) -> Vec<u8> {
    // Numbers, texts and maps of both: there is nothing that can fail to serialize.
    serde_amqp::to_vec(value).unwrap_or_default()
}
