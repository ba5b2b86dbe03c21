//! AMQP over WebSocket.

use dps_connect::{
    Carrier, ProxyChoice,
    websocket::{WsBytes, accept_key},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    peer::answers,
    support::{ServerStream, faults, head},
    *,
};

async fn switch(mut tls: ServerStream) -> Option<ServerStream> {
    let request = head(&mut tls).await;
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    assert!(request.starts_with("GET /$iothub/websocket HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("\r\nSec-WebSocket-Protocol: AMQPWSB10\r\n"), "{request}");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: amqpwsb10\r\n\r\n",
        accept_key(key)
    );
    tls.write_all(answer.as_bytes()).await.ok()?;
    Some(tls)
}

async fn upgrade(tls: ServerStream) -> Option<WsBytes<ServerStream>> {
    Some(WsBytes::server(switch(tls).await?).await)
}

fn over_websocket(config: Config) -> AmqpTransport {
    AmqpTransport::new(AmqpConfig::new(config).carrier(Carrier::WebSocket)).unwrap()
}

#[tokio::test]
async fn a_session_over_websocket_is_the_same_session() {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let script =
        [usual_start(), vec![answers(0, "1"), Turn::Read("dt"), answers(1, "2"), Turn::ReadOn]];
    let mut peer = Peer::over(tls, vec![script.concat()], upgrade).await;
    let mut wire = over_websocket(config(&localhost(peer.address), authority.roots()));
    assert_eq!(register(&mut wire).await.unwrap().body, b"1");
    assert_eq!(query(&mut wire).await.unwrap().body, b"2");
    wire.end_session().await.unwrap();
    assert_eq!(peer.over_next().await, "SiHobaaftdtdxxc");
}

#[tokio::test]
async fn what_the_server_says_when_it_closes_is_told() {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let address = support::listen_tls(tls, |tls| async move {
        let mut tls = switch(tls).await.unwrap();
        let _ = tls.read(&mut [0; 1024]).await;
        tls.write_all(b"\x88\x0b\x03\xf0too many!").await.unwrap();
        support::swallow(tls).await;
    })
    .await;
    let mut wire = over_websocket(config(&localhost(address), authority.roots()));
    let error = connection_error(register(&mut wire).await);
    assert!(error.lost && error.message.contains("(WebSocket close 1008 (too many!))"), "{error}");
}

#[tokio::test]
async fn what_is_no_websocket_message_of_bytes_is_nonsense() {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let address = support::listen_tls(tls, |tls| async move {
        let mut tls = switch(tls).await.unwrap();
        tls.write_all(b"\x81\x02hi").await.unwrap();
        support::swallow(tls).await;
    })
    .await;
    let mut wire = over_websocket(config(&localhost(address), authority.roots()));
    let error = protocol_error(register(&mut wire).await);
    assert!(error.reason.contains("a text message"), "{}", error.reason);
}

#[tokio::test]
async fn every_fault_on_the_way_is_the_same_as_on_the_other_wires() {
    for fault in faults::all().await {
        let name = fault.name;
        let through_proxy = !matches!(fault.config.proxy, ProxyChoice::None);
        let mut wire = over_websocket(fault.config.clone());
        let error = connection_error(register(&mut wire).await);
        assert_eq!(error.stage, fault.stage, "{name}: {error}");
        assert_eq!(error.retryable, fault.retryable, "{name}: {error}");
        assert!(error.message.contains(fault.says), "{name} {through_proxy}: {error}");
        // Without WebSocket the port is another, which some of the messages name.
        let mut wire = AmqpTransport::new(fault.config).unwrap();
        let error = connection_error(register(&mut wire).await);
        assert_eq!((error.stage, error.retryable), (fault.stage, fault.retryable), "{name}");
    }
}
