//! Running other programs: say what runs, wait no longer than allowed, and say how it ended.

use std::{
    ffi::OsStr,
    fmt,
    io::{BufRead, BufReader, IsTerminal, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

#[cfg(unix)]
use std::os::unix::process::CommandExt as _;

/// What a task comes to.
pub(crate) type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Why a task failed, in words for a person.
pub(crate) struct Failure(String);

impl Failure {
    /// The task has said already, in its own output, why it failed.
    pub(crate) fn told() -> Self {
        Self(String::new())
    }

    /// What is still to be said of the task; nothing when it has told.
    pub(crate) fn of(&self, task: &str) -> Option<String> {
        (!self.0.is_empty()).then(|| format!("xtask {task}: {}", self.0))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Fails with one line for each fault, and passes when there is none.
pub(crate) fn none_of(faults: &[String]) -> Result {
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!("{} found\n  - {}", faults.len(), faults.join("\n  - ")).into())
}

/// Fails with all the failures, and passes when there is none. Nothing is skipped after one.
pub(crate) fn all_of(results: impl IntoIterator<Item = Result>) -> Result {
    let failures = results.into_iter().filter_map(|result| result.err());
    none_of(&failures.map(|failure| failure.0).collect::<Vec<_>>())
}

/// A program with its arguments, about to run.
#[derive(Debug)]
pub(crate) struct Cmd {
    command: Command,
    limit: Option<Duration>,
}

impl Cmd {
    /// A program by name or path.
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        // `cargo run` describes xtask itself in these; build scripts that watch them would run again in every task.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        Self { command, limit: None }
    }

    /// The cargo that runs xtask.
    pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())).args(arguments)
    }

    /// The compiler that this cargo uses.
    pub(crate) fn rustc<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).args(arguments)
    }

    /// More arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// One environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The folder to run in.
    pub(crate) fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Ends the program, and what it started, after this time; without it, there is no bound.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Runs it in the open; fails when it does.
    pub(crate) fn run(mut self) -> Result {
        let shown = self.announce();
        match self.limit {
            None => succeeded(&shown, self.command.status().map_err(|e| cannot_run(&shown, &e))?),
            Some(limit) => {
                let mut group = self.start()?;
                succeeded(&shown, group.wait(limit)?)
            }
        }
    }

    /// Runs it and shows what it wrote only if it fails.
    pub(crate) fn run_quietly(mut self) -> Result {
        let shown = self.shown();
        let output = self.command.output().map_err(|e| cannot_run(&shown, &e))?;
        succeeded(&shown, output.status).map_err(|Failure(why)| {
            format!("{why}\n{}", String::from_utf8_lossy(&output.stderr)).into()
        })
    }

    /// Runs it and returns what it wrote to stdout; fails when it does.
    pub(crate) fn read(mut self) -> Result<String> {
        let shown = self.shown();
        let limit = self.limit;
        self.command.stdout(Stdio::piped());
        let mut group = self.start()?;
        let (to_us, text) = mpsc::channel();
        if let Some(mut stdout) = group.child.stdout.take() {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let outcome = stdout.read_to_end(&mut bytes).map(|_| bytes);
                to_us.send(outcome).ok();
            });
        }
        let status = group.wait(limit.unwrap_or(Duration::from_secs(3600)))?;
        succeeded(&shown, status)?;
        // A grandchild that keeps the pipe open can't hold us up.
        let bytes = text
            .recv_timeout(Duration::from_secs(10))
            .map_err(|_| format!("{shown} ended, but something it started still writes"))??;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Runs it in the open and hands each line of its stdout over as it comes; returns how it ended. It fails when
    /// no line comes for as long as `silence`, and waits for nobody who keeps its stdout open after it has ended.
    pub(crate) fn stream(
        mut self,
        silence: Duration,
        mut line: impl FnMut(&str),
    ) -> Result<ExitStatus> {
        self.announce();
        self.command.stdout(Stdio::piped());
        let mut group = self.start()?;
        let lines = lines_of(&mut group)?;
        let mut heard = Instant::now();
        loop {
            match lines.recv_timeout(Duration::from_secs(1)) {
                Ok(text) => {
                    line(&text);
                    heard = Instant::now();
                }
                Err(RecvTimeoutError::Disconnected) => return group.wait(silence),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(status) = group.child.try_wait()? {
                        return Ok(status);
                    }
                    if heard.elapsed() > silence {
                        return Err(format!("{} hangs: silent for {silence:?}", group.shown).into());
                    }
                }
            }
        }
    }

    /// Starts it, and ends it with all that it starts when the guard is dropped.
    pub(crate) fn start(mut self) -> Result<Group> {
        let shown = self.shown();
        // At a terminal it stays in the group that Ctrl-C reaches.
        let alone = !std::io::stdin().is_terminal();
        #[cfg(unix)]
        if alone {
            self.command.process_group(0);
        }
        let child = self.command.spawn().map_err(|e| cannot_run(&shown, &e))?;
        Ok(Group { child, shown, alone })
    }

    /// Starts it as [`Cmd::start`] does and waits for the first line of its stdout; the rest is read and dropped.
    pub(crate) fn start_until_first_line(mut self, limit: Duration) -> Result<(Group, String)> {
        self.announce();
        self.command.stdout(Stdio::piped());
        let mut group = self.start()?;
        let shown = group.shown.clone();
        let first = lines_of(&mut group)?.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("{shown} wrote no line within {limit:?}"),
            RecvTimeoutError::Disconnected => format!("{shown} ended without a line on stdout"),
        })?;
        Ok((group, first))
    }

    fn announce(&self) -> String {
        let shown = self.shown();
        eprintln!("$ {shown}");
        shown
    }

    fn shown(&self) -> String {
        let program = Path::new(self.command.get_program());
        let mut shown = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for argument in self.command.get_args() {
            shown.push(' ');
            shown.push_str(&argument.to_string_lossy());
        }
        shown
    }
}

