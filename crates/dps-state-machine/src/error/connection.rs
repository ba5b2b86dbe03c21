//! Connections that can't be made or that break.

use alloc::{format, string::String, sync::Arc};
use core::fmt;

use super::Stage;
use crate::printable::Printable;

/// A connection that could not be made or that broke.
#[derive(Clone)]
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

impl fmt::Debug for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.as_ref().map(|source| format!("{source:?}"));
        f.debug_struct("ConnectionError")
            .field("stage", &self.stage)
            .field("message", &Printable::brief(&self.message))
            .field("hint", &self.hint.as_ref().map(Printable::brief))
            .field("retryable", &self.retryable)
            .field("lost", &self.lost)
            .field("request_may_have_been_sent", &self.request_may_have_been_sent)
            .field("source", &source.as_ref().map(Printable::brief))
            .finish()
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable::brief(&self.message).fmt(f)
    }
}

impl core::error::Error for ConnectionError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
