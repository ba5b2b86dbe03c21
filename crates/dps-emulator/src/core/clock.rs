//! The service's clock, and times as the service writes and reads them.

use std::{
    fmt::Write as _,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use crate::config_error::ConfigError;
use crate::lock::lock;

/// What the service's clock is set to.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ClockSetting {
    /// So many seconds ahead of this machine's clock; less than 0 is behind it, 0 puts it right.
    Ahead(f64),
    /// This time.
    At(SystemTime),
    /// So many seconds further than it is; less than 0 puts it back.
    Advance(f64),
    /// Whether it stands still. One that stood still goes on from there.
    Frozen(bool),
}

impl ClockSetting {
    /// How far the clock can be from this machine's, in seconds: 100 years.
    pub const FARTHEST: f64 = 3_153_600_000.0;

    fn refused(self, field: &str) -> ConfigError {
        let given = match self {
            Self::Ahead(seconds) | Self::Advance(seconds) => seconds.to_string(),
            Self::At(time) => rfc3339(time),
            Self::Frozen(frozen) => frozen.to_string(),
        };
        let reason = "the service's clock must be within 3153600000 seconds (100 years) of this machine's, and not before 1970";
        ConfigError::new(field, reason).value(given.chars())
    }
}

/// The clock of the service, which may be ahead of that of its devices or behind it, and may stand still.
#[derive(Default)]
pub(crate) struct Clock(Mutex<Hands>);

/// In milliseconds, the times since the Unix epoch.
#[derive(Clone, Copy, Default)]
struct Hands {
    ahead: i64,
    /// Where it stands still.
    frozen: Option<i64>,
}

/// What the clock shows.
pub(crate) struct Reading {
    pub(crate) now: SystemTime,
    /// Seconds, less than 0 when it is behind this machine's.
    pub(crate) ahead: f64,
    pub(crate) frozen: bool,
}

impl Clock {
    pub(crate) fn now(&self) -> SystemTime {
        self.read().now
    }

    pub(crate) fn read(&self) -> Reading {
        let (hands, machine) = (*lock(&self.0), machine());
        let now = hands.now(machine);
        let ahead = Duration::from_millis(now.abs_diff(machine)).as_secs_f64();
        Reading {
            now: time(now),
            ahead: if now < machine { -ahead } else { ahead },
            frozen: hands.frozen.is_some(),
        }
    }

    /// Sets it; what is wrong with the setting is said under the name `field`.
    pub(crate) fn set(&self, field: &str, setting: ClockSetting) -> Result<(), ConfigError> {
        self.set_each(&[(field, setting)])
    }

    /// As [`Self::set`] for several settings at one moment, one after the other: all of them or none.
    pub(crate) fn set_each(&self, settings: &[(&str, ClockSetting)]) -> Result<(), ConfigError> {
        let (mut hands, machine) = (lock(&self.0), machine());
        let set = settings.iter().try_fold(*hands, |hands, (field, setting)| {
            hands.with(*setting, machine).ok_or_else(|| setting.refused(field))
        });
        *hands = set?;
        Ok(())
    }
}

impl Hands {
    fn now(self, machine: i64) -> i64 {
        self.frozen.unwrap_or_else(|| machine.saturating_add(self.ahead))
    }

    /// `None` when that is too far away.
    fn with(self, setting: ClockSetting, machine: i64) -> Option<Self> {
        let now = self.now(machine);
        let (now, frozen) = match setting {
            ClockSetting::Ahead(seconds) => (machine.checked_add(millis(seconds)?)?, self.frozen),
            ClockSetting::At(time) => (since_epoch_millis(time)?, self.frozen),
            ClockSetting::Advance(seconds) => (now.checked_add(millis(seconds)?)?, self.frozen),
            ClockSetting::Frozen(false) => (now, None),
            ClockSetting::Frozen(true) => (now, Some(now)),
        };
        let ahead = now.checked_sub(machine)?;
        let right = ahead == 0 || (now >= 0 && ahead.abs() <= millis(ClockSetting::FARTHEST)?);
        right.then_some(Self { ahead, frozen: frozen.map(|_| now) })
    }
}

/// This machine's clock.
fn machine() -> i64 {
    since_epoch_millis(SystemTime::now()).unwrap_or_default()
}

fn since_epoch_millis(time: SystemTime) -> Option<i64> {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).ok(),
        Err(before) => i64::try_from(before.duration().as_millis()).ok()?.checked_neg(),
    }
}

fn time(millis: i64) -> SystemTime {
    let (epoch, distance) = (SystemTime::UNIX_EPOCH, Duration::from_millis(millis.unsigned_abs()));
    let time = if millis < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) };
    time.unwrap_or(epoch)
}

