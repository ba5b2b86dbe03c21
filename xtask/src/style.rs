//! `cargo xtask fmt`, `clippy` and `docs`: a warning is a failure.

use crate::{
    metadata::Metadata,
    process::{Cmd, Result, all_of},
};

/// The code is formatted as rustfmt.toml says.
pub(crate) fn fmt(_: &[String]) -> Result {
    Cmd::cargo(["fmt", "--all", "--check"]).run()
}

/// No warning: all together with every feature, and each crate by itself with its default ones, so that none lives
/// on a feature that only its neighbours ask for.
pub(crate) fn clippy(_: &[String]) -> Result {
    let lint = |scope: &[&str]| {
        Cmd::cargo(["clippy", "--locked", "--all-targets"])
            .args(scope)
            .args(["--", "-D", "warnings"])
            .run()
    };
    lint(&["--workspace", "--all-features"])?;
    let metadata = Metadata::load()?;
    let alone = metadata.members().map(|package| lint(&["--package", &package.name]));
    all_of(alone)
}

/// The documentation builds without a warning: no broken link, no private one.
pub(crate) fn docs(_: &[String]) -> Result {
    Cmd::cargo(["doc", "--locked", "--workspace", "--all-features", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}
