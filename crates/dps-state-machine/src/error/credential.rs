//! A credential that could not be used, because what signs for the device failed.

use alloc::{format, string::String, sync::Arc};
use core::fmt;

use crate::printable::Printable;

/// What signs for the device failed: a TPM, a token, an HSM or a helper process did not make the signature that proves
/// who the device is. The service has not judged the credential.
///
/// ```
/// use dps_client::{CredentialError, Error};
/// let busy = CredentialError::new("the TPM is busy").retryable();
/// assert!(Error::from(busy).is_retryable());
/// let wrong = CredentialError::new("the PIN is wrong").hint("check the PIN; three wrong ones lock the token");
/// assert_eq!(wrong.to_string(), "the device's credential can't sign: the PIN is wrong");
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct CredentialError {
    /// What happened, in the signer's words and without a secret, for example `the TPM is busy`.
    pub message: String,
    /// What to do about it, where more is known than the message says.
    pub hint: Option<String>,
    /// Whether trying again can help without anybody doing something: true for a token that is busy, false for a wrong
    /// PIN.
    pub retryable: bool,
    /// The error below, for logs.
    pub source: Option<Arc<dyn core::error::Error + Send + Sync>>,
}

impl CredentialError {
    /// A failure that trying again does not mend. The message reaches logs and the user: it must hold no secret.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, retryable: false, source: None }
    }

    /// Says that the same registration can succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Keeps the error below.
    #[must_use]
    pub fn source(mut self, source: impl core::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl fmt::Debug for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let source = self.source.as_ref().map(|source| format!("{source:?}"));
        f.debug_struct("CredentialError")
            .field("message", &Printable::brief(&self.message))
            .field("hint", &self.hint.as_ref().map(Printable::brief))
            .field("retryable", &self.retryable)
            .field("source", &source.as_ref().map(Printable::brief))
            .finish()
    }
}

impl fmt::Display for CredentialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the device's credential can't sign: {}", Printable::brief(&self.message))
    }
}

impl core::error::Error for CredentialError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
