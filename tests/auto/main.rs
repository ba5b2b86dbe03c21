//! The transport `auto` in networks that let some of the transports through, with the emulator for the service. The clock
//! is paused: the times are those of waiting, which is what a network costs.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

mod network;

use std::time::Duration;

use dps_client::{
    AmqpConfig, AmqpTransport, Attestation, Auto, BoxTransport, Carrier, Client, Config, Error,
    ErrorKind, HttpTransport, MqttConfig, MqttTransport, Progress, Race, RegistrationRequest,
    RegistrationResult, Roots, Settings, StateMachine, SymmetricKey, Transport,
    TransportHandlers as _, client, client_with_fallback,
};
use dps_conformance::{ProxyScript, TestProxy, adjusted};
use dps_emulator::{Behavior, Emulator, Enrollment, EventKind, Operation};
use tokio::time::Instant;

use Port::{
    BlackHole, Closed, NoWebSocket, Open, Reset, Silent, SlowNoWebSocket, TlsClosed, TlsSilent,
};
use network::{Network, Port};

const HEAD_START: Duration = Race::<BoxTransport>::HEAD_START;
/// After which one that is connected and silent is given up.
const GIVEN_UP: Duration = Duration::from_secs(5);
/// The order of [`Auto`].
const ORDER: [Transport; 5] =
    [Transport::Mqtt, Transport::Amqp, Transport::MqttWs, Transport::AmqpWs, Transport::Http];

/// What a network is called, and what it does with the ports 8883, 5671 and 443.
const NETWORKS: &[(&str, [Port; 3])] = &[
    ("all ports open", [Open, Open, Open]),
    ("8883 closed", [Closed, Open, Open]),
    ("8883 and 5671 closed", [Closed, Closed, Open]),
    ("8883 closed, 5671 black-holed", [Closed, BlackHole, Open]),
    ("8883 black-holed, 5671 closed", [BlackHole, Closed, Open]),
    ("8883 and 5671 black-holed", [BlackHole, BlackHole, Open]),
    ("8883 and 5671 silent after TCP", [Silent, Silent, Open]),
    ("8883 and 5671 reset", [Reset, Reset, Open]),
    ("8883 reset, 443 black-holed", [Reset, Open, BlackHole]),
    ("8883 closed after TLS", [TlsClosed, Open, Open]),
    ("8883 silent after TLS", [TlsSilent, Open, Open]),
    ("8883 silent after TLS, 5671 closed after it", [TlsSilent, TlsClosed, Open]),
    ("only 8883 open", [Open, BlackHole, Closed]),
    ("8883 and 5671 closed, WebSocket stripped", [Closed, Closed, NoWebSocket]),
    ("8883 black-holed, 5671 silent, WebSocket stripped", [BlackHole, Silent, NoWebSocket]),
    (
        "8883 and 5671 black-holed, WebSocket stripped, the service slow",
        [BlackHole, BlackHole, SlowNoWebSocket],
    ),
];

/// A device, and a service that knows it.
struct Bench {
    emulator: Emulator,
    key: SymmetricKey,
}

impl Bench {
    async fn new(behavior: Behavior) -> Self {
        let key = SymmetricKey::random().unwrap();
        let known = dps_emulator::Attestation::symmetric_key(key.clone());
        let enrollment = Enrollment::individual("dev-1".parse().unwrap(), known).behavior(behavior);
        let emulator = Emulator::builder().enrollment(enrollment).start().await.unwrap();
        Self { emulator, key }
    }

    /// Of a device that finds the service at this place.
    fn config(&self, endpoint: &str) -> Config {
        let mut config = Config::new(self.emulator.id_scope().clone(), self.key.clone().into());
        config.roots = Roots::empty().with_pem(self.emulator.ca_pem().as_bytes()).unwrap();
        config.endpoint = endpoint.parse().unwrap();
        config
    }

    /// By the port of HTTPS, which the WebSocket transports have too.
    fn https(&self) -> Config {
        self.config(&format!("127.0.0.1:{}", self.emulator.https_port()))
    }

