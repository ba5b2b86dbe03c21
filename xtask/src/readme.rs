//! `cargo xtask readme`: what README.md tells people to type works.
//!
//! - Each fenced `sh` block is run from the root as one script that stops at its first failure; the command `dps`
//!   is on its `PATH`.
//! - `<!-- ci: background -->` in the line above a block: a server. It is ready with its first line on stdout, and
//!   runs until its section ends.
//! - `<!-- ci: skip: REASON -->`: not run, for the reason given.
//! - A block that calls CI itself (`cargo xtask TASK`, `.ci/run`) is not run, since it may be what runs this; its
//!   task has to exist.
//! - "Quick start" is two blocks of one command each: the first says `assigned`, the second is the first line of
//!   what `.ci/run` runs.
//! - Every flag and exit code that it names for `dps`, transcripts (`text` blocks) among them, is in the command's help.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    TASKS,
    markdown::{self, Block},
    metadata::Metadata,
    process::{Cmd, Group, Result, none_of},
};

const FILE: &str = "README.md";

/// Enough for the first command, which builds everything for release.
const LIMIT: Duration = Duration::from_secs(20 * 60);

pub(crate) fn run(_: &[String]) -> Result {
    let text = std::fs::read_to_string(FILE).map_err(|e| format!("{FILE}: {e}"))?;
    let blocks = markdown::blocks(&text)?;
    none_of(&quick_start_faults(&blocks, &std::fs::read_to_string(".ci/run")?))?;
    let runner = Runner::new()?;
    let help = runner.help()?;
    let mut faults = flag_faults(&flags_of_dps(&text, &blocks), &help);
    faults.extend(exit_code_faults(&text, &help));
    none_of(&faults)?;
    let mut servers: Vec<(String, Group)> = Vec::new();
    for block in blocks.iter().filter(|block| block.language == "sh") {
        servers.retain(|(section, _)| *section == block.section);
        let place = format!("{FILE}:{}", block.line);
        match plan(block)? {
            Plan::Skip(reason) => println!("{place}: skipped: {reason}"),
            Plan::Background => {
                let (server, line) = runner.script(&block.text).start_until_first_line(LIMIT)?;
                println!("{place}: ready: {line}");
                servers.push((block.section.clone(), server));
            }
            Plan::Run => {
                println!("{place}:");
                let output = runner.script(&block.text).limit(LIMIT).read()?;
                print!("{output}");
                if block.section == QUICK_START
                    && !output.lines().any(|l| l.starts_with("assigned"))
                {
                    return Err(
                        format!("{place}: no line of its output begins with `assigned`").into()
                    );
                }
            }
        }
    }
    Ok(())
}

/// What to do with a block.
#[derive(Debug, PartialEq, Eq)]
enum Plan<'a> {
    Run,
    Background,
    Skip(&'a str),
}

fn plan(block: &Block) -> Result<Plan<'_>, String> {
    let place = format!("{FILE}:{}", block.line);
    let commands = block.commands();
    if commands.is_empty() {
        return Err(format!("{place}: a block without a command"));
    }
    if commands.iter().any(|command| calls_ci(command)) {
        let tasks =
            commands.iter().filter_map(|c| c.strip_prefix("cargo xtask ")?.split(' ').next());
        let known = |task: &str| TASKS.iter().any(|known| known.name == task);
        return match tasks.into_iter().find(|task| !known(task)) {
            Some(task) => Err(format!("{place}: there is no task {task}")),
            None if commands.iter().all(|command| calls_ci(command)) => Ok(Plan::Skip("CI itself")),
            None => Err(format!("{place}: give the commands beside CI a block of their own")),
        };
    }
    match block.directive.as_deref() {
        None => Ok(Plan::Run),
        Some("background") => Ok(Plan::Background),
        Some(other) => match other.strip_prefix("skip:").map(str::trim) {
            Some(reason) if !reason.is_empty() => Ok(Plan::Skip(reason)),
            _ => Err(format!("{place}: what is `ci: {other}`?")),
        },
    }
}

fn calls_ci(command: &str) -> bool {
    command.starts_with("cargo xtask") || command.ends_with(".ci/run")
}

const QUICK_START: &str = "Quick start";

