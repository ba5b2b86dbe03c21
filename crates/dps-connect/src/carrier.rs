//! What carries a protocol to the service: TLS on a port of its own, or WebSocket on port 443.
//!
//! A transport says once what its [`Protocol`] is on either. [`Connector::open`](crate::Connector::open) then gives it a
//! stream of bytes, or the service's refusal if that came on the way, and from there on nothing depends on the carrier.

use dps_state_machine::{ConfigurationError, Error};
use tokio::io::{AsyncRead, AsyncWrite};

/// The port of WebSocket over TLS.
pub(crate) const WEBSOCKET_PORT: u16 = 443;

/// What a protocol is carried by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Carrier {
    /// TLS, on the protocol's own port: 8883 for MQTT, 5671 for AMQP.
    #[default]
    Tls,
    /// WebSocket over TLS, port 443. It needs the feature `websocket`.
    WebSocket,
}

impl Carrier {
    /// Checks that it is compiled in.
    ///
    /// # Errors
    /// [`Error::Configuration`].
    pub fn ensure_built(self) -> Result<(), Error> {
        if self == Self::WebSocket && !cfg!(feature = "websocket") {
            let reason = "WebSocket is not compiled in; build with the feature websocket";
            return Err(ConfigurationError::new("carrier", "WebSocket", reason).into());
        }
        Ok(())
    }
}

/// What a protocol is on either carrier.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    /// Its port over TLS.
    pub tls_port: u16,
    /// Its name as a WebSocket subprotocol.
    pub subprotocol: &'static str,
}

impl Protocol {
    /// The port for an endpoint that names none.
    #[must_use]
    pub fn port(&self, carrier: Carrier) -> u16 {
        match carrier {
            Carrier::Tls => self.tls_port,
            Carrier::WebSocket => WEBSOCKET_PORT,
        }
    }
}

/// A stream of bytes to the service, whatever carries them.
pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_carrier_that_is_not_built_is_a_configuration_error() {
        assert!(Carrier::Tls.ensure_built().is_ok());
        let outcome = Carrier::WebSocket.ensure_built();
        assert_eq!(outcome.is_ok(), cfg!(feature = "websocket"));
        if let Err(error) = outcome {
            assert!(error.to_string().contains("the feature websocket"), "{error}");
        }
    }
}
