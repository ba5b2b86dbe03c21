//! How a registration and a session end: cancelled, dropped, or by an end that others wait for.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use dps_simulator::{Call, Transport, answers::*};
use dps_state_machine::{Error, ErrorKind, Stage};
use tokio::{join, time::Instant};

/// Polls the future once, as a `select!` that goes on to another branch does.
async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn cancel_keeps_the_session() {
    let transport = Transport::answering([assigning_after(9), assigned()]);
    let machine = transport.machine();
    let (registered, ()) = join!(machine.register(request()), async {
        tokio::time::sleep(secs(1)).await;
        machine.cancel();
    });
    assert_eq!(registered.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!transport.calls().contains(&Call::End));
    machine.register(request()).await.unwrap();
    machine.end_session().await.unwrap();
    assert_eq!(transport.calls().last(), Some(&Call::End));
}

#[tokio::test(start_paused = true)]
async fn cancel_without_a_registration_does_nothing() {
    let transport = Transport::answering([assigned()]);
    let machine = transport.machine();
    machine.cancel();
    machine.register(request()).await.unwrap();
    machine.cancel();
    machine.end_session().await.unwrap();
    assert_eq!(transport.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_nobody_polls_can_be_ended() {
    for answers in [vec![], vec![assigning_after(9)]] {
        let row = format!("{answers:?}");
        let transport = Transport::answering(answers);
        let machine = transport.machine();
        let mut registration = pin!(machine.register(request()));
        assert!(poll_once(registration.as_mut()).await.is_none(), "{row}");
        machine.end_session().await.unwrap();
        assert_eq!(transport.calls().last(), Some(&Call::End), "{row}");
        // A new one may even run before the old one is polled again.
        transport.forget_script();
        transport.then(secs(0), assigned());
        machine.register(request()).await.unwrap();
        assert_eq!(registration.await.unwrap_err().kind(), ErrorKind::Cancelled, "{row}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_registration_anywhere_leaves_the_machine_usable() {
    for polled_for in [0, 1, 3, 5] {
        let transport = Transport::default();
        transport.then(secs(1), assigning()).then(secs(1), refused(503_000, None)).then_never();
        let machine = transport.machine();
        let dropped = tokio::time::timeout(secs(polled_for), machine.register(request())).await;
        assert!(dropped.is_err(), "{polled_for:?}");
        assert_eq!(transport.under_way(), 0, "{polled_for:?}");
        transport.forget_script();
        transport.then(secs(0), assigned());
        machine.register(request()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn register_waits_for_the_end_of_the_session_and_then_starts() {
    let transport = Transport::answering([assigned(), assigned()]);
    transport.end_of_session(Duration::from_millis(300), Ok(()));
    let machine = transport.machine();
    machine.register(request()).await.unwrap();
    let (ended, registered) = join!(machine.end_session(), machine.register(request()));
    ended.unwrap();
    registered.unwrap();
    let register = Call::Register("dev-1".into());
    assert_eq!(transport.calls(), [register.clone(), Call::End, register]);
    assert_eq!(transport.most_under_way(), 1);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_the_end_of_the_session_have_their_turn_in_order() {
    for _ in 0..50 {
        let transport = Transport::answering([assigned()]);
        transport.then(secs(1), assigned());
        transport.end_of_session(Duration::from_millis(300), Ok(()));
        let machine = transport.machine();
        machine.register(request()).await.unwrap();
        let other = machine.clone();
        let end = tokio::spawn(async move { other.end_session().await });
        tokio::task::yield_now().await;
        let registrations = [machine.clone(), machine].map(|machine| {
            tokio::spawn(async move { machine.register(request()).await.map(|_| ()) })
        });
        let [first, second] = registrations;
        first.await.unwrap().unwrap();
        assert!(matches!(second.await.unwrap(), Err(Error::InvalidOperation)));
        end.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_end_of_session_waits_for_the_same_end() {
    let transport = Transport::answering([assigned()]);
    transport.end_of_session(Duration::from_millis(300), broken());
    let machine = transport.machine();
    machine.register(request()).await.unwrap();
    let start = Instant::now();
    let (first, second) = join!(machine.end_session(), machine.end_session());
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Connection);
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Connection);
    assert_eq!(start.elapsed(), Duration::from_millis(300));
    assert_eq!(transport.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_end_of_session_has_its_own_bound_and_never_masks_the_outcome() {
    let transport = Transport::answering([assigning_after(30)]);
    transport.end_of_session(secs(3600), Ok(()));
    let machine = transport.machine();
    let (registered, ended) = join!(machine.register(request()), async {
        tokio::time::sleep(secs(1)).await;
        let start = Instant::now();
        (machine.end_session().await, start.elapsed())
    });
    assert_eq!(registered.unwrap_err().kind(), ErrorKind::Cancelled);
    let (ended, took) = ended;
    assert_eq!(ended.unwrap_err().stage(), Some(Stage::EndSession));
    assert_eq!(took, Duration::from_millis(500));
    assert_eq!(transport.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_dropped_half_way_can_be_made_again() {
    let transport = Transport::answering([assigned()]);
    transport.end_of_session(Duration::from_millis(400), Ok(()));
    let machine = transport.machine();
    machine.register(request()).await.unwrap();
    let dropped = tokio::time::timeout(Duration::from_millis(100), machine.end_session()).await;
    assert!(dropped.is_err());
    machine.end_session().await.unwrap();
    assert_eq!(transport.calls().iter().filter(|call| **call == Call::End).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_takes_over_an_end_that_was_dropped_and_outlives_one_nobody_polls() {
    let transport = Transport::answering([assigned(), assigned()]);
    transport.end_of_session(Duration::from_millis(400), Ok(()));
    let machine = transport.machine();
    machine.register(request()).await.unwrap();
    let mut first = Box::pin(machine.end_session());
    assert!(poll_once(first.as_mut()).await.is_none());
    let (second, ()) = join!(machine.end_session(), async { drop(first) });
    second.unwrap();

    machine.register(request()).await.unwrap();
    transport.end_of_session(secs(3600), Ok(()));
    let mut unpolled = Box::pin(machine.end_session());
    assert!(poll_once(unpolled.as_mut()).await.is_none());
    let start = Instant::now();
    assert_eq!(machine.end_session().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), Duration::from_millis(500));
    // The same holds for a registration that waits for that end.
    transport.then(secs(0), assigned());
    machine.register(request()).await.unwrap();
    assert_eq!(unpolled.await.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn dropping_one_who_waits_for_the_end_does_not_cut_it_short() {
    let transport = Transport::answering([assigned()]);
    transport.end_of_session(Duration::from_millis(400), Ok(()));
    let machine = transport.machine();
    machine.register(request()).await.unwrap();
    let (first, second) = join!(
        machine.end_session(),
        tokio::time::timeout(Duration::from_millis(100), machine.end_session())
    );
    first.unwrap();
    assert!(second.is_err());
    assert_eq!(transport.calls().len(), 2);
}
