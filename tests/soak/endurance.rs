//! Thousands of registrations in one process, transport by transport.

use std::{sync::Arc, time::Instant};

use dps_client::Transport;
use tokio::task::JoinSet;

use crate::{
    Result,
    environment::Environment,
    linear_fit::Slope,
    options::Options,
    process_usage::ProcessUsage,
    registration_kinds::{End, Kept, Kind},
};

/// How many registrations are under way at once.
const AT_ONCE: usize = 42;
/// How often, about, the heap is looked at.
const SAMPLES: usize = 60;
/// Bytes for each registration that the heap may grow by: less than the smallest thing that a leak would leave.
const MAX_SLOPE: f64 = 16.0;
/// The same for the short form, in which the warming up still shows.
const MAX_SHORT_SLOPE: f64 = 64.0;

/// Prints a row for each transport; returns what did not hold.
pub(crate) async fn run(options: &Options) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    println!(
        "\n{} registrations on each transport, {AT_ONCE} at once:\n",
        rounded(options.registrations)
    );
    let ends = End::ALL.map(End::name).join(" | ");
    println!(
        "| transport | registrations | per second | {ends} | descriptors | tasks | threads | live heap KiB | heap slope, bytes per registration |"
    );
    println!("|{}", "---|".repeat(8 + End::ALL.len()));
    for transport in options.transports() {
        let environment = Arc::new(Environment::new(4 * AT_ONCE)?);
        let soaked = Soaked::new(environment, transport, options.registrations).await?;
        soaked.print(transport);
        let max_slope = if options.long { MAX_SLOPE } else { MAX_SHORT_SLOPE };
        failures.extend(soaked.failures(transport, max_slope));
    }
    Ok(failures)
}

/// A batch has whole rounds, so that all batches are alike.
fn batch_size(registrations: usize) -> usize {
    let rounds = registrations.div_ceil(Kind::ALL.len());
    rounds.div_ceil(SAMPLES).max(1) * Kind::ALL.len()
}

fn rounded(registrations: usize) -> usize {
    registrations.next_multiple_of(batch_size(registrations))
}

/// What came of one transport.
struct Soaked {
    ends: Vec<usize>,
    unexpected: Vec<String>,
    seconds: f64,
    before: ProcessUsage,
    /// After each batch.
    samples: Vec<ProcessUsage>,
    after: ProcessUsage,
    batch: usize,
}

impl Soaked {
    async fn new(
        environment: Arc<Environment>,
        transport: Transport,
        registrations: usize,
    ) -> Result<Self> {
        let before = ProcessUsage::of_this_process()?;
        let batch = batch_size(registrations);
        let mut soaked = Self {
            ends: vec![0; End::ALL.len()],
            unexpected: Vec::new(),
            seconds: 0.0,
            before,
            samples: Vec::new(),
            after: before,
            batch,
        };
        let kept = Arc::new(Kept::new(&environment, transport)?);
        let begin = Instant::now();
        let mut number = 0;
        while number < rounded(registrations) {
            soaked.batch(&environment, &kept, transport, number..number + batch).await;
            number += batch;
            // The kept session may hold a connection, which over HTTP is two tasks.
            let with_kept = ProcessUsage {
                descriptors: before.descriptors + 1,
                tasks: before.tasks + 2,
                ..before
            };
            let sample = ProcessUsage::settled(with_kept).await?;
            if !sample.is_back_to(with_kept) {
                soaked
                    .unexpected
                    .push(format!("{transport}: after {number}: {sample:?}, not {before:?}"));
            }
            soaked.samples.push(sample);
        }
        soaked.seconds = begin.elapsed().as_secs_f64();
        drop(kept);
        soaked.after = ProcessUsage::settled(before).await?;
        Ok(soaked)
    }

    async fn batch(
        &mut self,
        environment: &Arc<Environment>,
        kept: &Arc<Kept>,
        transport: Transport,
        numbers: std::ops::Range<usize>,
    ) {
        let mut under_way = JoinSet::new();
        for number in numbers {
            if under_way.len() == AT_ONCE {
                self.note(under_way.join_next().await);
            }
            let (environment, kept) = (environment.clone(), kept.clone());
            let rounds = number / Kind::ALL.len();
            let kind = Kind::ALL.into_iter().cycle().nth(number % Kind::ALL.len());
            under_way.spawn(async move {
                match kind {
                    Some(kind) => kind.run(&environment, &kept, transport, rounds).await,
                    None => Err("there is no kind".into()),
                }
            });
        }
        while let Some(end) = under_way.join_next().await {
            self.note(Some(end));
        }
    }

    fn note(&mut self, end: Option<Result<Result<End>, tokio::task::JoinError>>) {
        match end {
            Some(Ok(Ok(end))) => {
                let counters = self.ends.iter_mut().zip(End::ALL);
                counters.filter(|(_, of)| *of == end).for_each(|(count, _)| *count += 1);
            }
            Some(Ok(Err(unexpected))) => self.unexpected.push(unexpected.to_string()),
            Some(Err(panicked)) => self.unexpected.push(panicked.to_string()),
            None => {}
        }
    }

    /// Of the live heap over the second half, when everything that is kept on purpose is there.
    fn slope(&self) -> Option<Slope> {
        let points: Vec<(f64, f64)> = (1..)
            .map(|batches: usize| (batches * self.batch) as f64)
            .zip(self.samples.iter().map(|process_usage| process_usage.heap as f64))
            .skip(self.samples.len() / 2)
            .collect();
        Slope::through(&points)
    }

    fn print(&self, transport: Transport) {
        let Self { ends, seconds, before, after, .. } = self;
        let count = self.samples.len() * self.batch;
        let rate = count as f64 / seconds;
        let ends: Vec<String> = ends.iter().map(ToString::to_string).collect();
        let kib = |process_usage: Option<&ProcessUsage>| {
            process_usage.map_or(0, |process_usage| process_usage.heap / 1024)
        };
        let slope = self
            .slope()
            .map_or("-".into(), |Slope { value, error }| format!("{value:.2} ± {error:.2}"));
        println!(
            "| {transport} | {count} | {rate:.0} | {} | {} → {} | {} → {} | {} → {} | {} → {} | {slope} |",
            ends.join(" | "),
            before.descriptors,
            after.descriptors,
            before.tasks,
            after.tasks,
            before.threads,
            after.threads,
            kib(self.samples.first()),
            kib(self.samples.last()),
        );
    }

    fn failures(&self, transport: Transport, max_slope: f64) -> Vec<String> {
        const SHOWN: usize = 5;
        let mut failures: Vec<String> = self.unexpected.iter().take(SHOWN).cloned().collect();
        if self.unexpected.len() > SHOWN {
            failures
                .push(format!("{transport}: {} more like these", self.unexpected.len() - SHOWN));
        }
        let Self { before, after, .. } = self;
        if !after.is_back_to(*before) {
            failures.push(format!("{transport}: left behind: before {before:?}, after {after:?}"));
        }
        match self.slope() {
            Some(slope) if slope.exceeds(max_slope) => {
                failures.push(format!("{transport}: the heap grows: {slope:?}"));
            }
            Some(_) => {}
            None => failures.push(format!("{transport}: too few samples of the heap for a slope")),
        }
        failures
    }
}
