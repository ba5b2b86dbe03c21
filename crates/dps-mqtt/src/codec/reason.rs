//! Reason codes of MQTT 5, which some brokers send to a client of MQTT 3.1.1 too.
//! See <https://docs.oasis-open.org/mqtt/mqtt/v5.0/os/mqtt-v5.0-os.html#_Toc3901031>.

use bytes::{Buf as _, BytesMut};

use super::{Incoming, Refusal};

/// The peer does not speak MQTT 3.1.1.
pub const UNSUPPORTED_VERSION: u8 = 0x84;

/// Takes a whole CONNACK, SUBACK or DISCONNECT that has a reason code from the front; `None` for anything else.
pub(super) fn read(incoming: &mut BytesMut) -> Option<Incoming> {
    // What comes before the reason is short: so is the length.
    let [kind, length @ ..=0x7f, rest @ ..] = &incoming[..] else { return None };
    let (kind, length) = (*kind, usize::from(*length));
    let (content, _) = rest.split_at_checked(length)?;
    let packet = match (kind, content) {
        (0x20, [0 | 1, code @ 0x80..=0xFF, ..]) => Incoming::Refused(Refusal::Reason(*code)),
        // The packet id, the properties of MQTT 5 if there are any, and a code for the one filter.
        (0x90, [_, _, .., code @ 0x80..=0xFF]) => Incoming::SubscriptionRefused(*code),
        (0xE0, [code, ..]) => Incoming::Disconnected(Some(*code)),
        _ => return None,
    };
    incoming.advance(2 + length);
    Some(packet)
}

/// What a reason code means, in the words of the standard.
#[must_use]
pub fn meaning(code: u8) -> &'static str {
    match code {
        0x00 => "normal disconnection",
        0x80 => "unspecified error",
        0x81 => "malformed packet",
        0x82 => "protocol error",
        0x83 => "implementation specific error",
        UNSUPPORTED_VERSION => "unsupported protocol version, it does not take MQTT 3.1.1",
        0x85 => "client identifier not valid",
        0x86 => "bad user name or password",
        0x87 => "not authorized",
        0x88 => "server unavailable",
        0x89 => "server busy",
        0x8A => "banned",
        0x8B => "server shutting down",
        0x8C => "bad authentication method",
        0x8D => "keep alive timeout",
        0x8E => "session taken over",
        0x8F => "topic filter invalid",
        0x90 => "topic name invalid",
        0x91 => "packet identifier in use",
        0x93 => "receive maximum exceeded",
        0x95 => "packet too large",
        0x96 => "message rate too high",
        0x97 => "quota exceeded",
        0x98 => "administrative action",
        0x99 => "payload format invalid",
        0x9A => "retain not supported",
        0x9B => "QoS not supported",
        0x9C => "use another server",
        0x9D => "server moved",
        0x9E => "shared subscriptions not supported",
        0x9F => "connection rate exceeded",
        0xA0 => "maximum connect time",
        0xA1 => "subscription identifiers not supported",
        0xA2 => "wildcard subscriptions not supported",
        _ => "a reason that is not in the standard",
    }
}

/// Whether a refusal for this reason may be due to packets that came too early: not if it is about the version, about who
/// the device is, or about how the service does.
#[must_use]
pub fn may_concern_the_start(code: u8) -> bool {
    let is_about_the_device = matches!(code, 0x85..=0x87 | 0x8A | 0x8C);
    let is_about_the_service =
        matches!(code, 0x88 | 0x89 | 0x8B | 0x97 | 0x98 | 0x9C | 0x9D | 0x9F | 0xA0);
    code != UNSUPPORTED_VERSION && !is_about_the_device && !is_about_the_service
}

/// The status by which the state machine judges a refusal for this reason.
#[must_use]
pub fn status(code: u8) -> u16 {
    match code {
        0x86 | 0x87 | 0x8C => 401,
        0x8A => 403,
        0x9D => 421,
        0x96 | 0x97 | 0x9F => 429,
        0x88 | 0x89 | 0x8B | 0x9C => 503,
        0x80 | 0x83 | 0x91 | 0x93 => 500,
        0x81 | 0x82 | 0x85 | 0x8F | 0x90 | 0x95 | 0x99..=0x9B | 0x9E | 0xA1 | 0xA2 => 400,
        _ => 500,
    }
}
