//! Secrets stay secret: keys, tokens and passwords of known value go through every path on every wire, while all that
//! can be traced, logged, formatted and recorded is kept; and none of it, in no encoding, may hold a part of them.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod canaries;
mod capture;
mod misplaced;
mod proof;
mod scenarios;

use std::process::ExitCode;

use dps_conformance::{WireCase, run_on_every_wire};
use libtest_mimic::Trial;

use canaries::Identity;

fn main() -> ExitCode {
    capture::start();
    let cases = Identity::ALL.map(|identity| {
        let name = format!("nothing_gives_away_{identity:?}");
        WireCase::new(name.to_lowercase(), move |wire| scenarios::run(wire, identity))
    });
    let mut others = proof::trials();
    others.push(Trial::test("secrets_in_the_wrong_place_are_not_repeated", || {
        misplaced::run();
        Ok(())
    }));
    // One at a time: what all of them say is kept in one place.
    run_on_every_wire(1, cases, others)
}
