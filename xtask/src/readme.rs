//! `cargo xtask readme`: what README.md tells people to type works.
//!
//! - Each fenced `sh` block is run from the root as one script that stops at its first failure. One that calls CI
//!   itself (`cargo xtask TASK`) is not run, since it may be what runs this; its task has to exist.
//! - "Quick start" is two blocks of one command each: the first says `assigned`, the second is the first line of
//!   what `.ci/run` runs.
//! - Every flag and exit code that it names for `dps`, transcripts (`text` blocks) among them, is in the command's help.

use std::time::Duration;

use xshell::{Shell, cmd};

use crate::{
    TASKS,
    markdown::{self, Block},
    process::{Result, Running, build, none_of},
};

/// Enough for the command that builds everything for release.
const LIMIT: Duration = Duration::from_secs(20 * 60);
const QUICK_START: &str = "Quick start";
const CI: &str = "cargo xtask ";

pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let text = shell.read_file("README.md")?;
    let (blocks, prose) = markdown::blocks(&text)?;
    let help = help(shell)?;
    let mut faults = quick_start_faults(&blocks, &shell.read_file(".ci/run")?);
    faults.extend(flag_faults(&flags_of_dps(&prose, &blocks), &help));
    faults.extend(exit_code_faults(&prose, &help));
    none_of(&faults)?;
    for block in blocks.iter().filter(|block| block.language == "sh") {
        if calls_ci(block)? {
            continue;
        }
        let script = shell.cmd("sh").args(["-e", "-u", "-c", &block.text]);
        let output = Running::start(script)?.read(LIMIT)?;
        print!("{output}");
        let assigned = output.lines().any(|line| line.starts_with("assigned"));
        if block.section == QUICK_START && !assigned {
            return Err(format!("line {}: no line begins with `assigned`", block.line).into());
        }
    }
    Ok(())
}

/// Whether a block calls CI; its commands must be tasks that there are.
fn calls_ci(block: &Block) -> Result<bool, String> {
    let commands = block.commands();
    let tasks: Vec<_> = commands.iter().filter_map(|line| line.strip_prefix(CI)).collect();
    let unknown = tasks.iter().find(|task| TASKS.iter().all(|(known, ..)| known != *task));
    match unknown {
        Some(task) => Err(format!("line {}: there is no task {task}", block.line)),
        None if commands.is_empty() => Err(format!("line {}: no command", block.line)),
        None if tasks.is_empty() || tasks.len() == commands.len() => Ok(!tasks.is_empty()),
        None => Err(format!("line {}: give the commands beside CI their own block", block.line)),
    }
}

fn quick_start_faults(blocks: &[Block], ci_run: &str) -> Vec<String> {
    let quick = blocks.iter().filter(|block| block.section == QUICK_START);
    let shell = quick.filter(|block| block.language == "sh").map(Block::commands);
    let called = ci_run.lines().find(|line| line.starts_with("cargo "));
    match shell.collect::<Vec<_>>().as_slice() {
        [first, second] if first.len() == 1 && second.len() == 1 => {
            let [first, second] = [first.concat(), second.concat()];
            let run = first.starts_with(CI).then(|| "CI should run its first command".to_owned());
            let same = called == Some(second.as_str());
            let says = format!(".ci/run should begin with `{second}`, and runs {called:?} first");
            run.into_iter().chain((!same).then_some(says)).collect()
        }
        _ => vec![format!("{QUICK_START} should have two `sh` blocks of one command each")],
    }
}

/// The flags that the README names for `dps`, in its blocks and in its text.
fn flags_of_dps(prose: &str, blocks: &[Block]) -> Vec<String> {
    let shown = blocks.iter().filter(|block| ["sh", "text"].contains(&block.language.as_str()));
    let inline = markdown::inline_code(prose).map(str::to_owned);
    let words = shown.flat_map(Block::commands).chain(inline).flat_map(|line| words_for_dps(&line));
    let flags = words.filter(|word| word.starts_with("--") && word.len() > 2);
    flags.map(|flag| flag.split('=').next().unwrap_or_default().to_owned()).collect()
}

/// The words of a command that `dps` reads: those behind its name, or behind the `--` of `cargo run`. A line that is
/// nothing but flags is about `dps` too.
fn words_for_dps(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let first = match words.iter().position(|word| *word == "--") {
        Some(dashes) if line.contains("cargo run") => Some(dashes),
        _ if line.starts_with("--") => Some(0),
        _ if line.starts_with("cargo ") => None,
        _ => words.iter().position(|word| word.rsplit('/').next() == Some("dps")),
    };
    words.into_iter().skip(first.unwrap_or(usize::MAX)).map(str::to_owned).collect()
}

