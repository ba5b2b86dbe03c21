//! Time that ran out.

use alloc::format;
use core::{fmt, time::Duration};

use super::Stage;

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
    /// When the service would have been ready to be asked again, if that is what passed the bound.
    pub retry_after: Option<Duration>,
}

impl TimeoutError {
    pub(crate) fn new(stage: Stage, scope: TimeoutScope, after: Duration) -> Self {
        Self { stage, scope, after, retry_after: None }
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
    /// The time for the goodbye.
    EndSession,
}

impl fmt::Display for TimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Seconds(self.after);
        match (self.scope, self.retry_after) {
            (TimeoutScope::Request, _) if self.stage >= Stage::Register => {
                write!(f, "no answer to the {} request within {seconds} s", self.stage)
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
            (TimeoutScope::Registration, Some(wait)) => write!(
                f,
                "still assigning: the service asked to wait {} s more, past the {seconds} s for the whole registration",
                Seconds(wait)
            ),
            (TimeoutScope::Registration, None) => write!(
                f,
                "the registration did not finish within {seconds} s (stage {})",
                self.stage
            ),
        }
    }
}

impl core::error::Error for TimeoutError {}

/// A time in seconds, to the millisecond.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        match self.0.subsec_millis() {
            0 => write!(f, "{whole}"),
            millis => f.write_str(format!("{whole}.{millis:03}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn times_are_shown_to_the_millisecond() {
        for (nanos, shown) in
            [(0, "0"), (2_000_000_000, "2"), (1_999_397_972, "1.999"), (500_000_000, "0.5")]
        {
            assert_eq!(Seconds(Duration::from_nanos(nanos)).to_string(), shown);
        }
    }
}
