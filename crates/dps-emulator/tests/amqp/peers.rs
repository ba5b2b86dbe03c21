//! What peers send, however odd: the emulator takes all of it, as the service does.

use dps_emulator::{Behavior, Body, EventKind, Fault, Operation, Transport};
use fe2o3_amqp_types::{
    definitions::Role,
    messaging::{AmqpValue, MessageId},
    performatives::Performative,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{device::*, support::tls};

#[tokio::test]
async fn all_in_flights_or_step_by_step_is_the_same() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = connect(&emulator).await;
    device.send(plain(&emulator, &right_token(&emulator))).await;
    assert!(matches!(device.hear().await, Some(Heard::Header(header)) if header == SASL));
    assert!(matches!(device.hear().await, Some(Heard::Mechanisms)));
    assert!(matches!(device.hear().await, Some(Heard::Outcome(_))));
    device.send([session(&emulator), register(0, "id-1")].concat()).await;
    let (answer, message) = device.answer().await;
    assert_eq!(answer["status"], "assigned");
    assert!(message.windows(4).any(|bytes| bytes == b"id-1"), "the same correlation id");

    let mut device = connect(&emulator).await;
    let init = plain(&emulator, &right_token(&emulator));
    let whole = [&init[..], &session(&emulator), &register(0, "id-2")].concat();
    for byte in whole {
        device.send([byte]).await;
    }
    assert_eq!(device.answer().await.0["status"], "assigned");
}

#[tokio::test]
async fn a_device_without_correlation_id_and_with_hosts_in_its_addresses() {
    // As the C SDK does it.
    let emulator = behaving(Behavior::new()).await;
    let mut device = connect(&emulator).await;
    let address = format!("amqps://localhost/{}/registrations/dev-1", emulator.id_scope());
    let links =
        [attach(Role::Sender, &address, VERSION), attach(Role::Receiver, &address, VERSION)]
            .concat();
    let request = [sections(None, "iotdps-register", None), data(BODY.as_bytes())].concat();
    device
        .send(
            [
                plain(&emulator, &right_token(&emulator)),
                AMQP.to_vec(),
                frame(&open()),
                begin(),
                links,
                credit(10),
                delivery(0, &request),
            ]
            .concat(),
        )
        .await;
    assert_eq!(device.answer().await.0["status"], "assigned");
}

#[tokio::test]
async fn ids_of_every_type_come_back_and_queries_may_have_a_value_for_a_body() {
    // As the C# SDK asks.
    let emulator = behaving(Behavior::new().polls(1)).await;
    let mut device = connect(&emulator).await;
    device.send([plain(&emulator, &right_token(&emulator)), session(&emulator)].concat()).await;
    let uuid = MessageId::Uuid([7; 16].into());
    let request = [sections(Some(uuid), "iotdps-register", None), data(b"")].concat();
    device.send(delivery(0, &request)).await;
    let (answer, message) = device.answer().await;
    assert!(message.windows(17).any(|bytes| bytes == [&[0x98][..], &[7; 16]].concat()));
    let value = serde_amqp::to_vec(&AmqpValue(String::new())).unwrap();
    let number = Some(MessageId::Ulong(300));
    let operation_id = answer["operationId"].as_str();
    let query = [sections(number, "iotdps-get-operationstatus", operation_id), value].concat();
    device.send(delivery(1, &query)).await;
    let (answer, message) = device.answer().await;
    assert_eq!(answer["status"], "assigned");
    assert!(message.windows(9).any(|bytes| bytes == [0x80, 0, 0, 0, 0, 0, 0, 1, 0x2c]));
    let events = emulator.events().snapshot();
    let operations: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Request { transport: Transport::Amqp, operation, .. } => Some(*operation),
            _ => None,
        })
        .collect();
    assert_eq!(operations, [Operation::Register, Operation::Query]);
}

#[tokio::test]
async fn websocket_without_a_path_and_with_the_subprotocol_in_any_case() {
    let emulator = behaving(Behavior::new()).await;
    for (path, name) in
        [("/", "AMQPWSB10"), ("/$iothub/websocket?iothub-no-client-cert=true", "amqpwsb10")]
    {
        let config = tls(&emulator, rustls::DEFAULT_VERSIONS, None);
        let mut device = connect_with(emulator.https_port(), config).await;
        let upgrade = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\n\
             Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {name}\r\n\r\n"
        );
        device.send(upgrade).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(device.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 101") && head.contains("s3pplmbitxaq9kygzzhzrbk+xoo="));
        let mut device =
            Device::over(dps_connect::internal::websocket::WsBytes::client(device.stream).await);
        device
            .send(
                [plain(&emulator, &right_token(&emulator)), session(&emulator), register(0, "id")]
                    .concat(),
            )
            .await;
        assert_eq!(device.answer().await.0["status"], "assigned");
        device.stream.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn answers_wait_for_a_link_and_keep_to_the_frame_size() {
    let large = Fault::with_body(Body::Oversized(2000));
    let emulator = behaving(Behavior::new().on_register(large)).await;
    let mut device = connect(&emulator).await;
    let address = format!("{}/registrations/dev-1", emulator.id_scope());
    let mut narrow = open();
    narrow.max_frame_size = 512.into();
    let started = [
        plain(&emulator, &right_token(&emulator)),
        AMQP.to_vec(),
        frame(&narrow),
        begin(),
        attach(Role::Sender, &address, VERSION),
        register(0, "id"),
    ];
    device.send(started.concat()).await;
    let Some((Performative::Disposition(_), _)) = device.next().await else {
        panic!("the request is taken");
    };
    device.send([attach(Role::Receiver, &address, VERSION), credit(1)].concat()).await;
    let Some((Performative::Transfer(first), payload)) = device.next().await else {
        panic!("an answer");
    };
    // The performative and the frame's header are in it too.
    assert!(first.more && payload.len() < 512);
    device.answer_rest().await;
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Device<S> {
    /// Reads the parts of an answer up to the last.
    async fn answer_rest(&mut self) {
        loop {
            match self.next().await {
                Some((Performative::Transfer(transfer), _)) if transfer.more => {}
                Some((Performative::Transfer(_), _)) => return,
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn the_links_of_one_connection_may_stand_in_different_sessions() {
    /// The same frame in another session.
    fn on(channel: u16, mut frame: Vec<u8>) -> Vec<u8> {
        frame[6..8].copy_from_slice(&channel.to_be_bytes());
        frame
    }
    let emulator = behaving(Behavior::new()).await;
    let address = format!("{}/registrations/dev-1", emulator.id_scope());
    for (sends, receives) in [(0, 1), (1, 0), (5, 0), (0, 0)] {
        let mut device = connect(&emulator).await;
        let mut frames = vec![
            plain(&emulator, &right_token(&emulator)),
            AMQP.to_vec(),
            frame(&open()),
            on(sends, begin()),
        ];
        if receives != sends {
            frames.push(on(receives, begin()));
        }
        frames.extend([
            on(sends, attach(Role::Sender, &address, VERSION)),
            on(receives, attach(Role::Receiver, &address, VERSION)),
            on(receives, credit(10)),
            on(sends, register(0, "id-1")),
        ]);
        device.send(frames.concat()).await;
        assert_eq!(device.answer().await.0["status"], "assigned", "{sends} {receives}");
    }
}
