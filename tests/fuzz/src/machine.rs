//! The state machine: any answers, cancels, ends and delays, in any order, and what must hold all along.

use std::time::{Duration, SystemTime};

use dps_state_machine::{
    ConnectionError, Error, ErrorKind, RegistrationResult, Response, Settings, Stage,
    machine::{Exchange, ExchangeId, Input, Machine, Output, State},
    retry_after,
};
use serde_json::Value;

use crate::input::{parts, text};

/// The first part chooses the settings; each further one is an event, named by its first letter:
/// `r`egister, `c`ancel, `e`nd the session, aban`x`don, `t`ick when due, `T` and a byte: tick after so many seconds,
/// `s`/`S`: the end of the session went well or not, `k`/`K`: the connection was lost or could not be made,
/// `aSTATUS;RETRY-AFTER;BODY`: an answer, `l`: the same one, too late.
pub fn run(data: &[u8]) {
    let mut parts = parts(data);
    let choice = parts.next().and_then(|part| part.first()).copied().unwrap_or_default();
    let mut run = Run::new(choice);
    for part in parts.take(200) {
        let Some((kind, rest)) = part.split_first() else { continue };
        run.event(*kind, rest);
    }
    run.finish();
}

struct Run {
    settings: Settings,
    machine: Machine,
    now: Duration,
    /// The registration under way: by when it must have its outcome.
    deadline: Option<Duration>,
    /// The call to the transport that is under way, and the one before.
    exchange: Option<ExchangeId>,
    stale: Option<ExchangeId>,
    ending: bool,
    /// How many requests may still go out: one for each registration, one more for each answer.
    allowed: u32,
    polls: u32,
}

impl Run {
    fn new(choice: u8) -> Self {
        let bit = |place: u8| choice & (1 << place) != 0;
        let seconds = Duration::from_secs;
        let mut settings = Settings::default();
        if bit(0) {
            settings.poll_floor = Duration::ZERO;
        }
        if bit(1) {
            settings.poll_interval = Duration::ZERO;
            settings.max_backoff = Duration::ZERO;
        }
        if bit(2) {
            settings.registration_timeout = Duration::MAX;
        }
        if bit(3) {
            settings.request_timeout = Duration::MAX;
            settings.end_session_timeout = Duration::MAX;
        }
        if bit(4) {
            settings.poll_floor = Duration::MAX;
            settings.max_backoff = Duration::MAX;
        }
        settings.jitter_percent = choice >> 6;
        // The end of time is as good an origin as any.
        let now = if bit(5) { Duration::MAX - seconds(90) } else { Duration::ZERO };
        Self {
            settings,
            machine: Machine::new(settings, choice.into()),
            now,
            deadline: None,
            exchange: None,
            stale: None,
            ending: false,
            allowed: 0,
            polls: 0,
        }
    }

    fn state(&self) -> &State {
        self.machine.state()
    }

    fn event(&mut self, kind: u8, rest: &[u8]) {
        match kind {
            b'r' => self.register(),
            b'c' => self.step(Input::Cancel, None),
            b'e' => self.end_session(),
            b'x' => self.step(Input::Abandon, None),
            b't' => self.tick_when_due(),
            b'T' => {
                let seconds = rest.first().copied().unwrap_or_default();
                let later = self.now.saturating_add(Duration::from_secs(seconds.into()));
                // Drivers tick at the time, not past it.
                self.now = self.state().until().map_or(later, |until| later.min(until));
                self.step(Input::Tick, None);
            }
            b's' => self.session_ended(Ok(())),
            b'S' => self.session_ended(Err(Error::Cancelled)),
            b'k' => self.answer(Err(ConnectionError::lost(Stage::Query, "lost").into()), &[]),
            b'K' => self.answer(Err(ConnectionError::new(Stage::Tls, "refused").into()), &[]),
            b'a' => {
                let (response, body) = response(rest);
                self.answer(Ok(response), body);
            }
            b'l' => self.late(response(rest).0),
            _ => {}
        }
    }

