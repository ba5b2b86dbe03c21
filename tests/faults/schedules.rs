//! Random schedules: somebody registers, drops, cancels, ends sessions and waits, in any order and at once, while
//! the transport answers, delays, fails or is silent, as a seed says. Whatever the seed, some things must hold.
//!
//! The clock is paused, so that a schedule of hours takes no time, and the same seed gives the same schedule, step by
//! step.

mod random;
mod transport;

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use dps_client::{Error, ErrorKind, OperationStatus, RegistrationResult, Settings, StateMachine};
use dps_conformance::{adjusted, drop_after};
use tokio::{
    task::JoinSet,
    time::{Instant, advance, sleep},
};

use random::Random;
pub(crate) use transport::Call;
use transport::{Script, Transport};

use crate::environment::{answers, request};

/// What somebody does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Register,
    RegisterAndDropAfter(Duration),
    RegisterAndDropAfterPolls(usize),
    Cancel,
    EndSession,
    EndSessionAndDropAfter(Duration),
    Pause(Duration),
    /// The computer sleeps: all timers are late.
    Suspend(Duration),
    /// Somebody watches the events for a while and goes away.
    WatchAndLeave,
}

impl Act {
    fn random(random: &mut Random) -> Self {
        match random.below(30) {
            0..6 => Self::Register,
            6..8 => Self::RegisterAndDropAfter(random.time(20_000)),
            8..10 => Self::RegisterAndDropAfterPolls(random.below(12) as usize),
            10..12 => Self::Cancel,
            12..15 => Self::EndSession,
            15..17 => Self::EndSessionAndDropAfter(random.time(800)),
            17..22 => Self::Pause(random.time(5_000)),
            22..28 => Self::Pause(random.time(120_000)),
            28 => Self::Suspend(random.time(100_000)),
            _ => Self::WatchAndLeave,
        }
    }
}

/// Everything that a seed decides.
#[derive(Debug)]
struct Schedule {
    acts: Vec<Act>,
    script: Script,
    settings: Settings,
}

impl Schedule {
    fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let acts = (0..1 + random.below(14)).map(|_| Act::random(&mut random)).collect();
        let settings = adjusted(Settings::default(), |settings| settings.jitter_percent = 0);
        let settings = match random.below(4) {
            0 => adjusted(settings, |settings| {
                settings.poll_floor = Duration::ZERO;
                settings.poll_interval = Duration::from_millis(100);
            }),
            1 => adjusted(settings, |settings| {
                settings.registration_timeout = Duration::from_secs(10)
            }),
            _ => settings,
        };
        let script = Script::random(&mut random);
        Self { acts, script, settings }
    }
}

/// How one call ended, and when it began and ended.
#[derive(Debug)]
enum End {
    Register(u32, Duration, Duration, Option<Result<RegistrationResult, Error>>),
    Session(Duration, Duration, Option<Result<(), Error>>),
    /// Somebody watched, and called nothing.
    Watched,
}

/// Plays the schedule of a seed.
///
/// # Errors
/// What did not hold.
pub(crate) fn play(seed: u64) -> Result<Played, String> {
    let schedule = Schedule::of(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        runtime.block_on(perform(&schedule))
    }));
    match played {
        Ok(played) => played,
        Err(_) => Err("it panicked".to_owned()),
    }
}

