//! MQTT over WebSocket.

use dps_connect::Carrier;
use tokio::io::AsyncWriteExt;

use super::{
    support::{faults, head, listen_tls},
    *,
};

#[path = "../../../dps-connect/tests/support/upgrade.rs"]
pub(crate) mod upgrade;

fn over_websocket(config: Config) -> MqttTransport {
    let over_websocket = |config: &mut MqttConfig| config.carrier = Carrier::WebSocket;
    MqttTransport::new(adjusted(MqttConfig::new(config), over_websocket)).unwrap()
}

#[tokio::test]
async fn a_session_over_websocket_is_the_same_session() {
    let (tls, roots) = trusted_tls();
    let upgrade = |tls| upgrade::accept(tls, "mqtt");
    let mut peer = Peer::over(tls, service([ok("1"), ok("2")]), upgrade).await;
    let mut transport = over_websocket(config(&localhost(peer.address), roots));
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    assert_eq!(kinds(&peer.flight().await.1), FLIGHT);
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
    transport.end_session().await.unwrap();
    peer.closed(1).await;
}

#[tokio::test]
async fn a_websocket_close_with_a_reason_is_a_lost_connection_with_the_reason() {
    let cases: [(&[u8], &str); 2] = [
        (
            b"\x82\x04\x20\x02\x00\x00\x88\x0b\x03\xf0too many!",
            "(WebSocket close 1008 (too many!))",
        ),
        (b"\x82\x04\x20\x02\x00\x00\x88\x00", "closed the connection"),
    ];
    for (bytes, says) in cases {
        let mut transport = over_websocket(upgrade::saying("mqtt", bytes).await);
        let error = connection_error(register(&mut transport).await);
        assert!(error.lost && error.message.contains(says), "{error} should say {says}");
    }
}

#[tokio::test]
async fn every_websocket_close_is_a_lost_connection() {
    upgrade::every_close_is_a_lost_connection("mqtt", over_websocket).await;
}

#[tokio::test]
async fn a_websocket_message_that_is_not_binary_is_a_protocol_error() {
    for (bytes, says) in [(b"\x81\x02hi", "a text message"), (b"\xf2\x02hi", "WebSocket")] {
        let mut transport = over_websocket(upgrade::saying("mqtt", bytes).await);
        let error = protocol_error(register(&mut transport).await);
        assert!(error.reason.contains(says), "{}", error.reason);
    }
}

#[tokio::test]
async fn a_refused_upgrade_is_named_with_its_status() {
    let (tls, roots) = trusted_tls();
    let address = listen_tls(tls, |mut tls| async move {
        head(&mut tls).await;
        tls.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    })
    .await;
    let mut transport = over_websocket(config(&localhost(address), roots));
    let error = connection_error(register(&mut transport).await);
    assert_eq!(error.stage, Stage::Websocket);
    assert!(error.message.contains("404 Not Found"), "{error}");
}

#[tokio::test]
async fn a_refusal_by_the_service_is_judged_as_on_every_transport() {
    let (tls, roots) = trusted_tls();
    let assigned = r#"{"operationId":"o","status":"assigned","registrationState":{"assignedHub":"hub","deviceId":"d"}}"#;
    let busy_at_first = |tls| upgrade::busy_at_first(tls, "mqtt");
    let peer = Peer::over(tls, service([ok(assigned)]), busy_at_first).await;
    upgrade::is_tried_again(over_websocket(config(&localhost(peer.address), roots))).await;
}

#[tokio::test]
async fn every_fault_on_the_way_is_the_same_as_on_the_other_transports() {
    meets(faults::all().await, over_websocket).await;
}
