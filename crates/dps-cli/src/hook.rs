//! A command of the user's, run by the shell with facts in its environment.

use std::{
    io,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use dps_client::internal as secret;
use serde::Serialize;
use tokio::time::timeout;

use crate::given::SYMMETRIC_KEY;

/// How often it is looked after.
const TICK: Duration = Duration::from_millis(20);
/// What a shell says of a command that it may not run, and of one that it does not find.
const NOT_EXECUTABLE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// How a command ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ran {
    /// Without what has the form of a secret.
    pub(crate) command: String,
    pub(crate) exit_code: Option<i32>,
    /// What is wrong, unless it ended well.
    pub(crate) message: Option<String>,
}

/// Runs it in a folder, or else where this program runs, to its end. It has no standard input, and standard error for what
/// it prints; `DPS_SYMMETRIC_KEY` is not in its environment. When the time is over, or this is dropped, it is killed with all
/// that it started.
pub(crate) async fn run(
    command: &str,
    folder: Option<&Path>,
    limit: Option<Duration>,
    variables: impl IntoIterator<Item = (&'static str, String)>,
) -> Ran {
    let mut shell = shell(command);
    shell.stdin(Stdio::null()).stdout(io::stderr()).env_remove(SYMMETRIC_KEY).envs(variables);
    if let Some(folder) = folder.filter(|folder| !folder.as_os_str().is_empty()) {
        shell.current_dir(folder);
    }
    let ended = match shell.spawn() {
        Ok(child) => timeout(limit.unwrap_or(Duration::MAX), Running(child).end()).await,
        Err(error) => Ok(Err(error)),
    };
    let (exit_code, message) = match ended {
        Ok(Ok(status)) => (status.code(), problem(status)),
        Ok(Err(error)) => (None, Some(format!("no shell can be started: {error}"))),
        Err(_) => {
            let seconds = limit.unwrap_or_default().as_secs();
            (None, Some(format!("it had not ended after {seconds} s, and was killed")))
        }
    };
    Ran { command: secret::masked(command).into_owned(), exit_code, message }
}

#[cfg(unix)]
fn shell(command: &str) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut shell = Command::new("sh");
    // A group of its own: what it starts can be ended with it.
    shell.arg("-c").arg(command).process_group(0);
    shell
}

#[cfg(not(unix))]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.arg("/C").arg(command);
    shell
}

fn problem(status: ExitStatus) -> Option<String> {
    match status.code() {
        Some(0) => None,
        Some(NOT_EXECUTABLE) => {
            Some("the shell may not run it (exit code 126): make it executable".to_owned())
        }
        Some(NOT_FOUND) => {
            Some("the shell does not find it (exit code 127): give its path".to_owned())
        }
        _ => Some(format!("it ended with {status}")),
    }
}

struct Running(Child);

impl Running {
    async fn end(mut self) -> io::Result<ExitStatus> {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            if let Some(status) = self.0.try_wait()? {
                return Ok(status);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            #[cfg(unix)]
            {
                let kill = ["-c", "kill -s KILL -- -\"$0\"", &self.0.id().to_string()];
                let _ = Command::new("sh").args(kill).stderr(Stdio::null()).status();
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_command_that_hangs_is_killed_when_its_time_is_over() {
        let ran = run("sleep 1000", None, Some(Duration::from_secs(60)), []).await;
        let message = ran.message.unwrap();
        assert!(message.contains("60 s"), "{message}");
        assert_eq!(ran.exit_code, None);
    }
}
