//! Secrets stay secret: keys, tokens and passwords of known value go through every path on every transport, while all that
//! can be traced, logged, formatted and recorded is kept; and none of it, in no encoding, may hold a part of them.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod canaries;
mod capture;
mod echo;
#[cfg(target_os = "linux")]
mod memory;
mod misplaced;
mod proof;
mod scenarios;

use std::process::ExitCode;

use dps_conformance::{TransportCase, run_on_every_transport, transport_case};
use libtest_mimic::Trial;

use canaries::Identity;
use echo::no_error_repeats_a_secret_in_any_encoding;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    if memory::is_device() {
        return memory::be_device();
    }
    capture::start();
    let mut cases: Vec<TransportCase> = Vec::new();
    for identity in Identity::ALL {
        let name = format!("nothing_gives_away_{identity:?}").to_lowercase();
        cases.push(TransportCase::new(name, move |transport| scenarios::run(transport, identity)));
    }
    cases.push(transport_case!(no_error_repeats_a_secret_in_any_encoding));
    #[cfg(target_os = "linux")]
    cases.extend(memory::cases());
    let mut others = proof::trials();
    others.push(Trial::test("secrets_in_the_wrong_place_are_not_repeated", || {
        misplaced::run();
        Ok(())
    }));
    // One at a time: what all of them say is kept in one place.
    run_on_every_transport(1, cases, others)
}
