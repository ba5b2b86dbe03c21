//! An AMQP server that follows a script. It writes with the library's codec and tells frames apart by their codes.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use fe2o3_amqp_types::{
    definitions::{Error, ErrorCondition, Fields, Handle, Role},
    messaging::{
        Accepted, ApplicationProperties, Data, DeliveryState, MessageId, Properties, Rejected,
    },
    performatives::{Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Transfer},
    sasl::{SaslChallenge, SaslCode, SaslMechanisms, SaslOutcome},
};
use rustls::ServerConfig;
use serde_amqp::{
    Value,
    primitives::{Array, Binary, Symbol},
    serde::Serialize,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::support::{ServerStream, listen_tls, swallow};

/// What a device sends: a protocol header or a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    SaslHeader,
    SaslInit,
    SaslResponse,
    AmqpHeader,
    Open,
    Begin,
    Attach,
    Flow,
    Transfer,
    Disposition,
    Detach,
    End,
    Close,
    Empty,
}

/// A device with a SAS token says who it is.
pub(crate) const LOGIN: &[Sent] = &[Sent::SaslHeader, Sent::SaslInit];
/// A device starts a session with both of its links.
pub(crate) const START: &[Sent] =
    &[Sent::AmqpHeader, Sent::Open, Sent::Begin, Sent::Attach, Sent::Attach, Sent::Flow];
/// A device sends a request.
pub(crate) const REQUEST: &[Sent] = &[Sent::Transfer];
/// A device accepts an answer.
pub(crate) const ACCEPTANCE: &[Sent] = &[Sent::Disposition];
/// A device accepts eight answers and gives credit again.
pub(crate) const EIGHT_ACCEPTANCES_AND_CREDIT: &[Sent] = &[
    Sent::Disposition,
    Sent::Disposition,
    Sent::Disposition,
    Sent::Disposition,
    Sent::Disposition,
    Sent::Disposition,
    Sent::Disposition,
    Sent::Disposition,
    Sent::Flow,
];
/// A device ends its session.
pub(crate) const END_OF_SESSION: &[Sent] = &[Sent::Detach, Sent::Detach, Sent::Close];

type MakeAnswer = dyn Fn(&str) -> Vec<u8> + Send + Sync;

/// One turn of a server.
#[derive(Clone)]
pub(crate) enum Turn {
    /// Reads exactly these, and sends nothing meanwhile: what comes is what the device sends of its own accord.
    Read(&'static [Sent]),
    /// Sends this.
    Send(Vec<u8>),
    /// Answers the request that came last: with the bytes that this makes of its correlation id.
    Answer(Arc<MakeAnswer>),
    /// Reads frames until the device closes.
    ReadOn,
    /// Closes at once.
    Cut,
}

/// What the server sees.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// All that a connection sent, when it was over or cut.
    Over(Vec<Sent>),
}

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Peer {
    /// Serves each connection by the next script; those after the last are closed.
    pub(crate) async fn start(config: ServerConfig, scripts: Vec<Vec<Turn>>) -> Self {
        Self::over(config, scripts, |tls| async { Some(tls) }).await
    }

    /// The same, over what the function makes of each TLS stream.
    pub(crate) async fn over<S, F>(
        config: ServerConfig,
        scripts: Vec<Vec<Turn>>,
        upgrade: fn(ServerStream) -> F,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let scripts = Arc::new(Mutex::new(VecDeque::from(scripts)));
        let (tell, events) = mpsc::unbounded_channel();
        let address = listen_tls(config, move |tls| {
            let script = scripts.lock().unwrap().pop_front().unwrap_or(vec![Turn::Cut]);
            let tell = tell.clone();
            async move {
                let Some(stream) = upgrade(tls).await else { return };
                let mut server = Server { stream, buffer: vec![], seen: vec![], last: vec![] };
                server.follow(script).await;
                let Server { stream, seen, .. } = server;
                drop(stream);
                // The test may be over.
                let _ = tell.send(Event::Over(seen));
            }
        })
        .await;
        Self { address, events }
    }

    /// All that the next connection to end had sent.
    pub(crate) async fn over_next(&mut self) -> Vec<Sent> {
        let Event::Over(seen) = self.events.recv().await.unwrap();
        seen
    }
}

