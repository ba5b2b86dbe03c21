//! How the service behaves toward the devices of an enrollment, faults included.

use serde::{Deserialize, Deserializer, Serialize};

mod amqp;
mod fault;
mod mqtt;

pub use amqp::{AmqpFault, InfoRetryAfter};
pub use fault::{Body, Delivery, Fault};
pub(crate) use fault::{Refusal, Times};
pub use mqtt::MqttFault;

/// How the service treats the devices of one enrollment. The default is a service in good health that assigns as
/// its [`Pace`] says, at once unless another is set.
///
/// ```
/// # use std::time::Duration;
/// use dps_emulator::{Behavior, Delivery, Fault, Outcome, RetryAfter};
/// // Throttles twice, then works on it for three polls, loses the connection on one of them, then refuses.
/// let behavior = Behavior::new()
///     .on_register(Fault::refuse(429).retry_after(RetryAfter::Seconds(1)).times(2))
///     .polls(3)
///     .on_query(Fault::none())
///     .on_query(Fault::deliver(Delivery::CloseBefore))
///     .outcome(Outcome::failed(400_207, "Custom allocation failed"));
/// # assert_ne!(behavior, Behavior::new());
/// ```
///
/// Faults are taken from the script in order, one for each request that passed the check of its credential.
/// Each device has its own place in the script, which a new registration does not reset.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behavior {
    /// What is not set follows the pace of the emulator.
    pub(crate) polls: Option<u32>,
    pub(crate) retry_after: Option<RetryAfter>,
    pub(crate) outcome: Outcome,
    pub(crate) register: Vec<Fault>,
    pub(crate) query: Vec<Fault>,
}

impl Behavior {
    /// A service in good health.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many polls it takes: 0 ends the registration with its first answer, N with the Nth poll. [`u32::MAX`]
    /// never ends it. Without it, the [`Pace`] of the emulator counts.
    pub fn polls(mut self, polls: u32) -> Self {
        self.polls = Some(polls);
        self
    }

    /// Sets the retry-after of every answer that says `assigning`. Without it, the [`Pace`] of the emulator counts.
    pub fn retry_after(mut self, retry_after: RetryAfter) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    pub(crate) fn polls_at(&self, pace: Pace) -> u32 {
        self.polls.unwrap_or(match pace {
            Pace::Fast => 0,
            Pace::Service => 1,
        })
    }

    pub(crate) fn retry_after_at(&self, pace: Pace) -> RetryAfter {
        self.retry_after.clone().unwrap_or(match pace {
            Pace::Fast => RetryAfter::Absent,
            Pace::Service => RetryAfter::Seconds(3),
        })
    }

    /// Sets how the registration ends; the device is assigned by default.
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// Adds to what goes wrong with registrations.
    pub fn on_register(mut self, fault: Fault) -> Self {
        self.register.push(fault);
        self
    }

    /// Adds to what goes wrong with status queries.
    pub fn on_query(mut self, fault: Fault) -> Self {
        self.query.push(fault);
        self
    }
}

/// How long the service takes to assign a device whose [`Behavior`] does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pace {
    /// The device is assigned by the first answer.
    #[default]
    Fast,
    /// As public transcripts of the real service have it: the first answer is 202 `assigning` with a retry-after of 3
    /// seconds, and the device is assigned by the first query.
    Service,
}

/// How a registration ends.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// Status `assigned`.
    #[default]
    Assigned,
    /// Status `disabled`.
    Disabled,
    /// Any other status word, with the state of an assigned device beside it.
    Status(String),
    /// Status `failed`, with the service's code and message.
    #[serde(untagged)]
    Failed {
        /// For example 400207.
        error_code: u32,
        /// The message beside it.
        #[serde(default)]
        message: String,
    },
}

impl Outcome {
    /// Status `failed`, with the service's code and message.
    pub fn failed(error_code: u32, message: impl Into<String>) -> Self {
        Self::Failed { error_code, message: message.into() }
    }

    /// Any other status word.
    pub fn status(word: impl Into<String>) -> Self {
        Self::Status(word.into())
    }
}

/// What an answer says of when to come back.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RetryAfter {
    /// Nothing.
    #[default]
    #[serde(skip)]
    Absent,
    /// An HTTP date, this many seconds after the answer.
    DateIn(u64),
    /// Whole seconds.
    #[serde(untagged)]
    Seconds(u64),
    /// These very values, each on its own: junk, negative, too large, two at once.
    #[serde(untagged)]
    Raw(#[serde(deserialize_with = "one_or_more")] Vec<String>),
}

/// A text, or a list of texts.
fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        More(Vec<String>),
    }
    Ok(match Texts::deserialize(from)? {
        Texts::One(text) => vec![text],
        Texts::More(texts) => texts,
    })
}

impl RetryAfter {
    /// One value exactly as given.
    pub fn raw(value: impl Into<String>) -> Self {
        Self::Raw(vec![value.into()])
    }
}

/// What goes wrong with a connection whoever its peer is. Taken from the emulator's script, in order, one
/// for each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ConnectionFault {
    /// Nothing: lets a connection through, so that a later one meets the next fault.
    Pass,
    /// Closes as soon as it is accepted.
    CloseOnAccept,
    /// Accepts and never begins TLS.
    HangOnAccept,
    /// Answers the TLS hello with bytes that are not TLS.
    GarbageForTls,
    /// Closes once TLS is up.
    CloseAfterTls,
    /// Takes whatever comes once TLS is up, and never answers.
    HangAfterTls,
    /// Something of AMQP's own.
    Amqp(AmqpFault),
    /// Something of MQTT's own.
    Mqtt(MqttFault),
}
