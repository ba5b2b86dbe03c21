//! What a device asks for: the registration request and its JSON body, the same on every transport.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    error::{ConfigurationError, Error},
    ids::RegistrationId,
};

/// One registration: which device, with what payload, and whether its assignment is to be made anew.
///
/// ```
/// # fn main() -> Result<(), dps_state_machine::Error> {
/// use dps_state_machine::RegistrationRequest;
/// let request = RegistrationRequest::new("pump-17".parse()?).model_id("dtmi:example:Pump;1");
/// assert_eq!(
///     request.body(),
///     br#"{"registrationId":"pump-17","payload":{"modelId":"dtmi:example:Pump;1"}}"#
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq)]
pub struct RegistrationRequest {
    registration_id: RegistrationId,
    payload: Option<Map<String, Value>>,
    force_registration: bool,
}

/// The body as the service reads it.
/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device>.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    registration_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Map<String, Value>>,
}

impl RegistrationRequest {
    /// The largest body that the service takes, in bytes (96 KiB).
    pub const MAX_BODY_BYTES: usize = 96 * 1024;

    /// A request for the given device, without a payload.
    #[must_use]
    pub fn new(registration_id: RegistrationId) -> Self {
        Self { registration_id, payload: None, force_registration: false }
    }

    /// Sets the payload that a custom allocation webhook reads. A model id that was set before is kept
    /// unless the payload has its own.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the payload is not a JSON object.
    pub fn payload(mut self, payload: Value) -> Result<Self, Error> {
        let Value::Object(mut fields) = payload else {
            let kind = match payload {
                Value::Null => "null",
                Value::Bool(_) => "a boolean",
                Value::Number(_) => "a number",
                Value::String(_) => "a string",
                _ => "an array",
            };
            let reason = format!("it is {kind}; the service takes a JSON object");
            return Err(ConfigurationError::new("payload", payload.to_string(), &reason).into());
        };
        if let Some(model_id) = self.payload.and_then(|mut former| former.remove("modelId")) {
            fields.entry("modelId").or_insert(model_id);
        }
        self.payload = Some(fields);
        Ok(self)
    }

    /// Sets the plug-and-play model id. It goes out as `payload.modelId`: at the top level the service
    /// answers 400012.
    #[must_use]
    pub fn model_id(mut self, model_id: impl Into<String>) -> Self {
        self.payload
            .get_or_insert_default()
            .insert("modelId".to_string(), Value::String(model_id.into()));
        self
    }

    /// Asks the service to run its allocation again even if the device is assigned already.
    /// HTTP and AMQP can carry this; MQTT can't and refuses it before any I/O.
    #[must_use]
    pub fn force_registration(mut self, force: bool) -> Self {
        self.force_registration = force;
        self
    }

    /// Which device registers.
    #[must_use]
    pub fn registration_id(&self) -> &RegistrationId {
        &self.registration_id
    }

    /// The payload's fields, the model id among them as `modelId`; `None` without a payload.
    #[must_use]
    pub fn payload_fields(&self) -> Option<&Map<String, Value>> {
        self.payload.as_ref()
    }

    /// Whether the assignment is to be made anew.
    #[must_use]
    pub fn is_forced(&self) -> bool {
        self.force_registration
    }

    /// The JSON body that every transport sends.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let body =
            Body { registration_id: self.registration_id.as_str(), payload: self.payload.as_ref() };
        // Strings, maps and numbers that were JSON already: there is nothing that can fail to serialize.
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// Checks what can be checked before any I/O; the driver does so.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the body is larger than [`MAX_BODY_BYTES`](Self::MAX_BODY_BYTES).
    pub fn check(&self) -> Result<(), Error> {
        let size = self.body().len();
        if size > Self::MAX_BODY_BYTES {
            let reason = format!(
                "the request would have {size} bytes; the service takes at most {}",
                Self::MAX_BODY_BYTES
            );
            return Err(ConfigurationError::new("payload", "", &reason).into());
        }
        Ok(())
    }
}

/// Without the payload: it may be large, and it is the caller's own.
impl fmt::Debug for RegistrationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationRequest")
            .field("registration_id", &self.registration_id)
            .field("has_payload", &self.payload.is_some())
            .field("force_registration", &self.force_registration)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request() -> RegistrationRequest {
        RegistrationRequest::new("dev-1".parse().unwrap())
    }

    #[test]
    fn model_id_and_payload_meet_in_one_object_in_any_order() {
        let first = request().model_id("m").payload(json!({"a": 1})).unwrap();
        let last = request().payload(json!({"a": 1})).unwrap().model_id("m");
        assert_eq!(first, last);
        let own = request().model_id("m").payload(json!({"modelId": "own"})).unwrap();
        assert_eq!(own.body(), br#"{"registrationId":"dev-1","payload":{"modelId":"own"}}"#);
    }

    #[test]
    fn a_payload_that_is_no_object_is_refused_by_kind() {
        for (payload, kind) in
            [(json!([1]), "an array"), (json!("x"), "a string"), (json!(null), "null")]
        {
            let message = request().payload(payload).unwrap_err().to_string();
            assert!(message.contains(kind), "{message}");
        }
    }

    #[test]
    fn a_payload_stays_out_of_logs() {
        let shown = format!("{:?}", request().payload(json!({"own": "affair"})).unwrap());
        assert!(shown.contains("dev-1") && !shown.contains("affair"), "{shown}");
    }

    #[test]
    fn a_body_over_the_limit_is_refused_with_its_size() {
        let fits = request().payload(json!({"p": "x".repeat(98_304 - 45)})).unwrap();
        let size = fits.body().len();
        assert!(size <= RegistrationRequest::MAX_BODY_BYTES && fits.check().is_ok(), "{size}");
        let large = request().payload(json!({"p": "x".repeat(98_304)})).unwrap();
        assert!(large.check().unwrap_err().to_string().contains("98"), "names the size");
    }
}
