//! What goes wrong with a request, and with the delivery of its answer.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use super::RetryAfter;

/// What goes wrong with one request, or with several in a row. All its parts combine.
///
/// A fault that refuses, or that never answers or closes instead of answering, takes the request's place: the
/// service did not see it, and it counts as no poll. All others change the answer of a request that was served.
#[must_use]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fault {
    pub(crate) times: Times,
    pub(crate) refuse: Option<Refusal>,
    pub(crate) status: Option<u16>,
    pub(crate) edits: Vec<(String, Option<Value>)>,
    pub(crate) body: Option<Body>,
    pub(crate) content_type: Option<String>,
    pub(crate) retry_after: Option<RetryAfter>,
    pub(crate) delivery: Delivery,
    pub(crate) wrong_id: bool,
    pub(crate) twice: bool,
}

/// For how many requests a fault holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Times {
    Forever,
    #[serde(untagged)]
    Count(u32),
}

impl Default for Times {
    fn default() -> Self {
        Self::Count(1)
    }
}

/// A refusal of the service, in place of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) error_code: u32,
    pub(crate) message: String,
}

impl Fault {
    /// Nothing goes wrong: lets a request through, so that a later one meets the next fault.
    pub fn none() -> Self {
        Self::default()
    }

    /// Refuses with an HTTP-like status and the service's usual code and message for it.
    pub fn refuse(status: u16) -> Self {
        let (error_code, message) = usual_error(status);
        Self::refuse_with(status, error_code, message)
    }

    /// Refuses with the service's code and message; the status is the code divided by 1000.
    pub fn error(error_code: u32, message: impl Into<String>) -> Self {
        Self::refuse_with(u16::try_from(error_code / 1000).unwrap_or(500), error_code, message)
    }

    fn refuse_with(status: u16, error_code: u32, message: impl Into<String>) -> Self {
        let refusal = Refusal { status, error_code, message: message.into() };
        Self { refuse: Some(refusal), ..Self::none() }
    }

    /// Answers as usual, but delivers the answer in another manner.
    pub fn deliver(delivery: Delivery) -> Self {
        Self::none().delivery(delivery)
    }

    /// Answers as usual, but with another body.
    pub fn with_body(body: Body) -> Self {
        Self::none().body(body)
    }

    /// Answers as usual, but without a field, named by its path: `operationId`,
    /// `registrationState.assignedHub`.
    pub fn without(path: impl Into<String>) -> Self {
        Self::none().and_without(path)
    }

    /// Answers as usual, but with this value at this path.
    pub fn with(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::none().and_with(path, value)
    }

    /// Holds for this many requests in a row.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Times::Count(times);
        self
    }

    /// Holds for every request from here on.
    pub fn forever(mut self) -> Self {
        self.times = Times::Forever;
        self
    }

    /// Replaces the answer's status as HTTP counts it.
    pub fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Removes a field from the answer's body.
    pub fn and_without(mut self, path: impl Into<String>) -> Self {
        self.edits.push((path.into(), None));
        self
    }

    /// Sets a field of the answer's body.
    pub fn and_with(mut self, path: impl Into<String>, value: impl Into<Value>) -> Self {
        self.edits.push((path.into(), Some(value.into())));
        self
    }

    /// Replaces the answer's body.
    pub fn body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }

    /// Replaces the answer's content type.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Replaces the answer's retry-after.
    pub fn retry_after(mut self, retry_after: RetryAfter) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Answers with the id of another request: the correlation id over AMQP, `$rid` over MQTT. HTTP has none.
    pub fn wrong_id(mut self) -> Self {
        self.wrong_id = true;
        self
    }

    /// Answers twice, where the transport allows it: over AMQP and MQTT, not over HTTP.
    pub fn twice(mut self) -> Self {
        self.twice = true;
        self
    }

    /// Sets how the answer is delivered.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        self.delivery = delivery;
        self
    }
}

/// A body in place of the service's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Body {
    /// No bytes at all.
    Empty,
    /// Bytes that are no JSON and no UTF-8.
    Garbage,
    /// A proxy's page: HTML, with its content type.
    Html,
    /// This text.
    Text(String),
    /// The first bytes of the service's own body, sent as if they were all of it.
    Cut(usize),
    /// The service's own body, blown up to this many bytes, at most [`Body::MAX_OVERSIZED`]; still right
    /// otherwise.
    Oversized(#[serde(deserialize_with = "at_most_64_mib")] usize),
}

impl Body {
    /// The largest body that [`Body::Oversized`] makes, in bytes (64 MiB).
    pub const MAX_OVERSIZED: usize = 64 * 1024 * 1024;
}

fn at_most_64_mib<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let bytes = usize::deserialize(from)?;
    match bytes <= Body::MAX_OVERSIZED {
        true => Ok(bytes),
        false => Err(D::Error::custom("it must be 67108864 at most")),
    }
}

/// How an answer is delivered. Each transport carries it out in its own manner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Delivery {
    /// Whole and at once.
    #[default]
    Whole,
    /// Never; the connection stays open until the peer closes it.
    Never,
    /// Not at all: the connection closes.
    CloseBefore,
    /// A part: the frame says how long it is, this many bytes of the body go out, the connection closes.
    CloseMid(usize),
    /// Whole, and then the connection closes without a word.
    CloseAfter,
    /// A few bytes at a time.
    Drip {
        /// How many at a time; at least 1.
        bytes: usize,
        /// How long between two times.
        #[serde(
            rename = "everyMs",
            serialize_with = "as_millis",
            deserialize_with = "from_millis"
        )]
        every: Duration,
    },
}

impl Delivery {
    /// How many bytes go out at a time, and how long between two times; `None` for all at once.
    pub(crate) fn pace(self) -> Option<(usize, Duration)> {
        match self {
            Self::Drip { bytes, every } => Some((bytes, every)),
            _ => None,
        }
    }
}

fn as_millis<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

fn from_millis<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}

fn usual_error(status: u16) -> (u32, &'static str) {
    match status {
        400 => (400_000, "Bad request"),
        401 => (401_002, "Unauthorized"),
        403 => (403_000, "Forbidden"),
        404 => (404_201, "Registration not found"),
        409 => (409_203, "Another operation is in progress for this registration"),
        429 => (429_001, "Too many requests"),
        503 => (503_000, "Service unavailable"),
        504 => (504_000, "Gateway timeout"),
        _ if status >= 500 => (500_000, "Internal server error"),
        _ => (u32::from(status) * 1000, "Refused"),
    }
}
