//! Answers that make no sense, and odd ones that do.

use std::time::Duration;

use dps_client::{
    Error, ErrorKind, Stage,
    serde_json::{Map, Value, from_slice},
};
use dps_conformance::{Bench, Cell};
use dps_emulator::{Behavior, Body, Delivery, Fault};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let cases = [
        case!(garbage_is_a_protocol_error),
        case!(garbage_for_a_query_is_a_protocol_error),
        case!(an_empty_body_is_a_protocol_error),
        case!(a_page_of_html_is_a_protocol_error),
        case!(json_cut_short_is_a_protocol_error),
        case!(json_of_another_shape_is_a_protocol_error),
        case!(a_body_over_the_cap_is_a_protocol_error),
        case!(a_large_body_under_the_cap_is_read),
        case!(assigning_without_an_operation_is_a_protocol_error),
        case!(assigned_without_a_hub_is_a_protocol_error),
        case!(assigned_without_a_device_is_a_protocol_error),
        case!(a_poll_without_an_operation_id_keeps_the_known_one),
        case!(a_slow_answer_is_read),
        case!(a_page_of_html_with_an_error_status_is_a_rejection),
        case!(an_odd_field_costs_no_assignment),
        case!(an_odd_byte_does_not_make_a_refusal_fatal),
        case!(an_operation_id_of_any_characters_is_asked_about),
    ];
    cases.into_iter().map(Case::after_the_handshake).collect()
}

async fn protocol_error(
    cell: Cell,
    behavior: Behavior,
    stage: Stage,
) -> Box<dps_client::ProtocolError> {
    let bench = Bench::new(cell, behavior).await;
    let error = bench.register().await.unwrap_err();
    assert_eq!((error.stage(), error.is_retryable()), (Some(stage), false), "{error}");
    let hint = error.hint();
    let Error::Protocol(error) = error else { panic!("{error:?}") };
    let is_object = from_slice::<Map<String, Value>>(&error.body).is_ok();
    assert_eq!(hint.is_none(), is_object, "only what is no object may be a proxy's page: {hint:?}");
    error
}

fn answering(body: Body) -> Behavior {
    Behavior::new().on_register(Fault::with_body(body))
}

async fn garbage_is_a_protocol_error(cell: Cell) {
    let error = protocol_error(cell, answering(Body::Garbage), Stage::Register).await;
    assert!(!error.body.is_empty());
}

async fn garbage_for_a_query_is_a_protocol_error(cell: Cell) {
    let behavior = Behavior::new().polls(1).on_query(Fault::with_body(Body::Garbage));
    protocol_error(cell, behavior, Stage::Query).await;
}

async fn an_empty_body_is_a_protocol_error(cell: Cell) {
    let error = protocol_error(cell, answering(Body::Empty), Stage::Register).await;
    assert!(error.to_string().contains("empty"), "{error}");
}

async fn a_page_of_html_is_a_protocol_error(cell: Cell) {
    let error = protocol_error(cell, answering(Body::Html), Stage::Register).await;
    assert!(String::from_utf8_lossy(&error.body).contains('<'));
}

async fn json_cut_short_is_a_protocol_error(cell: Cell) {
    protocol_error(cell, answering(Body::Cut(40)), Stage::Register).await;
}

async fn json_of_another_shape_is_a_protocol_error(cell: Cell) {
    for text in ["[]", "null", "\"assigned\"", "{}", r#"{"status":7}"#] {
        protocol_error(cell, answering(Body::Text(text.into())), Stage::Register).await;
    }
}

async fn a_body_over_the_cap_is_a_protocol_error(cell: Cell) {
    let error = protocol_error(cell, answering(Body::Oversized(2 << 20)), Stage::Register).await;
    assert!(error.body.len() <= 1 << 20, "{}", error.body.len());
}

