//! The pure machine, and what must hold at each of its steps.

use std::time::Duration;

use dps_state_machine::{
    ErrorKind, Settings,
    machine::{Exchange, ExchangeId, Input, Machine, Output, State},
};

/// A machine and what whoever drives it knows.
#[derive(Clone, Debug)]
pub struct Driven {
    settings: Settings,
    machine: Machine,
    now: Duration,
    /// The registration under way: by when it must have its outcome.
    deadline: Option<Duration>,
    /// The call to the transport that is under way, and the last one that is over.
    exchange: Option<ExchangeId>,
    stale: Option<ExchangeId>,
    /// The call that is under way ends the session.
    ending: bool,
    /// How many requests may still go out: one for each registration, one more for each answer.
    allowed: u32,
    polls: u32,
}

impl Driven {
    /// A disconnected machine, at this time.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, now: Duration) -> Self {
        Self {
            settings,
            machine: Machine::new(settings, seed),
            now,
            deadline: None,
            exchange: None,
            stale: None,
            ending: false,
            allowed: 0,
            polls: 0,
        }
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where the machine stands.
    #[must_use]
    pub fn state(&self) -> &State {
        self.machine.state()
    }

    /// When it was stepped last.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// By when the registration under way must have its outcome.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The request under way; none while the session is being ended.
    #[must_use]
    pub fn request(&self) -> Option<ExchangeId> {
        self.exchange.filter(|_| !self.ending)
    }

    /// The end of the session that is under way.
    #[must_use]
    pub fn end_of_session(&self) -> Option<ExchangeId> {
        self.exchange.filter(|_| self.ending)
    }

    /// The last call to the transport that is over.
    #[must_use]
    pub fn stale(&self) -> Option<ExchangeId> {
        self.stale
    }

    /// Steps the machine as a driver does, and checks what must hold: exactly one outcome for each registration, at most one
    /// call to the transport at a time, no more requests than answers allow, no wait shorter than asked for or past the
    /// deadline, no end of the session that nobody carries out.
    ///
    /// # Panics
    /// When something does not hold.
    pub fn step(&mut self, now: Duration, input: Input) -> Vec<Output> {
        let before = self.state().clone();
        let (registers, ends) =
            (matches!(input, Input::Register), matches!(input, Input::EndSession));
        let is_due = matches!(input, Input::Tick) && before.until().is_some_and(|due| now >= due);
        let asked = self.take(&input);
        self.now = now;
        if registers && matches!(before, State::Disconnected | State::Idle) {
            self.deadline = Some(now.saturating_add(self.settings.registration_timeout));
            (self.allowed, self.polls) = (1, 0);
        }
        let outputs = self.machine.step(now, input);
        for (place, output) in outputs.iter().enumerate() {
            self.check(output, outputs.get(place.wrapping_sub(1)), asked);
        }
        if registers {
            self.check_registering(&before, &outputs);
        }
        if ends {
            let asks = outputs.iter().any(|output| matches!(output, Output::EndSession(_)));
            let ended = outputs.iter().any(|output| matches!(output, Output::Ended(Ok(()))));
            let is_connected = matches!(before, State::Idle | State::Registering(_));
            assert_eq!((asks, ended), (is_connected, before == State::Disconnected));
        }
        assert!(!is_due || *self.state() != before, "time that is up changes nothing: {before:?}");
        self.check_state();
        outputs
    }

    /// The call that the input reports is over. What its answer asks for.
    fn take(&mut self, input: &Input) -> Option<Duration> {
        match input {
            Input::Answer(exchange, answer) if self.request() == Some(*exchange) => {
                self.allowed += 1;
                self.exchange_is_over();
                answer.as_ref().ok().and_then(|response| response.retry_after)
            }
            Input::SessionEnded(exchange, _) if self.end_of_session() == Some(*exchange) => {
                self.exchange_is_over();
                None
            }
            _ => None,
        }
    }

    fn check(&mut self, output: &Output, former: Option<&Output>, asked: Option<Duration>) {
        match output {
            Output::RegistrationRequest(exchange) => self.check_request(*exchange),
            Output::QueryOperationStatus { exchange, operation_id } => {
                assert!(!operation_id.as_str().is_empty());
                self.polls += 1;
                self.check_request(*exchange);
            }
            Output::Wait { until, .. } => {
                assert!(self.exchange.is_none(), "waits while a call is under way");
                let wait = until.saturating_sub(self.now);
                let least = asked.unwrap_or_default().max(self.settings.poll_floor);
                assert!(wait >= least, "{wait:?} is less than {least:?}");
                assert!(*until <= self.deadline.expect("a registration"));
            }
            Output::EndSession(Exchange { id, until, .. }) => {
                assert!(self.deadline.is_none(), "the registration has its outcome first");
                assert_eq!(*until, self.now.saturating_add(self.settings.end_session_timeout));
                self.begin(*id);
                self.ending = true;
            }
            Output::Drop(exchange) => {
                assert_eq!(self.exchange, Some(*exchange), "only what is under way is dropped");
                self.exchange_is_over();
            }
            Output::Complete(outcome) => {
                assert!(self.exchange.is_none(), "the call is dropped before");
                self.deadline.take().expect("one outcome for each registration");
                if let Ok(result) = outcome {
                    assert!(matches!(former, Some(Output::Emit(_))), "the event comes before");
                    assert_eq!(result.polls, self.polls);
                }
            }
            Output::Ended(_) => assert!(self.exchange.is_none(), "the call is dropped before"),
            _ => {}
        }
    }

    fn check_request(&mut self, Exchange { id, until, .. }: Exchange) {
        self.allowed = self.allowed.checked_sub(1).expect("one request for each answer");
        let bound = self.now.saturating_add(self.settings.request_timeout);
        assert_eq!(until, bound.min(self.deadline.expect("a registration")));
        self.begin(id);
    }

    fn check_registering(&self, before: &State, outputs: &[Output]) {
        match (before, outputs) {
            (State::Disconnected | State::Idle, [Output::RegistrationRequest(_)]) => return,
            (State::EndingSession(end), [Output::NotYet { until }]) => {
                assert_eq!(*until, end.until)
            }
            (State::Registering(_), [Output::Refuse(error)]) => {
                assert_eq!(error.kind(), ErrorKind::InvalidOperation);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(self.state(), before, "what is under way is left alone");
    }

    fn check_state(&self) {
        let state = self.state();
        assert_eq!(state.exchange(), self.exchange, "the driver and the machine agree");
        assert_eq!(self.deadline.is_some(), matches!(state, State::Registering(_)));
        assert_eq!(self.ending, matches!(state, State::EndingSession(_)));
        if let (Some(deadline), Some(until)) = (self.deadline, state.until()) {
            assert!(until <= deadline, "nothing is waited for past the deadline");
        }
    }

    fn begin(&mut self, exchange: ExchangeId) {
        assert!(self.exchange.is_none(), "a call while another is under way");
        assert!(Some(exchange) > self.stale, "each call has a name of its own");
        self.exchange = Some(exchange);
    }

    fn exchange_is_over(&mut self) {
        self.stale = self.exchange.take().or(self.stale);
        self.ending = false;
    }
}
