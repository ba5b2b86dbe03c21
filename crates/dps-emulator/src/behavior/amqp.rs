//! What can go wrong on an AMQP connection and on no other.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// What goes wrong with one AMQP connection, over TLS or WebSocket. Other connections take no notice of it.
///
/// What concerns a request concerns the first one on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum AmqpFault {
    /// Wants SASL first, also from a device with a certificate.
    InsistOnSasl,
    /// As [`AmqpFault::InsistOnSasl`], and of the mechanisms for such a device offers ANONYMOUS only.
    InsistOnAnonymous,
    /// Ends SASL with this outcome: 1 is a bad credential, 2 to 4 are troubles of the service.
    RefuseSasl {
        /// The outcome's code.
        code: u8,
    },
    /// Refuses a bad credential with SASL outcome 1, where the service opens the connection and closes it with
    /// its JSON error.
    SaslDecides,
    /// Opens the connection with the property `com.microsoft:open-error` and closes it.
    OpenError,
    /// Detaches each link as soon as it is attached, with the service's error 403000.
    RefuseAttach,
    /// Takes no requests: the link for them never gets any credit.
    NoCredit,
    /// Gives credit for the request, and takes frames of no more than 512 bytes, and no more than one at a time.
    Narrow,
    /// Detaches the link instead of answering a request, without a reason.
    Detach,
    /// As [`AmqpFault::Detach`], saying `amqp:link:detach-forced`.
    DetachForced,
    /// As [`AmqpFault::Detach`], with the service's error 500000.
    DetachWithError,
    /// Ends the session instead of answering a request, without a reason.
    End,
    /// Closes the connection instead of answering a request, without a reason.
    Close,
    /// As [`AmqpFault::Close`], with the service's error 503000.
    CloseWithError,
    /// Rejects the request with a bare condition, one of [`AmqpFault::CONDITIONS`], and no JSON.
    Reject {
        /// Its place in the list.
        #[serde(deserialize_with = "condition")]
        condition: u8,
        /// What the rejection's info map says of when to come back.
        retry_after: InfoRetryAfter,
    },
    /// Releases the request.
    Release,
    /// Gives the request back as modified.
    Modify {
        /// Whether sending it here again is of no use.
        undeliverable_here: bool,
    },
    /// Answers the request without accepting it first.
    AnswerFirst,
    /// Sends the answer as an AMQP value in place of a data section.
    ValueBody,
    /// Cuts the connection when this many frames have come in, headers counted, before it answers the last one.
    CutAfter {
        /// How many.
        frames: u32,
    },
    /// Wants to hear from the device at least this often, and closes the connection otherwise.
    IdleTimeOut {
        /// In milliseconds.
        millis: u32,
    },
}

/// The place of a condition in [`AmqpFault::CONDITIONS`].
fn condition<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
    let place = u8::deserialize(from)?;
    match usize::from(place) < AmqpFault::CONDITIONS.len() {
        true => Ok(place),
        false => Err(D::Error::custom("it must be one of the conditions 0 to 5")),
    }
}

/// How a rejection's info map says when to come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InfoRetryAfter {
    /// Not at all.
    #[default]
    Absent,
    /// `retry-after`, an integer, in seconds.
    Number(u32),
    /// `retry-after`, a string, in seconds.
    Text(u32),
    /// `Retry-After`, an integer, in seconds.
    CapitalNumber(u32),
    /// `Retry-After`, a string, in seconds.
    CapitalText(u32),
}

impl AmqpFault {
    /// The conditions of [`AmqpFault::Reject`].
    pub const CONDITIONS: [&str; 6] = [
        "amqp:internal-error",
        "com.microsoft:device-container-throttled",
        "amqp:not-found",
        "amqp:unauthorized-access",
        "amqp:not-allowed",
        "amqp:decode-error",
    ];
}
