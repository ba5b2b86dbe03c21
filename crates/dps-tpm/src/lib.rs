//! A device's identity in a TPM 2.0, in Rust alone: no C library, no TSS to install, no `unsafe`.
//!
//! What a TPM gives the Azure IoT Hub Device Provisioning Service (DPS) is a key that can't be copied off the device.
//! There are two ways to use it:
//!
//! - **TPM attestation**: the service knows the endorsement key of the TPM, encrypts a key for it, and the TPM signs with
//!   that. [`Tpm::keys`] says what the enrollment needs; [`Tpm::import`] takes in the key of the challenge, [`Tpm::store`]
//!   the one for the assigned hub, and [`NonceKey`] and [`StoredKey`] sign SAS tokens with them.
//! - **X.509 with the private key in the TPM**: [`TpmSigningKey`] signs TLS handshakes with an RSA or P-256 key, from a
//!   `TSS2 PRIVATE KEY` file or at a persistent handle.
//!
//! ```no_run
//! # async fn show() -> Result<(), Box<dyn std::error::Error>> {
//! use dps_client::tpm::{Tpm, TpmConfig};
//! let tpm = Tpm::new(TpmConfig::new("/dev/tpmrm0".parse()?))?;
//! let keys = tpm.keys().await?;
//! // Both go into an individual enrollment.
//! println!("endorsement key: {}", keys.endorsement_key());
//! println!("registration id: {}", keys.registration_id()?);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does with the TPM
//!
//! - The endorsement key is that of the TCG's template L-1, which the manufacturer's certificate is for. It and the
//!   storage root key are made at [their handles](TpmConfig) when nothing is there, and checked when something is: an ECC
//!   key, another template and a missing password are named in the error.
//! - The TPM has a thread of its own. A command can't be taken back, so a dropped future leaves the thread to finish its
//!   job; the connection stays in step.
//! - What a job loads is flushed at its end, however it ends, over a connection that broke too: nothing is left in the
//!   TPM but the keys at the handles.
//! - The former key for the hub stays until the new one is loaded. Should the TPM fail between the two commands that
//!   exchange them, the error says that the former key is gone.
//! - Passwords and decrypted keys are wiped from memory and never printed.
//!
//! # Limits
//!
//! A TPM 2.0 on Linux, by `/dev/tpmrm0`, or a software TPM by its socket. Windows has no such device; MQTT has no TPM
//! attestation at the service.

mod address;
mod attestation;
mod authentication_key;
mod commands;
mod config;
mod device;
mod error;
mod frame;
mod identity;
mod keys;
mod session;
mod signer;
mod signing_key;
mod template;
mod tpm;
mod tss2;

pub use address::TpmAddress;
pub use authentication_key::AuthenticationKey;
pub use config::{Password, TpmConfig};
pub use dps_attestation::TpmKeys;
pub use error::{ResponseCode, TpmError};
pub use signer::StoredKey;
pub use signing_key::{KeySource, TpmSigningKey};
pub use tpm::{NonceKey, Tpm};
