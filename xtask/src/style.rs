//! `cargo xtask fmt`, `clippy` and `docs`: a warning is a failure.

use crate::{
    fuzz,
    metadata::Metadata,
    missing::skip_unless_ci,
    process::{Cmd, Result, all_of},
};

/// The code is formatted as rustfmt.toml says.
pub(crate) fn fmt(_: &[String]) -> Result {
    Cmd::cargo(["fmt", "--all", "--check"]).run()
}

/// No warning: all together with every feature, and each crate by itself with its default ones, so that none lives
/// on a feature that only its neighbors ask for; and what only fuzzing compiles.
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
    all_of(alone)?;
    clippy_for_fuzzing()
}

/// What only fuzzing compiles: the targets, and in each crate the modules that targets look into it by.
fn clippy_for_fuzzing() -> Result {
    if let Some(why) = fuzz::no_compiler() {
        return skip_unless_ci("clippy for fuzzing", &why);
    }
    fuzz::sync_lock()?;
    let lint = |scope: &[&str]| {
        Cmd::cargo(["clippy", "--locked"])
            .args(scope)
            .args(["--", "-D", "warnings"])
            .env("CARGO_TARGET_DIR", fuzz::folder())
            .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=fuzzing")
            .run()
    };
    let manifest = std::fs::read_to_string(fuzz::MANIFEST)?;
    let mut fuzzed = vec!["--lib", "--all-features"];
    for name in fuzzed_crates(&manifest) {
        fuzzed.extend(["--package", name]);
    }
    lint(&fuzzed)?;
    lint(&["--lib", "--bins", "--manifest-path", fuzz::MANIFEST])
}

/// The crates of ours that a manifest takes by path.
fn fuzzed_crates(manifest: &str) -> impl Iterator<Item = &str> {
    let ours = manifest.lines().filter(|line| line.contains("path = \"../../crates/"));
    ours.filter_map(|line| line.split_whitespace().next())
}

/// The documentation builds without a warning: no broken link, no private one.
pub(crate) fn docs(_: &[String]) -> Result {
    Cmd::cargo(["doc", "--locked", "--workspace", "--all-features", "--no-deps"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_that_are_fuzzed_are_those_that_the_targets_depend_on() {
        let manifest = "[dependencies]\nbytes = \"1\"\ndps-amqp = { path = \"../../crates/dps-amqp\" }\n[[bin]]\npath = \"src/bin/x.rs\"";
        assert_eq!(fuzzed_crates(manifest).collect::<Vec<_>>(), ["dps-amqp"]);
    }
}
