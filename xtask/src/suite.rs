//! `cargo xtask faults`, `soak`, `page`, `public-api` and `bench`: programs and tests of the conformance suite, which print tables and figures of
//! their own. Without arguments each runs its short form; arguments go to it.

use xshell::{Shell, cmd};

use crate::{
    packages,
    process::{Result, build, cargo, in_ci, metadata},
};

/// Every fault at every step of every transport, the register future dropped after each of its polls, everything
/// that a service may say in retry-after, and random schedules. `--seeds 100000` is the long form, `--seed N` plays
/// one schedule again.
pub(crate) fn faults(shell: &Shell, arguments: &[String]) -> Result {
    let tests = cargo(shell, "test --locked --workspace --all-features --test faults -- run");
    Ok(tests.args(arguments).run()?)
}

/// Thousands of registrations in one process, many at once, and the emulator under abuse; it fails when something
/// grows, leaks or gives way. `--registrations 10000` is the long form, `--release` builds it for speed.
pub(crate) fn soak(shell: &Shell, arguments: &[String]) -> Result {
    let program = if arguments.iter().any(|argument| argument == "--release") {
        cargo(shell, "build --locked --release --bin soak").run()?;
        metadata()?.target_directory.join("release/soak").into()
    } else {
        build(shell, "soak", "faults")?
    };
    // A thousand connections want more descriptors than most shells give at first.
    let script = "ulimit -S -n $(ulimit -H -n) || true; exec \"$0\" \"$@\"";
    let soak = shell.cmd("sh").args(["-c", script]).arg(program);
    Ok(soak.args(arguments.iter().filter(|argument| *argument != "--release")).run()?)
}

/// Whether `public-api.txt` of each crate is what it makes public; `--bless` writes the files anew.
pub(crate) fn public_api(shell: &Shell, arguments: &[String]) -> Result {
    let test = cargo(shell, "test --locked --workspace --all-features --test public_api");
    let blesses = arguments.iter().any(|argument| argument == "--bless");
    Ok(test.envs(blesses.then_some(("UPDATE_DOCS", "1"))).run()?)
}

/// What the emulator's live page shows in a headless Chromium.
pub(crate) fn page(shell: &Shell, _: &[String]) -> Result {
    if in_ci() && cmd!(shell, "which chromium").quiet().ignore_stdout().run().is_err() {
        packages::install(shell, &["chromium"])?;
    }
    let page = build(shell, "page", "faults")?;
    Ok(cmd!(shell, "{page}").run()?)
}

/// What one registration costs a device: round trips, bytes, CPU and memory. Arguments name transports; `load` tells how
/// many devices the emulator serves, and is built for speed.
pub(crate) fn bench(shell: &Shell, arguments: &[String]) -> Result {
    let profile = if arguments.iter().any(|it| it == "load") { "load" } else { "dev" };
    let run = cargo(shell, "run --locked --package dps-conformance --bin bench");
    Ok(run.args(["--profile", profile, "--"]).args(arguments).run()?)
}
