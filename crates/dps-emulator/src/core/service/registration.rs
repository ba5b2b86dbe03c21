//! A registration as its body says it, and what else comes by the same body.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_state_machine::Json;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{
    ApiVersion, ServiceError, TpmKeys, api_version::Certificates, issuing::CertificateRequest,
};

/// A registration as the device sent it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Registration {
    pub(crate) api_version: &'static ApiVersion,
    pub(crate) payload: Option<Json>,
    pub(crate) force: bool,
    pub(crate) csr: Option<CertificateRequest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    registration_id: Option<String>,
    payload: Option<Json>,
    data: Option<Json>,
    #[serde(rename = "tpm")]
    _tpm: Option<IgnoredAny>,
    csr: Option<String>,
    client_certificate_csr: Option<String>,
}

impl Registration {
    /// The largest body that the service takes, in bytes.
    pub(crate) const MAX_BYTES: usize = 96 * 1024;

    /// Reads a body. An empty one is fine, and so is one that doesn't repeat the registration id.
    pub(crate) fn read(
        body: &[u8],
        registration_id: &str,
        api_version: &'static ApiVersion,
        force: bool,
    ) -> Result<Self, ServiceError> {
        let body = Body::read(body, registration_id, api_version)?;
        let payload = body.payload.or(body.data);
        if payload.as_ref().is_some_and(|payload| !payload.is_object()) {
            let field = api_version.payload.unwrap_or_default();
            let reason = format!("{field} must be a JSON object");
            return Err(ServiceError::deserialization(&reason));
        }
        let csr = match api_version.certificates {
            Certificates::None => None,
            Certificates::Pem => body.client_certificate_csr.map(|pem| bare(&pem)),
            Certificates::Der => body.csr,
        };
        let csr = csr.map(|csr| CertificateRequest::read(&csr, registration_id)).transpose()?;
        Ok(Self { api_version, payload, force, csr })
    }

    /// Checks the body of a status lookup, which is that of a registration without a certificate request.
    /// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/device-registration-status-lookup>.
    pub(crate) fn check_lookup(
        body: &[u8],
        registration_id: &str,
        api_version: &'static ApiVersion,
    ) -> Result<(), ServiceError> {
        let body = Body::read(body, registration_id, api_version)?;
        match api_version.certificates.field() {
            Some(field) if body.csr.or(body.client_certificate_csr).is_some() => Err(
                ServiceError::bad_request(&format!("A status lookup can't have the field {field}")),
            ),
            _ => Ok(()),
        }
    }

    /// The public keys of the device's TPM in a body; `None` when it has none.
    pub(crate) fn peek_tpm(body: &[u8]) -> Option<TpmKeys> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let key = |name| STANDARD.decode(body.get("tpm")?.get(name)?.as_str()?).ok();
        let (endorsement, storage) = (key("endorsementKey")?, key("storageRootKey")?);
        Some(TpmKeys { endorsement, storage })
    }

    /// The payload of a body for the event log, whatever else is wrong with it.
    pub(crate) fn peek_payload(body: &[u8]) -> Option<Json> {
        #[derive(Deserialize)]
        struct Body {
            payload: Option<Json>,
            data: Option<Json>,
        }
        serde_json::from_slice(body).ok().and_then(|Body { payload, data }| payload.or(data))
    }
}

impl Body {
    fn read(
        body: &[u8],
        registration_id: &str,
        api_version: &ApiVersion,
    ) -> Result<Self, ServiceError> {
        if !check_object(body)? {
            return Ok(Self::default());
        }
        let body: Self = serde_json::from_slice(body)
            .map_err(|error| ServiceError::deserialization(&error.to_string()))?;
        if body.registration_id.as_ref().is_some_and(|id| !id.eq_ignore_ascii_case(registration_id))
        {
            return Err(ServiceError::bad_request(
                "The registration ID in the body is another than the one in the request",
            ));
        }
        let known = [api_version.payload, api_version.certificates.field()];
        let given = [
            ("payload", body.payload.is_some()),
            ("data", body.data.is_some()),
            ("csr", body.csr.is_some()),
            ("clientCertificateCsr", body.client_certificate_csr.is_some()),
        ];
        match given.into_iter().find(|(field, given)| *given && !known.contains(&Some(field))) {
            None => Ok(body),
            Some((field, _)) => Err(ServiceError::deserialization(&format!(
                "unknown field `{field}` in api-version {}",
                api_version.name
            ))),
        }
    }
}