fn quick_start_faults(blocks: &[Block], ci_run: &str) -> Vec<String> {
    let section: Vec<&Block> = blocks.iter().filter(|block| block.section == QUICK_START).collect();
    let shell = |block: &&Block| block.language == "sh" && block.commands().len() == 1;
    let [first, second] = section.as_slice() else {
        return vec![format!("{QUICK_START} has {} blocks and should have two", section.len())];
    };
    if !shell(first) || !shell(second) {
        return vec![format!("{QUICK_START} should have two `sh` blocks of one command each")];
    }
    let test = second.commands().concat();
    let called = ci_run.lines().map(str::trim).find(|line| line.starts_with("cargo "));
    if called != Some(test.as_str()) {
        return vec![format!(".ci/run should begin with `{test}`, and runs {called:?} first")];
    }
    if first.directive.is_some() || calls_ci(&first.commands().concat()) {
        return vec![format!("the first command of {QUICK_START} should be run by CI")];
    }
    Vec::new()
}

/// The flags that the README names for `dps`, in its blocks and in its text.
fn flags_of_dps(text: &str, blocks: &[Block]) -> BTreeSet<String> {
    let shown = blocks.iter().filter(|block| ["sh", "text"].contains(&block.language.as_str()));
    let inline = markdown::inline_code(text).into_iter().map(str::to_string);
    shown
        .flat_map(Block::commands)
        .chain(inline)
        .flat_map(|line| words_for_dps(&line))
        .filter_map(|word| Some(word.trim_matches(['[', ']']).split('=').next()?.to_string()))
        .filter(|word| word.starts_with("--") && word.len() > 2)
        .collect()
}

/// The words of a command that `dps` reads: those behind its name, or behind the `--` of `cargo run`. A line that is
/// nothing but flags is about `dps` too.
fn words_for_dps(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_dps = |word: &&str| word.rsplit('/').next() == Some("dps");
    let first = match words.iter().position(|word| *word == "--") {
        Some(dashes) if line.contains("cargo run") => Some(dashes + 1),
        _ if line.starts_with("--") => Some(0),
        _ if line.starts_with("cargo ") => None,
        _ => words.iter().position(is_dps),
    };
    words.into_iter().skip(first.unwrap_or(usize::MAX)).map(str::to_string).collect()
}

fn flag_faults(flags: &BTreeSet<String>, help: &str) -> Vec<String> {
    let known: BTreeSet<&str> = help
        .split(|c: char| !c.is_alphanumeric() && c != '-')
        .filter(|w| w.starts_with("--"))
        .collect();
    let unknown = flags.iter().filter(|flag| !known.contains(flag.as_str()));
    unknown.map(|flag| format!("{FILE} names {flag}, which dps doesn't know")).collect()
}

/// The rows `| kind | when | exit code |` of the README, each of which the help must say as `code kind`.
fn exit_code_faults(text: &str, help: &str) -> Vec<String> {
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut faults = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", kind, _, code, ""] = cells.as_slice()
            && code.parse::<u8>().is_ok()
        {
            let said = format!("{code} {}", kind.trim_matches(['`', '(', ')']));
            if !help.contains(&said) {
                faults.push(format!("{FILE} names the exit code {said:?}, and the help doesn't"));
            }
        }
    }
    faults
}

/// Runs scripts with the command `dps` on the `PATH`.
struct Runner {
    path: std::ffi::OsString,
}

impl Runner {
    fn new() -> Result<Self> {
        Cmd::cargo(["build", "--locked", "--bin", "dps"]).run()?;
        let built = Metadata::load()?.target_directory.join("debug");
        let old = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([built].into_iter().chain(std::env::split_paths(&old)))?;
        Ok(Self { path })
    }

    fn script(&self, text: &str) -> Cmd {
        Cmd::new("sh").args(["-e", "-u", "-c", text]).env("PATH", &self.path)
    }

    /// The help of the command and of each of its subcommands.
    fn help(&self) -> Result<String> {
        let mut all = self.script("dps --help").read()?;
        for command in subcommands(&all) {
            all.push_str(&self.script(&format!("dps {command} --help")).read()?);
        }
        Ok(all)
    }
}

