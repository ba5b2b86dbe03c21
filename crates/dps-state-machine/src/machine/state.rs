//! The states of the machine.

use core::time::Duration;

use super::io::{Exchange, ExchangeId};
use crate::{error::Stage, ids::OperationId};

/// Where a [`Machine`](super::Machine) stands. All times count from the driver's origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// No session.
    Disconnected,
    /// A session and no registration.
    Idle,
    /// A session and a registration that has no outcome yet.
    Registering(Registration),
    /// The transport ends the session.
    EndingSession(Exchange),
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
    pub backoffs: u32,
    /// The service's handle, once it has given one: from then on the status is asked for, before it the registration is
    /// sent.
    pub operation: Option<OperationId>,
    /// Whether a request is out or the next one is waited for.
    pub phase: Phase,
}

/// What a [`Registration`] does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// A request is out.
    Asking(Exchange),
    /// The next request is not due yet.
    Waiting {
        /// When it goes out.
        until: Duration,
    },
}

impl Registration {
    pub(super) fn new(now: Duration, deadline: Duration) -> Self {
        let phase = Phase::Waiting { until: now };
        Self { deadline, polls: 0, backoffs: 0, operation: None, phase }
    }

    /// The time that is left when a wait is over; zero when the wait reaches the deadline.
    pub(super) fn left_after(&self, now: Duration, wait: Duration) -> Duration {
        self.deadline.saturating_sub(now.saturating_add(wait))
    }

    /// The stage of the request that is out or comes next: [`Stage::Register`] or [`Stage::Query`].
    #[must_use]
    pub fn stage(&self) -> Stage {
        if self.operation.is_none() { Stage::Register } else { Stage::Query }
    }
}

impl State {
    /// When time alone changes this state.
    #[must_use]
    pub fn until(&self) -> Option<Duration> {
        match self {
            Self::Disconnected | Self::Idle => None,
            Self::Registering(Registration { phase: Phase::Waiting { until }, .. }) => Some(*until),
            Self::Registering(Registration { phase: Phase::Asking(exchange), .. })
            | Self::EndingSession(exchange) => Some(exchange.until),
        }
    }

    /// The call to the transport that is under way.
    #[must_use]
    pub fn exchange(&self) -> Option<ExchangeId> {
        match self {
            Self::Registering(Registration { phase: Phase::Asking(exchange), .. })
            | Self::EndingSession(exchange) => Some(exchange.id),
            _ => None,
        }
    }

    /// The state's name; a registration has four, by what it asks or waits for.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Disconnected => "Disconnected",
            Self::Idle => "Idle",
            Self::Registering(Registration { operation, phase, .. }) => match (operation, phase) {
                (None, Phase::Asking(_)) => "Registering",
                (None, Phase::Waiting { .. }) => "WaitingToRegister",
                (Some(_), Phase::Asking(_)) => "Polling",
                (Some(_), Phase::Waiting { .. }) => "WaitingToPoll",
            },
            Self::EndingSession(_) => "EndingSession",
        }
    }
}