/// Whether a body, of which nothing but its size and its first byte is known, is an object and not empty.
pub(super) fn check_object(body: &[u8]) -> Result<bool, ServiceError> {
    if body.len() > Registration::MAX_BYTES {
        return Err(ServiceError::TOO_LARGE);
    }
    match body.trim_ascii().first() {
        None => Ok(false),
        Some(b'{') => Ok(true),
        // The library would take a list of all fields, too.
        Some(_) => Err(ServiceError::deserialization("it must be a JSON object")),
    }
}

/// The base64 of a PEM, with or without its line breaks.
fn bare(pem: &str) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
    const END: &str = "-----END CERTIFICATE REQUEST-----";
    let base64 = pem.trim().trim_start_matches(BEGIN).trim_end_matches(END);
    base64.split_ascii_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn version(name: &str) -> &'static ApiVersion {
        ApiVersion::find(Some(name)).unwrap()
    }

    fn read(body: &[u8], name: &str) -> Result<Registration, u32> {
        let read = Registration::read(body, "dev-1", version(name), false);
        read.map_err(|error| error.error_code)
    }

    #[test]
    fn bodies_that_peers_send_are_read() {
        for body in
            [&b""[..], b" ", b"{}", br#"{"registrationId":"dev-1"}"#, br#"{"payload":null}"#]
        {
            let plain = Registration {
                api_version: version("2019-03-31"),
                payload: None,
                force: false,
                csr: None,
            };
            assert_eq!(read(body, "2019-03-31"), Ok(plain), "{body:?}");
        }
        let with_payload = read(br#"{"registrationId":"DEV-1","payload":{"a":1}}"#, "2021-06-01");
        assert_eq!(with_payload.unwrap().payload, Some(json!({"a": 1}).into()));
        assert!(read(br#"{"tpm":{"endorsementKey":"x"}}"#, "2021-06-01").is_ok());
        let former = read(br#"{"data":{"a":1}}"#, "2019-01-15").unwrap();
        assert_eq!(former.payload, Some(json!({"a": 1}).into()));
    }

    #[test]
    fn bad_bodies_are_refused_by_their_code() {
        let large = format!(r#"{{"payload":{{"a":"{}"}}}}"#, "x".repeat(Registration::MAX_BYTES));
        for (body, version, code) in [
            (&b"{"[..], "2019-03-31", 400_012),
            (b"[]", "2019-03-31", 400_012),
            (br#"["dev-1",{"a":1},null,null,null]"#, "2019-03-31", 400_012),
            (b"\"text\"", "2019-03-31", 400_012),
            (b"null", "2019-03-31", 400_012),
            (b"\xff", "2019-03-31", 400_012),
            (br#"{"modelId":"m"}"#, "2021-06-01", 400_012),
            (br#"{"payload":[1]}"#, "2021-06-01", 400_012),
            (br#"{"payload":{}}"#, "2018-11-01", 400_012),
            (br#"{"data":{}}"#, "2021-06-01", 400_012),
            (br#"{"data":{}}"#, "2017-11-15", 400_012),
            (br#"{"data":[1]}"#, "2018-11-01", 400_012),
            (br#"{"registrationId":"other"}"#, "2021-06-01", 400_000),
            (br#"{"csr":"x"}"#, "2021-06-01", 400_012),
            (br#"{"csr":"x"}"#, "2021-11-01-preview", 400_012),
            (br#"{"csr":"x"}"#, "2026-11-01", 400_012),
            (br#"{"csr":"MAA="}"#, "2026-11-01", 400_040),
            (br#"{"clientCertificateCsr":"x"}"#, "2021-11-01-preview", 400_012),
            (br#"{"clientCertificateCsr":"MAA="}"#, "2021-11-01-preview", 400_040),
            (br#"{"clientCertificateCsr":"x"}"#, "2026-11-01", 400_012),
            (large.as_bytes(), "2021-06-01", 413_001),
        ] {
            assert_eq!(read(body, version), Err(code), "{}", String::from_utf8_lossy(body));
        }
    }
}
