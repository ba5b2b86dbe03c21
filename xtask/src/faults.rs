//! `cargo xtask faults`: every fault at every step of every transport, the register future dropped after each of its
//! polls, everything that a service may say in retry-after, and random schedules.
//!
//! The work is done by the test `faults` of the conformance suite, which prints its matrices and its figures and
//! fails when a cell does. Arguments go to it: `--seeds 100000` is the long form, `--seed N` plays one schedule again.

use crate::process::{Cmd, Result};

/// Without arguments, the short form: all of the matrices and a few thousand schedules.
pub(crate) fn run(arguments: &[String]) -> Result {
    Cmd::cargo(["test", "--locked", "--package", "dps-conformance", "--all-features"])
        .args(["--test", "faults", "--", "run"])
        .args(arguments)
        .run()
}
