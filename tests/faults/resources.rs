//! What a registration may hold on to: tasks and descriptors.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;

/// How many tasks of the client's runtime are alive, and how many descriptors the process has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Resources {
    pub(crate) tasks: usize,
    pub(crate) descriptors: usize,
}

/// Nothing takes longer to be given back.
const PATIENCE: Duration = Duration::from_secs(3);

impl Resources {
    /// As of now, in the runtime that this is called in.
    pub(crate) fn now() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self { tasks: Handle::current().metrics().num_alive_tasks(), descriptors }
    }

    /// Waits until no more is held than this, and says how long it took.
    ///
    /// # Errors
    /// What is still held when patience is over.
    pub(crate) async fn are_back(self) -> Result<Duration, String> {
        let begin = Instant::now();
        loop {
            let now = Self::now();
            if now.tasks <= self.tasks && now.descriptors <= self.descriptors {
                return Ok(begin.elapsed());
            }
            if begin.elapsed() > PATIENCE {
                return Err(format!("not given back: {now:?}, before {self:?}"));
            }
            // The runtime needs turns to see what the peer and the kernel have done.
            if begin.elapsed() < Duration::from_millis(5) {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}
