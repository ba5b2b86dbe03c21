//! A schedule played on a paused clock, so that hours take no time, and what must hold whatever the seed.

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use dps_state_machine::{
    Error, ErrorKind, OperationStatus, OperationStatusEvents, RegistrationResult, Settings,
    StateMachine,
};
use tokio::{
    task::JoinSet,
    time::{Instant, advance, sleep, timeout},
};

use crate::{Act, Call, Schedule, Transport, answers::request_of, drop_after};

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub struct Played {
    /// What the transport was called for.
    pub calls: Vec<Call>,
    /// One word for each registration and each end of session.
    pub outcomes: Vec<String>,
    /// How long it took on the paused clock.
    pub virtual_time: Duration,
}

/// How one call to the machine ended; without an outcome it was dropped.
struct End {
    took: Duration,
    outcome: Outcome,
}

enum Outcome {
    Register(String, Box<Option<Result<RegistrationResult, Error>>>),
    Session(Option<Result<(), Error>>),
    Watched,
}

/// Plays the schedule of a seed.
///
/// # Errors
/// What did not hold.
pub fn play(seed: u64) -> Result<Played, String> {
    play_schedule(&Schedule::of(seed))
}

/// Plays a schedule.
///
/// # Errors
/// What did not hold.
///
/// # Panics
/// When there can be no runtime.
pub fn play_schedule(schedule: &Schedule) -> Result<Played, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    catch_unwind(AssertUnwindSafe(|| runtime.block_on(perform(schedule))))
        .unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// The schedule of a seed, for people.
#[must_use]
pub fn describe(seed: u64) -> String {
    let Schedule { acts, script, settings } = Schedule::of(seed);
    let mut text = format!("seed {seed}\n{settings:?}\nacts:\n");
    for act in &acts {
        writeln!(text, "  {act:?}").ok();
    }
    text.push_str("answers:\n");
    for (after, answer) in &script.answers {
        writeln!(text, "  after {after:?} {answer:?}").ok();
    }
    text.push_str("ends of sessions:\n");
    for (after, result) in &script.ends_of_session {
        writeln!(text, "  after {after:?} {result:?}").ok();
    }
    text
}

async fn perform(Schedule { acts, script, settings }: &Schedule) -> Result<Played, String> {
    let transport = Transport::new(script.clone());
    let machine = transport.machine_with(*settings);
    let events = tokio::spawn(count_assigned(machine.operation_status()));
    let origin = Instant::now();
    let mut tasks = JoinSet::new();
    let mut suspended = Duration::ZERO;
    for (number, act) in acts.iter().enumerate() {
        match *act {
            Act::Cancel => machine.cancel(),
            Act::Pause(pause) => sleep(pause).await,
            Act::Suspend(time) => {
                suspended += time;
                advance(time).await;
            }
            act => drop(tasks.spawn(carry_out(machine.clone(), act, format!("dev-{number}")))),
        }
        tokio::task::yield_now().await;
    }
    let begun = tasks.len();
    let ends = tasks.join_all().await;
    if ends.len() != begun {
        return Err(format!("{} outcomes of {begun} calls", ends.len()));
    }
    transport.check(settings, suspended)?;
    let outcomes = ends.iter().map(|end| check_end(end, settings, suspended, &transport));
    let outcomes = outcomes.collect::<Result<Vec<_>, _>>()?;
    afterwards(&machine, &transport).await?;
    drop(machine);
    let events = events.await.map_err(|error| format!("the watcher: {error}"))?;
    // The one that shows that the machine is usable is among them.
    let successes = outcomes.iter().filter(|outcome| *outcome == "assigned").count() + 1;
    if events != successes {
        return Err(format!("{events} events say assigned, of {successes} registrations"));
    }
    Ok(Played { calls: transport.calls(), outcomes, virtual_time: origin.elapsed() })
}

async fn count_assigned(mut events: OperationStatusEvents) -> usize {
    let mut assigned = 0;
    while let Some(event) = events.next().await {
        assigned += usize::from(matches!(event, OperationStatus::Assigned { .. }));
    }
    assigned
}

