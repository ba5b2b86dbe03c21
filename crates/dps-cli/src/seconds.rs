//! Lengths of time as people type them: seconds, with a fraction or without.

use std::time::Duration;

use dps_client::Error;

use crate::given::{Given, wrong};

/// What a length of time may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seconds {
    pub(crate) zero: bool,
    pub(crate) at_most: Duration,
}

impl Seconds {
    pub(crate) fn parse(self, given: &Given) -> Result<Duration, Error> {
        let Self { zero, at_most } = self;
        let Given { from, text } = given;
        let parsed = text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        match parsed {
            Some(length) if length <= at_most && (zero || !length.is_zero()) => Ok(length),
            _ => {
                let bound = if zero { "from 0" } else { "above 0" };
                let reason = format!(
                    "give a number of seconds {bound} up to {}, like 2 or 0.5",
                    at_most.as_secs()
                );
                Err(wrong(from, text, &reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAG: Seconds = Seconds { zero: false, at_most: Duration::from_secs(60) };

    fn given(text: &str) -> Given {
        Given { from: "--t", text: text.to_owned() }
    }

    #[test]
    fn seconds_are_numbers_within_bounds() {
        for (text, millis) in [("1", 1000), ("0.25", 250), ("60", 60_000), ("1e1", 10_000)] {
            assert_eq!(FLAG.parse(&given(text)).unwrap(), Duration::from_millis(millis), "{text}");
        }
        assert_eq!(Seconds { zero: true, ..FLAG }.parse(&given("0")).unwrap(), Duration::ZERO);
        for text in ["", "0", "-1", "60.1", "inf", "nan", "1e-20", "1e400", "2s", "soon"] {
            let message = FLAG.parse(&given(text)).unwrap_err().to_string();
            assert!(message.starts_with("--t") && message.contains(text), "{message}");
        }
    }
}
