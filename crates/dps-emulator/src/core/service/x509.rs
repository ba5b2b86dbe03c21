//! A device's own certificate, judged for real: dates, common name.

use std::time::{Duration, SystemTime};

use ring::digest;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::ServiceError;
use crate::{core::clock, keys::Thumbprint};

/// Checks the device's own certificate: its dates, and that it is the device's.
pub(crate) fn check_leaf(
    leaf: &CertificateDer<'_>,
    registration_id: &str,
    now: SystemTime,
) -> Result<(), ServiceError> {
    let wrong = |reason: String| Err(ServiceError::invalid_certificate(reason));
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return wrong("the device's certificate can't be read".into());
    };
    match validity(&parsed, now) {
        Validity::Valid => {}
        Validity::Expired => return wrong("the device's certificate has expired".into()),
        Validity::NotYet => return wrong("the device's certificate is not valid yet".into()),
    }
    let mut names = parsed.subject().iter_common_name().map(|name| name.as_str());
    match (names.next(), names.next()) {
        (Some(Ok(name)), None) if name.eq_ignore_ascii_case(registration_id) => Ok(()),
        (Some(Ok(name)), None) => wrong(format!(
            "the certificate's common name is {name:?}, the registration id {registration_id:?}"
        )),
        (None, _) => wrong("the certificate has no common name".into()),
        _ => wrong("the certificate has more than one common name, or an unreadable one".into()),
    }
}

/// What the state of a registration says of the certificate.
/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device>.
pub(crate) fn describe(leaf: &CertificateDer<'_>, group: Option<&str>) -> Value {
    let mut described = json!({ "certificateInfo": info(leaf) });
    if let (Some(group), Some(fields)) = (group, described.as_object_mut()) {
        fields.insert("enrollmentGroupId".to_owned(), json!(group));
    }
    described
}

/// What the service tells of a certificate.
pub(crate) fn info(certificate: &CertificateDer<'_>) -> Value {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Value::Null };
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, certificate);
    let sha1: String = sha1.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    json!({
        "subjectName": parsed.subject().to_string(),
        "sha1Thumbprint": sha1,
        "sha256Thumbprint": Thumbprint::of_der(certificate).to_string(),
        "issuerName": parsed.issuer().to_string(),
        "notBeforeUtc": time_of(parsed.validity().not_before.timestamp()),
        "notAfterUtc": time_of(parsed.validity().not_after.timestamp()),
        "serialNumber": parsed.raw_serial_as_string().replace(':', "").to_uppercase(),
        "version": parsed.version().0.saturating_add(1),
    })
}

pub(super) enum Validity {
    Valid,
    Expired,
    NotYet,
}

pub(super) fn validity(certificate: &X509Certificate<'_>, now: SystemTime) -> Validity {
    let now = i64::try_from(clock::unix_seconds(now)).unwrap_or(i64::MAX);
    let dates = certificate.validity();
    if dates.not_before.timestamp() > now {
        Validity::NotYet
    } else if dates.not_after.timestamp() < now {
        Validity::Expired
    } else {
        Validity::Valid
    }
}

fn time_of(timestamp: i64) -> String {
    let seconds = u64::try_from(timestamp).unwrap_or_default();
    clock::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}
