//! Where a registration can't be carried out, it fails with an error: outside of a runtime, in one that lacks what it needs
//! or is shutting down, and where the system has no thread or descriptor left. Nothing panics, on any transport.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod runtimes;
mod scarce;

use std::process::ExitCode;

use dps_client::Transport;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(limited) = scarce::Limited::of_this_process() {
        limited.register();
        return ExitCode::SUCCESS;
    }
    let trials = runtimes::trials().into_iter().chain(scarce::trials());
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// What must hold on a transport.
type Case = fn(Transport);

/// A case on one transport.
fn trial(name: &str, transport: Transport, case: Case) -> Trial {
    Trial::test(format!("{name}::{transport}"), move || {
        case(transport);
        Ok(())
    })
}
