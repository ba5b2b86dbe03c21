//! What is recorded of MQTT sessions.

use dps_connect::internal::websocket::WsBytes;
use dps_emulator::{Behavior, Emulator};
use mqtt_proto::v3::{Connect, Packet};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    device::*,
    misplaced::{misplaced, percent, tokens},
    support,
    websocket::upgrade,
};

/// Packets with a text in each field of theirs.
fn cases(emulator: &Emulator, text: &str) -> Vec<(&'static str, Vec<Packet>)> {
    let scope = emulator.id_scope();
    let begin = |change: &dyn Fn(&mut Connect)| {
        let mut connect = connect(emulator);
        change(&mut connect);
        vec![connect.into(), register("1")]
    };
    let named = |name: String| begin(&|connect| connect.username = Some(name.as_str().into()));
    let asks = |topic: &str, body: &str| {
        vec![connect(emulator).into(), publish(topic, body, Some(2)), Packet::Disconnect]
    };
    // No topic of a publication has wildcards.
    let topic = percent(text);
    let (query, payload) = ("$dps/registrations/GET/iotdps-get-operationstatus/?", " ");
    let mut cases = vec![
        ("client id", begin(&|connect| connect.client_id = text.into())),
        ("user name", named(text.to_owned())),
        ("ID scope", named(format!("{text}/registrations/dev-1/api-version=2021-06-01"))),
        ("api-version", named(format!("{scope}/registrations/dev-1/api-version={text}"))),
        (
            "client version",
            named(format!(
                "{scope}/registrations/dev-1/api-version=2021-06-01&ClientVersion={text}"
            )),
        ),
        ("request id", asks(&format!("{REGISTER}{topic}"), BODY)),
        ("operation", asks(&format!("{query}$rid=1&operationId={topic}"), payload)),
        ("another field", asks(&format!("{query}$rid=1&{topic}={topic}"), payload)),
        ("topic", asks(&topic, payload)),
        (
            "payload",
            asks(
                &format!("{REGISTER}1"),
                &serde_json::json!({ "registrationId": "dev-1", "payload": text }).to_string(),
            ),
        ),
        (
            "registration id",
            begin(&|connect| {
                connect.client_id = text.into();
                connect.username = Some(
                    format!("{scope}/registrations/{text}/api-version=2021-06-01").as_str().into(),
                );
            }),
        ),
    ];
    for token in tokens(text) {
        cases.push((
            "token",
            begin(&|connect| connect.password = Some(token.clone().into_bytes().into())),
        ));
        cases.push((
            "token and user name",
            begin(&|connect| {
                connect.password = Some(token.clone().into_bytes().into());
                connect.client_id = token.as_str().into();
                connect.username = Some(format!("{scope}/registrations/{token}/").as_str().into());
            }),
        ));
    }
    cases
}

async fn send(stream: impl AsyncRead + AsyncWrite + Unpin, packets: Vec<Packet>) {
    let mut device = Device { stream, buffer: Vec::new() };
    device.send(packets).await;
    // Whatever it is answered, until the emulator closes or has said all.
    while !matches!(device.packet().await, None | Some(Packet::Publish(_) | Packet::Puback(_))) {}
}

#[tokio::test]
async fn no_event_of_mqtt_has_a_secret_whatever_field_it_stood_in() {
    let emulator = behaving(Behavior::new()).await;
    for secret in misplaced() {
        for (field, packets) in cases(&emulator, &secret.text) {
            let since = emulator.events().len();
            send(reach(&emulator).await.stream, packets).await;
            secret.assert_hidden(&emulator, since, field).await;
        }
    }
}

#[tokio::test]
async fn no_event_of_mqtt_over_websocket_has_a_secret_whatever_field_it_stood_in() {
    let emulator = behaving(Behavior::new()).await;
    for secret in misplaced() {
        for (field, packets) in cases(&emulator, &secret.text) {
            let since = emulator.events().len();
            let mut https = support::connect(&emulator).await.unwrap();
            let upgrade = upgrade("/$iothub/websocket", "mqtt");
            assert_eq!(https.ask(&upgrade).await.unwrap().status, 101);
            send(WsBytes::client(https.stream).await, packets).await;
            secret.assert_hidden(&emulator, since, field).await;
        }
    }
}
