//! MQTT over WebSocket.

use dps_connect::{
    Carrier, ProxyChoice,
    websocket::{WsBytes, accept_key},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    support::{ServerStream, faults, head},
    *,
};

async fn switch(mut tls: ServerStream) -> Option<ServerStream> {
    let request = head(&mut tls).await;
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    assert!(request.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"), "{request}");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
        accept_key(key)
    );
    tls.write_all(answer.as_bytes()).await.ok()?;
    Some(tls)
}

async fn upgrade(tls: ServerStream) -> Option<WsBytes<ServerStream>> {
    Some(WsBytes::server(switch(tls).await?).await)
}

fn over_websocket(config: Config) -> MqttTransport {
    MqttTransport::new(MqttConfig::new(config).carrier(Carrier::WebSocket)).unwrap()
}

#[tokio::test]
async fn a_session_over_websocket_is_the_same_session() {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let mut peer = Peer::over(tls, service([ok("1"), ok("2")]), upgrade).await;
    let mut wire = over_websocket(config(&localhost(peer.address), authority.roots()));
    assert_eq!(register(&mut wire).await.unwrap().body, b"1");
    assert_eq!(kinds(&peer.flight().await.1), "CSP");
    assert_eq!(query(&mut wire).await.unwrap().body, b"2");
    wire.end_session().await.unwrap();
    peer.closed(1).await;
}

#[tokio::test]
async fn what_the_server_says_when_it_closes_is_told() {
    let authority = Authority::new("Test CA");
    let cases: [(&[u8], &str); 2] = [
        (
            b"\x82\x04\x20\x02\x00\x00\x88\x0b\x03\xf0too many!",
            "(WebSocket close 1008 (too many!))",
        ),
        (b"\x82\x04\x20\x02\x00\x00\x88\x00", "closed the connection"),
    ];
    for (bytes, says) in cases {
        let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
        let address = support::listen_tls(tls, move |tls| async move {
            let mut tls = switch(tls).await.unwrap();
            let _ = tls.read(&mut [0; 1024]).await;
            tls.write_all(bytes).await.unwrap();
            support::swallow(tls).await;
        })
        .await;
        let mut wire = over_websocket(config(&localhost(address), authority.roots()));
        let error = connection_error(register(&mut wire).await);
        assert!(error.lost && error.message.contains(says), "{error} should say {says}");
    }
}

#[tokio::test]
async fn what_is_no_websocket_message_of_bytes_is_nonsense() {
    let authority = Authority::new("Test CA");
    for (bytes, says) in [(b"\x81\x02hi", "a text message"), (b"\xf2\x02hi", "WebSocket")] {
        let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
        let address = support::listen_tls(tls, move |tls| async move {
            let mut tls = switch(tls).await.unwrap();
            tls.write_all(bytes).await.unwrap();
            support::swallow(tls).await;
        })
        .await;
        let mut wire = over_websocket(config(&localhost(address), authority.roots()));
        let error = protocol_error(register(&mut wire).await);
        assert!(error.reason.contains(says), "{}", error.reason);
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_told_with_its_status() {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let address = support::listen_tls(tls, |mut tls| async move {
        head(&mut tls).await;
        tls.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
    })
    .await;
    let mut wire = over_websocket(config(&localhost(address), authority.roots()));
    let error = connection_error(register(&mut wire).await);
    assert_eq!(error.stage, Stage::Websocket);
    assert!(error.message.contains("404 Not Found"), "{error}");
}

#[tokio::test]
async fn every_fault_on_the_way_is_the_same_as_on_the_other_wires() {
    for fault in faults::all().await {
        let name = fault.name;
        let through_proxy = !matches!(fault.config.proxy, ProxyChoice::None);
        let error = connection_error(register(&mut over_websocket(fault.config)).await);
        assert_eq!(error.stage, fault.stage, "{name}: {error}");
        assert_eq!(error.retryable, fault.retryable, "{name}: {error}");
        assert!(error.message.contains(fault.says), "{name} {through_proxy}: {error}");
    }
}
