//! The conformance suite: each case once, in every cell of transport and credential.
//!
//! A test is named `case::transport::credential`. A case that can't run in a cell names the reason, and the cell is listed
//! as ignored with it; a reason that matches no cell fails, and so does a suite without cases.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod answers;
mod cancel;
mod certificates;
mod connection;
mod credentials;
mod happy;
mod proxies;
mod signers;
mod stages;
mod statuses;
mod throttling;
mod tpm;
mod unasked;

use std::{pin::Pin, process::ExitCode, time::Duration};

use dps_conformance::{Cell, SharedTpm, with_hardware};
use libtest_mimic::{Arguments, Failed, Trial};

/// What must hold, for one cell.
type Run = fn(Cell) -> Pin<Box<dyn Future<Output = ()>>>;

struct Case {
    name: &'static str,
    run: Run,
    skips: Vec<Skip>,
}

/// Where a case can't run, and why.
struct Skip {
    cells: fn(Cell) -> bool,
    reason: &'static str,
}

impl Case {
    /// It ends before the device shows its credential.
    fn before_the_credential(self) -> Self {
        self.skip("the device does not get to show its credential", Cell::has_hardware)
    }

    /// It is about what comes after the TLS handshake.
    fn after_the_handshake(self) -> Self {
        let reason = "a key that signs the TLS handshake has no part in what comes after it";
        self.skip(reason, Cell::has_tls_hardware)
    }

    /// It must be over within so short a time that a TPM at work on a busy machine would spoil it.
    fn within_a_short_time(self) -> Self {
        self.skip("hardware takes some of the short time that it measures", Cell::has_hardware)
    }

    fn skip(mut self, reason: &'static str, cells: fn(Cell) -> bool) -> Self {
        self.skips.push(Skip { cells, reason });
        self
    }
}

/// A case from an async function of the same name.
macro_rules! case {
    ($name:ident) => {
        crate::Case {
            name: stringify!($name),
            run: |cell| Box::pin($name(cell)),
            skips: Vec::new(),
        }
    };
}
use case;

/// No case takes longer; one that does hangs.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    with_hardware(run_cases)
}

fn run_cases() -> ExitCode {
    let cases: Vec<Case> = [
        happy::cases(),
        statuses::cases(),
        throttling::cases(),
        answers::cases(),
        credentials::cases(),
        signers::cases(),
        stages::cases(),
        connection::cases(),
        proxies::cases(),
        cancel::cases(),
        unasked::cases(),
        certificates::cases(),
    ]
    .into_iter()
    .flatten()
    .map(|case| case.skip(tpm::NOT_OFFERED, |cell| !cell.is_offered()))
    .chain(tpm::cases())
    .collect();
    // Cell by cell, so that cases that wait run beside those that compute.
    let trials = Cell::all().flat_map(|cell| cases.iter().map(move |case| trial(case, cell)));
    let mut trials: Vec<Trial> = trials.collect();
    trials.push(Trial::test("the_suite_is_whole", move || check_suite(&cases)));
    let mut arguments = Arguments::from_args();
    // Most of a case's time is waiting.
    arguments.test_threads.get_or_insert(12);
    let conclusion = libtest_mimic::run(&arguments, trials);
    SharedTpm::end_all();
    conclusion.exit_code()
}

fn trial(case: &Case, cell: Cell) -> Trial {
    let (name, run) = (format!("{}::{cell}", case.name), case.run);
    let ignored =
        |name, why: String| Trial::test(name, || Ok(())).with_kind(why).with_ignored_flag(true);
    if let Some(skip) = case.skips.iter().find(|skip| (skip.cells)(cell)) {
        return ignored(name, skip.reason.to_owned());
    }
    match cell.credential.missing_package() {
        Some(package) => ignored(name, format!("the Debian package {package} is not installed")),
        None => Trial::test(name, move || run_in(cell, run)),
    }
}

fn run_in(cell: Cell, run: Run) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async { tokio::time::timeout(PATIENCE, run(cell)).await });
    runtime.shutdown_background();
    outcome.map_err(|_| format!("it hangs: no end after {PATIENCE:?}").into())
}

fn check_suite(cases: &[Case]) -> Result<(), Failed> {
    if cases.len() < 40 {
        return Err(format!("{} cases; the suite has at least 40", cases.len()).into());
    }
    for case in cases {
        for skip in &case.skips {
            if !Cell::every().any(skip.cells) {
                return Err(
                    format!("{}: no cell is skipped by {:?}", case.name, skip.reason).into()
                );
            }
        }
        if Cell::every().all(|cell| case.skips.iter().any(|skip| (skip.cells)(cell))) {
            return Err(format!("{}: it is skipped in every cell", case.name).into());
        }
        if cases.iter().filter(|other| other.name == case.name).count() > 1 {
            return Err(format!("{}: two cases have this name", case.name).into());
        }
    }
    Ok(())
}
