//! All of CI, as a Rust program: `cargo xtask <task>`.
//!
//! Each task has a file of its own, with the rules that it checks at the top. `cargo xtask ci` runs all of them but
//! `test`, which `.ci/run` calls first by the same command that the README tells people.

mod ci;
mod deps;
mod dist;
mod document;
mod features;
mod fuzz;
mod image;
mod installs;
mod licenses;
mod no_std;
mod package;
mod packages;
mod peers;
mod process;
mod readme;
mod requirements;
mod style;
mod suite;
mod test;
mod toolchain;

use std::{path::Path, process::ExitCode};

use process::Result;
use xshell::Shell;

type Run = fn(&Shell, &[String]) -> Result;

/// Name, purpose and function of each task, in the order in which `ci` runs them: what answers fast comes first.
const TASKS: &[(&str, &str, Run)] = &[
    ("test", "every test; arguments go to `cargo test`", test::run),
    ("ci", "every task below, then a table of how they ended", ci::run),
    ("toolchain", "the compiler, the workflow and rust-version agree", toolchain::run),
    ("fmt", "the code is formatted", style::fmt),
    ("deps", "who depends on whom, one TLS stack, banned crates", deps::run),
    ("licenses", "every crate's license is on the list", licenses::run),
    ("public-api", "public-api.txt is up to date; --bless rewrites it", suite::public_api),
    ("clippy", "no warning, with every feature", style::clippy),
    ("docs", "the documentation builds without a warning", style::docs),
    ("package", "each crate is packaged whole, with its metadata", package::run),
    ("requirements", "which tests hold which requirement; none is without", requirements::run),
    ("dist", "what people without Rust install, in target/dist", dist::run),
    (
        "installs",
        "what dist has made, installed into empty places, registers devices",
        installs::run,
    ),
    ("no-std", "the state machine builds without std", no_std::run),
    ("features", "every combination of features, and what none may pull in", features::run),
    ("readme", "every command in README.md and the pages in docs/ works", readme::run),
    ("page", "the emulator's live page in a headless Chromium", suite::page),
    ("peers", "unmodified SDKs, all or those named, register against the emulator", peers::run),
    ("faults", "faults x steps x transports, drops, retry-after, random schedules", suite::faults),
    ("fuzz", "a search by coverage for inputs that break something", fuzz::run),
    ("soak", "much of everything: nothing grows, leaks or gives way", suite::soak),
    ("bench", "what a registration costs, transport by transport, as a table", suite::bench),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) =
        arguments.split_first().map_or(("", &[][..]), |(n, rest)| (n.as_str(), rest));
    let Some((name, what, run)) = TASKS.iter().find(|(known, ..)| *known == name) else {
        eprintln!("usage: cargo xtask <task>\n");
        TASKS.iter().for_each(|(name, what, _)| eprintln!("  {name:<14}{what}"));
        return ExitCode::from(2);
    };
    if rest.iter().any(|argument| argument == "--help") && *name != "test" {
        eprintln!("cargo xtask {name}: {what}");
        return ExitCode::SUCCESS;
    }
    match enter_root().and_then(|shell| run(&shell, rest)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            process::tell(name, &*why);
            ExitCode::FAILURE
        }
    }
}

/// Every task works from the root of the workspace, wherever it was called.
fn enter_root() -> Result<Shell> {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    std::env::set_current_dir(Path::new(&here).parent().ok_or("xtask's folder has no parent")?)?;
    Ok(Shell::new()?)
}