/// A running program and all that it starts.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    shown: String,
    /// It leads a process group of its own.
    alone: bool,
}

impl Group {
    /// Waits for the program's end, and ends it when it takes longer than `limit`.
    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.wait_until(Instant::now() + limit)?
            .ok_or_else(|| format!("{} ran for more than {limit:?}", self.shown).into())
    }

    fn wait_until(&mut self, deadline: Instant) -> Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: &str) {
        // The shell's own `kill`: a slim machine may lack the program.
        let whole_group = if self.alone { "-" } else { "" };
        let kill = format!("kill -s {signal} -- {whole_group}{}", self.child.id());
        Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status().ok();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.signal("TERM");
            if !matches!(self.wait_until(Instant::now() + Duration::from_secs(5)), Ok(Some(_))) {
                self.signal("KILL");
                self.child.kill().ok();
            }
        }
        self.child.wait().ok();
    }
}

/// Where a program stands on the `PATH`, if it does.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The lines of a program's stdout as they come; they are read to the end even when nobody wants them.
fn lines_of(group: &mut Group) -> Result<mpsc::Receiver<String>> {
    let stdout = group.child.stdout.take().ok_or("a program without a stdout")?;
    let (to_us, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for bytes in BufReader::new(stdout).split(b'\n').map_while(|bytes| bytes.ok()) {
            let line = String::from_utf8_lossy(&bytes);
            to_us.send(line.trim_end_matches('\r').to_string()).ok();
        }
    });
    Ok(lines)
}

fn succeeded(shown: &str, status: ExitStatus) -> Result {
    if status.success() { Ok(()) } else { Err(format!("`{shown}` failed: {status}").into()) }
}

fn cannot_run(shown: &str, error: &std::io::Error) -> String {
    format!("can't run `{shown}`: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once() {
        assert_eq!(
            Failure::from("no C++ compiler").of("fuzz").unwrap(),
            "xtask fuzz: no C++ compiler"
        );
        assert_eq!(Failure::told().of("fuzz"), None);
    }

    #[test]
    fn a_failing_program_is_a_failure_that_names_it() {
        let failure = Cmd::new("sh").args(["-c", "exit 3"]).run().unwrap_err();
        assert!(format!("{failure:?}").contains("sh -c exit 3"), "{failure:?}");
    }

    #[test]
    fn a_missing_program_is_a_failure_that_names_it() {
        let failure = Cmd::new("no-such-program").run().unwrap_err();
        assert!(format!("{failure:?}").contains("no-such-program"), "{failure:?}");
    }

    #[test]
    fn a_program_past_its_limit_is_ended_with_all_that_it_started() {
        let begin = Instant::now();
        let script = "sleep 60 & wait";
        let failure =
            Cmd::new("sh").args(["-c", script]).limit(Duration::from_millis(50)).run().unwrap_err();
        assert!(format!("{failure:?}").contains("ran for more than"), "{failure:?}");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_quiet_program_is_heard_when_it_fails() {
        let failure =
            Cmd::new("sh").args(["-c", "echo why >&2; exit 1"]).run_quietly().unwrap_err();
        assert!(format!("{failure:?}").ends_with("\nwhy\n"), "{failure:?}");
        assert!(Cmd::new("true").run_quietly().is_ok());
    }

    #[test]
    fn reading_gives_stdout_and_fails_with_the_program() {
        assert_eq!(Cmd::new("sh").args(["-c", "echo here"]).read().unwrap(), "here\n");
        assert!(Cmd::new("sh").args(["-c", "echo here; exit 1"]).read().is_err());
    }

    #[test]
    fn a_stream_hands_over_lines_and_the_end() {
        let mut lines = Vec::new();
        let script = "echo one; echo two; exit 3";
        let status = Cmd::new("sh")
            .args(["-c", script])
            .stream(Duration::from_secs(30), |line| lines.push(line.to_string()))
            .unwrap();
        assert_eq!((lines, status.code()), (vec!["one".to_string(), "two".to_string()], Some(3)));
    }

    #[test]
    fn a_silent_stream_fails_and_one_left_open_does_not_hold_us_up() {
        let begin = Instant::now();
        let stream = |script| Cmd::new("sh").args(["-c", script]).stream(Duration::ZERO, |_| ());
        let failure = stream("sleep 60").unwrap_err();
        assert!(format!("{failure:?}").contains("hangs"), "{failure:?}");
        assert!(stream("sleep 60 & true").unwrap().success());
        assert!(begin.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_server_is_ready_with_its_first_line_and_fails_without_one() {
        let limit = Duration::from_secs(30);
        let server = Cmd::new("sh").args(["-c", "echo ready; sleep 60"]);
        assert_eq!(server.start_until_first_line(limit).unwrap().1, "ready");
        let failure = Cmd::new("true").start_until_first_line(limit).unwrap_err();
        assert!(format!("{failure:?}").contains("without a line"), "{failure:?}");
    }

    #[test]
    fn faults_are_listed_one_a_line() {
        assert!(none_of(&[]).is_ok());
        let failure = none_of(&["a".to_string(), "b".to_string()]).unwrap_err();
        assert_eq!(format!("{failure:?}"), "2 found\n  - a\n  - b");
        let all = all_of([Err("a".into()), Ok(()), Err("b".into())]).unwrap_err();
        assert_eq!(format!("{all:?}"), format!("{failure:?}"));
    }
}
