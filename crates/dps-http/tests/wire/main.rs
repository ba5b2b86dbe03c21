//! The wire against a server that answers anything.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod answers;
mod connections;
mod credentials;
mod server;
#[path = "../../../dps-connect/tests/support/mod.rs"]
mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dps_connect::{Config, Connector, Endpoint, NoProxy, ProxyChoice, Roots};
use dps_http::HttpTransport;
use dps_state_machine::{
    ConnectionError, Error, ErrorKind, Observer, OperationId, ProtocolError, RegistrationRequest,
    Response, Stage, Step, TransportHandlers,
};
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncReadExt;

use server::{Answer, Server};
use support::{
    Authority, config, cuttable, faults, listen, localhost, nobody, open_proxy, proxy,
    server_config, swallow,
};

const MIB: usize = 1024 * 1024;

fn request() -> RegistrationRequest {
    RegistrationRequest::new("pump-17".parse().unwrap())
}

fn operation(id: &str) -> OperationId {
    OperationId::new(id).unwrap()
}

/// A server that gives the answers, and the configuration of a device that trusts it.
async fn start(answers: impl IntoIterator<Item = Answer>) -> (Server, Config) {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let server = Server::start(tls, answers).await;
    let config = config(&localhost(server.address), authority.roots());
    (server, config)
}

async fn register(wire: &mut HttpTransport) -> Result<Response, Error> {
    wire.registration_request(&request()).await
}

async fn query(wire: &mut HttpTransport) -> Result<Response, Error> {
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
