//! The device's hub, as far as a connection to it can be made.

use std::time::Duration;

use dps_client::{Endpoint, Progress, Transport};
use dps_connect::internal::{Handshake, handshake, resolve};
use tokio::{
    join,
    time::{Instant, timeout},
};

use crate::{
    check::{Check, HUB_AMQP, HUB_MQTT, HUB_NAME, HUB_WS},
    finding::Chart,
    service::State,
    subject::Subject,
};

pub(crate) async fn examine(subject: &Subject, state: State, chart: &mut Chart<'_>) -> Option<()> {
    let hub: Endpoint = match (&subject.hub, state.hub) {
        (Some(Ok(given)), _) => given.clone(),
        (Some(Err(error)), _) => {
            chart.fail_by(&HUB_NAME, error, None);
            return None;
        }
        (None, Some(assigned)) => match assigned.parse() {
            Ok(hub) => hub,
            Err(error) => {
                let advice = "look at the hubs that are linked to the service";
                chart.fail_by(&HUB_NAME, &error, Some(advice));
                return None;
            }
        },
        (None, None) => {
            skip_all("the device has no hub yet; --hub-endpoint HOST names one", chart);
            return None;
        }
    };
    let places = Places::of(subject, &hub);
    let Some(any) = [&places.mqtt, &places.amqp, &places.https].into_iter().flatten().next() else {
        skip_all("nothing says where this hub of an emulator is", chart);
        return None;
    };
    name(subject, any, chart).await?;
    // The device reaches its hub by the port that its transport has there.
    let decisive = match subject.transport() {
        Transport::Mqtt => &HUB_MQTT,
        Transport::Amqp => &HUB_AMQP,
        _ => &HUB_WS,
    };
    let looked = |check, place| look(subject, place, check == decisive);
    let (mqtt, amqp, https) = join!(
        looked(&HUB_MQTT, places.mqtt.as_ref()),
        looked(&HUB_AMQP, places.amqp.as_ref()),
        looked(&HUB_WS, places.https.as_ref())
    );
    let seen = [(&HUB_MQTT, mqtt), (&HUB_AMQP, amqp), (&HUB_WS, https)];
    let stands = |seen: &Seen| seen.as_ref().is_some_and(|(seen, _)| seen.error.is_none());
    let another = seen.iter().any(|(_, seen)| stands(seen));
    for (check, seen) in seen {
        one(check, seen, check == decisive, another, chart);
    }
    Some(())
}

fn skip_all(reason: &str, chart: &mut Chart<'_>) {
    for check in [&HUB_NAME, &HUB_MQTT, &HUB_AMQP, &HUB_WS] {
        chart.skip(check, reason);
    }
}

/// `None` when the hub's name has no address.
async fn name(subject: &Subject, place: &Endpoint, chart: &mut Chart<'_>) -> Option<()> {
    let has_proxy = subject.config(place).and_then(|config| config.chosen_proxy(443).ok()?);
    if has_proxy.is_some() {
        chart.skip(&HUB_NAME, "the proxy looks the name up");
        return Some(());
    }
    let host = place.host();
    match timeout(subject.limits.step, resolve(host, 0, &Progress::default())).await {
        Ok(Ok(_)) => {
            chart.ok(&HUB_NAME, host);
            return Some(());
        }
        Ok(Err(error)) => {
            let advice = "look at the hub's name at the service and at this network's DNS; --hub-endpoint HOST names another";
            chart.fail_by(&HUB_NAME, &error.into(), Some(advice));
        }
        Err(_) => {
            chart.silent(&HUB_NAME, format_args!("address of {host}"), "check this machine's DNS")
        }
    }
    None
}

/// Where the hub takes MQTT, AMQP, and both over WebSocket.
struct Places {
    mqtt: Option<Endpoint>,
    amqp: Option<Endpoint>,
    https: Option<Endpoint>,
}

impl Places {
    /// A hub under localhost is that of an emulator, which serves it where it serves devices.
    fn of(subject: &Subject, hub: &Endpoint) -> Self {
        let last = hub.host().rsplit('.').next().unwrap_or_default();
        let own = |port| Some(hub.with_port(port));
        match hub.port() {
            None if last.eq_ignore_ascii_case("localhost") => Self {
                mqtt: subject.endpoint_of(Transport::Mqtt),
                amqp: subject.endpoint_of(Transport::Amqp),
                https: subject.endpoint_of(Transport::Http),
            },
            None => Self { mqtt: own(8883), amqp: own(5671), https: own(443) },
            Some(port) => match subject.transport() {
                Transport::Mqtt => Self { mqtt: own(port), amqp: None, https: None },
                Transport::Amqp => Self { mqtt: None, amqp: own(port), https: None },
                _ => Self { mqtt: None, amqp: None, https: own(port) },
            },
        }
    }
}

type Seen = Option<(Handshake, Duration)>;

async fn look(subject: &Subject, place: Option<&Endpoint>, decides: bool) -> Seen {
    let mut config = subject.config(place?)?;
    if !decides {
        config.connect_timeout = Some(subject.limits.aside);
    }
    let begun = Instant::now();
    Some((handshake(&config, 443, &Progress::default()).await, begun.elapsed()))
}

fn one(
    check: &'static Check,
    seen: Seen,
    decides: bool,
    another_stands: bool,
    chart: &mut Chart<'_>,
) {
    let Some((handshake, elapsed)) = seen else {
        return chart.skip(check, "nothing says this port of the hub");
    };
    chart.took(elapsed);
    let Some(error) = &handshake.error else {
        return chart.ok(check, "TLS stands");
    };
    match (decides, another_stands) {
        (true, true) => {
            chart.warn(check, error, "another port of the hub is open: connect to it there")
        }
        (false, true) => chart.warn(check, error, "this transport does not need it at the hub"),
        (false, false) => chart.warn(check, error, "no other port of the hub is open either"),
        // The hint of the error is about the way to the service.
        (true, false) => chart.fail(
            check,
            error.kind(),
            error,
            "the device can be assigned, but not connect to its hub from here: have the network let it through; --proxy URL goes through a proxy",
        ),
    }
}
