//! The agent in paused time: a year of it takes no time, and it never asks more often than the rules allow.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::{
    BoxTransport, CertificateFolder, Error, OperationId, Progress, RegistrationRequest, Response,
    Settings, StateMachine, TransportHandlers,
    serde_json::{Value, json},
};
use dps_provisioner::{
    Agent, Assignment, AssignmentFile, HubRefusal, Identity, Order, Provisioner, RecoveryPolicy,
    Surroundings,
};
use rcgen::{CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, KeyPair};
use tokio::time::{Instant, sleep_until};

use crate::support::{Folder, ID, at, identity};

const DAY: u64 = 24 * 3600;

/// Starts with the beginning of the tests' time, and goes as tokio's timer does.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn seconds(self) -> u64 {
        self.0.elapsed().as_secs()
    }

    fn now(self) -> SystemTime {
        at(0) + self.0.elapsed()
    }
}

/// What the service does from which second on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Service {
    Assigns,
    /// Without a certificate.
    AssignsOnly,
    /// 429, and to come back after this time.
    Throttles(u64),
    Refuses,
    Away,
}

/// A service that issues certificates for 30 days.
#[derive(Clone)]
struct Fake {
    clock: Clock,
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    script: Arc<Vec<(u64, Service)>>,
    /// When it was asked, and whether for a certificate.
    calls: Arc<Mutex<Vec<(u64, bool)>>>,
}

impl Fake {
    fn new(clock: Clock, script: &[(u64, Service)]) -> Self {
        let mut root = CertificateParams::default();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
        Self {
            clock,
            issuer: Arc::new(issuer),
            script: Arc::new(script.to_vec()),
            calls: Arc::default(),
        }
    }

    fn calls(&self) -> Vec<(u64, bool)> {
        self.calls.lock().unwrap().clone()
    }

    fn service(&self) -> Service {
        let now = self.clock.seconds();
        self.script.iter().rev().find(|(from, _)| *from <= now).unwrap().1
    }

    fn chain(&self, csr: &str) -> Value {
        let csr = STANDARD.decode(csr).unwrap();
        let mut request = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let now = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        request.params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now;
        request.params.not_after = request.params.not_before + Duration::from_secs(30 * DAY);
        let leaf = request.signed_by(&*self.issuer).unwrap();
        json!([STANDARD.encode(leaf.der()), STANDARD.encode(self.issuer.der())])
    }
}

