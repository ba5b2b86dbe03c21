//! Why a server's certificate is refused, in plain words.

use std::time::Duration;

use dps_state_machine::{ConnectionError, Stage};
use rustls::{CertificateError, ExtendedKeyPurpose, pki_types::UnixTime};

use super::Peer;
use crate::clock::roughly;

const RENEW: &str = "have the certificate renewed, or the one of its authority that the server sends along; or check this machine's clock";
const CLOCK: &str = "check this machine's clock";
const ADD_ROOT: &str = "if the server is the right one, add its authority's certificate to the roots; the server itself must send those between that one and its own";
const ADD_ROOT_OR_REPLACE: &str = "if the server is the right one, add its authority's certificate to the roots, even if one of the same name is there; RSA keys need 2048 bits";
const OTHER_SERVER: &str =
    "check the endpoint; something in between may answer instead of the service";
const REPLACE: &str = "have the server's certificate replaced";
const REPLACE_CHAIN: &str =
    "have the server's certificate replaced, or those of its authorities that it sends along";

/// Of a certificate with many names this many are shown.
const SHOWN_NAMES: usize = 5;

/// The handshake ended because the server's certificate, or one of its chain, is not acceptable. rustls does not
/// say which of them it is.
pub(super) fn refused(peer: &Peer, reason: &CertificateError) -> ConnectionError {
    let (what, hint) = explain(peer, reason);
    ConnectionError::new(Stage::Tls, format!("the certificate of {peer} {what}"))
        .hint(hint)
        .permanent()
}

/// The handshake ended because there is no certificate at all.
pub(super) fn missing(peer: &Peer) -> ConnectionError {
    ConnectionError::new(Stage::Tls, format!("{peer} sent no certificate"))
        .hint(REPLACE)
        .permanent()
}

fn explain(peer: &Peer, reason: &CertificateError) -> (String, &'static str) {
    let plain = |what: &str, hint| (what.to_owned(), hint);
    match reason {
        CertificateError::ExpiredContext { time, not_after } => {
            (format!("has expired {} ago", between(*not_after, *time)), RENEW)
        }
        CertificateError::Expired => plain("has expired", RENEW),
        CertificateError::NotValidYetContext { time, not_before } => {
            (format!("is not valid yet; it will be in {}", between(*time, *not_before)), CLOCK)
        }
        CertificateError::NotValidYet => plain("is not valid yet", CLOCK),
        CertificateError::UnknownIssuer => plain("comes from an unknown authority (CA)", ADD_ROOT),
        CertificateError::BadSignature => plain(
            "has a signature that does not fit: it comes from an unknown authority (CA) with a known name, it was changed, or the server lacks its key",
            ADD_ROOT_OR_REPLACE,
        ),
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => (
            format!("is not for {}, but names nobody", peer.host),
            "have the server's name put into the certificate's subjectAltName; a common name does not count",
        ),
        CertificateError::NotValidForNameContext { presented, .. } => {
            (format!("is not for {}, but for {}", peer.host, names(presented)), OTHER_SERVER)
        }
        CertificateError::NotValidForName => (format!("is not for {}", peer.host), OTHER_SERVER),
        CertificateError::Revoked => plain("is revoked", REPLACE),
        CertificateError::InvalidPurposeContext { presented, .. } => {
            (format!("is not made for servers{}", purposes(presented)), REPLACE)
        }
        CertificateError::InvalidPurpose => plain("is not made for servers", REPLACE),
        CertificateError::BadEncoding => {
            plain("is damaged, or no certificate at all", REPLACE_CHAIN)
        }
        CertificateError::UnhandledCriticalExtension => plain(CRITICAL, REPLACE_CHAIN),
        CertificateError::UnsupportedSignatureAlgorithmContext {
            signature_algorithm_id, ..
        }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext {
            signature_algorithm_id,
            ..
        } => (
            format!(
                "is signed in a way that is not secure, or not known here{}",
                algorithm(signature_algorithm_id)
            ),
            "have it signed anew with SHA-256, SHA-384 or SHA-512, by RSA of 2048 bits or more or on P-256 or P-384",
        ),
        CertificateError::Other(other) => match by_name(&other.to_string()) {
            Some(what) => plain(what, REPLACE_CHAIN),
            None => (format!("is not acceptable: {other}"), REPLACE_CHAIN),
        },
        other => (format!("is not acceptable: {other}"), REPLACE_CHAIN),
    }
}