/// The words that begin the indented lines under `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| line.trim() != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &str) -> Vec<Block> {
        markdown::blocks(text).unwrap()
    }

    fn plan_of(text: &str) -> Result<String, String> {
        plan(&blocks(text)[0]).map(|plan| format!("{plan:?}"))
    }

    const QUICK: &str =
        "## Quick start\n```sh\ncargo run -- register\n```\n```sh\ncargo xtask test\n```\n";
    const CI_RUN: &str = "#!/usr/bin/env bash\nset -eu\ncargo xtask test\ncargo xtask ci\n";

    #[test]
    fn a_block_runs_unless_it_says_otherwise() {
        assert_eq!(plan_of("```sh\nls\n```").unwrap(), "Run");
        assert_eq!(plan_of("<!-- ci: background -->\n```sh\nserve\n```").unwrap(), "Background");
        assert_eq!(plan_of("<!-- ci: skip: a hub -->\n```sh\nx\n```").unwrap(), "Skip(\"a hub\")");
        assert_eq!(plan_of("```sh\ncargo xtask test\n```").unwrap(), "Skip(\"CI itself\")");
    }

    #[test]
    fn what_can_not_be_followed_is_an_error() {
        for text in [
            "```sh\n\n```",
            "<!-- ci: skip: -->\n```sh\nx\n```",
            "<!-- ci: skip -->\n```sh\nx\n```",
            "<!-- ci: bakcground -->\n```sh\nx\n```",
            "```sh\ncargo xtask nonsense\n```",
            "```sh\nls\ncargo xtask test\n```",
        ] {
            assert!(plan_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_quick_start_is_two_commands_and_the_second_is_what_ci_runs() {
        assert_eq!(quick_start_faults(&blocks(QUICK), CI_RUN), Vec::<String>::new());
        for wrong in [
            "",
            "## Quick start\n```sh\nls\n```\n",
            "## Quick start\n```sh\nls\nls\n```\n```sh\ncargo xtask test\n```\n",
            "## Quick start\n```sh\nls\n```\n```sh\ncargo test\n```\n",
            "## Quick start\n<!-- ci: skip: slow -->\n```sh\nls\n```\n```sh\ncargo xtask test\n```\n",
            "## Quick start\n```text\nls\n```\n```sh\ncargo xtask test\n```\n",
        ] {
            assert_eq!(quick_start_faults(&blocks(wrong), CI_RUN).len(), 1, "{wrong}");
        }
        assert_eq!(quick_start_faults(&blocks(QUICK), "cargo test\n").len(), 1);
    }

    #[test]
    fn flags_are_taken_from_commands_transcripts_and_text() {
        let text = "Use `--json` or `cargo build --release` or `dps emulate --admin-port 0`.\n\
            ```sh\ncargo run --bin dps -- register --emulator\ndps register \\\n --key=x\n\
            cargo build --bin dps --locked\n```\n\
            ```text\n$ target/release/dps register --ca-file ca.pem\n```\n";
        let flags = flags_of_dps(text, &blocks(text));
        assert_eq!(
            Vec::from_iter(flags),
            ["--admin-port", "--ca-file", "--emulator", "--json", "--key"]
        );
    }

    #[test]
    fn an_exit_code_that_the_help_does_not_say_fails() {
        let text = "| kind | when | exit code |\n|---|---|---|\n\
            | (assigned) | | 0 |\n| `timeout` | late | 5 |\n| `protocol` | junk | 7 |\n";
        let help = "Exit codes: 0 assigned, 5\n  timeout, 6 protocol";
        assert_eq!(
            exit_code_faults(text, help),
            ["README.md names the exit code \"7 protocol\", and the help doesn't"]
        );
    }

    #[test]
    fn a_flag_that_is_not_in_the_help_fails() {
        let flags = BTreeSet::from(["--json".to_string(), "--jso".to_string()]);
        let help = "  -v\n      --json         One object\n  [--ca-file <PEM>]\n";
        assert_eq!(flag_faults(&flags, help), ["README.md names --jso, which dps doesn't know"]);
    }

    #[test]
    fn subcommands_are_read_from_the_help() {
        let help = "About\n\nUsage: dps <COMMAND>\n\nCommands:\n  register  Registers\n             more\n  emulate   Serves\n  help      Print\n\nOptions:\n  -h, --help\n";
        assert_eq!(subcommands(help), ["register", "emulate"]);
    }
}
