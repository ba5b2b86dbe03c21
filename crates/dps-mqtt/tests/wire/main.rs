//! The wire against a server that follows a script.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod answers;
mod connections;
mod credentials;
mod peer;
mod session;
#[path = "../../../dps-connect/tests/support/mod.rs"]
mod support;
#[cfg(feature = "websocket")]
mod websocket;

use dps_connect::{Config, Roots};
use dps_mqtt::{MqttConfig, MqttTransport};
use dps_state_machine::{
    ConnectionError, Error, ErrorKind, OperationId, ProtocolError, RegistrationRequest, Response,
    Stage, TransportHandlers,
};
use mqtt_proto::v3::Packet;
use rustls::version::{TLS12, TLS13};

use peer::{Peer, Reply, Script, answer, courtesy, ok, publish, raw, service};
use support::{Authority, config, localhost, server_config};

fn request() -> RegistrationRequest {
    RegistrationRequest::new("pump-17".parse().unwrap())
}

fn operation(id: &str) -> OperationId {
    OperationId::new(id).unwrap()
}

/// A server with this script, and the configuration of a device that trusts it.
async fn start(script: Script) -> (Peer, Config) {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let peer = Peer::start(tls, script).await;
    let config = config(&localhost(peer.address), authority.roots());
    (peer, config)
}

async fn register(wire: &mut MqttTransport) -> Result<Response, Error> {
    wire.registration_request(&request()).await
}

async fn query(wire: &mut MqttTransport) -> Result<Response, Error> {
    wire.query_operation_status(&request(), &operation("4.op")).await
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

/// The kinds of packets, in a letter each.
fn kinds(packets: &[Packet]) -> String {
    packets
        .iter()
        .map(|packet| match packet {
            Packet::Connect(_) => 'C',
            Packet::Subscribe(_) => 'S',
            Packet::Publish(_) => 'P',
            Packet::Puback(_) => 'A',
            Packet::Pingreq => 'I',
            Packet::Disconnect => 'D',
            _ => '?',
        })
        .collect()
}
