//! A service that says: not now.

use std::time::{Duration, Instant};

use dps_client::{ErrorKind, Stage};
use dps_conformance::{Bench, Cell, adjusted, fast, settle};
use dps_emulator::{Behavior, EventKind, Fault, Operation, RetryAfter};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let cases = [
        case!(throttled_then_assigned),
        case!(throttled_query_then_assigned),
        case!(every_5xx_on_register_is_tried_again),
        case!(every_5xx_on_a_query_is_asked_again),
        case!(a_conflict_of_one_identity_is_tried_again),
        case!(throttled_to_the_end_is_a_rejection).within_a_short_time(),
        case!(a_throttle_past_the_deadline_fails_at_once),
        case!(an_assigning_past_the_deadline_fails_at_once),
        case!(retry_after_in_seconds_is_never_undercut),
        case!(retry_after_as_a_date_is_never_undercut)
            .skip("dates are HTTP's: the other transports carry seconds", |cell| {
                cell.transport != dps_client::Transport::Http
            }),
        case!(junk_in_retry_after_means_the_default_interval),
        case!(the_larger_of_two_retry_afters_holds).skip(
            "a map of properties has one value a name",
            |cell| {
                matches!(
                    cell.transport,
                    dps_client::Transport::Amqp | dps_client::Transport::AmqpWs
                )
            },
        ),
        case!(other_refusals_fail_at_once),
    ];
    cases.into_iter().map(Case::after_the_handshake).collect()
}

async fn throttled_then_assigned(cell: Cell) {
    let throttle = Fault::refuse(429).retry_after(RetryAfter::Seconds(1));
    let bench = Bench::new(cell, Behavior::new().on_register(throttle)).await;
    bench.register().await.unwrap();
    assert_eq!(bench.requests(), [Operation::Register, Operation::Register]);
    let times = bench.request_times();
    assert!(times[1] - times[0] >= 1000, "{times:?}");
}

async fn throttled_query_then_assigned(cell: Cell) {
    let behavior = Behavior::new().polls(1).on_query(Fault::refuse(429).times(2));
    let bench = Bench::new(cell, behavior).await;
    bench.register().await.unwrap();
    let asked = bench.events(|event| match event.kind {
        EventKind::Request { operation_id, .. } => Some(operation_id),
        _ => None,
    });
    assert_eq!(asked.len(), 4);
    assert!(asked[1].is_some() && asked[1..].iter().all(|id| *id == asked[1]), "{asked:?}");
}

async fn every_5xx_on_register_is_tried_again(cell: Cell) {
    for status in [500, 502, 503, 504] {
        let behavior = Behavior::new().on_register(Fault::refuse(status).times(2));
        let bench = Bench::new(cell, behavior).await;
        bench.register().await.unwrap();
        assert_eq!(bench.requests().len(), 3, "{status}");
    }
}

async fn every_5xx_on_a_query_is_asked_again(cell: Cell) {
    for status in [500, 503] {
        let behavior = Behavior::new().polls(1).on_query(Fault::refuse(status).times(2));
        let bench = Bench::new(cell, behavior).await;
        bench.register().await.unwrap();
        let requests = bench.requests();
        assert_eq!(requests.iter().filter(|r| **r == Operation::Register).count(), 1, "{status:?}");
        assert_eq!(requests.len(), 4, "{status}");
    }
}

async fn a_conflict_of_one_identity_is_tried_again(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().on_register(Fault::refuse(409))).await;
    bench.register().await.unwrap();
    assert_eq!(bench.requests().len(), 2);
}