struct Server<S> {
    stream: S,
    buffer: Vec<u8>,
    seen: Vec<Sent>,
    /// The transfers since the last answer.
    last: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Server<S> {
    async fn follow(&mut self, script: Vec<Turn>) {
        for turn in script {
            match turn {
                Turn::Read(wanted) => {
                    let until = self.seen.len() + wanted.len();
                    while self.seen.len() < until {
                        if self.read_one().await.is_none() {
                            return;
                        }
                    }
                    assert!(self.seen.ends_with(wanted), "{:?} instead of {wanted:?}", self.seen);
                }
                Turn::Send(bytes) => self.send(&bytes).await,
                Turn::Answer(make) => {
                    let answer = make(&correlation_id(&std::mem::take(&mut self.last)));
                    self.send(&answer).await;
                }
                Turn::ReadOn => while self.read_one().await.is_some() {},
                Turn::Cut => return,
            }
        }
        swallow(&mut self.stream).await;
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The device may be gone.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Reads one header or frame.
    async fn read_one(&mut self) -> Option<()> {
        loop {
            let size = match self.buffer.split_first_chunk() {
                Some((b"AMQP", rest)) if rest.len() >= 4 => 8,
                Some((size, _)) => u32::from_be_bytes(*size) as usize,
                None => usize::MAX,
            };
            if self.buffer.len() >= size {
                let unit: Vec<_> = self.buffer.drain(..size).collect();
                let sent = recognize(&unit);
                self.seen.push(sent);
                if sent == Sent::Transfer {
                    self.last.extend(unit);
                }
                return Some(());
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

fn recognize(unit: &[u8]) -> Sent {
    match (unit, unit.get(10)) {
        ([b'A', b'M', b'Q', b'P', 3, ..], _) => Sent::SaslHeader,
        ([b'A', b'M', b'Q', b'P', ..], _) => Sent::AmqpHeader,
        (_, None) => Sent::Empty,
        (_, Some(code)) => match code {
            0x41 => Sent::SaslInit,
            0x43 => Sent::SaslResponse,
            0x10 => Sent::Open,
            0x11 => Sent::Begin,
            0x12 => Sent::Attach,
            0x13 => Sent::Flow,
            0x14 => Sent::Transfer,
            0x15 => Sent::Disposition,
            0x16 => Sent::Detach,
            0x17 => Sent::End,
            0x18 => Sent::Close,
            other => panic!("{other:x} in {unit:x?}"),
        },
    }
}

/// The last text of 36 characters right after the fields before it.
fn correlation_id(transfer: &[u8]) -> String {
    let marker = [0x40, 0x40, 0x40, 0x40, 0x40, 0xa1, 36];
    let start = transfer.windows(7).rposition(|bytes| bytes == marker).unwrap() + 7;
    String::from_utf8(transfer[start..start + 36].to_vec()).unwrap()
}

pub(crate) fn frame_of(kind: u8, performative: &impl Serialize, payload: &[u8]) -> Vec<u8> {
    let body = serde_amqp::to_vec(performative).unwrap();
    let size = u32::try_from(8 + body.len() + payload.len()).unwrap();
    [&size.to_be_bytes()[..], &[2, kind, 0, 0], &body, payload].concat()
}

pub(crate) fn frame(performative: &impl Serialize) -> Vec<u8> {
    frame_of(0, performative, &[])
}

pub(crate) const AMQP: &[u8] = b"AMQP\x00\x01\x00\x00";
pub(crate) const SASL: &[u8] = b"AMQP\x03\x01\x00\x00";

pub(crate) fn mechanisms(names: &[&str]) -> Vec<u8> {
    if names.is_empty() {
        // An array of nothing, which the library does not write.
        return vec![0, 0, 0, 18, 2, 1, 0, 0, 0, 0x53, 0x40, 0xc0, 5, 1, 0xe0, 2, 0, 0xa3];
    }
    let names = names.iter().map(|name| Symbol::from(*name)).collect();
    frame_of(1, &SaslMechanisms { sasl_server_mechanisms: Array(names) }, &[])
}

pub(crate) fn challenge() -> Vec<u8> {
    frame_of(1, &SaslChallenge { challenge: Binary::from([0]) }, &[])
}

pub(crate) fn outcome(code: SaslCode) -> Vec<u8> {
    frame_of(1, &SaslOutcome { code, additional_data: None }, &[])
}

/// SASL's part of a server that takes everybody.
pub(crate) fn logged_in() -> Vec<u8> {
    [SASL, &mechanisms(&["PLAIN"]), &outcome(SaslCode::Ok)].concat()
}

pub(crate) fn open() -> Open {
    Open {
        container_id: "peer".into(),
        hostname: None,
        max_frame_size: 65536.into(),
        channel_max: 0.into(),
        idle_time_out: None,
        outgoing_locales: None,
        incoming_locales: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    }
}

pub(crate) fn begin(incoming_window: u32) -> Vec<u8> {
    frame(&Begin {
        remote_channel: Some(0),
        next_outgoing_id: 0,
        incoming_window,
        outgoing_window: 2048,
        handle_max: Handle(7),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    })
}

/// The answers to both attaches. Their numbers are other ones than the device's.
pub(crate) fn attached() -> Vec<u8> {
    let attach = |name: &str, handle, role| {
        frame(&Attach {
            name: name.into(),
            handle: Handle(handle),
            role,
            snd_settle_mode: Default::default(),
            rcv_settle_mode: Default::default(),
            source: None,
            target: None,
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count: Some(0),
            max_message_size: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        })
    };
    [attach("dps-requests", 5, Role::Receiver), attach("dps-answers", 6, Role::Sender)].concat()
}

/// Credit for requests.
pub(crate) fn credit(
    next_incoming_id: u32,
    window: u32,
    delivery_count: u32,
    credit: u32,
) -> Vec<u8> {
    frame(&Flow {
        next_incoming_id: Some(next_incoming_id),
        incoming_window: window,
        next_outgoing_id: 0,
        outgoing_window: 2048,
        handle: Some(Handle(5)),
        delivery_count: Some(delivery_count),
        link_credit: Some(credit),
        available: None,
        drain: false,
        echo: false,
        properties: None,
    })
}

/// All that a usual server says from its header to the first credit.
pub(crate) fn started() -> Vec<u8> {
    [AMQP, &frame(&open()), &begin(2048), &attached(), &credit(0, 2048, 0, 100)].concat()
}

pub(crate) fn disposition(delivery_id: u32, state: DeliveryState) -> Vec<u8> {
    frame(&Disposition {
        role: Role::Receiver,
        first: delivery_id,
        last: None,
        settled: true,
        state: Some(state),
        batchable: false,
    })
}

pub(crate) fn accepted(delivery_id: u32) -> Vec<u8> {
    disposition(delivery_id, DeliveryState::Accepted(Accepted {}))
}

pub(crate) fn rejected(delivery_id: u32, error: Error) -> Vec<u8> {
    disposition(delivery_id, DeliveryState::Rejected(Rejected { error: Some(error) }))
}

pub(crate) fn error(condition: &str, description: Option<&str>) -> Error {
    let condition = ErrorCondition::Custom(Symbol::from(condition));
    Error::new(condition, description.map(str::to_owned), None)
}

pub(crate) fn error_with(condition: &str, description: &str, name: &str, value: Value) -> Error {
    let info = Fields::from_iter([(Symbol::from(name), value)]);
    let condition = ErrorCondition::Custom(Symbol::from(condition));
    Error::new(condition, Some(description.to_owned()), Some(info))
}

/// An answer's message.
pub(crate) fn message(id: &str, body: &[u8]) -> Vec<u8> {
    let properties =
        Properties { correlation_id: Some(MessageId::String(id.into())), ..Default::default() };
    let application =
        ApplicationProperties::builder().insert("retry-after", 3).insert("x", "y").build();
    [
        serde_amqp::to_vec(&properties).unwrap(),
        serde_amqp::to_vec(&application).unwrap(),
        serde_amqp::to_vec(&Data::from(body)).unwrap(),
    ]
    .concat()
}

/// A message in one frame.
pub(crate) fn delivery(delivery_id: u32, message: &[u8]) -> Vec<u8> {
    part(delivery_id, message, false)
}

/// A message, or all but the last part of one.
pub(crate) fn part(delivery_id: u32, part: &[u8], more: bool) -> Vec<u8> {
    let transfer = Transfer {
        handle: Handle(6),
        delivery_id: Some(delivery_id),
        delivery_tag: Some(Binary::from(delivery_id.to_be_bytes())),
        message_format: Some(0),
        settled: Some(false),
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    };
    frame_of(0, &transfer, part)
}

pub(crate) fn detach(error: Option<Error>) -> Vec<u8> {
    frame(&Detach { handle: Handle(6), closed: true, error })
}

pub(crate) fn end(error: Option<Error>) -> Vec<u8> {
    frame(&End { error })
}

pub(crate) fn close(error: Option<Error>) -> Vec<u8> {
    frame(&Close { error })
}

/// Accepts the request and answers it.
pub(crate) fn answers(delivery_id: u32, body: &'static str) -> Turn {
    Turn::Answer(Arc::new(move |id| {
        [accepted(delivery_id), delivery(delivery_id, &message(id, body.as_bytes()))].concat()
    }))
}

/// A server that starts a session, in the fewest flights.
pub(crate) fn usual_start() -> Vec<Turn> {
    vec![
        Turn::Read(LOGIN),
        Turn::Send(logged_in()),
        Turn::Read(START),
        Turn::Send(started()),
        Turn::Read(REQUEST),
    ]
}
