//! The inside of the connector, for the fuzz targets only: what it says and hears before TLS and after.

use dps_state_machine::ConnectionError;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    connector::Opened,
    failure::Peer,
    proxy::Proxy,
    tunnel,
    websocket::{self, WsBytes},
};

/// Asks a proxy for a tunnel to the peer.
///
/// # Errors
/// As the connector gives them.
pub async fn tunnel(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    peer: &Peer,
) -> Result<(), ConnectionError> {
    let authorization = proxy.authorization();
    let authorization = authorization.as_ref().map(|value| value.as_str());
    tunnel::open(stream, proxy, peer, "dps", authorization).await.map_err(|refusal| refusal.error)
}

/// Asks for the upgrade to WebSocket.
///
/// # Errors
/// As the connector gives them.
pub async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    peer: &Peer,
    subprotocol: &str,
) -> Result<Opened<WsBytes<S>>, ConnectionError> {
    websocket::upgrade(stream, peer, subprotocol, "dps").await
}
