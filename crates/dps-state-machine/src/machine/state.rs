//! The states of the machine.

use core::time::Duration;

use super::io::ExchangeId;
use crate::ids::OperationId;

/// Where a [`Machine`](super::Machine) stands. All times count from the driver's origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// No session.
    Disconnected,
    /// A session and no registration.
    Idle,
    /// The registration is out.
    Registering {
        /// The registration.
        registration: Registration,
        /// The call to the transport.
        exchange: ExchangeId,
        /// When the request times out.
        until: Duration,
    },
    /// The service refused for the moment; the registration goes out again later.
    WaitingToRegister {
        /// The registration.
        registration: Registration,
        /// When it goes out.
        until: Duration,
    },
    /// The service is assigning; its status is asked for later.
    WaitingToPoll {
        /// The registration.
        registration: Registration,
        /// What to ask about.
        operation_id: OperationId,
        /// When to ask.
        until: Duration,
    },
    /// The question for the status is out.
    Polling {
        /// The registration.
        registration: Registration,
        /// What was asked about.
        operation_id: OperationId,
        /// The call to the transport.
        exchange: ExchangeId,
        /// When the request times out.
        until: Duration,
    },
    /// The end of the session is out.
    EndingSession {
        /// The call to the transport.
        exchange: ExchangeId,
        /// When it is given up.
        until: Duration,
    },
}

/// One registration on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Registration {
    /// When its time is up.
    pub deadline: Duration,
    /// How many times the status was asked for.
    pub polls: u32,
    /// How many refusals in a row named no time to wait.
    pub(super) backoffs: u32,
}

impl Registration {
    pub(super) fn backed_off(self, asked: Option<Duration>) -> Self {
        let backoffs =
            if asked.is_none() { self.backoffs.saturating_add(1) } else { self.backoffs };
        Self { backoffs, ..self }
    }
}

impl State {
    /// When time alone changes this state.
    #[must_use]
    pub fn until(&self) -> Option<Duration> {
        match self {
            Self::Disconnected | Self::Idle => None,
            Self::Registering { until, .. }
            | Self::WaitingToRegister { until, .. }
            | Self::WaitingToPoll { until, .. }
            | Self::Polling { until, .. }
            | Self::EndingSession { until, .. } => Some(*until),
        }
    }

    /// The call to the transport that is under way.
    #[must_use]
    pub fn exchange(&self) -> Option<ExchangeId> {
        match self {
            Self::Registering { exchange, .. }
            | Self::Polling { exchange, .. }
            | Self::EndingSession { exchange, .. } => Some(*exchange),
            _ => None,
        }
    }

    /// The state's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disconnected => "Disconnected",
            Self::Idle => "Idle",
            Self::Registering { .. } => "Registering",
            Self::WaitingToRegister { .. } => "WaitingToRegister",
            Self::WaitingToPoll { .. } => "WaitingToPoll",
            Self::Polling { .. } => "Polling",
            Self::EndingSession { .. } => "EndingSession",
        }
    }
}
