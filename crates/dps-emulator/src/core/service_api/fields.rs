//! JSON objects taken apart field by field, so that each error names the field.

use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::core::service::ServiceError;

/// The fields of an object that nobody has taken yet.
pub(super) struct Fields {
    /// Where the object is, for errors: empty, or `attestation.`
    place: String,
    fields: Map<String, Value>,
}

impl Fields {
    /// Reads a body, which must be an object.
    pub(super) fn of_body(body: &[u8]) -> Result<Self, ServiceError> {
        let value = serde_json::from_slice(body)
            .map_err(|error| ServiceError::deserialization(&error.to_string()))?;
        Self::of("the body", String::new(), value)
    }

    /// An object of a list.
    pub(super) fn of_item(list: &str, place: usize, value: Value) -> Result<Self, ServiceError> {
        Self::of(&format!("{list}[{place}]"), format!("{list}[{place}]."), value)
    }

    fn of(what: &str, place: String, value: Value) -> Result<Self, ServiceError> {
        match value {
            Value::Object(fields) => Ok(Self { place, fields }),
            _ => Err(ServiceError::deserialization(&format!("{what} must be a JSON object"))),
        }
    }

    /// A field, if it is there and not null.
    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, ServiceError> {
        let value = self.fields.remove(name).filter(|value| !value.is_null());
        let read = value.map(|value| serde_json::from_value(value)).transpose();
        read.map_err(|error| self.wrong(name, &error.to_string()))
    }

    /// A field that must be there.
    pub(super) fn need<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ServiceError> {
        let value = self.take(name)?;
        self.required(name, value)
    }

    /// What a text means, if it is there and not empty. The reason must not repeat it: it may be a secret.
    pub(super) fn parsed<T: FromStr>(
        &mut self,
        name: &str,
        reason: impl Fn(T::Err) -> String,
    ) -> Result<Option<T>, ServiceError> {
        let text = self.take::<String>(name)?.map(Zeroizing::new).filter(|text| !text.is_empty());
        let parsed = text.map(|text| text.parse()).transpose();
        parsed.map_err(|error| self.wrong(name, &reason(error)))
    }

    /// What is read of an object, if it is there and not null; nothing of it may be left.
    pub(super) fn within<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Result<T, ServiceError>,
    ) -> Result<Option<T>, ServiceError> {
        let Some(mut object) = self.object(name)? else { return Ok(None) };
        let read = read(&mut object)?;
        object.end()?;
        Ok(Some(read))
    }

    /// What is read of an object that must be there; nothing of it may be left.
    pub(super) fn need_within<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Self) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        let read = self.within(name, read)?;
        self.required(name, read)
    }

    /// An object, if it is there and not null.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, ServiceError> {
        let value = self.fields.remove(name).filter(|value| !value.is_null());
        let place = format!("{}{name}", self.place);
        value.map(|value| Self::of(&place, format!("{place}."), value)).transpose()
    }

    /// What must be there.
    pub(super) fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, ServiceError> {
        value.ok_or_else(|| self.wrong(name, "it is missing"))
    }

    /// Whether a field is there and not null.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// Leaves a field out of account.
    pub(super) fn ignore(&mut self, name: &str) {
        self.fields.remove(name);
    }

    /// Refuses what nobody has taken.
    pub(super) fn end(self) -> Result<(), ServiceError> {
        match self.fields.keys().find(|name| self.has(name)) {
            None => Ok(()),
            Some(name) => Err(self.wrong(name, "there is no such field")),
        }
    }

    pub(super) fn wrong(&self, name: &str, reason: &str) -> ServiceError {
        ServiceError::deserialization(&format!("{}{name}: {reason}", self.place))
    }
}
