//! Code of others that runs within ours (an observer, a transport's future, its drop, a waker) may call the machine:
//! every call has an outcome all the same, and the machine stays usable.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use dps_simulator::{Call, Moment, Transport, answers::*, settings_with};
use dps_state_machine::{ErrorKind, RegistrationResult, StateMachine, Step};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(1000);

/// What the other code does to the machine.
#[derive(Clone, Copy, Debug)]
enum Act {
    Cancel,
    /// Ends the session: polls that once and drops it.
    EndAndDrop,
    /// Ends the session: polls that once, and goes on when the registration has its outcome.
    EndAndKeep,
    RegisterAndDrop,
    RegisterAndKeep,
    Watch,
    Observe,
}

const ACTS: [Act; 7] = [
    Act::Cancel,
    Act::EndAndDrop,
    Act::EndAndKeep,
    Act::RegisterAndDrop,
    Act::RegisterAndKeep,
    Act::Watch,
    Act::Observe,
];

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Does something to the machine at the nth time that a moment comes.
struct Meddler {
    machine: StateMachine<Transport>,
    act: Act,
    moment: Moment,
    left: AtomicUsize,
    kept: Mutex<Vec<BoxFuture>>,
}

impl Meddler {
    fn comes(&self, moment: Moment) {
        if moment == self.moment && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.act();
        }
    }

    fn has_acted(&self) -> bool {
        // Below zero it wraps around.
        self.left.load(Ordering::SeqCst).wrapping_sub(1) >= usize::MAX / 2
    }

    fn act(&self) {
        let machine = self.machine.clone();
        let register = {
            let machine = machine.clone();
            async move { drop(machine.register(request()).await) }
        };
        let end = {
            let machine = machine.clone();
            async move { drop(machine.end_session().await) }
        };
        match self.act {
            Act::Cancel => machine.cancel(),
            Act::EndAndDrop => drop(polled_once(end)),
            Act::EndAndKeep => self.kept.lock().unwrap().extend(polled_once(end)),
            Act::RegisterAndDrop => drop(polled_once(register)),
            Act::RegisterAndKeep => self.kept.lock().unwrap().extend(polled_once(register)),
            Act::Watch => assert!(machine.operation_status().try_next().is_none()),
            Act::Observe => machine.observe(|_| {}),
        }
    }
}

/// The future, unless it was ready at once.
fn polled_once(future: impl Future<Output = ()> + Send + 'static) -> Option<BoxFuture> {
    let mut future: BoxFuture = Box::pin(future);
    let mut context = Context::from_waker(Waker::noop());
    future.as_mut().poll(&mut context).is_pending().then_some(future)
}

/// A waker that runs other code at once.
struct Alarm {
    meddler: Arc<Meddler>,
    other: Waker,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.meddler.comes(Moment::Woken);
        self.other.wake_by_ref();
    }
}

/// One registration with a meddler. Its last request has no answer, so that a call is dropped too.
async fn registration_with(act: Act, moment: Moment, nth: usize) -> bool {
    let answers = [refused(429_001, Some(3)), assigning(), assigning()];
    let transport = Transport::answering(answers);
    let (resolving, tls) = (
        Step::Resolving { host: "dps.example".into() },
        Step::Tls { server_name: "dps.example".into() },
    );
    transport.say_steps(vec![resolving, tls, Step::Connected]);
    let machine =
        transport.machine_with(settings_with(|settings| settings.request_timeout = secs(7)));
    let meddler = Arc::new(Meddler {
        machine: machine.clone(),
        act,
        moment,
        left: AtomicUsize::new(nth),
        kept: Mutex::default(),
    });
    let observer = Arc::clone(&meddler);
    machine.observe(move |_| observer.comes(Moment::Step));
    let hook = Arc::clone(&meddler);
    transport.hook(Some(Arc::new(move |moment| hook.comes(moment))));

    let mut events = machine.operation_status();
    let mut registration: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin({
        let machine = machine.clone();
        async move { machine.register(request()).await }
    });
    let outcome = poll_fn(|cx| {
        let alarm = Alarm { meddler: Arc::clone(&meddler), other: cx.waker().clone() };
        let waker = Waker::from(Arc::new(alarm));
        let mut context = Context::from_waker(&waker);
        while let Poll::Ready(Some(_)) = std::pin::pin!(events.next()).poll(&mut context) {}
        registration.as_mut().poll(&mut context)
    });
    let outcome: Result<RegistrationResult, _> = timeout(LONG, outcome)
        .await
        .unwrap_or_else(|_| panic!("no outcome: {act:?} {moment:?} {nth}"));
    let kind = outcome.unwrap_err().kind();
    assert!(
        matches!(kind, ErrorKind::Timeout | ErrorKind::Cancelled),
        "{act:?} {moment:?} {nth}: {kind}"
    );
    drop(registration);
    transport.forget_script();
    transport.then(secs(0), assigned());
    let kept = std::mem::take(&mut *meddler.kept.lock().unwrap());
    for future in kept {
        timeout(LONG, future)
            .await
            .unwrap_or_else(|_| panic!("it hangs: {act:?} {moment:?} {nth}"));
    }

    assert_eq!(transport.under_way(), 0, "{act:?} {moment:?} {nth}");
    let has_acted = meddler.has_acted();
    transport.hook(None);
    machine.observe(|_| {});
    transport.forget_script();
    transport.then(secs(0), assigned());
    timeout(LONG, machine.register(request())).await.expect("an outcome").unwrap();
    timeout(LONG, machine.end_session()).await.expect("an end").unwrap();
    assert_eq!(transport.calls().last(), Some(&Call::End));
    assert_eq!(transport.most_under_way(), 1, "{act:?} {moment:?} {nth}");
    has_acted
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_called_from_within_its_own_calls_has_an_outcome_for_each() {
    for moment in [Moment::Step, Moment::CallBegan, Moment::CallOver, Moment::Woken] {
        for act in ACTS {
            let mut times = 0;
            while times < 100 && registration_with(act, moment, times + 1).await {
                times += 1;
            }
            assert!((2..100).contains(&times), "{act:?} at {moment:?} came {times} times");
        }
    }
}

#[test]
fn ending_the_session_outside_of_a_runtime_is_an_error_and_changes_nothing() {
    let transport = Transport::answering([assigned()]);
    let machine = transport.machine();
    let outside = |machine: &StateMachine<Transport>| {
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(ended) = std::pin::pin!(machine.end_session()).poll(&mut context) else {
            panic!("it waits for a runtime")
        };
        ended
    };
    outside(&machine).expect("there is nothing to end");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(machine.register(request())).unwrap();
    let error = outside(&machine).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("tokio"), "{error}");
    assert_eq!(transport.calls().len(), 1);
    runtime.block_on(machine.end_session()).unwrap();
    assert_eq!(transport.calls().last(), Some(&Call::End));
    outside(&machine).expect("it has ended");
}