async fn throttled_to_the_end_is_a_rejection(cell: Cell) {
    let throttle = Fault::refuse(429).retry_after(RetryAfter::Seconds(1)).forever();
    let bench = Bench::new(cell, Behavior::new().on_register(throttle)).await;
    // Time for two: the second refusal asks for a wait that is too long.
    let bounds =
        adjusted(fast(), |settings| settings.registration_timeout = Duration::from_millis(1900));
    let client = bench.client_with(bench.config.clone(), bounds);
    let start = Instant::now();
    let error = client.register(bench.request()).await.unwrap_err();
    let took = start.elapsed();
    settle(&client).await;
    assert_eq!((error.kind(), error.status()), (ErrorKind::Rejected, Some(429)));
    assert_eq!(error.stage(), Some(Stage::Register));
    assert_eq!((error.is_retryable(), error.retry_after()), (true, Some(Duration::from_secs(1))));
    assert!(error.tracking_id().is_some());
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(bench.requests().len(), 2);
}

async fn a_throttle_past_the_deadline_fails_at_once(cell: Cell) {
    let throttle = Fault::refuse(429).retry_after(RetryAfter::Seconds(600));
    let bench = Bench::new(cell, Behavior::new().on_register(throttle)).await;
    let start = Instant::now();
    let error = bench.register().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(600)));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(bench.requests().len(), 1);
}

async fn an_assigning_past_the_deadline_fails_at_once(cell: Cell) {
    let behavior = Behavior::new().polls(1).retry_after(RetryAfter::Seconds(600));
    let bench = Bench::new(cell, behavior).await;
    let start = Instant::now();
    let error = bench.register().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(600)));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(bench.requests().len(), 1);
}

async fn retry_after_in_seconds_is_never_undercut(cell: Cell) {
    let behavior = Behavior::new().polls(2).retry_after(RetryAfter::Seconds(1));
    let bench = Bench::new(cell, behavior).await;
    bench.register().await.unwrap();
    let times = bench.request_times();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 1000), "{times:?}");
}

async fn retry_after_as_a_date_is_never_undercut(cell: Cell) {
    let behavior = Behavior::new().polls(1).retry_after(RetryAfter::DateIn(2));
    let bench = Bench::new(cell, behavior).await;
    bench.register().await.unwrap();
    let times = bench.request_times();
    // A date has whole seconds: it names a moment up to one second before.
    assert!(times[1] - times[0] >= 900, "{times:?}");
}

async fn junk_in_retry_after_means_the_default_interval(cell: Cell) {
    for junk in ["soon", "-5", "", "1.5"] {
        let behavior = Behavior::new().polls(1).retry_after(RetryAfter::raw(junk));
        let bench = Bench::new(cell, behavior).await;
        bench.register().await.unwrap();
        let times = bench.request_times();
        assert!(times[1] - times[0] < 5000, "{junk:?}: {times:?}");
    }
}

async fn the_larger_of_two_retry_afters_holds(cell: Cell) {
    let twice = RetryAfter::Raw(vec!["0".into(), "1".into()]);
    let bench = Bench::new(cell, Behavior::new().polls(1).retry_after(twice)).await;
    bench.register().await.unwrap();
    let times = bench.request_times();
    assert!(times[1] - times[0] >= 1000, "{times:?}");
}

async fn other_refusals_fail_at_once(cell: Cell) {
    for (code, stage) in [
        (400_004, Stage::Register),
        (401_002, Stage::Authenticate),
        (403_000, Stage::Register),
        (404_201, Stage::Register),
    ] {
        let refusal = Fault::error(code, "no such luck").forever();
        let bench = Bench::new(cell, Behavior::new().on_register(refusal)).await;
        let error = bench.register().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.error_code()),
            (ErrorKind::Rejected, Some(code)),
            "{code:?}"
        );
        assert_eq!(error.status(), Some(u16::try_from(code / 1000).unwrap()), "{code:?}");
        assert_eq!(error.stage(), Some(stage), "{code:?}");
        assert!(!error.is_retryable() && error.tracking_id().is_some(), "{code:?}");
        assert!(error.to_string().contains("no such luck"), "{error}");
        assert_eq!(bench.requests().len(), 1, "{code:?}");
    }
}
