//! Who the device is: SAS tokens, group keys and X.509 identities for the Azure IoT Hub Device Provisioning Service.
//!
//! A device proves its registration id with an [`Attestation`], in one of these ways:
//!
//! | the device has | type | where the secret is |
//! |---|---|---|
//! | a symmetric key, of an individual enrollment or derived from an enrollment group's [`GroupKey`] | [`SymmetricKey`] | in memory |
//! | | [`SymmetricKeyFile`] | in a file, which may be replaced while the program runs |
//! | | any [`SasSigner`] | in a TPM, an HSM or another process |
//! | a certificate, its chain and its private key | [`X509Identity`] | in memory, or behind rustls's `SigningKey`: in a token, an HSM or a TPM |
//! | | [`X509Files`] | in files, which may be replaced while the program runs |
//! | one that the service issues (feature `csr`) | [`X509Identity`], of what came for a `RequestKey` | in a `CertificateFolder` |
//! | a TPM 2.0 whose endorsement key is enrolled | any [`TpmAttestation`], as of the crate `dps-tpm` | in the TPM |
//!
//! A symmetric key signs a [`SasToken`] for each connection; a certificate is shown in the TLS handshake.
#![cfg_attr(
    feature = "csr",
    doc = "A certificate that the service is to issue is requested for a [`RequestKey`], which also checks what comes."
)]
//!
//! Why a crate of its own: bad credentials cost people days, since a service that refuses one says little. So whatever is
//! given is checked before any I/O, an error names what is wrong and what to do, files are read in whatever state tools
//! leave them ([`parse_certificates`]), secrets are wiped from memory when they are dropped, and none is ever printed.
//!
//! ```
//! # fn main() -> Result<(), dps_client::Error> {
//! use std::time::{Duration, SystemTime};
//! use dps_client::{Attestation, GroupKey, IdScope, RegistrationId, SasToken};
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

mod attestation;
mod certificate;
#[cfg(feature = "csr")]
mod certificate_folder;
mod chain;
#[cfg(feature = "csr")]
mod csr;
mod damage;
mod der_writer;
mod disk;
mod ec_key;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
#[doc(hidden)]
pub mod internal;
mod key;
mod key_file;
mod outside_key;
mod pem;
mod private_key;
mod reload;
mod sas;
mod shape;
mod signer;
#[cfg(feature = "csr")]
mod stored_certificate;
mod tpm;
mod x509;
mod x509_files;

pub use attestation::Attestation;
#[cfg(feature = "csr")]
pub use certificate_folder::{CertificateFolder, PreparedFolder};
#[cfg(feature = "csr")]
pub use csr::{IssuedChain, RequestKey};
pub use dps_state_machine::{ConfigurationError, CredentialError, Error, IdScope, RegistrationId};
pub use file::parse_certificates;
pub use key::{GroupKey, SymmetricKey};
pub use key_file::SymmetricKeyFile;
pub use sas::SasToken;
pub use signer::{SasSignature, SasSigner, Signing};
#[cfg(feature = "csr")]
pub use stored_certificate::{CertificateSummary, StoredCertificate};
pub use tpm::{TpmAnswer, TpmAttestation, TpmKeys};
pub use x509::X509Identity;
pub use x509_files::X509Files;
