//! Some of the matrix over real connections, all at once.

use std::time::{Duration, Instant};

use dps_client::{ErrorKind, Transport};
use dps_conformance::{Bench, Cell, Credential, adjusted, fast, settle};
use dps_emulator::{Behavior, Fault, RetryAfter};
use tokio::task::LocalSet;

use crate::report::Outcome;

/// The wait when the service does not say.
const USUAL: Duration = Duration::from_millis(40);

const DEADLINE: Duration = Duration::from_secs(20);

/// A value, and how long it asks to wait; `None` for junk.
fn inputs() -> Vec<(RetryAfter, Option<Duration>)> {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let twice = RetryAfter::Raw(vec!["0".to_owned(), "1".to_owned()]);
    vec![
        (RetryAfter::Absent, None),
        (RetryAfter::Seconds(0), seconds(0)),
        (RetryAfter::Seconds(1), seconds(1)),
        // A date has whole seconds: it names a moment up to one second before.
        (RetryAfter::DateIn(2), seconds(1)),
        (RetryAfter::raw("soon"), None),
        (RetryAfter::raw("-5"), None),
        (twice, seconds(1)),
        (RetryAfter::Seconds(600), seconds(600)),
        (RetryAfter::raw("99999999999999999999999"), seconds(u64::MAX)),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Assigning,
    AssigningAgain,
    RegisterThrottled,
    QueryThrottled,
}

/// How many registrations there were, and what went wrong.
pub(crate) fn run(transports: &[Transport]) -> (usize, Vec<String>) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let local = LocalSet::new();
    let outcomes = local.block_on(&runtime, async {
        let mut tasks = Vec::new();
        for transport in transports.iter().copied() {
            for answer in [
                Answer::Assigning,
                Answer::AssigningAgain,
                Answer::RegisterThrottled,
                Answer::QueryThrottled,
            ] {
                for (retry_after, asks) in inputs() {
                    tasks.push(tokio::task::spawn_local(async move {
                        let outcome = check(transport, answer, retry_after.clone(), asks).await;
                        outcome.map_err(|why| {
                            format!("{retry_after:?}, {answer:?}, {transport}: {why}")
                        })
                    }));
                }
            }
        }
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.unwrap_or_else(|error| Err(error.to_string())));
        }
        outcomes
    });
    (outcomes.len(), outcomes.into_iter().filter_map(Result::err).collect())
}

async fn check(
    transport: Transport,
    answer: Answer,
    retry_after: RetryAfter,
    asks: Option<Duration>,
) -> Outcome {
    let throttle = Fault::refuse(429).retry_after(retry_after.clone());
    // Which two requests lie around the wait.
    let (behavior, first) = match answer {
        Answer::Assigning => (Behavior::new().polls(1).retry_after(retry_after), 0),
        Answer::AssigningAgain => {
            let once = Fault::none().retry_after(RetryAfter::Absent);
            (Behavior::new().polls(2).retry_after(retry_after).on_register(once), 1)
        }
        Answer::RegisterThrottled => (Behavior::new().on_register(throttle), 0),
        Answer::QueryThrottled => (Behavior::new().polls(1).on_query(throttle), 1),
    };
    let cell = Cell { transport, credential: Credential::SymmetricKey };
    let bench = Bench::new(cell, behavior).await;
    let settings = adjusted(fast(), |settings| {
        settings.poll_interval = USUAL;
        settings.poll_floor = Duration::from_millis(20);
        settings.registration_timeout = DEADLINE;
    });
    let client = bench.client_with(bench.config.clone(), settings);
    let begin = Instant::now();
    let outcome = client.register(bench.request()).await;
    let took = begin.elapsed();
    settle(&client).await;
    let asked = asks.unwrap_or(USUAL).max(settings.poll_floor);
    if asked >= DEADLINE {
        let Err(error) = outcome else { return Err("it was assigned".to_owned()) };
        let kind = match answer {
            Answer::Assigning | Answer::AssigningAgain => ErrorKind::Timeout,
            Answer::RegisterThrottled | Answer::QueryThrottled => ErrorKind::Rejected,
        };
        if error.kind() != kind || error.retry_after() != Some(asked) {
            return Err(format!("it failed with {error:?}"));
        }
        return if took < DEADLINE / 2 { Ok(()) } else { Err(format!("it took {took:?}")) };
    }
    outcome.map_err(|error| format!("{error:?}"))?;
    let times = bench.request_times();
    let (Some(before), Some(after)) = (times.get(first), times.get(first + 1)) else {
        return Err(format!("too few requests: {times:?}"));
    };
    let waited = Duration::from_millis(after - before);
    // Times are in whole milliseconds.
    if waited + Duration::from_millis(1) < asked {
        return Err(format!("{waited:?} after an answer that asked for {asked:?}"));
    }
    if waited > asked + Duration::from_secs(3) {
        return Err(format!("{waited:?} after an answer that asked for {asked:?}: too long"));
    }
    Ok(())
}
