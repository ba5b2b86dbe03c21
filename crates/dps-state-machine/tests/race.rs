//! Several transports: the first that is connected carries the registration, and nothing is left of the others.
#![expect(clippy::expect_used, reason = "a test may fail")]

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use dps_simulator::{answers::*, settings};
use dps_state_machine::{
    ConfigurationError, ConnectionError, CredentialError, Error, ErrorKind, OperationId,
    PeerActivity, Progress, Race, RegistrationRequest, RegistrationResult, Response, Stage,
    StateMachine, Step, TransportHandlers,
};
use tokio::time::{Instant, sleep};

const NAMES: [&str; 5] = ["mqtt", "amqp", "mqtt-ws", "amqp-ws", "http"];
const HEAD_START: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);

/// What the network does with one transport.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Silent,
    /// In milliseconds, as all of them.
    ClosedAfter(u64),
    OpenAfter(u64),
    /// It lets the connection stand, and no request through.
    OpenInVain,
    /// It lets the connection stand, and then nothing comes.
    OpenAndSilent,
    /// It lets the connection stand, and the answer comes late.
    AnswersAfter(u64),
    /// As that, and the peer acknowledges the request at once.
    AcknowledgesAndAnswersAfter(u64),
}
use Way::{
    AcknowledgesAndAnswersAfter, AnswersAfter, ClosedAfter, OpenAfter, OpenAndSilent, OpenInVain,
    Silent,
};

/// What became of one transport.
#[derive(Clone, Debug)]
struct Seen {
    way: Way,
    begun: usize,
    connecting: usize,
    is_open: bool,
    registered: usize,
    polled: usize,
    answers: Vec<Answer>,
}

#[derive(Clone)]
struct Fake(Arc<Mutex<Seen>>);

impl Fake {
    fn new(way: Way) -> Self {
        let (begun, connecting, registered, polled) = (0, 0, 0, 0);
        let (is_open, answers) = (false, Vec::new());
        Self(Arc::new(Mutex::new(Seen {
            way,
            begun,
            connecting,
            is_open,
            registered,
            polled,
            answers,
        })))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().expect("what was seen")
    }

    async fn answer(&self, progress: &Progress) -> Answer {
        let way = self.seen().way;
        match way {
            OpenAndSilent => std::future::pending().await,
            AnswersAfter(millis) => sleep(Duration::from_millis(millis)).await,
            AcknowledgesAndAnswersAfter(millis) => {
                progress.saw(Some(PeerActivity::Acknowledged));
                sleep(Duration::from_millis(millis)).await;
            }
            _ => {}
        }
        let mut seen = self.seen();
        assert!(seen.is_open, "a request needs a connection");
        if seen.way == OpenInVain {
            seen.is_open = false;
            return Err(ConnectionError::lost(Stage::Register, "it was reset").into());
        }
        if seen.answers.is_empty() { assigned() } else { seen.answers.remove(0) }
    }
}

/// Counts a connection that is being made, until that is over or dropped.
struct Connecting(Fake);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.seen().connecting -= 1;
    }
}

impl TransportHandlers for Fake {
    async fn connect(&mut self, _: &RegistrationRequest, progress: &Progress) -> Result<(), Error> {
        let way = {
            let mut seen = self.seen();
            seen.begun += 1;
            seen.connecting += 1;
            seen.way
        };
        let _connecting = Connecting(self.clone());
        progress.enter(&Step::Connecting { address: "dps.example:1".into() });
        match way {
            Silent => std::future::pending().await,
            ClosedAfter(millis) => {
                sleep(Duration::from_millis(millis)).await;
                let error = ConnectionError::new(Stage::Connect, "the port is closed");
                Err(error.hint("open the port").into())
            }
            OpenAfter(millis) => {
                sleep(Duration::from_millis(millis)).await;
                self.seen().is_open = true;
                Ok(())
            }
            OpenInVain | OpenAndSilent | AnswersAfter(_) | AcknowledgesAndAnswersAfter(_) => {
                self.seen().is_open = true;
                Ok(())
            }
        }
    }

    async fn registration_request(
        &mut self,
        _: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.seen().registered += 1;
        self.answer(progress).await
    }

    async fn query_operation_status(
        &mut self,
        _: &RegistrationRequest,
        _: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.seen().polled += 1;
        self.answer(progress).await
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        self.seen().is_open = false;
        Ok(())
    }
}

/// A device with five transports in one network.
struct Device {
    transports: Vec<Fake>,
    machine: StateMachine<Race<Fake>>,
    steps: Arc<Mutex<Vec<Step>>>,
}

impl Device {
    fn new(ways: [Way; 5]) -> Self {
        Self::with(ways, |race| race)
    }

