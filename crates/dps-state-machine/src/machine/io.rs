//! What goes into the machine and what comes out.

use alloc::boxed::Box;
use core::time::Duration;

use crate::{
    error::Error,
    ids::OperationId,
    progress::Next,
    registration_result::{OperationStatus, RegistrationResult},
    response::Response,
};

/// Tells one exchange with the transport from another, so that a late answer is known as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExchangeId(u64);

impl ExchangeId {
    pub(super) const FIRST: Self = Self(1);

    pub(super) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// One call to the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Exchange {
    /// Which exchange this is.
    pub id: ExchangeId,
    /// When its time is up, since the origin.
    pub until: Duration,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// Somebody wants to register.
    Register,
    /// The transport is done with a request.
    Answer(ExchangeId, Result<Response, Error>),
    /// Time has passed: send this when the `until` of the last request or wait is reached. Earlier does no harm.
    Tick,
    /// Somebody cancels the registration and keeps the session.
    Cancel,
    /// Somebody ends the session.
    EndSession,
    /// The transport is done with its end of the session.
    SessionEnded(ExchangeId, Result<(), Error>),
    /// Whoever drove the registration or the end of the session is gone.
    Abandon,
}

/// What to do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Output {
    /// Call the transport's `registration_request`; report [`Input::Answer`], or [`Input::Tick`] when its time is up.
    RegistrationRequest(Exchange),
    /// Call the transport's `query_operation_status`; report as above.
    QueryOperationStatus {
        /// The call.
        exchange: Exchange,
        /// What to ask about.
        operation_id: OperationId,
    },
    /// Report [`Input::Tick`] at `until`.
    Wait {
        /// When the wait is over, since the origin.
        until: Duration,
        /// What comes then.
        then: Next,
    },
    /// Call the transport's `end_session`; report [`Input::SessionEnded`], or [`Input::Tick`] when its time is up.
    EndSession(Exchange),
    /// Drop the call to the transport that is under way; its answer would be ignored.
    Drop(ExchangeId),
    /// An `operationStatus` event.
    Emit(OperationStatus),
    /// The outcome of the registration: exactly one each.
    Complete(Result<Box<RegistrationResult>, Error>),
    /// The session has ended, for all who asked for it.
    Ended(Result<(), Error>),
    /// The one who asked to register may not; the registration under way is untouched.
    Refuse(Error),
    /// A session is being ended: register again when it has ended, by `until` at the latest.
    NotYet {
        /// When the end of the session has ended or has been given up, since the origin.
        until: Duration,
    },
}
