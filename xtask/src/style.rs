//! `cargo xtask fmt`, `clippy` and `docs`: a warning is a failure.

use xshell::Shell;

use crate::{
    fuzz,
    process::{Result, all_of, cargo, metadata, skip_unless_ci},
};

/// The code is formatted as rustfmt.toml says.
pub(crate) fn fmt(shell: &Shell, _: &[String]) -> Result {
    Ok(cargo(shell, "fmt --all --check").run()?)
}

/// No warning: all together with every feature, and each crate by itself with its default ones, so that none lives
/// on a feature that only its neighbors ask for; and what only fuzzing compiles.
pub(crate) fn clippy(shell: &Shell, _: &[String]) -> Result {
    let lint = |scope: &str| {
        let words = format!("clippy --locked --all-targets {scope} -- -D warnings");
        Ok(cargo(shell, &words).run()?)
    };
    lint("--workspace --all-features")?;
    let metadata = metadata()?;
    let alone = metadata.workspace_packages();
    all_of(alone.iter().map(|package| lint(&format!("--package {}", package.name))))?;
    clippy_for_fuzzing(shell)
}

/// What only fuzzing compiles: the targets, and in each crate the modules that targets look into it by.
fn clippy_for_fuzzing(shell: &Shell) -> Result {
    if let Some(why) = fuzz::no_compiler(shell) {
        return skip_unless_ci("clippy for fuzzing", &why);
    }
    let fuzzed = fuzz::sync_lock(shell)?;
    let packages: String = fuzzed.iter().map(|name| format!(" --package {name}")).collect();
    let manifest = format!("--bins --manifest-path {}", fuzz::MANIFEST);
    for scope in [format!("--all-features{packages}"), manifest] {
        let words = format!("clippy --locked --lib {scope} -- -D warnings");
        let lint = cargo(shell, &words).env("CARGO_TARGET_DIR", fuzz::folder());
        lint.env("CARGO_ENCODED_RUSTFLAGS", "--cfg=fuzzing").run()?;
    }
    Ok(())
}

/// The documentation builds without a warning: no broken link, no private one.
pub(crate) fn docs(shell: &Shell, _: &[String]) -> Result {
    let docs = cargo(shell, "doc --locked --workspace --all-features --no-deps");
    Ok(docs.env("RUSTDOCFLAGS", "-D warnings").run()?)
}
