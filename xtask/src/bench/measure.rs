//! Measuring one client from outside.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::proxy::SlowPath;
use crate::process::Result;

/// Long against all that a client computes, so that round trips can be read off the time.
const ROUND_TRIP: Duration = Duration::from_millis(200);
/// How many runs the CPU time is averaged over.
const RUNS: u32 = 40;

/// What one registration costs.
pub(super) struct Figures {
    pub(super) round_trips: f64,
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) cpu_ms: f64,
    pub(super) peak_mib: f64,
    pub(super) size_mib: f64,
}

/// The arguments for an endpoint.
type Arguments = dyn Fn(&str) -> Vec<String>;

/// A program that registers a device at the endpoint that it is given.
pub(super) struct Client {
    program: PathBuf,
    port: u16,
    arguments: Box<Arguments>,
}

impl Client {
    pub(super) fn new(
        program: &Path,
        port: u16,
        arguments: impl Fn(&str) -> Vec<String> + 'static,
    ) -> Self {
        Self { program: program.to_owned(), port, arguments: Box::new(arguments) }
    }

    /// Runs it often enough to tell.
    pub(super) fn measure(&self) -> Result<Figures> {
        let (cpu_ms, direct) = self.cpu()?;
        let path = SlowPath::to(SocketAddr::from(([127, 0, 0, 1], self.port)), ROUND_TRIP)?;
        let (slow, peak_kib) = self.run_once(path.port)?;
        let (up, down) = path.take_bytes();
        let waited = slow.saturating_sub(direct);
        Ok(Figures {
            round_trips: waited.as_secs_f64() / ROUND_TRIP.as_secs_f64(),
            up,
            down,
            cpu_ms,
            peak_mib: peak_kib as f64 / 1024.0,
            size_mib: fs::metadata(&self.program)?.len() as f64 / f64::from(1 << 20),
        })
    }

    /// User and system time of a run in milliseconds, and how long a run takes.
    fn cpu(&self) -> Result<(f64, Duration)> {
        let endpoint = format!("127.0.0.1:{}", self.port);
        let script = format!(
            "TIMEFORMAT='%U %S'; time for i in $(seq {RUNS}); do \"$@\" >/dev/null || exit 1; done"
        );
        let begin = Instant::now();
        let output = Command::new("bash")
            .args(["-c", &script, "bash"])
            .arg(&self.program)
            .args((self.arguments)(&endpoint))
            .stdin(Stdio::null())
            .output()?;
        let took = begin.elapsed() / RUNS;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("{} failed: {text}", self.program.display()).into());
        }
        let times = text.lines().last().unwrap_or_default().split(' ').map(str::parse::<f64>);
        let seconds: f64 = times.collect::<std::result::Result<Vec<_>, _>>()?.iter().sum();
        Ok((seconds * 1000.0 / f64::from(RUNS), took))
    }

    /// Runs it once on the slow path: how long it took, and its peak memory in KiB.
    fn run_once(&self, port: u16) -> Result<(Duration, u64)> {
        let endpoint = format!("127.0.0.1:{port}");
        let begin = Instant::now();
        let mut child = Command::new(&self.program)
            .args((self.arguments)(&endpoint))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        loop {
            // The peak only grows, and the end of the session at the end needs next to nothing.
            peak = peak.max(peak_kib(&fs::read_to_string(&status).unwrap_or_default()));
            if let Some(exit) = child.try_wait()? {
                if !exit.success() {
                    let shown = self.program.display();
                    return Err(format!("{shown} failed on the slow path: {exit}").into());
                }
                return Ok((begin.elapsed(), peak));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The peak resident size in the text of `/proc/PID/status`.
fn peak_kib(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_from_the_kernels_words() {
        assert_eq!(peak_kib("Name:\tx\nVmHWM:\t    2764 kB\nVmRSS:\t 1 kB\n"), 2764);
        assert_eq!(peak_kib(""), 0);
    }
}
