//! The protocol as a pure machine: no socket, no clock, no runtime.
//!
//! Whoever drives it calls [`Machine::step`] with what happened and when, gets a list of [`Output`]s, carries them out in
//! order and reports back. Time is a duration since an origin that the driver picks.
//! [`StateMachine`](crate::StateMachine) is such a driver, on tokio.
//!
//! ```text
//!                    register               ┌ Registering ─────────────────────────┐
//!  Disconnected ───────────────────────────►│ no operation yet:  asking ⇄ waiting  │
//!       ▲                     register      │       │ the service gives its id     │
//!       │               ┌──────────────────►│       ▼                              │
//!       │             Idle ◄────────────────│ an operation:      asking ⇄ waiting  │
//!       │   end session │  outcome, cancel, └──────────────────────────────────────┘
//!       │               │  or time is up            │ end session (the outcome: cancelled)
//!       │               ▼                           │
//!       └──────── EndingSession ◄───────────────────┘
//!   ended, or         │
//!   time is up        └─► Idle, when whoever ended the session gave up half-way
//! ```
//!
//! Connected means: from the first registration request until an end of session has returned. So a session outlives a
//! registration, whatever its outcome. Every state with every event is a row of the table in `docs/state-machine.md`.
//!
//! One registration by hand, without a runtime:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! use dps_state_machine::{
//!     Response, Settings,
//!     machine::{Input, Machine, Output},
//! };
//!
//! let at = Duration::from_secs;
//! let mut machine = Machine::new(Settings::default(), 0);
//!
//! // Somebody registers: the request goes out, and has until 30 s for its answer.
//! let outputs = machine.step(at(0), Input::Register);
//! let [Output::RegistrationRequest(exchange)] = outputs[..] else { return Err("a request".into()) };
//! assert_eq!(exchange.until, at(30));
//!
//! // The service is at work, and asks to come back in 3 s.
//! let body = r#"{"operationId":"4.op","status":"assigning"}"#;
//! let answer = Response::new(202, body).retry_after(Some(at(3)));
//! let outputs = machine.step(at(1), Input::Answer(exchange.id, Ok(answer)));
//! let [Output::Emit(_), Output::Wait { until, .. }] = outputs[..] else { return Err("a wait".into()) };
//! assert_eq!(until, at(4), "when it was asked for");
//!
//! // The time has come: the status is asked for.
//! let outputs = machine.step(until, Input::Tick);
//! let [Output::QueryOperationStatus { exchange, .. }] = outputs[..] else { return Err("a poll".into()) };
//!
//! // The device has a hub.
//! let state = r#"{"assignedHub":"contoso.azure-devices.net","deviceId":"pump-17"}"#;
//! let body = format!(r#"{{"status":"assigned","registrationState":{state}}}"#);
//! let answer = Input::Answer(exchange.id, Ok(Response::new(200, body)));
//! let outputs = machine.step(until + at(1), answer);
//! let [Output::Emit(_), Output::Complete(Ok(device))] = &outputs[..] else { return Err("a result".into()) };
//! assert_eq!(device.assigned_hub, "contoso.azure-devices.net");
//! # Ok(())
//! # }
//! ```

mod backoff;
mod io;
mod state;

pub use io::{Exchange, ExchangeId, Input, Output};
pub use state::{Phase, Registration, State};

use alloc::{vec, vec::Vec};
use core::time::Duration;

use crate::{
    answer::{Verdict, judge},
    error::{Error, Stage, TimeoutError, TimeoutScope},
    progress::Next,
    registration_result::OperationStatus,
    response::Response,
    settings::Settings,
};
use backoff::Jitter;

/// One session with the provisioning service and at most one registration in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Machine {
    settings: Settings,
    state: State,
    next_exchange: ExchangeId,
    jitter: Jitter,
}

