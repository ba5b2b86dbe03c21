//! Elliptic-curve keys that lack their public half, or have it in the compressed form: the certificate has it whole.

use std::sync::Arc;

use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::SigningKey,
};
use zeroize::Zeroizing;

use crate::{
    der_writer::{BIT_STRING, OCTET_STRING, SEQUENCE, value},
    shape::{Fields, Shape, whole},
};

/// `PrivateKeyInfo` for a curve, up to the key itself: version 0, then id-ecPublicKey and the curve (RFC 5958, RFC 5480).
const P256: &[u8] = &[
    2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 3, 1, 7,
];
const P384: &[u8] =
    &[2, 1, 0, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22];

/// The key with the public half that a certificate has. `None` when the two do not belong together, or this is no
/// elliptic-curve key.
pub(crate) fn completed(key: &[u8], public: &[u8]) -> Option<Arc<dyn SigningKey>> {
    let (head, length): (&[u8], usize) = match public.len() {
        65 => (P256, 32),
        97 => (P384, 48),
        _ => return None,
    };
    let given = secret(key)?;
    // Some tools leave leading zeros out, others put one more before.
    let significant = given.iter().position(|byte| *byte != 0).unwrap_or(given.len());
    let significant = given.get(significant..)?;
    let mut secret = Zeroizing::new(vec![0; length.checked_sub(significant.len())?]);
    secret.reserve_exact(significant.len());
    secret.extend_from_slice(significant);

    let public = value(BIT_STRING, &[&[0], public]);
    let public = value(0xa1, &[&public]);
    let ec_key = value(SEQUENCE, &[&[2, 1, 1], &value(OCTET_STRING, &[&secret]), &public]);
    let whole = value(SEQUENCE, &[head, &value(OCTET_STRING, &[&ec_key])]);
    let whole = Zeroizing::new(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(whole.to_vec())));
    // It checks that the halves belong together.
    any_ecdsa_type(&whole).ok()
}

/// The secret number of an elliptic-curve key in SEC1 (RFC 5915) or PKCS#8 (RFC 5958).
fn secret(key: &[u8]) -> Option<&[u8]> {
    let mut fields = Fields::of(whole(key)?);
    let _version = fields.next()?;
    match Shape::of(key)? {
        Shape::Sec1 => fields.next().map(|secret| secret.value()),
        Shape::Pkcs8 => {
            let inner = fields.nth(1)?.value();
            // Nothing else belongs there, and no key within a key is looked for.
            let mut fields =
                Fields::of(whole(inner).filter(|_| Shape::of(inner) == Some(Shape::Sec1))?);
            let _version = fields.next()?;
            fields.next().map(|secret| secret.value())
        }
        _ => None,
    }
}
