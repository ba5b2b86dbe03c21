//! `cargo xtask readme`: what README.md and the pages in docs/ tell people to type works.
//!
//! - Each fenced `sh` block is run from the root as one script that stops at its first failure. One that calls CI
//!   itself (`cargo xtask TASK`) is not run, since it may be what runs this; its task has to exist.
//! - "Quick start" is two blocks of one command each: the first says `assigned`, the second is the first line of
//!   what `.ci/run` runs.
//!
//! Each `sh` block of docs/identity.md is run in an empty folder, with the variables that the page names, and says `assigned`.
//! Those of a page in docs/emulator or docs/guides are run in one folder, with the files that the page shows; the pages about packages are
//! run by `cargo xtask installs`.
//!
//! The flags and exit codes that it names are held by a test of `dps-cli`, which knows them all.

use xshell::Shell;

use crate::{
    TASKS, dist,
    document::{self, Block, LIMIT, blocks},
    installs, packages,
    process::{Result, Running, all_of, build, in_ci, without_xtask},
};

const QUICK_START: &str = "Quick start";
const CI: &str = "cargo xtask ";
const RELEASE: &str = " --release ";

pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let readme = shell.read_file("README.md")?;
    let mut blocks = blocks(&readme)?;
    blocks.retain(Block::is_script);
    quick_start(&blocks, &shell.read_file(".ci/run")?)?;
    for Block { section, text, .. } in blocks {
        if calls_ci(text)? {
            continue;
        }
        let script = without_xtask(shell.cmd("sh").args(["-e", "-u", "-c", text]));
        // In CI `cargo xtask dist` builds the same release.
        let is_release = in_ci() && text.contains(RELEASE);
        if is_release {
            dist::prepare(shell)?;
        }
        let script = script.envs(dist::variables().filter(|_| is_release));
        let output = Running::start(script)?.read(LIMIT)?;
        print!("{output}");
        if section == QUICK_START {
            is_assigned(&output, text)?;
        }
    }
    if in_ci() {
        packages::install_for_tests(shell)?;
    }
    let dps = build(shell, "dps", "cli")?;
    let folder = dps.parent().ok_or("dps is in no folder")?.to_string_lossy().into_owned();
    let path = [("PATH", &*format!("{folder}:{}", std::env::var("PATH")?))];
    identity(shell, &path)?;
    let mut pages = shell.read_dir("docs/emulator")?;
    pages.extend(shell.read_dir("docs/guides")?);
    pages.retain(|page| !installs::PAGES.iter().any(|(other, _)| page.ends_with(other)));
    all_of(pages.iter().map(|page| document::run(shell, &page.to_string_lossy(), &[], &path)))
}

fn is_assigned(output: &str, block: &str) -> Result<(), String> {
    match output.lines().any(|line| line.starts_with("assigned")) {
        true => Ok(()),
        false => Err(format!("no line of what it prints begins with `assigned`:\n{block}")),
    }
}

fn identity(shell: &Shell, path: &[(&str, &str)]) -> Result {
    let page = shell.read_file("docs/identity.md")?;
    let variables = page.lines().find(|line| line.starts_with("export DPS_"));
    let variables = variables.ok_or("docs/identity.md names no variables")?;
    for Block { text, .. } in blocks(&page)?.into_iter().filter(Block::is_script) {
        let folder = shell.create_temp_dir()?;
        let _there = shell.push_dir(folder.path());
        let output = document::script(shell, &format!("{variables}\n{text}"), path)?;
        print!("{output}");
        is_assigned(&output, text)?;
    }
    Ok(())
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
fn quick_start(blocks: &[Block<'_>], ci_run: &str) -> Result {
    let quick = blocks.iter().filter(|block| block.section == QUICK_START);
    let called = ci_run.lines().find(|line| line.starts_with("cargo "));
    match quick.map(|block| block.text.trim()).collect::<Vec<_>>().as_slice() {
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
            let page = format!("\n## Quick start\n```sh\n{first}```\n```sh\n{second}```\n");
            quick_start(&blocks(&page).unwrap(), ci_run).is_ok()
        };
        assert!(passes("cargo run\n", "cargo xtask test\n"));
        assert!(!passes("ls\nls\n", "cargo xtask test\n"));
        assert!(!passes("cargo xtask ci\n", "cargo xtask test\n"));
        assert!(!passes("cargo run\n", "cargo test\n"));
        assert!(quick_start(&[], ci_run).is_err());
    }
}