impl Machine {
    /// A disconnected machine. The seed decides the jitter: give each device another one.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            state: State::Disconnected,
            next_exchange: ExchangeId::FIRST,
            jitter: Jitter::new(settings.jitter_percent, seed),
        }
    }

    /// Where the machine stands.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes what happened at `now` and says what to do, in order.
    #[must_use]
    pub fn step(&mut self, now: Duration, input: Input) -> Vec<Output> {
        match input {
            Input::Register => self.register(now),
            // Too late: that exchange was cancelled or timed out.
            Input::Answer(exchange, _) | Input::SessionEnded(exchange, _)
                if self.state.exchange() != Some(exchange) =>
            {
                vec![]
            }
            Input::Answer(_, answer) => self.answer(now, answer),
            Input::Tick => self.tick(now),
            Input::Cancel if matches!(self.state, State::EndingSession(_)) => vec![],
            Input::EndSession => self.end_session(now),
            Input::SessionEnded(_, result) => self.session_ended(result),
            // An end of the session that was cut short leaves the machine connected, so that the next one reaches the
            // transport.
            Input::Cancel | Input::Abandon => self.give_up(Error::Cancelled),
        }
    }

    fn register(&mut self, now: Duration) -> Vec<Output> {
        match &self.state {
            State::Disconnected | State::Idle => {
                let deadline = now.saturating_add(self.settings.registration_timeout);
                self.ask(now, Registration::new(now, deadline))
            }
            State::Registering(_) => vec![Output::Refuse(Error::InvalidOperation)],
            State::EndingSession(exchange) => vec![Output::NotYet { until: exchange.until }],
        }
    }

    /// Sends the next request: the registration, or the query once there is an operation to ask about.
    fn ask(&mut self, now: Duration, mut registration: Registration) -> Vec<Output> {
        let until = now.saturating_add(self.settings.request_timeout).min(registration.deadline);
        let exchange = self.begin_exchange(until);
        let output = match registration.operation.clone() {
            None => Output::RegistrationRequest(exchange),
            Some(operation_id) => {
                registration.polls = registration.polls.saturating_add(1);
                Output::QueryOperationStatus { exchange, operation_id }
            }
        };
        registration.phase = Phase::Asking(exchange);
        self.state = State::Registering(registration);
        vec![output]
    }

    fn answer(&mut self, now: Duration, answer: Result<Response, Error>) -> Vec<Output> {
        let State::Registering(registration) = &self.state else { return vec![] };
        let mut registration = registration.clone();
        self.state = State::Idle;
        let verdict = match answer {
            Ok(response) => judge(response, registration.stage(), registration.operation.as_ref()),
            Err(error) => Verdict::Failed(error),
        };
        match verdict {
            Verdict::Assigned(mut result) => {
                result.polls = registration.polls;
                let event = OperationStatus::Assigned {
                    operation_id: result.operation_id.clone(),
                    body: result.body.clone(),
                };
                vec![Output::Emit(event), Output::Complete(Ok(result))]
            }
            Verdict::Assigning { operation_id, retry_after, body } => {
                registration.operation = Some(operation_id.clone());
                registration.backoffs = 0;
                let wait = self.bounded(retry_after.unwrap_or(self.settings.poll_interval));
                let mut timeout = self.out_of_time(Stage::Query);
                timeout.retry_after = Some(wait);
                timeout.asked_by_service = retry_after == Some(wait);
                let then = self.wait(now, wait, registration, Next::Poll, timeout.into());
                let next_poll = matches!(then, Output::Wait { .. }).then_some(wait);
                let event = OperationStatus::Assigning { operation_id, next_poll, body };
                vec![Output::Emit(event), then]
            }
            Verdict::Transient(mut rejection) => {
                let wait =
                    rejection.retry_after.unwrap_or_else(|| self.back_off(&mut registration));
                let wait = self.bounded(wait);
                rejection.retry_after = Some(wait);
                let jitter = self.jitter.of(wait).min(registration.left_after(now, wait) / 2);
                let wait = wait.saturating_add(jitter);
                let is_poll = registration.operation.is_some();
                let then = if is_poll { Next::PollAgain } else { Next::RegisterAgain };
                vec![self.wait(now, wait, registration, then, Error::Rejected(rejection))]
            }
            Verdict::Failed(Error::Connection(error))
                if error.lost && registration.operation.is_some() =>
            {
                let wait = self.bounded(self.settings.poll_interval);
                vec![self.wait(now, wait, registration, Next::PollAgain, Error::Connection(error))]
            }
            Verdict::Failed(error) => vec![Output::Complete(Err(error))],
        }
    }

    /// Waits before the next request, or fails with the error if the wait would reach the deadline.
    fn wait(
        &mut self,
        now: Duration,
        wait: Duration,
        mut registration: Registration,
        then: Next,
        error: Error,
    ) -> Output {
        if registration.left_after(now, wait).is_zero() {
            return Output::Complete(Err(error));
        }
        let until = now.saturating_add(wait);
        registration.phase = Phase::Waiting { until };
        self.state = State::Registering(registration);
        Output::Wait { until, then }
    }

    fn tick(&mut self, now: Duration) -> Vec<Output> {
        if self.state.until().is_none_or(|until| now < until) {
            return vec![];
        }
        let Settings { request_timeout, end_session_timeout, .. } = self.settings;
        match &self.state {
            State::Disconnected | State::Idle => vec![],
            // A machine that slept past its deadline (a suspended computer) must not start over.
            State::Registering(registration) if now >= registration.deadline => {
                self.give_up(self.out_of_time(registration.stage()).into())
            }
            State::Registering(registration) if self.state.exchange().is_none() => {
                self.ask(now, registration.clone())
            }
            State::Registering(registration) => {
                let scope = TimeoutScope::Request;
                self.give_up(TimeoutError::new(registration.stage(), scope, request_timeout).into())
            }
            State::EndingSession(_) => {
                let scope = TimeoutScope::EndSession;
                let timeout = TimeoutError::new(Stage::EndSession, scope, end_session_timeout);
                let outputs = self.give_up(timeout.into());
                self.state = State::Disconnected;
                outputs
            }
        }
    }

    /// Gives up the registration or the end of the session, if there is one under way, and keeps the session.
    fn give_up(&mut self, error: Error) -> Vec<Output> {
        let outcome = match self.state {
            State::Disconnected | State::Idle => return vec![],
            State::Registering(_) => Output::Complete(Err(error)),
            State::EndingSession(_) => Output::Ended(Err(error)),
        };
        let dropped = self.state.exchange().map(Output::Drop);
        self.state = State::Idle;
        dropped.into_iter().chain([outcome]).collect()
    }

    fn end_session(&mut self, now: Duration) -> Vec<Output> {
        match self.state {
            State::Disconnected => vec![Output::Ended(Ok(()))],
            // One end is enough: whoever asks again waits for the same one.
            State::EndingSession(_) => vec![],
            State::Idle | State::Registering(_) => {
                let mut outputs = self.give_up(Error::Cancelled);
                let until = now.saturating_add(self.settings.end_session_timeout);
                let exchange = self.begin_exchange(until);
                self.state = State::EndingSession(exchange);
                outputs.push(Output::EndSession(exchange));
                outputs
            }
        }
    }

    fn session_ended(&mut self, result: Result<(), Error>) -> Vec<Output> {
        let State::EndingSession(_) = self.state else { return vec![] };
        self.state = State::Disconnected;
        vec![Output::Ended(result)]
    }

    fn begin_exchange(&mut self, until: Duration) -> Exchange {
        let id = self.next_exchange;
        self.next_exchange = id.next();
        Exchange { id, until }
    }

    fn out_of_time(&self, stage: Stage) -> TimeoutError {
        TimeoutError::new(stage, TimeoutScope::Registration, self.settings.registration_timeout)
    }

    /// How long to wait before a refused request goes out again when the service doesn't say.
    fn back_off(&self, registration: &mut Registration) -> Duration {
        let Settings { poll_interval, max_backoff, .. } = self.settings;
        let times = registration.backoffs;
        registration.backoffs = times.saturating_add(1);
        backoff::doubled(poll_interval, times, max_backoff)
    }

    fn bounded(&self, wait: Duration) -> Duration {
        wait.max(self.settings.poll_floor)
    }
}
