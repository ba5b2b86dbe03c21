//! The device says who it is as a registration would, over the same transport, and registers nothing.

use std::time::Duration;

use dps_client::{
    AmqpConfig, Attestation, Carrier, Config, Error, HttpTransport, MqttConfig, Progress,
    RegistrationId, Response, Transport,
};
use dps_connect::Opened;
use tokio::time::{Instant, timeout};

use crate::subject::Subject;

/// What came of it.
pub(crate) struct Login {
    pub(crate) said: Said,
    pub(crate) elapsed: Duration,
}

/// What the service said.
pub(crate) enum Said {
    /// What it answers over HTTPS to the question for the state of the registration.
    State(Response),
    /// It lets the device in, over MQTT or AMQP.
    LetIn,
    /// It does not, over MQTT or AMQP.
    Refused(Response),
    /// Nothing: the connection failed, or what came makes no sense.
    Failed(Error),
    /// Nothing within this time.
    Silent(Duration),
}

/// Waits so long for the answer. `None` as long as something is missing that it takes.
pub(crate) async fn log_in(
    subject: &Subject,
    transport: Transport,
    credential: &Attestation,
    within: Duration,
) -> Option<Login> {
    let id = subject.registration_id.as_ref().ok()?;
    let mut config = subject.config(&subject.endpoint_of(transport)?)?;
    config.attestation = credential.clone();
    let begun = Instant::now();
    let said = timeout(within, say(transport, config, id)).await;
    Some(Login { said: said.unwrap_or(Said::Silent(within)), elapsed: begun.elapsed() })
}

async fn say(transport: Transport, config: Config, id: &RegistrationId) -> Said {
    let progress = Progress::default();
    let carrier = match transport {
        Transport::MqttWs | Transport::AmqpWs => Carrier::WebSocket,
        _ => Carrier::Tls,
    };
    let outcome = match transport {
        Transport::Mqtt | Transport::MqttWs => {
            let mut config = MqttConfig::new(config);
            config.carrier = carrier;
            let outcome = dps_mqtt::internal::log_in(&config, id, &progress).await;
            let hint = config.connect.credential_hint(None);
            outcome.map(|opened| match opened {
                Opened::Refused(response) => Opened::Refused(response.hint(hint)),
                ready => ready,
            })
        }
        Transport::Amqp | Transport::AmqpWs => {
            let mut config = AmqpConfig::new(config);
            config.carrier = carrier;
            dps_amqp::internal::log_in(&config, id, &progress).await
        }
        _ => return state(config, id, &progress).await.map_or_else(Said::Failed, Said::State),
    };
    match outcome {
        Ok(Opened::Ready(())) => Said::LetIn,
        Ok(Opened::Refused(response)) => Said::Refused(response),
        Err(error) => Said::Failed(error),
    }
}

async fn state(
    config: Config,
    id: &RegistrationId,
    progress: &Progress,
) -> Result<Response, Error> {
    HttpTransport::new(config)?.registration_state(id, progress).await
}
