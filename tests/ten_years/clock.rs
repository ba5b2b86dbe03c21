//! One clock for the device and the service, which the test moves.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

const DAY: u64 = 24 * 3600;

thread_local! {
    /// How far it is ahead of this machine's.
    static AHEAD: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

pub(crate) fn now() -> SystemTime {
    SystemTime::now() + ahead()
}

pub(crate) fn ahead() -> Duration {
    AHEAD.get()
}

pub(crate) fn advance(by: Duration) {
    AHEAD.set(AHEAD.get() + by);
}

pub(crate) const fn days(days: u64) -> Duration {
    Duration::from_secs(days * DAY)
}

/// As the timeline shows it.
pub(crate) fn shown() -> String {
    let days = ahead().as_secs() / DAY;
    format!("year {}, day {}", days / 365, days % 365)
}
