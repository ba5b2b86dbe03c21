//! This machine's clock. The date until which a SAS token holds is written by it and read by the service's.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use der::DateTime;
use dps_state_machine::{ConfigurationError, Error};

/// Clocks that differ by less are not to blame: `Date` counts whole seconds, and an answer takes a while.
const TOLERANCE: Duration = Duration::from_secs(60);

/// What tells the time.
#[derive(Clone, Copy)]
pub(crate) struct Clock(pub(crate) fn() -> SystemTime);

impl Clock {
    pub(crate) fn now(self) -> SystemTime {
        (self.0)()
    }
}

/// This machine's.
impl Default for Clock {
    fn default() -> Self {
        Self(SystemTime::now)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// Checks that the clock can be right at all: no certificate is valid before 1970, and the TLS library counts from then.
///
/// # Errors
/// [`Error::Configuration`] when it can't be.
pub(crate) fn check(now: SystemTime) -> Result<(), Error> {
    if now < SystemTime::UNIX_EPOCH {
        let reason = "it is before 1970 by this machine's clock, and no certificate and no token is valid then; set the clock";
        return Err(ConfigurationError::new("clock", "", reason).into());
    }
    Ok(())
}

/// What this machine's clock says, for a token that was refused, and how far the service's `Date` is from it where
/// there is one.
pub(crate) fn describe(now: SystemTime, service: Option<SystemTime>) -> String {
    let says = format!("this machine's clock says {}", rfc3339(now));
    let Some(service) = service else {
        return format!("{says}: a token holds only if that is right");
    };
    let (apart, side) = match service.duration_since(now) {
        Ok(ahead) => (ahead, "behind"),
        Err(error) => (error.duration(), "ahead of"),
    };
    if apart < TOLERANCE {
        return format!("{says}, as the service's does");
    }
    format!("{says}, {} {side} the service's: set the clock", roughly(apart))
}

/// A length of time in words: the nearest number of whole seconds, minutes, hours or days, of which there are at least two.
pub fn roughly(length: Duration) -> String {
    let seconds = length.as_secs();
    let whole = |unit: u64| seconds.saturating_add(unit / 2) / unit;
    match (whole(86_400), whole(3_600), whole(60)) {
        (days, 48.., _) => format!("{days} days"),
        (_, hours, 120..) => format!("{hours} hours"),
        (.., minutes) if seconds >= 120 => format!("{minutes} minutes"),
        _ => format!("{seconds} seconds"),
    }
}

fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    DateTime::from_unix_duration(since).unwrap_or(DateTime::INFINITY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_1970_is_a_configuration_error() {
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        let message = check(early).unwrap_err().to_string();
        assert!(message.starts_with("clock: it is before 1970"), "{message}");
        check(SystemTime::UNIX_EPOCH).unwrap();
        check(SystemTime::now()).unwrap();
    }

    #[test]
    fn it_says_how_far_the_clocks_are_apart() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
        let says = "this machine's clock says 2025-01-01T00:00:00Z";
        assert_eq!(describe(now, None), format!("{says}: a token holds only if that is right"));
        for (service, then) in [
            (now, ", as the service's does"),
            (now + Duration::from_secs(59), ", as the service's does"),
            (now + Duration::from_secs(90), ", 90 seconds behind the service's: set the clock"),
            (now - Duration::from_secs(7200), ", 2 hours ahead of the service's: set the clock"),
            (SystemTime::UNIX_EPOCH, ", 20089 days ahead of the service's: set the clock"),
        ] {
            assert_eq!(describe(now, Some(service)), format!("{says}{then}"), "{service:?}");
        }
    }

    #[test]
    fn a_length_of_time_is_told_in_the_nearest_whole_unit() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (119, "119 seconds"),
            (120, "2 minutes"),
            (7_169, "119 minutes"),
            (7_170, "2 hours"),
            (86_399, "24 hours"),
            (86_401, "24 hours"),
            (170_999, "47 hours"),
            (171_000, "2 days"),
            (172_801, "2 days"),
            (u64::MAX, "213503982334601 days"),
        ] {
            assert_eq!(roughly(Duration::from_secs(seconds)), words, "{seconds}");
        }
    }
}
