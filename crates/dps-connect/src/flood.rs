//! A bound on what a peer sends that brings an exchange no further.

use std::{error::Error as StdError, fmt, io};

/// So many messages may come in a row that answer nothing. An honest peer sends one now and then, to show that it is
/// there.
const MOST: u32 = 10_000;

/// Counts the messages since the last one that counted.
#[derive(Debug, Default)]
pub struct Flood(u32);

impl Flood {
    /// One more came; `what` names it, with its article.
    ///
    /// # Errors
    /// [`Flooded`] when there are too many.
    pub fn note(&mut self, what: &'static str) -> Result<(), Flooded> {
        self.0 = self.0.saturating_add(1);
        if self.0 < MOST { Ok(()) } else { Err(Flooded(what)) }
    }

    /// We asked for one of them.
    pub fn expect_one(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}

/// The peer sends without end, and nothing of it answers anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flooded(&'static str);

impl fmt::Display for Flooded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MOST} messages came that answer nothing, the last one {}", self.0)
    }
}

impl StdError for Flooded {}

impl From<Flooded> for io::Error {
    fn from(flooded: Flooded) -> Self {
        Self::new(io::ErrorKind::InvalidData, flooded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_named_with_its_last_message_and_its_number() {
        let mut flood = Flood::default();
        for _ in 1..MOST {
            flood.note("a pong").unwrap();
        }
        flood.expect_one();
        flood.note("a pong").unwrap();
        let flooded = flood.note("PINGRESP").unwrap_err().to_string();
        assert_eq!(flooded, "10000 messages came that answer nothing, the last one PINGRESP");
    }
}
