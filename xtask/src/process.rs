//! Running other programs: say what runs, wait no longer than allowed, and end what was started.

use std::{
    error::Error,
    io::{BufRead, BufReader, IsTerminal},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::Duration,
};

use cargo_metadata::{CargoOpt, Metadata, MetadataCommand};
use serde::de::DeserializeOwned;
use xshell::{Cmd, Shell, cmd};

/// What a task comes to.
pub(crate) type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// The error of a task that has said already, in its own output, why it failed.
pub(crate) const SAID: &str = "";

/// Says why a task failed, once.
pub(crate) fn tell(task: &str, why: &dyn Error) {
    let why = why.to_string();
    if why != SAID {
        eprintln!("xtask {task}: {why}");
    }
}

/// Fails with one line for each fault, and passes when there is none.
pub(crate) fn none_of(faults: &[String]) -> Result {
    match faults.len() {
        0 => Ok(()),
        many => Err(format!("{many} found\n  - {}", faults.join("\n  - ")).into()),
    }
}

/// Fails with all the failures, and passes when there is none. Nothing is skipped after one.
pub(crate) fn all_of(results: impl IntoIterator<Item = Result>) -> Result {
    let failures = results.into_iter().filter_map(|result| Some(result.err()?.to_string()));
    none_of(&failures.collect::<Vec<_>>())
}

/// Whether this is CI: what a machine lacks is a failure there, and a named skip elsewhere.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false")
}

/// A cargo command by its words.
pub(crate) fn cargo<'a>(shell: &'a Shell, words: &str) -> Cmd<'a> {
    without_xtask(shell.cmd("cargo").args(words.split_whitespace()))
}

/// A command that runs cargo, without what `cargo run` says of xtask itself in variables: build scripts that watch them
/// would run again in every task.
pub(crate) fn without_xtask(mut command: Cmd<'_>) -> Cmd<'_> {
    for (name, _) in std::env::vars() {
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command = command.env_remove(name);
        }
    }
    command
}

/// The workspace with everything that it is built from, for every platform and with every feature.
pub(crate) fn metadata() -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.features(CargoOpt::AllFeatures).other_options(["--locked".to_owned()]);
    Ok(command.exec()?)
}

/// A list of deny.toml, which cargo-deny reads too.
pub(crate) fn deny_toml<T: DeserializeOwned>(section: &str, list: &str) -> Result<Vec<T>> {
    let file: toml::Table = toml::from_str(&std::fs::read_to_string("deny.toml")?)?;
    let found = file.get(section).and_then(|section| section.get(list));
    let found = found.ok_or_else(|| format!("deny.toml has no {section}.{list}"))?;
    Ok(found.clone().try_into()?)
}

/// Builds a program of the workspace along with a test of its package, and says where it is. Built so, it is the
/// very one that `cargo xtask test` has built, and nothing is compiled twice for other features.
pub(crate) fn build(shell: &Shell, program: &str, test: &str) -> Result<PathBuf> {
    cargo(shell, "test --locked --workspace --all-features --no-run --test").arg(test).run()?;
    Ok(metadata()?.target_directory.join("debug").join(program).into())
}

/// The Rust files below a folder that git knows or may come to know, with their code.
pub(crate) fn rust_files(shell: &Shell, folder: &str) -> Result<Vec<(String, String)>> {
    let list = cmd!(shell, "git ls-files --cached --others --exclude-standard {folder}").read()?;
    let files = list.lines().filter(|file| file.ends_with(".rs") && shell.path_exists(file));
    files.map(|file| Ok((file.to_owned(), shell.read_file(file)?))).collect()
}

/// A running program. It is ended, with all that it started, when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    shown: String,
    /// Before its number in `kill`: it leads a process group of its own, or not.
    group: &'static str,
}

impl Running {
    /// Starts it, and reads its stdout to the end, whether anybody wants the lines or not.
    pub(crate) fn start(command: Cmd<'_>) -> Result<Self> {
        let shown = command.to_string();
        eprintln!("$ {shown}");
        let mut command = Command::from(command);
        // At a terminal it stays in the group that Ctrl-C reaches.
        let alone = cfg!(unix) && !std::io::stdin().is_terminal();
        #[cfg(unix)]
        if alone {
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("can't run `{shown}`: {error}"))?;
        let stdout = child.stdout.take().ok_or("a program without a stdout")?;
        let (to_us, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(|line| line.ok()) {
                to_us.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).ok();
            }
        });
        Ok(Self { child, lines, shown, group: if alone { "-" } else { "" } })
    }

    /// The next line; none when it has closed its stdout.
    pub(crate) fn line(&self, limit: Duration) -> Result<Option<String>> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(_) => Err(format!("`{}` wrote no line within {limit:?}", self.shown).into()),
        }
    }

    /// Hands over each line, waiting no longer than `limit` for one, and fails if the program does.
    pub(crate) fn each_line(mut self, limit: Duration, mut line: impl FnMut(&str)) -> Result {
        while let Some(text) = self.line(limit)? {
            line(&text);
        }
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("`{}`: {status}", self.shown).into()) }
    }

    /// All that it writes, if it succeeds.
    pub(crate) fn read(self, limit: Duration) -> Result<String> {
        let mut text = String::new();
        self.each_line(limit, |line| text.extend([line, "\n"]))?;
        Ok(text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The shell's own `kill`: a slim machine may lack the program.
        let kill = format!("kill -s KILL -- {}{}", self.group, self.child.id());
        Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status().ok();
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn sh(script: &str) -> Result<Running> {
        Running::start(Shell::new()?.cmd("sh").args(["-c", script]))
    }

    #[test]
    fn a_program_that_is_missing_or_fails_is_named() {
        let shell = Shell::new().unwrap();
        let missing = Running::start(shell.cmd("no-such-program")).unwrap_err().to_string();
        assert!(missing.contains("no-such-program"), "{missing}");
        let failed = sh("echo here; exit 3").unwrap().read(LONG).unwrap_err().to_string();
        assert!(failed.contains("exit 3") && failed.contains("exit status: 3"), "{failed}");
    }

    #[test]
    fn lines_and_the_end_are_handed_over() {
        let mut lines = Vec::new();
        let running = sh("echo one; echo two; exit 3").unwrap();
        let ended = running.each_line(LONG, |line| lines.push(line.to_owned())).unwrap_err();
        assert_eq!(lines, ["one", "two"]);
        assert!(ended.to_string().contains("exit status: 3"), "{ended}");
    }

    #[test]
    fn a_silent_program_fails_and_is_ended_with_all_that_it_started() {
        let begin = std::time::Instant::now();
        let running = sh("sleep 60 & echo $!; wait").unwrap();
        let started = running.line(LONG).unwrap().unwrap();
        let hangs = running.read(Duration::ZERO).unwrap_err().to_string();
        assert!(hangs.contains("wrote no line within"), "{hangs}");
        // A process that was ended and that nobody has waited for yet has no memory left.
        let gone = format!("grep -q VmSize /proc/{started}/status || echo gone");
        assert_eq!(sh(&gone).unwrap().read(LONG).unwrap(), "gone\n");
        assert!(begin.elapsed() < LONG);
    }

    #[test]
    fn faults_are_listed_one_a_line() {
        assert!(none_of(&[]).is_ok());
        let all = all_of([Err("a".into()), Ok(()), Err("b".into())]).unwrap_err().to_string();
        assert_eq!(all, "2 found\n  - a\n  - b");
    }
}