    fn with(ways: [Way; 5], change: impl FnOnce(Race<Fake>) -> Race<Fake>) -> Self {
        let transports: Vec<Fake> = ways.into_iter().map(Fake::new).collect();
        let mut named = NAMES.into_iter().zip(transports.clone());
        let race = Race::new(named.next().expect("a transport"), named);
        let machine =
            StateMachine::new(change(race.head_start(HEAD_START).patience(PATIENCE)), settings());
        let steps = Arc::<Mutex<Vec<Step>>>::default();
        let seen = Arc::clone(&steps);
        machine.observe(move |step| seen.lock().expect("a list").push(step.clone()));
        Self { transports, machine, steps }
    }

    async fn register(&self) -> Result<RegistrationResult, Error> {
        self.machine.register(request()).await
    }

    fn all<V>(&self, what: impl Fn(&Seen) -> V) -> Vec<V> {
        self.transports.iter().map(|transport| what(&transport.seen())).collect()
    }

    /// Nobody connects any more, and at most the one of this name has a connection.
    fn assert_nothing_is_left_but(&self, name: &str) {
        for (of, transport) in NAMES.iter().zip(&self.transports) {
            let seen = transport.seen();
            assert_eq!(seen.connecting, 0, "{of} still connects");
            assert!(!seen.is_open || *of == name, "{of} is still connected");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_transport_that_is_connected_carries_the_registration() {
    let rows = [
        // In health the others never begin, even if the preferred one takes its time.
        ([OpenAfter(100); 5], "mqtt", 100, 1),
        (
            [OpenAfter(1900), OpenAfter(1), OpenAfter(1), OpenAfter(1), OpenAfter(1)],
            "mqtt",
            1900,
            1,
        ),
        // A closed port costs nothing but the time in which it says so.
        ([ClosedAfter(50), OpenAfter(100), Silent, Silent, Silent], "amqp", 150, 2),
        ([ClosedAfter(50), ClosedAfter(50), OpenAfter(100), Silent, Silent], "mqtt-ws", 200, 3),
        // A silent one costs the head start, however many are.
        ([Silent, OpenAfter(100), Silent, Silent, Silent], "amqp", 2100, 5),
        ([Silent, Silent, Silent, Silent, OpenAfter(100)], "http", 2100, 5),
        ([ClosedAfter(50), Silent, Silent, Silent, OpenAfter(100)], "http", 2100, 5),
        // The preferred one goes on beside the others.
        ([OpenAfter(2500), Silent, OpenAfter(1000), Silent, Silent], "mqtt", 2500, 5),
        // Of several that get through at one moment the first in the order counts.
        ([Silent, Silent, OpenAfter(100), OpenAfter(100), OpenAfter(100)], "mqtt-ws", 2100, 5),
    ];
    for (ways, name, millis, begun) in rows {
        let (device, start) = (Device::new(ways), Instant::now());
        let result = device.register().await.expect("an assignment");
        assert_eq!(result.transport.as_deref(), Some(name), "{ways:?}");
        assert_eq!(start.elapsed().as_millis(), millis, "{ways:?}");
        assert_eq!(device.all(|seen| seen.begun).iter().sum::<usize>(), begun, "{ways:?}");
        device.assert_nothing_is_left_but(name);
    }
}

#[tokio::test(start_paused = true)]
async fn in_every_network_it_takes_at_most_the_head_start_longer_than_the_best_transport() {
    let kinds = [Silent, ClosedAfter(50), OpenAfter(100), OpenAfter(3000)];
    for number in 0..kinds.len().pow(5) {
        let ways =
            [0, 1, 2, 3, 4].map(|place| kinds[number / kinds.len().pow(place) % kinds.len()]);
        let best = ways.iter().filter_map(|way| match way {
            OpenAfter(millis) => Some(Duration::from_millis(*millis)),
            _ => None,
        });
        let (device, start) = (Device::new(ways), Instant::now());
        let outcome = device.register().await;
        let taken = start.elapsed();
        match best.min() {
            Some(best) => {
                let name = outcome.expect("an assignment").transport.expect("a name");
                assert!(taken <= best + HEAD_START, "{ways:?}: {taken:?} over {name}");
                assert_eq!(device.all(|seen| seen.registered).iter().sum::<usize>(), 1, "{ways:?}");
                device.assert_nothing_is_left_but(&name);
            }
            None => {
                let error = outcome.expect_err("nothing gets through");
                assert_eq!(error.kind(), ErrorKind::Connection, "{ways:?}: {error}");
                assert!(taken <= PATIENCE, "{ways:?}: {taken:?}");
                for name in NAMES {
                    assert!(error.to_string().contains(name), "{ways:?}: {error}");
                }
                device.assert_nothing_is_left_but("");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn when_none_gets_through_the_error_names_what_each_has_met() {
    let ways = [ClosedAfter(100), Silent, ClosedAfter(10), ClosedAfter(10), Silent];
    let device = Device::with(ways, |race| race.left_out("pigeon", "it is not compiled in"));
    let error = device.register().await.expect_err("nothing gets through");
    assert_eq!(
        error.to_string(),
        "no transport gets through: mqtt, mqtt-ws, amqp-ws: the port is closed; \
         amqp: not connected after 9.9 s, in the stage connect; \
         http: not connected after 8.0 s, in the stage connect; pigeon: it is not compiled in"
    );
    assert_eq!(error.stage(), Some(Stage::Connect));
    let hint = error.hint().expect("a hint of its own where they differ");
    assert!(hint.starts_with("look at each of them"), "{hint}");
    assert!(error.is_retryable());
    let steps = device.steps.lock().expect("a list");
    let failed = |step: &&Step| matches!(step, Step::TransportFailed { .. });
    assert_eq!(steps.iter().filter(failed).count(), 3, "{steps:?}");
}

/// Fails at once, in another way than at the connection.
struct Unfit(Error);

impl TransportHandlers for Unfit {
    async fn connect(&mut self, _: &RegistrationRequest, _: &Progress) -> Result<(), Error> {
        Err(self.0.clone())
    }

    async fn registration_request(
        &mut self,
        _: &RegistrationRequest,
        _: &Progress,
    ) -> Result<Response, Error> {
        Err(Error::InvalidOperation)
    }

    async fn query_operation_status(
        &mut self,
        _: &RegistrationRequest,
        _: &OperationId,
        _: &Progress,
    ) -> Result<Response, Error> {
        Err(Error::InvalidOperation)
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_matter_of_the_connection_is_said_as_by_one_transport() {
    let force = || Error::from(ConfigurationError::new("force", "", "MQTT can't carry it"));
    let closed = || Error::from(ConnectionError::new(Stage::Tls, "no TLS"));
    let token = || Error::from(CredentialError::new("the token is gone"));
    let rows = [
        (force(), force(), ErrorKind::Configuration, "MQTT can't carry it"),
        (
            force(),
            closed(),
            ErrorKind::Connection,
            "mqtt: force: MQTT can't carry it; amqp: no TLS",
        ),
        (token(), closed(), ErrorKind::Credential, "the token is gone"),
    ];
    for (first, second, kind, says) in rows {
        let race = Race::new(("mqtt", Unfit(first)), [("amqp", Unfit(second))]);
        let error = StateMachine::new(race, settings()).register(request()).await.expect_err("no");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().ends_with(says), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn polls_the_end_of_the_session_and_the_next_registration_keep_to_the_transport() {
    let device = Device::new([ClosedAfter(50), Silent, OpenAfter(100), Silent, Silent]);
    device.transports[2].seen().answers = vec![assigning(), assigning(), assigned()];
    let result = device.register().await.expect("an assignment");
    assert_eq!((result.transport.as_deref(), result.polls), (Some("mqtt-ws"), 2));
    assert_eq!(device.all(|seen| (seen.registered, seen.polled))[2], (1, 2));
    // Within the session nothing is tried anew.
    device.register().await.expect("an assignment");
    assert_eq!(device.all(|seen| seen.begun), [1, 1, 1, 1, 1]);
    device.machine.end_session().await.expect("the end of the session");
    device.assert_nothing_is_left_but("");
    device.register().await.expect("an assignment");
    assert_eq!(device.all(|seen| seen.begun), [1, 1, 2, 1, 1], "the one that worked begins");
}

#[tokio::test(start_paused = true)]
async fn the_race_goes_on_when_one_that_is_connected_breaks_or_is_silent_before_an_answer() {
    let rows = [
        ([OpenInVain, OpenAfter(100), OpenAfter(1), OpenAfter(1), OpenAfter(1)], "amqp", 100),
        ([OpenInVain, OpenInVain, OpenInVain, OpenInVain, OpenAfter(100)], "http", 100),
        ([OpenInVain, ClosedAfter(50), OpenInVain, Silent, OpenAfter(100)], "http", 2150),
        // A third of the patience, or three times what the connection took.
        ([OpenAndSilent, OpenAfter(100), Silent, Silent, Silent], "amqp", 3433),
        ([OpenAndSilent, OpenAndSilent, OpenAfter(0), Silent, Silent], "mqtt-ws", 6667),
    ];
    for (ways, name, millis) in rows {
        let (device, start) = (Device::new(ways), Instant::now());
        for again in [false, true] {
            let result = device.register().await.expect("an assignment");
            assert_eq!(result.transport.as_deref(), Some(name), "{ways:?}, {again}");
            device.machine.end_session().await.expect("the end of the session");
            if !again {
                let taken = start.elapsed().as_millis();
                assert!(taken.abs_diff(millis) <= 2, "{ways:?}: {taken}");
            }
        }
        let sent = device.all(|seen| seen.registered).iter().sum::<usize>();
        let dead = ways.iter().filter(|way| matches!(way, OpenInVain | OpenAndSilent)).count();
        assert_eq!(sent, dead + 2, "{ways:?}: each dead one is asked once, the other begins anew");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_connected_is_given_up_only_where_another_is() {
    let rows = [
        // However late the answer is, and whatever the others meet beside it.
        ([Silent, Silent, AnswersAfter(6000), Silent, Silent], "mqtt-ws", 8000),
        ([Silent, Silent, Silent, Silent, AnswersAfter(20_000)], "http", 22_000),
        ([AnswersAfter(9000), ClosedAfter(50), Silent, ClosedAfter(50), Silent], "mqtt", 9000),
        // It may answer until the other one is connected.
        ([AnswersAfter(4000), OpenAfter(1000), Silent, Silent, Silent], "mqtt", 4000),
        // What has acknowledged the request is not dead.
        ([AcknowledgesAndAnswersAfter(25_000); 5], "mqtt", 25_000),
    ];
    for (ways, name, millis) in rows {
        let (device, start) = (Device::new(ways), Instant::now());
        let result = device.register().await.expect("an assignment");
        assert_eq!(result.transport.as_deref(), Some(name), "{ways:?}");
        assert_eq!(start.elapsed().as_millis(), millis, "{ways:?}");
        assert_eq!(device.all(|seen| seen.registered).iter().sum::<usize>(), 1, "{ways:?}");
        device.assert_nothing_is_left_but(name);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_has_answered_in_the_session_is_not_given_up() {
    let device = Device::new([OpenAfter(0); 5]);
    device.transports[0].seen().answers = vec![refused(429_001, Some(1))];
    device.register().await.expect("an assignment");
    device.transports[0].seen().way = AnswersAfter(9000);
    let result = device.register().await.expect("an assignment");
    assert_eq!(result.transport.as_deref(), Some("mqtt"));
    assert_eq!(device.all(|seen| seen.begun), [1, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_connected_ahead_has_as_long_for_its_answer_as_one_that_was_not() {
    let [mqtt, amqp] = [OpenAfter(1900), OpenAfter(0)].map(Fake::new);
    let mut race = Race::new(("mqtt", mqtt.clone()), [("amqp", amqp)]).patience(PATIENCE);
    let progress = Progress::default();
    race.connect(&request(), &progress).await.expect("a connection");
    mqtt.seen().way = AnswersAfter(5000);
    let response = race.registration_request(&request(), &progress).await.expect("an answer");
    assert_eq!(response.transport, Some("mqtt"), "three times as long as the connection took");
}

#[tokio::test(start_paused = true)]
async fn the_last_one_that_is_connected_has_all_the_time_for_its_answer() {
    let ways = [OpenAndSilent, ClosedAfter(50), OpenInVain, ClosedAfter(50), OpenAndSilent];
    let error = Device::new(ways).register().await.expect_err("nothing gets through");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    // What all of them advise is the advice.
    let error = Device::new([ClosedAfter(50); 5]).register().await.expect_err("closed");
    assert_eq!(error.hint().as_deref(), Some("open the port"));
    // Where none is silent at last, all that was met is named.
    let ways = [OpenAndSilent, ClosedAfter(50), OpenInVain, ClosedAfter(50), OpenInVain];
    let error = Device::new(ways).register().await.expect_err("nothing gets through");
    assert_eq!(
        error.to_string(),
        "no transport gets through: mqtt: connected, and then no answer within 3.4 s; \
         amqp, amqp-ws: the port is closed; mqtt-ws, http: it was reset"
    );
    // A device that takes its time between request and answer keeps to the one that is connected.
    let device = Device::with(ways, Race::waiting_for_answers);
    assert_eq!(device.register().await.expect_err("silence").kind(), ErrorKind::Timeout);
    assert_eq!(device.all(|seen| seen.begun), [1, 0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_dropped_or_times_out_leaves_nothing_and_can_be_made_again() {
    for millis in [1, 1999, 2050, 9000] {
        let device = Device::new([Silent; 5]);
        let dropped = tokio::time::timeout(Duration::from_millis(millis), device.register()).await;
        assert!(dropped.is_err(), "{millis}");
        device.assert_nothing_is_left_but("");
        device.transports[4].seen().way = OpenAfter(100);
        let result = device.register().await.expect("an assignment");
        assert_eq!(result.transport.as_deref(), Some("http"), "{millis}");
    }
    // The bound of the machine is shorter here.
    let device = Device::with([Silent; 5], |race| race.patience(Duration::MAX));
    let error = device.register().await.expect_err("nothing gets through");
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Timeout, Some(Stage::Connect)));
    device.assert_nothing_is_left_but("");
}
