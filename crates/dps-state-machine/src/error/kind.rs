//! The kinds of errors, one word each.

use core::fmt;

/// The kind of an [`Error`](crate::Error), one word each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// See [`crate::Error::Configuration`].
    Configuration,
    /// See [`crate::Error::Credential`].
    Credential,
    /// See [`crate::Error::Rejected`].
    Rejected,
    /// See [`crate::Error::Protocol`].
    Protocol,
    /// See [`crate::Error::Connection`].
    Connection,
    /// See [`crate::Error::Timeout`].
    Timeout,
    /// See [`crate::Error::Cancelled`].
    Cancelled,
    /// See [`crate::Error::InvalidOperation`].
    InvalidOperation,
}

impl ErrorKind {
    /// The kind as the word used in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Credential => "credential",
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
