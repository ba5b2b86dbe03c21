//! A registration as its body says it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_state_machine::Json;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

use super::{ServiceError, TpmKeys, issuing::CertificateRequest};

/// The api-versions that are served, and the field that carries a certificate request in them.
const API_VERSIONS: [(&str, Option<&str>); 8] = [
    ("2018-11-01", None),
    ("2019-03-31", None),
    ("2021-06-01", None),
    ("2021-10-01", None),
    ("2021-11-01-preview", Some("clientCertificateCsr")),
    ("2025-07-01-preview", Some("csr")),
    ("2026-11-01", Some("csr")),
    ("2026-11-02-preview", Some("csr")),
];

/// The api-version, if it was given and is served.
pub(crate) fn check_api_version(version: Option<&str>) -> Result<&str, ServiceError> {
    match version {
        None | Some("") => Err(ServiceError::bad_request("The api-version is missing")),
        Some(version) if API_VERSIONS.iter().any(|(served, _)| *served == version) => Ok(version),
        Some(version) => {
            Err(ServiceError::bad_request(&format!("The api-version {version:?} is not supported")))
        }
    }
}

/// A registration as the device sent it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Registration {
    pub(crate) payload: Option<Json>,
    pub(crate) force: bool,
    pub(crate) csr: Option<CertificateRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Body {
    registration_id: Option<String>,
    payload: Option<Json>,
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
        api_version: &str,
        force: bool,
    ) -> Result<Self, ServiceError> {
        if body.len() > Self::MAX_BYTES {
            return Err(ServiceError::too_large());
        }
        match body.trim_ascii().first() {
            None => return Ok(Self { force, ..Self::default() }),
            Some(b'{') => {}
            // The library would take a list of all fields, too.
            Some(_) => return Err(ServiceError::deserialization("it must be a JSON object")),
        }
        let body: Body = serde_json::from_slice(body)
            .map_err(|error| ServiceError::deserialization(&error.to_string()))?;
        if body.registration_id.is_some_and(|id| !id.eq_ignore_ascii_case(registration_id)) {
            return Err(ServiceError::bad_request(
                "The registration ID in the body is another than the one in the request",
            ));
        }
        if body.payload.as_ref().is_some_and(|payload| !payload.is_object()) {
            return Err(ServiceError::deserialization("payload must be a JSON object"));
        }
        let known = API_VERSIONS.iter().find(|(served, _)| *served == api_version);
        let known = known.and_then(|(_, field)| *field);
        let csr = [("csr", body.csr), ("clientCertificateCsr", body.client_certificate_csr)];
        let csr = csr.into_iter().find_map(|(field, csr)| Some((field, csr?)));
        match csr {
            None => Ok(Self { payload: body.payload, force, csr: None }),
            Some(("csr", csr)) if known == Some("csr") => {
                let csr = CertificateRequest::read(&csr, registration_id)?;
                Ok(Self { payload: body.payload, force, csr: Some(csr) })
            }
            // The preview of 2021 has answers of its own, which are not made here.
            Some((field, _)) if known == Some(field) => Err(ServiceError::no_certificate_policy()),
            Some((field, _)) => Err(ServiceError::deserialization(&format!(
                "unknown field `{field}` in api-version {api_version}"
            ))),
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
        }
        serde_json::from_slice(body).ok().and_then(|Body { payload }| payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &[u8], version: &str) -> Result<Registration, u32> {
        Registration::read(body, "dev-1", version, false).map_err(|error| error.error_code)
    }

    #[test]
    fn bodies_that_peers_send_are_read() {
        for body in
            [&b""[..], b" ", b"{}", br#"{"registrationId":"dev-1"}"#, br#"{"payload":null}"#]
        {
            assert_eq!(read(body, "2019-03-31"), Ok(Registration::default()), "{body:?}");
        }
        let with_payload = read(br#"{"registrationId":"DEV-1","payload":{"a":1}}"#, "2021-06-01");
        assert_eq!(with_payload.unwrap().payload, Some(json!({"a": 1}).into()));
        assert!(read(br#"{"tpm":{"endorsementKey":"x"}}"#, "2021-06-01").is_ok());
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
            (br#"{"registrationId":"other"}"#, "2021-06-01", 400_000),
            (br#"{"csr":"x"}"#, "2021-06-01", 400_012),
            (br#"{"csr":"x"}"#, "2021-11-01-preview", 400_012),
            (br#"{"csr":"x"}"#, "2026-11-01", 400_012),
            (br#"{"csr":"MAA="}"#, "2026-11-01", 400_040),
            (br#"{"clientCertificateCsr":"x"}"#, "2021-11-01-preview", 400_000),
            (br#"{"clientCertificateCsr":"x"}"#, "2026-11-01", 400_012),
            (large.as_bytes(), "2021-06-01", 413_001),
        ] {
            assert_eq!(read(body, version), Err(code), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn an_api_version_must_be_given_and_known() {
        for (version, _) in API_VERSIONS {
            assert_eq!(check_api_version(Some(version)), Ok(version));
        }
        for version in [None, Some(""), Some("2020-01-01"), Some("2021-06-01 ")] {
            assert_eq!(check_api_version(version).unwrap_err().status, 400, "{version:?}");
        }
    }
}
