//! What the MQTT transport is made from.

use std::time::Duration;

use dps_connect::{Carrier, Config};
use dps_state_machine::{ConfigurationError, Error};

/// The configuration of a [`MqttTransport`](crate::MqttTransport): the [`Config`] that every transport takes, and the
/// settings that only MQTT has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MqttConfig {
    /// What every transport needs to know.
    pub connect: Config,
    /// What carries MQTT: TLS on port 8883 (the default) or WebSocket on port 443.
    pub carrier: Carrier,
    /// After this long without a packet from the device the server may close the connection (it allows half as much
    /// again). Whole seconds from 1 to 65,535; the default is 60 s. A ping is sent in time, whether a registration
    /// waits for an answer or for its next poll.
    /// See <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html#_Keep_Alive>.
    pub keep_alive: Duration,
}

impl MqttConfig {
    /// MQTT over TLS with a keep-alive of 60 s.
    #[must_use]
    pub fn new(connect: Config) -> Self {
        Self { connect, carrier: Carrier::Tls, keep_alive: Duration::from_secs(60) }
    }

    /// The keep-alive as CONNECT has it, in seconds.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it is something else than 1 to 65,535 whole seconds, when the carrier is not
    /// compiled in, or when the device proves itself by a TPM, which the service does not take over MQTT.
    pub(crate) fn check(&self) -> Result<u16, Error> {
        self.connect.check()?;
        self.carrier.ensure_built()?;
        if self.connect.attestation.tpm().is_some() {
            let reason = "the service takes no TPM over MQTT; use http, amqp or amqp-ws";
            return Err(ConfigurationError::new("transport", "mqtt", reason).into());
        }
        match u16::try_from(self.keep_alive.as_secs()) {
            Ok(seconds @ 1..) if self.keep_alive.subsec_nanos() == 0 => Ok(seconds),
            _ => {
                let value = format!("{:?}", self.keep_alive);
                let reason = "give whole seconds, from 1 to 65535";
                Err(ConfigurationError::new("keep-alive", value, reason).into())
            }
        }
    }
}

impl From<Config> for MqttConfig {
    fn from(connect: Config) -> Self {
        Self::new(connect)
    }
}
