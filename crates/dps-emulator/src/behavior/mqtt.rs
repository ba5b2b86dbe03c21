//! What can go wrong on an MQTT connection and on no other.

use serde::{Deserialize, Serialize};

/// What goes wrong with one MQTT connection, over TLS or WebSocket. Other connections take no notice of it.
///
/// What concerns a request concerns the first one on the connection. An answer to another request, and an answer
/// that comes twice, are faults of the request: [`Fault::wrong_id`](crate::Fault::wrong_id) and
/// [`Fault::twice`](crate::Fault::twice).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase", deny_unknown_fields)]
#[non_exhaustive]
pub enum MqttFault {
    /// Answers CONNECT with this return code, right credential or not, and closes. 0 to 5 have a meaning.
    RefuseConnect {
        /// The return code.
        code: u8,
    },
    /// Cuts the connection when anything comes with CONNECT, in front of its answer.
    RefusePipelining,
    /// Answers SUBSCRIBE with 128, and does not subscribe.
    RefuseSubscribe,
    /// Cuts the connection when this many packets have come in, before it answers the last one: 1 is CONNECT, then
    /// come SUBSCRIBE and the first request.
    CutAfter {
        /// How many.
        packets: u32,
    },
    /// Publishes the answer on a topic that is not for answers.
    WrongTopic,
    /// Publishes the answer on a topic whose status is no number.
    NoStatus,
    /// Sends bytes that are no MQTT in place of an answer.
    Garbage,
    /// Sends DISCONNECT in place of an answer, which MQTT 3.1.1 does not allow a server.
    Disconnect,
    /// Publishes the answer before it acknowledges the request.
    AnswerFirst,
    /// Answers no pings.
    IgnorePings,
}
