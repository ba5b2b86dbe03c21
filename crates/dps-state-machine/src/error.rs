//! Errors by whose fault they are, with what to do next. The same fault gives the same error on every wire.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{fmt, time::Duration};

use crate::response::ProtocolResult;

/// Why a registration or the end of a session failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something the caller gave can't be used. Nothing was sent.
    #[error(transparent)]
    Configuration(Box<ConfigurationError>),
    /// The service answered, and the answer is no.
    #[error(transparent)]
    Rejected(Box<Rejection>),
    /// The service answered, and the answer makes no sense.
    #[error(transparent)]
    Protocol(Box<ProtocolError>),
    /// No connection could be made, or it broke.
    #[error(transparent)]
    Connection(Box<ConnectionError>),
    /// The time for one request or for the whole registration ran out.
    #[error(transparent)]
    Timeout(Box<TimeoutError>),
    /// The registration was cancelled: by `cancel`, or because the session was ended.
    #[error("the registration was cancelled")]
    Cancelled,
    /// `register` was called while another registration was in progress; that one goes on.
    #[error("a registration is in progress already; wait for it, cancel it or end the session")]
    InvalidOperation,
}

/// The kind of an [`Error`], one word each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// See [`Error::Configuration`].
    Configuration,
    /// See [`Error::Rejected`].
    Rejected,
    /// See [`Error::Protocol`].
    Protocol,
    /// See [`Error::Connection`].
    Connection,
    /// See [`Error::Timeout`].
    Timeout,
    /// See [`Error::Cancelled`].
    Cancelled,
    /// See [`Error::InvalidOperation`].
    InvalidOperation,
}

impl ErrorKind {
    /// The kind as the word used in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Rejected => "rejected",
            Self::Protocol => "protocol",
            Self::Connection => "connection",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::InvalidOperation => "invalid-operation",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a registration had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Looking up the address of the host.
    Resolve,
    /// Opening the TCP connection.
    Connect,
    /// Asking the proxy for a tunnel.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The WebSocket upgrade.
    Websocket,
    /// The service's check of the credential.
    Authenticate,
    /// Sending the registration and waiting for its answer.
    Register,
    /// Asking for the operation's status, and waiting between two questions.
    Query,
    /// Ending the session.
    EndSession,
}

impl Stage {
    /// The stage as the word used in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Websocket => "websocket",
            Self::Authenticate => "authenticate",
            Self::Register => "register",
            Self::Query => "query",
            Self::EndSession => "end-session",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value that can't be used: which one, what it was, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigurationError {
    /// What the value is for, for example `registration id`.
    pub field: &'static str,
    /// The value as given; empty when it is a secret or there was none.
    pub value: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl ConfigurationError {
    /// Names the field, the value (pass `""` for a secret) and what to do.
    #[must_use]
    pub fn new(field: &'static str, value: impl Into<String>, reason: &str) -> Self {
        Self { field, value: value.into(), reason: reason.to_string() }
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, reason } = self;
        if value.is_empty() {
            write!(f, "{field}: {reason}")
        } else {
            write!(f, "{field} {value:?}: {reason}")
        }
    }
}

impl core::error::Error for ConfigurationError {}

/// The service's refusal.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rejection {
    /// `authenticate` when the credential was refused, otherwise which request it answers.
    pub stage: Stage,
    /// Whether the request was refused or the registration itself ended in a status that is no success.
    pub cause: RejectionCause,
    /// The answer's status as HTTP counts it: the HTTP status itself, the status in an MQTT topic, an AMQP
    /// error code divided by 1000.
    pub status: u16,
    /// The service's own code, for example 401002.
    pub error_code: Option<u32>,
    /// The service's id for this answer; its support asks for it.
    pub tracking_id: Option<String>,
    /// The service's message, or what is known when it sent none.
    pub message: String,
    /// When the service says that it answered.
    pub timestamp: Option<String>,
    /// How long the service asked to wait before trying again.
    pub retry_after: Option<Duration>,
    /// What to do about it, where the wire knows more than the status says.
    pub hint: Option<String>,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// The answer's body as it came.
    pub body: Vec<u8>,
    /// What came beside the body.
    pub protocol_result: ProtocolResult,
}

