//! The inside of SAS tokens, for tests and the fuzz targets only.

use base64::Engine;
use hmac::Mac;
use zeroize::Zeroizing;

use crate::key::{BASE64, SymmetricKey};

/// The signature in a SAS token, before it is URL-encoded: base64 of the HMAC-SHA256 of `resource`, a line feed
/// and `expiry`, each exactly as the token has it.
#[must_use]
pub fn signature(key: &SymmetricKey, resource: &str, expiry: &str) -> Zeroizing<String> {
    Zeroizing::new(BASE64.encode(signed(key, resource, expiry).finalize().as_bytes()))
}

/// Whether `signature`, URL-decoded, is what [`signature`] makes, compared in constant time.
#[must_use]
pub fn verify_signature(key: &SymmetricKey, resource: &str, expiry: &str, signature: &str) -> bool {
    BASE64
        .decode(signature)
        .is_ok_and(|bytes| signed(key, resource, expiry).verify_slice(&bytes).is_ok())
}

fn signed(key: &SymmetricKey, resource: &str, expiry: &str) -> impl Mac {
    key.mac().chain_update(resource).chain_update("\n").chain_update(expiry)
}
