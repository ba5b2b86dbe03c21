//! The requirements of the state machine, each id at the test that holds it (`docs/requirements.md` lists them).
#![expect(clippy::panic, reason = "a test may fail")]

use dps_simulator::{Call, Transport, answers::*};
use dps_state_machine::{Error, ErrorKind, OperationStatus};
use tokio::join;

fn statuses(events: &mut dps_state_machine::OperationStatusEvents) -> Vec<&'static str> {
    std::iter::from_fn(|| events.try_next())
        .map(|event| match event {
            OperationStatus::Assigning { .. } => "assigning",
            OperationStatus::Assigned { .. } => "assigned",
            other => panic!("{other:?}"),
        })
        .collect()
}

// Holds: 18_011
#[tokio::test(start_paused = true)]
async fn register_fails_when_the_connection_fails() {
    let transport = Transport::answering([broken()]);
    let error = transport.machine().register(request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.is_retryable());
    assert_eq!(transport.calls(), [Call::Register("dev-1".into())]);
}

// Holds: 18_012
#[tokio::test(start_paused = true)]
async fn register_sends_the_registration_request_once() {
    let transport = Transport::answering([assigned()]);
    transport.machine().register(request()).await.unwrap();
    assert_eq!(transport.calls(), [Call::Register("dev-1".into())]);
}

// Holds: 18_013
#[tokio::test(start_paused = true)]
async fn register_fails_when_the_registration_request_is_refused() {
    let transport = Transport::answering([refused(401_002, None)]);
    let error = transport.machine().register(request()).await.unwrap_err();
    assert_eq!((error.kind(), error.error_code()), (ErrorKind::Rejected, Some(401_002)));
    assert_eq!(transport.calls().len(), 1);
}

// Holds: 18_014
#[tokio::test(start_paused = true)]
async fn an_assigned_registration_emits_one_event_and_gives_body_and_result() {
    let transport = Transport::answering([assigned()]);
    let machine = transport.machine();
    let mut events = machine.operation_status();
    let registered = machine.register(request()).await.unwrap();
    assert_eq!(statuses(&mut events), ["assigned"]);
    assert_eq!(registered.body, assigned().unwrap().body);
    assert_eq!(registered.protocol_result.get("TRANSPORT"), Some("scripted"));
    assert_eq!((registered.assigned_hub.as_str(), registered.polls), ("hub-1", 0));
}

// Holds: 18_015
#[tokio::test(start_paused = true)]
async fn an_assigning_registration_emits_an_event_and_is_polled() {
    let transport = Transport::answering([assigning(), assigned()]);
    let machine = transport.machine();
    let mut events = machine.operation_status();
    let registered = machine.register(request()).await.unwrap();
    assert_eq!(statuses(&mut events), ["assigning", "assigned"]);
    assert_eq!(transport.calls(), [Call::Register("dev-1".into()), Call::Query("op-1".into())]);
    assert_eq!(registered.polls, 1);
}

// Holds: 18_016
#[tokio::test(start_paused = true)]
async fn an_unknown_status_of_the_registration_is_an_error_with_body_and_result() {
    fails_with_the_unknown_status(&Transport::answering([status("enchanted")])).await;
}

async fn fails_with_the_unknown_status(transport: &Transport) {
    let Err(Error::Protocol(error)) = transport.machine().register(request()).await else {
        panic!("a protocol error")
    };
    assert_eq!(error.unknown_status.as_deref(), Some("enchanted"));
    assert_eq!(Some(error.body), status("enchanted").ok().map(|answer| answer.body));
    assert_eq!(error.protocol_result.get("transport"), Some("scripted"));
}

// Holds: 18_018
#[tokio::test(start_paused = true)]
async fn the_status_is_asked_for_when_the_polling_interval_elapses() {
    let transport = Transport::answering([assigning(), assigning_after(7), assigned()]);
    transport.machine().register(request()).await.unwrap();
    assert_eq!(transport.times(), [secs(0), secs(2), secs(9)]);
}

