//! The MQTT transport of the Azure IoT Hub Device Provisioning Service client: MQTT 3.1.1 over TLS or WebSocket.
//!
//! [`MqttTransport`] sends CONNECT, SUBSCRIBE and the registration in one flight, so that a device that is assigned
//! at once waits for two round trips after TCP, TLS 1.3 included (three with the WebSocket upgrade), and each poll
//! costs one. What the service answers is handed up as it came; what it means is the state machine's business.
//! See <https://learn.microsoft.com/azure/iot-dps/iot-dps-mqtt-support>.

pub mod codec;
mod config;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handler;
mod link;

pub use config::MqttConfig;
pub use handler::MqttTransport;
