//! What the service sends.

use std::time::Duration;

use fe2o3_amqp_types::{
    definitions::{
        Error, ErrorCondition, Fields, Handle, ReceiverSettleMode, Role, SenderSettleMode,
    },
    messaging::{
        Accepted, AmqpValue, ApplicationProperties, Data, DeliveryState, MessageId, Modified,
        Properties, Rejected, Released, Source, Target, TargetArchetype,
    },
    performatives::{
        Attach, Begin, ChannelMax, Close, Detach, Disposition, End, Flow, Open, Transfer,
    },
    primitives::SimpleValue,
    sasl::{SaslCode, SaslMechanisms, SaslOutcome},
};
use serde_amqp::{
    Value,
    primitives::{Array, Binary, Symbol},
    serde::Serialize,
};

use super::codec::MAX_FRAME_SIZE;

pub(super) const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
pub(super) const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// How a device is told no.
pub(super) fn error(
    condition: &str,
    description: Option<String>,
    info: impl IntoIterator<Item = (&'static str, Value)>,
) -> Error {
    let info: Fields = info.into_iter().map(|(name, value)| (Symbol::from(name), value)).collect();
    let condition = ErrorCondition::Custom(Symbol::from(condition));
    Error::new(condition, description, (!info.is_empty()).then_some(info))
}

pub(super) fn mechanisms(out: &mut Vec<u8>, names: &[&str]) {
    let names = names.iter().map(|name| Symbol::from(*name)).collect();
    let mechanisms = SaslMechanisms { sasl_server_mechanisms: Array(names) };
    raw_frame(out, 1, 0, &encoded(&mechanisms), &[]);
}

pub(super) fn sasl_outcome(out: &mut Vec<u8>, code: u8) {
    let code = match code {
        0 => SaslCode::Ok,
        1 => SaslCode::Auth,
        2 => SaslCode::Sys,
        3 => SaslCode::SysPerm,
        _ => SaslCode::SysTemp,
    };
    raw_frame(out, 1, 0, &encoded(&SaslOutcome { code, additional_data: None }), &[]);
}

pub(super) struct OpenAs {
    pub(super) max_frame_size: u32,
    pub(super) idle_time_out: Duration,
    pub(super) open_error: Option<Error>,
}

impl OpenAs {
    pub(super) fn usual(idle_time_out: Duration) -> Self {
        Self { max_frame_size: MAX_FRAME_SIZE, idle_time_out, open_error: None }
    }
}

pub(super) fn open(out: &mut Vec<u8>, open: OpenAs) {
    let error = open.open_error.and_then(|error| Value::try_from_serializable(error).ok());
    let properties =
        error.map(|error| Fields::from_iter([(Symbol::from("com.microsoft:open-error"), error)]));
    let open = Open {
        container_id: "dps-emulator".to_owned(),
        hostname: None,
        max_frame_size: open.max_frame_size.into(),
        channel_max: ChannelMax(u16::MAX),
        idle_time_out: Some(u32::try_from(open.idle_time_out.as_millis()).unwrap_or(u32::MAX)),
        outgoing_locales: None,
        incoming_locales: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties,
    };
    frame(out, 0, &open);
}

pub(super) fn begin(out: &mut Vec<u8>, channel: u16, incoming_window: u32) {
    let begin = Begin {
        remote_channel: Some(channel),
        next_outgoing_id: 0,
        incoming_window,
        outgoing_window: u32::MAX,
        handle_max: Handle(u32::MAX),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    };
    frame(out, channel, &begin);
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
    let source = Source { address: link.source.map(str::to_owned), ..Source::default() };
    let target = Target { address: link.target.map(str::to_owned), ..Target::default() };
    let attach = Attach {
        name: link.name.to_owned(),
        handle: Handle(link.handle),
        role: if link.receives { Role::Receiver } else { Role::Sender },
        snd_settle_mode: SenderSettleMode::Mixed,
        rcv_settle_mode: ReceiverSettleMode::First,
        source: (!link.refused).then(|| Box::new(source)),
        target: (!link.refused).then(|| Box::new(TargetArchetype::Target(target))),
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: (!link.receives).then_some(0),
        max_message_size: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    };
    frame(out, channel, &attach);
}

/// Both windows of a session, and a link's side of it: its handle, delivery count and credit.
pub(super) struct FlowAs {
    pub(super) next_incoming_id: u32,
    pub(super) incoming_window: u32,
    pub(super) next_outgoing_id: u32,
    pub(super) link: Option<(u32, u32, u32)>,
}

pub(super) fn flow(out: &mut Vec<u8>, channel: u16, flow: &FlowAs) {
    let flow = Flow {
        next_incoming_id: Some(flow.next_incoming_id),
        incoming_window: flow.incoming_window,
        next_outgoing_id: flow.next_outgoing_id,
        outgoing_window: u32::MAX,
        handle: flow.link.map(|(handle, ..)| Handle(handle)),
        delivery_count: flow.link.map(|(_, count, _)| count),
        link_credit: flow.link.map(|(.., credit)| credit),
        available: None,
        drain: false,
        echo: false,
        properties: None,
    };
    frame(out, channel, &flow);
}

/// The performative before a part of a message.
pub(super) fn transfer(handle: u32, delivery_id: u32, first: bool, more: bool) -> Vec<u8> {
    encoded(&Transfer {
        handle: Handle(handle),
        delivery_id: first.then_some(delivery_id),
        delivery_tag: first.then(|| Binary::from(delivery_id.to_be_bytes())),
        message_format: first.then_some(0),
        settled: Some(false),
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    })
}

/// What becomes of a device's delivery.
pub(super) enum Verdict {
    Accepted,
    Rejected(Error),
    Released,
    Modified { undeliverable_here: bool },
}

pub(super) fn disposition(out: &mut Vec<u8>, channel: u16, delivery_id: u32, verdict: Verdict) {
    let state = match verdict {
        Verdict::Accepted => DeliveryState::Accepted(Accepted {}),
        Verdict::Rejected(error) => DeliveryState::Rejected(Rejected { error: Some(error) }),
        Verdict::Released => DeliveryState::Released(Released {}),
        Verdict::Modified { undeliverable_here } => DeliveryState::Modified(Modified {
            delivery_failed: Some(true),
            undeliverable_here: Some(undeliverable_here),
            message_annotations: None,
        }),
    };
    let disposition = Disposition {
        role: Role::Receiver,
        first: delivery_id,
        last: None,
        settled: true,
        state: Some(state),
        batchable: false,
    };
    frame(out, channel, &disposition);
}

pub(super) fn detach(out: &mut Vec<u8>, channel: u16, handle: u32, error: Option<Error>) {
    frame(out, channel, &Detach { handle: Handle(handle), closed: true, error });
}

pub(super) fn end(out: &mut Vec<u8>, channel: u16) {
    frame(out, channel, &End { error: None });
}

pub(super) fn close(out: &mut Vec<u8>, error: Option<Error>) {
    frame(out, 0, &Close { error });
}

pub(super) fn heartbeat(out: &mut Vec<u8>) {
    raw_frame(out, 0, 0, &[], &[]);
}

/// An answer's message: all before its body, so that the body can be cut where the script says.
pub(super) fn message(
    correlation_id: Option<MessageId>,
    application: Vec<(String, SimpleValue)>,
    body: &[u8],
    as_value: bool,
) -> Vec<u8> {
    let mut message = encoded(&Properties { correlation_id, ..Properties::default() });
    let properties = ApplicationProperties(application.into_iter().collect());
    message.extend(encoded(&properties));
    message.extend(if as_value {
        encoded(&AmqpValue(Binary::from(body)))
    } else {
        encoded(&Data::from(body))
    });
    message
}

fn frame(out: &mut Vec<u8>, channel: u16, performative: &impl Serialize) {
    raw_frame(out, 0, channel, &encoded(performative), &[]);
}

pub(super) fn raw_frame(out: &mut Vec<u8>, kind: u8, channel: u16, body: &[u8], payload: &[u8]) {
    let size = u32::try_from(8 + body.len() + payload.len()).unwrap_or(u32::MAX);
    out.extend(size.to_be_bytes());
    out.extend([2, kind]);
    out.extend(channel.to_be_bytes());
    out.extend(body);
    out.extend(payload);
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    // Numbers, texts and maps of both: there is nothing that can fail to serialize.
    serde_amqp::to_vec(value).unwrap_or_default()
}
