//! `cargo xtask faults`: all of it, with figures.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use dps_client::Transport;

use crate::{
    cancellation::{self, DropReport},
    matrix::{self, Only, Shard},
    report::{CellReport, max_and_median},
    retry_after,
    workers::{Share, share_out},
};

const USAGE: &str = "\
usage: cargo xtask faults [OPTIONS]
  --only SECTION   matrix, cancellation, retry-after or schedules
  --transport TRANSPORT      one transport
  --row WORDS      rows of the matrix, or cases of the cancellation, whose name has these words
  --step STEP      one step of the matrix
  --seeds N        how many random schedules (default 5000)
  --seed N         one random schedule, shown step by step
  --verbose        the time of each cell";

/// What is asked for on the command line.
#[derive(Debug)]
struct Options {
    section: Option<String>,
    transports: Vec<Transport>,
    only: Only,
    seeds: u64,
    seed: Option<u64>,
    verbose: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let transports =
            Transport::ALL.into_iter().filter(|transport| transport.is_built()).collect();
        let mut options = Self {
            section: None,
            transports,
            only: Only::default(),
            seeds: 5000,
            seed: None,
            verbose: false,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--verbose" {
                options.verbose = true;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|e| format!("{name} {value:?}: {e}"));
            match name.as_str() {
                "--only" => options.section = Some(value.clone()),
                "--transport" => {
                    options.transports = vec![value.parse().map_err(|e| format!("{e}"))?];
                }
                "--row" => options.only.row = Some(value.clone()),
                "--step" => options.only.step = Some(value.clone()),
                "--seeds" => options.seeds = number()?,
                "--seed" => options.seed = Some(number()?),
                _ => return Err(format!("there is no option {name}")),
            }
        }
        Ok(options)
    }

    fn wants(&self, section: &str) -> bool {
        self.section.as_deref().is_none_or(|wanted| wanted == section)
    }

    fn shares(&self, section: &'static str, shards: usize) -> Vec<Share> {
        let share = |transport| {
            let only = self.only.clone();
            (0..shards).map(move |number| Share {
                section,
                transport,
                shard: Shard { number, of: shards },
                only: only.clone(),
            })
        };
        self.transports.iter().copied().flat_map(share).collect()
    }
}

/// What all sections came to.
#[derive(Debug, Default)]
struct Verdict {
    lines: Vec<String>,
    failures: usize,
}

impl Verdict {
    fn add(&mut self, line: String, failures: usize) {
        println!("{line}\n");
        self.lines.push(line);
        self.failures += failures;
    }
}

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = options.seed {
        return replay(seed);
    }
    let mut verdict = Verdict::default();
    if options.wants("matrix") {
        fault_matrix(&options, &mut verdict);
    }
    if options.wants("cancellation") {
        cancellations(&options, &mut verdict);
    }
    if options.wants("retry-after") {
        retry_afters(&options, &mut verdict);
    }
    if options.wants("schedules") {
        random_schedules(options.seeds, &mut verdict);
    }
    println!("== Totals");
    for line in &verdict.lines {
        println!("{line}");
    }
    match (verdict.lines.is_empty(), verdict.failures) {
        (false, 0) => ExitCode::SUCCESS,
        (true, _) => {
            println!("nothing was run");
            ExitCode::FAILURE
        }
        (false, failures) => {
            println!("{failures} FAILED");
            ExitCode::FAILURE
        }
    }
}

fn fault_matrix(options: &Options, verdict: &mut Verdict) {
    println!("== Fault matrix: what goes wrong x every step of each transport\n");
    let begin = Instant::now();
    if let Err(why) = matrix::check() {
        verdict.add(format!("matrix: FAIL: {why}"), 1);
        return;
    }
    let mut table = matrix::table(&options.transports);
    let mut reports = Vec::new();
    let shared = share_out(options.shares("matrix", 4), |line| match CellReport::from_line(line) {
        Some(report) => {
            table.enter(&report);
            if options.verbose {
                println!("{line}");
            }
            reports.push(report);
        }
        None => println!("{line}"),
    });
    println!("{}\n", table.to_text());
    let mut failures = 0;
    for report in &reports {
        if let Err(why) = &report.outcome {
            failures += 1;
            println!("FAIL {} on {} at {}: {why}", report.row, report.transport, report.step);
        }
    }
    if let Err(why) = shared {
        failures += 1;
        println!("FAIL {why}");
    }
    let missing =
        if options.only.row.is_none() && options.only.step.is_none() { table.missing() } else { 0 };
    let again = reports.iter().filter(|report| report.again).count();
    let late = reports.iter().map(CellReport::late).max().unwrap_or_default();
    let (max, median) = max_and_median(reports.iter().map(|report| report.given_back).collect());
    verdict.add(
        format!(
            "matrix: {} faults, {} cells, {failures} failed, {missing} not run, {again} run again with more time; at most {} past the deadline (allowed: {}); all given back within {} (median {}); {}",
            table.rows(),
            reports.len(),
            millis(late),
            millis(matrix::TOLERANCE),
            millis(max),
            millis(median),
            took(begin),
        ),
        failures + missing + usize::from(reports.is_empty()),
    );
}

