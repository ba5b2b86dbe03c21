//! What the AMQP transport is made from.

use dps_connect::{Carrier, Config};

/// What every transport is made from, and what only AMQP knows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AmqpConfig {
    /// What every transport is made from.
    pub connect: Config,
    /// What AMQP is carried by. Default: TLS.
    pub carrier: Carrier,
    /// Whether what is sure to follow is sent at once, without waiting for the answer to each step. Default true:
    /// waiting costs five round trips more with a SAS token and three more with a certificate. A connection that
    /// dies during such a start is tried once more step by step.
    pub pipelined: bool,
}

impl AmqpConfig {
    /// AMQP over TLS, pipelined.
    #[must_use]
    pub fn new(connect: Config) -> Self {
        Self { connect, carrier: Carrier::Tls, pipelined: true }
    }

    /// Sets [`AmqpConfig::carrier`].
    #[must_use]
    pub fn carrier(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }

    /// Sets [`AmqpConfig::pipelined`].
    #[must_use]
    pub fn pipelined(mut self, pipelined: bool) -> Self {
        self.pipelined = pipelined;
        self
    }
}

impl From<Config> for AmqpConfig {
    fn from(connect: Config) -> Self {
        Self::new(connect)
    }
}
