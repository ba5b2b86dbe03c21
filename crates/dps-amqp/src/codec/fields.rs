//! Lists whose values are known by their places, as all performatives are.

use std::borrow::Cow;

use super::{Malformed, Value};

/// The fields of a performative by their places. What is missing at the end is absent.
pub(crate) struct Fields<'a>(Vec<Value<'a>>);

/// No performative has as many fields.
const MAX_FIELDS: usize = 32;

impl<'a> Fields<'a> {
    /// Reads a described list and moves `bytes` to what comes after it.
    pub(crate) fn read(bytes: &mut &'a [u8]) -> Result<(u64, Self), Malformed> {
        match Value::read(bytes)? {
            Value::Described(code, fields) => Ok((code, Self::of(fields.read()))),
            _ => Err(Malformed::new("a frame does not say what it is")),
        }
    }

    /// The fields of a list.
    pub(crate) fn of(list: Value<'a>) -> Self {
        Self(list.into_list().take(MAX_FIELDS).collect())
    }

    pub(crate) fn get(&self, place: usize) -> Option<Value<'a>> {
        self.0.get(place).copied().filter(|value| *value != Value::Null)
    }

    pub(crate) fn u32(&self, place: usize) -> Option<u32> {
        self.get(place)?.as_u64().and_then(|number| u32::try_from(number).ok())
    }

    pub(crate) fn flag(&self, place: usize) -> bool {
        matches!(self.get(place), Some(Value::Bool(true)))
    }

    pub(crate) fn text(&self, place: usize) -> Option<String> {
        self.get(place)?.as_text().map(Cow::into_owned)
    }

    pub(crate) fn binary(&self, place: usize) -> Vec<u8> {
        match self.get(place) {
            Some(Value::Binary(bytes)) => bytes.to_vec(),
            _ => Vec::new(),
        }
    }
}