/// The schedule of a seed, for people.
pub(crate) fn describe(seed: u64) -> String {
    let schedule = Schedule::of(seed);
    let mut text = format!("seed {seed}\n{:?}\nacts:\n", schedule.settings);
    for act in &schedule.acts {
        writeln!(text, "  {act:?}").ok();
    }
    text + &schedule.script.describe()
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Played {
    pub(crate) calls: Vec<Call>,
    /// One word for each registration and each end of session.
    pub(crate) outcomes: Vec<String>,
    pub(crate) virtual_time: Duration,
}

async fn perform(schedule: &Schedule) -> Result<Played, String> {
    let settings = schedule.settings;
    let transport = Transport::new(&schedule.script);
    let machine = StateMachine::new(transport.clone(), settings);
    let mut events = machine.operation_status();
    let assigned = Arc::new(Mutex::new(0_usize));
    let counter = Arc::clone(&assigned);
    let watching = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let OperationStatus::Assigned { .. } = event {
                *counter.lock().expect("nobody panics") += 1;
            }
        }
    });
    let origin = Instant::now();
    let mut tasks = JoinSet::new();
    let mut suspended = Duration::ZERO;
    let mut calls = 0;
    for (number, act) in schedule.acts.iter().enumerate() {
        let machine = machine.clone();
        let number = number as u32 + 1;
        match *act {
            Act::Register => {
                calls += 1;
                tasks.spawn(async move {
                    let begin = origin.elapsed();
                    let outcome = machine.register(request(number)).await;
                    End::Register(number, begin, origin.elapsed(), Some(outcome))
                });
            }
            Act::RegisterAndDropAfter(after) => {
                calls += 1;
                tasks.spawn(async move {
                    let begin = origin.elapsed();
                    let registration = machine.register(request(number));
                    let outcome = tokio::time::timeout(after, registration).await.ok();
                    End::Register(number, begin, origin.elapsed(), outcome)
                });
            }
            Act::RegisterAndDropAfterPolls(polls) => {
                calls += 1;
                tasks.spawn(async move {
                    let begin = origin.elapsed();
                    let outcome = drop_after(polls, machine.register(request(number))).await;
                    End::Register(number, begin, origin.elapsed(), outcome)
                });
            }
            Act::EndSession => {
                calls += 1;
                tasks.spawn(async move {
                    let begin = origin.elapsed();
                    let outcome = machine.end_session().await;
                    End::Session(begin, origin.elapsed(), Some(outcome))
                });
            }
            Act::EndSessionAndDropAfter(after) => {
                calls += 1;
                tasks.spawn(async move {
                    let begin = origin.elapsed();
                    let outcome = tokio::time::timeout(after, machine.end_session()).await.ok();
                    End::Session(begin, origin.elapsed(), outcome)
                });
            }
            Act::Cancel => machine.cancel(),
            Act::Pause(pause) => sleep(pause).await,
            Act::Suspend(time) => {
                suspended += time;
                advance(time).await;
            }
            Act::WatchAndLeave => {
                let mut events = machine.operation_status();
                tasks.spawn(async move {
                    let _event = tokio::time::timeout(Duration::from_secs(1), events.next()).await;
                    End::Watched
                });
            }
        }
        tokio::task::yield_now().await;
    }
    let ends = tasks.join_all().await;
    let mut outcomes = Vec::new();
    let mut successes = 0;
    for end in &ends {
        outcomes.push(check_end(end, &settings, suspended)?);
        successes += usize::from(matches!(end, End::Register(_, _, _, Some(Ok(_)))));
    }
    let ended = ends.iter().filter(|end| !matches!(end, End::Watched)).count();
    if ended != calls {
        return Err(format!("{ended} outcomes of {calls} calls"));
    }
    transport.check(&settings, suspended)?;
    check_answers(&ends, &transport)?;
    afterwards(&machine, &transport).await?;
    drop(machine);
    watching.await.map_err(|error| format!("the watcher: {error}"))?;
    let events = *assigned.lock().expect("nobody panics");
    // The one that shows that the machine is usable is among them.
    if events != successes + 1 {
        return Err(format!("{events} events say assigned, of {} registrations", successes + 1));
    }
    Ok(Played { calls: transport.calls(), outcomes, virtual_time: origin.elapsed() })
}

/// Every call ends in its time, with an outcome that it may have.
fn check_end(end: &End, settings: &Settings, suspended: Duration) -> Result<String, String> {
    match end {
        End::Register(number, begin, over, outcome) => {
            // It may have to wait for one end of session after another; each has its own bound.
            let bound =
                settings.registration_timeout + settings.end_session_timeout * 16 + suspended;
            if *over - *begin > bound {
                return Err(format!("registration {number} took {:?}", *over - *begin));
            }
            let Some(outcome) = outcome else { return Ok("dropped".to_owned()) };
            match outcome {
                Ok(_) => {
                    answers(outcome, *number)?;
                    Ok("assigned".to_owned())
                }
                Err(error) if error.kind() == ErrorKind::Configuration => {
                    Err(format!("registration {number} failed with {error:?}"))
                }
                Err(error) => Ok(match error.stage() {
                    Some(stage) => format!("{} at {stage}", error.kind()),
                    None => error.kind().to_string(),
                }),
            }
        }
        End::Session(begin, over, outcome) => {
            let bound = settings.end_session_timeout * 16 + suspended;
            if *over - *begin > bound {
                return Err(format!("an end of session took {:?}", *over - *begin));
            }
            match outcome {
                None => Ok("left".to_owned()),
                Some(Ok(())) => Ok("ended".to_owned()),
                Some(Err(error)) => match error.kind() {
                    ErrorKind::Connection | ErrorKind::Timeout => {
                        Ok(format!("{} at the end of the session", error.kind()))
                    }
                    _ => Err(format!("an end of session failed with {error:?}")),
                },
            }
        }
        End::Watched => Ok("watched".to_owned()),
    }
}

/// The result counts the very questions that were asked for it.
fn check_answers(ends: &[End], transport: &Transport) -> Result<(), String> {
    for end in ends {
        let End::Register(number, _, _, Some(outcome)) = end else { continue };
        let queries = transport.queries_of(*number);
        match outcome {
            Ok(registered) if registered.polls as usize != queries => {
                return Err(format!("{} polls, {queries} questions", registered.polls));
            }
            Err(Error::InvalidOperation) if transport.was_called_for(*number) => {
                return Err(format!("registration {number} was refused and sent all the same"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whatever came before: the next registration works, and the session ends.
async fn afterwards(
    machine: &StateMachine<Transport>,
    transport: &Transport,
) -> Result<(), String> {
    if transport.under_way() > 0 {
        return Err("a call to the transport was left behind".to_owned());
    }
    transport.be_healthy();
    let registered = machine.register(request(999)).await;
    answers(&registered, 999).map_err(|why| format!("the next registration: {why}"))?;
    machine.end_session().await.map_err(|error| format!("the last end: {error:?}"))?;
    match transport.calls().last() {
        Some(Call::End { .. }) => Ok(()),
        other => Err(format!("the last end did not reach the transport: {other:?}")),
    }
}
