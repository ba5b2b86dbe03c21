//! The MQTT transport of the service, over TLS and over WebSocket.
//! See <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>.

mod codec;
mod conversation;
mod device;
mod hub;

pub(super) use conversation::Conversation;
