//! Whether one of a group's CAs issued a device's certificate. A certificate of version 1, as `openssl x509 -req` makes
//! it by default, is held to the same rules as one of version 3.

use std::{cell::RefCell, time::SystemTime};

use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::{
    oid_registry::OID_PKCS1_SHA1WITHRSA,
    prelude::{FromDer as _, GeneralName, ParsedExtension, X509Certificate, X509Version},
};

use super::{
    ServiceError,
    x509::{Validity, validity},
};
use crate::keys::CaCertificates;

/// One of the group's certificates.
struct Anchor<'a> {
    trusted: TrustAnchor<'a>,
    parsed: X509Certificate<'a>,
}

/// Checks that the certificates the device sent, its own one first, lead to one of the group's.
pub(crate) fn check_chain(
    chain: &[CertificateDer<'_>],
    ca: &CaCertificates,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(), ServiceError> {
    let Some((leaf, above)) = chain.split_first() else {
        return Err(ServiceError::NO_CREDENTIAL);
    };
    // A trust anchor's dates are not looked at below, so a group's certificate out of its dates is left out.
    let anchors: Vec<_> = ca.0.iter().filter_map(|der| Anchor::valid(der, now)).collect();
    if anchors.is_empty() {
        return Err(ServiceError::ca_not_found("the group's CA certificates are out of date"));
    }
    let parsed = parse(leaf).ok_or_else(|| invalid("the device's certificate can't be read"))?;
    match parsed.version() {
        X509Version::V3 => check_version_3(leaf, above, &anchors, provider, now),
        _ => check_version_1(parsed, above, &anchors, now),
    }
}

impl<'a> Anchor<'a> {
    fn valid(der: &'a CertificateDer<'_>, now: SystemTime) -> Option<Self> {
        let trusted = webpki::anchor_from_trusted_cert(der).ok()?;
        let parsed = parse(der).filter(|ca| matches!(validity(ca, now), Validity::Valid))?;
        Some(Self { trusted, parsed })
    }
}

/// The library does all but the rules about who may issue.
fn check_version_3(
    leaf: &CertificateDer<'_>,
    above: &[CertificateDer<'_>],
    anchors: &[Anchor<'_>],
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<(), ServiceError> {
    let trusted: Vec<_> = anchors.iter().map(|anchor| anchor.trusted.clone()).collect();
    let wrong_issuer = RefCell::new(None);
    let check = |path: &VerifiedPath<'_>| {
        let above: Vec<_> =
            path.intermediate_certificates().map(|certificate| certificate.der()).collect();
        let anchor = anchors.iter().find(|anchor| anchor.trusted == *path.anchor());
        let issuers: Vec<_> = above.iter().filter_map(parse).collect();
        let issuers = issuers.iter().chain(anchor.map(|anchor| &anchor.parsed));
        check_issuers(issuers).map_err(|reason| {
            wrong_issuer.replace(Some(reason));
            webpki::Error::PathLenConstraintViolated
        })
    };
    let leaf = EndEntityCert::try_from(leaf).map_err(|error| invalid(error.to_string()))?;
    let verified = leaf.verify_for_usage(
        provider.signature_verification_algorithms.all,
        &trusted,
        above,
        UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
        KeyUsage::client_auth(),
        None,
        Some(&check),
    );
    match (verified, wrong_issuer.take()) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(reason)) => Err(invalid(reason)),
        (Err(webpki::Error::UnknownIssuer), None) => Err(unknown_issuer(above)),
        (Err(error), None) => Err(invalid(error.to_string())),
    }
}

/// The same by hand: the library refuses version 1.
fn check_version_1(
    leaf: X509Certificate<'_>,
    above: &[CertificateDer<'_>],
    anchors: &[Anchor<'_>],
    now: SystemTime,
) -> Result<(), ServiceError> {
    let mut unused: Vec<_> = above.iter().filter_map(parse).collect();
    let mut intermediates = Vec::new();
    let mut below = leaf;
    let anchor = loop {
        if is_signed_with_sha1(&below) {
            return Err(invalid("a certificate is signed with SHA-1"));
        }
        if let Some(anchor) = anchors.iter().find(|anchor| issued(&anchor.parsed, &below)) {
            break &anchor.parsed;
        }
        let next = unused.iter().position(|issuer| issued(issuer, &below));
        below = unused.swap_remove(next.ok_or_else(|| unknown_issuer(above))?);
        check_intermediate(&below, now).map_err(invalid)?;
        intermediates.push(below.clone());
    };
    check_issuers(intermediates.iter().chain([anchor])).map_err(invalid)?;
    // The library has no rule for these names, and therefore takes none below such a CA.
    match intermediates.iter().chain([anchor]).any(constrains_subjects) {
        true => Err(invalid("a CA of the chain constrains the names of subjects")),
        false => Ok(()),
    }
}

fn issued(issuer: &X509Certificate<'_>, below: &X509Certificate<'_>) -> bool {
    issuer.subject() == below.issuer() && below.verify_signature(Some(issuer.public_key())).is_ok()
}

/// With RSA, that is; SHA-1 with any other key is not verified at all.
fn is_signed_with_sha1(certificate: &X509Certificate<'_>) -> bool {
    certificate.signature_algorithm.algorithm == OID_PKCS1_SHA1WITHRSA
}

/// What the library checks of a CA between the device and the group's.
fn check_intermediate(ca: &X509Certificate<'_>, now: SystemTime) -> Result<(), &'static str> {
    let purposes = ca.extended_key_usage().map_err(|_| "a CA's purposes can't be read")?;
    let is_understood =
        |extension: &ParsedExtension<'_>| !extension.unsupported() && extension.error().is_none();
    match validity(ca, now) {
        _ if !ca.is_ca() => Err("a certificate that is no CA issued another"),
        Validity::Expired | Validity::NotYet => Err("a CA of the chain is out of date"),
        Validity::Valid if purposes.is_some_and(|purposes| !purposes.value.client_auth) => {
            Err("a CA of the chain is not for client authentication")
        }
        Validity::Valid
            if !ca.extensions().iter().all(|extension| {
                !extension.critical || is_understood(extension.parsed_extension())
            }) =>
        {
            Err("a CA of the chain has a critical extension that is not known")
        }
        Validity::Valid => Ok(()),
    }
}

/// The rules about who may issue, the issuer of the device's certificate first.
/// See <https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.3> and section 4.2.1.9 there.
fn check_issuers<'a>(issuers: impl Iterator<Item = &'a X509Certificate<'a>>) -> Result<(), String> {
    let mut below = 0;
    for issuer in issuers {
        let name = issuer.subject();
        let signs = match issuer.key_usage() {
            Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
            Err(_) => false,
        };
        if !signs {
            return Err(format!("the key usage of the CA {name} has no keyCertSign"));
        }
        let constraints = issuer.basic_constraints().ok().flatten();
        let most = constraints.and_then(|constraints| constraints.value.path_len_constraint);
        if most.is_some_and(|most| below > most) {
            return Err(format!("the path length of the CA {name} allows fewer CAs below it"));
        }
        // A CA that renewed itself does not count.
        below += u32::from(issuer.subject() != issuer.issuer());
    }
    Ok(())
}

fn constrains_subjects(ca: &X509Certificate<'_>) -> bool {
    let Ok(constraints) = ca.name_constraints() else { return true };
    constraints.is_some_and(|constraints| {
        let subtrees =
            [&constraints.value.permitted_subtrees, &constraints.value.excluded_subtrees];
        let mut names = subtrees.into_iter().flatten().flatten();
        names.any(|subtree| matches!(subtree.base, GeneralName::DirectoryName(_)))
    })
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate)
}

fn invalid(reason: impl Into<String>) -> ServiceError {
    ServiceError::invalid_certificate(reason)
}

fn unknown_issuer(above: &[CertificateDer<'_>]) -> ServiceError {
    let count = above.len() + 1;
    ServiceError::ca_not_found(format!(
        "the {count} certificates sent do not lead to the group's CA"
    ))
}
