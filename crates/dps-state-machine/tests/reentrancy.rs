//! Code of others that runs within ours (an observer, a transport's future, its drop, a waker) may call the machine:
//! every call has an outcome all the same, and the machine stays usable.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]

use std::{
    collections::BTreeSet,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use dps_simulator::{Call, Moment, Transport, answers::*, settings_with};
use dps_state_machine::{ErrorKind, OperationStatusEvents, StateMachine, Step};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(1000);

/// What the other code does to the machine: every call that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Cancel,
    /// Ends the session: polls that once and drops it.
    EndAndDrop,
    /// Ends the session: polls that once, and goes on when the registration has its outcome.
    EndAndKeep,
    RegisterAndDrop,
    RegisterAndKeep,
    /// Reads the events.
    Watch,
    Observe,
    /// Shows the machine as text.
    Show,
}

const ACTS: [Act; 8] = [
    Act::Cancel,
    Act::EndAndDrop,
    Act::EndAndKeep,
    Act::RegisterAndDrop,
    Act::RegisterAndKeep,
    Act::Watch,
    Act::Observe,
    Act::Show,
];

/// Where the other code runs, and in which states of the machine it does.
const PLACES: &[(Moment, &[&str])] = &[
    (Moment::CallBegan, &["EndingSession", "Polling", "Registering"]),
    (Moment::CallOver, &["EndingSession", "Idle", "Polling", "Registering"]),
    (Moment::Step, &["Idle", "Polling", "Registering", "WaitingToPoll", "WaitingToRegister"]),
    (
        Moment::Woken,
        &["Disconnected", "EndingSession", "Idle", "Polling", "WaitingToPoll", "WaitingToRegister"],
    ),
    (Moment::EventCame, &["Idle", "WaitingToPoll"]),
    (Moment::ObserverDropped, &["EndingSession", "Idle", "Polling", "Registering"]),
];

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Does something to the machine at the nth time that a moment comes.
struct Meddler {
    machine: StateMachine<Transport>,
    act: Act,
    moment: Moment,
    left: AtomicUsize,
    kept: Mutex<Vec<BoxFuture>>,
    /// The state of the machine when it acted.
    acted_in: Mutex<Option<String>>,
}

impl Meddler {
    fn comes(&self, moment: Moment) {
        if moment == self.moment && self.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            *self.acted_in.lock().unwrap() = Some(state_of(&self.machine));
            self.act();
        }
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
            Act::Watch => {
                let mut events = machine.operation_status();
                assert!(events.try_next().is_none());
                assert!(polled_once(async move { drop(events.next().await) }).is_some());
            }
            Act::Observe => machine.observe(|_| {}),
            Act::Show => assert!(format!("{machine:?}").contains("state")),
        }
    }

    /// Shows the machine's steps to this one; it is told too when the observer is dropped.
    fn observes(self: &Arc<Self>) {
        let observer = Observer(Arc::clone(self));
        self.machine.observe(move |_| observer.0.comes(Moment::Step));
    }

    fn waker(self: &Arc<Self>, moment: Moment, other: &Waker) -> Waker {
        Waker::from(Arc::new(Alarm { meddler: Arc::clone(self), moment, other: other.clone() }))
    }

    /// Waits for the outcome, and reads the events, with wakers that run the other code.
    async fn outcome_of<V>(
        self: &Arc<Self>,
        call: impl Future<Output = V>,
        events: &mut OperationStatusEvents,
    ) -> V {
        let mut call = pin!(call);
        let outcome = poll_fn(|cx| {
            let reader = self.waker(Moment::EventCame, cx.waker());
            let mut context = Context::from_waker(&reader);
            while let Poll::Ready(Some(_)) = pin!(events.next()).poll(&mut context) {}
            let waker = self.waker(Moment::Woken, cx.waker());
            call.as_mut().poll(&mut Context::from_waker(&waker))
        });
        timeout(LONG, outcome).await.expect("an outcome")
    }
}

