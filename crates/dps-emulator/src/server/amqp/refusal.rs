//! Refusals in the form of AMQP.

use serde_amqp::Value;

use super::write;
use crate::{
    behavior::{AmqpFault, InfoRetryAfter},
    core::Reply,
};

/// The condition of a refusal whose status HTTP counts.
pub(super) fn condition(status: u16) -> &'static str {
    match status {
        401 => "amqp:unauthorized-access",
        403 => "amqp:not-allowed",
        404 => "amqp:not-found",
        409 => "amqp:resource-locked",
        413 => "amqp:link:message-size-exceeded",
        429 => "com.microsoft:device-container-throttled",
        503 => "com.microsoft:server-busy",
        504 => "com.microsoft:timeout",
        500.. => "amqp:internal-error",
        _ => "amqp:invalid-field",
    }
}

/// A refusal as an error: the service's JSON is its description.
pub(super) fn rejection(reply: &Reply) -> Value {
    write::error(condition(reply.status), Some(reply.text()), retry_after(reply))
}

/// What a reply says of when to come back, under the two names that it goes by.
pub(super) fn retry_after(reply: &Reply) -> impl Iterator<Item = (&'static str, Value)> {
    // Whole seconds go as a number, whatever else a script says as it is.
    let values = reply.retry_after.iter().map(|value| match value.parse() {
        Ok(seconds) => Value::Int(seconds),
        Err(_) => Value::String(value.clone()),
    });
    ["retry-after", "Retry-After"].into_iter().zip(values)
}

/// A rejection by its condition only.
pub(super) fn bare_rejection(place: u8, retry_after: InfoRetryAfter) -> Value {
    let condition = AmqpFault::CONDITIONS.get(usize::from(place)).unwrap_or(&"amqp:internal-error");
    let number = |seconds| Value::Int(i32::try_from(seconds).unwrap_or(i32::MAX));
    let text = |seconds: u32| Value::String(seconds.to_string());
    let info = match retry_after {
        InfoRetryAfter::Absent => None,
        InfoRetryAfter::Number(seconds) => Some(("retry-after", number(seconds))),
        InfoRetryAfter::Text(seconds) => Some(("retry-after", text(seconds))),
        InfoRetryAfter::CapitalNumber(seconds) => Some(("Retry-After", number(seconds))),
        InfoRetryAfter::CapitalText(seconds) => Some(("Retry-After", text(seconds))),
    };
    write::error(condition, None, info)
}

impl Reply {
    /// The body as text; what is none in it is replaced.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
