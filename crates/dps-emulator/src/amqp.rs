//! The AMQP transport of the service, over TLS and over WebSocket.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-overview-v1.0-os.html>.
//!
//! The frames are made by hand on the library's codec and not by its acceptor: that one can't misbehave as scripts
//! want it, nor answer frames that came together in one flight.

mod answer;
mod codec;
mod conversation;
mod device;
mod guard;
mod mischief;
mod session;
mod write;

pub(crate) use conversation::Conversation;
