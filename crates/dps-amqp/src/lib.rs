//! The AMQP 1.0 transport of the Azure IoT Hub Device Provisioning Service client, over TLS or WebSocket.
//!
//! [`AmqpTransport`] registers in four round trips after TCP, TLS 1.3 among them, or in three with a certificate:
//! what is sure to follow is sent at once. A client that waits for each step, as the standard's own flow and most
//! libraries do, needs nine and six. What the service answers is handed up as it came; what it means is the state
//! machine's business.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-overview-v1.0-os.html>.

pub mod codec;
mod config;
mod connection;
mod failure;
mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handler;
#[cfg(test)]
mod hex;
pub mod message;
mod sasl;
mod session;
mod value;

pub use config::AmqpConfig;
pub use failure::Failure;
pub use handler::AmqpTransport;
pub use value::{Malformed, Value};