/// Seconds as milliseconds; `None` when they are no number or too many.
fn millis(seconds: f64) -> Option<i64> {
    let distance = Duration::try_from_secs_f64(seconds.abs()).ok()?;
    let distance = i64::try_from(distance.as_millis()).ok()?;
    Some(if seconds < 0.0 { -distance } else { distance })
}

/// Seconds since the Unix epoch; 0 before it.
pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    since_epoch(time).as_secs()
}

/// UTC with milliseconds, as RFC 3339 has it: `2024-02-29T12:00:00.000Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let elapsed = since_epoch(time);
    let (days, second) = (elapsed.as_secs() / 86_400, elapsed.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = elapsed.subsec_millis();
    let mut text = String::with_capacity(24);
    // Nothing fails that is written to a text.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"
    );
    text
}

/// Reads a time of RFC 3339, whose offset must be there; `None` for what is none, and for what is before 1970.
pub(crate) fn read_rfc3339(text: &str) -> Option<SystemTime> {
    let read: toml::value::Datetime = text.parse().ok()?;
    let (date, time) = (read.date?, read.time?);
    let offset = match read.offset? {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_until(date.year.into(), date.month.into(), date.day.into());
    let minutes = days * 1440 + i64::from(time.hour) * 60 + i64::from(time.minute) - offset;
    let seconds = u64::try_from(minutes * 60).ok()? + u64::from(time.second.unwrap_or_default());
    let since = Duration::new(seconds, time.nanosecond.unwrap_or_default());
    SystemTime::UNIX_EPOCH.checked_add(since)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Year, month and day of a day since the epoch, counted in years that begin in March and eras of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The day of a date since the epoch, counted as [`civil`] does.
fn days_until(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_at_the_edges_of_months_and_leap_years() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.250Z"),
            (951_782_400, "2000-02-29T00:00:00.250Z"),
            (1_709_207_999, "2024-02-29T11:59:59.250Z"),
            (1_735_689_599, "2024-12-31T23:59:59.250Z"),
            (4_107_542_400, "2100-03-01T00:00:00.250Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 250);
            assert_eq!(rfc3339(time), expected);
            assert_eq!(read_rfc3339(expected), Some(time));
        }
    }

    #[test]
    fn times_with_an_offset_are_read_and_others_are_not() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_208_000);
        for text in
            ["2024-02-29T12:00:00Z", "2024-02-29t13:30:00+01:30", "2024-02-28 23:00:00-13:00"]
        {
            assert_eq!(read_rfc3339(text), Some(noon), "{text}");
        }
        for text in [
            "",
            "2024-02-29T12:00:00",
            "2024-02-29",
            "12:00:00Z",
            "2023-02-29T12:00:00Z",
            "now",
            "1969-12-31T23:59:59Z",
        ] {
            assert_eq!(read_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn it_is_set_ahead_and_back_and_stands_still() {
        let day = 86_400_000;
        let machine = 20_000 * day;
        let set = |hands: Hands, setting| hands.with(setting, machine);
        let ahead = set(Hands::default(), ClockSetting::Ahead(-86_400.0)).unwrap();
        assert_eq!(ahead.now(machine), machine - day);
        assert_eq!(ahead.now(machine + day), machine, "it goes on");
        let frozen = set(ahead, ClockSetting::Frozen(true)).unwrap();
        assert_eq!(frozen.now(machine + day), machine - day, "it stands still");
        let advanced = set(frozen, ClockSetting::Advance(1.5)).unwrap();
        assert_eq!(advanced.now(machine + day), machine - day + 1500, "and can be moved");
        let goes_on = advanced.with(ClockSetting::Frozen(false), machine + day).unwrap();
        assert_eq!(goes_on.now(machine + day), machine - day + 1500, "it goes on from there");
        let right = set(advanced, ClockSetting::Ahead(0.0)).unwrap();
        assert_eq!(right.now(machine + day), machine, "it still stands still");
        let at = set(right, ClockSetting::At(time(5000))).unwrap();
        assert_eq!(at.now(machine), 5000);
    }

    #[test]
    fn what_is_too_far_away_is_refused_and_changes_nothing() {
        let clock = Clock::default();
        let before_1970 = -(since_epoch(SystemTime::now()).as_secs_f64() + 60.0);
        let far = [4e9, -4e9, 1e300, f64::INFINITY, f64::NAN, before_1970];
        for setting in
            far.into_iter().flat_map(|s| [ClockSetting::Ahead(s), ClockSetting::Advance(s)])
        {
            let error = clock.set("ahead", setting).unwrap_err().to_string();
            assert!(error.contains("100 years") && error.starts_with("ahead "), "{error}");
        }
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(9_000_000_000);
        assert!(clock.set("at", ClockSetting::At(late)).is_err());
        assert_eq!(lock(&clock.0).ahead, 0);
    }
}
