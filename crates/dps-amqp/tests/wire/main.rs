//! The wire against a server that follows a script.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod answers;
mod credentials;
mod losses;
mod peer;
mod refusals;
mod starts;
#[path = "../../../dps-connect/tests/support/mod.rs"]
mod support;
#[cfg(feature = "websocket")]
mod websocket;

use dps_amqp::{AmqpConfig, AmqpTransport};
use dps_connect::Config;
use dps_state_machine::{
    ConnectionError, Error, OperationId, ProtocolError, RegistrationRequest, Response, Stage,
    TransportHandlers,
};
use rustls::version::TLS13;

use peer::{Peer, Turn, usual_start};
use support::{Authority, config, localhost, server_config};

fn request() -> RegistrationRequest {
    RegistrationRequest::new("pump-17".parse().unwrap())
}

/// A server with a script for each connection, and the configuration of a device that trusts it.
async fn start(scripts: Vec<Vec<Turn>>) -> (Peer, Config) {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let peer = Peer::start(tls, scripts).await;
    let config = config(&localhost(peer.address), authority.roots());
    (peer, config)
}

/// A device on its first connection to a server that goes on like this once the request is there.
async fn started_with(turns: Vec<Turn>) -> (Peer, AmqpTransport) {
    let (peer, config) = start(vec![[usual_start(), turns].concat()]).await;
    (peer, AmqpTransport::new(config).unwrap())
}

fn step_by_step(config: Config) -> AmqpTransport {
    AmqpTransport::new(AmqpConfig::new(config).pipelined(false)).unwrap()
}

async fn register(wire: &mut AmqpTransport) -> Result<Response, Error> {
    wire.registration_request(&request()).await
}

async fn query(wire: &mut AmqpTransport) -> Result<Response, Error> {
    wire.query_operation_status(&request(), &OperationId::new("4.op").unwrap()).await
}

fn connection_error(outcome: Result<Response, Error>) -> ConnectionError {
    match outcome {
        Err(Error::Connection(error)) => *error,
        other => panic!("{other:?}"),
    }
}

fn protocol_error(outcome: Result<Response, Error>) -> ProtocolError {
    match outcome {
        Err(Error::Protocol(error)) => *error,
        other => panic!("{other:?}"),
    }
}
