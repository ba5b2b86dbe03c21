//! The JSON of an answer, read so that one odd byte or field does not cost the others.

use alloc::{
    borrow::Cow,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The text of a body: without a byte order mark, and with U+FFFD for what is no UTF-8.
pub(crate) fn text(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
}

/// The members of a JSON object, each unread: what nobody asks for may be anything, as deep as it likes. Of two
/// members with one name the last holds. Nothing but an object is one.
#[derive(Default)]
pub(crate) struct Object<'a>(Vec<(Lossy, &'a RawValue)>);

impl<'a> Object<'a> {
    pub(crate) fn read(json: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(json)
    }

    /// What is there, unless it is null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.member(name).filter(|value| value.get() != "null")
    }

    /// What is there, null too.
    pub(crate) fn member(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().rfind(|(member, _)| member.0 == name)?;
        Some(value)
    }

    /// A text; anything else is as good as absent.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        serde_json::from_str(self.get(name)?.get()).ok().map(|Lossy(text)| text)
    }

    /// A text that counts: what is there must be one, to the letter.
    pub(crate) fn exact_text(&self, name: &str) -> Result<Option<String>, String> {
        match (self.get(name), self.text(name)) {
            (None, _) => Ok(None),
            (_, Some(text)) if !text.contains(char::REPLACEMENT_CHARACTER) => Ok(Some(text)),
            _ => Err(format!("its {name} is no text")),
        }
    }

    /// A number, or a text that is one.
    pub(crate) fn code(&self, name: &str) -> Option<u32> {
        let digits = self.text(name).or_else(|| Some(self.get(name)?.get().to_string()))?;
        digits.parse().ok()
    }

    /// An object; anything else is as good as an empty one.
    pub(crate) fn object(&self, name: &str) -> Self {
        self.get(name).and_then(|value| Self::read(value.get()).ok()).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A JSON string, with U+FFFD for half of a surrogate pair.
struct Lossy(String);

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Lossy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Lossy, E> {
                Ok(Lossy(String::from_utf8_lossy(bytes).into_owned()))
            }
        }
        // As bytes, since as a text a lone surrogate is an error.
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_member_leaves_the_others_alone() {
        let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
        for odd in [
            r#""x": "\ud800""#,
            r#""\udc00": 1"#,
            r#""x": 1e999"#,
            r#""message": 5"#,
            r#""trackingId": {}"#,
            &format!(r#""info": {deep}"#),
        ] {
            let json = format!(r#"{{{odd}, "errorCode": 409203, "timestampUtc": "then"}}"#);
            let object = Object::read(&json).unwrap();
            assert_eq!(object.code("errorCode"), Some(409_203), "{odd:.40}");
            assert_eq!(object.text("timestampUtc").as_deref(), Some("then"), "{odd:?}");
            assert_eq!(
                (object.text("message"), object.text("trackingId")),
                (None, None),
                "{odd:?}"
            );
        }
    }

    #[test]
    fn odd_bytes_are_shown_as_such_where_a_text_need_not_be_exact() {
        let body = text(b"\xef\xbb\xbf{\"a\": \"gr\xf6\xdfe \\ud800!\", \"b\": \"\\ud83d\\ude00\", \"b\": null}");
        let object = Object::read(&body).unwrap();
        assert_eq!(
            object.text("a").as_deref(),
            Some("gr\u{fffd}\u{fffd}e \u{fffd}\u{fffd}\u{fffd}!")
        );
        assert_eq!(object.exact_text("a").unwrap_err(), "its a is no text");
        assert_eq!(object.exact_text("b"), Ok(None), "the last holds");
        assert_eq!(object.exact_text("c"), Ok(None));
    }

    #[test]
    fn nothing_but_an_object_is_one() {
        for json in ["", "[]", "[\"a\"]", "null", "5", "\"{}\"", "{", "{} {}"] {
            assert!(Object::read(json).is_err(), "{json}");
        }
        let error = Object::read("[]").err().unwrap().to_string();
        assert!(error.contains("expected a JSON object"), "{error}");
    }

    #[test]
    fn a_code_is_a_number_or_a_text_that_is_one() {
        for (code, read) in [
            ("7", Some(7)),
            ("\"7\"", Some(7)),
            ("-7", None),
            ("7.0", None),
            ("[7]", None),
            ("4294967296", None),
        ] {
            assert_eq!(
                Object::read(&format!("{{\"c\":{code}}}")).unwrap().code("c"),
                read,
                "{code}"
            );
        }
    }
}
