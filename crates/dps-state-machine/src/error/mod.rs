//! Errors by whose fault they are, with what to do next. The same fault gives the same error on every transport.

mod configuration;
mod connection;
mod credential;
#[cfg(feature = "std")]
mod hide;
mod hint;
mod kind;
mod protocol;
mod rejection;
mod stage;
mod timeout;

use alloc::{
    boxed::Box,
    string::{String, ToString},
};
use core::time::Duration;

pub use configuration::ConfigurationError;
pub use connection::ConnectionError;
pub use credential::CredentialError;
pub use kind::ErrorKind;
pub use protocol::ProtocolError;
pub use rejection::{RejectionCause, RejectionError};
pub use stage::Stage;
pub use timeout::{TimeoutError, TimeoutScope};

use crate::printable::Printable;

/// Why a registration or the end of a session failed.
///
/// As a text it is one line, whatever the peer wrote: of each text of the peer's it shows at most
/// [`Printable::BRIEF`] characters, and escapes for what is not fit to print. The fields have all of it as it came, but
/// for the secrets that the client itself has signed with or sent: `***` stands in their place.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something the caller gave can't be used. Nothing was sent.
    #[error(transparent)]
    Configuration(Box<ConfigurationError>),
    /// What signs for the device failed, for example a TPM. Nothing was sent that it would have signed.
    #[error(transparent)]
    Credential(Box<CredentialError>),
    /// The service answered, and the answer is no.
    #[error(transparent)]
    Rejected(Box<RejectionError>),
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

impl Error {
    /// Which kind of fault it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Configuration(_) => ErrorKind::Configuration,
            Self::Credential(_) => ErrorKind::Credential,
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
            Self::Credential(_) => Some(Stage::Sign),
            Self::Rejected(e) => Some(e.stage),
            Self::Protocol(e) => Some(e.stage),
            Self::Connection(e) => Some(e.stage),
            Self::Timeout(e) => Some(e.stage),
            Self::Configuration(_) | Self::Cancelled | Self::InvalidOperation => None,
        }
    }

    /// Whether the same registration can succeed if it is tried again later. What the caller itself did is not:
    /// neither [`Error::Cancelled`], so that a loop does not undo a shutdown, nor [`Error::InvalidOperation`].
    ///
    /// A loop waits before each try for [`retry_after`](Self::retry_after). Where that is `None` it waits for a time
    /// of its own: some seconds at first, twice as long after each failure up to some minutes, and a random share of
    /// it more, so that a fleet that lost its network does not come back all at once.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Configuration(e) => e.retryable,
            Self::Credential(e) => e.retryable,
            Self::Rejected(e) => e.retryable,
            Self::Connection(e) => e.retryable,
            Self::Timeout(_) => true,
            Self::Protocol(_) | Self::Cancelled | Self::InvalidOperation => false,
        }
    }

    /// How long to wait at least before trying again: what the service asked for, or, when a wait of the machine's
    /// own would have passed the deadline, that wait. `None` says nothing of when to try again; what a caller does
    /// then, see [`is_retryable`](Self::is_retryable).
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
        hint::of(self).map(|hint| Printable::brief(&hint).to_string())
    }
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
    Credential(CredentialError),
    Rejected(RejectionError),
    Protocol(ProtocolError),
    Connection(ConnectionError),
    Timeout(TimeoutError),
);
