//! The AMQP 1.0 transport of the Azure IoT Hub Device Provisioning Service client, over TLS or WebSocket.
//!
//! Choose AMQP for a device or gateway that speaks AMQP anyway, or where ports 5671 and 443 are open and 8883 is not.
//! [`AmqpTransport`] implements [`TransportHandlers`](dps_state_machine::TransportHandlers): it carries requests and
//! answers, and the state machine decides what an answer means.
//!
//! A registration takes four round trips after TCP, TLS 1.3 among them, or three with a certificate: everything that
//! is sure to follow is sent at once. A client that waits for each step, as most libraries do, needs nine and six.
//! [`Config::pipelined`](dps_connect::Config::pipelined) turns this off for a server or a middlebox that can't take it.
//!
//! ```
//! # fn main() -> Result<(), dps_client::Error> {
//! use dps_client::{AmqpConfig, AmqpTransport, Attestation, Carrier, Config, SymmetricKey};
//!
//! let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse()?;
//! let config = Config::new("0ne00AABBCC".parse()?, Attestation::SymmetricKey(key));
//! let mut config = AmqpConfig::new(config);
//! config.carrier = Carrier::Tls;
//! let transport = AmqpTransport::new(config)?; // Nothing is sent before the first registration.
//! # let _ = transport;
//! # Ok(())
//! # }
//! ```
//!
//! See [the service's page about AMQP](https://learn.microsoft.com/azure/iot-dps/iot-dps-devguide-protocols) and
//! [the AMQP 1.0 standard](https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-overview-v1.0-os.html).
#![cfg_attr(docsrs, feature(doc_cfg))]

// The tests of the workspace and the fuzz targets read frames with it. It is no part of the API.
#[doc(hidden)]
pub mod codec;
mod config;
mod connection;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handler;

/// What the doctor needs of the inside. It may change in any version.
#[doc(hidden)]
pub mod internal {
    pub use crate::handler::log_in;
}

pub use config::AmqpConfig;
pub use handler::AmqpTransport;