/// What kind of no the service said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionCause {
    /// The request was answered with an error.
    Refused,
    /// The registration ended with the status `failed`.
    Failed,
    /// The registration ended with the status `disabled`.
    Disabled,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.cause {
            RejectionCause::Failed => "the registration failed",
            RejectionCause::Disabled => "the registration is disabled",
            RejectionCause::Refused if self.stage == Stage::Authenticate => {
                "the service refused the credential"
            }
            RejectionCause::Refused => "the service refused the registration",
        };
        write!(f, "{what}: {}", self.message)?;
        match self.error_code {
            Some(code) => write!(f, " (error code {code}")?,
            None => write!(f, " (status {}", self.status)?,
        }
        if let Some(id) = &self.tracking_id {
            write!(f, ", tracking id {id}")?;
        }
        f.write_str(")")
    }
}

impl core::error::Error for Rejection {}

/// An answer that makes no sense. What came is kept.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProtocolError {
    /// Which request it answers.
    pub stage: Stage,
    /// What is wrong with the answer.
    pub reason: String,
    /// The answer's status as HTTP counts it, when it had one.
    pub status: Option<u16>,
    /// The status word nobody knows, when that is what is wrong.
    pub unknown_status: Option<String>,
    /// The answer's body as it came; empty when none could be read.
    pub body: Vec<u8>,
    /// What came beside the body.
    pub protocol_result: ProtocolResult,
}

impl ProtocolError {
    /// An answer that could not even be read: no body is kept.
    #[must_use]
    pub fn unreadable(stage: Stage, reason: impl Into<String>) -> Self {
        Self {
            stage,
            reason: reason.into(),
            status: None,
            unknown_status: None,
            body: Vec::new(),
            protocol_result: ProtocolResult::default(),
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service's answer makes no sense: {}", self.reason)
    }
}

impl core::error::Error for ProtocolError {}

/// A connection that could not be made or that broke.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionError {
    /// Where it broke.
    pub stage: Stage,
    /// What happened, with the peer's name, for example `dps.example:443 refused the connection`.
    pub message: String,
    /// What to do about it, where more is known than the message says.
    pub hint: Option<String>,
    /// Whether trying again can help: false for what only a change of settings or certificates mends.
    pub retryable: bool,
    /// An established connection broke. While an operation is pending the machine asks again on a new
    /// connection after the polling interval; a connection that could not be made fails at once.
    pub lost: bool,
    /// Whether the service may have received the request.
    pub request_may_have_been_sent: bool,
    /// The error below, for logs.
    pub source: Option<Arc<dyn core::error::Error + Send + Sync>>,
}

impl ConnectionError {
    /// A connection that could not be made: retryable, nothing sent.
    #[must_use]
    pub fn new(stage: Stage, message: impl Into<String>) -> Self {
        Self {
            stage,
            message: message.into(),
            hint: None,
            retryable: true,
            lost: false,
            request_may_have_been_sent: false,
            source: None,
        }
    }

    /// An established connection that broke while a request was under way.
    #[must_use]
    pub fn lost(stage: Stage, message: impl Into<String>) -> Self {
        Self { lost: true, request_may_have_been_sent: true, ..Self::new(stage, message) }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Only a change of settings or certificates mends this.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.retryable = false;
        self
    }

    /// Keeps the error below.
    #[must_use]
    pub fn source(mut self, source: impl core::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for ConnectionError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Time ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutError {
    /// What was under way.
    pub stage: Stage,
    /// Whose time it was.
    pub scope: TimeoutScope,
    /// The bound that was reached.
    pub after: Duration,
    /// When the service would have been ready to be asked again, if that is what passed the bound.
    pub retry_after: Option<Duration>,
}

impl TimeoutError {
    pub(crate) fn new(stage: Stage, scope: TimeoutScope, after: Duration) -> Self {
        Self { stage, scope, after, retry_after: None }
    }
}

/// Whose time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutScope {
    /// The time for one request.
    Request,
    /// The time for the whole registration.
    Registration,
    /// The time for the goodbye.
    EndSession,
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Seconds(self.after);
        match (self.scope, self.retry_after) {
            (TimeoutScope::Request, _) if self.stage >= Stage::Register => {
                write!(f, "no answer to the {} request within {seconds} s", self.stage)
            }
            (TimeoutScope::Request, _) => {
                write!(
                    f,
                    "no connection within {seconds} s: nothing came back at the stage {}",
                    self.stage
                )
            }
            (TimeoutScope::EndSession, _) => {
                write!(f, "the session did not end within {seconds} s; the connection was dropped")
            }
            (TimeoutScope::Registration, Some(wait)) => write!(
                f,
                "still assigning: the service asked to wait {} s more, past the {seconds} s for the whole registration",
                Seconds(wait)
            ),
            (TimeoutScope::Registration, None) => write!(
                f,
                "the registration did not finish within {seconds} s (stage {})",
                self.stage
            ),
        }
    }
}

