//! Who the device is: SAS tokens, group-key derivation and X.509 identities for the Azure IoT Hub Device Provisioning Service.
//!
//! A device proves its registration id in one of these ways, an [`Attestation`]:
//! - [`SymmetricKey`]: the key of an individual enrollment, or one that was derived from an enrollment group's
//!   [`GroupKey`] before it was put on the device. It signs a [`SasToken`] for each connection.
//! - [`X509Identity`]: a certificate, its chain and its private key, shown in the TLS handshake.
//!
//! Both may live in files that are replaced while the program runs: [`SymmetricKeyFile`] and [`X509Files`].
//!
//! Everything here is checked before any I/O, secrets are wiped from memory when they are dropped, and none is
//! ever printed.
//!
//! ```
//! # fn main() -> Result<(), dps_state_machine::Error> {
//! use std::time::{Duration, SystemTime};
//! use dps_attestation::{Attestation, GroupKey, IdScope, RegistrationId, SasToken};
//!
//! // At the factory: each device gets its own key. The group key stays there.
//! let group: GroupKey = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==".parse()?;
//! let device: RegistrationId = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6".parse()?;
//! let key = group.derive(&device);
//! assert_eq!(*key.expose_base64(), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
//!
//! // On the device: the key signs a token for one hour.
//! let scope: IdScope = "0ne00AABBCC".parse()?;
//! let token = SasToken::sign(&key, &scope, &device, SystemTime::now() + Duration::from_secs(3600));
//! assert!(token.expose().starts_with("SharedAccessSignature sr=0ne00AABBCC%2Fregistrations%2Fsn-007"));
//!
//! // Neither is printed by accident.
//! assert_eq!(format!("{token:?}"), "SasToken(***)");
//! assert_eq!(format!("{:?}", Attestation::from(key)), "SymmetricKey(SymmetricKey(***))");
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;

mod certificate;
mod damage;
mod file;
mod key;
mod key_file;
mod outside_key;
mod pem;
mod private_key;
mod reload;
mod sas;
mod shape;
mod signer;
mod x509;
mod x509_files;

pub use dps_state_machine::{CredentialError, IdScope, RegistrationId};
pub use file::parse_certificates;
pub use key::{GroupKey, SymmetricKey};
pub use key_file::SymmetricKeyFile;
pub use sas::{SasToken, signature, verify_signature};
pub use signer::{SasSignature, SasSigner, Signing};
pub use x509::X509Identity;
pub use x509_files::X509Files;

/// How the device proves who it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Attestation {
    /// A device key that signs a SAS token for each connection.
    SymmetricKey(SymmetricKey),
    /// A certificate with its chain and its private key, shown in the TLS handshake.
    X509(X509Identity),
    /// A device key outside of the process, which signs a SAS token for each connection.
    SasSigner(Arc<dyn SasSigner>),
    /// A device key in a file, read anew for each token.
    SymmetricKeyFile(SymmetricKeyFile),
    /// A certificate with its chain and its private key in files, read anew for each TLS handshake.
    X509Files(X509Files),
}

impl Attestation {
    /// A symmetric key outside of the process, as the signer reaches it.
    #[must_use]
    pub fn from_signer(signer: impl SasSigner + 'static) -> Self {
        Self::SasSigner(Arc::new(signer))
    }

    /// Who signs the device's SAS tokens; `None` when the device proves itself otherwise.
    #[must_use]
    pub fn sas_signer(&self) -> Option<&dyn SasSigner> {
        match self {
            Self::SymmetricKey(key) => Some(key),
            Self::SymmetricKeyFile(file) => Some(file),
            Self::SasSigner(signer) => Some(&**signer),
            Self::X509(_) | Self::X509Files(_) => None,
        }
    }

    /// The identity to show now; `None` when the device proves itself otherwise. Files are read.
    #[must_use]
    pub fn x509(&self) -> Option<X509Identity> {
        match self {
            Self::X509(identity) => Some(identity.clone()),
            Self::X509Files(files) => Some(files.current()),
            _ => None,
        }
    }

    /// The identity that was shown last; `None` when the device proves itself otherwise. No I/O.
    #[must_use]
    pub fn x509_in_use(&self) -> Option<X509Identity> {
        match self {
            Self::X509(identity) => Some(identity.clone()),
            Self::X509Files(files) => Some(files.in_use()),
            _ => None,
        }
    }
}

impl From<SymmetricKey> for Attestation {
    fn from(key: SymmetricKey) -> Self {
        Self::SymmetricKey(key)
    }
}

impl From<SymmetricKeyFile> for Attestation {
    fn from(file: SymmetricKeyFile) -> Self {
        Self::SymmetricKeyFile(file)
    }
}

impl From<Arc<dyn SasSigner>> for Attestation {
    fn from(signer: Arc<dyn SasSigner>) -> Self {
        Self::SasSigner(signer)
    }
}

impl From<X509Identity> for Attestation {
    fn from(identity: X509Identity) -> Self {
        Self::X509(identity)
    }
}

impl From<X509Files> for Attestation {
    fn from(files: X509Files) -> Self {
        Self::X509Files(files)
    }
}
