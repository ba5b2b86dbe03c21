//! A device of frames, so that tests see exactly what goes over the transport. It writes the bytes that peers were seen to
//! write, and reads with the library's types.

use std::{net::SocketAddr, sync::Arc};

use dps_emulator::Emulator;
use fe2o3_amqp_types::{
    definitions::{Handle, Role},
    messaging::{ApplicationProperties, MessageId, Properties, Source, Target, TargetArchetype},
    performatives::{Attach, Begin, Flow, Open, Performative, Transfer},
    sasl::{SaslInit, SaslOutcome},
};
use rustls::{ClientConfig, pki_types::ServerName};
use serde_amqp::{
    Value,
    primitives::{Binary, Symbol},
    serde::Serialize,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) use crate::one_device::*;
use crate::support::{PATIENCE, tls, token};

pub(crate) const AMQP: &[u8] = b"AMQP\x00\x01\x00\x00";
pub(crate) const SASL: &[u8] = b"AMQP\x03\x01\x00\x00";

pub(crate) fn frame_of(kind: u8, performative: &impl Serialize, payload: &[u8]) -> Vec<u8> {
    let body = serde_amqp::to_vec(performative).unwrap();
    let size = u32::try_from(8 + body.len() + payload.len()).unwrap();
    [&size.to_be_bytes()[..], &[2, kind, 0, 0], &body, payload].concat()
}

pub(crate) fn frame(performative: &impl Serialize) -> Vec<u8> {
    frame_of(0, performative, &[])
}

/// SASL PLAIN of `dev-1`, with the header before it.
pub(crate) fn plain(emulator: &Emulator, token: &str) -> Vec<u8> {
    let user = format!("{}/registrations/dev-1", emulator.id_scope());
    let init = SaslInit {
        mechanism: Symbol::from("PLAIN"),
        initial_response: Some(Binary::from(format!("\0{user}\0{token}").into_bytes())),
        hostname: None,
    };
    [SASL, &frame_of(1, &init, &[])].concat()
}

pub(crate) fn right_token(emulator: &Emulator) -> String {
    token(emulator.id_scope().as_str(), "dev-1", &key())
}

