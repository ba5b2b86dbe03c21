//! Who signs a SAS token: a key in memory, or something outside of the process.

use std::{fmt, pin::Pin};

use dps_state_machine::CredentialError;
use hmac::Mac;
use zeroize::Zeroizing;

use crate::{key::SymmetricKey, key_file::SymmetricKeyFile};

/// The bytes of an HMAC-SHA256.
const LENGTH: usize = 32;

/// What [`SasSigner::sign`] returns: a signature that is being made.
pub type Signing<'a> =
    Pin<Box<dyn Future<Output = Result<SasSignature, CredentialError>> + Send + 'a>>;

/// Signs SAS tokens with the device's symmetric key, wherever that key lives: a TPM, an HSM, a helper process, or this
/// process's memory ([`SymmetricKey`] and [`SymmetricKeyFile`] are signers).
///
/// A signer is asked once for each connection over MQTT and AMQP, and once for each request over HTTP; the requests of
/// one registration are signed one after the other, but two clients that share a signer may ask at once. What it takes
/// counts against the time for the request: when that runs out, the request ends with a time-out at the stage `sign`.
///
/// # Errors
/// A failure reaches the caller of `register` as [`Error::Credential`](dps_state_machine::Error::Credential) with the
/// signer's words, and nothing is sent. Say [`retryable`](CredentialError::retryable) when the same request can succeed
/// later, for example because the token is busy. The words must hold no secret.
///
/// # Cancel safety
/// The future may be dropped before it is ready: at a time-out, at a cancel, or with the registration's own future. The
/// signer must then be usable for the next signature. One that speaks a protocol which can't break off half-way, as a TPM
/// does, lets a task of its own finish the exchange.
///
/// ```
/// use dps_client::{Attestation, CredentialError, SasSignature, SasSigner, Signing};
/// # struct Channel;
/// # impl Channel {
/// #     async fn hmac_sha256(&self, _: &[u8]) -> Result<[u8; 32], std::io::Error> { Ok([7; 32]) }
/// # }
///
/// /// Asks a helper process.
/// struct Helper(Channel);
///
/// impl SasSigner for Helper {
///     fn sign<'a>(&'a self, text: &'a str) -> Signing<'a> {
///         Box::pin(async move {
///             let bytes = self.0.hmac_sha256(text.as_bytes()).await.map_err(|error| {
///                 CredentialError::new("the helper process does not answer").source(error).retryable()
///             })?;
///             Ok(SasSignature::from(bytes))
///         })
///     }
/// }
///
/// let attestation = Attestation::from_signer(Helper(Channel));
/// assert_eq!(format!("{attestation:?}"), "SasSigner(***)");
/// ```
pub trait SasSigner: Send + Sync {
    /// Makes the HMAC-SHA256 of the text, which is what a SAS token signs: the URL-encoded resource, a line feed and the
    /// expiry in seconds since 1970. It is ASCII and has less than 1024 bytes.
    ///
    /// See <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#detailed-attestation-process>.
    ///
    /// # Errors
    /// What became of the signature, in the signer's own words.
    fn sign<'a>(&'a self, text: &'a str) -> Signing<'a>;
}

impl fmt::Debug for dyn SasSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An HMAC-SHA256: 32 bytes. It is wiped from memory when it is dropped and never printed: with it, the token is made.
#[derive(Clone)]
pub struct SasSignature(Zeroizing<Vec<u8>>);

impl SasSignature {
    /// Takes what a signer outside of the process answered.
    ///
    /// # Errors
    /// [`CredentialError`] when these are not 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CredentialError> {
        if bytes.len() != LENGTH {
            let length = bytes.len();
            return Err(CredentialError::new(format!(
                "the signature has {length} bytes; an HMAC-SHA256 has {LENGTH}"
            )));
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    /// The 32 bytes. Keep them out of logs: with them, the token is made.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<[u8; LENGTH]> for SasSignature {
    fn from(bytes: [u8; LENGTH]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

impl fmt::Debug for SasSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SasSignature(***)")
    }
}

impl SymmetricKey {
    /// The HMAC-SHA256 of the text, at once: what [`SasSigner::sign`] makes, for whoever has the key in memory.
    #[must_use]
    pub fn signature(&self, text: &str) -> SasSignature {
        let mac = self.mac().chain_update(text).finalize();
        SasSignature(Zeroizing::new(mac.as_bytes().to_vec()))
    }
}

impl SasSigner for SymmetricKey {
    fn sign<'a>(&'a self, text: &'a str) -> Signing<'a> {
        Box::pin(async move { Ok(self.signature(text)) })
    }
}

/// The file is read for each signature.
impl SasSigner for SymmetricKeyFile {
    fn sign<'a>(&'a self, text: &'a str) -> Signing<'a> {
        Box::pin(async move { Ok(self.current().signature(text)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_another_length_is_refused_with_both_lengths() {
        for length in [0, 20, 31, 33, 64] {
            let error = SasSignature::from_bytes(&vec![0; length]).unwrap_err();
            let message = error.to_string();
            assert!(message.contains(&format!("has {length} bytes")), "{message}");
            assert!(message.contains("has 32"), "{message}");
        }
        assert_eq!(SasSignature::from_bytes(&[7; 32]).unwrap().expose(), [7; 32]);
    }

    #[test]
    fn a_signer_and_a_signature_print_as_stars() {
        let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse().unwrap();
        let signer: &dyn SasSigner = &key;
        assert_eq!(format!("{signer:?} {:?}", key.signature("t")), "*** SasSignature(***)");
    }
}
