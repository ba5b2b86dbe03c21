//! What the requirements don't say and users of such clients have learned the hard way.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dps_simulator::{Call, Transport, answers::*, settings, settings_with};
use dps_state_machine::{
    ConnectionError, Error, ErrorKind, Next, RejectionCause, Stage, StateMachine, Step,
    TimeoutScope,
};
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn failed_and_disabled_are_errors_with_code_and_message() {
    for (word, cause) in
        [("failed", RejectionCause::Failed), ("Disabled", RejectionCause::Disabled)]
    {
        let transport = Transport::answering([assigning(), status(word)]);
        let Err(Error::Rejected(rejection)) = transport.machine().register(request()).await else {
            panic!("a rejection")
        };
        assert_eq!((rejection.cause, rejection.error_code), (cause, Some(400_207)));
        assert_eq!((rejection.message.as_str(), rejection.stage), ("no hub", Stage::Query));
        assert!(!rejection.retryable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_registration_waits_as_asked_and_goes_out_again() {
    for code in [429_001, 500_000, 503_000, 409_203] {
        let transport = Transport::answering([refused(code, Some(5)), assigned()]);
        transport.machine().register(request()).await.unwrap();
        assert_eq!(transport.times(), [secs(0), secs(5)], "{code}");
        assert_eq!(
            transport.calls(),
            [Call::Register("dev-1".into()), Call::Register("dev-1".into())],
            "{code:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_query_asks_for_the_same_operation_again() {
    let transport = Transport::answering([assigning(), refused(429_001, Some(4)), assigned()]);
    transport.machine().register(request()).await.unwrap();
    assert_eq!(transport.times(), [secs(0), secs(2), secs(6)]);
    let query = Call::Query("op-1".into());
    assert_eq!(transport.calls(), [Call::Register("dev-1".into()), query.clone(), query]);
}

#[tokio::test(start_paused = true)]
async fn refusals_without_a_time_back_off_twice_as_long_each() {
    let busy = || refused(503_000, None);
    let transport = Transport::answering([busy(), busy(), busy(), assigned()]);
    transport.machine().register(request()).await.unwrap();
    assert_eq!(transport.times(), [secs(0), secs(2), secs(6), secs(14)]);
}

#[tokio::test(start_paused = true)]
async fn never_faster_than_the_floor_and_never_earlier_than_asked() {
    for (asked, waited) in [(0, 2), (1, 2), (2, 2), (3, 3), (57, 57)] {
        let transport = Transport::answering([assigning_after(asked), assigned()]);
        transport.machine().register(request()).await.unwrap();
        assert_eq!(transport.times(), [secs(0), secs(waited)], "asked {asked}");
    }
    let transport = Transport::answering([assigning_after(0), assigned()]);
    transport
        .machine_with(settings_with(|settings| settings.poll_floor = Duration::ZERO))
        .register(request())
        .await
        .unwrap();
    assert_eq!(transport.times(), [secs(0), secs(0)]);
}

/// How long a machine with the most jitter waits after this answer, whether that comes to the registration or to a poll.
async fn wait_with_jitter_after(answer: Answer, is_poll: bool) -> Duration {
    let transport = Transport::answering(is_poll.then(|| assigning_after(10)));
    transport.then(secs(0), answer).then(secs(0), assigned());
    let machine = transport.machine_with(settings_with(|settings| settings.jitter_percent = 20));
    machine.register(request()).await.unwrap();
    let [.., before, last] = *transport.times() else { panic!("two requests") };
    last - before
}

#[tokio::test(start_paused = true)]
async fn a_poll_comes_when_it_was_asked_for_and_only_after_a_refusal_some_time_is_added() {
    let millisecond = Duration::from_millis(1);
    let exact = [
        ("assigning, 10 s", assigning_after(10), secs(10)),
        ("assigning, less than the floor", assigning_after(1), secs(2)),
        ("assigning, no time", assigning(), secs(2)),
        ("unassigned, 10 s", asking(status("unassigned"), Some(10)), secs(10)),
    ];
    let refusals = [
        ("throttled, 10 s", refused(429_001, Some(10)), secs(10)),
        ("throttled, no time", refused(429_001, None), secs(2)),
        ("failed, 10 s", refused(500_000, Some(10)), secs(10)),
        ("unavailable, 10 s", refused(503_000, Some(10)), secs(10)),
        ("in conflict, 10 s", refused(409_203, Some(10)), secs(10)),
        ("in conflict, no time", refused(409_203, None), secs(2)),
    ];
    for is_poll in [false, true] {
        for (name, answer, asked) in exact.clone() {
            for _ in 0..20 {
                let wait = wait_with_jitter_after(answer.clone(), is_poll).await;
                assert_eq!(wait, asked, "{name}, {is_poll}");
            }
        }
        for (name, answer, asked) in refusals.clone() {
            let mut waits = std::collections::HashSet::new();
            for _ in 0..50 {
                let wait = wait_with_jitter_after(answer.clone(), is_poll).await;
                assert!(wait >= asked, "{name}, {is_poll}: {wait:?}");
                assert!(wait <= asked + asked / 5 + millisecond, "{name}, {is_poll}: {wait:?}");
                waits.insert(wait);
            }
            assert!(waits.len() > 25, "{name}, {is_poll}: {} waits of 50", waits.len());
        }
    }
    let lost_poll = wait_with_jitter_after(lost(), true).await;
    assert_eq!(lost_poll, secs(2), "the own interval after a lost connection");
}

#[tokio::test(start_paused = true)]
async fn a_wait_past_the_deadline_fails_at_once_and_says_when_to_come_back() {
    let start = Instant::now();
    for asked in [60, 61, 600, u64::MAX] {
        let transport = Transport::answering([refused(429_001, Some(asked))]);
        let error = transport.machine().register(request()).await.unwrap_err();
        assert_eq!((error.kind(), error.status()), (ErrorKind::Rejected, Some(429)), "{asked:?}");
        assert_eq!(
            (error.retry_after(), error.is_retryable()),
            (Some(secs(asked)), true),
            "{asked:?}"
        );

        let transport = Transport::answering([assigning_after(asked)]);
        let Err(Error::Timeout(timeout)) = transport.machine().register(request()).await else {
            panic!("a timeout")
        };
        assert_eq!(timeout.retry_after, Some(secs(asked)), "{asked:?}");
        assert_eq!(
            (timeout.scope, timeout.stage),
            (TimeoutScope::Registration, Stage::Query),
            "{asked:?}"
        );
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn throttling_for_ever_ends_within_the_deadline_as_the_refusal() {
    let transport = Transport::answering((0..100).map(|_| refused(429_001, Some(5))));
    let start = Instant::now();
    let error = transport.machine().register(request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(start.elapsed() < secs(60) && transport.calls().len() == 12, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_request_without_an_answer_times_out() {
    for first in [None, Some(assigning())] {
        let stage = if first.is_none() { Stage::Register } else { Stage::Query };
        let transport = Transport::answering(first);
        transport.then_never();
        let start = Instant::now();
        let machine =
            transport.machine_with(settings_with(|settings| settings.request_timeout = secs(7)));
        let Err(Error::Timeout(timeout)) = machine.register(request()).await else {
            panic!("a timeout")
        };
        assert_eq!((timeout.scope, timeout.stage), (TimeoutScope::Request, stage), "{stage:?}");
        assert_eq!(
            start.elapsed().as_secs() % 7,
            if stage == Stage::Query { 2 } else { 0 },
            "{stage:?}"
        );
        assert_eq!(transport.under_way(), 0, "the call was dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_bounds_the_whole_registration() {
    let transport = Transport::answering((0..100).map(|_| assigning_after(2)));
    let start = Instant::now();
    let machine =
        transport.machine_with(settings_with(|settings| settings.registration_timeout = secs(9)));
    let Err(Error::Timeout(timeout)) = machine.register(request()).await else {
        panic!("a timeout")
    };
    assert_eq!(timeout.scope, TimeoutScope::Registration);
    assert!(start.elapsed() <= secs(9));

    let transport = Transport::default();
    transport.then_never();
    let start = Instant::now();
    let machine =
        transport.machine_with(settings_with(|settings| settings.registration_timeout = secs(9)));
    assert_eq!(machine.register(request()).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), secs(9));
}

#[tokio::test(start_paused = true)]
async fn bounds_for_ever_are_no_overflow() {
    let forever = settings_with(|settings| {
        settings.registration_timeout = Duration::MAX;
        settings.request_timeout = Duration::MAX;
        settings.end_session_timeout = Duration::MAX;
    });
    let transport =
        Transport::answering([assigning_after(3600), refused(429_001, None), assigned()]);
    let machine = transport.machine_with(forever);
    machine.register(request()).await.unwrap();
    machine.end_session().await.unwrap();
    assert_eq!(transport.times(), [secs(0), secs(3600), secs(3602), secs(3602)]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_an_operation_id_keeps_the_known_one() {
    let bare = Ok(dps_state_machine::Response::new(202, r#"{"status":"assigning"}"#));
    let transport = Transport::answering([assigning(), bare, assigned()]);
    transport.machine().register(request()).await.unwrap();
    assert_eq!(transport.calls().last(), Some(&Call::Query("op-1".into())));
}

#[tokio::test(start_paused = true)]
async fn a_connection_lost_while_an_operation_is_pending_is_made_again_after_the_interval() {
    let transport = Transport::answering([assigning(), lost(), lost(), assigned()]);
    transport.machine().register(request()).await.unwrap();
    assert_eq!(transport.times(), [secs(0), secs(2), secs(4), secs(6)]);

    let transport = Transport::answering([assigning()].into_iter().chain((0..100).map(|_| lost())));
    let error = transport.machine().register(request()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert_eq!(transport.calls().len(), 30, "one query each interval until the deadline");

    let lost_at_once = Err(ConnectionError::lost(Stage::Register, "reset").into());
    let transport = Transport::answering([lost_at_once]);
    assert_eq!(
        transport.machine().register(request()).await.unwrap_err().kind(),
        ErrorKind::Connection
    );
    assert_eq!(transport.calls().len(), 1, "a registration is not sent again on its own");
}

#[tokio::test(start_paused = true)]
async fn a_thousand_failures_on_one_machine_have_a_thousand_outcomes() {
    let transport = Transport::default();
    let machine = transport.machine();
    for round in 0..1000 {
        match round % 4 {
            0 => transport.then(secs(0), broken()),
            1 => transport.then(secs(0), refused(401_002, None)),
            2 => transport.then_never(),
            _ => transport.then(secs(0), status("failed")),
        };
        machine.register(request()).await.unwrap_err();
    }
    transport.then(secs(0), assigned());
    machine.register(request()).await.unwrap();
    assert_eq!(transport.calls().len(), 1001);
}

#[tokio::test(start_paused = true)]
async fn a_payload_too_large_never_reaches_the_transport() {
    let transport = Transport::answering([assigned()]);
    let payload = serde_json::json!({ "p": "x".repeat(96 * 1024) });
    let large = request().payload(payload).unwrap();
    let error = transport.machine().register(large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(transport.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_observer_sees_each_step_in_order() {
    let transport =
        Transport::answering([refused(429_001, Some(3)), assigning_after(4), assigned()]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = Arc::clone(&seen);
    let machine = transport.machine();
    machine.observe(move |step| see.lock().unwrap().push(step.clone()));
    machine.register(request()).await.unwrap();
    let waiting = |seconds, then| Step::Waiting { wait: secs(seconds), then };
    let operation_id = dps_state_machine::OperationId::new("op-1").unwrap();
    assert_eq!(
        *seen.lock().unwrap(),
        [
            Step::Registering,
            waiting(3, Next::RegisterAgain),
            Step::Registering,
            Step::Assigning { operation_id },
            waiting(4, Next::Poll),
            Step::Polling,
            Step::Assigned,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_names_the_stage_of_the_connection_that_it_struck() {
    let tls = Step::Tls { server_name: "dps.example".into() };
    for (last, stage) in [(tls, Stage::Tls), (Step::Connected, Stage::Register)] {
        let transport = Transport::default();
        let resolving = Step::Resolving { host: "dps.example".into() };
        transport.say_steps(vec![resolving, last]);
        let error = transport.machine().register(request()).await.unwrap_err();
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Timeout, Some(stage)), "{stage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_events_holds_nothing_up() {
    let transport = Transport::answering((0..2000).map(|_| assigning()).chain([assigned()]));
    let bounds = settings_with(|settings| {
        settings.poll_floor = Duration::ZERO;
        settings.poll_interval = Duration::ZERO;
    });
    let machine = transport.machine_with(bounds);
    let mut events = machine.operation_status();
    machine.register(request()).await.unwrap();
    let kept = std::iter::from_fn(|| events.try_next()).count();
    assert_eq!(kept, 256);
    drop(machine);
    assert!(events.next().await.is_none());
}

#[test]
fn the_transport_can_be_chosen_at_run_time_and_the_machine_moved_between_threads() {
    fn is_send<V: Send>(value: V) -> V {
        value
    }
    let chosen = dps_state_machine::BoxTransport::new(Transport::answering([assigned()]));
    let machine = StateMachine::new(chosen, settings());
    let registration = is_send({
        let machine = machine.clone();
        async move { machine.register(request()).await }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let registered = std::thread::spawn(move || runtime.block_on(registration)).join().unwrap();
    assert_eq!(registered.unwrap().assigned_hub, "hub-1");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_tells_what_the_service_asked_from_what_the_machine_would_have_waited() {
    let asked = |wait: Option<u64>| assigning().map(|answer| answer.retry_after(wait.map(secs)));
    for (answer, interval, says) in [
        (asked(Some(100)), secs(2), "the service asked to wait 100 s more, past the 60 s for"),
        (asked(None), secs(61), "the next poll would be due in 61 s, past the 60 s for"),
        (asked(None), Duration::MAX, "the next poll would be due in 18446744073709551615 s, past"),
    ] {
        let transport = Transport::answering([answer]);
        let machine =
            transport.machine_with(settings_with(|settings| settings.poll_interval = interval));
        let error = machine.register(request()).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.retry_after().is_some_and(|wait| wait >= secs(60)), "{error:?}");
    }
}

#[test]
fn outside_of_a_runtime_it_is_a_configuration_error() {
    let transport = Transport::answering([assigned()]);
    let machine = transport.machine();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = std::pin::pin!(machine.register(request())).poll(&mut context);
    let std::task::Poll::Ready(Err(error)) = polled else { panic!("{polled:?}") };
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("tokio"), "{error}");
    assert!(transport.calls().is_empty());
}
