//! Which transport: one by its name, or whatever gets through.

use std::{fmt, str::FromStr, time::Duration};

use dps_attestation::Attestation;
use dps_connect::Config;
use dps_state_machine::{
    BoxTransport, ConfigurationError, Error, Fallback, Race, Settings, StateMachine,
};

use crate::{
    Client,
    transport::{Transport, handlers, names},
};

/// Which transport a client uses. A [`Transport`] and an [`Auto`] are one.
///
/// ```
/// # fn main() -> Result<(), dps_client::Error> {
/// use dps_client::{Auto, Transport, TransportChoice};
/// assert_eq!("auto".parse::<TransportChoice>()?, Auto::default().into());
/// assert_eq!("mqtt-ws".parse::<TransportChoice>()?, Transport::MqttWs.into());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportChoice {
    /// This one.
    Fixed(Transport),
    /// Whatever gets through where the device is.
    Auto(Auto),
}

impl TransportChoice {
    /// Its name, as the command takes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fixed(transport) => transport.as_str(),
            Self::Auto(_) => AUTO,
        }
    }

    /// The transport, unless it is chosen among several.
    #[must_use]
    pub fn fixed(self) -> Option<Transport> {
        match self {
            Self::Fixed(transport) => Some(transport),
            Self::Auto(_) => None,
        }
    }

    /// Begins with this transport, the one that worked last, if it is chosen among several.
    #[must_use]
    pub fn preferring(self, preferred: Option<Transport>) -> Self {
        match (self, preferred) {
            (Self::Auto(auto), Some(preferred)) => Self::Auto(Auto { preferred, ..auto }),
            _ => self,
        }
    }

    /// Checks, before anything else is done, that the transport is compiled in.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the transports that are.
    pub fn ensure_built(self) -> Result<(), Error> {
        match self {
            Self::Auto(_) if Transport::ALL.into_iter().any(Transport::is_built) => Ok(()),
            Self::Auto(Auto { preferred, .. }) | Self::Fixed(preferred) => preferred.ensure_built(),
        }
    }
}

const AUTO: &str = "auto";

impl From<Transport> for TransportChoice {
    fn from(transport: Transport) -> Self {
        Self::Fixed(transport)
    }
}

impl From<Auto> for TransportChoice {
    fn from(auto: Auto) -> Self {
        Self::Auto(auto)
    }
}

impl FromStr for TransportChoice {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] that lists the names there are.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text == AUTO {
            return Ok(Auto::default().into());
        }
        text.parse().map(Self::Fixed).map_err(|_| {
            let names = names(|_| true);
            let reason = format!("there is no such transport; choose from {names}, {AUTO}");
            ConfigurationError::new("transport", text, &reason).into()
        })
    }
}

impl fmt::Display for TransportChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first transport that gets through: a [`Race`] of all that are compiled in, on their own ports.
///
/// TPM attestation goes over no MQTT, and no forced registration does: MQTT is left out of those. An endpoint that names
/// a port has room for one protocol: MQTT and AMQP over TLS take part when it is their own port, and those over HTTPS and
/// WebSocket when it is any other.
///
/// ```no_run
/// # async fn example(config: dps_client::Config) -> Result<(), dps_client::Error> {
/// use dps_client::{Auto, RegistrationRequest, Settings, client};
///
/// let client = client(Auto::default(), config, Settings::default())?;
/// let device = client.register(RegistrationRequest::new("pump-17".parse()?)).await?;
/// println!("{} over {}", device.assigned_hub, device.transport.unwrap_or_default());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Auto {
    /// The transport that begins: the one that worked last, where that is known. Default [`Transport::Mqtt`]; then come
    /// `amqp`, `mqtt-ws`, `amqp-ws` and `http`.
    pub preferred: Transport,
    /// How long it has for itself. Default [`Race::HEAD_START`].
    pub head_start: Duration,
}

impl Default for Auto {
    fn default() -> Self {
        Self::preferring(Transport::Mqtt)
    }
}

impl Auto {
    const ORDER: [Transport; 5] =
        [Transport::Mqtt, Transport::Amqp, Transport::MqttWs, Transport::AmqpWs, Transport::Http];

