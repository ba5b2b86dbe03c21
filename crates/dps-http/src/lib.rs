//! The HTTPS transport of the Azure IoT Hub Device Provisioning Service client.
//!
//! [`HttpTransport`] sends the registration with PUT and asks for the operation's status with GET, over one
//! connection that is kept until the end of the session. What the service answers is handed up as it came; what it
//! means is the state machine's business. HTTPS passes most firewalls and needs no session: choose it where nothing
//! speaks for another transport.
//! See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration>.
//!
//! ```
//! # fn main() -> Result<(), dps_client::Error> {
//! use dps_client::{Attestation, SymmetricKey};
//! let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse()?;
//! let config = dps_client::Config::new("0ne00AABBCC".parse()?, Attestation::SymmetricKey(key));
//! let transport = dps_client::HttpTransport::new(config)?; // nothing is sent before the first registration
//! # let _ = transport;
//! # Ok(())
//! # }
//! ```

mod codec;
mod config;
mod connection;
mod handler;
#[cfg(test)]
mod tests;
mod watch;

pub use handler::HttpTransport;

/// What the tests and fuzz targets need of the inside. It may change in any version.
#[doc(hidden)]
pub mod internal {
    /// Requests to bytes and answers to responses.
    pub mod codec {
        pub use crate::codec::*;
    }
}
