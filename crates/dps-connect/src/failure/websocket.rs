//! What a WebSocket says inside of an [`io::Error`]: see [`find`](super::find).

use std::{error::Error as StdError, fmt, io};

/// The peer closed the WebSocket and said why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed(String);

impl Closed {
    /// What it said, for example `1008 (too many devices)`.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebSocket close {}", self.0)
    }
}

impl StdError for Closed {}

impl From<Closed> for io::Error {
    fn from(closed: Closed) -> Self {
        Self::new(io::ErrorKind::UnexpectedEof, closed)
    }
}

/// The peer broke the rules of WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(String);

impl Violation {
    /// In words: what it is that can't be.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it breaks the rules of WebSocket: {}", self.0)
    }
}

impl StdError for Violation {}

impl From<Violation> for io::Error {
    fn from(violation: Violation) -> Self {
        Self::new(io::ErrorKind::InvalidData, violation)
    }
}