    fn register(&mut self) {
        let idle = matches!(self.state(), State::Disconnected | State::Idle);
        if idle {
            assert!(self.deadline.is_none());
            self.deadline = Some(self.now.saturating_add(self.settings.registration_timeout));
            self.allowed = 1;
            self.polls = 0;
        }
        let before = self.state().clone();
        let ending = self.ending;
        let outputs = self.step_for(Input::Register, None);
        match outputs.as_slice() {
            [Output::RegistrationRequest(_)] => assert!(idle),
            [Output::NotYet { until }] => assert!(ending && *until >= self.now),
            [Output::Refuse(error)] => {
                assert!(!idle && !ending && error.kind() == ErrorKind::InvalidOperation);
            }
            other => panic!("{other:?}"),
        }
        assert!(idle || *self.state() == before, "the one under way is left alone");
    }

    fn end_session(&mut self) {
        let (connected, ending) = (*self.state() != State::Disconnected, self.ending);
        let outputs = self.step_for(Input::EndSession, None);
        let asked = outputs.iter().filter(|o| matches!(o, Output::EndSession(_))).count();
        let ended = outputs.iter().filter(|o| matches!(o, Output::Ended(Ok(())))).count();
        assert_eq!((asked == 1, ended == 1), (connected && !ending, !connected));
    }

    fn session_ended(&mut self, result: Result<(), Error>) {
        if let (true, Some(exchange)) = (self.ending, self.exchange) {
            self.step(Input::SessionEnded(exchange, result), None);
            assert_eq!(*self.state(), State::Disconnected);
        }
    }

    fn tick_when_due(&mut self) {
        if let Some(until) = self.state().until() {
            self.now = self.now.max(until);
            let before = self.state().clone();
            self.step(Input::Tick, None);
            assert_ne!(*self.state(), before, "time that is up changes something");
        }
    }

    fn answer(&mut self, answer: Result<Response, Error>, body: &[u8]) {
        let Some(exchange) = self.exchange.filter(|_| !self.ending) else { return };
        self.allowed += 1;
        self.step(Input::Answer(exchange, answer), Some(body));
    }

    fn late(&mut self, response: Response) {
        let Some(stale) = self.stale else { return };
        let before = self.machine.clone();
        for input in [Input::Answer(stale, Ok(response)), Input::SessionEnded(stale, Ok(()))] {
            let outputs = self.step_for(input, None);
            assert!(outputs.is_empty() && self.machine == before, "too late to matter");
        }
    }

    fn step(&mut self, input: Input, body: Option<&[u8]>) {
        self.step_for(input, body);
    }

