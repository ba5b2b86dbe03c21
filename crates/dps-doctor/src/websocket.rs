//! The upgrade to WebSocket, on the port of HTTPS.

use std::time::Duration;

use dps_client::{Config, Error, ErrorKind, Progress, Transport};
use dps_connect::{Connector, Opened};
use tokio::{join, time::Instant};

use crate::{
    check::{AMQP_WS, Check, MQTT_WS},
    finding::Chart,
    port::{Ports, not_needed},
    subject::Subject,
};

/// What each upgrade came to; nothing where there is no TLS with that port, or nobody looked.
#[derive(Default)]
pub(crate) struct Upgrades {
    mqtt: Option<Upgrade>,
    amqp: Option<Upgrade>,
}

type Upgrade = (Result<Opened<()>, Error>, Duration);

impl Upgrades {
    /// Whether nothing is wrong with the upgrade that the transport needs, if it needs one.
    pub(crate) fn stands(&self, transport: Transport) -> bool {
        let stands = |upgrade: &Option<Upgrade>| {
            upgrade.as_ref().is_some_and(|(outcome, _)| matches!(outcome, Ok(Opened::Ready(()))))
        };
        match transport {
            Transport::MqttWs => stands(&self.mqtt),
            Transport::AmqpWs => stands(&self.amqp),
            _ => true,
        }
    }
}

pub(crate) async fn look(subject: &Subject, ports: &Ports) -> Upgrades {
    let endpoint = subject.endpoint_of(Transport::Http).filter(|_| ports.stands(Transport::Http));
    let Some(config) = endpoint.and_then(|endpoint| subject.config(&endpoint)) else {
        return Upgrades::default();
    };
    let (mqtt, amqp) = join!(
        upgraded(&config, subject.ports.https, "mqtt"),
        upgraded(&config, subject.ports.https, "AMQPWSB10")
    );
    Upgrades { mqtt: Some(mqtt), amqp: Some(amqp) }
}

/// `None` when the chosen transport ends here.
pub(crate) fn examine(subject: &Subject, upgrades: Upgrades, chart: &mut Chart<'_>) -> Option<()> {
    let ends = !upgrades.stands(subject.transport());
    let table = [
        (&MQTT_WS, Transport::MqttWs, upgrades.mqtt),
        (&AMQP_WS, Transport::AmqpWs, upgrades.amqp),
    ];
    for (check, transport, upgrade) in table {
        match upgrade {
            Some((outcome, elapsed)) => {
                chart.took(elapsed);
                one(check, transport, outcome, subject, chart);
            }
            None => chart.skip(check, "there is no TLS with the port of HTTPS"),
        }
    }
    (!ends).then_some(())
}

async fn upgraded(config: &Config, port: u16, subprotocol: &str) -> Upgrade {
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
                false => {
                    chart.warn(check, &error, &not_needed(subject, transport.as_str()));
                }
            }
        }
    }
}
