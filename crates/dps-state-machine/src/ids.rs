//! The names of the field, parsed once: an id that exists as a value of these types is fit to be sent.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
};
use core::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{ConfigurationError, Error},
    printable::Printable,
};

/// The device's name at the provisioning service: 1 to 128 ASCII letters, digits and `- . _ :`, not ending in
/// `.`, `_` or `:`. The service compares ids without regard to case; here the case is kept as written.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-service#registration-id>.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegistrationId(String);

impl RegistrationId {
    /// The longest registration id, in characters.
    pub const MAX_LEN: usize = 128;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RegistrationId {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] that names the value and the first thing wrong with it.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong =
            |reason: &str| Err(ConfigurationError::new("registration id", text, reason).into());
        if text.is_empty() {
            return wrong("it is empty; give the name of the device");
        }
        if let Some(bad) = text.chars().find(|c| !is_id_char(*c)) {
            return wrong(&format!(
                "the character {bad:?} is not allowed; use letters, digits and - . _ :"
            ));
        }
        if text.len() > Self::MAX_LEN {
            return wrong(&format!(
                "it has {} characters; at most {} are allowed",
                text.len(),
                Self::MAX_LEN
            ));
        }
        if !text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-') {
            return wrong("it must end with a letter, a digit or -");
        }
        Ok(Self(text.to_owned()))
    }
}

fn is_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':')
}

/// One instance of the provisioning service, for example `0ne00AABBCC`: 1 to 64 ASCII letters and digits.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-service#id-scope>.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdScope(String);

impl IdScope {
    /// The longest ID scope taken, in characters; the service's own have 11.
    pub const MAX_LEN: usize = 64;

    /// The scope as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdScope {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] that names the value and the first thing wrong with it.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Err(ConfigurationError::new("ID scope", text, reason).into());
        if text.is_empty() {
            return wrong("it is empty; the service's overview page shows it, like 0ne00AABBCC");
        }
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_alphanumeric()) {
            return wrong(&format!(
                "the character {bad:?} is not allowed; an ID scope has letters and digits only"
            ));
        }
        if text.len() > Self::MAX_LEN {
            return wrong(&format!("it is longer than {} characters", Self::MAX_LEN));
        }
        Ok(Self(text.to_string()))
    }
}

/// The service's handle for one registration in progress: any non-empty text that it sent.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperationId(String);

impl OperationId {
    /// Takes the handle as the service sent it; `None` when it is empty.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty()).then_some(Self(text))
    }

    /// The handle as text. It is not URL-safe by itself: encode it where it goes into a path or a topic.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for OperationId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        Self::new(text).ok_or("an operation id is not empty")
    }
}

impl From<OperationId> for String {
    fn from(id: OperationId) -> Self {
        id.0
    }
}

macro_rules! print_as_text {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Printable::brief(&self.0).fmt(f)
            }
        }
    )+};
}
print_as_text!(RegistrationId, IdScope, OperationId);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn every_id_any_source_allows_is_taken_as_written() {
        let longest = "a".repeat(128);
        for id in [
            "d",
            "Device-1",
            "a.b_c:d-9",
            "ends-with-",
            "UPPER",
            "-a",
            ".a",
            "_a",
            ":a",
            "-",
            "---",
            "._:-",
            "..a::b",
            "0",
            longest.as_str(),
        ] {
            assert_eq!(id.parse::<RegistrationId>().unwrap().as_str(), id, "{id:?}");
        }
    }

    #[test]
    fn a_bad_registration_id_is_named_with_its_reason() {
        let too_long = "a".repeat(129);
        let cases = [
            ("", "empty"),
            ("my device", "' '"),
            ("dévice", "'é'"),
            ("a/b", "'/'"),
            ("a.", "end"),
            ("a_", "end"),
            ("-:", "end"),
            (".", "end"),
            ("_", "end"),
            (":", "end"),
            (too_long.as_str(), "129"),
        ];
        let quiet: Vec<_> = cases
            .into_iter()
            .filter(|(id, says)| {
                let message = id.parse::<RegistrationId>().unwrap_err().to_string();
                !(message.contains(says) && message.contains(id))
            })
            .collect();
        assert!(quiet.is_empty(), "{quiet:?}");
    }

    #[test]
    fn an_id_scope_is_letters_and_digits() {
        assert_eq!("0ne00AABBCC".parse::<IdScope>().unwrap().as_str(), "0ne00AABBCC");
        for bad in ["", "0ne 00", "0ne/00", "0ne-00"] {
            assert!(bad.parse::<IdScope>().is_err(), "{bad:?}");
        }
    }
}
