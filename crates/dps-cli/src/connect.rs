//! The first connection of an assigned device to its hub: what it meets, and what to do about it.

use std::time::Duration;

use dps_client::{
    Carrier, Config, Endpoint, Error, HubConfig, HubConnection, Progress, RegistrationId,
    RegistrationResult, Stage, Transport, TransportChoice,
};
use dps_provisioner::{HubRefusal, Provisioner};
use serde::Serialize;

use crate::{
    given::wrong,
    issue::{Delivery, Order},
    kept::Next,
    proof::Proofs,
};

/// How the hub is to be reached, decided before the registration but for the hub's name.
pub(crate) struct Plan {
    /// That of the registration.
    config: Config,
    transport: TransportChoice,
    /// Where it is, if that was said.
    given: Option<Endpoint>,
    /// Where the emulator within this command serves MQTT.
    embedded: Option<Endpoint>,
}

/// What the connection met.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Met {
    status: Status,
    endpoint: Option<String>,
    /// What is wrong and what to do.
    message: Option<String>,
    retryable: bool,
    /// How it stands in the table of what to do next.
    #[serde(skip)]
    refusal: Option<HubRefusal>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    next: Option<Next>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Status {
    Connected,
    /// By the hub itself.
    Refused,
    /// There was no connection, or it broke, or it took too long.
    Unreachable,
}

impl Plan {
    pub(crate) fn new(
        config: Config,
        transport: TransportChoice,
        given: Option<Endpoint>,
        embedded: Option<Endpoint>,
    ) -> Self {
        Self { config, transport, given, embedded }
    }

    /// Connects once, within this time, and ends the session.
    pub(crate) async fn carry_out(
        mut self,
        id: &RegistrationId,
        registered: &RegistrationResult,
        proofs: &Proofs,
        time: Duration,
    ) -> Met {
        match proofs.at_hub(id, registered.credential, time).await {
            Ok(Some(attestation)) => self.config.attestation = attestation,
            Ok(None) => {}
            Err(error) => return Met::failed(None, &error),
        }
        let (hub, device_id) = (registered.assigned_hub.as_str(), registered.device_id.as_str());
        let (hub, endpoint) = match self.over(registered).hub(hub, device_id) {
            Ok(hub) => hub,
            Err(error) => return Met::failed(None, &error),
        };
        let progress = Progress::default();
        let opening = HubConnection::open(&hub, id, &progress);
        match tokio::time::timeout(time, opening).await {
            Ok(Ok(connection)) => {
                // The device is in: nobody waits for the end of the session for long.
                let _ = tokio::time::timeout(time, connection.close()).await;
                Met {
                    status: Status::Connected,
                    endpoint: Some(endpoint),
                    message: None,
                    retryable: false,
                    refusal: None,
                    next: None,
                }
            }
            Ok(Err(error)) => Met::failed(Some(endpoint), &error),
            Err(_) => Met {
                status: Status::Unreachable,
                endpoint: Some(endpoint),
                message: Some(format!(
                    "no answer came within {:.1} s; --timeout SECONDS allows more time",
                    time.as_secs_f64()
                )),
                retryable: true,
                refusal: Some(HubRefusal::Unreachable),
                next: None,
            },
        }
    }

    /// With the transport that was taken, of several: what lets that through lets the hub's through too.
    fn over(mut self, registered: &RegistrationResult) -> Self {
        let taken = registered.transport.as_ref().and_then(|name| name.parse().ok());
        self.transport = taken.unwrap_or(self.transport);
        self
    }

    /// Has the hub issue a certificate, checks it and stores it.
    pub(crate) async fn renew(
        self,
        hub: &str,
        device_id: &str,
        id: &RegistrationId,
        order: Order,
    ) -> Result<Delivery, Error> {
        let (mut config, _) = self.hub(hub, device_id)?;
        config.for_certificate = true;
        let csr = order.request(id)?;
        let mut connection = HubConnection::open(&config, id, &Progress::default()).await?;
        let issued = connection.issue_certificate(&csr).await?;
        connection.close().await;
        Ok(order.fulfil(id, &issued))
    }

