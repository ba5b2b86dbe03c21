//! Time that ran out.

use alloc::format;
use core::{fmt, time::Duration};

use super::Stage;
use crate::progress::PeerActivity;

/// Time ran out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimeoutError {
    /// What was under way.
    pub stage: Stage,
    /// Whose time it was.
    pub scope: TimeoutScope,
    /// The bound that was reached.
    pub after: Duration,
    /// The wait until the next poll, if that is what would have passed the bound.
    pub retry_after: Option<Duration>,
    /// Whether that wait is what the service asked for, and not the machine's own interval.
    pub asked_by_service: bool,
    /// What the peer did meanwhile, if it was a request that timed out and the peer did anything.
    pub activity: Option<PeerActivity>,
}

impl TimeoutError {
    /// The time of this scope ran out at this stage. The other fields can be set.
    #[must_use]
    pub fn new(stage: Stage, scope: TimeoutScope, after: Duration) -> Self {
        Self { stage, scope, after, retry_after: None, asked_by_service: false, activity: None }
    }
}

/// Whose time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TimeoutScope {
    /// The time for one request.
    Request,
    /// The time for the whole registration.
    Registration,
    /// The time for the end of the session.
    EndSession,
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Seconds(self.after);
        match (self.scope, self.retry_after) {
            (TimeoutScope::Request, _) if self.stage >= Stage::Register => {
                write!(f, "no answer to the {} request within {seconds} s", self.stage)?;
                match self.activity {
                    None => Ok(()),
                    Some(PeerActivity::NoCredit) => {
                        f.write_str(": the peer gives no credit to send it")
                    }
                    Some(PeerActivity::Acknowledged) => {
                        f.write_str(": it was acknowledged and never answered")
                    }
                    Some(PeerActivity::UnmatchedAnswers(1)) => {
                        f.write_str(": 1 answer came that belongs to no request")
                    }
                    Some(PeerActivity::UnmatchedAnswers(count)) => {
                        write!(f, ": {count} answers came that belong to no request")
                    }
                }
            }
            (TimeoutScope::Request, _) if self.stage == Stage::Sign => {
                write!(f, "no signature within {seconds} s from what signs for the device")
            }
            (TimeoutScope::Request, _) => {
                write!(
                    f,
                    "no connection within {seconds} s: nothing came back at the stage {}",
                    self.stage
                )
            }
            (TimeoutScope::EndSession, _) => {
                write!(f, "the session did not end within {seconds} s; the connection was dropped")
            }
            (TimeoutScope::Registration, Some(wait)) => {
                let wait = Seconds::rounded_up(wait);
                if self.asked_by_service {
                    write!(f, "still assigning: the service asked to wait {wait} s more")?;
                } else {
                    write!(f, "still assigning: the next poll would be due in {wait} s")?;
                }
                write!(f, ", past the {seconds} s for the whole registration")
            }
            (TimeoutScope::Registration, None) => write!(
                f,
                "the registration did not finish within {seconds} s (stage {})",
                self.stage
            ),
        }
    }
}

impl core::error::Error for TimeoutError {}

/// A time in seconds, as it is.
pub(super) struct Seconds(Duration);

impl Seconds {
    /// To the millisecond, or to the second where that makes no difference to anybody. Never less than it is.
    pub(super) fn rounded_up(time: Duration) -> Self {
        const LONG: Duration = Duration::from_secs(24 * 3600);
        let unit = if time < LONG { 1_000_000 } else { 1_000_000_000 };
        let over = u64::from(time.subsec_nanos() % unit);
        let rest = if over > 0 { u64::from(unit) - over } else { 0 };
        let up = time.checked_add(Duration::from_nanos(rest));
        Self(up.unwrap_or(Duration::from_secs(u64::MAX)))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        match self.0.subsec_nanos() {
            0 => write!(f, "{whole}"),
            nanos => f.write_str(format!("{whole}.{nanos:09}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_setting_is_shown_as_it_was_given() {
        for (nanos, shown) in
            [(0, "0"), (4_000_000_000, "4"), (500_000_000, "0.5"), (100_000, "0.0001")]
        {
            assert_eq!(Seconds(Duration::from_nanos(nanos)).to_string(), shown);
        }
    }

    #[test]
    fn a_wait_is_never_shown_shorter_than_it_is() {
        for (wait, shown) in [
            (Duration::from_secs(2), "2"),
            (Duration::from_nanos(1_999_397_972), "2"),
            (Duration::from_nanos(1_234_000_001), "1.235"),
            (Duration::from_millis(86_400_001), "86401"),
            (Duration::MAX, "18446744073709551615"),
        ] {
            assert_eq!(Seconds::rounded_up(wait).to_string(), shown, "{wait:?}");
        }
    }
}
