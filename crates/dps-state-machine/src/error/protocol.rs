//! The service's nonsense.

use alloc::{string::String, vec::Vec};
use core::fmt;

use super::Stage;
use crate::{printable::Printable, response::ProtocolResult};

/// An answer that makes no sense. What came is kept.
#[derive(Clone)]
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
    /// The result metadata.
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

impl fmt::Debug for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProtocolError")
            .field("stage", &self.stage)
            .field("reason", &Printable::brief(&self.reason))
            .field("status", &self.status)
            .field("unknown_status", &self.unknown_status.as_ref().map(Printable::brief))
            .field("body", &Printable::brief(&self.body))
            .field("protocol_result", &self.protocol_result)
            .finish()
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service's answer makes no sense: {}", Printable::brief(&self.reason))
    }
}

impl core::error::Error for ProtocolError {}
