//! TPM attestation: what a transport asks of the device's TPM.

use std::{fmt, pin::Pin, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use dps_state_machine::{CredentialError, Error, RegistrationId};
use sha2::{Digest, Sha256};

use crate::signer::SasSigner;

/// What the methods of [`TpmAttestation`] return: an answer of the TPM that is on its way.
pub type TpmAnswer<'a, T> = Pin<Box<dyn Future<Output = Result<T, CredentialError>> + Send + 'a>>;

/// A TPM 2.0 whose endorsement key an individual enrollment knows. The crate `dps-tpm` implements it.
///
/// The service encrypts a key for that TPM, as a challenge; the device proves that it has the TPM by a SAS token that
/// it signs with that key. With the assignment comes another key, for the hub. HTTP and AMQP carry this; the service
/// does not take it over MQTT.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-tpm-attestation#detailed-attestation-process>.
///
/// # Errors
/// A failure reaches the caller of `register` as [`Error::Credential`] with the TPM's words, which must hold no secret.
///
/// # Cancel safety
/// Each future may be dropped before it is ready. The TPM must then be usable for the next call: one that can't break
/// off half-way finishes the command that it has begun.
pub trait TpmAttestation: Send + Sync {
    /// The public keys by which the service knows the TPM. It is asked once for each connection over AMQP and once
    /// for each registration request over HTTP.
    fn keys(&self) -> TpmAnswer<'_, TpmKeys>;

    /// Takes in the key of a challenge, and returns who signs with it. Nothing of it may stay in the TPM when the
    /// signer is dropped.
    fn activate<'a>(&'a self, key: &'a [u8]) -> TpmAnswer<'a, Arc<dyn SasSigner>>;

    /// Keeps the key for the assigned hub, in place of the former one. That one must live until the new one is there.
    fn store<'a>(&'a self, key: &'a [u8]) -> TpmAnswer<'a, ()>;
}

impl fmt::Debug for dyn TpmAttestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What the service knows a TPM by: the public halves of its endorsement key and its storage root key.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-tpm-attestation>.
#[derive(Clone, PartialEq, Eq)]
pub struct TpmKeys {
    endorsement: Vec<u8>,
    storage: Vec<u8>,
}

impl TpmKeys {
    /// Takes both keys as marshaled `TPM2B_PUBLIC`, which has its length in front.
    #[must_use]
    pub fn from_bytes(endorsement: Vec<u8>, storage: Vec<u8>) -> Self {
        Self { endorsement, storage }
    }

    /// The endorsement key as an enrollment has it: the marshaled `TPM2B_PUBLIC` in base64.
    #[must_use]
    pub fn endorsement_key(&self) -> String {
        STANDARD.encode(&self.endorsement)
    }

    /// The storage root key in the same form.
    #[must_use]
    pub fn storage_root_key(&self) -> String {
        STANDARD.encode(&self.storage)
    }

    /// The endorsement key's bytes: a marshaled `TPM2B_PUBLIC`.
    #[must_use]
    pub fn endorsement_key_bytes(&self) -> &[u8] {
        &self.endorsement
    }

    /// The storage root key's bytes: a marshaled `TPM2B_PUBLIC`.
    #[must_use]
    pub fn storage_root_key_bytes(&self) -> &[u8] {
        &self.storage
    }

    /// The registration id that Microsoft's SDKs make of an endorsement key when none is given: the SHA-256 of its
    /// bytes in base32, 52 lower-case characters.
    ///
    /// # Errors
    /// None that is known: the text is a registration id always.
    pub fn registration_id(&self) -> Result<RegistrationId, Error> {
        self.name().parse()
    }

    fn name(&self) -> String {
        base32(&Sha256::digest(&self.endorsement))
    }
}

/// It shows the registration id that the keys give; they are no secret, but long.
impl fmt::Debug for TpmKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmKeys").field("registration_id", &self.name()).finish_non_exhaustive()
    }
}

/// RFC 4648 in lower case without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let bits: Vec<u8> = bits.collect();
    bits.chunks(5)
        .map(|five| (0..5).fold(0, |sum, at| sum << 1 | five.get(at).copied().unwrap_or(0)))
        .filter_map(|five: u8| ALPHABET.get(usize::from(five)).map(|letter| char::from(*letter)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_as_in_rfc_4648() {
        for (text, expected) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(base32(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_registration_id_of_a_tpm_has_52_characters() {
        let keys = TpmKeys::from_bytes(vec![7; 316], Vec::new());
        let id = keys.registration_id().unwrap();
        assert_eq!(id.as_str().len(), 52);
        assert_eq!(
            format!("{keys:?}"),
            format!("TpmKeys {{ registration_id: {:?}, .. }}", id.as_str())
        );
    }
}
