//! What the AMQP transport is made from.

use dps_connect::{Carrier, Config};

/// The configuration of an [`AmqpTransport`](crate::AmqpTransport): the [`Config`] that every transport takes, and the
/// settings that only AMQP has.
#[derive(Clone, Debug)]
pub struct AmqpConfig {
    pub(crate) connect: Config,
    pub(crate) carrier: Carrier,
    pub(crate) pipelined: bool,
}

impl AmqpConfig {
    /// AMQP over TLS, pipelined.
    #[must_use]
    pub fn new(connect: Config) -> Self {
        Self { connect, carrier: Carrier::Tls, pipelined: true }
    }

    /// What carries AMQP: TLS on port 5671 (the default) or WebSocket on port 443.
    #[must_use]
    pub fn carrier(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }

    /// Whether everything that is sure to follow is sent at once, without waiting for the answer to each step. The
    /// default is true: waiting costs five round trips more with a SAS token and three more with a certificate. A
    /// connection that dies during such a start is tried once more step by step.
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
