//! What is recorded of AMQP connections.

use dps_connect::internal::websocket::WsBytes;
use dps_emulator::{Behavior, Emulator};
use fe2o3_amqp_types::{
    definitions::Role,
    messaging::{ApplicationProperties, MessageId, Properties},
    sasl::SaslInit,
};
use serde_amqp::primitives::{Binary, Symbol};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    device::*,
    misplaced::{misplaced, tokens},
    support,
};

fn log_in(user: &str, password: &str) -> Vec<u8> {
    let init = SaslInit {
        mechanism: Symbol::from("PLAIN"),
        initial_response: Some(Binary::from(format!("\0{user}\0{password}").into_bytes())),
        hostname: None,
    };
    [SASL, &frame_of(1, &init, &[])].concat()
}

/// All that a device sends, with a text in each field of it.
fn cases(emulator: &Emulator, text: &str) -> Vec<(&'static str, Vec<u8>)> {
    let right = right_token(emulator);
    let id = format!("{}/registrations/dev-1", emulator.id_scope());
    let begun = [plain(emulator, &right), AMQP.to_vec(), frame(&open()), begin()].concat();
    let asks = |message: Vec<u8>| {
        [plain(emulator, &right), session(emulator), delivery(0, &message)].concat()
    };
    let with_links = |address: &str, properties: &[(&str, &str)]| {
        let links = [Role::Sender, Role::Receiver].map(|role| attach(role, address, properties));
        [begun.clone(), links.concat(), credit(10), register(0, "1")].concat()
    };
    let sections = |properties: Properties, application: ApplicationProperties, body: &str| {
        asks(
            [
                serde_amqp::to_vec(&properties).unwrap(),
                serde_amqp::to_vec(&application).unwrap(),
                data(body.as_bytes()),
            ]
            .concat(),
        )
    };
    let message_id = || Some(MessageId::String(text.into()));
    let asked =
        || ApplicationProperties::builder().insert("iotdps-operation-type", "iotdps-register");
    let versions = [("com.microsoft:api-version", text), ("com.microsoft:client-version", text)];
    let body = serde_json::json!({ "registrationId": "dev-1", "payload": text }).to_string();
    let mut cases = vec![
        ("user", [log_in(text, &right), session(emulator)].concat()),
        (
            "registration id",
            [
                log_in(&format!("{}/registrations/{text}", emulator.id_scope()), &right),
                session(emulator),
            ]
            .concat(),
        ),
        ("address", with_links(text, VERSION)),
        (
            "device of the address",
            with_links(&format!("{}/registrations/{text}", emulator.id_scope()), VERSION),
        ),
        ("properties of the link", with_links(&id, &versions)),
        (
            "message id",
            sections(
                Properties { message_id: message_id(), ..Default::default() },
                asked().build(),
                BODY,
            ),
        ),
        (
            "correlation id",
            sections(
                Properties { correlation_id: message_id(), ..Default::default() },
                asked().build(),
                BODY,
            ),
        ),
        (
            "operation type",
            sections(
                Properties::default(),
                ApplicationProperties::builder().insert("iotdps-operation-type", text).build(),
                BODY,
            ),
        ),
        (
            "operation id",
            asks(
                [self::sections(None, "iotdps-get-operationstatus", Some(text)), data(b"")]
                    .concat(),
            ),
        ),
        (
            "another property",
            sections(Properties::default(), asked().insert(text, text).build(), BODY),
        ),
        ("payload", sections(Properties::default(), asked().build(), &body)),
    ];
    for token in tokens(text) {
        cases.push(("token", [plain(emulator, &token), session(emulator)].concat()));
        let user = format!("{}/registrations/{token}", emulator.id_scope());
        cases.push(("token and user", [log_in(&user, &token), session(emulator)].concat()));
    }
    cases
}

async fn send(stream: impl AsyncRead + AsyncWrite + Unpin, mut bytes: Vec<u8>) {
    // The end of what the device sends, so that the emulator closes when it has read all.
    bytes.extend(frame(&fe2o3_amqp_types::performatives::Close { error: None }));
    let mut device = Device::over(stream);
    device.send(bytes).await;
    while device.hear().await.is_some() {}
}

#[tokio::test]
async fn no_event_of_amqp_has_a_secret_whatever_field_it_stood_in() {
    let emulator = behaving(Behavior::new()).await;
    for secret in misplaced() {
        for (field, bytes) in cases(&emulator, &secret.text) {
            let since = emulator.events().len();
            send(connect(&emulator).await.stream, bytes).await;
            secret.assert_hidden(&emulator, since, field).await;
        }
    }
}

#[tokio::test]
async fn no_event_of_amqp_over_websocket_has_a_secret_whatever_field_it_stood_in() {
    let emulator = behaving(Behavior::new()).await;
    for secret in misplaced() {
        for (field, bytes) in cases(&emulator, &secret.text) {
            let since = emulator.events().len();
            let mut https = support::connect(&emulator).await.unwrap();
            let upgrade = "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                           Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                           Sec-WebSocket-Protocol: AMQPWSB10\r\n\r\n";
            assert_eq!(https.ask(upgrade).await.unwrap().status, 101);
            send(WsBytes::client(https.stream).await, bytes).await;
            secret.assert_hidden(&emulator, since, field).await;
        }
    }
}
