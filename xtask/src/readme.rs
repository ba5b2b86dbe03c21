//! `cargo xtask readme`: what README.md and docs/identity.md tell people to type works.
//!
//! - Each fenced `sh` block is run from the root as one script that stops at its first failure. One that calls CI
//!   itself (`cargo xtask TASK`) is not run, since it may be what runs this; its task has to exist.
//! - "Quick start" is two blocks of one command each: the first says `assigned`, the second is the first line of
//!   what `.ci/run` runs.
//!
//! Each `sh` block of docs/identity.md is run in an empty folder, with the variables that the page names, and says `assigned`.
//!
//! The flags and exit codes that it names are held by a test of `dps-cli`, which knows them all.

use std::time::Duration;

use xshell::Shell;

use crate::{
    TASKS, dist, packages,
    process::{Result, Running, build, in_ci, without_xtask},
};

/// Enough for the command that builds everything for release.
const LIMIT: Duration = Duration::from_secs(20 * 60);
const QUICK_START: &str = "Quick start";
const CI: &str = "cargo xtask ";
const RELEASE: &str = " --release ";

pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let readme = shell.read_file("README.md")?;
    let blocks = blocks(&readme)?;
    quick_start(&blocks, &shell.read_file(".ci/run")?)?;
    for (section, block) in blocks {
        if calls_ci(block)? {
            continue;
        }
        let script = without_xtask(shell.cmd("sh").args(["-e", "-u", "-c", block]));
        // In CI `cargo xtask dist` builds the same release.
        let script = script.envs(dist::variables().filter(|_| in_ci() && block.contains(RELEASE)));
        let output = Running::start(script)?.read(LIMIT)?;
        print!("{output}");
        if section == QUICK_START {
            is_assigned(&output, block)?;
        }
    }
    identity(shell)
}

fn is_assigned(output: &str, block: &str) -> Result<(), String> {
    match output.lines().any(|line| line.starts_with("assigned")) {
        true => Ok(()),
        false => Err(format!("no line of what it prints begins with `assigned`:\n{block}")),
    }
}

/// Ends what a block has left running, and keeps its exit code.
const AT_THE_END: &str = "trap 'code=$?; trap : TERM; kill 0; exit $code' EXIT";

fn identity(shell: &Shell) -> Result {
    if in_ci() {
        packages::install_for_tests(shell)?;
    }
    let page = shell.read_file("docs/identity.md")?;
    let variables = page.lines().find(|line| line.starts_with("export DPS_"));
    let variables = variables.ok_or("docs/identity.md names no variables")?;
    let dps = build(shell, "dps", "cli")?;
    let folder = dps.parent().ok_or("dps is in no folder")?.to_string_lossy().into_owned();
    let path = format!("{folder}:{}", std::env::var("PATH")?);
    for (_, block) in blocks(&page)? {
        let folder = shell.create_temp_dir()?;
        let _there = shell.push_dir(folder.path());
        let script = format!("{AT_THE_END}\n{variables}\n{block}");
        let script = shell.cmd("setsid").args(["-w", "sh", "-e", "-u", "-c", &script]);
        let output = Running::start(script.env("PATH", &path))?.read(LIMIT)?;
        print!("{output}");
        is_assigned(&output, block)?;
    }
    Ok(())
}

/// The `sh` blocks, each with the heading that it stands under.
fn blocks(readme: &str) -> Result<Vec<(&str, &str)>, &'static str> {
    let parts: Vec<&str> = readme.split("```").collect();
    let (mut blocks, mut section) = (Vec::new(), "");
    for pair in parts.chunks(2) {
        section =
            pair.first().and_then(|text| text.rsplit_once("\n## ")).map_or(section, |(_, s)| s);
        if let Some(script) = pair.get(1).and_then(|block| block.strip_prefix("sh\n")) {
            blocks.push((section.lines().next().unwrap_or_default(), script));
        }
    }
    if parts.len().is_multiple_of(2) { Err("a code block is never closed") } else { Ok(blocks) }
}

/// Whether a block calls CI; its commands must be tasks that there are.
fn calls_ci(block: &str) -> Result<bool, String> {
    let tasks: Vec<_> = block.lines().filter_map(|line| line.strip_prefix(CI)).collect();
    match tasks.iter().find(|task| TASKS.iter().all(|(known, ..)| known != *task)) {
        Some(task) => Err(format!("there is no task {task}")),
        None if block.trim().is_empty() => Err("a block has no command".to_owned()),
        None if tasks.is_empty() => Ok(false),
        None if tasks.len() == block.lines().count() => Ok(true),
        None => Err(format!("give the commands beside CI a block of their own:\n{block}")),
    }
}

/// Fails unless the quick start is a command that registers, and the one that CI runs first.
fn quick_start(blocks: &[(&str, &str)], ci_run: &str) -> Result {
    let quick = blocks.iter().filter(|(section, _)| *section == QUICK_START);
    let called = ci_run.lines().find(|line| line.starts_with("cargo "));
    match quick.map(|(_, block)| block.trim()).collect::<Vec<_>>().as_slice() {
        [first, second]
            if !first.contains('\n') && !first.starts_with(CI) && called == Some(second) =>
        {
            Ok(())
        }
        _ => Err(format!("{QUICK_START} should be `dps register` and then {called:?}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_know_their_section_and_an_open_one_is_an_error() {
        let text = "# Title\n\n## Quick start\n```sh\nls\n```\ntext\n```rust\n## no\n```\n```sh\ndf\n```\n\n## B\n```sh\nb\n```\n";
        let expected = [("Quick start", "ls\n"), ("Quick start", "df\n"), ("B", "b\n")];
        assert_eq!(blocks(text).unwrap(), expected);
        assert!(blocks("text\n```sh\nls\n").is_err());
    }

    #[test]
    fn a_block_is_run_unless_it_calls_ci_by_a_task_that_there_is() {
        assert_eq!(calls_ci("ls\n"), Ok(false));
        assert_eq!(calls_ci("cargo xtask test\n"), Ok(true));
        for wrong in ["", "cargo xtask nonsense\n", "ls\ncargo xtask test\n"] {
            assert!(calls_ci(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_quick_start_is_two_commands_and_the_second_is_what_ci_runs() {
        let ci_run = "#!/usr/bin/env bash\nset -eu\ncargo xtask test\ncargo xtask ci\n";
        let passes = |first, second| {
            quick_start(&[(QUICK_START, first), (QUICK_START, second)], ci_run).is_ok()
        };
        assert!(passes("cargo run\n", "cargo xtask test\n"));
        assert!(!passes("ls\nls\n", "cargo xtask test\n"));
        assert!(!passes("cargo xtask ci\n", "cargo xtask test\n"));
        assert!(!passes("cargo run\n", "cargo test\n"));
        assert!(quick_start(&[], ci_run).is_err());
    }
}
