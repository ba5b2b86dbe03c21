//! `cargo xtask fmt`, `clippy` and `docs`: a warning is a failure.

use xshell::Shell;

use crate::process::{Result, all_of, cargo, metadata};

/// The code is formatted as rustfmt.toml says.
pub(crate) fn fmt(shell: &Shell, _: &[String]) -> Result {
    Ok(cargo(shell, "fmt --all --check").run()?)
}

/// No warning: all together with every feature; each crate by itself with its default ones, so that none lives on a
/// feature that only its neighbors ask for; and the modules by which fuzz targets look into a crate.
pub(crate) fn clippy(shell: &Shell, _: &[String]) -> Result {
    let metadata = metadata()?;
    let alone = metadata.workspace_packages().into_iter();
    let alone = alone.map(|package| format!("--all-targets --package {} --", package.name));
    let together = "--workspace --all-targets --all-features --".to_owned();
    let fuzzed = "--workspace --lib --all-features -- --cfg=fuzzing".to_owned();
    all_of([together, fuzzed].into_iter().chain(alone).map(|scope| lint(shell, &scope)))
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