fn cancellations(options: &Options, verdict: &mut Verdict) {
    println!("== Cancellation: the register future dropped after each of its polls\n");
    let begin = Instant::now();
    let mut reports = Vec::new();
    let shared =
        share_out(options.shares("cancellation", 1), |line| match DropReport::from_line(line) {
            Some(report) => reports.push(report),
            None => println!("{line}"),
        });
    let mut failures = 0;
    for report in &reports {
        if let Err(why) = &report.outcome {
            failures += 1;
            println!(
                "FAIL {} on {}, dropped after {} polls: {why}",
                report.case, report.transport, report.polls
            );
        }
    }
    if let Err(why) = shared {
        failures += 1;
        println!("FAIL {why}");
    }
    print_cancellations(&options.transports, &reports);
    let (max, median) = max_and_median(reports.iter().map(|report| report.given_back).collect());
    let done = reports.iter().filter(|report| report.done).count();
    verdict.add(
        format!(
            "cancellation: {done} cases x transports, {} drops, {failures} failed; all given back within {} (median {}); {}",
            reports.len(),
            millis(max),
            millis(median),
            took(begin),
        ),
        failures + usize::from(done == 0),
    );
}

/// For each case and transport: the drops, and how long it took at most until all was given back.
fn print_cancellations(transports: &[Transport], reports: &[DropReport]) {
    let mut cells: BTreeMap<(&str, &str), (usize, Duration)> = BTreeMap::new();
    for report in reports {
        let cell = cells.entry((&report.case, report.transport.as_str())).or_default();
        cell.0 += 1;
        cell.1 = cell.1.max(report.given_back);
    }
    print!("{:26}", "drops, slowest give-back");
    for transport in transports {
        print!("  {:16}", transport.as_str());
    }
    println!();
    for case in cancellation::cases() {
        print!("{:26}", case.name);
        for transport in transports {
            let cell = cells.get(&(case.name, transport.as_str()));
            let text = cell.map_or("--".to_owned(), |(drops, slowest)| {
                format!("{drops:3}, {}", millis(*slowest))
            });
            print!("  {text:16}");
        }
        println!();
    }
    println!();
}

fn retry_afters(options: &Options, verdict: &mut Verdict) {
    println!("== Retry-after: what the service asks x transports, in every answer that can ask\n");
    let begin = Instant::now();
    let total = retry_after::run();
    println!("{}\n", total.table);
    let (registrations, over_sockets) = retry_after::sockets::run(&options.transports);
    for failure in total.failures.iter().chain(&over_sockets) {
        println!("FAIL {failure}");
    }
    let failures = total.failures.len() + over_sockets.len();
    verdict.add(
        format!(
            "retry-after: {} inputs x {} transports, {} checks in virtual time and {registrations} registrations over sockets, {failures} failed; {}",
            total.inputs,
            Transport::ALL.len(),
            total.checks,
            took(begin),
        ),
        failures + usize::from(total.inputs < 40),
    );
}

fn random_schedules(seeds: u64, verdict: &mut Verdict) {
    println!("== Random schedules on a paused clock: seeds 0 to {}\n", seeds.saturating_sub(1));
    let begin = Instant::now();
    let next = AtomicU64::new(0);
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let (mut failures, mut hours, mut calls) = (Vec::new(), 0.0, 0);
    let mut words: BTreeMap<String, usize> = BTreeMap::new();
    thread::scope(|scope| {
        let players: Vec<_> = (0..processors)
            .map(|_| {
                scope.spawn(|| {
                    let mut played = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds {
                            return played;
                        }
                        played.push((seed, dps_simulator::play(seed)));
                    }
                })
            })
            .collect();
        for (seed, played) in players.into_iter().flat_map(|player| player.join().expect("it")) {
            match played {
                Ok(played) => {
                    hours += played.virtual_time.as_secs_f64() / 3600.0;
                    calls += played.calls.len();
                    for word in played.outcomes {
                        *words.entry(word).or_default() += 1;
                    }
                }
                Err(why) => failures.push((seed, why)),
            }
        }
    });
    failures.sort();
    for (seed, why) in failures.iter().take(5) {
        println!("FAIL seed {seed}: {why}\n{}", dps_simulator::describe(*seed));
    }
    for (word, count) in &words {
        println!("{count:8}  {word}");
    }
    let rate = seeds as f64 / begin.elapsed().as_secs_f64();
    verdict.add(
        format!(
            "schedules: {seeds} seeds, {} failed; {calls} calls to the transport in {hours:.0} h of virtual time; {rate:.0} seeds/s; {}",
            failures.len(),
            took(begin),
        ),
        failures.len() + usize::from(seeds == 0),
    );
}

/// One schedule, and what happened.
fn replay(seed: u64) -> ExitCode {
    println!("{}", dps_simulator::describe(seed));
    match dps_simulator::play(seed) {
        Ok(played) => {
            println!("calls to the transport:");
            for call in &played.calls {
                println!("  {call:?}");
            }
            println!("outcomes: {}", played.outcomes.join(", "));
            println!("everything held, in {:?} of virtual time", played.virtual_time);
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("FAIL {why}");
            ExitCode::FAILURE
        }
    }
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn took(begin: Instant) -> String {
    format!("took {:.1} s", begin.elapsed().as_secs_f64())
}
