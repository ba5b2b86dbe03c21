//! The AMQP transport of the service, over TLS and over WebSocket.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-overview-v1.0-os.html>.
//!
//! The frames are made by hand on the library's codec and not by its acceptor: that one can't misbehave as scripts
//! want it, nor answer frames that came together in one flight.

mod answer;
mod claim;
mod codec;
mod context;
mod conversation;
mod faults;
mod guard;
mod refusal;
mod request;
mod session;
mod tpm;
mod write;

pub(super) use conversation::Conversation;