    fn registrations(&self) -> usize {
        let is_one = |kind: &EventKind| {
            matches!(kind, EventKind::Request { operation: Operation::Register, .. })
        };
        self.emulator.events().snapshot().iter().filter(|event| is_one(&event.kind)).count()
    }
}

fn request() -> RegistrationRequest {
    RegistrationRequest::new("dev-1".parse().unwrap())
}

/// The transport in a network, where each has a port of its own.
fn transport(transport: Transport, bench: &Bench, network: &Network) -> BoxTransport {
    let mut config = bench.config(&network.address(transport).to_string());
    config.roots = config.roots.with_der(&network.gateway).unwrap();
    let carrier = match transport {
        Transport::MqttWs | Transport::AmqpWs => Carrier::WebSocket,
        _ => Carrier::Tls,
    };
    match transport {
        Transport::Http => BoxTransport::new(HttpTransport::new(config).unwrap()),
        Transport::Mqtt | Transport::MqttWs => {
            let config = adjusted(MqttConfig::new(config), |config| config.carrier = carrier);
            BoxTransport::new(MqttTransport::new(config).unwrap())
        }
        _ => {
            let config = adjusted(AmqpConfig::new(config), |config| config.carrier = carrier);
            BoxTransport::new(AmqpTransport::new(config).unwrap())
        }
    }
}

/// Registers once, and says how long that took.
async fn timed(client: &Client) -> (Result<RegistrationResult, Error>, Duration) {
    let start = Instant::now();
    let outcome = client.register(request()).await;
    let taken = start.elapsed();
    client.end_session().await.unwrap();
    (outcome, taken)
}

/// Those of the five that get through alone, and how long each takes.
async fn each_alone(client: impl Fn(Transport) -> Client) -> Vec<(Transport, Duration)> {
    let mut alone = Vec::new();
    for transport in ORDER {
        let (outcome, taken) = timed(&client(transport)).await;
        if outcome.is_ok() {
            alone.push((transport, taken));
        }
    }
    alone
}

/// Two registrations by one client.
struct Trial {
    times: [Duration; 2],
    over: String,
}

impl Trial {
    fn longest(&self) -> Duration {
        self.times.into_iter().max().unwrap()
    }
}

async fn twice(name: &str, bench: &Bench, alone: &[(Transport, Duration)], auto: &Client) -> Trial {
    let before = bench.registrations();
    let mut trial = Trial { times: [Duration::ZERO; 2], over: String::new() };
    for time in &mut trial.times {
        let (outcome, taken) = timed(auto).await;
        *time = taken;
        trial.over = outcome.unwrap_or_else(|error| panic!("{name}: {error}")).transport.unwrap();
        let over = trial.over.as_str();
        assert!(alone.iter().any(|(works, _)| works.as_str() == over), "{name}: {over}");
    }
    assert_eq!(bench.registrations(), before + 2, "{name}: it registers once each time");
    trial
}

/// What must hold in a network, and its row in the table. It takes at most so much longer than the best transport alone.
async fn compare(
    name: &str,
    longer: Duration,
    bench: &Bench,
    alone: impl Fn(Transport) -> Client,
    auto: impl Fn() -> Client,
) -> String {
    let alone = each_alone(alone).await;
    let (best, least) = *alone.iter().min_by_key(|(_, taken)| *taken).unwrap();
    let mut trials = Vec::new();
    // A clock that is paused goes on when the system is slow to hand a byte over: one trial of a few counts.
    for _ in 0..3 {
        trials.push(twice(name, bench, &alone, &auto()).await);
        if trials.last().is_some_and(|trial| trial.longest() <= least + longer) {
            break;
        }
    }
    let Trial { times: [first, second], over } = trials.pop().unwrap();
    assert!(
        first.max(second) <= least + longer,
        "{name}: {first:?}, {second:?}; {best}: {least:?}"
    );
    let works: Vec<_> = alone.iter().map(|(works, _)| works.as_str()).collect();
    let [least, first, second] =
        [least, first, second].map(|time| format!("{:.1} s", time.as_secs_f64()));
    format!("| {name} | {} | {least} | {first} | {second} | {over} |", works.join(", "))
}

