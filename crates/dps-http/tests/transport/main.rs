//! The transport against a server that answers anything.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

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

use dps_connect::{Config, Connector, Endpoint, ProxyChoice, Roots};
use dps_http::HttpTransport;
use dps_state_machine::{Error, ErrorKind, Progress, Stage, Step, TransportHandlers};
use rustls::version::{TLS12, TLS13};
use tokio::io::AsyncReadExt;

use server::{Answer, Server};
use support::{
    Authority, adjusted, closed_address, config, cuttable, faults, listen, localhost, open_proxy,
    proxy,
    refusals::{self, Cut},
    server_config, swallow,
    transport::*,
};

const MIB: usize = 1024 * 1024;

/// A server that gives the answers, and the configuration of a device that trusts it.
async fn start(answers: impl IntoIterator<Item = Answer>) -> (Server, Config) {
    let (tls, roots) = trusted_tls();
    let server = Server::start(tls, answers).await;
    let config = config(&localhost(server.address), roots);
    (server, config)
}
