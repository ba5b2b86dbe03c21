//! The fault matrix: what goes wrong, at every step, on every transport.
//!
//! In each cell a registration meets the fault. It must end with the right error and no later than its deadline;
//! once the fault is gone, the same client must register; and what both held on to must be given back.

mod edits;
mod plan;
mod rows;
mod service_faults;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use dps_client::{Client, Error, ErrorKind, Settings, Stage, Transport};
use dps_conformance::{adjusted, fast};
use dps_emulator::Behavior;
use tokio::time::timeout;

use crate::{
    environment::{Environment, Fixture, Setup, answers, request},
    peers::Injection,
    report::{CellReport, Outcome, STEPS, Table},
    resources::Resources,
};
use plan::{Cause, Expect, Plan, REASONS, Row, Scenario};
use rows::rows;

/// A deadline may be passed by this much: other work shares the processors.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(1);

/// What no answer at all would look like.
const HANG: Duration = Duration::from_secs(30);

/// Begins what a cell failed with when its time, which is short, ran out too soon: the machine is busy with something
/// else, and the cell is run once more with more time.
const NO_TIME: &str = "out of time: ";

/// For cells in which a request runs out of time.
const REQUEST: Duration = Duration::from_millis(600);

/// For cells that are tried again until the whole registration runs out of time.
const REGISTRATION: Duration = Duration::from_millis(1000);

const POLL_INTERVAL: Duration = Duration::from_millis(30);

/// In those cells, so long that time runs out in a wait and not in a request: then the error is the fault's own.
const AGAIN: Duration = Duration::from_millis(400);

const END_OF_SESSION: Duration = Duration::from_millis(300);

/// Runs the cells of a transport that fall to this shard, and tells each as it ends.
pub(crate) fn run(
    transport: Transport,
    shard: Shard,
    only: &Only,
    mut tell: impl FnMut(CellReport),
) {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let mut number = 0;
    for row in rows() {
        for step in STEPS {
            let Plan::Run(scenario) = row.plan(transport, step) else { continue };
            if !only.wants(row.name, step) {
                continue;
            }
            number += 1;
            if number % shard.of != shard.number {
                continue;
            }
            let panics = crate::panics();
            let run = |slowness| run_cell(&fixture, transport, step, &row, &scenario, slowness);
            let mut report = runtime.block_on(run(1));
            if matches!(&report.outcome, Err(why) if why.starts_with(NO_TIME)) {
                report = runtime.block_on(run(5));
                report.again = true;
            }
            if crate::panics() > panics {
                report.outcome = Err("something panicked; see above".to_owned());
            }
            tell(report);
        }
    }
}

/// One of several processes that share the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) number: usize,
    pub(crate) of: usize,
}

/// What is asked for on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Only {
    pub(crate) row: Option<String>,
    pub(crate) step: Option<String>,
}

impl Only {
    fn wants(&self, row: &str, step: Stage) -> bool {
        self.row.as_ref().is_none_or(|wanted| row.contains(wanted.as_str()))
            && self.step.as_ref().is_none_or(|wanted| wanted == step.as_str())
    }
}

async fn run_cell(
    fixture: &Fixture,
    transport: Transport,
    step: Stage,
    row: &Row,
    scenario: &Scenario,
    slowness: u32,
) -> CellReport {
    let mut report = CellReport::new(row.name, transport, step);
    let before = Resources::now();
    let setup = Setup {
        proxy: scenario.proxy,
        clock_ahead: scenario.clock_ahead,
        ..Setup::new(transport, scenario.behavior.clone())
    };
    let mut environment = Environment::start(fixture, &setup).await;
    if let Cause::NoSuchName = scenario.cause {
        environment.use_unresolvable_name(scenario.proxy);
    }
    report.outcome = act(&environment, scenario, slowness, &mut report).await;
    drop(environment);
    if let (Ok(_), Err(left)) = (&report.outcome, before.are_back().await) {
        report.outcome = Err(format!("after all is over {left}"));
    }
    report
}

