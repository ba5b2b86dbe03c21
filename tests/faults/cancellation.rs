//! The register future dropped after each of its polls.
//!
//! For every case and transport: how many polls a registration takes is found out as it goes, and it is dropped after the
//! first, the second, and so on. Each time the same client must register afterwards, on the session that is left or
//! on a new one, and everything must be given back; also if the client itself is dropped.

use std::time::Duration;

use dps_client::{Client, Settings, Transport};
use dps_conformance::{adjusted, drop_after, fast};
use dps_emulator::{Behavior, Body, Delivery, Fault};
use tokio::time::timeout;

use crate::{
    environment::{Environment, Fixture, Setup, answers, request},
    peers::{Credentials, Injection, Misbehavior, PortState},
    report::{self, Outcome},
    resources::Resources,
};

/// A registration of some kind.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    behavior: Behavior,
    /// Whether the way leads through the man in the middle: as himself or as a proxy.
    middle: Option<Middle>,
    /// How many healthy registrations come before on the same session.
    before: u32,
}

#[derive(Clone, Copy)]
enum Middle {
    Proxy,
    /// The service hangs up after its first answer, and it is he who knows when it has.
    HangsUp,
    Injection(Injection),
    ControlledPort(PortState),
}

/// What follows the drop, before the next registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: it goes on with what is left of the session.
    GoOn,
    EndSession,
    /// The client is dropped too; a new one takes its place.
    DropClient,
}

/// A registration that is not done after so many polls never is.
const MOST_POLLS: usize = 2000;

/// What no answer at all would look like.
const HANG: Duration = Duration::from_secs(20);

/// What one drop came to.
#[derive(Clone, Debug)]
pub(crate) struct DropReport {
    pub(crate) case: String,
    pub(crate) transport: Transport,
    /// After how many polls.
    pub(crate) polls: usize,
    /// Whether the registration was done by then: the last of its case.
    pub(crate) done: bool,
    pub(crate) given_back: Duration,
    pub(crate) outcome: Outcome,
}

impl DropReport {
    pub(crate) fn to_line(&self) -> String {
        let Self { case, transport, polls, done, given_back, outcome } = self;
        let (micros, text) = (given_back.as_micros(), report::text(outcome));
        format!("{case}\t{transport}\t{polls}\t{done}\t{micros}\t{text}")
    }

    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.splitn(6, '\t');
        let mut next = || fields.next();
        let (case, transport) = (next()?.to_owned(), next()?.parse().ok()?);
        let (polls, done) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let given_back = Duration::from_micros(next()?.parse().ok()?);
        let outcome = report::outcome(next()?);
        Some(Self { case, transport, polls, done, given_back, outcome })
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let case = |name, behavior| Case { name, behavior, middle: None, before: 0 };
    let through = |name, middle| Case {
        name,
        behavior: Behavior::new().polls(1),
        middle: Some(middle),
        before: 0,
    };
    let once = |fault: Fault| Behavior::new().polls(1).on_register(fault);
    let later = |fault: Fault| Behavior::new().polls(2).on_query(fault);
    let drip = Delivery::Drip { bytes: 64, every: Duration::from_millis(1) };
    vec![
        case("assigned at once", Behavior::new()),
        case("polled", Behavior::new().polls(3)),
        Case { before: 1, ..case("on a session that is there", Behavior::new().polls(2)) },
        case("throttled", once(Fault::refuse(429).times(2))),
        case("throttled while polling", later(Fault::refuse(429).times(2))),
        case("refused", once(Fault::error(400_004, "no"))),
        case("nonsense", once(Fault::with_body(Body::Garbage))),
        case("broken", once(Fault::deliver(Delivery::CloseBefore).forever())),
        case("broken half-way", once(Fault::deliver(Delivery::CloseMid(30)).forever())),
        case("silent", once(Fault::deliver(Delivery::Never))),
        case("silent while polling", later(Fault::deliver(Delivery::Never))),
        case("lost while polling", later(Fault::deliver(Delivery::CloseBefore))),
        Case {
            middle: Some(Middle::HangsUp),
            ..case("lost while waiting", once(Fault::deliver(Delivery::CloseAfter)))
        },
        case("a large answer", once(Fault::with_body(Body::Oversized(200 << 10)))),
        case("a slow answer", once(Fault::deliver(drip))),
        through("through a proxy", Middle::Proxy),
        through("port closed", Middle::ControlledPort(PortState::Shut)),
        through(
            "a silent handshake",
            Middle::Injection(Injection::at(dps_client::Stage::Tls, Misbehavior::Stall)),
        ),
        through(
            "a bad certificate",
            Middle::Injection(Injection::at(
                dps_client::Stage::Tls,
                Misbehavior::Show(Credentials::Expired),
            )),
        ),
    ]
}

