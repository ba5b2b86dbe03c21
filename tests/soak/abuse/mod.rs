//! The emulator under abuse, while a well-behaved device registers again and again.
//!
//! The emulator has small bounds here, so that a few attackers are more than it takes: what matters is that it
//! keeps to its bounds and makes room for others, not how large they are.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dps_client::Transport;
use dps_conformance::settle as end_of_session;
use tokio::task::JoinSet;

use crate::{
    Result,
    environment::Environment,
    options::Options,
    process_usage::{ProcessUsage, settle},
    registration_kinds::Kind,
    service::Plan,
};

mod amqp;
mod http;
mod mqtt;
mod sockets;
mod target;
mod websocket;

use target::Target;

/// What the emulator takes at once.
const MAX_CONNECTIONS: usize = 128;
/// The emulator's patience with handshakes, heads and bodies.
const PATIENCE: Duration = Duration::from_secs(10);
/// A registration of the well-behaved device that takes longer has not been served.
const MAX_LATENCY: Duration = Duration::from_secs(10);
/// What the emulator may hold for one connection at most, while it is open.
const MAX_HEAP_PER_CONNECTION: usize = 512 * 1024;
/// What the emulator may keep when all attackers are gone: the events that it logs, up to a bound of its own.
const MAX_HEAP_KEPT: usize = 96 * 1024 * 1024;

/// One connection of an attacker, from beginning to end.
type Attack = fn(Target) -> Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

/// One way to abuse the emulator.
pub(crate) struct Abuse {
    name: &'static str,
    /// Attackers at once.
    attackers: usize,
    /// Whose port it is.
    transport: Transport,
    attack: Attack,
}

impl Abuse {
    const fn new(
        name: &'static str,
        attackers: usize,
        transport: Transport,
        attack: Attack,
    ) -> Self {
        Self { name, attackers, transport, attack }
    }
}

/// More than the emulator takes at once.
const FLOOD: usize = MAX_CONNECTIONS + 72;
/// A flood of connections when it is the system that has no more to give.
const SCARCE: Abuse =
    Abuse::new("more connections than descriptors", FLOOD, Transport::Http, |target| {
        Box::pin(async move { target::wait_for_close(&mut target.tcp().await?).await })
    });
/// Fewer, for those who keep a processor busy.
const FEW: usize = 16;

/// Prints a row for each abuse; returns what did not hold.
pub(crate) async fn run(options: &Options) -> Result<Vec<String>> {
    println!(
        "\nThe emulator, with at most {MAX_CONNECTIONS} connections and {} s of patience, under abuse for {} s each, while a device registers on each transport:\n",
        PATIENCE.as_secs(),
        options.abuse.as_secs_f64()
    );
    println!(
        "| abuse | attackers | their connections | good registrations | failed | worst latency, ms | descriptors: before, after | tasks: before, after | heap KiB: before, peak, after | back after, ms |"
    );
    println!("|{}", "---|".repeat(10));
    let mut failures = Vec::new();
    let abuses = [sockets::ABUSES, http::ABUSES, websocket::ABUSES, mqtt::ABUSES, amqp::ABUSES];
    let wanted = |abuse: &&Abuse| abuse.transport.is_built() && abuse.name.contains(&options.named);
    // The short form has a third of them, some of each kind.
    let step = if options.long { 1 } else { 3 };
    let environment = environment(None)?;
    for abuse in abuses.into_iter().flatten().filter(wanted).step_by(step) {
        failures.extend(withstand(&environment, abuse, options).await?);
    }
    drop(environment);
    if SCARCE.name.contains(&options.named) {
        let environment = self::environment(Some(MAX_CONNECTIONS / 2))?;
        failures.extend(withstand(&environment, &SCARCE, options).await?);
    }
    Ok(failures)
}

fn environment(descriptors: Option<usize>) -> Result<Arc<Environment>> {
    let environment = Environment::with(|group_ca| Plan {
        max_connections: MAX_CONNECTIONS,
        patience: Some(PATIENCE),
        descriptors,
        group_ca,
    })?;
    Ok(Arc::new(environment))
}

