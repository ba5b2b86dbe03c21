//! A device's TLS key in a PKCS#11 token: a smart card, a secure element, an HSM, or SoftHSM.
//!
//! [`Pkcs11Key`] signs the TLS handshakes of X.509 attestation at the Azure IoT Hub Device Provisioning Service (DPS); the
//! key never leaves the token. A [`Pkcs11Uri`] names it, as [RFC 7512](https://www.rfc-editor.org/rfc/rfc7512) does.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use dps_client::{X509Identity, parse_certificates, pkcs11::{Pkcs11Key, Pkcs11Options}};
//!
//! let uri = "pkcs11:token=factory;object=pump-17?pin-source=file:/etc/dps/pin&module-path=/usr/lib/softhsm/libsofthsm2.so";
//! let key = Pkcs11Key::open(&uri.parse()?, &Pkcs11Options::default())?;
//! let chain = parse_certificates(&std::fs::read("chain.pem")?)?;
//! let identity = X509Identity::from_signing_key(chain, Arc::new(key))?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does with the token
//!
//! - A module is loaded and initialized once in a process, and never finalized: other parts of the program may use it too.
//! - The token is found by what the URI says of it, never by its place; two that match are an error that lists both, and so
//!   it is with keys.
//! - A refused PIN is not tried again in this process, and none is tried when the token says that the next wrong one locks
//!   it. A program that is started again and again by a service manager tries it each time: let it stop when the
//!   [error](dps_state_machine::Error::Credential) is not retryable.
//! - A token that lost its session is opened anew once for a signature.
//! - The PIN is wiped from memory when it is dropped, and never printed. The module has a copy of its own.
//! - It does not make keys or change the token.
//!
//! # Limits
//!
//! Modules are native code that runs in the program: name only those that you trust. RSA of 2048 to 4096 bits, P-256 and
//! P-384, which is what the service takes.

mod error;
mod mechanism;
mod module;
mod object;
mod pin;
mod signing_key;
mod token;
mod uri;

pub use error::{PinProblem, Pkcs11Error};
pub use pin::Pin;
pub use signing_key::{Pkcs11Key, Pkcs11Options};
pub use uri::Pkcs11Uri;
