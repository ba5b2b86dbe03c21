//! The transports by name.

use std::{fmt, str::FromStr};

use dps_connect::Config;
use dps_state_machine::{BoxTransport, ConfigurationError, Error};

/// A transport: which protocol, carried by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// HTTPS, port 443.
    Http,
    /// MQTT 3.1.1 over TLS, port 8883.
    Mqtt,
    /// MQTT 3.1.1 over WebSocket, port 443.
    MqttWs,
    /// AMQP 1.0 over TLS, port 5671.
    Amqp,
    /// AMQP 1.0 over WebSocket, port 443.
    AmqpWs,
}

impl Transport {
    /// Every transport, compiled in or not.
    pub const ALL: [Self; 5] = [Self::Http, Self::Mqtt, Self::MqttWs, Self::Amqp, Self::AmqpWs];

    /// The transport's name, as the command takes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Mqtt => "mqtt",
            Self::MqttWs => "mqtt-ws",
            Self::Amqp => "amqp",
            Self::AmqpWs => "amqp-ws",
        }
    }

    /// Whether the transport is compiled in.
    #[must_use]
    pub fn is_built(self) -> bool {
        match self {
            Self::Http => cfg!(feature = "http"),
            Self::Mqtt => cfg!(feature = "mqtt"),
            Self::MqttWs => cfg!(all(feature = "mqtt", feature = "websocket")),
            Self::Amqp => cfg!(feature = "amqp"),
            Self::AmqpWs => cfg!(all(feature = "amqp", feature = "websocket")),
        }
    }

    /// Checks, before anything else is done, that the transport is compiled in.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the transports that are.
    pub fn ensure_built(self) -> Result<(), Error> {
        if self.is_built() { Ok(()) } else { Err(not_built(self)) }
    }

    /// The port that the service has for it.
    pub(crate) fn port(self) -> u16 {
        match self {
            Self::Mqtt => 8883,
            Self::Amqp => 5671,
            Self::Http | Self::MqttWs | Self::AmqpWs => 443,
        }
    }
}

impl FromStr for Transport {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] that lists the names there are.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|transport| transport.as_str() == text).ok_or_else(|| {
            let reason = format!("there is no such transport; choose from {}", names(|_| true));
            ConfigurationError::new("transport", text, &reason).into()
        })
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

pub(crate) fn handlers(transport: Transport, config: Config) -> Result<BoxTransport, Error> {
    match transport {
        #[cfg(feature = "http")]
        Transport::Http => dps_http::HttpTransport::new(config).map(BoxTransport::new),
        #[cfg(feature = "mqtt")]
        Transport::Mqtt => dps_mqtt::MqttTransport::new(config).map(BoxTransport::new),
        #[cfg(all(feature = "mqtt", feature = "websocket"))]
        Transport::MqttWs => {
            let mut config = dps_mqtt::MqttConfig::new(config);
            config.carrier = dps_connect::Carrier::WebSocket;
            dps_mqtt::MqttTransport::new(config).map(BoxTransport::new)
        }
        #[cfg(feature = "amqp")]
        Transport::Amqp => dps_amqp::AmqpTransport::new(config).map(BoxTransport::new),
        #[cfg(all(feature = "amqp", feature = "websocket"))]
        Transport::AmqpWs => {
            let mut config = dps_amqp::AmqpConfig::new(config);
            config.carrier = dps_connect::Carrier::WebSocket;
            dps_amqp::AmqpTransport::new(config).map(BoxTransport::new)
        }
        #[cfg(not(all(
            feature = "http",
            feature = "mqtt",
            feature = "amqp",
            feature = "websocket"
        )))]
        missing => {
            // Without any transport nothing above takes the configuration.
            drop(config);
            Err(not_built(missing))
        }
    }
}

/// The names of some of the transports, as messages list them.
pub(crate) fn names(of: impl Fn(Transport) -> bool) -> String {
    let names: Vec<_> =
        Transport::ALL.into_iter().filter(|w| of(*w)).map(Transport::as_str).collect();
    names.join(", ")
}

fn not_built(transport: Transport) -> Error {
    let built = match names(Transport::is_built) {
        none if none.is_empty() => "no transport is".to_owned(),
        names => format!("there is {names}"),
    };
    let reason = format!("this transport is not compiled in; {built}");
    ConfigurationError::new("transport", transport.as_str(), &reason).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_has_a_name_that_is_read_back() {
        for transport in Transport::ALL {
            assert_eq!(
                transport.as_str().parse::<Transport>().unwrap(),
                transport,
                "{transport:?}"
            );
        }
        let message = "carrier-pigeon".parse::<Transport>().unwrap_err().to_string();
        assert!(message.contains("carrier-pigeon") && message.contains("amqp-ws"), "{message}");
    }

    #[test]
    fn a_transport_that_is_not_built_is_a_configuration_error_that_names_those_that_are() {
        for transport in Transport::ALL.into_iter().filter(|transport| !transport.is_built()) {
            let message = not_built(transport).to_string();
            assert!(message.contains(transport.as_str()), "{message}");
            assert_eq!(message.contains("there is http"), cfg!(feature = "http"), "{message}");
        }
    }
}