async fn withstand(
    environment: &Arc<Environment>,
    abuse: &Abuse,
    options: &Options,
) -> Result<Vec<String>> {
    let name = abuse.name;
    // Nothing is lazily made later on, and the device is known.
    let warm = Good::register_for(environment, Duration::ZERO, options).await?;
    let before = settled_service(environment).await?;
    environment.service.reset_peak()?;
    let target =
        Target::new(environment.service.port(abuse.transport)?, &environment.service.ca_pem)?;
    let connections = Arc::new(AtomicU64::new(0));
    let mut attackers = JoinSet::new();
    for _ in 0..abuse.attackers {
        let (target, connections, attack) = (target.clone(), connections.clone(), abuse.attack);
        attackers.spawn(async move {
            loop {
                connections.fetch_add(1, Ordering::Relaxed);
                // However it ends, the next one begins; never so fast that nothing else runs.
                attack(target.clone()).await.ok();
                tokio::task::yield_now().await;
            }
        });
    }
    let good = Good::register_for(environment, options.abuse, options).await?;
    let at_end = environment.service.process_usage()?;
    attackers.shutdown().await;
    let begin = Instant::now();
    let after = settle(before, || environment.service.process_usage()).await?;
    let took = begin.elapsed();
    println!(
        "| {name} | {} | {} | {} | {} | {} | {}, {} | {}, {} | {}, {}, {} | {} |",
        abuse.attackers,
        connections.load(Ordering::Relaxed),
        good.done,
        good.failed(),
        good.worst.as_millis(),
        before.descriptors,
        after.descriptors,
        before.tasks,
        after.tasks,
        before.heap / 1024,
        at_end.peak / 1024,
        after.heap / 1024,
        took.as_millis(),
    );
    let mut failures: Vec<String> = Vec::new();
    for (error, times) in warm.errors.iter().chain(&good.errors) {
        failures.push(format!("{name}: {times} times a good device was not served: {error}"));
    }
    if good.done == 0 {
        failures.push(format!("{name}: no good registration was done"));
    }
    if good.worst > MAX_LATENCY {
        failures.push(format!("{name}: a good registration took {:?}", good.worst));
    }
    if !after.is_back_to(before) {
        failures.push(format!("{name}: left behind: before {before:?}, after {after:?}"));
    }
    let bound = before.heap + MAX_CONNECTIONS * MAX_HEAP_PER_CONNECTION + MAX_HEAP_KEPT;
    if at_end.peak > bound {
        failures.push(format!("{name}: {} bytes of heap at the peak", at_end.peak));
    }
    if after.heap > MAX_HEAP_KEPT {
        failures.push(format!("{name}: {} bytes of heap when all is over", after.heap));
    }
    Ok(failures)
}

/// The emulator once the well-behaved device's connections are closed on its side too.
async fn settled_service(environment: &Environment) -> Result<ProcessUsage> {
    let mut last = environment.service.process_usage()?;
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = environment.service.process_usage()?;
        if now.is_back_to(last) && last.is_back_to(now) {
            return Ok(now);
        }
        last = now;
    }
}

/// What the well-behaved devices met.
struct Good {
    begin: Instant,
    done: usize,
    worst: Duration,
    /// Each error and how often it was met.
    errors: BTreeMap<String, usize>,
}

impl Default for Good {
    fn default() -> Self {
        Self { begin: Instant::now(), done: 0, worst: Duration::ZERO, errors: BTreeMap::new() }
    }
}

impl Good {
    /// One device for each transport registers again and again, at least once.
    async fn register_for(
        environment: &Arc<Environment>,
        time: Duration,
        options: &Options,
    ) -> Result<Self> {
        let mut devices = JoinSet::new();
        for transport in options.transports() {
            let environment = environment.clone();
            devices.spawn(async move {
                let mut good = Self::default();
                loop {
                    let begin = Instant::now();
                    good.note(transport, register(&environment, transport).await, begin.elapsed());
                    // No faster than it takes to tell that it is served.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    if begin.elapsed() > MAX_LATENCY || good.begin.elapsed() >= time {
                        return good;
                    }
                }
            });
        }
        let mut all = Self::default();
        while let Some(good) = devices.join_next().await {
            all.add(good?);
        }
        Ok(all)
    }

    fn note(&mut self, transport: Transport, outcome: Result<()>, took: Duration) {
        match outcome {
            Ok(()) => self.done += 1,
            Err(error) => *self.errors.entry(format!("{transport}: {error}")).or_default() += 1,
        }
        self.worst = self.worst.max(took);
    }

    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.worst = self.worst.max(other.worst);
        for (error, times) in other.errors {
            *self.errors.entry(error).or_default() += times;
        }
    }

    fn failed(&self) -> usize {
        self.errors.values().sum()
    }
}

async fn register(environment: &Environment, transport: Transport) -> Result<()> {
    let device = environment.device(Kind::Polled, transport, &format!("good-{transport}"))?;
    let client = device.client(transport)?;
    let outcome = client.register(device.request()).await;
    end_of_session(&client).await;
    outcome.map(drop).map_err(Into::into)
}