// Holds: 18_019
#[tokio::test(start_paused = true)]
async fn register_fails_when_the_query_fails() {
    for (answer, kind) in
        [(broken(), ErrorKind::Connection), (refused(404_201, None), ErrorKind::Rejected)]
    {
        let transport = Transport::answering([assigning(), answer]);
        let error = transport.machine().register(request()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert_eq!(transport.calls().len(), 2);
    }
}

// Holds: 18_020
#[tokio::test(start_paused = true)]
async fn an_assigned_query_completes_with_body_and_result() {
    let transport = Transport::answering([assigning(), assigning(), assigned()]);
    let registered = transport.machine().register(request()).await.unwrap();
    assert_eq!(registered.body, assigned().unwrap().body);
    assert_eq!(registered.protocol_result.get("transport"), Some("scripted"));
    assert_eq!((registered.device_id.as_str(), registered.polls), ("dev-1", 2));
}

// Holds: 18_021
#[tokio::test(start_paused = true)]
async fn an_assigning_query_emits_an_event_and_is_polled_on() {
    let transport = Transport::answering([assigning(), assigning(), assigning(), assigned()]);
    let machine = transport.machine();
    let mut events = machine.operation_status();
    machine.register(request()).await.unwrap();
    assert_eq!(statuses(&mut events), ["assigning", "assigning", "assigning", "assigned"]);
    assert_eq!(transport.calls().len(), 4);
}

// Holds: 18_022
#[tokio::test(start_paused = true)]
async fn an_unknown_status_of_a_query_is_an_error_with_body_and_result() {
    fails_with_the_unknown_status(&Transport::answering([assigning(), status("enchanted")])).await;
}

// Holds: 18_024
#[tokio::test(start_paused = true)]
async fn a_second_register_is_an_invalid_operation_and_harms_nothing() {
    let transport = Transport::answering([assigning(), assigned()]);
    let machine = transport.machine();
    let (first, second) = join!(machine.register(request()), machine.register(request()));
    assert_eq!(second.unwrap_err().kind(), ErrorKind::InvalidOperation);
    assert_eq!(first.unwrap().assigned_hub, "hub-1");
    assert_eq!(transport.calls().len(), 2);
}

// Holds: 18_025
#[tokio::test(start_paused = true)]
async fn end_session_while_disconnected_returns_and_calls_nothing() {
    let transport = Transport::default();
    let machine = transport.machine();
    machine.end_session().await.unwrap();
    assert!(transport.calls().is_empty());
    // Ended once, it is disconnected again.
    transport.then(secs(0), assigned());
    machine.register(request()).await.unwrap();
    machine.end_session().await.unwrap();
    machine.end_session().await.unwrap();
    assert_eq!(transport.calls().iter().filter(|call| **call == Call::End).count(), 1);
}

// Holds: 18_026
#[tokio::test(start_paused = true)]
async fn end_session_reaches_the_transport_while_connected_whatever_the_outcome_was() {
    for answer in [assigned(), refused(401_002, None), broken(), status("enchanted")] {
        let row = format!("{answer:?}");
        let transport = Transport::answering([answer]);
        let machine = transport.machine();
        let _outcome = machine.register(request()).await;
        machine.end_session().await.unwrap();
        assert_eq!(transport.calls()[1..], [Call::End], "{row}");
    }
}

// Holds: 18_027
#[tokio::test(start_paused = true)]
async fn end_session_cancels_the_registration_in_progress_from_every_state() {
    let registering = Transport::default();
    registering.then_never();
    let waiting_to_register = Transport::answering([refused(429_001, Some(9))]);
    let waiting_to_poll = Transport::answering([assigning_after(9)]);
    let polling = Transport::answering([assigning()]);
    polling.then_never();
    for transport in [registering, waiting_to_register, waiting_to_poll, polling] {
        let machine = transport.machine();
        let (registered, ended) = join!(machine.register(request()), async {
            tokio::time::sleep(secs(3)).await;
            machine.end_session().await
        });
        assert_eq!(registered.unwrap_err().kind(), ErrorKind::Cancelled, "{transport:?}");
        ended.unwrap();
        assert_eq!(transport.calls().last(), Some(&Call::End), "{transport:?}");
    }
}
