//! The addresses of the service, and the ports of all transports.

use std::{io, net::SocketAddr, time::Duration};

use dps_client::{Error, Progress, Stage, Transport};
use dps_connect::internal::{Handshake, handshake};
use tokio::{
    join,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    check::{AMQP_PORT, Check, HTTPS_PORT, IPV4, IPV6, MQTT_PORT},
    finding::Chart,
    name::way_out,
    proxy::over_443,
    subject::Subject,
};

/// One transport for each port.
pub(crate) const OF_EACH_PORT: [Transport; 3] = [Transport::Http, Transport::Mqtt, Transport::Amqp];

/// What the handshake on each port showed; `None` where nothing says which port a transport has.
pub(crate) struct Ports {
    https: Option<Seen>,
    mqtt: Option<Seen>,
    amqp: Option<Seen>,
}

pub(crate) struct Seen {
    pub(crate) handshake: Handshake,
    pub(crate) elapsed: Duration,
    /// Why its transport was passed over although it is connected.
    pub(crate) dead: Option<String>,
}

impl Seen {
    /// Whether something that may speak TLS listens there.
    pub(crate) fn is_open(&self) -> bool {
        let stage = self.handshake.error.as_ref().and_then(Error::stage);
        !self.handshake.is_another_protocol
            && !matches!(stage, Some(Stage::Resolve | Stage::Connect | Stage::Proxy))
    }

    pub(crate) fn stands(&self) -> bool {
        self.handshake.error.is_none()
    }
}

impl Ports {
    pub(crate) fn of(&self, transport: Transport) -> Option<&Seen> {
        match transport {
            Transport::Mqtt => self.mqtt.as_ref(),
            Transport::Amqp => self.amqp.as_ref(),
            _ => self.https.as_ref(),
        }
    }

    /// Notes why a transport with a port of its own was passed over.
    pub(crate) fn pass_over(&mut self, transport: Transport, why: String) {
        let seen = match transport {
            Transport::Mqtt => &mut self.mqtt,
            Transport::Amqp => &mut self.amqp,
            _ => return,
        };
        if let Some(seen) = seen {
            seen.dead = Some(why);
        }
    }

    /// What was seen on the port of the chosen transport, if it is open.
    pub(crate) fn chosen(&self, subject: &Subject) -> Option<&Seen> {
        self.of(subject.transport()).filter(|seen| seen.is_open())
    }

    /// Whether TLS stands on the port of a transport.
    pub(crate) fn stands(&self, transport: Transport) -> bool {
        self.of(transport).is_some_and(Seen::stands)
    }

    /// The flag for a transport on another port that is open; best for one where TLS stands.
    pub(crate) fn another(&self, subject: &Subject) -> Option<&'static str> {
        let chosen = subject.transport();
        let others = [
            (Transport::Http, over_443(chosen)),
            (Transport::Mqtt, "--transport mqtt"),
            (Transport::Amqp, "--transport amqp"),
        ];
        let others = || {
            let is_other = |of: &Transport| subject.ports.of(*of) != subject.ports.of(chosen);
            others.into_iter().filter(move |(of, _)| is_other(of))
        };
        let best = others().find(|(of, _)| self.stands(*of));
        let open = || others().find(|(of, _)| self.of(*of).is_some_and(Seen::is_open));
        best.or_else(open).map(|(_, flag)| flag)
    }
}

/// Connects to all ports at once.
pub(crate) async fn look_at_each(subject: &Subject) -> Ports {
    let [https, mqtt, amqp] = OF_EACH_PORT.map(|transport| look(subject, transport));
    let (https, mqtt, amqp) = join!(https, mqtt, amqp);
    Ports { https, mqtt, amqp }
}

/// Tells what the handshakes showed.
pub(crate) fn examine(subject: &Subject, ports: &Ports, has_proxy: bool, chart: &mut Chart<'_>) {
    for (check, transport) in [&HTTPS_PORT, &MQTT_PORT, &AMQP_PORT].into_iter().zip(OF_EACH_PORT) {
        one(check, transport, ports, subject, has_proxy, chart);
    }
}

pub(crate) async fn examine_addresses(
    subject: &Subject,
    ports: &Ports,
    mut addresses: Vec<SocketAddr>,
    has_proxy: bool,
    chart: &mut Chart<'_>,
) {
    if subject.any_transport
        && let Ok(endpoint) = &subject.endpoint
    {
        let port = endpoint.port_or(subject.ports.of(subject.transport()));
        addresses.iter_mut().for_each(|address| address.set_port(port));
    }
    let dialled = dial_each(&addresses, subject.limits.aside).await;
    families(&dialled, has_proxy, ports, subject, chart);
}

async fn look(subject: &Subject, transport: Transport) -> Option<Seen> {
    let mut config = subject.config(&subject.endpoint_of(transport)?)?;
    let begun = Instant::now();
    let port = subject.ports.of(transport);
    if !decides(subject, transport) {
        config.connect_timeout = Some(subject.limits.aside);
    }
    let handshake = handshake(&config, port, &Progress::default()).await;
    Some(Seen { handshake, elapsed: begun.elapsed(), dead: None })
}