async fn a_large_body_under_the_cap_is_read(cell: Cell) {
    let bench = Bench::new(cell, answering(Body::Oversized(200 << 10))).await;
    let registered = bench.register().await.unwrap();
    assert!(registered.body.len() >= 200 << 10);
}

async fn assigning_without_an_operation_is_a_protocol_error(cell: Cell) {
    let behavior = Behavior::new().polls(1).on_register(Fault::without("operationId"));
    let error = protocol_error(cell, behavior, Stage::Register).await;
    assert!(error.to_string().contains("operationId"), "{error}");
}

async fn assigned_without_a_hub_is_a_protocol_error(cell: Cell) {
    let behavior = Behavior::new().on_register(Fault::without("registrationState.assignedHub"));
    let error = protocol_error(cell, behavior, Stage::Register).await;
    assert!(error.to_string().contains("assignedHub"), "{error}");
}

async fn assigned_without_a_device_is_a_protocol_error(cell: Cell) {
    let behavior = Behavior::new().polls(1).on_query(Fault::without("registrationState.deviceId"));
    let error = protocol_error(cell, behavior, Stage::Query).await;
    assert!(error.to_string().contains("deviceId"), "{error}");
}

async fn a_poll_without_an_operation_id_keeps_the_known_one(cell: Cell) {
    let behavior = Behavior::new().polls(3).on_query(Fault::without("operationId").forever());
    let bench = Bench::new(cell, behavior).await;
    assert_eq!(bench.register().await.unwrap().polls, 3);
}

async fn a_slow_answer_is_read(cell: Cell) {
    let drip = Delivery::Drip { bytes: 50, every: Duration::from_millis(5) };
    let bench = Bench::new(cell, Behavior::new().on_register(Fault::deliver(drip))).await;
    bench.register().await.unwrap();
}

async fn a_page_of_html_with_an_error_status_is_a_rejection(cell: Cell) {
    let page = Fault::refuse(403).body(Body::Html);
    let bench = Bench::new(cell, Behavior::new().on_register(page)).await;
    let error = bench.register().await.unwrap_err();
    // Without the service's JSON an AMQP rejection has a condition only, and no condition says 403.
    let amqp =
        matches!(cell.transport, dps_client::Transport::Amqp | dps_client::Transport::AmqpWs);
    let status = error.status().filter(|status| if amqp { *status < 500 } else { *status == 403 });
    assert!(error.kind() == ErrorKind::Rejected && status.is_some(), "{error:?}");
    assert!(!error.is_retryable() && error.error_code().is_none());
}

async fn an_odd_field_costs_no_assignment(cell: Cell) {
    let odd = Fault::with("registrationState.substatus", 5)
        .and_with("registrationState.errorMessage", 5)
        .and_with("registrationState.errorCode", "none");
    let bench = Bench::new(cell, Behavior::new().polls(1).on_query(odd)).await;
    assert_eq!(bench.register().await.unwrap().substatus, None);
}

async fn an_odd_byte_does_not_make_a_refusal_fatal(cell: Cell) {
    let body = r#"{"info":"\ud800","errorCode":409203,"trackingId":"t-1"}"#;
    let conflict = Fault::refuse(409).body(Body::Text(body.to_owned()));
    let bench = Bench::new(cell, Behavior::new().on_register(conflict)).await;
    bench.register().await.unwrap();
}

async fn an_operation_id_of_any_characters_is_asked_about(cell: Cell) {
    let id = "4.a/b?c&d=e f%20#é+1";
    let behavior = Behavior::new().polls(1).on_register(Fault::with("operationId", id));
    let bench = Bench::new(cell, behavior).await;
    // The service doesn't know that operation; what counts is what it was asked about.
    let _outcome = bench.register().await;
    let asked = bench.events(|event| match event.kind {
        dps_emulator::EventKind::Request { operation_id, .. } => operation_id,
        _ => None,
    });
    assert_eq!(asked.first().map(String::as_str), Some(id));
}
