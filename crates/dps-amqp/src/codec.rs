//! Frames to bytes and bytes to frames, without any I/O.
//!
//! What goes out is written by the library; what comes in is read by [`Value`], which bounds depth and memory.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html>.

use std::time::Duration;

mod encode;
mod failure;
mod fields;
#[cfg(test)]
pub(crate) mod hex;
pub mod message;
mod value;

pub(crate) use encode::{
    Position, RECEIVER, SENDER, accept, attach_receiver, attach_sender, begin, close, detach, flow,
    heartbeat, open, sasl_init, sasl_response, transfer,
};
pub use failure::Failure;
use fields::Fields;
pub(crate) use value::uuid_text;
pub use value::{Malformed, Value};

/// The port and the WebSocket subprotocol of AMQP.
pub const PROTOCOL: dps_connect::Protocol =
    dps_connect::Protocol { tls_port: 5671, subprotocol: "AMQPWSB10" };

/// The largest frame that is read, in bytes (64 KiB). Our `open` announces it.
pub const MAX_FRAME_SIZE: u32 = 64 * 1024;

/// How every header begins.
pub const AMQP: &[u8] = b"AMQP";

/// What both sides send first on a connection without SASL.
pub const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";

/// What both sides send first on a connection that begins with SASL.
pub const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// The two kinds of header that a peer may answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// AMQP itself.
    Amqp,
    /// SASL first.
    Sasl,
}

impl Protocol {
    /// Reads a header.
    ///
    /// # Errors
    /// [`Malformed`] when it is none of the two.
    pub fn read(header: [u8; 8]) -> Result<Self, Malformed> {
        match header {
            AMQP_HEADER => Ok(Self::Amqp),
            SASL_HEADER => Ok(Self::Sasl),
            [b'A', b'M', b'Q', b'P', protocol, major, minor, revision] => {
                Err(Malformed::new(format!(
                    "it speaks AMQP {major}.{minor}.{revision} with protocol id {protocol}, not 1.0.0"
                )))
            }
            _ => Err(Malformed::new("it does not speak AMQP")),
        }
    }
}

/// One frame from the service, as far as a device needs to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The channel that it came by; 0 for SASL.
    pub channel: u16,
    /// What it says.
    pub body: Body,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// Nothing: the peer is there.
    Heartbeat,
    /// The connection is open.
    Open {
        /// The largest frame that the service takes, in bytes.
        max_frame_size: u32,
        /// After how long without a frame from us the service closes the connection, if it does.
        idle_time_out: Option<Duration>,
        /// The connection is refused by the same frame: the property `com.microsoft:open-error`.
        open_error: Option<Failure>,
    },
    /// The session is open.
    Begin {
        /// The number of the service's first transfer.
        next_outgoing_id: u32,
        /// How many transfers the service takes.
        incoming_window: u32,
    },
    /// A link is attached.
    Attach {
        /// The link's name, as whoever began it chose it.
        name: String,
        /// The service's number for it.
        handle: u32,
        /// How many deliveries it had; of a link by which the service sends.
        delivery_count: u32,
    },
    /// How much may be sent.
    Flow {
        /// Which link; none for the whole session.
        handle: Option<u32>,
        /// The next transfer that the service awaits.
        next_incoming_id: Option<u32>,
        /// How many transfers the service takes.
        incoming_window: u32,
        /// How many deliveries the service has seen on the link.
        delivery_count: Option<u32>,
        /// How many more it takes.
        link_credit: u32,
        /// The credit is to be used now or given up.
        drain: bool,
        /// The service asks for the state of our side.
        echo: bool,
    },
    /// A message, or a part of one.
    Transfer {
        /// By which link.
        handle: u32,
        /// The number of the delivery; later parts may leave it out.
        delivery_id: Option<u32>,
        /// The service does not want to know what became of it.
        settled: bool,
        /// More parts follow.
        more: bool,
        /// The service takes the delivery back.
        aborted: bool,
        /// The message, or this part of it.
        payload: Vec<u8>,
    },
    /// What became of deliveries.
    Disposition {
        /// Of those that we sent, and not of those that we got.
        of_ours: bool,
        /// The first delivery.
        first: u32,
        /// The last one.
        last: u32,
        /// What became of them, if that is decided.
        outcome: Option<Outcome>,
    },
    /// A link is over.
    Detach {
        /// Which.
        handle: u32,
        /// Why.
        failure: Option<Failure>,
    },
    /// The session is over.
    End {
        /// Why.
        failure: Option<Failure>,
    },
    /// The connection is over.
    Close {
        /// Why.
        failure: Option<Failure>,
    },
    /// The SASL mechanisms that the service offers.
    Mechanisms(Vec<String>),
    /// The service's turn in the SASL exchange.
    Challenge(Vec<u8>),
    /// How the SASL exchange ended.
    SaslOutcome {
        /// 0 is success.
        code: u8,
        /// What the service adds.
        additional_data: Vec<u8>,
    },
}

impl Body {
    /// What the standard calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Heartbeat => "an empty frame",
            Self::Open { .. } => "open",
            Self::Begin { .. } => "begin",
            Self::Attach { .. } => "attach",
            Self::Flow { .. } => "flow",
            Self::Transfer { .. } => "transfer",
            Self::Disposition { .. } => "disposition",
            Self::Detach { .. } => "detach",
            Self::End { .. } => "end",
            Self::Close { .. } => "close",
            Self::Mechanisms(_) => "sasl-mechanisms",
            Self::Challenge(_) => "sasl-challenge",
            Self::SaslOutcome { .. } => "sasl-outcome",
        }
    }
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is taken.
    Accepted,
    /// It is refused, for the reason given.
    Rejected(Option<Failure>),
    /// It was not and will not be handled.
    Released,
    /// It was not handled, and is to be changed before it is sent again.
    Modified {
        /// Sending it here again is of no use.
        undeliverable_here: bool,
    },
}

