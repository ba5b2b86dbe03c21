//! The protocol as a pure machine: no socket, no clock, no runtime.
//!
//! Whoever drives it calls [`Machine::step`] with what happened and when, gets the next machine and a list of
//! [`Output`]s, carries them out and reports back. Time is a duration since an origin that the driver picks. The
//! machine is consumed by each step, so that a stale one can't be stepped.
//!
//! Connected means: from the first registration request until an end of session has returned. So a session
//! outlives a registration, whatever its outcome.

mod backoff;
mod io;
#[cfg(test)]
mod samples;
mod state;
#[cfg(test)]
mod table;
#[cfg(test)]
mod walk;

pub use io::{ExchangeId, Input, Output};
pub use state::{Registration, State};

use alloc::{vec, vec::Vec};
use core::time::Duration;

use crate::{
    answer::{Verdict, judge},
    error::{Error, Stage, TimeoutError, TimeoutScope},
    ids::OperationId,
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
    pub fn step(mut self, now: Duration, input: Input) -> (Self, Vec<Output>) {
        let state = core::mem::replace(&mut self.state, State::Disconnected);
        let (state, outputs) = match input {
            Input::Register => self.register(now, state),
            Input::Answer(exchange, answer) => self.answer(now, state, exchange, answer),
            Input::Tick => self.tick(now, state),
            Input::Cancel => cancel(state),
            Input::EndSession => self.end_session(now, state),
            Input::SessionEnded(exchange, result) => session_ended(state, exchange, result),
            Input::Abandon => abandon(state),
        };
        self.state = state;
        (self, outputs)
    }

    fn register(&mut self, now: Duration, state: State) -> (State, Vec<Output>) {
        match state {
            State::Disconnected | State::Idle => {
                let deadline = now.saturating_add(self.settings.registration_timeout);
                self.send_registration(now, Registration { deadline, polls: 0, backoffs: 0 })
            }
            State::EndingSession { until, .. } => (state, vec![Output::NotYet { until }]),
            busy => (busy, vec![Output::Refuse(Error::InvalidOperation)]),
        }
    }

    fn answer(
        &mut self,
        now: Duration,
        state: State,
        exchange: ExchangeId,
        answer: Result<Response, Error>,
    ) -> (State, Vec<Output>) {
        match state {
            State::Registering { registration, exchange: current, .. } if current == exchange => {
                self.registration_answer(now, registration, answer)
            }
            State::Polling { registration, exchange: current, operation_id, .. }
                if current == exchange =>
            {
                self.query_answer(now, registration, operation_id, answer)
            }
            // Too late: that exchange was cancelled or timed out.
            other => (other, vec![]),
        }
    }

    fn registration_answer(
        &mut self,
        now: Duration,
        registration: Registration,
        answer: Result<Response, Error>,
    ) -> (State, Vec<Output>) {
        let response = match answer {
            Ok(response) => response,
            Err(error) => return fail(error),
        };
        match judge(response, Stage::Register, None) {
            Verdict::Transient(mut rejection) => {
                let wait = self.back_off(&registration, rejection.retry_after);
                let Some(until) = self.wait_until(now, &registration, wait) else {
                    rejection.retry_after = Some(wait);
                    return fail(Error::Rejected(rejection));
                };
                let registration = registration.backed_off(rejection.retry_after);
                let output = Output::Wait { until, then: Next::RegisterAgain };
                (State::WaitingToRegister { registration, until }, vec![output])
            }
            verdict => self.conclude(now, registration, verdict),
        }
    }

    fn query_answer(
        &mut self,
        now: Duration,
        registration: Registration,
        operation_id: OperationId,
        answer: Result<Response, Error>,
    ) -> (State, Vec<Output>) {
        let response = match answer {
            Ok(response) => response,
            Err(Error::Connection(error)) if error.lost => {
                let wait = self.bounded(self.settings.poll_interval);
                return match self.wait_until(now, &registration, wait) {
                    Some(until) => poll_again(registration, operation_id, until),
                    None => fail(Error::Connection(error)),
                };
            }
            Err(error) => return fail(error),
        };
        match judge(response, Stage::Query, Some(&operation_id)) {
            Verdict::Transient(mut rejection) => {
                let wait = self.back_off(&registration, rejection.retry_after);
                match self.wait_until(now, &registration, wait) {
                    Some(until) => {
                        let registration = registration.backed_off(rejection.retry_after);
                        poll_again(registration, operation_id, until)
                    }
                    None => {
                        rejection.retry_after = Some(wait);
                        fail(Error::Rejected(rejection))
                    }
                }
            }
            verdict => self.conclude(now, registration, verdict),
        }
    }

    /// What an answer means that is no call to wait and send the same again.
    fn conclude(
        &mut self,
        now: Duration,
        registration: Registration,
        verdict: Verdict,
    ) -> (State, Vec<Output>) {
        match verdict {
            Verdict::Assigned(mut registered) => {
                registered.polls = registration.polls;
                let event = OperationStatus::Assigned {
                    operation_id: registered.operation_id.clone(),
                    body: registered.body.clone(),
                };
                (State::Idle, vec![Output::Emit(event), Output::Complete(Ok(registered))])
            }
            Verdict::Assigning { operation_id, retry_after, body } => {
                let wait = self.bounded(retry_after.unwrap_or(self.settings.poll_interval));
                let until = self.wait_until(now, &registration, wait);
                let event = Output::Emit(OperationStatus::Assigning {
                    operation_id: operation_id.clone(),
                    next_poll: until.map(|until| until.saturating_sub(now)),
                    body,
                });
                let Some(until) = until else {
                    let mut timeout = self.out_of_time(Stage::Query);
                    timeout.retry_after = Some(wait);
                    timeout.asked_by_service = retry_after == Some(wait);
                    return (State::Idle, vec![event, Output::Complete(Err(timeout.into()))]);
                };
                let registration = Registration { backoffs: 0, ..registration };
                let state = State::WaitingToPoll { registration, operation_id, until };
                (state, vec![event, Output::Wait { until, then: Next::Poll }])
            }
            Verdict::Transient(rejection) => fail(Error::Rejected(rejection)),
            Verdict::Failed(error) => fail(error),
        }
    }

    fn tick(&mut self, now: Duration, state: State) -> (State, Vec<Output>) {
        if state.until().is_none_or(|until| now < until) {
            return (state, vec![]);
        }
        match state {
            State::Registering { registration, exchange, .. } => {
                self.request_timed_out(now, &registration, exchange, Stage::Register)
            }
            State::Polling { registration, exchange, .. } => {
                self.request_timed_out(now, &registration, exchange, Stage::Query)
            }
            // A machine that slept past its deadline (a suspended computer) must not start over.
            State::WaitingToRegister { registration, .. } if now >= registration.deadline => {
                fail(self.out_of_time(Stage::Register).into())
            }
            State::WaitingToPoll { registration, .. } if now >= registration.deadline => {
                fail(self.out_of_time(Stage::Query).into())
            }
            State::WaitingToRegister { registration, .. } => {
                self.send_registration(now, registration)
            }
            State::WaitingToPoll { registration, operation_id, .. } => {
                self.send_query(now, registration, operation_id)
            }
            State::EndingSession { exchange, .. } => {
                let timeout = TimeoutError::new(
                    Stage::EndSession,
                    TimeoutScope::EndSession,
                    self.settings.end_session_timeout,
                );
                let outputs = vec![Output::Drop(exchange), Output::Ended(Err(timeout.into()))];
                (State::Disconnected, outputs)
            }
            idle @ (State::Disconnected | State::Idle) => (idle, vec![]),
        }
    }

    fn end_session(&mut self, now: Duration, state: State) -> (State, Vec<Output>) {
        match state {
            State::Disconnected => (State::Disconnected, vec![Output::Ended(Ok(()))]),
            // One end is enough: whoever asks again waits for the same one.
            ending @ State::EndingSession { .. } => (ending, vec![]),
            connected => {
                let (_, mut outputs) = cancel(connected);
                let exchange = self.take_exchange();
                let until = now.saturating_add(self.settings.end_session_timeout);
                outputs.push(Output::EndSession { exchange, until });
                (State::EndingSession { exchange, until }, outputs)
            }
        }
    }

    fn send_registration(
        &mut self,
        now: Duration,
        registration: Registration,
    ) -> (State, Vec<Output>) {
        let exchange = self.take_exchange();
        let until = self.request_until(now, &registration);
        let output = Output::RegistrationRequest { exchange, until };
        (State::Registering { registration, exchange, until }, vec![output])
    }

    fn send_query(
        &mut self,
        now: Duration,
        registration: Registration,
        operation_id: OperationId,
    ) -> (State, Vec<Output>) {
        let exchange = self.take_exchange();
        let until = self.request_until(now, &registration);
        let registration =
            Registration { polls: registration.polls.saturating_add(1), ..registration };
        let output =
            Output::QueryOperationStatus { exchange, operation_id: operation_id.clone(), until };
        (State::Polling { registration, operation_id, exchange, until }, vec![output])
    }

    fn request_timed_out(
        &self,
        now: Duration,
        registration: &Registration,
        exchange: ExchangeId,
        stage: Stage,
    ) -> (State, Vec<Output>) {
        let timeout = if now >= registration.deadline {
            self.out_of_time(stage)
        } else {
            TimeoutError::new(stage, TimeoutScope::Request, self.settings.request_timeout)
        };
        (State::Idle, vec![Output::Drop(exchange), Output::Complete(Err(timeout.into()))])
    }

    fn out_of_time(&self, stage: Stage) -> TimeoutError {
        TimeoutError::new(stage, TimeoutScope::Registration, self.settings.registration_timeout)
    }

    fn request_until(&self, now: Duration, registration: &Registration) -> Duration {
        now.saturating_add(self.settings.request_timeout).min(registration.deadline)
    }

    /// How long to wait before a refused request goes out again.
    fn back_off(&self, registration: &Registration, asked: Option<Duration>) -> Duration {
        self.bounded(asked.unwrap_or_else(|| {
            backoff::doubled(
                self.settings.poll_interval,
                registration.backoffs,
                self.settings.max_backoff,
            )
        }))
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

    fn take_exchange(&mut self) -> ExchangeId {
        let exchange = self.next_exchange;
        self.next_exchange = exchange.next();
        exchange
    }
}

fn fail(error: Error) -> (State, Vec<Output>) {
    (State::Idle, vec![Output::Complete(Err(error))])
}

fn poll_again(
    registration: Registration,
    operation_id: OperationId,
    until: Duration,
) -> (State, Vec<Output>) {
    let state = State::WaitingToPoll { registration, operation_id, until };
    (state, vec![Output::Wait { until, then: Next::PollAgain }])
}

/// Ends a registration, keeps the session.
fn cancel(state: State) -> (State, Vec<Output>) {
    match state {
        State::Registering { exchange, .. } | State::Polling { exchange, .. } => {
            (State::Idle, vec![Output::Drop(exchange), Output::Complete(Err(Error::Cancelled))])
        }
        State::WaitingToRegister { .. } | State::WaitingToPoll { .. } => fail(Error::Cancelled),
        other => (other, vec![]),
    }
}

fn session_ended(
    state: State,
    exchange: ExchangeId,
    result: Result<(), Error>,
) -> (State, Vec<Output>) {
    match state {
        State::EndingSession { exchange: current, .. } if current == exchange => {
            (State::Disconnected, vec![Output::Ended(result)])
        }
        other => (other, vec![]),
    }
}

/// Whoever drove the registration or the end of the session is gone.
fn abandon(state: State) -> (State, Vec<Output>) {
    match state {
        // The end of the session was cut short: still connected, so that the next end of session reaches the transport.
        State::EndingSession { exchange, .. } => {
            (State::Idle, vec![Output::Drop(exchange), Output::Ended(Err(Error::Cancelled))])
        }
        other => cancel(other),
    }
}
