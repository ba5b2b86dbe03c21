//! Cancelled, dropped, called twice, and used again afterwards.

use std::time::Duration;

use dps_client::{ErrorKind, RegistrationRequest};
use dps_conformance::{Bench, Cell, adjusted, drop_after, fast, poll_count, settle};
use dps_emulator::{Behavior, Delivery, Fault, Operation, RetryAfter};
use tokio::join;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(cancelled_while_the_service_is_silent).after_the_handshake(),
        case!(cancelled_while_waiting_to_poll).after_the_handshake(),
        case!(the_session_ended_during_a_registration_cancels_it),
        case!(dropped_at_every_await_point),
        case!(an_end_dropped_at_every_await_point),
        case!(a_second_registration_at_once_is_refused).after_the_handshake(),
        case!(usable_after_every_kind_of_failure),
        case!(many_failures_then_success).after_the_handshake(),
        case!(a_hundred_registrations_one_after_the_other),
    ]
}

fn silent() -> Behavior {
    Behavior::new().on_register(Fault::deliver(Delivery::Never))
}

fn patient() -> Behavior {
    Behavior::new().polls(1).retry_after(RetryAfter::Seconds(10))
}

/// When the service has seen the first request.
async fn seen(bench: &Bench) {
    let events = bench.emulator.events();
    let request =
        |event: &dps_emulator::Event| matches!(event.kind, dps_emulator::EventKind::Request { .. });
    events.wait_for(request).await.unwrap();
}

async fn answered(bench: &Bench) {
    let events = bench.emulator.events();
    // Before it, over HTTP, a TPM is challenged by a 401.
    let answer = |event: &dps_emulator::Event| matches!(event.kind, dps_emulator::EventKind::Answer { status, .. } if status != 401);
    events.wait_for(answer).await.unwrap();
}

async fn works_again(bench: &Bench, client: &dps_client::Client) {
    bench.emulator.set_behavior(bench.enrollment, Behavior::new()).unwrap();
    client.register(bench.request()).await.unwrap();
    settle(client).await;
}

async fn cancelled_while_the_service_is_silent(cell: Cell) {
    let bench = Bench::new(cell, silent()).await;
    let client = bench.client();
    let (outcome, ()) = join!(client.register(bench.request()), async {
        seen(&bench).await;
        client.cancel();
    });
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Cancelled, false));
    works_again(&bench, &client).await;
}

async fn cancelled_while_waiting_to_poll(cell: Cell) {
    let bench = Bench::new(cell, patient()).await;
    let client = bench.client();
    let (outcome, ()) = join!(client.register(bench.request()), async {
        answered(&bench).await;
        client.cancel();
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    works_again(&bench, &client).await;
}

async fn the_session_ended_during_a_registration_cancels_it(cell: Cell) {
    for behavior in [silent(), patient()] {
        let bench = Bench::new(cell, behavior.clone()).await;
        let client = bench.client();
        let (outcome, ended) = join!(client.register(bench.request()), async {
            seen(&bench).await;
            client.end_session().await
        });
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled, "{behavior:?}");
        ended.unwrap();
        works_again(&bench, &client).await;
    }
}

/// On the same client: whatever was cut short must not disturb what comes after it.
async fn dropped_at_every_await_point(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(1)).await;
    let client = bench.client();
    let mut polls = 1;
    loop {
        let outcome = drop_after(polls, client.register(bench.request())).await;
        if let Some(outcome) = outcome {
            outcome.unwrap();
            break;
        }
        if polls % 3 == 0 {
            client.register(bench.request()).await.unwrap();
        }
        if polls % 2 == 0 {
            client.end_session().await.unwrap();
        }
        polls += 1;
        assert!(polls < 1000, "it never finishes");
    }
    settle(&client).await;
    assert!(polls > 3, "it was dropped at {polls} points only");
}

async fn an_end_dropped_at_every_await_point(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    client.register(bench.request()).await.unwrap();
    let (all, ended) = poll_count(client.end_session()).await;
    ended.unwrap();
    for polls in 1..=all {
        client.register(bench.request()).await.unwrap();
        let _ended = drop_after(polls, client.end_session()).await;
    }
    settle(&client).await;
    client.register(bench.request()).await.unwrap();
    client.end_session().await.unwrap();
}

async fn a_second_registration_at_once_is_refused(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(1)).await;
    let client = bench.client();
    let second = client.clone();
    let (first, second) = join!(client.register(bench.request()), second.register(bench.request()));
    let error = second.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::InvalidOperation, false));
    first.unwrap();
    settle(&client).await;
    assert_eq!(bench.requests(), [Operation::Register, Operation::Query]);
}

async fn usable_after_every_kind_of_failure(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client_with(
        bench.config.clone(),
        adjusted(fast(), |settings| settings.request_timeout = Duration::from_millis(1500)),
    );
    let failures = [
        (Fault::error(400_004, "no"), ErrorKind::Rejected),
        (Fault::with_body(dps_emulator::Body::Garbage), ErrorKind::Protocol),
        (Fault::deliver(Delivery::CloseBefore).forever(), ErrorKind::Connection),
        (Fault::deliver(Delivery::Never), ErrorKind::Timeout),
    ];
    for (fault, kind) in failures {
        bench.emulator.set_behavior(bench.enrollment, Behavior::new().on_register(fault)).unwrap();
        let error = client.register(bench.request()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        bench.emulator.set_behavior(bench.enrollment, Behavior::new()).unwrap();
        client.register(bench.request()).await.unwrap();
    }
    settle(&client).await;
}

async fn many_failures_then_success(cell: Cell) {
    let refusal = Fault::error(400_004, "no").times(100);
    let bench = Bench::new(cell, Behavior::new().on_register(refusal)).await;
    let client = bench.client();
    for _ in 0..100 {
        let error = client.register(bench.request()).await.unwrap_err();
        assert_eq!(error.error_code(), Some(400_004));
    }
    client.register(bench.request()).await.unwrap();
    settle(&client).await;
}

async fn a_hundred_registrations_one_after_the_other(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    let request: RegistrationRequest = bench.request();
    for _ in 0..100 {
        client.register(request.clone()).await.unwrap();
    }
    settle(&client).await;
    assert_eq!(bench.requests().len(), 100);
}
