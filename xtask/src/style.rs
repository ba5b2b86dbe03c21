//! `cargo xtask fmt`, `clippy` and `docs`: a warning is a failure.

use xshell::Shell;

use crate::process::{Result, all_of, cargo};

/// The code is formatted as rustfmt.toml says.
pub(crate) fn fmt(shell: &Shell, _: &[String]) -> Result {
    Ok(cargo(shell, "fmt --all --check").run()?)
}

/// No warning with every feature, and none in the modules by which fuzz targets look into a crate. What a crate is by
/// itself, with each combination of its features, `cargo xtask features` lints.
pub(crate) fn clippy(shell: &Shell, _: &[String]) -> Result {
    let together = "--workspace --all-targets --all-features --";
    let fuzzed = "--workspace --lib --all-features -- --cfg=fuzzing";
    all_of([together, fuzzed].map(|scope| lint(shell, scope)))
}

/// Lints what these words of Clippy's command line choose.
pub(crate) fn lint(shell: &Shell, scope: &str) -> Result {
    Ok(cargo(shell, &format!("clippy --locked {scope} -D warnings")).run()?)
}

/// The documentation builds without a warning: no broken link, no private one.
pub(crate) fn docs(shell: &Shell, _: &[String]) -> Result {
    let docs = cargo(shell, "doc --locked --workspace --all-features --no-deps");
    Ok(docs.env("RUSTDOCFLAGS", "-D warnings").run()?)
}