impl TransportHandlers for Fake {
    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        _: &Progress,
    ) -> Result<Response, Error> {
        let body: Value = dps_client::serde_json::from_slice(&request.body()).unwrap();
        let csr = body["csr"].as_str();
        self.calls.lock().unwrap().push((self.clock.seconds(), csr.is_some()));
        match self.service() {
            service @ (Service::Assigns | Service::AssignsOnly) => {
                let mut state = json!({ "assignedHub": "one.example", "deviceId": ID });
                if let Some(csr) = csr.filter(|_| service == Service::Assigns) {
                    state["issuedCertificateChain"] = self.chain(csr);
                }
                let answer = json!({ "status": "assigned", "registrationState": state });
                Ok(Response::new(200, answer.to_string()))
            }
            Service::Throttles(seconds) => {
                Ok(Response::new(429, "").retry_after(Some(Duration::from_secs(seconds))))
            }
            Service::Refuses => Ok(Response::new(401, "")),
            Service::Away => {
                let stage = dps_client::Stage::Connect;
                Err(dps_client::ConnectionError::new(stage, "it is away").into())
            }
        }
    }

    async fn query_operation_status(
        &mut self,
        _: &RegistrationRequest,
        _: &OperationId,
        _: &Progress,
    ) -> Result<Response, Error> {
        Ok(Response::new(404, ""))
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// Gives the orders when their time has come, and ends the agent with the last one.
struct Around {
    clock: Clock,
    orders: Vec<(u64, Option<Order>)>,
    assigned: Vec<u64>,
    failed: Vec<(u64, String, Duration)>,
    /// From when to when the device's clock is 50 years ahead.
    ahead: std::ops::Range<u64>,
}

impl Surroundings for Around {
    fn now(&self) -> SystemTime {
        let ahead = if self.ahead.contains(&self.clock.seconds()) { 50 * 365 * DAY } else { 0 };
        self.clock.now() + Duration::from_secs(ahead)
    }

    async fn order(&mut self) -> Option<Order> {
        let (when, order) = self.orders[0];
        sleep_until(self.clock.0 + Duration::from_secs(when)).await;
        self.orders.remove(0);
        order
    }

    async fn assigned(&mut self, _: &Assignment) {
        self.assigned.push(self.clock.seconds());
    }

    fn failed(&mut self, error: &Error, retry_in: Duration) {
        self.failed.push((self.clock.seconds(), error.to_string(), retry_in));
    }
}

/// Runs an agent for so long, under these orders, with this service.
struct Run {
    folder: Folder,
    clock: Clock,
    fake: Fake,
    policy: RecoveryPolicy,
    /// As of [`Around`].
    ahead: std::ops::Range<u64>,
}

impl Run {
    fn new(script: &[(u64, Service)]) -> Self {
        let clock = Clock(Instant::now());
        let (fake, policy) = (Fake::new(clock, script), RecoveryPolicy::default());
        Self { folder: Folder::new(), clock, fake, policy, ahead: 0..0 }
    }

    /// When the service was asked.
    fn asked(&self) -> Vec<u64> {
        self.fake.calls().into_iter().map(|(at, _)| at).collect()
    }

    async fn until(&self, end: u64, orders: &[(u64, Order)], certified: bool) -> Around {
        let file = AssignmentFile::new(self.folder.path("assignment.json")).unwrap();
        let provisioner = Provisioner::open(file, identity()).unwrap().policy(self.policy);
        let mut settings = Settings::default();
        settings.registration_timeout = Duration::from_secs(60);
        let client = StateMachine::new(BoxTransport::new(self.fake.clone()), settings);
        let request = RegistrationRequest::new(ID.parse().unwrap());
        let provisioner = match certified {
            true => provisioner.certificate(self.certificates()),
            false => provisioner,
        };
        let mut agent = Agent::new(provisioner, client, request, None);
        let orders = orders.iter().map(|(when, order)| (*when, Some(*order)));
        let orders = orders.chain([(end, None)]).collect();
        let (assigned, failed) = (Vec::new(), Vec::new());
        let ahead = self.ahead.clone();
        let mut around = Around { clock: self.clock, orders, assigned, failed, ahead };
        agent.run(&mut around).await;
        assert_eq!(self.clock.seconds(), end);
        around
    }

    fn certificates(&self) -> CertificateFolder {
        CertificateFolder::open(self.folder.path("certificate")).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_year_has_a_renewal_at_two_thirds_of_each_certificate_and_no_other_request() {
    let run = Run::new(&[(0, Service::Assigns)]);
    let around = run.until(365 * DAY, &[], true).await;
    let calls = run.fake.calls();
    assert_eq!(calls[0], (0, true));
    for pair in calls.windows(2) {
        let days = (pair[1].0 - pair[0].0) as f64 / DAY as f64;
        // Two thirds of 30 days, and up to a tenth of what is left.
        assert!((20.0..=21.1).contains(&days), "{days}: {calls:?}");
    }
    assert!((17..=18).contains(&calls.len()), "{calls:?}");
    assert_eq!(around.assigned.len(), calls.len());
    assert!(around.failed.is_empty(), "{:?}", around.failed);
    let stored = run.certificates().load().unwrap();
    assert!(stored.life_used(run.clock.now()) < 0.71);
}

#[tokio::test(start_paused = true)]
async fn a_device_with_an_assignment_and_without_cause_asks_nobody_over_a_year_of_boots() {
    let run = Run::new(&[(0, Service::Assigns), (1, Service::Away)]);
    for boot in 1..=12 {
        let around = run.until(boot * 30 * DAY, &[], false).await;
        assert_eq!((around.assigned.len(), around.failed.len()), (1, 0), "{boot}");
    }
    assert_eq!(run.fake.calls(), [(0, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_away_is_asked_less_and_less_often_and_one_that_throttles_when_it_says() {
    let run = Run::new(&[
        (0, Service::Away),
        (DAY, Service::Throttles(7200)),
        (2 * DAY, Service::Refuses),
        (4 * DAY, Service::Assigns),
    ]);
    run.until(5 * DAY, &[], false).await;
    let calls: Vec<u64> = run.fake.calls().into_iter().map(|(at, _)| at).collect();
    let least = |from: u64, to: u64| {
        let within = calls.windows(2).filter(|pair| pair[0] >= from && pair[1] < to);
        within.map(|pair| pair[1] - pair[0]).collect::<Vec<u64>>()
    };
    let away = least(0, DAY);
    assert_eq!(away[0], 1, "{away:?}");
    assert!(away[8..].iter().all(|wait| (60..=73).contains(wait)), "{away:?}");
    assert!(least(DAY, 2 * DAY).iter().all(|wait| *wait >= 7200), "{calls:?}");
    assert!(least(2 * DAY, 4 * DAY).iter().all(|wait| (300..=4501).contains(wait)), "{calls:?}");
    assert!(calls.iter().filter(|at| **at >= 4 * DAY).count() == 1, "{calls:?}");
    assert!(calls.len() < 1440 + 12 + 60, "{}", calls.len());
}

#[tokio::test(start_paused = true)]
async fn orders_to_register_and_refusals_of_the_hub_lead_to_no_more_than_the_rules_allow() {
    let run = Run::new(&[(0, Service::Assigns)]);
    // Someone asks every second for an hour: that is one registration a minute.
    let orders: Vec<_> = (1..=3600).map(|second| (second, Order::Register)).collect();
    run.until(3661, &orders, false).await;
    let calls = run.fake.calls();
    assert!((61..=62).contains(&calls.len()), "{calls:?}");
    assert!(calls.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 60), "{calls:?}");
    // A hub that refuses whatever the service assigns, for a day.
    let hub = Order::HubEnded(HubRefusal::NotAuthorized);
    let from = run.clock.seconds();
    let (mut orders, mut end) = (Vec::new(), from);
    for wait in [300, 600, 1200, 2400].into_iter().chain([3600; 21]) {
        orders.push((end + 1, hub));
        end += wait * 5 / 4 + 3;
    }
    run.until(end, &orders, false).await;
    let later = run.fake.calls().len() - calls.len();
    assert_eq!(later, 25, "one for each refusal, each after its wait");
    // Once it is let in nothing is due any more.
    let orders =
        [(end + 1, Order::HubEnded(HubRefusal::UnknownDevice)), (end + 2, Order::HubConnected)];
    run.until(end + 30 * DAY, &orders, false).await;
    assert_eq!(run.fake.calls().len() - calls.len(), 25);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_keeps_the_certificate_and_is_tried_until_it_succeeds() {
    let run =
        Run::new(&[(0, Service::Assigns), (DAY, Service::Away), (26 * DAY, Service::Assigns)]);
    let around = run.until(27 * DAY, &[], true).await;
    let calls = run.fake.calls();
    let tries: Vec<u64> = calls.iter().map(|(at, _)| *at).collect();
    assert!(
        tries[1] >= 20 * DAY && tries.windows(2).skip(1).all(|pair| pair[1] - pair[0] >= 6 * 3600)
    );
    assert!(around.failed.len() > 10 && around.failed.len() < 25, "{:?}", around.failed);
    let stored = run.certificates().load().unwrap();
    assert!(stored.life_used(run.clock.now()) < 0.05, "renewed");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_issues_no_certificate_is_asked_for_one_once_a_day_whatever_restarts() {
    let run = Run::new(&[(0, Service::AssignsOnly)]);
    for half_day in 1..20 {
        run.until(half_day * DAY / 2, &[], true).await;
    }
    let calls = run.fake.calls();
    assert!((9..=10).contains(&calls.len()), "{}: {calls:?}", calls.len());
    assert!(calls.iter().all(|(_, asks)| *asks), "{calls:?}");
    // An operator who gave it a policy does not wait for that.
    let end = 9 * DAY + DAY / 2;
    run.until(end + 100, &[(end + 10, Order::Register)], true).await;
    assert_eq!(run.fake.calls().len(), calls.len() + 1);
    assert_eq!(run.fake.calls().last(), Some(&(end + 10, true)));
}

#[tokio::test(start_paused = true)]
async fn a_device_without_a_certificate_asks_as_often_as_one_without_an_assignment() {
    let run = Run::new(&[(0, Service::Assigns), (1, Service::Away), (100, Service::Assigns)]);
    run.until(1, &[], false).await;
    run.until(200, &[], true).await;
    let asked = run.asked();
    assert_eq!(asked[..3], [0, 1, 2], "{asked:?}");
    assert!((100..=173).contains(asked.last().unwrap()), "{asked:?}");
    assert!(run.certificates().load().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_ahead_puts_off_neither_a_renewal_nor_a_registration() {
    let mut run =
        Run::new(&[(0, Service::Assigns), (DAY, Service::Away), (4 * DAY, Service::Assigns)]);
    run.ahead = 3 * DAY - 1800..3 * DAY;
    let refused = Order::HubEnded(HubRefusal::NotAuthorized);
    let orders = [(3 * DAY - 1, refused), (5 * DAY, Order::HubConnected)];
    run.until(22 * DAY, &orders, true).await;
    let asked = run.asked();
    // A hub's refusal one second before the clock is set right, and a service that is away for a day more.
    let after = asked.iter().find(|at| **at >= 3 * DAY).unwrap();
    assert!((3 * DAY + 298..=3 * DAY + 375).contains(after), "{asked:?}");
    let renewed: Vec<_> = asked.iter().filter(|at| **at > 5 * DAY).collect();
    assert_eq!(renewed.len(), 1, "{asked:?}");
    assert!((20 * DAY..=21 * DAY + DAY / 10).contains(renewed[0]), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn who_mends_a_device_has_it_register_at_once_whatever_it_waits_for() {
    let run = Run::new(&[(0, Service::Refuses), (200, Service::Assigns)]);
    // The first one finds it as it was: what fails is tried again as before, and no more often.
    let orders = [(10, Order::Register), (11, Order::Register), (200, Order::Register)];
    run.until(DAY, &orders, false).await;
    assert_eq!(run.asked(), [0, 60, 200]);
}

#[tokio::test(start_paused = true)]
async fn no_answer_of_the_service_retires_a_device() {
    let run = Run::new(&[(0, Service::Throttles(100_000_000)), (10, Service::Assigns)]);
    run.until(2 * DAY, &[], false).await;
    assert_eq!(run.asked(), [0, DAY]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_of_another_process_is_tried_again_in_seconds() {
    for with_certificate in [false, true] {
        let run = Run::new(&[(0, Service::Assigns)]);
        let _folder = match with_certificate {
            true => {
                run.until(1, &[], true).await;
                // Its renewal is due.
                tokio::time::advance(Duration::from_secs(25 * DAY)).await;
                Some(run.certificates().prepare().unwrap())
            }
            false => None,
        };
        let state = run.folder.path("assignment.json");
        let lock = std::fs::File::create(state.with_extension("json.lock")).unwrap();
        if !with_certificate {
            lock.lock().unwrap();
        }
        let now = run.clock.seconds();
        let around = run.until(now + 20, &[], with_certificate).await;
        let waits: Vec<_> = around.failed.iter().map(|(_, _, wait)| wait.as_secs()).collect();
        assert!(waits.len() >= 4 && waits.iter().all(|wait| *wait < 30), "{waits:?}");
        assert!(around.failed.iter().all(|(_, error, _)| error.contains("another process")));
    }
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_another_process_has_stored_is_taken_without_a_registration() {
    let run = Run::new(&[(0, Service::Assigns)]);
    run.until(1, &[], false).await;
    let by_hand = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        let file = AssignmentFile::new(run.folder.path("assignment.json")).unwrap();
        let mut device = Provisioner::open(file, identity()).unwrap();
        let request = RegistrationRequest::new(ID.parse().unwrap());
        let client = crate::support::Fake::new("two.example").client();
        device.register(&client, request, None, || at(100)).await.unwrap();
    };
    let (around, ()) = tokio::join!(run.until(3600, &[], false), by_hand);
    assert_eq!((around.assigned.len(), run.asked()), (2, vec![0]));
    assert!(around.assigned[1] <= 1900, "{:?}", around.assigned);
}

#[tokio::test(start_paused = true)]
async fn the_certificate_of_another_device_is_none_of_this_ones() {
    let run = Run::new(&[(0, Service::Assigns)]);
    run.until(1, &[], false).await;
    // The folder's former owner has one that is valid for long.
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "pump-16");
    let key = KeyPair::generate().unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    run.certificates().store(&chain, Some(&key.serialize_pem())).unwrap();
    run.until(DAY, &[], true).await;
    assert_eq!(run.fake.calls(), [(0, false), (1, true)]);
    let stored = run.certificates().load().unwrap();
    assert_eq!(stored.leaf().common_name.as_deref(), Some(ID));
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_asks_for_no_certificate_leaves_it_put_off() {
    let run = Run::new(&[(0, Service::AssignsOnly)]);
    let refused = (10, Order::HubEnded(HubRefusal::NotAuthorized));
    run.until(20 * 3600, &[refused], true).await;
    let calls = run.fake.calls();
    assert_eq!(calls.iter().map(|(_, asks)| *asks).collect::<Vec<_>>(), [true, false], "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_assignment_that_could_not_be_stored_is_stored_once_there_is_room() {
    for is_of_another_device in [false, true] {
        let run = Run::new(&[(0, Service::Away), (10, Service::Assigns)]);
        let (path, former) = (run.folder.path("assignment.json"), run.folder.path("former.json"));
        let file = AssignmentFile::new(&path).unwrap();
        if is_of_another_device {
            let identity = Identity { id_scope: "0ne00FFFFFF".parse().unwrap(), ..identity() };
            let mut device = Provisioner::open(file.clone(), identity).unwrap();
            let client = crate::support::Fake::new("two.example").client();
            let request = RegistrationRequest::new(ID.parse().unwrap());
            device.register(&client, request, None, || at(0)).await.unwrap();
        }
        // A folder in its place comes after the first try, and takes no file.
        let in_the_way = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let _ = std::fs::rename(&path, &former);
            std::fs::create_dir(&path).unwrap();
            tokio::time::sleep(Duration::from_secs(200)).await;
            std::fs::remove_dir(&path).unwrap();
            let _ = std::fs::rename(&former, &path);
        };
        let (around, ()) = tokio::join!(run.until(300, &[], false), in_the_way);
        assert_eq!(around.assigned.len(), 1, "{:?}", around.failed);
        let stored = file.load().unwrap().unwrap();
        assert_eq!(
            (stored.identity, stored.result.assigned_hub.as_str()),
            (identity(), "one.example")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_waits_for_ever_registers_once() {
    let mut run = Run::new(&[(0, Service::Refuses)]);
    run.policy.recover.initial = Duration::MAX;
    run.policy.recover.cap = Duration::MAX;
    run.until(DAY, &[], false).await;
    assert_eq!(run.asked(), [0]);
}
