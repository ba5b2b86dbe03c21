//! All of CI, as a Rust program: `cargo xtask <task>`.
//!
//! Each task stands in a file of its own with the rules that it checks at the top. `cargo xtask ci` runs all of them
//! but `test`, which `.ci/run` calls first by the same command that the README tells people.

mod bench;
mod ci;
mod deps;
mod faults;
mod features;
mod fuzz;
mod licenses;
mod markdown;
mod metadata;
mod missing;
mod no_std;
mod peers;
mod process;
mod readme;
mod requirements;
mod soak;
mod spdx;
mod style;
mod test;
mod toolchain;

use std::{path::Path, process::ExitCode};

use process::Result;

/// One thing that `cargo xtask` can do.
struct Task {
    name: &'static str,
    what: &'static str,
    run: fn(&[String]) -> Result,
}

const fn task(name: &'static str, what: &'static str, run: fn(&[String]) -> Result) -> Task {
    Task { name, what, run }
}

/// In the order in which `ci` runs them: what answers fast comes first.
const TASKS: &[Task] = &[
    task("test", "every test that needs only Rust; arguments go to `cargo test`", test::run),
    task("ci", "every task below, then a table of how they ended", ci::run),
    task("toolchain", "the compiler, the workflow and rust-version agree", toolchain::run),
    task("fmt", "the code is formatted", style::fmt),
    task("deps", "who depends on whom, one TLS stack, banned crates", deps::run),
    task("licenses", "every crate's license is on the list", licenses::run),
    task("clippy", "no warning, together and crate by crate", style::clippy),
    task("docs", "the documentation builds without a warning", style::docs),
    task("requirements", "which tests hold which requirement; none is without", requirements::run),
    task("no-std", "the core builds without std and knows no clock", no_std::run),
    task("features", "every combination of features, and what none may pull in", features::run),
    task("readme", "every command in README.md works", readme::run),
    task("peers", "unmodified SDKs register against the emulator", peers::run),
    task(
        "faults",
        "faults x steps x transports, drops, retry-after, random schedules",
        faults::run,
    ),
    task("fuzz", "a search by coverage for inputs that break something", fuzz::run),
    task("soak", "much of everything: nothing grows, leaks or gives way", soak::run),
    task("bench", "what a registration costs, transport by transport, as a table", bench::run),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let Some(task) = TASKS.iter().find(|task| task.name == name) else {
        eprintln!("usage: cargo xtask <task>\n");
        for Task { name, what, .. } in TASKS {
            eprintln!("  {name:<14}{what}");
        }
        return ExitCode::from(2);
    };
    if rest.iter().any(|argument| argument == "--help") && name != "test" {
        eprintln!("cargo xtask {name}: {}", task.what);
        return ExitCode::SUCCESS;
    }
    match enter_root().and_then(|()| (task.run)(&rest)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.of(&name).into_iter().for_each(|why| eprintln!("{why}"));
            ExitCode::FAILURE
        }
    }
}

/// Every task works from the root of the workspace, wherever it was called.
fn enter_root() -> Result {
    let here = std::env::var("CARGO_MANIFEST_DIR")
        .unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_string());
    let root = Path::new(&here).parent().ok_or("xtask's folder has no parent")?;
    Ok(std::env::set_current_dir(root)?)
}
