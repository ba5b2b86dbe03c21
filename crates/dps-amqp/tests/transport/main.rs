//! The transport against a server that follows a script.
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
use dps_state_machine::{Error, Progress, RegistrationRequest, Response, Stage, TransportHandlers};
use rustls::version::TLS13;

use peer::{Peer, Turn, usual_start};
use support::{Authority, adjusted, config, faults, localhost, server_config, transport::*};

/// A server with a script for each connection, and the configuration of a device that trusts it.
async fn start(scripts: Vec<Vec<Turn>>) -> (Peer, Config) {
    let (tls, roots) = trusted_tls();
    let peer = Peer::start(tls, scripts).await;
    let config = config(&localhost(peer.address), roots);
    (peer, config)
}

/// A device on its first connection to a server that goes on like this once the request is there.
async fn started_with(turns: Vec<Turn>) -> (Peer, AmqpTransport) {
    let (peer, config) = start(vec![[usual_start(), turns].concat()]).await;
    (peer, AmqpTransport::new(config).unwrap())
}

fn step_by_step(config: Config) -> AmqpTransport {
    AmqpTransport::new(AmqpConfig::new(adjusted(config, |config| config.pipelined = false)))
        .unwrap()
}