    /// With the default head start for this transport.
    #[must_use]
    pub fn preferring(preferred: Transport) -> Self {
        Self { preferred, head_start: Race::<BoxTransport>::HEAD_START }
    }

    /// The transports in the order in which they are tried.
    pub fn order(self) -> impl Iterator<Item = Transport> {
        let others = Self::ORDER.into_iter().filter(move |other| *other != self.preferred);
        [self.preferred].into_iter().chain(others)
    }

    fn race(
        self,
        config: &Config,
        others: &[Attestation],
        settings: &Settings,
    ) -> Result<Race<Fallback<BoxTransport>>, Error> {
        let mut entrants = Vec::new();
        let mut left_out = Vec::new();
        for transport in self.order() {
            let made = match port_is_another(transport, config) {
                Some(reason) => Err(ConfigurationError::new("endpoint", "", &reason).into()),
                None => fallback(transport, config, others),
            };
            match made {
                Ok(made) => entrants.push((transport.as_str(), made)),
                Err(error) => left_out.push((transport.as_str(), error)),
            }
        }
        let mut entrants = entrants.into_iter();
        let Some(first) = entrants.next() else {
            // What is wrong for each of them is wrong with the configuration.
            let first = left_out.into_iter().next();
            return Err(first.map_or(Error::InvalidOperation, |(_, error)| error));
        };
        let race = Race::new(first, entrants).head_start(self.head_start);
        let race = race.patience(Race::<BoxTransport>::PATIENCE.min(settings.request_timeout / 2));
        let takes_time =
            [&config.attestation].into_iter().chain(others).any(|of| of.tpm().is_some());
        let race = if takes_time { race.waiting_for_answers() } else { race };
        let reason = |error: &Error| match error {
            Error::Configuration(error) => error.reason.clone(),
            other => other.to_string(),
        };
        Ok(left_out.iter().fold(race, |race, (name, error)| race.left_out(name, reason(error))))
    }
}

/// Why nothing speaks this transport's protocol on the port that the endpoint names.
fn port_is_another(transport: Transport, config: &Config) -> Option<String> {
    let port = config.endpoint.port()?;
    let own = transport.port();
    let is_another = |of: Transport| of.port() == port && port != own;
    let fits = match own {
        HTTPS => !Transport::ALL.into_iter().any(is_another),
        own => own == port,
    };
    (!fits).then(|| format!("its port is {own}, and the endpoint's is {port}"))
}

const HTTPS: u16 = 443;

/// A session over the given transport, or over whatever gets through with [`Auto`]. No I/O happens before
/// [`StateMachine::register`]; who wants to see each step as it happens calls [`StateMachine::observe`] first.
///
/// # Errors
/// [`Error::Configuration`]: the transport is not compiled in, or the configuration can't be used.
pub fn client(
    transport: impl Into<TransportChoice>,
    config: Config,
    settings: Settings,
) -> Result<Client, Error> {
    client_with_fallback(transport, config, [], settings)
}

/// As [`client`], for a device with several credentials: the one of the configuration, then these, each when the service
/// refused the one before (see [`Fallback`]).
///
/// # Errors
/// As of [`client`].
pub fn client_with_fallback(
    transport: impl Into<TransportChoice>,
    config: Config,
    others: impl IntoIterator<Item = Attestation>,
    settings: Settings,
) -> Result<Client, Error> {
    let others: Vec<Attestation> = others.into_iter().collect();
    let transport = match transport.into() {
        TransportChoice::Fixed(transport) => {
            BoxTransport::new(fallback(transport, &config, &others)?)
        }
        TransportChoice::Auto(auto) => BoxTransport::new(auto.race(&config, &others, &settings)?),
    };
    Ok(StateMachine::new(transport, settings))
}

/// The transport with each credential.
fn fallback(
    transport: Transport,
    config: &Config,
    others: &[Attestation],
) -> Result<Fallback<BoxTransport>, Error> {
    let with = |attestation: &Attestation| {
        let mut config = config.clone();
        config.attestation = attestation.clone();
        handlers(transport, config)
    };
    let others = others.iter().map(with).collect::<Result<Vec<_>, _>>()?;
    Ok(Fallback::new(handlers(transport, config.clone())?, others))
}
