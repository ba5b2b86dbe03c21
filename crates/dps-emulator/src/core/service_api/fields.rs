//! JSON objects taken apart field by field, so that each error names the field.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

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
