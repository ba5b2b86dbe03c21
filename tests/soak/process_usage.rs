//! What a process holds on to.

use std::{fs, time::Duration};

use tokio::{runtime::Handle, time::Instant};

use crate::{HEAP, Result};

/// What a process holds on to at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessUsage {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    /// Of its tokio runtime.
    pub(crate) tasks: usize,
    /// Bytes that are allocated.
    pub(crate) heap: usize,
    /// The most that was allocated since the peak was reset.
    pub(crate) peak: usize,
}

/// What only the process itself can tell: tasks, heap and its peak.
pub(crate) struct Inside(pub(crate) [usize; 3]);

impl Inside {
    pub(crate) fn of_this_process(runtime: &Handle) -> Self {
        let tasks = runtime.metrics().num_alive_tasks();
        Self([tasks, HEAP.current_usage(), HEAP.peak_usage()])
    }
}

impl ProcessUsage {
    /// This process now.
    pub(crate) fn of_this_process() -> Result<Self> {
        let Inside(inside) = Inside::of_this_process(&Handle::current());
        let mut process_usage = Self::of_process(std::process::id(), inside)?;
        // One is the folder that is being read.
        process_usage.descriptors = process_usage.descriptors.saturating_sub(1);
        Ok(process_usage)
    }

    /// A process as it is seen from outside, and as it sees itself.
    pub(crate) fn of_process(id: u32, [tasks, heap, peak]: [usize; 3]) -> Result<Self> {
        let descriptors = entries(&format!("/proc/{id}/fd"))?;
        let threads = entries(&format!("/proc/{id}/task"))?;
        Ok(Self { descriptors, threads, tasks, heap, peak })
    }

    /// This process once no more descriptors and tasks are there than at the beginning, or after a while.
    pub(crate) async fn settled(beginning: Self) -> Result<Self> {
        settle(beginning, Self::of_this_process).await
    }

    /// Whether no more descriptors and tasks are there than in the beginning.
    pub(crate) fn is_back_to(self, beginning: Self) -> bool {
        self.descriptors <= beginning.descriptors && self.tasks <= beginning.tasks
    }
}

/// Looks again and again until what was in the beginning is back, or for a while: what a peer closed is gone only
/// when that was noticed.
pub(crate) async fn settle(
    beginning: ProcessUsage,
    mut look: impl FnMut() -> Result<ProcessUsage>,
) -> Result<ProcessUsage> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let process_usage = look()?;
        if process_usage.is_back_to(beginning) || Instant::now() >= deadline {
            return Ok(process_usage);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many descriptors this process may have.
pub(crate) fn descriptor_limit() -> Result<usize> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    match soft {
        Some("unlimited") => Ok(usize::MAX),
        Some(number) => Ok(number.parse()?),
        None => Err("/proc/self/limits does not tell how many files may be open".into()),
    }
}

fn entries(folder: &str) -> Result<usize> {
    Ok(fs::read_dir(folder).map_err(|error| format!("{folder}: {error}; Linux is needed"))?.count())
}
