//! The other end of a connection, as every protocol gets it.

use std::sync::Arc;

use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::server::TlsStream;

use super::stream::{Control, Stream};
use crate::{behavior::ConnectionFault, config::Limits, core::Caller};

/// Why a connection is over when the emulator is.
pub(super) const STOPS: &str = "the emulator stops";

/// The other end of a connection.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) caller: Caller,
    pub(crate) control: Arc<Control>,
    pub(crate) limits: Limits,
    /// What goes wrong with the connection, as far as the protocol is concerned.
    pub(crate) fault: ConnectionFault,
}

/// A connection as a protocol gets it.
pub(crate) struct Connection<S = Stream<Box<TlsStream<TcpStream>>>> {
    pub(crate) peer: Peer,
    pub(crate) stream: S,
    /// Becomes true when the emulator is to stop.
    pub(crate) stopping: watch::Receiver<bool>,
}
