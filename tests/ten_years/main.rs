//! A device's ten years, on each transport: from its enrollment to the end of its life, with one movable clock for the
//! device and the service. After every step it must hold that the service knows one device with one hub, that the device has
//! an assignment and a certificate once it has had them, and that it has sent no request more than its rules allow.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod clock;
mod device;
mod network;

use std::{fs, os::unix::fs::DirBuilderExt as _, panic::resume_unwind, path::Path, time::Duration};

use dps_client::{Config, ErrorKind, Roots, SymmetricKey, Transport};
use dps_emulator::{
    Attestation, Behavior, CertificatePolicy, ClockSetting, Emulator, Enrollment, EventKind,
    HubRefusal, Operation, Pair, RetryAfter,
};
use dps_provisioner::{Due, NextStep};

use clock::days;
use device::{Device, LONGEST_FIRST_WAIT};
use network::Network;

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ten-years.md");
const ONE: &str = "1 registration, 1 query";
const EACH: &str = "1 registration, 1 query each";
/// Longer than the 90 days that the service takes at most: ten years in ten seconds have no time for all those renewals.
const CERTIFICATE_DAYS: u16 = 365;
/// A certificate is good until two thirds of its life are over, in the course of this day,
const GOOD_UNTIL: u64 = 243;
/// and is due for renewal at the latest on this one: a tenth of the rest later.
const DUE_AT: u64 = 256;

/// The device, the service, and what is between them.
struct World {
    device: Device,
    network: Network,
    emulator: Option<Emulator>,
    /// The keys of the enrollment.
    keys: [SymmetricKey; 2],
    /// The hub that the device has, as far as the test knows.
    hub: Option<&'static str>,
    /// The last event of the service that was counted.
    counted: u64,
    timeline: String,
}

/// Requests at the service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Requests {
    registrations: usize,
    queries: usize,
}

/// What a step may cost.
#[derive(Clone, Copy)]
enum Allowed {
    Nothing,
    /// One registration and the one query that the service asks for.
    OneRegistration,
    /// The primary key refused, by the connection or in the answer to a registration, and one with the secondary key.
    RefusedAndOneRegistration,
}

impl World {
    async fn new(transport: Transport, authorities: [(&str, &str); 2]) -> Self {
        let name = format!("dps-ten-years-{}-{transport}", std::process::id());
        let disk = std::env::temp_dir().join(name);
        fs::remove_dir_all(&disk).unwrap_or_default();
        fs::DirBuilder::new().mode(0o700).create(&disk).unwrap();
        let keys = [SymmetricKey::random().unwrap(), SymmetricKey::random().unwrap()];
        let network = Network::new().await;
        let emulator = start(&disk, authorities[0]).await;
        let mut config = Config::new(emulator.id_scope().clone(), keys[0].clone().into());
        config = config.with_clock(clock::now);
        config.endpoint = format!("localhost:{}", network.service).parse().unwrap();
        // It was shipped with the root to come.
        config.roots = authorities.iter().fold(Roots::empty(), |roots, (certificate, _)| {
            roots.with_pem(certificate.as_bytes()).unwrap()
        });
        let device = Device {
            id: "pump-17".parse().unwrap(),
            transport,
            config,
            secondary: keys[1].clone().into(),
            hub_port: network.hub,
            disk,
        };
        Self {
            device,
            network,
            emulator: Some(emulator),
            keys,
            hub: None,
            counted: 0,
            timeline: String::new(),
        }
    }

    fn emulator(&self) -> &Emulator {
        self.emulator.as_ref().unwrap()
    }

    fn plug(&self) {
        let emulator = self.emulator();
        let service = match self.device.transport {
            Transport::Mqtt => emulator.mqtt_port(),
            Transport::Amqp => emulator.amqp_port(),
            _ => emulator.https_port(),
        };
        self.network.plug(service, emulator.mqtt_port());
    }

    /// The enrollment as the operator has it from now on.
    fn enroll(&self, hub: &str, keys: [&SymmetricKey; 2], refusal: Option<HubRefusal>) {
        let [primary, secondary] = keys.map(Clone::clone);
        let known = Attestation::SymmetricKey(Pair { primary, secondary: Some(secondary) });
        let enrollment = Enrollment::individual(self.device.id.clone(), known)
            .assign_to(hub)
            .certificate_policy(CertificatePolicy::issue_for_days(CERTIFICATE_DAYS))
            .behavior(Behavior::new().polls(1).retry_after(RetryAfter::Seconds(0)));
        let enrollment = match refusal {
            Some(refusal) => enrollment.hub_refusal(refusal),
            None => enrollment,
        };
        self.emulator().replace_enrollment(enrollment).unwrap();
    }

    fn advance(&self, by: Duration) {
        clock::advance(by);
        set_clock(self.emulator());
    }

