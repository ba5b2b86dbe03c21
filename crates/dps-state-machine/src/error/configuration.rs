//! What the caller gave and can't be used.

use alloc::string::{String, ToString};
use core::fmt;

/// A value that can't be used: which one, what it was, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigurationError {
    /// What the value is for, for example `registration id`.
    pub field: &'static str,
    /// The value as given; empty when it is a secret or there was none.
    pub value: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl ConfigurationError {
    /// Names the field, the value (pass `""` for a secret) and what to do.
    #[must_use]
    pub fn new(field: &'static str, value: impl Into<String>, reason: &str) -> Self {
        Self { field, value: value.into(), reason: reason.to_string() }
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, value, reason } = self;
        if value.is_empty() {
            write!(f, "{field}: {reason}")
        } else {
            write!(f, "{field} {value:?}: {reason}")
        }
    }
}

impl core::error::Error for ConfigurationError {}
