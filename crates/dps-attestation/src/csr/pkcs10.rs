//! A certificate request, byte by byte (PKCS#10, RFC 2986).

use dps_state_machine::{CertificateRequest, ConfigurationError, CredentialError, Error};
use rustls::{
    SignatureScheme,
    pki_types::{AlgorithmIdentifier, alg_id},
    sign::SigningKey,
};

use crate::{
    der_writer::{BIT_STRING, INTEGER_0, SEQUENCE, value},
    outside_key::credential_error,
};

const UTF8_STRING: u8 = 12;
const SET: u8 = 0x31;
/// The object identifier of a common name, 2.5.4.3.
const COMMON_NAME: &[u8] = &[6, 3, 0x55, 4, 3];
const NO_ATTRIBUTES: &[u8] = &[0xa0, 0];

/// By which a request may be signed, the ones that the service's samples use first.
const SCHEMES: [(SignatureScheme, AlgorithmIdentifier); 5] = [
    (SignatureScheme::ECDSA_NISTP256_SHA256, alg_id::ECDSA_SHA256),
    (SignatureScheme::ECDSA_NISTP384_SHA384, alg_id::ECDSA_SHA384),
    (SignatureScheme::RSA_PKCS1_SHA256, alg_id::RSA_PKCS1_SHA256),
    (SignatureScheme::RSA_PKCS1_SHA384, alg_id::RSA_PKCS1_SHA384),
    (SignatureScheme::RSA_PKCS1_SHA512, alg_id::RSA_PKCS1_SHA512),
];

/// A request for a certificate with this name, for the key whose SubjectPublicKeyInfo is given. The key signs it.
pub(super) fn request(
    key: &dyn SigningKey,
    public_key_info: &[u8],
    common_name: &str,
) -> Result<CertificateRequest, Error> {
    // The underscore, which a registration id may have, is in no PrintableString.
    let name = value(UTF8_STRING, &[common_name.as_bytes()]);
    let name = value(SET, &[&value(SEQUENCE, &[COMMON_NAME, &name])]);
    let subject = value(SEQUENCE, &[&name]);
    let signed = value(SEQUENCE, &[INTEGER_0, &subject, public_key_info, NO_ATTRIBUTES]);
    // One by one: a key that is offered several takes the one that it likes best.
    let signer = SCHEMES.iter().find_map(|(scheme, algorithm)| {
        key.choose_scheme(&[*scheme]).map(|signer| (signer, algorithm))
    });
    let (signer, algorithm) = signer.ok_or_else(|| {
        ConfigurationError::new("private key", "", "it signs a certificate request by no algorithm that the service takes; give a key on P-256 or P-384, or an RSA key that may sign with PKCS#1 v1.5")
    })?;
    let signature = signer.sign(&signed).map_err(|error| {
        credential_error(&error).unwrap_or_else(|| CredentialError::new(error.to_string()))
    })?;
    let algorithm = value(SEQUENCE, &[algorithm]);
    let signature = value(BIT_STRING, &[&[0], &signature]);
    CertificateRequest::from_der(value(SEQUENCE, &[&signed, &algorithm, &signature]).to_vec())
}