async fn act(
    environment: &Environment,
    scenario: &Scenario,
    slowness: u32,
    report: &mut CellReport,
) -> Outcome {
    match scenario.cause {
        Cause::Injection(Injection { at: Stage::EndSession, .. }) | Cause::Service => {}
        Cause::Injection(injection) => environment.man_in_the_middle.make(injection),
        Cause::ControlledPort(state) => environment.man_in_the_middle.turn(state).await,
        // More than a registration makes in its time.
        Cause::Connection(fault) => environment.bench.emulator.set_connection_faults([fault; 200]),
        Cause::NoSuchName => {}
    }
    let (settings, bound) = bounds(scenario, slowness);
    let client = environment.client(settings);
    let before = Resources::now();
    let begin = Instant::now();
    let outcome = timeout(HANG, client.register(request(1))).await;
    // The time of one request begins with it.
    let begin = if bound == settings.request_timeout { environment.requested() } else { begin };
    report.took = begin.elapsed();
    report.bound = bound;
    let outcome = outcome.map_err(|_| format!("no end after {HANG:?}"))?;
    match scenario.expect {
        Expect::Assigned => answers(&outcome, 1)?,
        Expect::Fails { .. } => is_expected(outcome.err(), scenario.expect)?,
        Expect::Ends => {
            answers(&outcome, 1)?;
            end(&client, environment, scenario, report).await?;
        }
    }
    if report.took > bound + TOLERANCE {
        return Err(format!("took {:?}, {:?} past the deadline", report.took, report.took - bound));
    }
    if let Cause::Injection(_) = scenario.cause {
        if environment.man_in_the_middle.injected() == 0 {
            return Err(format!("{NO_TIME}the fault was never injected: the cell shows nothing"));
        }
        if environment.man_in_the_middle.misses() > 0 {
            return Err("a message had nothing in it to change: the cell shows nothing".to_owned());
        }
    }
    recover(&client, environment, scenario).await?;
    let ended = timeout(HANG, client.end_session()).await;
    ended
        .map_err(|_| "the end of the session hangs".to_owned())?
        .map_err(|error| format!("the session of the second registration did not end: {error}"))?;
    report.given_back = before.are_back().await?;
    Ok(())
}

/// The settings of a cell, and which bound holds for its registration.
fn bounds(scenario: &Scenario, slowness: u32) -> (Settings, Duration) {
    let settings = adjusted(fast(), |settings| {
        settings.poll_interval = POLL_INTERVAL;
        settings.end_session_timeout = END_OF_SESSION;
    });
    let (request, registration, again) =
        (REQUEST * slowness, REGISTRATION * slowness, AGAIN * slowness);
    match scenario.expect {
        Expect::Fails { kind: ErrorKind::Timeout, stage, .. } => {
            if scenario.behavior == Behavior::new().polls(u32::MAX) && stage == Stage::Query {
                (
                    adjusted(settings, |settings| settings.registration_timeout = registration),
                    registration,
                )
            } else {
                (adjusted(settings, |settings| settings.request_timeout = request), request)
            }
        }
        // The second connection is what fails.
        Expect::Fails { retryable: true, .. } if scenario.dies() => (
            adjusted(settings, |settings| settings.registration_timeout = registration),
            registration,
        ),
        // What can pass is tried again until time runs out.
        Expect::Fails { retryable: true, .. } => {
            let settings = adjusted(settings, |settings| {
                settings.poll_interval = again;
                settings.max_backoff = again;
            });
            (
                adjusted(settings, |settings| settings.registration_timeout = registration),
                registration,
            )
        }
        _ => (settings, settings.registration_timeout),
    }
}

