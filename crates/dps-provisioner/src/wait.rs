//! A wait that outlives its process, and what is left of it by a clock that may be wrong.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::assignment::seconds;

/// No wait is longer than this, which is some hundred years: a longer one can't be told as a time of day.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64);

/// Since when and until when something waits, by this machine's clock, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wait {
    #[serde(with = "seconds")]
    since: SystemTime,
    #[serde(with = "seconds")]
    until: SystemTime,
}

impl Wait {
    pub(crate) fn new(now: SystemTime, length: Duration) -> Self {
        let until = now.checked_add(length.min(LONGEST)).unwrap_or(now);
        let [since, until] = [now, until].map(|time| seconds::time(seconds::of(time)));
        Self { since, until }
    }

    /// What is left of it: never more than its whole length, whatever the clock says. Nothing is left when the clock is
    /// behind its beginning by more than that length: the clock was wrong then or is wrong now, and nobody knows how
    /// much of it is over.
    pub(crate) fn left(self, now: SystemTime) -> Duration {
        let whole = self.until.duration_since(self.since).unwrap_or_default();
        let left = self.until.duration_since(now).unwrap_or_default();
        if left > whole.saturating_mul(2) { Duration::ZERO } else { left.min(whole) }
    }
}

/// How a process goes through a wait: by a clock that nobody sets, from when it saw the wait first.
#[derive(Debug, Default)]
pub(crate) struct Countdown(Option<(Wait, Option<Instant>)>);

impl Countdown {
    /// What is left of this wait; `None` when there is none.
    pub(crate) fn left(&mut self, wait: Option<Wait>, now: SystemTime) -> Option<Duration> {
        self.0 = wait.map(|wait| match self.0 {
            Some((known, end)) if known == wait => (wait, end),
            _ => (wait, after(wait.left(now))),
        });
        self.0.map(|(_, end)| until(end))
    }
}

/// When that time is over, by the clock that nobody sets. A wait without an end is as long as the longest one.
pub(crate) fn after(wait: Duration) -> Option<Instant> {
    Instant::now().checked_add(wait.min(LONGEST))
}

/// How long it is until then; nothing when it is over or was never set.
pub(crate) fn until(end: Option<Instant>) -> Duration {
    end.map(|end| end.saturating_duration_since(Instant::now())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn no_clock_makes_a_wait_longer_than_it_is() {
        let wait = Wait::new(at(1_000_000), Duration::from_secs(300));
        for (now, left) in [
            (1_000_000, 300),
            (1_000_100, 200),
            (1_000_300, 0),
            (9_000_000, 0),
            // A clock that was set back by no more than the wait.
            (999_900, 300),
            (999_700, 300),
            // By more.
            (999_699, 0),
            (0, 0),
        ] {
            assert_eq!(wait.left(at(now)), Duration::from_secs(left), "{now}");
        }
        assert_eq!(Wait::new(at(7), Duration::MAX).left(at(7)), LONGEST);
    }
}
