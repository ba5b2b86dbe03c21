//! Refusals by the service: each is an answer.

use dps_state_machine::{Settings, StateMachine};
use fe2o3_amqp_types::{
    definitions::Fields,
    messaging::{DeliveryState, Modified, Released},
};
use serde_amqp::{Value, primitives::Symbol};

use super::{peer::*, *};

const JSON: &str = r#"{"errorCode":429001,"trackingId":"t-1","message":"Too many","timestampUtc":"2026-01-01T00:00:00Z"}"#;

async fn refused_with(bytes: Vec<u8>) -> Response {
    let (_peer, mut transport) = started_with(vec![Turn::Send(bytes)]).await;
    register(&mut transport).await.unwrap()
}

#[tokio::test]
async fn a_rejection_is_an_answer_and_the_connection_goes_on() {
    let retry_after =
        error_with("amqp:internal-error", JSON, "Retry-After", Value::String("7".into()));
    let turns = vec![Turn::Send(rejected(0, retry_after)), Turn::Read(REQUEST), answers(1, "1")];
    let (_peer, mut transport) = started_with(turns).await;
    let response = register(&mut transport).await.unwrap();
    assert_eq!((response.status, response.body), (429, JSON.as_bytes().to_vec()));
    assert_eq!(response.retry_after, Some(std::time::Duration::from_secs(7)));
    assert_eq!(response.protocol_result.get("condition"), Some("amqp:internal-error"));
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
}

#[tokio::test]
async fn every_outcome_but_acceptance_is_a_refusal() {
    let modified = |undeliverable_here| Modified {
        delivery_failed: None,
        undeliverable_here: Some(undeliverable_here),
        message_annotations: None,
    };
    for (state, status) in [
        (DeliveryState::Released(Released {}), 503),
        (DeliveryState::Modified(modified(false)), 503),
        (DeliveryState::Modified(modified(true)), 400),
    ] {
        let response = refused_with(disposition(0, state.clone())).await;
        assert_eq!(response.status, status, "{state:?}");
        assert!(response.reason.is_some(), "{state:?}");
    }
}

#[tokio::test]
async fn links_sessions_and_connections_that_end_with_an_error_refuse() {
    let with_json = || Some(error("amqp:internal-error", Some(JSON)));
    for (what, bytes) in
        [("detach", detach(with_json())), ("end", end(with_json())), ("close", close(with_json()))]
    {
        let response = refused_with(bytes).await;
        assert_eq!((response.status, response.body), (429, JSON.as_bytes().to_vec()), "{what}");
    }
    let bare = || Some(error("amqp:unauthorized-access", None));
    for (what, bytes) in
        [("detach", detach(bare())), ("end", end(bare())), ("close", close(bare()))]
    {
        let response = refused_with(bytes).await;
        assert_eq!(response.status, 401, "{what}");
        assert_eq!(response.reason.as_deref(), Some("amqp:unauthorized-access"), "{what}");
    }
}

#[tokio::test]
async fn after_a_link_that_refused_the_next_request_makes_a_new_connection() {
    let failure = error("com.microsoft:device-container-throttled", None);
    let first = [usual_start(), vec![Turn::Send(detach(Some(failure))), Turn::ReadOn]].concat();
    let second = [usual_start(), vec![answers(0, "1")]].concat();
    let (_peer, config) = start(vec![first, second]).await;
    let mut transport = AmqpTransport::new(config).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().status, 429);
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
}

#[tokio::test]
async fn what_ends_without_a_reason_or_is_forced_is_a_lost_connection() {
    let forced = |condition| Some(error(condition, Some("restarting")));
    for (bytes, says) in [
        (detach(None), "link"),
        (end(None), "session"),
        (close(None), "connection"),
        (close(forced("amqp:connection:forced")), "restarting"),
        (detach(forced("amqp:link:detach-forced")), "restarting"),
    ] {
        let (_peer, mut transport) = started_with(vec![Turn::Send(bytes)]).await;
        let error = connection_error(register(&mut transport).await);
        assert!(error.lost && error.retryable && error.request_may_have_been_sent, "{says}");
        assert!(error.message.contains(says), "{error}");
    }
}

#[tokio::test]
async fn an_open_with_the_error_property_refuses_with_and_without_a_close() {
    let failure = error("amqp:unauthorized-access", Some(JSON));
    let mut refusing = open();
    refusing.properties = Some(Fields::from_iter([(
        Symbol::from("com.microsoft:open-error"),
        Value::try_from_serializable(failure.clone()).unwrap(),
    )]));
    let opened = [AMQP, &frame(&refusing)].concat();
    for (what, bytes) in [
        ("open", opened.clone()),
        ("open and close", [opened.clone(), close(None)].concat()),
        ("open and close with an error", [opened, close(Some(failure))].concat()),
    ] {
        let script = vec![
            Turn::Read(LOGIN),
            Turn::Send(logged_in()),
            Turn::Read(START),
            Turn::Send(bytes),
            Turn::Cut,
        ];
        let (_peer, config) = start(vec![script]).await;
        let response = register(&mut AmqpTransport::new(config).unwrap()).await.unwrap();
        assert_eq!((response.status, response.body), (429, JSON.as_bytes().to_vec()), "{what}");
    }
}

#[tokio::test]
async fn a_refused_attach_refuses() {
    let failure = error("amqp:not-found", Some(r#"{"errorCode":404201}"#));
    let opened = [AMQP, &frame(&open()), &begin(100), &attached(), &detach(Some(failure))].concat();
    let script = vec![
        Turn::Read(LOGIN),
        Turn::Send(logged_in()),
        Turn::Read(START),
        Turn::Send(opened),
        Turn::ReadOn,
    ];
    let (_peer, config) = start(vec![script]).await;
    let response = register(&mut AmqpTransport::new(config).unwrap()).await.unwrap();
    assert_eq!(response.status, 404);
}

/// Through the machine: what a user sees of a refusal, and that a throttled request goes out again.
#[tokio::test]
async fn the_machine_names_a_refusal_and_waits_out_a_throttle() {
    let again = error_with("amqp:internal-error", JSON, "retry-after", Value::Int(0));
    let over = error("amqp:not-found", Some(r#"{"errorCode":404201,"message":"gone"}"#));
    let turns =
        vec![Turn::Send(rejected(0, again)), Turn::Read(REQUEST), Turn::Send(rejected(1, over))];
    let (_peer, transport) = started_with(turns).await;
    let mut settings = Settings::default();
    settings.poll_floor = std::time::Duration::ZERO;
    let machine = StateMachine::new(transport, settings);
    let Err(Error::Rejected(rejection)) = machine.register(request()).await else { panic!() };
    assert_eq!((rejection.status, rejection.error_code), (404, Some(404_201)));
    assert_eq!(rejection.message, "gone");
}