fn is_expected(error: Option<Error>, expect: Expect) -> Outcome {
    let Some(error) = error else { return Err("it was assigned".to_owned()) };
    let Expect::Fails { kind, stage, retryable } = expect else { return Ok(()) };
    let is = (error.kind(), error.stage(), error.is_retryable());
    if is == (kind, Some(stage), retryable) {
        return Ok(());
    }
    let text = |(kind, stage, retryable): (_, Option<Stage>, bool)| {
        let stage = stage.map_or("none", Stage::as_str);
        format!("{kind} at {stage}{}", if retryable { ", retryable" } else { "" })
    };
    let why = format!("{}, not {}: {error}", text(is), text((kind, Some(stage), retryable)));
    Err(if error.kind() == ErrorKind::Timeout { format!("{NO_TIME}{why}") } else { why })
}

/// The end of a session whose connection has an injected fault.
async fn end(
    client: &Client,
    environment: &Environment,
    scenario: &Scenario,
    report: &mut CellReport,
) -> Outcome {
    if let Cause::Injection(injection) = scenario.cause {
        environment.man_in_the_middle.make(injection);
        let injected = timeout(HANG, environment.man_in_the_middle.has_injected()).await;
        injected.map_err(|_| "there is no connection that could break".to_owned())?;
    }
    let begin = Instant::now();
    let ended = timeout(HANG, client.end_session()).await;
    (report.took, report.bound) = (begin.elapsed(), END_OF_SESSION);
    match ended.map_err(|_| "the end of the session hangs".to_owned())? {
        Err(error) if error.stage() != Some(Stage::EndSession) => {
            Err(format!("the end of the session failed elsewhere: {error:?}"))
        }
        _ if report.took > END_OF_SESSION + TOLERANCE => {
            Err(format!("the end of the session took {:?}", report.took))
        }
        _ => Ok(()),
    }
}

/// The fault is gone: the same client registers.
async fn recover(client: &Client, environment: &Environment, scenario: &Scenario) -> Outcome {
    if scenario.hangs_up {
        let hung_up =
            timeout(HANG, environment.man_in_the_middle.has_closed_another(usize::MAX)).await;
        hung_up.map_err(|_| "the service did not hang up".to_owned())?;
    }
    environment.clear().await;
    let again = timeout(HANG, client.register(request(2))).await;
    let again = again.map_err(|_| "the second registration hangs".to_owned())?;
    if let Cause::NoSuchName = scenario.cause {
        // The name still does not exist: the machine says so again.
        return is_expected(again.err(), scenario.expect);
    }
    answers(&again, 2).map_err(|why| {
        let no_time = matches!(&again, Err(error) if error.kind() == ErrorKind::Timeout);
        format!("{}once the fault was gone: {why}", if no_time { NO_TIME } else { "" })
    })
}

/// Checks the plan itself.
///
/// # Errors
/// A reason that no cell has, or a cell with a reason that is not on the list.
pub(crate) fn check() -> Result<(), String> {
    let rows = rows();
    let mut used = BTreeSet::new();
    let mut names = BTreeSet::new();
    for row in &rows {
        if !names.insert(row.name) {
            return Err(format!("two rows are called {:?}", row.name));
        }
        let mut runs = 0;
        for transport in Transport::ALL {
            for step in STEPS {
                match row.plan(transport, step) {
                    Plan::Run(_) => runs += 1,
                    Plan::Not(reason) => {
                        used.insert(reason);
                    }
                }
            }
        }
        if runs == 0 {
            return Err(format!("{:?} is run in no cell", row.name));
        }
    }
    if rows.len() < 20 {
        return Err(format!("{} faults; there are at least 20", rows.len()));
    }
    let listed: BTreeSet<_> = REASONS.iter().copied().collect();
    match listed.symmetric_difference(&used).next() {
        Some(reason) => Err(format!("no cell has the reason {reason:?}, or it is not listed")),
        None => Ok(()),
    }
}

/// The matrix, to be filled with reports.
pub(crate) fn table(transports: &[Transport]) -> Table {
    let mut table = Table::new(transports, &STEPS);
    for row in rows() {
        table.row(row.name, |transport, step| match row.plan(transport, step) {
            Plan::Run(_) => None,
            Plan::Not(reason) => Some(reason.0),
        });
    }
    table.legend = REASONS.iter().map(|reason| (reason.0, reason.1)).collect();
    table
}
