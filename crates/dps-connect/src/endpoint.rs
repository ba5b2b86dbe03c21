//! Where the service is.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use dps_state_machine::{ConfigurationError, Error};
use rustls::pki_types::ServerName;

/// The service's host, and its port when it isn't the transport's own.
///
/// ```
/// # fn main() -> Result<(), dps_client::Error> {
/// use dps_client::Endpoint;
/// let endpoint: Endpoint = "[::1]:8443".parse()?;
/// assert_eq!((endpoint.host(), endpoint.port_or(443)), ("::1", 8443));
/// assert_eq!(Endpoint::default().host(), "global.azure-devices-provisioning.net");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: String,
    port: Option<u16>,
}

impl Endpoint {
    /// The host's name or address; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port as given.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port as given, or else the transport's own.
    #[must_use]
    pub fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }

    /// The same host with this port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: self.host.clone(), port: Some(port) }
    }

    /// The name that the server's certificate must have.
    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, Error> {
        ServerName::try_from(self.host.clone())
            .map_err(|_| wrong(&self.host, "it is neither a host name nor an IP address"))
    }
}

impl Default for Endpoint {
    /// The service's global endpoint.
    /// See <https://learn.microsoft.com/azure/iot-dps/virtual-network-support#dps-service-endpoints>.
    fn default() -> Self {
        Self { host: "global.azure-devices-provisioning.net".to_owned(), port: None }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Takes `HOST` or `HOST:PORT`; an IPv6 address with a port is written `[ADDRESS]:PORT`.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the value and what is wrong with it.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (host, port) = parse(text).map_err(|reason| wrong(text, &reason))?;
        let endpoint = Self { host, port };
        endpoint.server_name().map_err(|_| {
            wrong(text, "the host is neither a name (letters, digits, -, .) nor an IP address")
        })?;
        Ok(endpoint)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => f.write_str(&host_and_port(&self.host, port)),
            None if self.host.contains(':') => write!(f, "[{}]", self.host),
            None => f.write_str(&self.host),
        }
    }
}

fn wrong(text: &str, reason: &str) -> Error {
    // Who gives the proxy's URL here may give its password too.
    let shown = match text.rsplit_once('@') {
        Some((before, host)) => {
            let plain = |scheme: &&str| scheme.chars().all(|c| c.is_ascii_alphanumeric());
            match before.split_once("://").map(|(scheme, _)| scheme).filter(plain) {
                Some(scheme) => format!("{scheme}://***@{host}"),
                None => format!("***@{host}"),
            }
        }
        None => text.to_owned(),
    };
    ConfigurationError::new("endpoint", shown, reason).into()
}

/// Reads `HOST[:PORT]`, which proxies use too.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn parse(text: &str) -> Result<(String, Option<u16>), String> {
    if text.is_empty() {
        return Err("it is empty; give HOST or HOST:PORT".to_owned());
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(format!("leave {scheme:?} and :// out; give HOST or HOST:PORT"));
    }
    if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("the character {bad:?} is not allowed in a host name"));
    }
    if let Some(bad) = text.chars().find(|c| matches!(c, '/' | '?' | '#' | '@')) {
        return Err(format!("{bad:?} is not allowed; give HOST or HOST:PORT, without a path"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text.to_owned(), None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) =
            rest.split_once(']').ok_or("the closing ] is missing after the IPv6 address")?;
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(format!("{address:?} is not an IPv6 address"));
        }
        return match rest.strip_prefix(':') {
            Some(port) => Ok((address.to_owned(), Some(parse_port(port)?))),
            None if rest.is_empty() => Ok((address.to_owned(), None)),
            None => Err(format!("{rest:?} after the address is no :PORT")),
        };
    }
    match text.split_once(':') {
        Some((_, port)) if port.contains(':') => {
            Err("it has several colons and is no IPv6 address; write [ADDRESS]:PORT".to_owned())
        }
        Some(("", _)) => Err("the host is missing; give HOST or HOST:PORT".to_owned()),
        Some((host, port)) => Ok((host.to_owned(), Some(parse_port(port)?))),
        None => Ok((text.to_owned(), None)),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(format!("the port {text:?} is no number from 1 to 65535")),
    }
}

/// Host and port as people write them.
pub(crate) fn host_and_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_and_written() {
        let cases = [
            ("dps.example", "dps.example", None, "dps.example"),
            ("localhost:8443", "localhost", Some(8443), "localhost:8443"),
            ("127.0.0.1:1", "127.0.0.1", Some(1), "127.0.0.1:1"),
            ("[::1]:65535", "::1", Some(65535), "[::1]:65535"),
            ("[::1]", "::1", None, "[::1]"),
            ("2001:db8::7", "2001:db8::7", None, "[2001:db8::7]"),
            ("UPPER.example", "UPPER.example", None, "UPPER.example"),
        ];
        for (text, host, port, shown) in cases {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
            assert_eq!(endpoint.to_string(), shown, "{text:?}");
            assert_eq!(shown.parse::<Endpoint>().unwrap(), endpoint, "{text:?}");
        }
    }

    #[test]
    fn the_password_of_a_proxy_given_by_mistake_is_not_repeated() {
        for text in ["http://me:secret@proxy:1", "me:secret@proxy:1", "me:secret://x@proxy:1"] {
            let message = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(message.contains("***@proxy:1\": "), "{message}");
            assert!(!message.contains("me:secret@"), "{message}");
        }
        let message = "http://me:secret@proxy:1".parse::<Endpoint>().unwrap_err().to_string();
        assert!(message.starts_with("endpoint \"http://***@proxy:1\": leave"), "{message}");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_by_name() {
        let cases = [
            ("", "empty"),
            ("https://dps.example", "https"),
            ("dps.example/path", "'/'"),
            ("dps example", "' '"),
            ("dps.example\n", "'\\n'"),
            ("user@dps.example", "'@'"),
            ("dps.example:0", "\"0\""),
            ("dps.example:65536", "65536"),
            ("dps.example:", "\"\""),
            ("dps.example:+80", "+80"),
            ("dps.example:https", "https"),
            (":443", "host is missing"),
            ("a:b:c", "several colons"),
            ("[::1", "closing ]"),
            ("[::1]443", "443"),
            ("[dps.example]:443", "IPv6"),
            ("dps..example", "neither"),
            ("dps!example", "neither"),
            ("dévice.example", "neither"),
            ("1.2.3.4.5", "neither"),
            ("fe80::1%eth0", "several colons"),
        ];
        for (text, says) in cases {
            let message = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(message.contains(says) && message.contains("endpoint"), "{text:?}: {message}");
        }
    }
}
