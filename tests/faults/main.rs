//! What must not kill a registration: faults at every step, drops at every await point, any retry-after, any order
//! of events.
//!
//! `cargo xtask faults` runs all of it, in several processes: descriptors are counted, and only one thing at a time
//! may open some. Without arguments only what needs no socket is run, and little of it.
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod cancellation;
mod environment;
mod matrix;
mod peers;
mod report;
mod resources;
mod retry_after;
mod run;
mod workers;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
};

use libtest_mimic::{Arguments, Failed, Trial};

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// How many panics there were in this process, in whatever thread.
fn panics() -> usize {
    PANICS.load(Ordering::SeqCst)
}

fn main() -> ExitCode {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        usual(panic);
    }));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("run") => run::run(&arguments[1..]),
        Some("work") => workers::work(&arguments[1..]),
        _ => libtest_mimic::run(&Arguments::from_args(), trials()).exit_code(),
    }
}

/// What `cargo test` runs.
fn trials() -> Vec<Trial> {
    vec![
        Trial::test("the_matrix_is_whole_and_every_reason_has_a_cell", || {
            matrix::check().map_err(Failed::from)
        }),
        Trial::test("no_retry_after_is_undercut_or_waited_for_past_the_deadline", || {
            let total = retry_after::run();
            assert!(total.inputs >= 40, "{} inputs", total.inputs);
            all_fine(&total.failures)
        }),
        Trial::test("two_thousand_random_schedules_hold", || {
            let fails =
                |seed| dps_simulator::play(seed).err().map(|why| format!("seed {seed}: {why}"));
            all_fine(&(0..2000).filter_map(fails).collect::<Vec<_>>())
        }),
        Trial::test("a_schedule_is_played_again_step_by_step", || {
            // But for its times: each client draws its jitter anew.
            let played = |seed| {
                let played = dps_simulator::play(seed).expect("a schedule that holds");
                (played.calls, played.outcomes)
            };
            for seed in 0..200 {
                assert_eq!(played(seed), played(seed), "seed {seed}");
            }
            Ok(())
        }),
    ]
}

fn all_fine(failures: &[String]) -> Result<(), Failed> {
    match failures {
        [] => Ok(()),
        [first, ..] => Err(format!("{} failures; the first: {first}", failures.len()).into()),
    }
}