    fn hub(self, hub: &str, device_id: &str) -> Result<(HubConfig, String), Error> {
        let transport = self.transport.fixed().unwrap_or(Transport::Mqtt);
        let carrier = match transport {
            Transport::MqttWs | Transport::AmqpWs => Carrier::WebSocket,
            _ => Carrier::Tls,
        };
        let is_local = hub.eq_ignore_ascii_case("localhost")
            || hub.to_ascii_lowercase().ends_with(".localhost");
        let Self { config, given, embedded, .. } = self;
        let (endpoint, carrier) = match (given, embedded, transport) {
            (Some(given), ..) => (given, carrier),
            _ if !is_local => (hub.parse()?, carrier),
            // An emulator serves its hubs where it serves MQTT: by the port of HTTPS, over WebSocket.
            (_, Some(mqtt), Transport::Http | Transport::Amqp) => (mqtt, carrier),
            (_, None, Transport::Amqp) => {
                let reason =
                    "give it: a hub with this name is served by an emulator, on its MQTT port";
                return Err(wrong("--hub-endpoint", hub, reason));
            }
            (_, _, Transport::Http) => (config.endpoint.clone(), Carrier::WebSocket),
            _ => (config.endpoint.clone(), carrier),
        };
        let mut connect = config;
        connect.endpoint = endpoint.clone();
        let mut config = HubConfig::new(connect, hub, device_id);
        config.carrier = carrier;
        Ok((config, endpoint.to_string()))
    }
}

impl Met {
    fn failed(endpoint: Option<String>, error: &Error) -> Self {
        let (status, what, to_do) = match error {
            Error::Rejected(refusal) => {
                let to_do = match refusal.status {
                    401 => Some(NOT_AUTHORIZED),
                    400 => Some("the device id may be another at the hub"),
                    _ => Some("it is throttling or down: try again later"),
                };
                (Status::Refused, refusal.message.clone(), to_do.map(str::to_owned))
            }
            Error::Connection(failure) if failure.stage == Stage::Resolve => {
                let to_do = "check the name at the enrollment, and the resolver; --hub-endpoint HOST:PORT names another place";
                (Status::Unreachable, error.to_string(), Some(to_do.to_owned()))
            }
            error => {
                let hint = error.hint();
                (Status::Unreachable, error.to_string(), hint)
            }
        };
        let message = match to_do {
            Some(to_do) => format!("{what}; {to_do}"),
            None => what,
        };
        let (retryable, refusal) = (error.is_retryable(), HubRefusal::of(error));
        Self { status, endpoint, message: Some(message), retryable, refusal, next: None }
    }

    /// Counts it, and says what to do next.
    pub(crate) fn reported(mut self, device: &mut Provisioner) -> Self {
        match self.refusal {
            None if self.status == Status::Connected => device.report_connected(),
            None => {}
            Some(refusal) => self.next = Some(Next::after(device, refusal)),
        }
        self
    }

    /// A row for people.
    pub(crate) fn row(&self) -> Option<String> {
        let endpoint = self.endpoint.as_deref().unwrap_or_default();
        (self.status == Status::Connected).then(|| format!("by MQTT at {endpoint}"))
    }

    /// What is wrong, unless the hub has let the device in.
    pub(crate) fn failure(&self, hub: &str) -> Option<String> {
        let message = self.message.as_deref()?;
        let next = self.next.as_ref().map(|next| format!("; {}", next.words()));
        let message = format!("{message}{}", next.unwrap_or_default());
        Some(match (self.status, &self.endpoint) {
            (Status::Refused, _) => {
                format!("the device is assigned, but its hub {hub} refused it: {message}")
            }
            (_, Some(endpoint)) => {
                format!(
                    "the device is assigned, but its hub {hub} can't be reached at {endpoint}: {message}"
                )
            }
            (_, None) => format!("the device is assigned, but not connected: {message}"),
        })
    }
}

const NOT_AUTHORIZED: &str = "the hub does not know the device, has it disabled, or has another credential for it; look at the device there, or register it again with --force";