    /// Steps the machine, and holds what comes out against what must be.
    fn step_for(&mut self, input: Input, body: Option<&[u8]>) -> Vec<Output> {
        let asked = match &input {
            Input::Answer(_, Ok(response)) => response.retry_after,
            _ => None,
        };
        let outputs = self.machine.step(self.now, input);
        for (place, output) in outputs.iter().enumerate() {
            match output {
                Output::RegistrationRequest(exchange) => self.request(*exchange),
                Output::QueryOperationStatus { exchange, operation_id } => {
                    assert!(!operation_id.as_str().is_empty());
                    self.polls += 1;
                    self.request(*exchange);
                }
                Output::Wait { until, .. } => {
                    self.exchange_is_over();
                    let wait = until.saturating_sub(self.now);
                    let least = asked.unwrap_or_default().max(self.settings.poll_floor);
                    assert!(wait >= least, "{wait:?} is less than {least:?}");
                    assert!(*until <= self.deadline.expect("a registration"));
                }
                Output::EndSession(exchange) => {
                    assert!(!self.ending && self.deadline.is_none() && exchange.until >= self.now);
                    self.ending = true;
                    self.new_exchange(exchange.id);
                }
                Output::Drop(exchange) => {
                    assert_eq!(self.exchange, Some(*exchange), "only what is under way is dropped");
                    self.exchange_is_over();
                }
                Output::Complete(outcome) => {
                    self.exchange_is_over();
                    let deadline = self.deadline.take().expect("one outcome for each registration");
                    assert!(self.now <= deadline, "at {:?}, due at {deadline:?}", self.now);
                    match outcome {
                        Ok(registered) => {
                            assert!(matches!(outputs[place - 1], Output::Emit(_)), "told before");
                            assert_eq!(registered.polls, self.polls);
                            registered_from(registered, body.expect("an answer"));
                        }
                        Err(error) => readable(error),
                    }
                }
                Output::Ended(_) => {
                    self.exchange_is_over();
                    self.ending = false;
                }
                Output::Emit(event) => assert!(!format!("{event:?}").is_empty()),
                Output::Refuse(error) => readable(error),
                Output::NotYet { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.state().exchange(), self.exchange);
        assert_eq!(self.deadline.is_none(), !matches!(self.state(), State::Registering(_)));
        if let (Some(deadline), Some(until)) = (self.deadline, self.state().until()) {
            assert!(until <= deadline, "nothing is waited for past the deadline");
        }
        outputs
    }

    fn request(&mut self, Exchange { id, until, .. }: Exchange) {
        self.allowed = self.allowed.checked_sub(1).expect("one request for each answer");
        assert!(until >= self.now && until <= self.deadline.expect("a registration"));
        self.new_exchange(id);
    }

    fn new_exchange(&mut self, exchange: ExchangeId) {
        assert!(self.exchange.is_none() && Some(exchange) > self.stale);
        self.exchange = Some(exchange);
    }

    fn exchange_is_over(&mut self) {
        self.stale = self.exchange.take().or(self.stale);
    }

    /// Without another word from anybody, time ends all there is; then the machine can do it all again.
    fn finish(mut self) {
        for _ in 0..4 {
            self.tick_when_due();
        }
        assert!(self.deadline.is_none() && !self.ending, "{:?} has no way out", self.state());
        self.now = Duration::ZERO;
        self.register();
        self.end_session();
        self.session_ended(Ok(()));
    }
}

/// `STATUS;RETRY-AFTER;BODY`
fn response(part: &[u8]) -> (Response, &[u8]) {
    let mut fields = part.splitn(3, |byte| *byte == b';');
    let status = text(fields.next().unwrap_or_default()).parse().unwrap_or_default();
    let asked = text(fields.next().unwrap_or_default());
    let body = fields.next().unwrap_or_default();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    (Response::new(status, body).retry_after(retry_after::parse([asked.as_ref()], now)), body)
}

/// A device takes nothing for its hub but what the service said, read by a second reader of JSON.
fn registered_from(registered: &RegistrationResult, body: &[u8]) {
    assert_eq!(registered.body, body);
    assert!(!registered.assigned_hub.is_empty() && !registered.device_id.is_empty());
    if let Some(payload) = &registered.payload {
        assert!(String::from_utf8_lossy(body).contains(payload.get()), "to the letter");
    }
    // Numbers too large for it are no fault of the answer.
    let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
    assert!(value["status"].as_str().is_some_and(|word| word.eq_ignore_ascii_case("assigned")));
    assert_eq!(value["registrationState"]["assignedHub"], *registered.assigned_hub);
    assert_eq!(value["registrationState"]["deviceId"], *registered.device_id);
}

fn readable(error: &Error) {
    let text = error.to_string();
    assert!(!text.is_empty() && error.hint().is_none_or(|hint| !hint.is_empty()));
    if let (ErrorKind::Rejected, Some(429 | 500..=599)) = (error.kind(), error.status()) {
        assert!(error.is_retryable(), "{text}");
    }
    if error.kind() == ErrorKind::Protocol {
        assert!(!error.is_retryable(), "{text}");
    }
}