/// Short enough for a silent peer, long enough for a healthy one.
fn settings() -> Settings {
    adjusted(fast(), |settings| {
        settings.request_timeout = Duration::from_millis(1000);
        settings.poll_interval = Duration::from_millis(5);
        settings.poll_floor = Duration::from_millis(2);
        settings.max_backoff = Duration::from_millis(5);
    })
}

/// Runs all cases on a transport that fall to this shard, and tells each drop.
pub(crate) fn run(
    transport: Transport,
    shard: crate::matrix::Shard,
    only: Option<&str>,
    mut tell: impl FnMut(DropReport),
) {
    let fixture = Fixture::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let wanted = |case: &Case| only.is_none_or(|name| case.name.contains(name));
    for (number, case) in cases().into_iter().filter(wanted).enumerate() {
        if number % shard.of != shard.number {
            continue;
        }
        let panics = crate::panics();
        runtime.block_on(run_case(&fixture, transport, &case, &mut tell));
        if crate::panics() > panics {
            tell(DropReport {
                case: case.name.to_owned(),
                transport,
                polls: 0,
                done: false,
                given_back: Duration::ZERO,
                outcome: Err("something panicked; see above".to_owned()),
            });
        }
    }
}

async fn run_case(
    fixture: &Fixture,
    transport: Transport,
    case: &Case,
    tell: &mut impl FnMut(DropReport),
) {
    let setup = Setup {
        proxy: matches!(case.middle, Some(Middle::Proxy)),
        ..Setup::new(transport, Behavior::new())
    };
    let mut environment = Environment::start(fixture, &setup).await;
    if case.middle.is_none() {
        // By name, which is one thing more to be dropped in.
        environment.config = environment.bench.config.clone();
    }
    let mut client = environment.client(settings());
    // Before anything was ever opened.
    let at_rest = Resources::now();
    for polls in 1..MOST_POLLS {
        // Each case has another turn at the same poll.
        let next = match (polls + case.name.len()) % 3 {
            0 => Next::GoOn,
            1 => Next::EndSession,
            _ => Next::DropClient,
        };
        let mut report = DropReport {
            case: case.name.to_owned(),
            transport,
            polls,
            done: false,
            given_back: Duration::ZERO,
            outcome: Ok(()),
        };
        report.outcome =
            one_drop(&environment, case, &mut client, next, at_rest, &mut report).await;
        let over = report.done || report.outcome.is_err();
        tell(report);
        if over {
            return;
        }
    }
    panic!("{}: not done after {MOST_POLLS} polls", case.name);
}

async fn one_drop(
    environment: &Environment,
    case: &Case,
    client: &mut Client,
    next: Next,
    at_rest: Resources,
    report: &mut DropReport,
) -> Outcome {
    let polls = report.polls;
    for _ in 0..case.before {
        answers(&registered(client, 1).await?, 1)?;
    }
    let emulator = &environment.bench.emulator;
    emulator
        .set_behavior(environment.bench.enrollment, case.behavior.clone())
        .expect("the enrollment is there");
    match case.middle {
        Some(Middle::Injection(injection)) => environment.man_in_the_middle.make(injection),
        Some(Middle::ControlledPort(state)) => environment.man_in_the_middle.turn(state).await,
        Some(Middle::Proxy | Middle::HangsUp) | None => {}
    }
    let closed = environment.man_in_the_middle.closed();
    let dropped = timeout(HANG, drop_after(polls, client.register(request(2)))).await;
    report.done = dropped.map_err(|_| "the registration hangs".to_owned())?.is_some();
    environment.clear().await;
    if let Some(Middle::HangsUp) = case.middle {
        // What comes next comes after that.
        let hung_up = timeout(HANG, environment.man_in_the_middle.has_closed_another(closed)).await;
        hung_up.map_err(|_| "the connection stays open".to_owned())?;
    }
    match next {
        Next::GoOn => {}
        Next::EndSession => end(client).await?,
        Next::DropClient => *client = environment.client(settings()),
    }
    if next != Next::GoOn {
        report.given_back = at_rest.are_back().await?;
    }
    let again = registered(client, 3).await?;
    answers(&again, 3).map_err(|why| format!("after the drop: {why}"))?;
    end(client).await?;
    let given_back = at_rest.are_back().await?;
    report.given_back = report.given_back.max(given_back);
    Ok(())
}

async fn registered(
    client: &Client,
    number: u32,
) -> Result<Result<dps_client::RegistrationResult, dps_client::Error>, String> {
    let outcome = timeout(HANG, client.register(request(number))).await;
    outcome.map_err(|_| "a healthy registration hangs".to_owned())
}

async fn end(client: &Client) -> Outcome {
    let ended = timeout(HANG, client.end_session()).await;
    ended
        .map_err(|_| "the end of the session hangs".to_owned())?
        .map_err(|error| format!("the session did not end: {error:?}"))
}
