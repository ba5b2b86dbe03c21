//! What a device asks for: the registration request and its JSON body, the same on every transport.

use alloc::{format, string::String, vec::Vec};
use core::fmt;

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    body::Object,
    certificates::CertificateRequest,
    error::{ConfigurationError, Error},
    ids::RegistrationId,
    json::Json,
};

/// One registration: which device, with what payload, and whether its assignment is to be made anew.
///
/// ```
/// # fn main() -> Result<(), dps_client::Error> {
/// use dps_client::RegistrationRequest;
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
    payload: Option<Json>,
    force_registration: bool,
    tpm: Option<Tpm>,
    csr: Option<CertificateRequest>,
}

/// What the service knows a TPM by.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tpm {
    endorsement_key: String,
    storage_root_key: String,
}

/// The body as the service reads it.
/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device>.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    registration_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tpm: Option<&'a Tpm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    csr: Option<String>,
}

impl RegistrationRequest {
    /// The largest body that the service takes, in bytes (96 KiB).
    pub const MAX_BODY_BYTES: usize = 96 * 1024;

    /// A request for the given device, without a payload.
    #[must_use]
    pub fn new(registration_id: RegistrationId) -> Self {
        Self { registration_id, payload: None, force_registration: false, tpm: None, csr: None }
    }

    /// Sets the payload that a custom allocation webhook reads: text that was parsed as [`Json`] goes out to the
    /// letter, a [`Value`] as it prints. A model id that was set before is kept unless the payload has its own.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the payload is not a JSON object.
    pub fn payload(mut self, payload: impl Into<Json>) -> Result<Self, Error> {
        let payload = payload.into();
        let kind = match payload.get().as_bytes().first() {
            Some(b'{') => None,
            Some(b'[') => Some("an array"),
            Some(b'"') => Some("a string"),
            Some(b't' | b'f') => Some("a boolean"),
            Some(b'n') => Some("null"),
            _ => Some("a number"),
        };
        if let Some(kind) = kind {
            let reason = format!("it is {kind}; the service takes a JSON object");
            return Err(ConfigurationError::new("payload", payload.get(), &reason).into());
        }
        let former = self.payload.replace(payload.clone());
        if let (Some(former), None) = (former, member(&payload, MODEL_ID))
            && let Some(model_id) = member(&former, MODEL_ID)
        {
            self.payload = Some(with_model_id(Some(&payload), model_id));
        }
        Ok(self)
    }

    /// Sets the plug-and-play model id. It goes out as `payload.modelId`: at the top level the service
    /// answers 400012.
    #[must_use]
    pub fn model_id(mut self, model_id: impl Into<String>) -> Self {
        let model_id = Json::from(Value::String(model_id.into()));
        self.payload = Some(with_model_id(self.payload.as_ref(), model_id.get()));
        self
    }

    /// Asks the service to run its allocation again even if the device is assigned already.
    /// HTTP and AMQP can carry this; MQTT can't and refuses it before any I/O.
    #[must_use]
    pub fn force_registration(mut self, force: bool) -> Self {
        self.force_registration = force;
        self
    }

    /// Sets the public keys of the device's TPM, both as `TPM2B_PUBLIC` in base64. A transport whose configuration has
    /// a TPM does so by itself.
    #[must_use]
    pub fn tpm(mut self, endorsement_key: String, storage_root_key: String) -> Self {
        self.tpm = Some(Tpm { endorsement_key, storage_root_key });
        self
    }

    /// Asks the service to issue a certificate. The transports use the api-version `2026-11-01` then, unless their
    /// configuration names another; what came of it is in
    /// [`RegistrationResult::certificates`](crate::RegistrationResult::certificates).
    #[must_use]
    pub fn certificate_request(mut self, csr: CertificateRequest) -> Self {
        self.csr = Some(csr);
        self
    }

    /// Whether it asks for a certificate.
    #[must_use]
    pub fn requests_certificate(&self) -> bool {
        self.csr.is_some()
    }

    /// Which device registers.
    #[must_use]
    pub fn registration_id(&self) -> &RegistrationId {
        &self.registration_id
    }

