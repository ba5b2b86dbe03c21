//! Many devices that register at once, each with a client of its own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dps_client::Transport;
use dps_conformance::{adjusted, fast, settle};
use tokio::{sync::Barrier, task::JoinSet};

use crate::{
    HEAP, Result,
    environment::Environment,
    options::Options,
    process_usage::{ProcessUsage, descriptor_limit},
    registration_kinds::Kind,
};

/// Descriptors that a process needs beside its connections.
const SPARE: usize = 48;

/// Prints a row for each transport; returns what did not hold.
pub(crate) async fn run(options: &Options) -> Result<Vec<String>> {
    let limit = descriptor_limit()?;
    let needed = options.crowd + SPARE;
    if limit < needed {
        return Err(format!(
            "{} devices at once need {needed} descriptors and this process may have {limit}; raise it with `ulimit -n`",
            options.crowd
        )
        .into());
    }
    println!("\n{} devices at once, each with a client of its own:\n", options.crowd);
    println!(
        "| transport | assigned | seconds | slowest registration, ms | descriptors: before, peak, after | tasks: before, peak, after | peak heap, KiB per registration |"
    );
    println!("|{}", "---|".repeat(7));
    let mut failures = Vec::new();
    for transport in options.transports() {
        failures.extend(crowd(transport, options.crowd).await?);
    }
    Ok(failures)
}

async fn crowd(transport: Transport, count: usize) -> Result<Vec<String>> {
    let environment = Arc::new(Environment::new(count + SPARE)?);
    let before = ProcessUsage::of_this_process()?;
    HEAP.reset_peak_usage();
    let all_done = Arc::new(Barrier::new(count + 1));
    let leave = Arc::new(Barrier::new(count + 1));
    let mut devices = JoinSet::new();
    let begin = Instant::now();
    for number in 0..count {
        let environment = environment.clone();
        let (all_done, leave) = (all_done.clone(), leave.clone());
        devices.spawn(async move {
            let session = register(&environment, transport, number).await;
            // Nobody leaves before everybody is there: so many sessions are open at once.
            all_done.wait().await;
            leave.wait().await;
            let (client, took) = session?;
            settle(&client).await;
            Ok::<Duration, String>(took)
        });
    }
    all_done.wait().await;
    let took = begin.elapsed();
    let at_peak = ProcessUsage::of_this_process()?;
    leave.wait().await;
    let mut failures = Vec::new();
    let mut slowest = Duration::ZERO;
    let mut assigned = 0;
    while let Some(ended) = devices.join_next().await {
        match ended? {
            Ok(took) => {
                assigned += 1;
                slowest = slowest.max(took);
            }
            Err(error) => failures.push(format!("{transport}, {count} at once: {error}")),
        }
    }
    failures.truncate(5);
    let after = ProcessUsage::settled(before).await?;
    if !after.is_back_to(before) {
        failures.push(format!("{transport}: left behind: before {before:?}, after {after:?}"));
    }
    println!(
        "| {transport} | {assigned} of {count} | {:.1} | {} | {}, {}, {} | {}, {}, {} | {:.1} |",
        took.as_secs_f64(),
        slowest.as_millis(),
        before.descriptors,
        at_peak.descriptors,
        after.descriptors,
        before.tasks,
        at_peak.tasks.saturating_sub(count),
        after.tasks,
        at_peak.peak.saturating_sub(before.heap) as f64 / 1024.0 / count as f64,
    );
    Ok(failures)
}

async fn register(
    environment: &Environment,
    transport: Transport,
    number: usize,
) -> Result<(dps_client::Client, Duration), String> {
    // So many handshakes on few cores take their time; no device may give up over it.
    let patient = adjusted(fast(), |settings| {
        settings.request_timeout = Duration::from_secs(120);
        settings.registration_timeout = Duration::from_secs(120);
    });
    let prepared = environment
        .device(Kind::Polled, transport, &format!("crowd-{transport}-{number}"))
        .and_then(|device| Ok((device.client_with(transport, patient)?, device.request())));
    let (client, request) = prepared.map_err(|error| error.to_string())?;
    let begin = Instant::now();
    match client.register(request).await {
        Ok(_) => Ok((client, begin.elapsed())),
        Err(error) => Err(error.to_string()),
    }
}
