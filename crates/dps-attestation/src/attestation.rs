//! The ways to prove who the device is.

use std::sync::Arc;

use crate::{
    key::SymmetricKey, key_file::SymmetricKeyFile, signer::SasSigner, tpm::TpmAttestation,
    x509::X509Identity, x509_files::X509Files,
};

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
    /// A TPM, whose endorsement key the enrollment knows. Over HTTP and AMQP only.
    Tpm(Arc<dyn TpmAttestation>),
}

impl Attestation {
    /// A symmetric key outside of the process, as the signer reaches it.
    #[must_use]
    pub fn from_signer(signer: impl SasSigner + 'static) -> Self {
        Self::SasSigner(Arc::new(signer))
    }

    /// A TPM, as its implementation reaches it.
    #[must_use]
    pub fn from_tpm(tpm: impl TpmAttestation + 'static) -> Self {
        Self::Tpm(Arc::new(tpm))
    }

    /// The TPM; `None` when the device proves itself otherwise.
    #[must_use]
    pub fn tpm(&self) -> Option<&Arc<dyn TpmAttestation>> {
        match self {
            Self::Tpm(tpm) => Some(tpm),
            _ => None,
        }
    }

    /// Who signs the device's SAS tokens; `None` when the device proves itself otherwise.
    #[must_use]
    pub fn sas_signer(&self) -> Option<&dyn SasSigner> {
        match self {
            Self::SymmetricKey(key) => Some(key),
            Self::SymmetricKeyFile(file) => Some(file),
            Self::SasSigner(signer) => Some(&**signer),
            Self::X509(_) | Self::X509Files(_) | Self::Tpm(_) => None,
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

    /// What tells this credential from another one of the device: 16 hexadecimal digits, the same ones at each start. A secret
    /// can't be had from them. `None` when the key is outside of the process and has no certificate: nothing is known of it.
    /// Of files it is what was read last. No I/O.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        // No SAS token signs this text: that has a line feed in it.
        let of_key = |key: &SymmetricKey| key.signature("fingerprint of a credential");
        let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let all: String = match self {
            Self::SymmetricKey(key) => digits(of_key(key).expose()),
            Self::SymmetricKeyFile(file) => digits(of_key(&file.in_use()).expose()),
            Self::X509(identity) => identity.leaf_thumbprint(),
            Self::X509Files(files) => files.in_use().leaf_thumbprint(),
            Self::SasSigner(_) | Self::Tpm(_) => return None,
        };
        Some(all.chars().take(16).collect())
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
