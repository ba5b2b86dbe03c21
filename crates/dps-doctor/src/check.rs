//! The table of all checks, and which of them are asked for.

use std::{fmt, str::FromStr};

use dps_client::{ConfigurationError, Error};

/// One check: what it is called and what it looks at. All of them are [`CHECKS`].
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// Its name, which stays as it is: a group and a word, like `tls.authority`.
    pub id: &'static str,
    /// What it looks at, in a line.
    pub looks_at: &'static str,
    pub(crate) layer: Layer,
}

/// A part of the way to the hub. A [`Report`](crate::Report) says at which of them the way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Hop {
    /// The device: its settings, clock and credential.
    Device,
    /// The HTTP proxy, where there is one.
    Proxy,
    /// Name and port of the service.
    Network,
    /// The TLS handshake.
    Tls,
    /// The provisioning service, WebSocket included.
    Service,
    /// The device's hub.
    Hub,
}

/// What is looked at together, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    Settings,
    Clock,
    Credential,
    Proxy,
    Name,
    Port,
    Tls,
    WebSocket,
    Service,
    Hub,
}

macro_rules! checks {
    ($($name:ident $id:literal $layer:ident $looks_at:literal;)+) => {
        $(pub(crate) static $name: Check =
            Check { id: $id, looks_at: $looks_at, layer: Layer::$layer };)+
        /// All checks, in the order in which a registration meets what they look at.
        pub static CHECKS: &[&Check] = &[$(&$name),+];
    };
}

checks! {
    TRANSPORT "settings.transport" Settings "the transport exists, and can carry this credential and this request";
    ID_SCOPE "settings.id-scope" Settings "the ID scope has the form of one";
    REGISTRATION_ID "settings.registration-id" Settings "the registration id is one";
    ENDPOINT "settings.endpoint" Settings "the endpoint is a host, and the one that devices use";
    CLOUD "settings.cloud" Settings "the endpoint's name is spelled as one of the service's clouds";
    PROXY_SETTING "settings.proxy" Settings "the proxy's URL, by flag or environment, and NO_PROXY";
    ROOTS "settings.roots" Settings "the authorities to trust can be read";
    REQUEST "settings.request" Settings "the payload is JSON and fits into a request";
    FILES "settings.files" Settings "the files that a registration keeps and writes can be used";
    YEAR "clock.year" Clock "the clock is not before 1970";
    RELEASE "clock.release" Clock "the clock is not before this program was written";
    CREDENTIAL "credential.read" Credential "the credential is given, can be read, and its parts belong together";
    PERMISSIONS "credential.permissions" Credential "nobody but their owner can read files with keys";
    COMMON_NAME "credential.common-name" Credential "the certificate's common name is the registration id";
    CERTIFICATE "credential.certificate" Credential "order and dates of the certificate's chain";
    CHAIN_END "credential.chain-end" Credential "the dates of the authority at the chain's end";
    KEY "credential.key" Credential "the key signs, be it in a file, a TPM or a token";
    PROXY_NAME "proxy.name" Proxy "the proxy's name has an address";
    PROXY_PORT "proxy.port" Proxy "the proxy's port: open, refused or silent";
    PROXY_HTTP "proxy.http" Proxy "what listens there is an HTTP proxy";
    PROXY_LOGIN "proxy.authentication" Proxy "the proxy takes our user and password, or wants none";
    TUNNEL "proxy.tunnel" Proxy "the proxy opens a tunnel to the port of the service";
    LOOKUP "name.lookup" Name "the service's name has an address";
    LOOKUP_TIME "name.speed" Name "how long the resolver takes";
    PRIVATE "name.private" Name "a public name does not have a private address";
    IPV4 "port.ipv4" Port "each IPv4 address: open, refused or silent";
    IPV6 "port.ipv6" Port "each IPv6 address: open, refused or silent";
    HTTPS_PORT "port.443" Port "the port of http, mqtt-ws and amqp-ws: open, refused, silent, or another protocol";
    MQTT_PORT "port.8883" Port "the port of mqtt: open, refused, silent, or another protocol";
    AMQP_PORT "port.5671" Port "the port of amqp: open, refused, silent, or another protocol";
    HANDSHAKE "tls.handshake" Tls "the peer answers the TLS handshake";
    VERSION "tls.version" Tls "a version of TLS and a cipher in common";
    AUTHORITY "tls.authority" Tls "who signed the server's certificate, and whether it is trusted";
    EXPIRED "tls.expired" Tls "the server's certificate has not expired";
    NOT_YET "clock.certificate" Tls "the server's certificate is valid already, by this machine's clock";
    SERVER_NAME "tls.name" Tls "the server's certificate is for the endpoint's name";
    SERVER_CERTIFICATE "tls.certificate" Tls "nothing else is wrong with the server's certificate";
    INSPECTION "tls.inspection" Tls "nobody in between inspects TLS to a public name";
    ASKED "tls.client-certificate" Tls "the peer asks for the device's certificate";
    MQTT_WS "websocket.mqtt" WebSocket "the upgrade to WebSocket for MQTT";
    AMQP_WS "websocket.amqp" WebSocket "the upgrade to WebSocket for AMQP";
    ANSWER "service.answer" Service "the service answers, and not a captive portal or another server";
    SERVICE_CLOCK "clock.service" Service "this machine's clock and the service's";
    LOGIN "service.credential" Service "the service takes the credential, without a registration";
    GROUP_KEY "service.group-key" Service "whether a key that is refused is that of a group, or of a device";
    ENROLLMENT "service.enrollment" Service "what the service knows of the device: its state, its hub";
    BUSY "service.busy" Service "the service has time: neither throttling nor a fault of its own";
    HUB_NAME "hub.name" Hub "the hub's name has an address";
    HUB_MQTT "hub.8883" Hub "the hub's port of mqtt";
    HUB_AMQP "hub.5671" Hub "the hub's port of amqp";
    HUB_WS "hub.443" Hub "the hub's port of MQTT and AMQP over WebSocket";
}

