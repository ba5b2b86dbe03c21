//! The MQTT 3.1.1 transport of the Azure IoT Hub Device Provisioning Service client, over TLS or WebSocket.
//!
//! Choose MQTT for a device that speaks MQTT to its hub anyway; over WebSocket it needs port 443 only.
//! [`MqttTransport`] implements [`TransportHandlers`](dps_state_machine::TransportHandlers): it carries requests and
//! answers, and the state machine decides what an answer means.
//!
//! CONNECT, SUBSCRIBE and the registration leave in one flight, so that a device that is assigned at once waits for two
//! round trips after TCP, TLS 1.3 included (three with the WebSocket upgrade), and each poll costs one.
//! [`Config::pipelined`](dps_connect::Config::pipelined) turns this off for a broker that can't take it.
//!
//! ```
//! # fn main() -> Result<(), dps_client::Error> {
//! use std::time::Duration;
//!
//! use dps_client::{Attestation, Config, MqttConfig, MqttTransport, SymmetricKey};
//!
//! let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse()?;
//! let config = Config::new("0ne00AABBCC".parse()?, Attestation::SymmetricKey(key));
//! let mut config = MqttConfig::new(config);
//! config.keep_alive = Duration::from_secs(30);
//! let transport = MqttTransport::new(config)?; // Nothing is sent before the first registration.
//! # let _ = transport;
//! # Ok(())
//! # }
//! ```
//!
//! See [the service's page about MQTT](https://learn.microsoft.com/azure/iot-dps/iot-dps-mqtt-support) and
//! [the MQTT 3.1.1 standard](https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html).
#![cfg_attr(docsrs, feature(doc_cfg))]

// The tests of the workspace and the fuzz targets read packets with it. It is no part of the API.
#[doc(hidden)]
pub mod codec;
mod config;
mod connection;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handler;
#[cfg(feature = "hub")]
mod hub;
mod login;

/// What the doctor needs of the inside. It may change in any version.
#[doc(hidden)]
pub mod internal {
    pub use crate::login::log_in;
}

pub use config::MqttConfig;
pub use handler::MqttTransport;
#[cfg(feature = "hub")]
pub use hub::{HubConfig, HubConnection};
