//! What the MQTT transport is made from.

use std::time::Duration;

use dps_connect::{Carrier, Config};
use dps_state_machine::{ConfigurationError, Error};

/// What every transport is made from, and what only MQTT knows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MqttConfig {
    /// What every transport is made from.
    pub connect: Config,
    /// What MQTT is carried by. Default: TLS.
    pub carrier: Carrier,
    /// After this long without a packet from us the server may take us for gone (it allows half as much again).
    /// Whole seconds from 1 to 65,535, default 60 s. Until then a ping is sent, whether a registration waits for an
    /// answer or for its next poll.
    pub keep_alive: Duration,
    /// Whether the packets that begin a session leave in one flight, without waiting for the answer to each.
    /// Default true. A connection that dies before any answer to such a flight is tried once more step by step.
    pub pipelined: bool,
}

impl MqttConfig {
    /// MQTT over TLS with a keep-alive of 60 s, pipelined.
    #[must_use]
    pub fn new(connect: Config) -> Self {
        Self {
            connect,
            carrier: Carrier::Tls,
            keep_alive: Duration::from_secs(60),
            pipelined: true,
        }
    }

    /// Sets [`MqttConfig::carrier`].
    #[must_use]
    pub fn carrier(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }

    /// Sets [`MqttConfig::keep_alive`].
    #[must_use]
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Sets [`MqttConfig::pipelined`].
    #[must_use]
    pub fn pipelined(mut self, pipelined: bool) -> Self {
        self.pipelined = pipelined;
        self
    }

    /// The keep-alive as CONNECT has it, in seconds.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it is something else than 1 to 65,535 whole seconds, or when the carrier is not
    /// compiled in.
    pub(crate) fn check(&self) -> Result<u16, Error> {
        self.connect.check()?;
        self.carrier.ensure_built()?;
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
