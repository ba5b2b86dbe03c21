//! Measuring one client from outside.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Result, slow_path::SlowPath};

/// Long against all that a client computes, so that round trips can be read off the time.
const ROUND_TRIP: Duration = Duration::from_millis(200);
/// How many runs the CPU time is averaged over.
const RUNS: u32 = 40;

/// What one registration costs.
pub(crate) struct Figures {
    pub(crate) round_trips: f64,
    pub(crate) up: u64,
    pub(crate) down: u64,
    pub(crate) cpu_ms: f64,
    pub(crate) peak_mib: f64,
    pub(crate) size_mib: f64,
}

/// A program that registers a device.
pub(crate) struct Client {
    pub(crate) program: PathBuf,
    /// The emulator's port.
    pub(crate) port: u16,
    /// Its arguments, with `ENDPOINT` for where it goes.
    pub(crate) arguments: Vec<String>,
}

impl Client {
    /// Runs it often enough to tell.
    pub(crate) fn measure(&self) -> Result<Figures> {
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

    /// The program with its arguments for a port.
    fn command(&self, port: u16) -> impl Iterator<Item = OsString> {
        let endpoint = format!("127.0.0.1:{port}");
        let arguments = self.arguments.iter().map(move |word| word.replace("ENDPOINT", &endpoint));
        [self.program.clone().into_os_string()].into_iter().chain(arguments.map(OsString::from))
    }

    /// User and system time of a run in milliseconds, and how long a run takes.
    fn cpu(&self) -> Result<(f64, Duration)> {
        let script = format!(
            "TIMEFORMAT='%U %S'; time for i in $(seq {RUNS}); do \"$@\" >/dev/null || exit 1; done"
        );
        let begin = Instant::now();
        let output = Command::new("bash")
            .args(["-c", &script, "bash"])
            .args(self.command(self.port))
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
        let begin = Instant::now();
        let mut child = Command::new(&self.program)
            .args(self.command(port).skip(1))
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
