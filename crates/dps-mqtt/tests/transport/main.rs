//! The transport against a server that follows a script.
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
    Error, ErrorKind, Progress, RegistrationRequest, Stage, TransportHandlers,
};
use mqtt_proto::v3::Packet;
use rustls::version::{TLS12, TLS13};

use peer::{Peer, Reply, Script, answer, courtesy, ok, publish, raw, service};
use support::{Authority, adjusted, config, localhost, server_config, transport::*};

/// A server with this script, and the configuration of a device that trusts it.
async fn start(script: Script) -> (Peer, Config) {
    let (tls, roots) = trusted_tls();
    let peer = Peer::start(tls, script).await;
    let config = config(&localhost(peer.address), roots);
    (peer, config)
}

/// What a device sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Connect,
    Subscribe,
    Publish,
    Acknowledge,
    Ping,
    Disconnect,
    Other,
}

/// A device starts a session and sends a request.
const FLIGHT: [Sent; 3] = [Sent::Connect, Sent::Subscribe, Sent::Publish];

fn kinds(packets: &[Packet]) -> Vec<Sent> {
    packets
        .iter()
        .map(|packet| match packet {
            Packet::Connect(_) => Sent::Connect,
            Packet::Subscribe(_) => Sent::Subscribe,
            Packet::Publish(_) => Sent::Publish,
            Packet::Puback(_) => Sent::Acknowledge,
            Packet::Pingreq => Sent::Ping,
            Packet::Disconnect => Sent::Disconnect,
            _ => Sent::Other,
        })
        .collect()
}
