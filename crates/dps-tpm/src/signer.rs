//! Keys in the TPM as signers of SAS tokens.

use dps_attestation::{SasSignature, SasSigner, Signing};
use dps_state_machine::{CredentialError, Error};

use crate::{NonceKey, Tpm, TpmError};

/// The key for the assigned hub, which [`Tpm::store`] kept: it signs the SAS tokens for the hub.
#[derive(Clone, Debug)]
pub struct StoredKey(Tpm);

impl Tpm {
    /// The key for the hub as a signer. That it is there shows when it signs.
    #[must_use]
    pub fn stored_key(&self) -> StoredKey {
        StoredKey(self.clone())
    }
}

impl SasSigner for StoredKey {
    fn sign<'a>(&'a self, text: &'a str) -> Signing<'a> {
        Box::pin(async move { Ok(SasSignature::from(*self.0.sign(text.as_bytes()).await?)) })
    }
}

impl SasSigner for NonceKey {
    fn sign<'a>(&'a self, text: &'a str) -> Signing<'a> {
        Box::pin(
            async move { Ok(SasSignature::from(*NonceKey::sign(self, text.as_bytes()).await?)) },
        )
    }
}

impl From<TpmError> for CredentialError {
    fn from(error: TpmError) -> Self {
        let mut shown = Self::new(error.to_string());
        if let Some(hint) = error.hint() {
            shown = shown.hint(hint);
        }
        if error.is_retryable() {
            shown = shown.retryable();
        }
        shown.source(error)
    }
}

impl From<TpmError> for Error {
    fn from(error: TpmError) -> Self {
        CredentialError::from(error).into()
    }
}
