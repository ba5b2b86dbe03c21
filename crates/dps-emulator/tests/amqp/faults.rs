//! What the emulator refuses, and what hostile devices get.

use dps_emulator::{AmqpFault, Behavior, ConnectionFault, Fault, RetryAfter};
use fe2o3_amqp_types::{
    definitions::{Error, Role},
    messaging::{DeliveryState, MessageId},
    performatives::Performative,
    sasl::SaslCode,
};
use serde_amqp::Value;

use crate::device::*;

fn json(error: &Error) -> serde_json::Value {
    serde_json::from_str(error.description.as_deref().unwrap()).unwrap()
}

/// What becomes of the first request of `dev-1`.
async fn rejection(behavior: Behavior, request: &[u8]) -> Error {
    let emulator = behaving(behavior).await;
    let mut device = connect(&emulator).await;
    device.send([plain(&emulator, &right_token(&emulator)), session(&emulator)].concat()).await;
    device.send(request).await;
    match device.next().await {
        Some((Performative::Disposition(disposition), _)) => match disposition.state {
            Some(DeliveryState::Rejected(rejected)) => rejected.error.unwrap(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn refusals_are_rejections_with_the_services_json() {
    let throttle = Fault::refuse(429).retry_after(RetryAfter::Seconds(5));
    let error = rejection(Behavior::new().on_register(throttle), &register(0, "id")).await;
    assert_eq!(json(&error)["errorCode"], 429_001);
    let info = error.info.unwrap();
    let (name, value) = info.iter().next().unwrap();
    assert_eq!((name.as_str(), value), ("retry-after", &Value::Int(5)));

    let bad_body = |body: &[u8]| {
        let sections = sections(Some(MessageId::String("id".into())), "iotdps-register", None);
        delivery(0, &[sections, data(body)].concat())
    };
    let unknown = delivery(0, &sections(None, "iotdps-something", None));
    let no_operation = delivery(0, &sections(None, "iotdps-get-operationstatus", None));
    let other_operation = delivery(0, &sections(None, "iotdps-get-operationstatus", Some("4.x")));
    for (request, code) in [
        (bad_body(b"{"), 400_012),
        (bad_body(br#"{"registrationId":"another"}"#), 400_000),
        (unknown, 400_000),
        (no_operation, 400_000),
        (other_operation, 404_202),
        (delivery(0, b"\x40"), 400_012),
    ] {
        let error = rejection(Behavior::new(), &request).await;
        assert_eq!(json(&error)["errorCode"], code);
        assert!(json(&error)["trackingId"].is_string());
    }
}

#[tokio::test]
async fn an_unknown_operation_type_is_refused_and_the_link_goes_on() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = connect(&emulator).await;
    device.send([plain(&emulator, &right_token(&emulator)), session(&emulator)].concat()).await;
    for (number, operation) in (0..).zip(["iotdps-something", "iotdps-get-deviceupdate", ""]) {
        device.send(delivery(number, &sections(None, operation, None))).await;
        let Some((Performative::Disposition(disposition), _)) = device.next().await else {
            panic!("{operation}")
        };
        let Some(DeliveryState::Rejected(rejected)) = disposition.state else { panic!() };
        assert_eq!(json(&rejected.error.unwrap())["errorCode"], 400_000, "{operation}");
    }
    device.send(register(3, "id")).await;
    assert_eq!(device.answer().await.0["status"], "assigned");
}

#[tokio::test]
async fn a_status_lookup_is_answered_with_the_bare_state() {
    let emulator = behaving(Behavior::new().polls(1)).await;
    let mut device = connect(&emulator).await;
    device.send([plain(&emulator, &right_token(&emulator)), session(&emulator)].concat()).await;
    let lookup = |number| delivery(number, &sections(None, "iotdps-get-registration", None));
    device.send(lookup(0)).await;
    let Some((Performative::Disposition(disposition), _)) = device.next().await else { panic!() };
    let Some(DeliveryState::Rejected(rejected)) = disposition.state else { panic!() };
    assert_eq!(json(&rejected.error.unwrap())["errorCode"], 404_201);
    device.send(register(1, "id")).await;
    device.answer().await;
    device.send(lookup(2)).await;
    let (state, _) = device.answer().await;
    assert_eq!((&state["status"], state.get("operationId")), (&"assigning".into(), None));
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_however_many_parts_it_has() {
    let parts: Vec<u8> = (0..20).flat_map(|n| part(0, &[b' '; 10_000], n < 19)).collect();
    let error = rejection(Behavior::new(), &parts).await;
    assert_eq!(json(&error)["errorCode"], 413_001);
}

#[tokio::test]
async fn an_api_version_is_wanted() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = connect(&emulator).await;
    let address = format!("{}/registrations/dev-1", emulator.id_scope());
    let links =
        [attach(Role::Sender, &address, &[]), attach(Role::Receiver, &address, &[])].concat();
    let start = [AMQP, &frame(&open()), &begin(), &links, &credit(10)].concat();
    device
        .send([plain(&emulator, &right_token(&emulator)), start, register(0, "id")].concat())
        .await;
    let Some((Performative::Disposition(disposition), _)) = device.next().await else { panic!() };
    let Some(DeliveryState::Rejected(rejected)) = disposition.state else { panic!() };
    assert_eq!(json(&rejected.error.unwrap())["errorCode"], 400_000);
}

#[tokio::test]
async fn a_bad_token_opens_and_closes_with_the_json_or_ends_sasl_where_the_fault_says_so() {
    let emulator = behaving(Behavior::new()).await;
    for token in ["nonsense".to_owned(), right_token(&emulator).replace("se=", "se=1")] {
        let mut device = connect(&emulator).await;
        device.send([plain(&emulator, &token), session(&emulator)].concat()).await;
        let Some((Performative::Close(close), _)) = device.next().await else { panic!() };
        assert_eq!(json(&close.error.unwrap())["errorCode"], 401_002);
        assert!(device.hear().await.is_none(), "it is closed");
    }
    emulator.set_connection_faults([ConnectionFault::Amqp(AmqpFault::SaslDecides)]);
    let mut device = connect(&emulator).await;
    device.send(plain(&emulator, "nonsense")).await;
    let outcome = loop {
        match device.hear().await {
            Some(Heard::Outcome(outcome)) => break outcome,
            Some(_) => {}
            None => panic!("no outcome"),
        }
    };
    assert_eq!(outcome.code, SaslCode::Auth);
}

#[tokio::test]
async fn a_link_for_another_device_is_not_had() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = connect(&emulator).await;
    let address = format!("{}/registrations/dev-2", emulator.id_scope());
    let start =
        [AMQP, &frame(&open()), &begin(), &attach(Role::Sender, &address, VERSION)].concat();
    device.send([plain(&emulator, &right_token(&emulator)), start].concat()).await;
    let error = match device.next().await {
        Some((Performative::Detach(detach), _)) => detach.error,
        Some((Performative::Close(close), _)) => close.error,
        other => panic!("{other:?}"),
    };
    assert_eq!(json(&error.unwrap())["errorCode"], 401_002);
}

#[tokio::test]
async fn without_a_certificate_sasl_comes_first() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = connect(&emulator).await;
    device.send(session(&emulator)).await;
    assert!(matches!(device.hear().await, Some(Heard::Header(header)) if header == SASL));
    assert!(device.hear().await.is_none(), "it is closed");
}

#[tokio::test]
async fn hostile_bytes_close_their_connection_and_nothing_else() {
    let emulator = behaving(Behavior::new()).await;
    // Deep enough to overflow a stack that follows it, and as large as a frame may be.
    let deep = [&[0, 0, 0xea, 0x68, 2, 0, 0, 0][..], &[0, 0x53, 0x10].repeat(20_000)].concat();
    let sasl = right_token(&emulator);
    for hostile in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        [AMQP, AMQP].concat(),
        [SASL, &[0, 0, 0, 7]].concat(),
        [SASL, &[0xff; 64]].concat(),
        [&plain(&emulator, &sasl), AMQP, &deep].concat(),
        [&plain(&emulator, &sasl), AMQP, &[0, 0, 0, 8, 1, 0, 0, 0]].concat(),
        [
            &plain(&emulator, &sasl),
            &session(&emulator)[..],
            &[0, 0, 0, 12, 2, 0, 0, 0, 0, 0x53, 0x14, 0x45],
        ]
        .concat(),
        [&plain(&emulator, &sasl), &session(&emulator)[..], &links(&emulator)].concat(),
    ] {
        let mut device = connect(&emulator).await;
        // It may be closed before all is written.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut device.stream, &hostile).await;
        while device.hear().await.is_some() {}
    }
    let mut device = connect(&emulator).await;
    let start = [plain(&emulator, &sasl), session(&emulator), register(0, "id")];
    device.send(start.concat()).await;
    assert_eq!(device.answer().await.0["status"], "assigned");
}