impl core::error::Error for TimeoutError {}

/// A time in seconds, to the millisecond.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        match self.0.subsec_millis() {
            0 => write!(f, "{whole}"),
            millis => f.write_str(format!("{whole}.{millis:03}").trim_end_matches('0')),
        }
    }
}

impl Error {
    /// Which kind of fault it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Configuration(_) => ErrorKind::Configuration,
            Self::Rejected(_) => ErrorKind::Rejected,
            Self::Protocol(_) => ErrorKind::Protocol,
            Self::Connection(_) => ErrorKind::Connection,
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::InvalidOperation => ErrorKind::InvalidOperation,
        }
    }

    /// How far the registration had come; `None` when nothing was sent or the stage says nothing.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        match self {
            Self::Rejected(e) => Some(e.stage),
            Self::Protocol(e) => Some(e.stage),
            Self::Connection(e) => Some(e.stage),
            Self::Timeout(e) => Some(e.stage),
            Self::Configuration(_) | Self::Cancelled | Self::InvalidOperation => None,
        }
    }

    /// Whether the same registration can succeed if it is tried again later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Rejected(e) => e.retryable,
            Self::Connection(e) => e.retryable,
            Self::Timeout(_) | Self::Cancelled | Self::InvalidOperation => true,
            Self::Configuration(_) | Self::Protocol(_) => false,
        }
    }

    /// How long to wait before trying again, when the service said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rejected(e) => e.retry_after,
            Self::Timeout(e) => e.retry_after,
            _ => None,
        }
    }

    /// The answer's status as HTTP counts it.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Rejected(e) => Some(e.status),
            Self::Protocol(e) => e.status,
            _ => None,
        }
    }

    /// The service's own error code, for example 401002.
    #[must_use]
    pub fn error_code(&self) -> Option<u32> {
        match self {
            Self::Rejected(e) => e.error_code,
            _ => None,
        }
    }

    /// The service's id for its answer.
    #[must_use]
    pub fn tracking_id(&self) -> Option<&str> {
        match self {
            Self::Rejected(e) => e.tracking_id.as_deref(),
            _ => None,
        }
    }

    /// What to do next, in a sentence.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Rejected(e) => e.hint.clone().or_else(|| rejection_hint(e)),
            Self::Connection(e) => e.hint.clone(),
            Self::Timeout(e) => Some(match e.retry_after {
                Some(wait) => {
                    format!("register again after {} s, or allow more time", Seconds(wait))
                }
                None => "check the network path to the service, or allow more time".into(),
            }),
            Self::Protocol(_) => Some(
                "check that the endpoint is a provisioning service and not a proxy's page".into(),
            ),
            _ => None,
        }
    }
}

fn rejection_hint(rejection: &Rejection) -> Option<String> {
    if rejection.cause == RejectionCause::Disabled {
        return Some("enable the device's enrolment at the service".into());
    }
    let text = match (rejection.error_code, rejection.status) {
        (Some(409_203), _) => {
            "another registration of the same device is under way; wait and try again"
        }
        (Some(400_004), _) => "check the registration id's characters and case",
        (_, 401) => {
            "check the ID scope, the registration id and that the credential belongs to this enrolment"
        }
        (_, 404) => "check the ID scope and that an enrolment exists for this registration id",
        (_, 429) => "the service is throttling; spread the fleet's registrations over time",
        (_, 500..=599) => "the service is in trouble; try again later",
        _ => return None,
    };
    Some(text.into())
}

macro_rules! boxed_into_error {
    ($($variant:ident($inner:ty)),+ $(,)?) => {$(
        impl From<$inner> for Error {
            fn from(inner: $inner) -> Self {
                Self::$variant(Box::new(inner))
            }
        }
    )+};
}
boxed_into_error!(
    Configuration(ConfigurationError),
    Rejected(Rejection),
    Protocol(ProtocolError),
    Connection(ConnectionError),
    Timeout(TimeoutError),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_to_the_millisecond() {
        for (nanos, shown) in
            [(0, "0"), (2_000_000_000, "2"), (1_999_397_972, "1.999"), (500_000_000, "0.5")]
        {
            assert_eq!(Seconds(Duration::from_nanos(nanos)).to_string(), shown);
        }
    }
}
