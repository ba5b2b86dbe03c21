//! A peer that sends without end. Whatever it sends, a cancel, the end of the session and other tasks come through at once,
//! on every transport and on both kinds of runtime; and what answers nothing ends in an error that names it.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test may fail")]

mod clients;
mod floods;
mod peer;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dps_client::{Client, Config, ErrorKind, RegistrationRequest, Transport, client};
use dps_conformance::fast;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep, timeout},
};

use floods::Flood;
use peer::Peer;

const RUNS: usize = 50;
/// How late a cancel, or a tick of another task, may come.
const LATE: Duration = Duration::from_millis(100);
/// A run that is late is repeated: a busy machine is late now and then, what hides a cancel is so in half of the runs.
const ATTEMPTS: usize = 3;
/// No flood that is an error goes on for longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for transport in Transport::ALL.into_iter().filter(|transport| transport.is_built()) {
        for flood in floods::of(transport) {
            let name = format!("{}::{}", transport.as_str().replace('-', "_"), flood.name);
            let shared = Arc::new(flood);
            for kind in Kind::ALL {
                let flood = shared.clone();
                let name = format!("a_flood_hides_nothing::{name}::{}", kind.name());
                trials.push(Trial::test(name, move || hides_nothing(transport, &flood, kind)));
            }
            let flood = shared.clone();
            let name = format!("a_flood_is_an_error_that_names_it::{name}");
            let trial = Trial::test(name, move || is_an_error(transport, &flood));
            // The HTTP client underneath takes any number of interim answers, and shows them to nobody.
            trials.push(trial.with_ignored_flag(shared.says.is_none()));
        }
    }
    trials.extend(clients::trials());
    let mut arguments = Arguments::from_args();
    // Each measures time.
    arguments.test_threads.get_or_insert(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

#[derive(Clone, Copy)]
enum Kind {
    CurrentThread,
    MultiThread,
}

impl Kind {
    const ALL: [Self; 2] = [Self::CurrentThread, Self::MultiThread];

    fn name(self) -> &'static str {
        match self {
            Self::CurrentThread => "current_thread",
            Self::MultiThread => "multi_thread",
        }
    }

    fn runtime(self) -> Runtime {
        match self {
            Self::CurrentThread => Builder::new_current_thread(),
            Self::MultiThread => Builder::new_multi_thread(),
        }
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
    }
}

fn request() -> RegistrationRequest {
    RegistrationRequest::new("dev-1".parse().unwrap())
}

fn client_of(transport: Transport, config: &Config) -> Client {
    client(transport, config.clone(), fast()).unwrap()
}

fn hides_nothing(transport: Transport, flood: &Flood, kind: Kind) -> Result<(), Failed> {
    let peer = Peer::start(flood);
    let runtime = kind.runtime();
    for run in 0..RUNS {
        let mut late = Vec::new();
        while late.len() < ATTEMPTS {
            let client = client_of(transport, &peer.config);
            match runtime.block_on(cut_short(client, &peer, run % 2 == 0)) {
                Ok(()) => break,
                Err(reason) => late.push(reason),
            }
        }
        if late.len() == ATTEMPTS {
            return Err(format!("run {run}: {}", late.join("; ")).into());
        }
    }
    runtime.shutdown_background();
    Ok(())
}

/// Cancels a registration, or ends its session, as soon as the flood has begun.
async fn cut_short(client: Client, peer: &Peer, by_cancel: bool) -> Result<(), String> {
    let worst = Arc::new(AtomicU64::new(0));
    let ticks = tokio::spawn(tick(worst.clone()));
    let begun = peer.floods();
    let registering = tokio::spawn({
        let client = client.clone();
        async move { client.register(request()).await }
    });
    while peer.floods() == begun && !registering.is_finished() {
        sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    if by_cancel {
        client.cancel();
    }
    let ended = timeout(LATE, client.end_session()).await;
    let error = registering.await.unwrap().unwrap_err();
    let (took, worst) = (start.elapsed(), Duration::from_millis(worst.load(Ordering::Relaxed)));
    ticks.abort();
    assert!(
        matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Protocol),
        "cancelled, unless the flood was an error before: {error}"
    );
    if ended.is_err() || took > LATE || worst > LATE {
        return Err(format!("cut short after {took:?}, a tick late by {worst:?}"));
    }
    Ok(())
}

/// Notes by how many milliseconds a tick that is due each 10 ms comes late, at worst.
async fn tick(worst: Arc<AtomicU64>) {
    const EVERY: Duration = Duration::from_millis(10);
    loop {
        let start = Instant::now();
        sleep(EVERY).await;
        let late = start.elapsed().saturating_sub(EVERY).as_millis();
        worst.fetch_max(u64::try_from(late).unwrap(), Ordering::Relaxed);
    }
}

fn is_an_error(transport: Transport, flood: &Flood) -> Result<(), Failed> {
    let peer = Peer::start(flood);
    let client = client_of(transport, &peer.config);
    let runtime = Kind::CurrentThread.runtime();
    let outcome = runtime.block_on(async { timeout(PATIENCE, client.register(request())).await });
    let error = outcome.map_err(|_| "the flood goes on")?.unwrap_err();
    let says = flood.says.expect("a flood that is an error");
    assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    assert!(error.to_string().contains(says), "{error}");
    Ok(())
}
