//! `cargo xtask soak`: thousands of registrations in one process, many at once, and the emulator under abuse.
//!
//! The work is done by the program `soak` of the conformance suite, which prints its tables and fails when something
//! grows, leaks or gives way. Arguments go to it: `--registrations 10000` is the long form, `--only abuse` one part.
//! `--release` builds it for speed.

use crate::{
    metadata::Metadata,
    process::{Cmd, Result},
};

/// Without arguments, the short form.
pub(crate) fn run(arguments: &[String]) -> Result {
    const RELEASE: &str = "--release";
    let release = arguments.iter().any(|argument| argument == RELEASE);
    Cmd::cargo(["build", "--locked", "--package", "dps-conformance", "--bin", "soak"])
        .args(release.then_some(RELEASE))
        .run()?;
    let folder = if release { "release" } else { "debug" };
    let program = Metadata::load()?.target_directory.join(folder).join("soak");
    // A thousand connections want more descriptors than most shells give at first.
    Cmd::new("sh")
        .args(["-c", "ulimit -S -n $(ulimit -H -n) || true; exec \"$0\" \"$@\""])
        .args([program])
        .args(arguments.iter().filter(|argument| *argument != RELEASE))
        .run()
}
