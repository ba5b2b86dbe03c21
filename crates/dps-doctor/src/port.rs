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
const OF_EACH_PORT: [Transport; 3] = [Transport::Http, Transport::Mqtt, Transport::Amqp];

/// What the handshake on each port showed; `None` where nothing says which port a transport has.
pub(crate) struct Ports {
    https: Option<Seen>,
    mqtt: Option<Seen>,
    amqp: Option<Seen>,
}

pub(crate) struct Seen {
    pub(crate) handshake: Handshake,
    pub(crate) elapsed: Duration,
}

impl Seen {
    /// Whether something that may speak TLS listens there.
    fn is_open(&self) -> bool {
        let stage = self.handshake.error.as_ref().and_then(Error::stage);
        !self.handshake.is_another_protocol
            && !matches!(stage, Some(Stage::Resolve | Stage::Connect | Stage::Proxy))
    }

    fn stands(&self) -> bool {
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

    /// What was seen on the port of the chosen transport, if it is open.
    pub(crate) fn chosen(&self, subject: &Subject) -> Option<&Seen> {
        self.of(subject.transport()).filter(|seen| seen.is_open())
    }

    /// The same subject, with the transport that decides where any would do.
    pub(crate) fn settle(&self, subject: &Subject) -> Subject {
        let mut settled = subject.clone();
        let open = |transport: &Transport| self.of(*transport).is_some_and(Seen::is_open);
        if subject.any_transport
            && let Some(transport) = OF_EACH_PORT.into_iter().find(open)
        {
            settled.transport = Ok(transport);
            if settled.endpoint.as_ref().is_ok_and(|it| it.port().is_some())
                && let Some(endpoint) = subject.endpoint_of(transport)
            {
                settled.endpoint = Ok(endpoint);
            }
        }
        settled
    }

    /// Whether TLS stands on the port of a transport.
    pub(crate) fn stands(&self, transport: Transport) -> bool {
        self.of(transport).is_some_and(Seen::stands)
    }
}

/// Connects to all ports at once.
pub(crate) async fn look_at_each(subject: &Subject) -> Ports {
    let [https, mqtt, amqp] = OF_EACH_PORT.map(|transport| look(subject, transport));
    let (https, mqtt, amqp) = join!(https, mqtt, amqp);
    Ports { https, mqtt, amqp }
}

pub(crate) async fn examine(
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
    families(&dial_each(&addresses, subject.limits.step).await, has_proxy, chart);
    for (check, transport) in [&HTTPS_PORT, &MQTT_PORT, &AMQP_PORT].into_iter().zip(OF_EACH_PORT) {
        one(check, transport, ports, subject, has_proxy, chart);
    }
}

async fn look(subject: &Subject, transport: Transport) -> Option<Seen> {
    let config = subject.config(&subject.endpoint_of(transport)?)?;
    let begun = Instant::now();
    let port = subject.ports.of(transport);
    let handshake = handshake(&config, port, &Progress::default()).await;
    Some(Seen { handshake, elapsed: begun.elapsed() })
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
    let chosen = subject.transport();
    let decides = subject.ports.of(chosen) == subject.ports.of(transport);
    chart.took(seen.elapsed);
    let Some(error) = seen.handshake.error.as_ref().filter(|_| !seen.is_open()) else {
        return chart.ok(check, "open");
    };
    let open: Vec<&str> = [
        (Transport::Http, over_443(chosen)),
        (Transport::Mqtt, "--transport mqtt"),
        (Transport::Amqp, "--transport amqp"),
    ]
    .into_iter()
    .filter(|(other, _)| ports.of(*other).is_some_and(Seen::is_open))
    .map(|(_, advice)| advice)
    .collect();
    match (decides, open.first()) {
        (true, Some(flag)) => {
            chart.fail_by(check, error, Some(&format!("another port is open here: {flag}")))
        }
        (true, None) if has_proxy => chart.fail_by(check, error, None),
        (true, None) => chart.fail_by(check, error, Some(&way_out("nothing gets through here"))),
        (false, _) => {
            let advice = format!("{chosen} does not need it; {} would", name_of(transport));
            chart.warn(check, error, &advice);
        }
    }
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
    chart: &mut Chart<'_>,
) {
    let is_reached = dialled.iter().any(|(_, error, _)| error.is_none());
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
            chart.fail_by(
                check,
                &unreached(&error),
                Some(&way_out("no address lets this device in")),
            );
        }
    }
}

fn unreached(error: &io::Error) -> Error {
    dps_client::ConnectionError::new(Stage::Connect, error.to_string()).into()
}
