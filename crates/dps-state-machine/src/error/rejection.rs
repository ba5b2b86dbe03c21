//! A refusal of the service.

use alloc::{string::String, vec::Vec};
use core::{fmt, time::Duration};

use super::Stage;
use crate::{answer::is_transient, printable::Printable, response::ProtocolResult};

/// The service's refusal.
#[derive(Clone)]
#[non_exhaustive]
pub struct RejectionError {
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
    /// How long the service asked to wait before trying again; where the machine would have tried again by itself
    /// and its wait would have passed the deadline, that wait, which is longer when the service asked for less than
    /// [`Settings::poll_floor`](crate::Settings::poll_floor) or for nothing.
    pub retry_after: Option<Duration>,
    /// What to do about it, where the transport knows more than the status says.
    pub hint: Option<String>,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// The answer's body as it came.
    pub body: Vec<u8>,
    /// The result metadata.
    pub protocol_result: ProtocolResult,
}

impl RejectionError {
    /// A refusal of the registration with a status, retryable as the machine judges it, and the service's message: for
    /// an application's own tests. The other fields can be set.
    ///
    /// ```
    /// use dps_client::{Error, RejectionError};
    /// let mut rejection = RejectionError::new(429, "Throttled");
    /// rejection.error_code = Some(429_001);
    /// let error = Error::from(rejection);
    /// assert!(error.is_retryable());
    /// assert_eq!(error.to_string(), "the service refused the registration: Throttled (error code 429001)");
    /// ```
    #[must_use]
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            stage: if status == 401 { Stage::Authenticate } else { Stage::Register },
            cause: RejectionCause::Refused,
            status,
            error_code: None,
            tracking_id: None,
            message: message.into(),
            timestamp: None,
            retry_after: None,
            hint: None,
            retryable: is_transient(status, None),
            body: Vec::new(),
            protocol_result: ProtocolResult::default(),
        }
    }
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

impl fmt::Debug for RejectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RejectionError")
            .field("stage", &self.stage)
            .field("cause", &self.cause)
            .field("status", &self.status)
            .field("error_code", &self.error_code)
            .field("tracking_id", &self.tracking_id.as_ref().map(Printable::brief))
            .field("message", &Printable::brief(&self.message))
            .field("timestamp", &self.timestamp.as_ref().map(Printable::brief))
            .field("retry_after", &self.retry_after)
            .field("hint", &self.hint.as_ref().map(Printable::brief))
            .field("retryable", &self.retryable)
            .field("body", &Printable::brief(&self.body))
            .field("protocol_result", &self.protocol_result)
            .finish()
    }
}

impl fmt::Display for RejectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.cause {
            RejectionCause::Failed => "the registration failed",
            RejectionCause::Disabled => "the registration is disabled",
            RejectionCause::Refused if self.stage == Stage::Authenticate => {
                "the service refused the credential"
            }
            RejectionCause::Refused => "the service refused the registration",
        };
        write!(f, "{what}: {}", Printable::brief(&self.message))?;
        match self.error_code {
            Some(code) => write!(f, " (error code {code}")?,
            None => write!(f, " (status {}", self.status)?,
        }
        if let Some(id) = &self.tracking_id {
            write!(f, ", tracking id {}", Printable::brief(id))?;
        }
        f.write_str(")")
    }
}

impl core::error::Error for RejectionError {}