/// Whether the registration goes by the port of this transport.
fn decides(subject: &Subject, transport: Transport) -> bool {
    subject.any_transport || subject.ports.of(subject.transport()) == subject.ports.of(transport)
}

fn one(
    check: &'static Check,
    transport: Transport,
    ports: &Ports,
    subject: &Subject,
    has_proxy: bool,
    chart: &mut Chart<'_>,
) {
    let Some(seen) = ports.of(transport) else {
        return chart.skip(check, "the endpoint names the port of another transport");
    };
    chart.took(seen.elapsed);
    let decides = decides(subject, transport);
    // What is wrong with TLS at the port that counts is told there. Another one is worth a word where it alone is bad.
    let is_alone = !decides && ports.stands(subject.transport());
    let matters = |_: &&Error| !seen.is_open() || is_alone;
    let Some(error) = seen.handshake.error.as_ref().filter(matters) else {
        return match seen.dead.as_ref().filter(|_| !decides) {
            Some(dead) => chart.warn(check, dead, &not_needed(subject, name_of(transport))),
            None => chart.ok(check, "open"),
        };
    };
    let another = ports.another(subject).filter(|_| !subject.any_transport);
    match (decides, another) {
        (true, Some(flag)) => {
            chart.fail_by(check, error, Some(&format!("another port is open here: {flag}")))
        }
        (true, None) if has_proxy => chart.fail_by(check, error, None),
        (true, None) => chart.fail_by(check, error, Some(&way_out("nothing gets through here"))),
        (false, _) => chart.warn(check, error, &not_needed(subject, name_of(transport))),
    }
}

/// What is said of that which is wrong with the way of other transports.
pub(crate) fn not_needed(subject: &Subject, others: &str) -> String {
    format!("{} does not need it; {others} would", subject.transport())
}

fn name_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Mqtt => "mqtt",
        Transport::Amqp => "amqp",
        _ => "http, mqtt-ws and amqp-ws",
    }
}

/// Connects to each address by itself, to all at once.
async fn dial_each(
    addresses: &[SocketAddr],
    step: Duration,
) -> Vec<(SocketAddr, Option<io::Error>, Duration)> {
    let mut dialling = JoinSet::new();
    for address in addresses.iter().copied() {
        dialling.spawn(async move {
            let begun = Instant::now();
            let outcome = timeout(step, TcpStream::connect(address)).await;
            let error = outcome.map_or_else(|_| Some(io::ErrorKind::TimedOut.into()), Result::err);
            (address, error, begun.elapsed())
        });
    }
    dialling.join_all().await
}

fn families(
    dialled: &[(SocketAddr, Option<io::Error>, Duration)],
    has_proxy: bool,
    ports: &Ports,
    subject: &Subject,
    chart: &mut Chart<'_>,
) {
    let is_reached =
        dialled.iter().any(|(_, error, _)| error.is_none()) || ports.chosen(subject).is_some();
    for (check, is_v4, none) in [
        (&IPV4, true, "the name has no IPv4 address"),
        (&IPV6, false, "the name has no IPv6 address"),
    ] {
        let family = || dialled.iter().filter(|(address, ..)| address.is_ipv4() == is_v4);
        let Some(took) = family().map(|(.., took)| *took).max() else {
            chart.skip(check, if has_proxy { "the proxy connects" } else { none });
            continue;
        };
        let words = |(address, error, _): &(SocketAddr, Option<io::Error>, Duration)| {
            let shown = address.ip();
            error.as_ref().map(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => format!("{shown} refuses"),
                io::ErrorKind::TimedOut => format!("{shown} is silent"),
                _ => format!("{shown} can't be reached: {error}"),
            })
        };
        let closed: Vec<String> = family().filter_map(words).collect();
        chart.took(took);
        if closed.is_empty() {
            let open: Vec<String> =
                family().map(|(address, ..)| address.ip().to_string()).collect();
            chart.ok(check, format!("{} answers", open.join(", ")));
        } else if is_reached {
            let advice = "another address answers, so a registration gets through; each such address in front of it costs a quarter of a second";
            chart.warn(check, closed.join(", "), advice);
        } else {
            let port = dialled.first().map(|(address, ..)| address.port()).unwrap_or_default();
            let error = io::Error::other(format!("{}, at port {port}", closed.join(", ")));
            let advice = match ports.another(subject) {
                Some(flag) => format!("no address lets this device in there; {flag}"),
                None => way_out("no address lets this device in"),
            };
            chart.fail_by(check, &unreached(&error), Some(&advice));
        }
    }
}

fn unreached(error: &io::Error) -> Error {
    dps_client::ConnectionError::new(Stage::Connect, error.to_string()).into()
}