fn flag_faults(flags: &[String], help: &str) -> Vec<String> {
    let words: Vec<&str> = help.split(|c: char| !c.is_alphanumeric() && c != '-').collect();
    let unknown = flags.iter().filter(|flag| !words.contains(&flag.as_str()));
    unknown.map(|flag| format!("it names {flag}, which dps doesn't know")).collect()
}

/// The rows `| kind | when | exit code |` of the README, each of which the help must say as `code kind`.
fn exit_code_faults(prose: &str, help: &str) -> Vec<String> {
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows = prose.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", kind, _, code, ""] = cells.as_slice() else { return None };
        code.parse::<u8>().ok()?;
        Some(format!("{code} {}", kind.trim_matches(['`', '(', ')'])))
    });
    let unsaid = rows.filter(|row| !help.contains(row));
    unsaid.map(|row| format!("it names the exit code {row:?}, and the help doesn't")).collect()
}

/// The help of the command and of each of its subcommands, which are the indented lines under `Commands:`.
fn help(shell: &Shell) -> Result<String> {
    let dps = build(shell, "dps", "cli")?;
    let mut all = cmd!(shell, "{dps} --help").read()?;
    let listed = all.split("Commands:\n").nth(1).unwrap_or_default().to_owned();
    for line in listed.lines().take_while(|line| line.starts_with(' ')) {
        if let Some(command) = line.strip_prefix("  ").and_then(|line| line.split(' ').next())
            && !["", "help"].contains(&command)
        {
            all.push_str(&cmd!(shell, "{dps} {command} --help").read()?);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> Vec<Block> {
        markdown::blocks(text).unwrap().0
    }

    #[test]
    fn a_block_is_run_unless_it_calls_ci_by_a_task_that_there_is() {
        let calls = |commands| calls_ci(&blocks(&format!("```sh\n{commands}\n```"))[0]);
        assert_eq!(calls("ls"), Ok(false));
        assert_eq!(calls("cargo xtask test"), Ok(true));
        for wrong in ["", "cargo xtask nonsense", "ls\ncargo xtask test"] {
            assert!(calls(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_quick_start_is_two_commands_and_the_second_is_what_ci_runs() {
        let faults = |first, second, ci_run| {
            let text = format!("## Quick start\n```sh\n{first}\n```\n```sh\n{second}\n```\n");
            quick_start_faults(&blocks(&text), ci_run).len()
        };
        let ci_run = "#!/usr/bin/env bash\nset -eu\ncargo xtask test\ncargo xtask ci\n";
        assert_eq!(faults("cargo run", "cargo xtask test", ci_run), 0);
        assert_eq!(faults("ls\nls", "cargo xtask test", ci_run), 1);
        assert_eq!(faults("cargo xtask ci", "cargo xtask test", ci_run), 1);
        assert_eq!(faults("cargo run", "cargo test", ci_run), 1);
        assert_eq!(quick_start_faults(&[], ci_run).len(), 1);
    }

    #[test]
    fn a_flag_that_is_not_in_the_help_fails() {
        let text = "Use `--json` or `cargo build --release` or `dps emulate --admin-port 0`.\n\
            ```sh\ncargo run --bin dps -- register --emulator\ncargo build --bin dps --locked\n\
            ```\n```text\n$ target/release/dps register \\\n --key=x\n```\n";
        let (blocks, prose) = markdown::blocks(text).unwrap();
        let flags = flags_of_dps(&prose, &blocks);
        assert_eq!(flags, ["--emulator", "--key", "--json", "--admin-port"]);
        let help =
            "  -v\n      --json         One object\n  [--emulator] --admin-port <N> --keys\n";
        assert_eq!(flag_faults(&flags, help), ["it names --key, which dps doesn't know"]);
    }

    #[test]
    fn an_exit_code_that_the_help_does_not_say_fails() {
        let text = "|---|---|---|\n| (assigned) | | 0 |\n| `timeout` | late | 5 |\n| `x` | y | 7 |";
        let faults = exit_code_faults(text, "Exit codes: 0 assigned, 5\n  timeout, 6 protocol");
        assert_eq!(faults, ["it names the exit code \"7 x\", and the help doesn't"]);
    }
}