    /// What has come to the service since the last time.
    fn requests(&mut self) -> Requests {
        let events = self.emulator().events().snapshot();
        let mut sent = Requests::default();
        for event in events.iter().filter(|event| event.sequence > self.counted) {
            match event.kind {
                EventKind::Request { operation: Operation::Register, .. } => {
                    sent.registrations += 1
                }
                EventKind::Request { operation: Operation::Query, .. } => sent.queries += 1,
                _ => {}
            }
        }
        self.counted = events.last().map_or(self.counted, |event| event.sequence);
        sent
    }

    /// The service begins anew with another authority for its certificate, and knows what it knew.
    async fn replace_the_root(&mut self, authority: (&str, &str)) {
        self.network.unplug();
        self.emulator.take().unwrap().stop().await;
        self.emulator = Some(start(&self.device.disk, authority).await);
        self.counted = 0;
        self.plug();
    }

    /// A step is over: what must hold, and a line of the timeline if it has one.
    fn over(&mut self, what: &str, allowed: Allowed) {
        let at = clock::shown();
        let sent = self.requests();
        let (registrations, queries) = match allowed {
            Allowed::Nothing => (0..=0, 0),
            Allowed::OneRegistration => (1..=1, 1),
            Allowed::RefusedAndOneRegistration => (1..=2, 1),
        };
        assert!(registrations.contains(&sent.registrations), "{at}: {what}: {sent:?}");
        assert_eq!(sent.queries, queries, "{at}: {what}");

        let known = self.emulator().devices();
        let hubs: Vec<_> = known.iter().filter_map(|it| it.assigned_hub.as_deref()).collect();
        assert_eq!(hubs, self.hub.as_slice(), "{at}: {what}: the service has {known:?}");
        let own = self.device.assignment().map(|it| it.result.assigned_hub);
        assert_eq!(own.as_deref(), self.hub, "{at}: {what}: the device");
        assert_eq!(self.device.has_certificate(), self.hub.is_some(), "{at}: {what}");
        if !what.is_empty() {
            self.note(
                what,
                match allowed {
                    Allowed::Nothing => "none",
                    Allowed::OneRegistration => ONE,
                    Allowed::RefusedAndOneRegistration => "refused, then 1 registration, 1 query",
                },
            );
        }
    }

    /// A line of the timeline.
    fn note(&mut self, what: &str, cost: &str) {
        let (at, hub) = (clock::shown(), self.hub.unwrap_or("none"));
        self.timeline += &format!("| {at} | {what} | {hub} | {cost} |\n");
    }

    /// The device runs until its certificate is due for renewal, and renews it, so many times.
    async fn renew(&mut self, times: u32) {
        for _ in 0..times {
            self.until_renewal();
            assert_eq!(self.device.register().await.unwrap(), 0);
            self.over("", Allowed::OneRegistration);
            self.device.connect().await.unwrap();
            self.over("", Allowed::Nothing);
        }
        self.note(&format!("{times} renewals at two thirds of a certificate's life"), EACH);
    }

    fn until_renewal(&self) {
        self.advance(days(GOOD_UNTIL));
        assert_eq!(self.device.due(), None, "{}: it is good still", clock::shown());
        self.advance(days(DUE_AT - GOOD_UNTIL));
        assert_eq!(self.device.due(), Some(Due::Certificate), "{}", clock::shown());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.device.disk).unwrap_or_default();
    }
}

fn set_clock(emulator: &Emulator) {
    emulator.set_clock(ClockSetting::Ahead(clock::ahead().as_secs_f64())).unwrap();
}

/// The service, with what it knew when it last ran.
async fn start(disk: &Path, (certificate, key): (&str, &str)) -> Emulator {
    let service = Emulator::builder().authority(certificate.as_bytes(), key.as_bytes()).unwrap();
    let emulator = service.state(disk.join("service.sqlite")).start().await.unwrap();
    set_clock(&emulator);
    emulator
}