/// Takes one frame from the front of `bytes`: the frame and its size in bytes. `None` while it is not whole.
///
/// # Errors
/// [`Malformed`] when it is no frame, larger than [`MAX_FRAME_SIZE`], or none that the standard knows: it has two types
/// of frames ([2.3.1](https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html#section-framing)),
/// and what either says must be on its list (2.3.2, and
/// [5.3.1](https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-security-v1.0-os.html#section-sasl)).
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame, usize)>, Malformed> {
    let Some((size, _)) = bytes.split_first_chunk() else { return Ok(None) };
    let size = u32::from_be_bytes(*size);
    if !(8..=MAX_FRAME_SIZE).contains(&size) {
        return Err(Malformed::new(format!(
            "a frame of {size} bytes; between 8 and {MAX_FRAME_SIZE} are allowed"
        )));
    }
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let Some(frame) = bytes.get(..size) else { return Ok(None) };
    let [_, _, _, _, offset, kind, channel @ ..] = frame else { return Ok(None) };
    let Some((channel, _)) = channel.split_first_chunk() else { return Ok(None) };
    let body = match offset {
        2.. => frame.get(usize::from(*offset) * 4..),
        _ => None,
    };
    let body = body.ok_or_else(|| Malformed::new("a frame's body begins outside of it"))?;
    let body = match kind {
        0 => amqp(body)?,
        1 => sasl(body)?,
        _ => return Err(Malformed::new(format!("a frame of the unknown type {kind}"))),
    };
    Ok(Some((Frame { channel: u16::from_be_bytes(*channel), body }, size)))
}

fn amqp(mut body: &[u8]) -> Result<Body, Malformed> {
    if body.is_empty() {
        return Ok(Body::Heartbeat);
    }
    let (code, fields) = Fields::read(&mut body)?;
    Ok(match code {
        0x10 => Body::Open {
            max_frame_size: fields.u32(2).unwrap_or(u32::MAX),
            idle_time_out: fields.u32(4).map(|ms| Duration::from_millis(ms.into())),
            open_error: fields.get(9).and_then(open_error),
        },
        0x11 => Body::Begin {
            next_outgoing_id: fields.u32(1).unwrap_or(0),
            incoming_window: fields.u32(2).unwrap_or(0),
        },
        0x12 => Body::Attach {
            name: fields.text(0).ok_or_else(|| missing("an attach", "name"))?,
            handle: fields.u32(1).ok_or_else(|| missing("an attach", "handle"))?,
            delivery_count: fields.u32(9).unwrap_or(0),
        },
        0x13 => Body::Flow {
            next_incoming_id: fields.u32(0),
            incoming_window: fields.u32(1).unwrap_or(0),
            handle: fields.u32(4),
            delivery_count: fields.u32(5),
            link_credit: fields.u32(6).unwrap_or(0),
            drain: fields.flag(8),
            echo: fields.flag(9),
        },
        0x14 => Body::Transfer {
            handle: fields.u32(0).ok_or_else(|| missing("a transfer", "handle"))?,
            delivery_id: fields.u32(1),
            settled: fields.flag(4),
            more: fields.flag(5),
            aborted: fields.flag(9),
            payload: body.to_vec(),
        },
        0x15 => {
            let first = fields.u32(1).ok_or_else(|| missing("a disposition", "first"))?;
            Body::Disposition {
                of_ours: fields.flag(0),
                first,
                last: fields.u32(2).unwrap_or(first),
                outcome: fields.get(4).and_then(outcome),
            }
        }
        0x16 => Body::Detach {
            handle: fields.u32(0).ok_or_else(|| missing("a detach", "handle"))?,
            failure: failure(&fields, 2),
        },
        0x17 => Body::End { failure: failure(&fields, 0) },
        0x18 => Body::Close { failure: failure(&fields, 0) },
        _ => return Err(Malformed::new(format!("a frame that says the unknown {code:#x}"))),
    })
}

fn sasl(mut body: &[u8]) -> Result<Body, Malformed> {
    let (code, fields) = Fields::read(&mut body)?;
    Ok(match code {
        0x40 => {
            let offered = fields.get(0).unwrap_or(Value::Null).into_list();
            Body::Mechanisms(offered.map(|name| name.to_string()).collect())
        }
        0x42 => Body::Challenge(fields.binary(0)),
        0x44 => Body::SaslOutcome {
            code: fields.u32(0).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX),
            additional_data: fields.binary(1),
        },
        _ => {
            return Err(Malformed::new(format!("a frame of SASL that says the unknown {code:#x}")));
        }
    })
}

fn outcome(state: Value<'_>) -> Option<Outcome> {
    let Value::Described(code, fields) = state else { return None };
    let fields = Fields::of(fields.read());
    Some(match code {
        0x24 => Outcome::Accepted,
        0x25 => Outcome::Rejected(failure(&fields, 0)),
        0x26 => Outcome::Released,
        0x27 => Outcome::Modified { undeliverable_here: fields.flag(1) },
        _ => return None,
    })
}

/// It is most often an error like any other. Of any other value the text is taken.
fn open_error(properties: Value<'_>) -> Option<Failure> {
    let (_, value) =
        properties.into_named().find(|(name, _)| name == "com.microsoft:open-error")?;
    Some(Failure::read(value).unwrap_or_else(|| Failure::said(value.to_string())))
}

fn failure(fields: &Fields<'_>, place: usize) -> Option<Failure> {
    fields.get(place).and_then(Failure::read)
}

fn missing(what: &str, field: &str) -> Malformed {
    Malformed::new(format!("{what} has no {field}"))
}

#[cfg(test)]
mod tests;