    /// The payload, the model id in it as `modelId`; `None` without one.
    #[must_use]
    pub fn payload_json(&self) -> Option<&Json> {
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
        let body = Body {
            registration_id: self.registration_id.as_str(),
            payload: self.payload.as_ref(),
            tpm: self.tpm.as_ref(),
            csr: self.csr.as_ref().map(CertificateRequest::to_base64),
        };
        // Strings, and what is JSON already: there is nothing that can fail to serialize.
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

const MODEL_ID: &str = "modelId";

/// The text of an object's member; of the last one where several have the name.
fn member<'a>(object: &'a Json, name: &str) -> Option<&'a str> {
    Some(Object::read(object.get()).ok()?.member(name)?.get())
}

/// The object with this model id, JSON itself, and nothing else of it changed.
fn with_model_id(object: Option<&Json>, model_id: &str) -> Json {
    let Some(object) = object else { return pasted(format!("{{\"{MODEL_ID}\":{model_id}}}")) };
    let mut text = String::from(object.get());
    match member(object, MODEL_ID) {
        Some(own) => {
            let start = own.as_ptr().addr() - object.get().as_ptr().addr();
            text.replace_range(start..start + own.len(), model_id);
        }
        None => {
            text.pop();
            let comma = if text.trim_end().ends_with('{') { "" } else { "," };
            text += &format!("{comma}\"{MODEL_ID}\":{model_id}}}");
        }
    }
    pasted(text)
}

/// An object that was put together from JSON.
fn pasted(text: String) -> Json {
    RawValue::from_string(text).map_or_else(|_| Value::Object(Map::new()).into(), Json::from)
}

/// Without the payload: it may be large, and it is the caller's own.
impl fmt::Debug for RegistrationRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationRequest")
            .field("registration_id", &self.registration_id)
            .field("has_payload", &self.payload.is_some())
            .field("force_registration", &self.force_registration)
            .field("requests_certificate", &self.csr.is_some())
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
    fn a_model_id_changes_nothing_else_of_the_payload() {
        let cases = [
            ("{}", r#"{"modelId":"m"}"#),
            ("{ }", r#"{ "modelId":"m"}"#),
            (r#"{"z": 1.50, "a": 1}"#, r#"{"z": 1.50, "a": 1,"modelId":"m"}"#),
            (
                "{\n  \"z\": 12345678901234567890\n}",
                "{\n  \"z\": 12345678901234567890\n,\"modelId\":\"m\"}",
            ),
            (
                r#"{"n": 1e2, "modelId" : "own", "a": "{\"modelId\":1}"}"#,
                r#"{"n": 1e2, "modelId" : "m", "a": "{\"modelId\":1}"}"#,
            ),
            (r#"{"model\u0049d": null}"#, r#"{"model\u0049d": "m"}"#),
            (r#"{"in": {"modelId": 1}}"#, r#"{"in": {"modelId": 1},"modelId":"m"}"#),
            (r#"{"modelId":1,"modelId":2}"#, r#"{"modelId":1,"modelId":"m"}"#),
            (r#"{"é": "\ud800"}"#, r#"{"é": "\ud800","modelId":"m"}"#),
        ];
        for (payload, with_model_id) in cases {
            let parsed: Json = payload.parse().unwrap();
            let last = request().payload(parsed.clone()).unwrap().model_id("m");
            assert_eq!(last.payload_json().unwrap().get(), with_model_id, "{payload:?}");
            let first = request().model_id("m").payload(parsed).unwrap();
            let own = Object::read(payload).unwrap().member("modelId").is_some();
            let kept = if own { payload } else { with_model_id };
            assert_eq!(first.payload_json().unwrap().get(), kept, "{payload:?}");
        }
    }

    #[test]
    fn a_payload_that_is_no_object_is_refused_by_kind() {
        for (payload, kind) in [
            (json!([1]), "an array"),
            (json!("x"), "a string"),
            (json!(null), "null"),
            (json!(false), "a boolean"),
            (json!(-1), "a number"),
        ] {
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