/// One life. What it returns is its timeline.
async fn live(transport: Transport) -> String {
    let [old, new] = [(); 2].map(|()| dps_emulator::Config::make_authority().unwrap());
    let roots = [(old.0.as_str(), old.1.as_str()), (new.0.as_str(), new.1.as_str())];
    let mut world = World::new(transport, roots).await;
    let [primary, secondary] = world.keys.clone();
    let (north, south) = ("north.azure-devices.net", "south.azure-devices.net");

    world.enroll(north, [&primary, &secondary], None);
    world.over("the operator enrolls it", Allowed::Nothing);

    world.network.unplug();
    assert_eq!(world.device.due(), Some(Due::Missing));
    let error = world.device.register().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Connection, true), "{error}");
    world.over("first boot, without a network", Allowed::Nothing);

    world.plug();
    world.advance(Duration::from_secs(3600));
    assert_eq!(world.device.register().await.unwrap(), 0);
    world.hub = Some(north);
    world.over("it registers and gets a certificate", Allowed::OneRegistration);
    world.device.connect().await.unwrap();
    world.over("its hub lets it in by the certificate", Allowed::Nothing);

    world.network.unplug();
    world.advance(days(1));
    assert_eq!(world.device.due(), None);
    world.over("boot without a network: the assignment is on its disk", Allowed::Nothing);
    world.plug();
    // Its renewals count from its certificate.
    assert_eq!(world.device.register().await.unwrap(), 0);
    world.over("", Allowed::OneRegistration);

    world.renew(2).await;

    world.until_renewal();
    world.device.register_until_the_power_fails().await.unwrap();
    world.over(
        "the power fails while a new certificate is stored: the former one is whole",
        Allowed::OneRegistration,
    );
    world.device.connect().await.unwrap();
    assert_eq!(world.device.due(), Some(Due::Certificate), "it is due as before");
    assert_eq!(world.device.register().await.unwrap(), 0);
    world.over("it renews at the next boot", Allowed::OneRegistration);

    world.renew(2).await;

    world.enroll(north, [&primary, &secondary], Some(HubRefusal::Disabled));
    let (error, next) = world.device.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    let NextStep::Register { after } = next else { panic!("{next:?}") };
    assert!(after <= LONGEST_FIRST_WAIT, "{after:?}");
    assert_eq!(world.device.due(), None, "not before {after:?}");
    world.over("its hub refuses it: it is to register again, and waits", Allowed::Nothing);
    let meanwhile = Duration::from_secs(120);
    world.advance(meanwhile);
    let (_, next) = world.device.connect().await.unwrap_err();
    let NextStep::Register { after } = next else { panic!("{next:?}") };
    assert!(after <= LONGEST_FIRST_WAIT - meanwhile, "{after:?}");
    world.over("its hub refuses it again meanwhile: that puts nothing off", Allowed::Nothing);
    world.enroll(south, [&primary, &secondary], None);
    world.advance(LONGEST_FIRST_WAIT - meanwhile);
    assert_eq!(world.device.due(), Some(Due::HubRefused));
    world.device.register().await.unwrap();
    world.hub = Some(south);
    world.over("it registers, and has another hub", Allowed::OneRegistration);
    world.device.connect().await.unwrap();
    world.over("the other hub lets it in", Allowed::Nothing);

    world.renew(3).await;

    world.replace_the_root(roots[1]).await;
    // The state of the emulator keeps 90 days at most.
    world.enroll(south, [&primary, &secondary], None);
    world.device.connect().await.unwrap();
    world.over("the service has another root, which the device knows already", Allowed::Nothing);

    world.renew(2).await;

    let fresh = SymmetricKey::random().unwrap();
    world.enroll(south, [&fresh, &secondary], None);
    world.until_renewal();
    assert_eq!(world.device.register().await.unwrap(), 1);
    world.over(
        "its primary key was replaced: the secondary one is taken",
        Allowed::RefusedAndOneRegistration,
    );
    world.device.connect().await.unwrap();
    world.device.config.attestation = fresh.into();
    world.over("it is given the new primary key", Allowed::Nothing);

    world.renew(2).await;

    world.emulator().set_enabled(world.device.id.as_str(), false).unwrap();
    world.until_renewal();
    let error = world.device.register().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Rejected, false), "{error}");
    world
        .over("its enrollment is disabled: it gets no other certificate", Allowed::OneRegistration);
    world.advance(days(u64::from(CERTIFICATE_DAYS) - DUE_AT + 1));
    assert!(world.device.certificate_has_expired());
    world.over("its certificate has expired: no hub takes it any more", Allowed::Nothing);
    std::mem::take(&mut world.timeline)
}

#[test]
fn a_device_lives_for_ten_years_on_every_transport() {
    let lives = Transport::ALL.map(|transport| {
        // A thread for each, whose clock is its own.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(live(transport))
        })
    });
    let lives = lives.map(|life| life.join().unwrap_or_else(|panic| resume_unwind(panic)));
    for (life, transport) in lives.iter().zip(Transport::ALL) {
        assert_eq!(*life, lives[0], "over {transport}");
    }
    let document = format!("{HEAD}{}", lives[0]);
    println!("{document}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(DOCUMENT, &document).unwrap();
    }
    assert_eq!(document, fs::read_to_string(DOCUMENT).unwrap(), "UPDATE_DOCS=1 makes it anew");
}

const HEAD: &str = "\
# Ten years of a device

What a device does from its enrollment to the end of its life, and what that costs: the same over `http`, `mqtt`, `mqtt-ws`, `amqp` and `amqp-ws`.
Made by a test (`UPDATE_DOCS=1 cargo test -p dps-conformance --test ten_years`), which fails when it is out of date. The emulator is the service, the authority that issues
certificates, and both hubs; one clock for it and the device is moved by days. The device registers with a symmetric key, and shows its hub the certificate
that the service issued for a year; it renews that at two thirds of its life, or up to a tenth of the rest later, here always on the 256th day.

After each step this holds, and is checked: the service knows one device with one hub, and the device has an assignment and a certificate with its key
once it has had them; it has sent the requests of the last column and no other.

| when | what happens | its hub | requests |
|---|---|---|---|
";