#[tokio::test(start_paused = true)]
async fn in_each_network_it_takes_at_most_the_head_start_longer_than_the_best_transport_alone() {
    let mut rows = Vec::new();
    for (name, ports) in NETWORKS {
        let bench = Bench::new(Behavior::new()).await;
        let network = Network::new(*ports, &bench.emulator).await;
        let made = |of| transport(of, &bench, &network);
        let auto = || {
            let mut named = ORDER.into_iter().map(|of| (of.as_str(), made(of)));
            let race = BoxTransport::new(Race::new(named.next().unwrap(), named));
            StateMachine::new(race, Settings::default())
        };
        let alone = |of| StateMachine::new(made(of), Settings::default());
        let longer = if ports.contains(&TlsSilent) { GIVEN_UP } else { HEAD_START };
        rows.push(compare(name, longer, &bench, alone, auto).await);
    }
    let bench = Bench::new(Behavior::new()).await;
    let proxy = TestProxy::start(ProxyScript::Only443(bench.emulator.https_port())).await;
    let config = adjusted(bench.config("localhost"), |config| config.proxy = proxy.choice(""));
    let auto = || client(Auto::default(), config.clone(), Settings::default()).unwrap();
    let alone = |of: Transport| client(of, config.clone(), Settings::default()).unwrap();
    rows.push(compare("a proxy that passes only 443", HEAD_START, &bench, alone, auto).await);
    hold_table(&rows);
}