async fn carry_out(machine: StateMachine<Transport>, act: Act, device: String) -> End {
    let begin = Instant::now();
    let register = machine.register(request_of(&device));
    let outcome = match act {
        Act::Register => Outcome::Register(device, Box::new(Some(register.await))),
        Act::RegisterAndDropAfter(after) => {
            Outcome::Register(device, Box::new(timeout(after, register).await.ok()))
        }
        Act::RegisterAndDropAfterPolls(polls) => {
            Outcome::Register(device, Box::new(drop_after(polls, register).await))
        }
        Act::EndSession => Outcome::Session(Some(machine.end_session().await)),
        Act::EndSessionAndDropAfter(after) => {
            Outcome::Session(timeout(after, machine.end_session()).await.ok())
        }
        _ => {
            let mut events = machine.operation_status();
            let _event = timeout(Duration::from_secs(1), events.next()).await;
            Outcome::Watched
        }
    };
    End { took: begin.elapsed(), outcome }
}

/// Every call ends in its time, with an outcome that it may have. In a word.
fn check_end(
    End { took, outcome }: &End,
    settings: &Settings,
    suspended: Duration,
    transport: &Transport,
) -> Result<String, String> {
    // It may have to wait for one end of session after another; each has its own bound.
    let ends = settings.end_session_timeout * 16 + suspended;
    let within = |bound: Duration, what: &str| {
        if *took > bound { Err(format!("{what} took {took:?}")) } else { Ok(()) }
    };
    match outcome {
        Outcome::Watched => Ok("watched".to_owned()),
        Outcome::Session(result) => {
            within(ends, "an end of session")?;
            match result {
                None => Ok("left".to_owned()),
                Some(Ok(())) => Ok("ended".to_owned()),
                Some(Err(error)) => match error.kind() {
                    kind @ (ErrorKind::Connection | ErrorKind::Timeout) => {
                        Ok(format!("{kind} at the end of the session"))
                    }
                    _ => Err(format!("an end of session failed with {error:?}")),
                },
            }
        }
        Outcome::Register(device, result) => {
            within(settings.registration_timeout + ends, device)?;
            let Some(result) = &**result else { return Ok("dropped".to_owned()) };
            check_result(device, result, transport)
        }
    }
}

/// A result is made from the answer to its own registration and counts the very requests that were made for it.
fn check_result(
    device: &str,
    result: &Result<RegistrationResult, Error>,
    transport: &Transport,
) -> Result<String, String> {
    let (registrations, queries) = transport.calls_of(device);
    match result {
        Ok(result) if result.polls as usize != queries => {
            Err(format!("{device}: {} polls, {queries} requests", result.polls))
        }
        Ok(result) if transport.last_body(device).as_ref() != Some(&result.body) => {
            Err(format!("{device} got the result of another registration"))
        }
        Ok(_) => Ok("assigned".to_owned()),
        Err(Error::InvalidOperation) if registrations + queries > 0 => {
            Err(format!("{device} was refused and sent all the same"))
        }
        Err(error) if error.kind() == ErrorKind::Configuration => {
            Err(format!("{device} failed with {error:?}"))
        }
        Err(error) => Ok(match error.stage() {
            Some(stage) => format!("{} at {stage}", error.kind()),
            None => error.kind().to_string(),
        }),
    }
}

/// Whatever came before: no call is left, the next registration works, and the session ends.
async fn afterwards(
    machine: &StateMachine<Transport>,
    transport: &Transport,
) -> Result<(), String> {
    if transport.under_way() > 0 {
        return Err("a call to the transport was left behind".to_owned());
    }
    transport.be_healthy();
    let registered = machine.register(request_of("dev-last")).await;
    registered.map_err(|error| format!("the next registration: {error:?}"))?;
    machine.end_session().await.map_err(|error| format!("the last end: {error:?}"))?;
    match transport.calls().last() {
        Some(Call::End) => Ok(()),
        other => Err(format!("the last end did not reach the transport: {other:?}")),
    }
}
