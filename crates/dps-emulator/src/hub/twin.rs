//! The twin of a device: the properties that it reports.
//! See <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-device-twins>.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::core::ServiceError;

/// How many bytes of JSON reported properties may have.
const MAX_BYTES: usize = 32 * 1024;

/// See the module.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Twin {
    reported: Map<String, Value>,
    bytes: usize,
    /// How often something was reported.
    reports: u64,
}

impl Twin {
    /// As the device gets it.
    pub(crate) fn to_json(&self, mut desired: Value) -> Value {
        if let Value::Object(desired) = &mut desired {
            desired.entry("$version").or_insert(json!(1));
        }
        let mut reported = self.reported.clone();
        reported.insert("$version".to_owned(), json!(self.version()));
        json!({ "desired": desired, "reported": reported })
    }

    /// Takes a patch, in which null removes what has its name; the version after it.
    pub(crate) fn report(&mut self, patch: &[u8]) -> Result<u64, ServiceError> {
        let patch: Map<String, Value> = serde_json::from_slice(patch)
            .map_err(|error| ServiceError::deserialization(&error.to_string()))?;
        if patch.keys().any(|name| name.starts_with('$')) {
            return Err(ServiceError::bad_request("A property's name can't begin with $"));
        }
        let mut reported = self.reported.clone();
        merge(&mut reported, patch);
        let bytes = serde_json::to_string(&reported).unwrap_or_default().len();
        if bytes > MAX_BYTES {
            return Err(ServiceError::bad_request("Reported properties can have 32 KB at most"));
        }
        (self.reported, self.bytes) = (reported, bytes);
        self.reports += 1;
        Ok(self.version())
    }

    /// How many bytes of JSON it has.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn version(&self) -> u64 {
        self.reports + 1
    }
}

fn merge(properties: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (name, value) in patch {
        match value {
            Value::Null => {
                properties.remove(&name);
            }
            Value::Object(patch) => {
                let mut below = match properties.remove(&name) {
                    Some(Value::Object(below)) => below,
                    _ => Map::new(),
                };
                merge(&mut below, patch);
                properties.insert(name, Value::Object(below));
            }
            value => {
                properties.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_merged_and_counted() {
        let mut twin = Twin::default();
        let reported = |twin: &Twin| twin.to_json(json!({}))["reported"].clone();
        assert_eq!(reported(&twin), json!({"$version": 1}));
        for (patch, after) in [
            (r#"{"a": 1, "b": {"c": null, "d": [null]}}"#, json!({"a": 1, "b": {"d": [null]}})),
            (r#"{"a": null, "b": {"e": {"f": 2}}}"#, json!({"b": {"d": [null], "e": {"f": 2}}})),
            (r#"{"b": 3}"#, json!({"b": 3})),
            (r#"{"b": {"c": 4}}"#, json!({"b": {"c": 4}})),
            ("{}", json!({"b": {"c": 4}})),
        ] {
            let version = twin.report(patch.as_bytes()).unwrap();
            let mut seen = reported(&twin);
            assert_eq!(seen["$version"].take(), json!(version));
            seen.as_object_mut().unwrap().remove("$version");
            assert_eq!(seen, after, "{patch}");
        }
        assert_eq!(twin.version(), 6);
        let long = format!(r#"{{"long": "{}"}}"#, "x".repeat(MAX_BYTES));
        for patch in ["", "[]", "7", "{", r#"{"$version": 9}"#, &long] {
            assert_eq!(twin.report(patch.as_bytes()).unwrap_err().status, 400);
        }
        assert_eq!(reported(&twin), json!({"b": {"c": 4}, "$version": 6}), "nothing has changed");
    }
}
