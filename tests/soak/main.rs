//! The soak: does anything grow, leak or give way when there is much of everything?
//!
//! - `endurance`: thousands of registrations in one process, most of which fail, on each transport. Descriptors and tasks
//!   must be back where they were; the live heap must not grow with the number of registrations.
//! - `crowd`: registrations of many devices at once, all of which must succeed.
//! - `abuse`: the emulator while hostile peers do their worst and a device registers again and again.
//!
//! The service runs in a process of its own, so that what is measured is the client's alone, or the service's alone.
//! `cargo xtask soak` builds this program and runs it.

mod abuse;
mod crowd;
mod endurance;
mod environment;
mod linear_fit;
mod options;
mod process_usage;
mod registration_kinds;
mod service;

use std::{error::Error, process::ExitCode};

use options::{Options, Part};
use peak_alloc::PeakAlloc;

/// Counts what is allocated: the live heap and its peak, to the byte, without a line of unsafe code here.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What went wrong, in words.
type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some(service::COMMAND) => service::run(),
        _ => Options::read(&arguments).and_then(|options| soak(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs every part that is asked for, whatever came of the ones before it.
fn soak(options: &Options) -> Result<()> {
    let mut failures = Vec::new();
    for part in options.parts() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_keep_alive(std::time::Duration::from_millis(200))
            .enable_all()
            .build()?;
        let outcome = runtime.block_on(async {
            match part {
                Part::Endurance => endurance::run(options).await,
                Part::Crowd => crowd::run(options).await,
                Part::Abuse => abuse::run(options).await,
            }
        });
        runtime.shutdown_background();
        match outcome {
            Ok(found) => failures.extend(found),
            Err(error) => failures.push(format!("{part:?}: {error}")),
        }
    }
    if failures.is_empty() {
        println!("\nsoak: all held");
        return Ok(());
    }
    for failure in &failures {
        println!("- {failure}");
    }
    Err(format!("{} did not hold", failures.len()).into())
}