/// The name of the state that the machine is in.
fn state_of(machine: &StateMachine<Transport>) -> String {
    let text = format!("{machine:?}");
    text.split('"').nth(1).unwrap_or_else(|| panic!("no state: {text}")).to_owned()
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
    moment: Moment,
    other: Waker,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.meddler.comes(self.moment);
        self.other.wake_by_ref();
    }
}

/// An observer's own value.
struct Observer(Arc<Meddler>);

impl Drop for Observer {
    fn drop(&mut self) {
        self.0.comes(Moment::ObserverDropped);
    }
}

/// Three registrations and an end of the session, with a meddler. The first registration ends with a request that has no
/// answer, so that a call is dropped too; the second is refused, the third assigned. The state of the machine when the meddler acted; `None` when the moment did
/// not come so often.
async fn session_with(act: Act, moment: Moment, nth: usize) -> Option<String> {
    let transport = Transport::answering([refused(429_001, Some(3)), assigning(), assigning()]);
    transport.then_never().then(secs(0), refused(401_002, None)).then(secs(0), assigned());
    transport.end_of_session(Duration::from_millis(100), Ok(()));
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
        acted_in: Mutex::default(),
    });
    meddler.observes();
    let hook = Arc::clone(&meddler);
    transport.hook(Some(Arc::new(move |moment| {
        if moment == Moment::CallBegan {
            // From now on the registration alone holds the observer that it began with.
            hook.observes();
        }
        hook.comes(moment);
    })));

    let events = &mut machine.operation_status();
    for _ in 0..3 {
        let outcome = meddler.outcome_of(machine.register(request()), events).await;
        let kind = outcome.map_err(|error| error.kind());
        // Another registration may be in progress: one that the meddler keeps.
        let is_expected = match kind {
            Ok(_) | Err(ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::Rejected) => true,
            Err(ErrorKind::InvalidOperation) => act == Act::RegisterAndKeep,
            Err(_) => false,
        };
        assert!(is_expected, "{act:?} {moment:?} {nth}: {kind:?}");
    }
    let ended = meddler.outcome_of(machine.end_session(), events).await;
    let kind = ended.map_err(|error| error.kind());
    assert!(matches!(kind, Ok(()) | Err(ErrorKind::Timeout)), "{act:?} {moment:?} {nth}: {kind:?}");
    transport.forget_script();
    transport.then(secs(0), assigned());
    let kept = std::mem::take(&mut *meddler.kept.lock().unwrap());
    for future in kept {
        timeout(LONG, future)
            .await
            .unwrap_or_else(|_| panic!("it hangs: {act:?} {moment:?} {nth}"));
    }

    assert_eq!(transport.under_way(), 0, "{act:?} {moment:?} {nth}");
    let acted_in = meddler.acted_in.lock().unwrap().clone();
    transport.hook(None);
    machine.observe(|_| {});
    transport.forget_script();
    transport.then(secs(0), assigned());
    timeout(LONG, machine.register(request())).await.expect("an outcome").unwrap();
    timeout(LONG, machine.end_session()).await.expect("an end").unwrap();
    assert_eq!(transport.calls().last(), Some(&Call::End));
    assert_eq!(transport.most_under_way(), 1, "{act:?} {moment:?} {nth}");
    acted_in
}

#[tokio::test(start_paused = true)]
async fn each_call_from_each_place_in_each_state_has_an_outcome() {
    for (moment, states) in PLACES {
        let states: BTreeSet<String> = states.iter().map(|state| (*state).to_owned()).collect();
        for act in ACTS {
            let mut acted_in = BTreeSet::new();
            let mut times = 0;
            while let Some(state) = session_with(act, *moment, times + 1).await {
                acted_in.insert(state);
                times += 1;
                assert!(times < 100, "{act:?} at {moment:?} comes for ever");
            }
            assert_eq!(acted_in, states, "{act:?} at {moment:?}, {times} times");
        }
    }
}

