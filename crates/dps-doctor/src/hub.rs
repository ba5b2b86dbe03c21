//! The device's hub, as far as a connection to it can be made.

use dps_client::{Endpoint, Error, Progress, Transport};
use dps_connect::internal::{Handshake, handshake, resolve};
use tokio::{
    join,
    time::{Instant, timeout},
};

use crate::{
    check::{Check, HUB_MQTT, HUB_NAME, HUB_WS},
    finding::Chart,
    service::State,
    subject::Subject,
};

pub(crate) async fn examine(subject: &Subject, state: State, chart: &mut Chart<'_>) {
    let hub = match (&subject.hub, state.hub) {
        (Some(Ok(given)), _) => given.clone(),
        (Some(Err(error)), _) => return chart.fail_by(&HUB_NAME, error, None),
        (None, Some(assigned)) => match assigned.parse() {
            Ok(hub) => hub,
            Err(error) => {
                return chart.fail_by(
                    &HUB_NAME,
                    &error,
                    Some("look at the hubs that are linked to the service"),
                );
            }
        },
        (None, None) => {
            for check in [&HUB_NAME, &HUB_MQTT, &HUB_WS] {
                chart.skip(check, "the device has no hub yet; --hub-endpoint HOST names one");
            }
            return;
        }
    };
    let places = Places::of(subject, &hub);
    let progress = Progress::default();
    let looked_up = resolve(hub.host(), 0, &progress);
    let has_proxy =
        subject.config(&hub).and_then(|config| config.chosen_proxy(443).ok()?).is_some();
    match timeout(subject.limits.step, looked_up).await {
        _ if has_proxy => chart.skip(&HUB_NAME, "the proxy looks the name up"),
        Ok(Ok(_)) => chart.ok(&HUB_NAME, hub.host()),
        Ok(Err(error)) => {
            let advice = "look at the hub's name at the service and at this network's DNS; --hub-endpoint HOST names another";
            return chart.fail_by(&HUB_NAME, &error.into(), Some(advice));
        }
        Err(_) => {
            let seen = format!(
                "no address of {} within {} s",
                hub.host(),
                subject.limits.step.as_secs_f64()
            );
            return chart.fail(
                &HUB_NAME,
                dps_client::ErrorKind::Timeout,
                seen,
                "check this machine's DNS",
            );
        }
    }
    let (mqtt, https) =
        join!(look(subject, places.mqtt.as_ref()), look(subject, places.https.as_ref()));
    // The device reaches its hub by the port that its transport has there.
    let by_websocket =
        matches!(subject.transport(), Transport::MqttWs | Transport::AmqpWs | Transport::Http);
    let open =
        |seen: &Option<(Handshake, _)>| seen.as_ref().is_some_and(|(seen, _)| seen.error.is_none());
    let is_open = [open(&mqtt), open(&https)];
    one(&HUB_MQTT, mqtt, !by_websocket, is_open, chart);
    one(&HUB_WS, https, by_websocket, is_open, chart);
}

/// Where the hub takes MQTT, and MQTT over WebSocket.
struct Places {
    mqtt: Option<Endpoint>,
    https: Option<Endpoint>,
}

impl Places {
    /// A hub under localhost is that of an emulator, which serves it where it serves devices.
    fn of(subject: &Subject, hub: &Endpoint) -> Self {
        let last = hub.host().rsplit('.').next().unwrap_or_default();
        let at =
            |endpoint: Option<Endpoint>| endpoint.and_then(|at| Some(hub.with_port(at.port()?)));
        match hub.port() {
            None if last.eq_ignore_ascii_case("localhost") => Self {
                mqtt: at(subject.endpoint_of(Transport::Mqtt)),
                https: at(subject.endpoint_of(Transport::Http)),
            },
            None => Self { mqtt: Some(hub.with_port(8883)), https: Some(hub.with_port(443)) },
            Some(_) if subject.transport() == Transport::Mqtt => {
                Self { mqtt: Some(hub.clone()), https: None }
            }
            Some(_) => Self { mqtt: None, https: Some(hub.clone()) },
        }
    }
}

async fn look(
    subject: &Subject,
    place: Option<&Endpoint>,
) -> Option<(Handshake, std::time::Duration)> {
    let config = subject.config(place?)?;
    let begun = Instant::now();
    Some((handshake(&config, 443, &Progress::default()).await, begun.elapsed()))
}

fn one(
    check: &'static Check,
    seen: Option<(Handshake, std::time::Duration)>,
    decides: bool,
    is_open: [bool; 2],
    chart: &mut Chart<'_>,
) {
    let Some((handshake, elapsed)) = seen else {
        return chart.skip(check, "nothing says this port of the hub");
    };
    chart.took(elapsed);
    let error: &Error = match &handshake.error {
        None => return chart.ok(check, "TLS stands"),
        Some(error) => error,
    };
    match is_open {
        [true, _] | [_, true] if decides => {
            chart.warn(check, error, "the other port of the hub is open: connect to it there")
        }
        [true, _] | [_, true] => {
            chart.warn(check, error, "this transport does not need it at the hub")
        }
        _ if decides => chart.fail_by(
            check,
            error,
            Some("the device can be assigned, but not connect to its hub from here"),
        ),
        _ => chart.warn(check, error, "the other port is closed too"),
    }
}
