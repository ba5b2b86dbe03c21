//! How the wire goes about it.

/// How AMQP gets to the service, and how it starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AmqpOptions {
    /// What AMQP runs over. Default: TLS, port 5671.
    pub carrier: Carrier,
    /// Wait for the service's answer to each step of a start, instead of sending what is sure to follow at once.
    /// It costs five round trips more with a SAS token and three more with a certificate. Default: no.
    pub step_by_step: bool,
}

/// What AMQP runs over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Carrier {
    /// TLS, port 5671.
    #[default]
    Tls,
    /// WebSocket over TLS, port 443. It needs the feature `websocket`.
    Websocket,
}

impl AmqpOptions {
    /// Sets [`AmqpOptions::carrier`].
    #[must_use]
    pub fn carrier(mut self, carrier: Carrier) -> Self {
        self.carrier = carrier;
        self
    }

    /// Sets [`AmqpOptions::step_by_step`].
    #[must_use]
    pub fn step_by_step(mut self, step_by_step: bool) -> Self {
        self.step_by_step = step_by_step;
        self
    }
}