/// Blocks the thread of the registration at the nth time that a moment comes, and calls the machine from another thread
/// meanwhile. `false` when the moment did not come so often.
fn called_while_blocked(act: Act, moment: Moment, nth: usize) -> bool {
    let transport = Transport::answering([refused(429_001, None), assigning(), assigned()]);
    transport.say_steps(vec![Step::Resolving { host: "dps.example".into() }, Step::Connected]);
    let machine = transport.machine_with(settings_with(|settings| {
        (settings.poll_interval, settings.poll_floor) = (Duration::ZERO, Duration::ZERO);
    }));
    let (blocked, is_blocked) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let released = Mutex::new(released);
    let left = AtomicUsize::new(nth);
    let registering = {
        let (machine, transport) = (machine.clone(), transport.clone());
        thread::spawn(move || {
            let here = thread::current().id();
            let block = Arc::new(move |at| {
                if at == moment
                    && thread::current().id() == here
                    && left.fetch_sub(1, Ordering::SeqCst) == 1
                {
                    blocked.send(()).unwrap();
                    let _ = released.lock().unwrap().recv();
                }
            });
            let observer = Arc::clone(&block);
            machine.observe(move |_| observer(Moment::Step));
            transport.hook(Some(block));
            let outcome = real_time().block_on(machine.register(request()));
            // What blocks is gone, so that nobody waits for it.
            transport.hook(None);
            machine.observe(|_| {});
            outcome.map_err(|error| error.kind())
        })
    };
    let came = is_blocked.recv().is_ok();
    if came {
        let (done, is_done) = mpsc::channel();
        let other = machine.clone();
        thread::spawn(move || {
            let short = Duration::from_millis(100);
            real_time().block_on(async {
                match act {
                    Act::Cancel => other.cancel(),
                    Act::EndAndDrop | Act::EndAndKeep => {
                        drop(timeout(short, other.end_session()).await);
                    }
                    Act::RegisterAndDrop | Act::RegisterAndKeep => {
                        drop(timeout(short, other.register(request())).await);
                    }
                    Act::Watch => drop(other.operation_status()),
                    Act::Observe => other.observe(|_| {}),
                    Act::Show => drop(format!("{other:?}")),
                }
            });
            done.send(()).unwrap();
        });
        is_done
            .recv_timeout(secs(30))
            .unwrap_or_else(|_| panic!("{act:?} waits for a thread blocked at {moment:?} {nth}"));
        release.send(()).unwrap();
    }
    let outcome = registering.join().unwrap();
    assert!(
        matches!(outcome, Ok(_) | Err(ErrorKind::Cancelled)),
        "{act:?} {moment:?} {nth}: {outcome:?}"
    );
    transport.be_healthy();
    real_time().block_on(async {
        let registered = timeout(secs(30), machine.register(request())).await;
        registered.expect("an outcome").unwrap();
        timeout(secs(30), machine.end_session()).await.expect("an end").unwrap();
    });
    assert_eq!(transport.under_way(), 0, "{act:?} {moment:?} {nth}");
    came
}

fn real_time() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn a_call_from_another_thread_keeps_to_its_time_while_the_registration_is_blocked() {
    for moment in [Moment::Step, Moment::CallBegan, Moment::CallOver] {
        for act in ACTS {
            let mut times = 0;
            while called_while_blocked(act, moment, times + 1) {
                times += 1;
            }
            assert!(times >= 3, "{act:?} at {moment:?} came {times} times");
        }
    }
}

#[test]
fn ending_the_session_outside_of_a_runtime_is_an_error_and_changes_nothing() {
    let transport = Transport::answering([assigned()]);
    let machine = transport.machine();
    let outside = |machine: &StateMachine<Transport>| {
        let mut context = Context::from_waker(Waker::noop());
        let Poll::Ready(ended) = pin!(machine.end_session()).poll(&mut context) else {
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