pub(crate) fn open() -> Open {
    Open {
        container_id: "frames".into(),
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

pub(crate) fn begin() -> Vec<u8> {
    frame(&Begin {
        remote_channel: None,
        next_outgoing_id: 0,
        incoming_window: 2048,
        outgoing_window: 2048,
        handle_max: Handle(7),
        offered_capabilities: None,
        desired_capabilities: None,
        properties: None,
    })
}

/// A link by which the device sends (handle 0) or receives (handle 1).
pub(crate) fn attach(role: Role, address: &str, properties: &[(&str, &str)]) -> Vec<u8> {
    let sends = role == Role::Sender;
    let address = |wanted: bool| wanted.then(|| address.to_owned());
    let source = Source { address: address(!sends), ..Source::default() };
    let target = Target { address: address(sends), ..Target::default() };
    let properties = properties
        .iter()
        .map(|(name, value)| (Symbol::from(*name), Value::String((*value).to_owned())));
    frame(&Attach {
        name: if sends { "ingress" } else { "egress" }.into(),
        handle: Handle(u32::from(!sends)),
        role,
        snd_settle_mode: Default::default(),
        rcv_settle_mode: Default::default(),
        source: Some(Box::new(source)),
        target: Some(Box::new(TargetArchetype::Target(target))),
        unsettled: None,
        incomplete_unsettled: false,
        initial_delivery_count: sends.then_some(0),
        max_message_size: None,
        offered_capabilities: None,
        desired_capabilities: None,
        properties: Some(properties.collect()),
    })
}

pub(crate) const VERSION: &[(&str, &str)] = &[("com.microsoft:api-version", "2021-06-01")];

/// Both links of `dev-1`.
pub(crate) fn links(emulator: &Emulator) -> Vec<u8> {
    let address = format!("{}/registrations/dev-1", emulator.id_scope());
    [attach(Role::Sender, &address, VERSION), attach(Role::Receiver, &address, VERSION)].concat()
}

/// Credit for answers.
pub(crate) fn credit(credit: u32) -> Vec<u8> {
    frame(&Flow {
        next_incoming_id: Some(0),
        incoming_window: 2048,
        next_outgoing_id: 0,
        outgoing_window: 2048,
        handle: Some(Handle(1)),
        delivery_count: Some(0),
        link_credit: Some(credit),
        available: None,
        drain: false,
        echo: false,
        properties: None,
    })
}

/// All that a session of `dev-1` begins with, after SASL.
pub(crate) fn session(emulator: &Emulator) -> Vec<u8> {
    [AMQP, &frame(&open()), &begin(), &links(emulator), &credit(10)].concat()
}

/// A request's sections before its body.
pub(crate) fn sections(
    id: Option<MessageId>,
    operation: &str,
    operation_id: Option<&str>,
) -> Vec<u8> {
    let properties = Properties { correlation_id: id, ..Default::default() };
    let mut application =
        ApplicationProperties::builder().insert("iotdps-operation-type", operation);
    if let Some(operation_id) = operation_id {
        application = application.insert("iotdps-operation-id", operation_id);
    }
    [serde_amqp::to_vec(&properties).unwrap(), serde_amqp::to_vec(&application.build()).unwrap()]
        .concat()
}

pub(crate) fn data(body: &[u8]) -> Vec<u8> {
    serde_amqp::to_vec(&fe2o3_amqp_types::messaging::Data::from(body)).unwrap()
}

pub(crate) fn register(number: u32, id: &str) -> Vec<u8> {
    let sections = sections(Some(MessageId::String(id.into())), "iotdps-register", None);
    delivery(number, &[sections, data(BODY.as_bytes())].concat())
}

/// A message in one frame.
pub(crate) fn delivery(number: u32, message: &[u8]) -> Vec<u8> {
    part(number, message, false)
}

pub(crate) fn part(number: u32, message: &[u8], more: bool) -> Vec<u8> {
    let transfer = Transfer {
        handle: Handle(0),
        delivery_id: Some(number),
        delivery_tag: Some(Binary::from(number.to_be_bytes())),
        message_format: Some(0),
        settled: None,
        more,
        rcv_settle_mode: None,
        state: None,
        resume: false,
        aborted: false,
        batchable: false,
    };
    frame_of(0, &transfer, message)
}

/// What the emulator sends.
#[derive(Debug)]
pub(crate) enum Heard {
    Header([u8; 8]),
    Mechanisms,
    Outcome(SaslOutcome),
    Empty,
    Performative(Box<Performative>, Vec<u8>),
}

pub(crate) struct Device<S> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

pub(crate) async fn connect(emulator: &Emulator) -> Device<TlsStream<TcpStream>> {
    connect_with(emulator.amqp_port(), tls(emulator, rustls::DEFAULT_VERSIONS, None)).await
}

pub(crate) async fn connect_with(port: u16, config: ClientConfig) -> Device<TlsStream<TcpStream>> {
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    Device::over(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap())
}

impl<S: AsyncRead + AsyncWrite + Unpin> Device<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next header or frame; `None` when the connection is closed.
    pub(crate) async fn hear(&mut self) -> Option<Heard> {
        tokio::time::timeout(PATIENCE, self.read_one()).await.expect("an answer in time")
    }

    async fn read_one(&mut self) -> Option<Heard> {
        loop {
            let size = match self.buffer.split_first_chunk() {
                Some((b"AMQP", rest)) if rest.len() >= 4 => 8,
                Some((size, _)) => u32::from_be_bytes(*size) as usize,
                None => usize::MAX,
            };
            if self.buffer.len() >= size {
                let unit: Vec<_> = self.buffer.drain(..size).collect();
                return Some(understood(&unit));
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// Skips what is neither a delivery, a disposition, nor the end of something.
    pub(crate) async fn next(&mut self) -> Option<(Performative, Vec<u8>)> {
        loop {
            let Heard::Performative(performative, payload) = self.hear().await? else { continue };
            match *performative {
                Performative::Open(_)
                | Performative::Begin(_)
                | Performative::Attach(_)
                | Performative::Flow(_) => {}
                other => return Some((other, payload)),
            }
        }
    }

    /// The JSON of the next answer, and its whole message as bytes.
    pub(crate) async fn answer(&mut self) -> (serde_json::Value, Vec<u8>) {
        let mut message = Vec::new();
        loop {
            match self.next().await {
                Some((Performative::Transfer(transfer), payload)) => {
                    message.extend(payload);
                    if !transfer.more {
                        break;
                    }
                }
                Some((Performative::Disposition(_), _)) => {}
                other => panic!("{other:?}"),
            }
        }
        let start = message.iter().position(|byte| *byte == b'{').unwrap();
        (serde_json::from_slice(&message[start..]).unwrap(), message)
    }
}

fn understood(unit: &[u8]) -> Heard {
    match unit {
        [b'A', b'M', b'Q', b'P', ..] => Heard::Header(unit.try_into().unwrap()),
        [_, _, _, _, _, 1, _, _, _, _, 0x40, ..] => Heard::Mechanisms,
        [_, _, _, _, _, 1, _, _, outcome @ ..] => {
            Heard::Outcome(serde_amqp::from_slice(outcome).unwrap())
        }
        [_, _, _, _, _, _, _, _] => Heard::Empty,
        [_, _, _, _, _, _, _, _, body @ ..] => {
            let performative: Performative = serde_amqp::from_slice(body).unwrap();
            let length = serde_amqp::to_vec(&performative).unwrap().len();
            let payload = match &performative {
                Performative::Transfer(_) => body[length..].to_vec(),
                _ => Vec::new(),
            };
            Heard::Performative(Box::new(performative), payload)
        }
        other => panic!("{other:?}"),
    }
}