/// The table is in the documentation: `UPDATE_DOCS=1` writes it there. Who wins among several that get through at one
/// moment may differ from run to run, so a row is known by its network.
fn hold_table(rows: &[String]) {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/auto.md");
    const HEAD: &str = "| the network: ports | who gets through alone | the best alone | `auto` | again | over |\n|---|---|---|---|---|---|\n";
    let table = format!("{HEAD}{}\n", rows.join("\n"));
    println!("{table}");
    let page = std::fs::read_to_string(FILE).unwrap();
    let (before, after) = page.split_once(HEAD).unwrap();
    let end = after.find("\n\n").map_or(after.len(), |end| end + 1);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(FILE, format!("{before}{table}{}", &after[end..])).unwrap();
    }
    let networks = |rows: &str| -> Vec<String> {
        rows.lines().filter_map(|row| row.split('|').nth(1)).map(str::to_owned).collect()
    };
    let shown = networks(&after[..end]);
    assert_eq!(shown, networks(&rows.join("\n")), "UPDATE_DOCS=1 cargo test --test auto");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_gets_through_the_error_names_what_each_transport_has_met() {
    let bench = Bench::new(Behavior::new()).await;
    let closed = Network::new([Closed; 3], &bench.emulator).await;
    let address = closed.address(Transport::Mqtt).to_string();
    let auto = client(Auto::default(), bench.config(&address), Settings::default()).unwrap();
    let error = timed(&auto).await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    let port = closed.address(Transport::Mqtt).port();
    assert_eq!(
        error.to_string(),
        format!(
            "no transport gets through: mqtt-ws, amqp-ws, http: {address} refused the connection; \
             mqtt: its port is 8883, and the endpoint's is {port}; \
             amqp: its port is 5671, and the endpoint's is {port}"
        )
    );
    // One after the other is given up, and the last of them in time.
    for ports in [[Reset, Silent, NoWebSocket], [BlackHole, Closed, Silent]] {
        let network = Network::new(ports, &bench.emulator).await;
        let named = ORDER.into_iter().filter(|of| *of != Transport::Http);
        let mut named = named.map(|of| (of.as_str(), transport(of, &bench, &network)));
        let race = Race::new(named.next().unwrap(), named).left_out("http", "not compiled in");
        let machine = StateMachine::new(BoxTransport::new(race), Settings::default());
        let (outcome, taken) = timed(&machine).await;
        let message = outcome.unwrap_err().to_string();
        println!("{message}");
        for named in ORDER.map(Transport::as_str) {
            assert!(message.contains(named), "{named}: {message}");
        }
        assert!(taken <= Race::<BoxTransport>::PATIENCE, "{taken:?}");
    }
    assert_eq!(bench.registrations(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_preferred_transport_is_taken_when_it_gets_through() {
    let bench = Bench::new(Behavior::new().polls(2)).await;
    for preferred in [Transport::Http, Transport::MqttWs, Transport::AmqpWs] {
        let auto = client(Auto::preferring(preferred), bench.https(), Settings::default()).unwrap();
        let result = timed(&auto).await.0.unwrap();
        assert_eq!((result.transport.unwrap(), result.polls), (preferred.to_string(), 2));
    }
}

/// What came to the service until now: connections that got as far as TLS, and requests.
async fn seen(bench: &Bench) -> (usize, usize) {
    // The service has its turn.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let events = bench.emulator.events().snapshot();
    let count = |of: fn(&EventKind) -> bool| events.iter().filter(|event| of(&event.kind)).count();
    (
        count(|kind| matches!(kind, EventKind::TlsEstablished { .. })),
        count(|kind| matches!(kind, EventKind::Request { .. })),
    )
}

#[tokio::test(start_paused = true)]
async fn a_registration_goes_over_the_connection_that_was_made_for_it_or_over_a_new_one_if_that_died()
 {
    for of in ORDER {
        let bench = Bench::new(Behavior::new()).await;
        let (network, relays) = Network::with_relays(&bench.emulator).await;
        let mut transport = transport(of, &bench, &network);
        let progress = Progress::default();
        transport.connect(&request(), &progress).await.unwrap();
        transport.connect(&request(), &progress).await.unwrap();
        assert_eq!(seen(&bench).await, (1, 0), "{of}: one connection, and nothing is asked");
        let response = transport.registration_request(&request(), &progress).await.unwrap();
        assert_eq!(response.status / 100, 2, "{of}");
        assert_eq!(seen(&bench).await, (1, 1), "{of}: over the connection that stands");
        transport.connect(&request(), &progress).await.unwrap();
        assert_eq!(seen(&bench).await, (1, 1), "{of}: it stands still");
        transport.end_session().await.unwrap();

        transport.connect(&request(), &progress).await.unwrap();
        assert_eq!(seen(&bench).await, (2, 1), "{of}: another session, another connection");
        relays.lock().unwrap().abort_all();
        // Over HTTP a connection is known by its age only.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let response = transport.registration_request(&request(), &progress).await.unwrap();
        assert_eq!((response.status / 100, seen(&bench).await), (2, (3, 2)), "{of}");
        transport.end_session().await.unwrap();

        transport.connect(&request(), &progress).await.unwrap();
        transport.end_session().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(relays.lock().unwrap().try_join_next().is_some(), "{of}");
        while relays.lock().unwrap().try_join_next().is_some() {}
        assert!(relays.lock().unwrap().is_empty(), "{of}: the end of the session closes it");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_transport_can_not_carry_goes_over_another() {
    let bench = Bench::new(Behavior::new()).await;
    let auto = client(Auto::default(), bench.https(), Settings::default()).unwrap();
    let result = auto.register(request().force_registration(true)).await.unwrap();
    assert_eq!(result.transport.unwrap(), "amqp-ws", "MQTT can't force a registration");
}

#[tokio::test(start_paused = true)]
async fn the_second_credential_is_tried_over_the_transport_that_gets_through() {
    let bench = Bench::new(Behavior::new()).await;
    let mut config = bench.https();
    config.attestation = SymmetricKey::random().unwrap().into();
    let secondary: Attestation = bench.key.clone().into();
    let auto =
        client_with_fallback(Auto::default(), config, [secondary], Settings::default()).unwrap();
    let result = timed(&auto).await.0.unwrap();
    assert_eq!((result.transport.as_deref(), result.credential), (Some("mqtt-ws"), 1));
    // A refusal is the service's: no other transport is tried for it.
    let mut config = bench.https();
    config.attestation = SymmetricKey::random().unwrap().into();
    let before = bench.registrations();
    let error = timed(&client(Auto::default(), config, Settings::default()).unwrap()).await.0;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Rejected);
    assert_eq!(bench.registrations(), before, "MQTT refuses the connection, before a request");
}
