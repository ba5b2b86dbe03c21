//! Private keys: PKCS#8, PKCS#1 and SEC1, distinguished by their content, and named when they can't be used.

use std::sync::Arc;

use der::{
    Tag, Tagged,
    asn1::{AnyRef, ObjectIdentifier},
};
use dps_state_machine::{ConfigurationError, Error};
use rustls::{
    SignatureAlgorithm,
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer},
    sign::SigningKey,
};
use zeroize::Zeroizing;

use crate::{
    ec_key,
    shape::{Fields, Shape, whole},
};

pub(crate) const TAKEN: &str =
    "give an RSA key of 2048 to 4096 bits, or an elliptic-curve key on P-256 or P-384";

/// Takes an unencrypted key of a kind that the service takes. One without its public half, or with a compressed one, is
/// completed from the public keys of the certificates.
pub(crate) fn parse<'a>(
    bytes: &[u8],
    mut public_keys: impl Iterator<Item = &'a [u8]>,
) -> Result<Arc<dyn SigningKey>, Error> {
    let wrong = |reason: &str| Err(wrong_key(reason));
    let der = Zeroizing::new(match Shape::of(bytes) {
        Some(Shape::Pkcs8) => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(bytes.to_vec())),
        Some(Shape::Pkcs1) => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(bytes.to_vec())),
        Some(Shape::Sec1) => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(bytes.to_vec())),
        Some(Shape::EncryptedPkcs8) => return wrong(ENCRYPTED),
        Some(shape @ Shape::Signed) => {
            return wrong(&format!("it is {shape}; were the two files swapped?"));
        }
        Some(shape @ Shape::Pkcs12) => {
            return wrong(&format!(
                "it is {shape}; take the key out with `openssl pkcs12 -in IN -nocerts -noenc -out OUT`"
            ));
        }
        Some(shape) => return wrong(&format!("it is {shape}; {TAKEN}")),
        None => {
            return wrong("it is no private key in PKCS#8, PKCS#1 or SEC1 format, or damaged");
        }
    });
    match any_supported_type(&der) {
        Ok(signing) if signing.algorithm() != SignatureAlgorithm::ED25519 => Ok(signing),
        _ => public_keys
            .find_map(|public| ec_key::completed(bytes, public).filter(|_| may_be_completed(bytes)))
            .ok_or_else(|| wrong_key(&why_refused(bytes))),
    }
}

fn may_be_completed(key: &[u8]) -> bool {
    matches!(Kind::of(key), Some(Kind::Curve(P256 | P384) | Kind::UnnamedCurve))
}

fn wrong_key(reason: &str) -> Error {
    ConfigurationError::new("private key", "", reason).into()
}

/// Why encrypted keys are refused, and the way out.
pub(crate) const ENCRYPTED: &str = "it is encrypted, and a device has nobody who could type a password; decrypt it with `openssl pkey -in IN -out OUT`, and protect the file by its permissions";

