//! What the AMQP transport is made from.

use dps_connect::{Carrier, Config};

/// The configuration of an [`AmqpTransport`](crate::AmqpTransport): the [`Config`] that every transport takes, and the
/// settings that only AMQP has.
#[derive(Clone, Debug)]
pub struct AmqpConfig {
    pub(crate) connect: Config,
    pub(crate) carrier: Carrier,
}

impl AmqpConfig {
    /// AMQP over TLS.
    #[must_use]
    pub fn new(connect: Config) -> Self {
        Self { connect, carrier: Carrier::Tls }
    }

    /// What carries AMQP: TLS on port 5671 (the default) or WebSocket on port 443.
    #[must_use]
    pub fn carrier(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }
}

impl From<Config> for AmqpConfig {
    fn from(connect: Config) -> Self {
        Self::new(connect)
    }
}
