//! What the AMQP transport is made from.

use dps_connect::{Carrier, Config};

/// The configuration of an [`AmqpTransport`](crate::AmqpTransport): the [`Config`] that every transport takes, and the
/// settings that only AMQP has.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AmqpConfig {
    /// What every transport needs to know.
    pub connect: Config,
    /// What carries AMQP: TLS on port 5671 (the default) or WebSocket on port 443.
    pub carrier: Carrier,
}

impl AmqpConfig {
    /// AMQP over TLS.
    #[must_use]
    pub fn new(connect: Config) -> Self {
        Self { connect, carrier: Carrier::Tls }
    }
}

impl From<Config> for AmqpConfig {
    fn from(connect: Config) -> Self {
        Self::new(connect)
    }
}
