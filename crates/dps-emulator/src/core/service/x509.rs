//! Client certificates, judged for real: thumbprint or chain, dates, common name.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ring::digest;
use rustls::{
    CertificateError, RootCertStore, crypto::CryptoProvider, server::WebPkiClientVerifier,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use super::ServiceError;
use crate::{
    core::clock,
    keys::{CaCertificates, Thumbprint},
};

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

/// Checks that the certificates the device sent lead from its own to one of the group's.
pub(crate) fn check_chain(
    chain: &[CertificateDer<'_>],
    ca: &CaCertificates,
    provider: &Arc<CryptoProvider>,
    now: SystemTime,
) -> Result<(), ServiceError> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(ServiceError::no_credential());
    };
    // A trust anchor's dates are not looked at below, so a group's certificate out of its dates is left out.
    let mut roots = RootCertStore::empty();
    let usable = ca.0.iter().filter(|der| {
        X509Certificate::from_der(der)
            .is_ok_and(|(_, ca)| matches!(validity(&ca, now), Validity::Valid))
    });
    let usable: Vec<_> = usable.cloned().collect();
    roots.add_parsable_certificates(usable.iter().cloned());
    if roots.is_empty() {
        return Err(ServiceError::ca_not_found("the group's CA certificates are out of date"));
    }
    if let Ok((_, parsed)) = X509Certificate::from_der(leaf)
        && parsed.version() != X509Version::V3
    {
        return check_old_chain(&parsed, intermediates, &usable, now);
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .map_err(|error| ServiceError::ca_not_found(error.to_string()))?;
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    match verifier.verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(since_epoch))
    {
        Ok(_) => Ok(()),
        Err(error @ rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            Err(ServiceError::ca_not_found(format!(
                "the {} certificates sent do not lead to the group's CA: {error}",
                chain.len()
            )))
        }
        Err(error) => Err(ServiceError::invalid_certificate(error.to_string())),
    }
}

/// The same for a device's certificate without extensions, as `openssl x509 -req` makes them by default: the
/// library refuses it. The certificates above it must be CAs, in order from below.
fn check_old_chain(
    leaf: &X509Certificate<'_>,
    above: &[CertificateDer<'_>],
    anchors: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), ServiceError> {
    let issued = |issuer: &X509Certificate<'_>, below: &X509Certificate<'_>| {
        issuer.subject() == below.issuer()
            && below.verify_signature(Some(issuer.public_key())).is_ok()
    };
    let mut below = leaf.clone();
    let mut rest = above.iter();
    loop {
        let anchored = anchors
            .iter()
            .filter_map(|der| X509Certificate::from_der(der).ok())
            .any(|(_, anchor)| issued(&anchor, &below));
        if anchored {
            return Ok(());
        }
        let Some(Ok((_, next))) = rest.next().map(|der| X509Certificate::from_der(der)) else {
            return Err(ServiceError::ca_not_found(format!(
                "the {} certificates sent do not lead to the group's CA",
                above.len() + 1
            )));
        };
        if !next.is_ca() || !issued(&next, &below) {
            return Err(ServiceError::ca_not_found("a certificate was not issued by the next one"));
        }
        if !matches!(validity(&next, now), Validity::Valid) {
            return Err(ServiceError::invalid_certificate("a CA of the chain is out of date"));
        }
        below = next;
    }
}

/// What the state of a registration says of the certificate.
/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device>.
pub(crate) fn describe(leaf: &CertificateDer<'_>, group: Option<&str>) -> Value {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else { return Value::Null };
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf);
    let sha1: String = sha1.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    let mut described = json!({
        "certificateInfo": {
            "subjectName": parsed.subject().to_string(),
            "sha1Thumbprint": sha1,
            "sha256Thumbprint": Thumbprint::of_der(leaf).to_string(),
            "issuerName": parsed.issuer().to_string(),
            "notBeforeUtc": time_of(parsed.validity().not_before.timestamp()),
            "notAfterUtc": time_of(parsed.validity().not_after.timestamp()),
            "serialNumber": parsed.raw_serial_as_string().replace(':', "").to_uppercase(),
            "version": parsed.version().0.saturating_add(1),
        }
    });
    if let (Some(group), Some(fields)) = (group, described.as_object_mut()) {
        fields.insert("enrollmentGroupId".to_owned(), json!(group));
    }
    described
}

enum Validity {
    Valid,
    Expired,
    NotYet,
}

fn validity(certificate: &X509Certificate<'_>, now: SystemTime) -> Validity {
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
