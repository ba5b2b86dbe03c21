//! A private key outside of the process: what it says when it does not sign must reach the user.

use std::{fmt, sync::Arc};

use dps_state_machine::CredentialError;
use rustls::{
    OtherError, SignatureAlgorithm, SignatureScheme,
    pki_types::SubjectPublicKeyInfoDer,
    sign::{Signer, SigningKey},
};

/// Hands everything on to the key, and makes a [`CredentialError`] of each failure, which TLS carries to the transport.
pub(crate) struct OutsideKey(Arc<dyn SigningKey>);

impl OutsideKey {
    pub(crate) fn new(key: Arc<dyn SigningKey>) -> Self {
        Self(key)
    }
}

impl SigningKey for OutsideKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer = self.0.choose_scheme(offered)?;
        Some(Box::new(OutsideSigner(signer)))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl fmt::Debug for OutsideKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutsideKey(***)")
    }
}

struct OutsideSigner(Box<dyn Signer>);

impl Signer for OutsideSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.0.sign(message).map_err(|error| {
            let error = credential_error(&error).unwrap_or_else(|| {
                // In the key's own words, without those that rustls puts before them.
                CredentialError::new(match &error {
                    rustls::Error::General(words) => words.clone(),
                    rustls::Error::Other(OtherError(inner)) => inner.to_string(),
                    other => other.to_string(),
                })
            });
            rustls::Error::Other(OtherError(Arc::new(error)))
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

impl fmt::Debug for OutsideSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutsideSigner({:?})", self.scheme())
    }
}

/// The error of a key that knows what to say.
pub(crate) fn credential_error(error: &rustls::Error) -> Option<CredentialError> {
    let rustls::Error::Other(OtherError(inner)) = error else { return None };
    inner.downcast_ref::<CredentialError>().cloned()
}