const CRITICAL: &str = "has a critical extension that is not known here";

/// What the verifier's own errors mean; they come by name only.
fn by_name(error: &str) -> Option<&'static str> {
    const KNOWN: &[(&str, &str)] = &[
        ("CaUsedAsEndEntity", "is that of an authority (CA), not a server's"),
        ("EndEntityUsedAsCa", "was issued by a certificate that is no authority's (CA)"),
        ("PathLenConstraintViolated", "is further from its authority (CA) than that one allows"),
        ("MaximumPathDepthExceeded", "comes through too many authorities (CAs)"),
        ("NameConstraintViolation", "has a name that its authority (CA) may not vouch for"),
        ("UnsupportedCriticalExtension", CRITICAL),
        ("UnsupportedCertVersion", "is of an old version of X.509; it must be of version 3"),
        ("SignatureAlgorithmMismatch", "names two different signature algorithms"),
        ("EmptyEkuExtension", "is not made for servers, nor for anything else"),
        ("ExtensionValueInvalid", "has an extension that is damaged"),
        ("Malformed", "has an extension that is damaged"),
        ("InvalidSerialNumber", "has a serial number that is not allowed"),
        // What a hostile chain runs into: limits on the work that is done for it.
        ("Maximum", "comes with a chain that takes too much work to check"),
    ];
    KNOWN.iter().find(|(name, _)| error.contains(name)).map(|(_, meaning)| *meaning)
}

fn names(presented: &[String]) -> String {
    // They come as `DnsName("dps.example")` and `IpAddress(127.0.0.1)`.
    let bare = |name: &String| {
        let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inside.unwrap_or(name).trim_matches('"').to_owned()
    };
    let mut names: Vec<_> = presented.iter().take(SHOWN_NAMES).map(bare).collect();
    match presented.len().saturating_sub(SHOWN_NAMES) {
        0 => {}
        more => names.push(format!("and {more} more")),
    }
    names.join(", ")
}

fn purposes(presented: &[ExtendedKeyPurpose]) -> String {
    let known = presented.iter().filter_map(|purpose| match purpose {
        ExtendedKeyPurpose::ClientAuth => Some("clients"),
        ExtendedKeyPurpose::ServerAuth => Some("servers"),
        _ => None,
    });
    match known.collect::<Vec<_>>().as_slice() {
        [] => String::new(),
        known => format!(", only for {}", known.join(" and ")),
    }
}

/// The name of an algorithm known to be weak, or likely to be met. The identifier is the inside of an
/// AlgorithmIdentifier in DER: <https://www.rfc-editor.org/rfc/rfc5280#section-4.1.1.2>.
fn algorithm(identifier: &[u8]) -> &'static str {
    const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    const ECDSA_2: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    let after = |prefix| identifier.strip_prefix(prefix).and_then(|rest: &[u8]| rest.first());
    match (after(RSA), after(ECDSA), after(ECDSA_2)) {
        (Some(4), ..) => " (MD5 with RSA)",
        (Some(5), ..) => " (SHA-1 with RSA)",
        (_, Some(1), _) => " (SHA-1 with ECDSA)",
        (_, _, Some(4)) => " (SHA-512 with ECDSA)",
        _ => "",
    }
}

/// A length of time, roughly.
fn between(from: UnixTime, to: UnixTime) -> String {
    roughly(Duration::from_secs(to.as_secs().saturating_sub(from.as_secs())))
}
