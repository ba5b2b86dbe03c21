//! Misbehaving peers on loopback.

mod controlled_port;
mod conversation;
mod man_in_the_middle;
mod pki;
mod relayed_connection;
mod slow_stream;

pub(crate) use controlled_port::PortState;
pub(crate) use conversation::{Kind, find};
pub(crate) use man_in_the_middle::{Injection, ManInTheMiddle, Misbehavior};
pub(crate) use pki::{Credentials, Pki};
