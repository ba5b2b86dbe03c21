//! JSON that is carried and never rewritten.

use alloc::{borrow::ToOwned, boxed::Box, format, string::ToString};
use core::{fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::{
    error::{ConfigurationError, Error},
    printable::Printable,
};

/// A JSON value to the letter: each digit of a number, each escape, the order of the members and members of the same
/// name stay as they were written. A payload is one, on its way out and on its way back.
///
/// It is made from text, from a [`Value`], or from whatever serializes; and it is read as text, or as whatever
/// deserializes:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dps_client::{Json, serde_json::{Value, json}};
/// let text: Json = r#"{"serial": 12345678901234567890, "rate": 1.50}"#.parse()?;
/// assert_eq!(text.get(), r#"{"serial": 12345678901234567890, "rate": 1.50}"#);
/// assert_eq!(Json::from(json!({"site": "north"})).get(), r#"{"site":"north"}"#);
/// assert_eq!(Json::new(&[1, 2])?.read::<Vec<u8>>()?, [1, 2]);
///
/// let error = "{\n  \"site\": north}".parse::<Json>().unwrap_err();
/// assert_eq!(error.to_string(), "payload: it is not JSON: expected ident at line 2 column 12");
/// # Ok(())
/// # }
/// ```
///
/// Two are equal when they are written alike.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Writes what serializes.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it can't be written as JSON, for example a map whose keys are no texts.
    pub fn new(value: &(impl Serialize + ?Sized)) -> Result<Self, Error> {
        let raw = to_raw_value(value).map_err(|error| not_json("it can't be written", &error))?;
        Ok(Self(raw))
    }

    /// Reads it as another type. A [`Value`] has the numbers that fit into 64 bits, and the last of several members
    /// of the same name.
    ///
    /// # Errors
    /// Those of [`serde_json::from_str`].
    pub fn read<'de, T: Deserialize<'de>>(&'de self) -> serde_json::Result<T> {
        serde_json::from_str(self.get())
    }

    /// Whether it is a JSON object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.get().starts_with('{')
    }
}

/// Its text is [`get`](RawValue::get), without white space around it.
impl Deref for Json {
    type Target = RawValue;

    fn deref(&self) -> &RawValue {
        &self.0
    }
}

impl FromStr for Json {
    type Err = Error;

    /// A byte order mark before it is left out.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the line and the column where the text is no JSON.
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim_start_matches('\u{feff}');
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|error| not_json("it is not JSON", &error))?;
        Ok(Self(raw.to_owned()))
    }
}

fn not_json(what: &str, error: &serde_json::Error) -> ConfigurationError {
    ConfigurationError::new("payload", "", &format!("{what}: {error}"))
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        // What a `Value` prints is JSON.
        Self(RawValue::from_string(value.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned()))
    }
}

impl From<Box<RawValue>> for Json {
    fn from(raw: Box<RawValue>) -> Self {
        Self(raw)
    }
}

impl From<&RawValue> for Json {
    fn from(raw: &RawValue) -> Self {
        Self(raw.to_owned())
    }
}

impl From<Json> for Box<RawValue> {
    fn from(json: Json) -> Self {
        json.0
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Json {}

/// At most [`Printable::BRIEF`] characters of it, in one line.
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable::brief(self.get()).fmt(f)
    }
}

/// To the letter.
impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeMap, string::String};
    use serde_json::json;

    #[test]
    fn what_is_no_json_is_refused_with_its_line_and_column() {
        let cases = [
            ("", "EOF while parsing a value at line 1 column 0"),
            (" ", "line 1 column 1"),
            ("{", "line 1 column 1"),
            ("{\"a\":}", "line 1 column 6"),
            ("{\"a\":1,}", "line 1 column 8"),
            ("{'a':1}", "line 1 column 2"),
            ("{a:1}", "line 1 column 2"),
            ("{\n\"a\": 01}", "line 2 column 7"),
            ("{\n\n  \"a\": 1.}", "line 3 column 10"),
            ("{\"a\": +1}", "line 1 column 7"),
            ("{\"a\": NaN}", "line 1 column 7"),
            ("{\"a\": .5}", "line 1 column 7"),
            ("{\"a\": 0x10}", "line 1 column 8"),
            ("{\"a\": \"\\x\"}", "line 1 column 9"),
            ("{\"a\": \"\\u12\"}", "line 1 column"),
            ("{\"a\": \"\t\"}", "line 1 column 7"),
            ("{\"a\": \"b\n\"}", "line 1 column 8"),
            ("{} {}", "trailing characters at line 1 column 4"),
            ("{}\n// a comment", "trailing characters at line 2 column 1"),
            ("{\"a\": 1 \"b\": 2}", "line 1 column 9"),
            ("{\"a\": True}", "line 1 column 7"),
            ("site=north", "line 1 column 1"),
        ];
        for (text, says) in cases {
            let message = text.parse::<Json>().unwrap_err().to_string();
            assert!(message.starts_with("payload: it is not JSON: "), "{text:?}: {message}");
            assert!(message.contains(says), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_value_that_json_has_no_words_for_is_refused() {
        let keys: BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
        let message = Json::new(&keys).unwrap_err().to_string();
        assert!(message.starts_with("payload: it can't be written: "), "{message}");
    }

    #[test]
    fn raw_values_and_what_holds_them_are_written_to_the_letter() {
        let text = r#"{"n": 1.50}"#;
        let json: Json = text.parse().unwrap();
        assert_eq!(Json::new(&json).unwrap(), json);
        assert_eq!(Json::new(&*json).unwrap().get(), text);
        let holder: BTreeMap<&str, Json> = [("a", json.clone())].into();
        assert_eq!(Json::new(&holder).unwrap().get(), r#"{"a":{"n": 1.50}}"#);
        let read: BTreeMap<String, Json> = serde_json::from_str(r#"{"a":{"n": 1.50}}"#).unwrap();
        assert_eq!(read["a"], json);
        assert_ne!(json, json!({"n": 1.5}).into(), "as it is written");
    }
}
