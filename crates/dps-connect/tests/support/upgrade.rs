//! A server's end of the upgrade to WebSocket. The tests of the wires that go over it include this file.

use dps_connect::{
    Config,
    websocket::{WsBytes, accept_key},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    ServerStream, config, head, listen_tls, localhost, swallow, wire::trusted_tls,
};

/// Takes the upgrade to the subprotocol, and answers with it in another spelling.
async fn switch(mut tls: ServerStream, subprotocol: &str) -> Option<ServerStream> {
    let request = head(&mut tls).await;
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    assert!(request.starts_with("GET /$iothub/websocket HTTP/1.1\r\n"), "{request}");
    let asked = format!("\r\nSec-WebSocket-Protocol: {subprotocol}\r\n");
    assert!(request.contains(&asked), "{request}");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        accept_key(key),
        subprotocol.to_lowercase()
    );
    tls.write_all(answer.as_bytes()).await.ok()?;
    Some(tls)
}

pub(crate) async fn accept(tls: ServerStream, subprotocol: &str) -> Option<WsBytes<ServerStream>> {
    Some(WsBytes::server(switch(tls, subprotocol).await?).await)
}

/// A server that takes the upgrade and answers what comes with these bytes; the configuration of a device that
/// trusts it.
pub(crate) async fn saying(subprotocol: &'static str, bytes: &'static [u8]) -> Config {
    let (tls, roots) = trusted_tls();
    let address = listen_tls(tls, move |tls| async move {
        let mut tls = switch(tls, subprotocol).await.unwrap();
        let _ = tls.read(&mut [0; 1024]).await;
        tls.write_all(bytes).await.unwrap();
        swallow(tls).await;
    })
    .await;
    config(&localhost(address), roots)
}