fn why_refused(key: &[u8]) -> String {
    let kind = match Kind::of(key) {
        Some(Kind::Rsa { bits }) if (2048..=4096).contains(&bits) => {
            return format!(
                "it is an RSA key of {bits} bits that was damaged, or whose public exponent is less than 65537"
            );
        }
        Some(Kind::Rsa { bits }) => format!("an RSA key of {bits} bits"),
        Some(Kind::Curve(P256 | P384) | Kind::UnnamedCurve) => {
            return "it is an elliptic-curve key that was damaged, or one without its public half that belongs to none of the certificates; write it whole with `openssl ec -in IN -conv_form uncompressed -out OUT`".into();
        }
        Some(Kind::ExplicitCurve) => {
            return "its elliptic curve is written out instead of named; rewrite it with `openssl ec -in IN -param_enc named_curve -out OUT`".into();
        }
        Some(Kind::Curve(curve)) => format!("a key on the elliptic curve {}", curve_name(curve)),
        Some(Kind::Other(algorithm)) => format!("{} key", algorithm_name(algorithm)),
        None => return "it was damaged".into(),
    };
    format!("it is {kind}; {TAKEN}")
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// What kind of key it says that it is.
enum Kind {
    Rsa {
        bits: usize,
    },
    Curve(ObjectIdentifier),
    /// A SEC1 key without its curve: it is for what surrounds it to say.
    UnnamedCurve,
    ExplicitCurve,
    Other(ObjectIdentifier),
}

impl Kind {
    fn of(key: &[u8]) -> Option<Self> {
        let mut fields = Fields::of(whole(key)?);
        let _version = fields.next()?;
        match Shape::of(key)? {
            Shape::Pkcs1 => {
                let modulus = fields.next()?.value();
                let significant = modulus.iter().skip_while(|byte| **byte == 0).count();
                Some(Self::Rsa { bits: significant * 8 })
            }
            Shape::Sec1 => {
                let Some(parameters) = fields.nth(1) else { return Some(Self::UnnamedCurve) };
                match parameters.tag() {
                    Tag::ContextSpecific { number, .. } if number.value() == 0 => {
                        Self::of_curve(Fields::of(parameters).next()?)
                    }
                    _ => Some(Self::UnnamedCurve),
                }
            }
            _ => {
                let mut algorithm = Fields::of(fields.next()?);
                match algorithm.next()?.decode_as().ok()? {
                    RSA => {
                        let key = fields.next()?.value();
                        // Nothing else belongs there; the same again, and again, would use up the stack.
                        (Shape::of(key)? == Shape::Pkcs1).then(|| Self::of(key)).flatten()
                    }
                    EC => Self::of_curve(algorithm.next()?),
                    other => Some(Self::Other(other)),
                }
            }
        }
    }

    fn of_curve(parameters: AnyRef<'_>) -> Option<Self> {
        match parameters.tag() {
            Tag::ObjectIdentifier => parameters.decode_as().ok().map(Self::Curve),
            _ => Some(Self::ExplicitCurve),
        }
    }
}

fn curve_name(curve: ObjectIdentifier) -> String {
    match curve.to_string().as_str() {
        "1.3.132.0.35" => "P-521".into(),
        "1.3.132.0.33" => "P-224".into(),
        "1.2.840.10045.3.1.1" => "P-192".into(),
        "1.3.132.0.10" => "secp256k1".into(),
        other => other.into(),
    }
}

fn algorithm_name(algorithm: ObjectIdentifier) -> String {
    match algorithm.to_string().as_str() {
        "1.3.101.110" => "an X25519".into(),
        "1.3.101.111" => "an X448".into(),
        "1.3.101.112" => "an Ed25519".into(),
        "1.3.101.113" => "an Ed448".into(),
        "1.2.840.10040.4.1" => "a DSA".into(),
        "1.2.840.113549.1.3.1" | "1.2.840.10046.2.1" => "a Diffie-Hellman".into(),
        "1.2.840.113549.1.1.10" => "an RSA-PSS-only".into(),
        other => format!("a {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_within_keys_do_not_use_up_the_stack() {
        // PKCS#8 up to its content, which is the next one.
        const RSA: [u8; 16] =
            [2, 1, 0, 0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
        let header = |tag: u8, length: usize| {
            let length = u32::try_from(length).unwrap().to_be_bytes();
            [&[tag, 0x83], &length[1..]].concat()
        };
        let mut heads = Vec::new();
        let mut size = 0;
        for _ in 0..40_000 {
            let content = [&RSA[..], &header(4, size)].concat();
            size += content.len();
            heads.push([header(0x30, size), content].concat());
            size += 5;
        }
        heads.reverse();
        let error = parse(&heads.concat(), std::iter::empty()).err().unwrap().to_string();
        assert!(error.contains("damaged"), "{error}");
    }
}
