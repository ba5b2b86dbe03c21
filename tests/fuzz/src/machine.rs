//! The state machine: any answers, cancels, ends and delays, in any order, and what must hold all along.

use std::time::{Duration, SystemTime};

use dps_simulator::Driven;
use dps_state_machine::{
    ConnectionError, Error, ErrorKind, RegistrationResult, Response, Settings, Stage,
    machine::{Input, Output, State},
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
    driven: Driven,
    now: Duration,
}

impl Run {
    fn new(choice: u8) -> Self {
        let bit = |place: u8| choice & (1 << place) != 0;
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
        let now = if bit(5) { Duration::MAX - Duration::from_secs(90) } else { Duration::ZERO };
        Self { driven: Driven::new(settings, choice.into(), now), now }
    }

    fn event(&mut self, kind: u8, rest: &[u8]) {
        match kind {
            b'r' => self.step(Input::Register, None),
            b'c' => self.step(Input::Cancel, None),
            b'e' => self.step(Input::EndSession, None),
            b'x' => self.step(Input::Abandon, None),
            b't' => self.tick_when_due(),
            b'T' => {
                let seconds = rest.first().copied().unwrap_or_default();
                let later = self.now.saturating_add(Duration::from_secs(seconds.into()));
                // Drivers tick at the time, not past it.
                self.now = self.driven.state().until().map_or(later, |until| later.min(until));
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

    fn session_ended(&mut self, result: Result<(), Error>) {
        if let Some(exchange) = self.driven.end_of_session() {
            self.step(Input::SessionEnded(exchange, result), None);
            assert_eq!(*self.driven.state(), State::Disconnected);
        }
    }

    fn tick_when_due(&mut self) {
        if let Some(until) = self.driven.state().until() {
            self.now = self.now.max(until);
            self.step(Input::Tick, None);
        }
    }

    fn answer(&mut self, answer: Result<Response, Error>, body: &[u8]) {
        if let Some(exchange) = self.driven.request() {
            self.step(Input::Answer(exchange, answer), Some(body));
        }
    }

    fn late(&mut self, response: Response) {
        let Some(stale) = self.driven.stale() else { return };
        let before = self.driven.machine().clone();
        for input in [Input::Answer(stale, Ok(response)), Input::SessionEnded(stale, Ok(()))] {
            let outputs = self.driven.step(self.now, input);
            assert!(outputs.is_empty() && *self.driven.machine() == before, "too late to matter");
        }
    }

    /// Steps the machine, and reads what comes out like a user.
    fn step(&mut self, input: Input, body: Option<&[u8]>) {
        let deadline = self.driven.deadline();
        for output in self.driven.step(self.now, input) {
            match output {
                Output::Complete(outcome) => {
                    assert!(deadline.is_some_and(|deadline| self.now <= deadline), "too late");
                    match outcome {
                        Ok(result) => registered_from(&result, body.expect("an answer")),
                        Err(error) => readable(&error),
                    }
                }
                Output::Emit(event) => assert!(!format!("{event:?}").is_empty()),
                Output::Refuse(error) => readable(&error),
                _ => {}
            }
        }
    }

    /// Without another word from anybody, time ends all there is; then the machine can do it all again.
    fn finish(mut self) {
        for _ in 0..4 {
            self.tick_when_due();
        }
        let state = self.driven.state();
        assert!(matches!(state, State::Disconnected | State::Idle), "{state:?} has no way out");
        self.now = Duration::ZERO;
        self.step(Input::Register, None);
        self.step(Input::EndSession, None);
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
