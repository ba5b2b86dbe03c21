//! The retry-after matrix: whatever a service says about when to come back, in whatever answer, on whatever transport,
//! the next request is never earlier than asked, never earlier than the floor, and never past the deadline.
//!
//! The bytes of each transport go through the transport's own codec into the pure machine, and time is a number: hours cost
//! nothing. [`sockets`] has some of it over real connections.

mod bytes;
mod inputs;
pub(crate) mod sockets;

use std::time::Duration;

use dps_client::{Error, ErrorKind, Settings, Stage, Transport};
use dps_conformance::adjusted;
use dps_state_machine::{
    Response,
    machine::{ExchangeId, Input as Event, Machine, Output},
};

use crate::report::Outcome;
use bytes::{Answer, response};
use inputs::{INPUTS, Input};

/// The answer that says when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Situation {
    /// To which request.
    stage: Stage,
    /// Refused for now; assigning otherwise.
    throttled: bool,
}

const SITUATIONS: [Situation; 4] = [
    Situation { stage: Stage::Register, throttled: false },
    Situation { stage: Stage::Query, throttled: false },
    Situation { stage: Stage::Register, throttled: true },
    Situation { stage: Stage::Query, throttled: true },
];

const ASSIGNING: Answer =
    Answer { status: 202, body: r#"{"operationId":"op-1","status":"assigning"}"# };

const THROTTLED: Answer =
    Answer { status: 429, body: r#"{"errorCode":429001,"message":"Too many requests"}"# };

/// What all came to.
#[derive(Debug, Default)]
pub(crate) struct Total {
    pub(crate) inputs: usize,
    pub(crate) checks: usize,
    pub(crate) failures: Vec<String>,
    /// A line for each input, a column for each transport.
    pub(crate) table: String,
}

/// Checks every input in every situation on every transport.
pub(crate) fn run() -> Total {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(check_all())
}

async fn check_all() -> Total {
    let mut total = Total { inputs: INPUTS.len(), ..Total::default() };
    let width = INPUTS.iter().map(|input| input.name.len()).max().unwrap_or_default();
    total.table = format!("{:width$}", "");
    for transport in Transport::ALL {
        total.table += &format!("  {:8}", transport.as_str());
    }
    for input in INPUTS {
        total.table += &format!("\n{:width$}", input.name);
        for transport in Transport::ALL {
            let word = check_cell(&mut total, transport, input).await;
            total.table += &format!("  {word:8}");
        }
        total.table.truncate(total.table.trim_end().len());
    }
    total.table += "\n\na  only AMQP has values that are no text";
    total
}

async fn check_cell(total: &mut Total, transport: Transport, input: &Input) -> &'static str {
    let mut word = "a";
    for situation in SITUATIONS {
        let answer = if situation.throttled { THROTTLED } else { ASSIGNING };
        let response = response(transport, situation.stage, answer, input, inputs::now()).await;
        let Some(response) = response else { continue };
        if word == "a" {
            word = "ok";
        }
        for settings in all_settings() {
            for begin in [Duration::ZERO, Duration::from_millis(1234)] {
                total.checks += 1;
                let outcome = check(situation, settings, begin, input.asks, response.clone());
                if let Err(why) = outcome {
                    word = "FAIL";
                    total.failures.push(format!(
                        "retry-after {:?} on {transport}, {situation:?}, {settings:?}: {why}",
                        input.name
                    ));
                }
            }
        }
    }
    word
}

/// As the real service wants it; without a floor; with time enough for hours; with jitter and without.
fn all_settings() -> [Settings; 4] {
    let usual = Settings::default();
    [
        usual,
        adjusted(usual, |settings| settings.jitter_percent = 0),
        adjusted(usual, |settings| {
            settings.poll_floor = Duration::ZERO;
            settings.poll_interval = Duration::from_millis(500);
        }),
        adjusted(usual, |settings| {
            settings.registration_timeout = Duration::from_secs(2 * 24 * 3600)
        }),
    ]
}

/// Brings a machine to the situation, gives it the answer, and looks at what it does from then on.
fn check(
    situation: Situation,
    settings: Settings,
    begin: Duration,
    asks: Option<Duration>,
    response: Response,
) -> Outcome {
    let mut now = begin;
    let deadline = begin + settings.registration_timeout;
    let mut machine = Machine::new(settings, 7);
    let outputs = machine.step(now, Event::Register);
    let mut exchange = request_of(&outputs).ok_or("it does not register")?;
    if situation.stage == Stage::Query {
        now += Duration::from_millis(40);
        let assigning = Ok(Response::new(202, ASSIGNING.body));
        let _emitted = machine.step(now, Event::Answer(exchange, assigning));
        now = machine.state().until().ok_or("it does not wait to poll")?;
        let outputs = machine.step(now, Event::Tick);
        exchange = request_of(&outputs).ok_or("it does not poll")?;
    }
    now += Duration::from_millis(60);
    let outputs = machine.step(now, Event::Answer(exchange, Ok(response)));
    let wait = asks.unwrap_or(settings.poll_interval).max(settings.poll_floor);
    let fits = now.checked_add(wait).is_some_and(|until| until < deadline);
    if !fits {
        return fails_now(situation, &outputs, wait);
    }
    let until = outputs
        .iter()
        .find_map(|output| match output {
            Output::Wait { until, .. } => Some(*until),
            _ => None,
        })
        .ok_or_else(|| format!("it does not wait: {outputs:?}"))?;
    // Only a wait after a refusal is spread.
    let percent = if situation.throttled { settings.jitter_percent } else { 0 };
    let jitter = wait / 100 * u32::from(percent);
    if until < now + wait {
        return Err(format!("it waits {:?}, asked for {wait:?}", until - now));
    }
    if until > now + wait + jitter || until >= deadline {
        return Err(format!("it waits {:?}, asked for {wait:?}: too long", until - now));
    }
    // Nothing happens before, and then the request goes out.
    let early = machine.step(until - Duration::from_nanos(1), Event::Tick);
    if !early.is_empty() {
        return Err(format!("it does something early: {early:?}"));
    }
    let outputs = machine.step(until, Event::Tick);
    let again = matches!(
        (outputs.as_slice(), situation.stage, situation.throttled),
        ([Output::RegistrationRequest(_)], Stage::Register, true)
            | ([Output::QueryOperationStatus { .. }], _, _)
    );
    if again { Ok(()) } else { Err(format!("the wrong request follows: {outputs:?}")) }
}

fn request_of(outputs: &[Output]) -> Option<ExchangeId> {
    outputs.iter().find_map(|output| match output {
        Output::RegistrationRequest(exchange) | Output::QueryOperationStatus { exchange, .. } => {
            Some(exchange.id)
        }
        _ => None,
    })
}

/// A wait that would pass the deadline fails at once and says when to come back.
fn fails_now(situation: Situation, outputs: &[Output], wait: Duration) -> Outcome {
    let error: &Error = outputs
        .iter()
        .find_map(|output| match output {
            Output::Complete(Err(error)) => Some(error),
            _ => None,
        })
        .ok_or_else(|| format!("it does not fail at once: {outputs:?}"))?;
    let kind = if situation.throttled { ErrorKind::Rejected } else { ErrorKind::Timeout };
    if error.kind() != kind || !error.is_retryable() {
        return Err(format!("it fails with {error:?}"));
    }
    match error.retry_after() {
        Some(waited) if waited == wait => Ok(()),
        waited => Err(format!("it says to come back after {waited:?}, not {wait:?}")),
    }
}
