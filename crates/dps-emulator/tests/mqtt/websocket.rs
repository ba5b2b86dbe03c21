//! MQTT over WebSocket, on the port of HTTPS.

use dps_connect::internal::websocket::{WsBytes, accept_key};
use dps_emulator::{Behavior, Delivery, Emulator, EventKind, Fault, Transport};

use crate::{device::*, support};

pub(crate) fn upgrade(path: &str, subprotocol: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    )
}

/// A device that has nothing but its stream.
pub(crate) async fn over_websocket(
    emulator: &Emulator,
) -> Device<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + use<>> {
    let mut https = support::connect(emulator).await.unwrap();
    assert_eq!(https.ask(&upgrade("/$iothub/websocket", "mqtt")).await.unwrap().status, 101);
    Device { stream: WsBytes::client(https.stream).await, buffer: Vec::new() }
}

#[tokio::test]
async fn a_session_over_websocket_is_the_same_session_however_the_device_spells_it() {
    let emulator = behaving(Behavior::new()).await;
    let spellings = [
        ("/$iothub/websocket", "mqtt", "mqtt"),
        ("/$iothub/websocket?iothub-no-client-cert=true", "MQTT", "MQTT"),
        ("/$iothub/websocket", "stomp, Mqtt", "Mqtt"),
        ("/", "mqtt", "mqtt"),
    ];
    for (path, offered, chosen) in spellings {
        let mut https = support::connect(&emulator).await.unwrap();
        let answer = https.ask(&upgrade(path, offered)).await.unwrap();
        assert_eq!(answer.status, 101, "{path} {offered}");
        assert_eq!(answer.header("sec-websocket-protocol"), Some(chosen));
        let accepted = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(answer.header("sec-websocket-accept"), Some(accepted.as_str()));
        let stream = WsBytes::client(https.stream).await;
        let mut device = Device { stream, buffer: Vec::new() };
        device.begin(&emulator).await;
        device.send([register("1")]).await;
        assert_eq!(device.answer().await.unwrap().json()["status"], "assigned");
        device.send([mqtt_proto::v3::Packet::Disconnect]).await;
        assert!(device.is_closed().await);
    }
    let transports: Vec<_> = emulator
        .events()
        .snapshot()
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::Request { transport, .. } => Some(transport),
            _ => None,
        })
        .collect();
    assert_eq!(transports, [Transport::MqttWs; 4]);
}

#[tokio::test]
async fn a_cut_is_a_cut_over_websocket_too() {
    let fault = Fault::deliver(Delivery::CloseBefore);
    let emulator = behaving(Behavior::new().on_register(fault)).await;
    let mut device = over_websocket(&emulator).await;
    device.begin(&emulator).await;
    device.send([register("1")]).await;
    assert!(device.is_closed().await);
}
