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
//! assert!(until >= at(4), "never earlier than asked; some jitter is added");
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
use core::{mem, time::Duration};

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
            Input::Answer(exchange, answer) => self.answer(now, exchange, answer),
            Input::Tick => self.tick(now),
            Input::Cancel => self.stop(Error::Cancelled),
            Input::EndSession => self.end_session(now),
            Input::SessionEnded(exchange, result) => self.session_ended(exchange, result),
            Input::Abandon => self.abandon(),
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

    fn answer(
        &mut self,
        now: Duration,
        exchange: ExchangeId,
        answer: Result<Response, Error>,
    ) -> Vec<Output> {
        let registration = match mem::replace(&mut self.state, State::Idle) {
            State::Registering(registration)
                if registration.exchange().is_some_and(|current| current.id == exchange) =>
            {
                registration
            }
            // Too late: that exchange was cancelled or timed out.
            other => {
                self.state = other;
                return vec![];
            }
        };
        match answer {
            Ok(response) => {
                let known = registration.operation.as_ref();
                let verdict = judge(response, registration.stage(), known);
                self.conclude(now, registration, verdict)
            }
            Err(Error::Connection(error)) if error.lost && registration.operation.is_some() => {
                let wait = self.bounded(self.settings.poll_interval);
                self.ask_again(now, registration, wait, Error::Connection(error))
            }
            Err(error) => vec![Output::Complete(Err(error))],
        }
    }

    fn conclude(
        &mut self,
        now: Duration,
        mut registration: Registration,
        verdict: Verdict,
    ) -> Vec<Output> {
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
                let until = self.wait_until(now, &registration, wait);
                let next_poll = until.map(|until| until.saturating_sub(now));
                let event = OperationStatus::Assigning { operation_id, next_poll, body };
                let then = if let Some(until) = until {
                    self.wait(registration, until, Next::Poll)
                } else {
                    let mut timeout = self.out_of_time(Stage::Query);
                    timeout.retry_after = Some(wait);
                    timeout.asked_by_service = retry_after == Some(wait);
                    Output::Complete(Err(timeout.into()))
                };
                vec![Output::Emit(event), then]
            }
            Verdict::Transient(mut rejection) => {
                let asked = rejection.retry_after;
                let wait = self.bounded(asked.unwrap_or_else(|| self.back_off(&registration)));
                if asked.is_none() {
                    registration.backoffs = registration.backoffs.saturating_add(1);
                }
                rejection.retry_after = Some(wait);
                self.ask_again(now, registration, wait, Error::Rejected(rejection))
            }
            Verdict::Failed(error) => vec![Output::Complete(Err(error))],
        }
    }

    /// Sends the same request again after a wait, or fails if the wait would pass the deadline.
    fn ask_again(
        &mut self,
        now: Duration,
        registration: Registration,
        wait: Duration,
        error: Error,
    ) -> Vec<Output> {
        let then = match registration.operation {
            None => Next::RegisterAgain,
            Some(_) => Next::PollAgain,
        };
        vec![match self.wait_until(now, &registration, wait) {
            Some(until) => self.wait(registration, until, then),
            None => Output::Complete(Err(error)),
        }]
    }

    fn wait(&mut self, mut registration: Registration, until: Duration, then: Next) -> Output {
        registration.phase = Phase::Waiting { until };
        self.state = State::Registering(registration);
        Output::Wait { until, then }
    }

    fn tick(&mut self, now: Duration) -> Vec<Output> {
        if self.state.until().is_none_or(|until| now < until) {
            return vec![];
        }
        match &self.state {
            State::Disconnected | State::Idle => vec![],
            // A machine that slept past its deadline (a suspended computer) must not start over.
            State::Registering(registration) if now >= registration.deadline => {
                self.stop(self.out_of_time(registration.stage()).into())
            }
            State::Registering(registration) => match registration.phase {
                Phase::Waiting { .. } => self.ask(now, registration.clone()),
                Phase::Asking(_) => {
                    let (stage, after) = (registration.stage(), self.settings.request_timeout);
                    self.stop(TimeoutError::new(stage, TimeoutScope::Request, after).into())
                }
            },
            State::EndingSession(Exchange { id, .. }) => {
                let outputs = vec![Output::Drop(*id), Output::Ended(Err(self.end_timed_out()))];
                self.state = State::Disconnected;
                outputs
            }
        }
    }

    /// Ends the registration, if there is one, and keeps the session.
    fn stop(&mut self, error: Error) -> Vec<Output> {
        let State::Registering(registration) = &self.state else { return vec![] };
        let under_way = registration.exchange().map(|exchange| Output::Drop(exchange.id));
        self.state = State::Idle;
        under_way.into_iter().chain([Output::Complete(Err(error))]).collect()
    }

    fn end_session(&mut self, now: Duration) -> Vec<Output> {
        match self.state {
            State::Disconnected => vec![Output::Ended(Ok(()))],
            // One end is enough: whoever asks again waits for the same one.
            State::EndingSession(_) => vec![],
            State::Idle | State::Registering(_) => {
                let mut outputs = self.stop(Error::Cancelled);
                let until = now.saturating_add(self.settings.end_session_timeout);
                let exchange = self.begin_exchange(until);
                self.state = State::EndingSession(exchange);
                outputs.push(Output::EndSession(exchange));
                outputs
            }
        }
    }

    fn session_ended(&mut self, exchange: ExchangeId, result: Result<(), Error>) -> Vec<Output> {
        match self.state {
            State::EndingSession(current) if current.id == exchange => {
                self.state = State::Disconnected;
                vec![Output::Ended(result)]
            }
            _ => vec![],
        }
    }

    /// Whoever drove the registration or the end of the session is gone.
    fn abandon(&mut self) -> Vec<Output> {
        let State::EndingSession(exchange) = self.state else {
            return self.stop(Error::Cancelled);
        };
        // The end of the session was cut short: still connected, so that the next end of session reaches the transport.
        self.state = State::Idle;
        vec![Output::Drop(exchange.id), Output::Ended(Err(Error::Cancelled))]
    }

    fn begin_exchange(&mut self, until: Duration) -> Exchange {
        let id = self.next_exchange;
        self.next_exchange = id.next();
        Exchange { id, until }
    }

    fn out_of_time(&self, stage: Stage) -> TimeoutError {
        TimeoutError::new(stage, TimeoutScope::Registration, self.settings.registration_timeout)
    }

    fn end_timed_out(&self) -> Error {
        let after = self.settings.end_session_timeout;
        TimeoutError::new(Stage::EndSession, TimeoutScope::EndSession, after).into()
    }

    /// How long to wait before a refused request goes out again when the service doesn't say.
    fn back_off(&self, registration: &Registration) -> Duration {
        let Settings { poll_interval, max_backoff, .. } = self.settings;
        backoff::doubled(poll_interval, registration.backoffs, max_backoff)
    }

    fn bounded(&self, wait: Duration) -> Duration {
        wait.max(self.settings.poll_floor)
    }

    /// The end of a wait, jitter added; `None` when it would pass the deadline. Jitter alone never makes it so.
    fn wait_until(
        &mut self,
        now: Duration,
        registration: &Registration,
        wait: Duration,
    ) -> Option<Duration> {
        let earliest = now.checked_add(wait).filter(|until| *until < registration.deadline)?;
        let room = registration.deadline.saturating_sub(earliest) / 2;
        Some(earliest.saturating_add(self.jitter.of(wait).min(room)))
    }
}
