//! AMQP over WebSocket.

use dps_connect::Carrier;

use super::{peer::*, *};

#[path = "../../../dps-connect/tests/support/upgrade.rs"]
pub(crate) mod upgrade;

pub(crate) fn over_websocket(config: Config) -> AmqpTransport {
    let over_websocket = |config: &mut AmqpConfig| config.carrier = Carrier::WebSocket;
    AmqpTransport::new(adjusted(AmqpConfig::new(config), over_websocket)).unwrap()
}

#[tokio::test]
async fn a_session_over_websocket_is_the_same_session() {
    let (tls, roots) = trusted_tls();
    let upgrade = |tls| upgrade::accept(tls, "AMQPWSB10");
    let script = [
        usual_start(),
        vec![
            answers(0, "1"),
            Turn::Read(&[Sent::Disposition, Sent::Transfer]),
            answers(1, "2"),
            Turn::ReadOn,
        ],
    ];
    let mut peer = Peer::over(tls, vec![script.concat()], upgrade).await;
    let mut transport = over_websocket(config(&localhost(peer.address), roots));
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
    transport.end_session().await.unwrap();
    let session = [LOGIN, START, REQUEST, ACCEPTANCE, REQUEST, ACCEPTANCE, END_OF_SESSION];
    assert_eq!(peer.over_next().await, session.concat());
}

#[tokio::test]
async fn a_websocket_close_with_a_reason_is_a_lost_connection_with_the_reason() {
    let mut transport =
        over_websocket(upgrade::saying("AMQPWSB10", b"\x88\x0b\x03\xf0too many!").await);
    let error = connection_error(register(&mut transport).await);
    assert!(error.lost && error.message.contains("(WebSocket close 1008 (too many!))"), "{error}");
}

#[tokio::test]
async fn every_websocket_close_is_a_lost_connection() {
    upgrade::every_close_is_a_lost_connection("AMQPWSB10", over_websocket).await;
}

#[tokio::test]
async fn a_websocket_message_that_is_not_binary_is_a_protocol_error() {
    let mut transport = over_websocket(upgrade::saying("AMQPWSB10", b"\x81\x02hi").await);
    let error = protocol_error(register(&mut transport).await);
    assert!(error.reason.contains("a text message"), "{}", error.reason);
}

#[tokio::test]
async fn a_refusal_by_the_service_is_judged_as_on_every_transport() {
    let (tls, roots) = trusted_tls();
    let assigned = r#"{"operationId":"o","status":"assigned","registrationState":{"assignedHub":"hub","deviceId":"d"}}"#;
    let script = [usual_start(), vec![answers(0, assigned), Turn::ReadOn]].concat();
    let busy_at_first = |tls| upgrade::busy_at_first(tls, "AMQPWSB10");
    let peer = Peer::over(tls, vec![vec![], script], busy_at_first).await;
    upgrade::is_tried_again(over_websocket(config(&localhost(peer.address), roots))).await;
}

#[tokio::test]
async fn every_fault_on_the_way_is_the_same_as_on_the_other_transports() {
    meets(faults::all().await, over_websocket).await;
}
