//! The upgrade to WebSocket, on the port of HTTPS.

use dps_client::{Config, Error, ErrorKind, Progress, Transport};
use dps_connect::{Connector, Opened};
use tokio::{join, time::Instant};

use crate::{
    check::{AMQP_WS, Check, MQTT_WS},
    finding::Chart,
    port::Ports,
    subject::Subject,
};

pub(crate) async fn examine(subject: &Subject, ports: &Ports, chart: &mut Chart<'_>) {
    let table = [(&MQTT_WS, Transport::MqttWs), (&AMQP_WS, Transport::AmqpWs)];
    let endpoint = subject.endpoint_of(Transport::Http).filter(|_| ports.stands(Transport::Http));
    let Some(config) = endpoint.and_then(|endpoint| subject.config(&endpoint)) else {
        for (check, transport) in table {
            if transport != subject.transport() {
                chart.skip(check, "there is no TLS with the port of HTTPS");
            }
        }
        return;
    };
    let (mqtt, amqp) = join!(
        upgraded(&config, subject.ports.https, "mqtt"),
        upgraded(&config, subject.ports.https, "AMQPWSB10")
    );
    for ((check, transport), (outcome, elapsed)) in table.into_iter().zip([mqtt, amqp]) {
        chart.took(elapsed);
        one(check, transport, outcome, subject, chart);
    }
}

async fn upgraded(
    config: &Config,
    port: u16,
    subprotocol: &str,
) -> (Result<Opened<()>, Error>, std::time::Duration) {
    let begun = Instant::now();
    let mut config = config.clone();
    config.endpoint = config.endpoint.with_port(config.endpoint.port_or(port));
    let outcome = async {
        let connector = Connector::new(config)?;
        let opened = connector.websocket(subprotocol, &Progress::default()).await?;
        Ok(opened.map(drop))
    };
    (outcome.await, begun.elapsed())
}

fn one(
    check: &'static Check,
    transport: Transport,
    outcome: Result<Opened<()>, Error>,
    subject: &Subject,
    chart: &mut Chart<'_>,
) {
    let decides = subject.transport() == transport;
    match outcome {
        Ok(Opened::Ready(())) => chart.ok(check, "it works"),
        // The service itself refuses: that is no matter of the way.
        Ok(Opened::Refused(response)) => {
            let seen = format!("the service refuses it with the status {}", response.status);
            let advice = "try again later; --transport http needs no WebSocket";
            match decides {
                true => chart.fail(check, ErrorKind::Rejected, seen, advice),
                false => chart.warn(check, seen, advice),
            }
        }
        Err(error) => {
            let advice = match transport {
                Transport::AmqpWs => {
                    "a proxy or a firewall in between takes no WebSocket: --transport http, or amqp if port 5671 is open"
                }
                _ => {
                    "a proxy or a firewall in between takes no WebSocket: --transport http, or mqtt if port 8883 is open"
                }
            };
            match decides {
                true => chart.fail_by(check, &error, Some(advice)),
                false => chart.warn(
                    check,
                    &error,
                    &format!("{} does not need it; {transport} would", subject.transport()),
                ),
            }
        }
    }
}