impl Check {
    /// Which part of the way it looks at.
    #[must_use]
    pub fn hop(&self) -> Hop {
        match self.layer {
            Layer::Settings | Layer::Clock | Layer::Credential => Hop::Device,
            Layer::Proxy => Hop::Proxy,
            Layer::Name | Layer::Port => Hop::Network,
            Layer::Tls => Hop::Tls,
            Layer::WebSocket | Layer::Service => Hop::Service,
            Layer::Hub => Hop::Hub,
        }
    }

    fn is_of(&self, name: &str) -> bool {
        let rest = self.id.strip_prefix(name.trim_end_matches('.'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

impl Hop {
    /// The word for it, as JSON and the picture of the path have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Proxy => "proxy",
            Self::Network => "network",
            Self::Tls => "TLS",
            Self::Service => "service",
            Self::Hub => "hub",
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Layer {
    /// What must have been looked at before.
    fn needs(self) -> &'static [Self] {
        use Layer::{Clock, Credential, Hub, Name, Port, Proxy, Service, Settings, Tls, WebSocket};
        match self {
            Settings | Clock => &[],
            Credential | Proxy | Name => &[Settings],
            Port => &[Settings, Proxy, Name],
            Tls | WebSocket => &[Settings, Proxy, Name, Port],
            Service => &[Settings, Credential, Proxy, Name, Port, Tls, WebSocket],
            Hub => &[Settings, Credential, Proxy, Name, Port, Tls, WebSocket, Service],
        }
    }
}

/// Which checks are asked for: all, or some by their ids or by their groups. What they depend on is looked at too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection(Option<Vec<&'static Check>>);

impl Selection {
    /// All checks.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn has(&self, check: &Check) -> bool {
        self.0.as_ref().is_none_or(|some| some.iter().any(|one| one.id == check.id))
    }

    /// Whether the layer is to be looked at.
    pub(crate) fn reaches(&self, layer: Layer) -> bool {
        let Some(some) = &self.0 else { return true };
        some.iter().any(|check| check.layer == layer || check.layer.needs().contains(&layer))
    }
}

impl FromStr for Selection {
    type Err = Error;

    /// Takes ids and groups, separated by commas: `tls,port.8883`.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names what is no check, and lists those that are.
    fn from_str(list: &str) -> Result<Self, Error> {
        let mut some: Vec<&'static Check> = Vec::new();
        for name in list.split(',').map(str::trim) {
            let before = some.len();
            some.extend(CHECKS.iter().copied().filter(|check| check.is_of(name)));
            if some.len() == before {
                let ids: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
                let reason = format!(
                    "there is no such check; give one of these, or a group like tls: {}",
                    ids.join(", ")
                );
                return Err(ConfigurationError::new("check", name, &reason).into());
            }
        }
        Ok(Self(Some(some)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words_of_a_group_and_each_is_there_once() {
        let mut ids: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
        let fits = |id: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            id.split('.').count() == 2 && id.chars().all(plain)
        };
        assert!(ids.iter().all(|id| fits(id)), "{ids:?}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), CHECKS.len());
        assert!(CHECKS.is_sorted_by_key(|check| check.layer), "in the order of a registration");
    }

    #[test]
    fn checks_are_chosen_by_id_and_by_group_and_what_is_none_is_named() {
        let chosen = |list: &str| {
            let selection: Selection = list.parse().unwrap();
            CHECKS.iter().filter(|c| selection.has(c)).map(|c| c.id).collect::<Vec<_>>()
        };
        assert_eq!(
            chosen("tls.name, clock"),
            ["clock.year", "clock.release", "clock.certificate", "tls.name", "clock.service",]
        );
        assert_eq!(chosen("port.").len(), 5);
        for none in ["", "tls.", "tl", "tls.names", "port.44"] {
            let outcome = none.parse::<Selection>();
            if none == "tls." {
                assert!(outcome.is_ok(), "a group");
                continue;
            }
            let message = outcome.unwrap_err().to_string();
            assert!(message.contains("clock.year, clock.release"), "{message}");
        }
    }

    #[test]
    fn what_a_check_depends_on_is_looked_at_and_nothing_else() {
        let clock: Selection = "clock.year".parse().unwrap();
        assert!(clock.reaches(Layer::Clock) && !clock.reaches(Layer::Name));
        let tls: Selection = "tls".parse().unwrap();
        assert!(tls.reaches(Layer::Port) && !tls.reaches(Layer::Service));
        assert!(Selection::all().reaches(Layer::Hub));
    }
}
