//! What the caller gave and can't be used.

use alloc::{
    borrow::Cow,
    string::{String, ToString},
};
use core::fmt;

use crate::printable::Printable;

/// So many characters of a value are shown: more than any id may have.
const SHOWN: usize = 200;

/// A value that can't be used: which one, what it was, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigurationError {
    /// What the value is for, for example `registration id`.
    pub field: Cow<'static, str>,
    /// The value as given; empty when it is a secret or there was none.
    pub value: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
    /// Whether the same call can succeed later, as when another process has the lock of a file. Default: false.
    pub retryable: bool,
}

impl ConfigurationError {
    /// Names the field, the value (pass `""` for a secret) and what to do.
    #[must_use]
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        value: impl Into<String>,
        reason: &str,
    ) -> Self {
        Self {
            field: field.into(),
            value: value.into(),
            reason: reason.to_string(),
            retryable: false,
        }
    }

    /// Says that it holds for now only: the same call can succeed later.
    #[must_use]
    pub fn for_now(mut self) -> Self {
        self.retryable = true;
        self
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = Printable::brief(&self.reason);
        // The key of a file has whatever somebody wrote there.
        write!(f, "{}", Printable::whole(self.field.as_ref()))?;
        match self.value.char_indices().nth(SHOWN) {
            _ if self.value.is_empty() => {}
            None => write!(f, " {:?}", self.value)?,
            Some((end, _)) => write!(f, " {:?}...", self.value.get(..end).unwrap_or_default())?,
        }
        write!(f, ": {reason}")
    }
}

impl core::error::Error for ConfigurationError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_it_reaches_a_terminal_as_it_is() {
        let shown =
            ConfigurationError::new("f:1: re\u{1b}[31m\nd", "\u{1b}", "no\u{7}").to_string();
        assert_eq!(shown, "f:1: re\\u{1b}[31m\\nd \"\\u{1b}\": no\\u{7}");
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let shown = |length| ConfigurationError::new("--id", "é".repeat(length), "no").to_string();
        let all = "é".repeat(SHOWN);
        assert_eq!(shown(SHOWN), alloc::format!("--id {all:?}: no"));
        assert_eq!(shown(SHOWN + 1), alloc::format!("--id {all:?}...: no"));
        assert_eq!(shown(0), "--id: no");
    }
}
