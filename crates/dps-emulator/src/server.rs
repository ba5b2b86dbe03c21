//! Sockets, TLS and the protocols. Each protocol is a thin layer over the [core](crate::core): it reads requests from
//! bytes, and writes replies in its own form.

mod accept;
mod admin;
mod amqp;
mod bind;
mod conversation;
mod http;
mod mqtt;
mod peer;
mod protocol;
mod service_api;
mod shared;
mod stream;
mod unauthenticated;
mod webhook;
mod websocket;

pub(crate) use accept::accept;
pub(crate) use admin::{Admin, Facts, Guard};
pub(crate) use bind::bind;
#[cfg(fuzzing)]
pub(crate) use peer::{Connection, Peer};
#[cfg(fuzzing)]
pub(crate) use protocol::serve;
pub(crate) use shared::{Shared, Start};
#[cfg(fuzzing)]
pub(crate) use stream::{Control, Stream};
pub(crate) use webhook::call_all as call_webhooks;
