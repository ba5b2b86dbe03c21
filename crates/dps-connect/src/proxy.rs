//! The HTTP proxy on the way out.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use dps_state_machine::{ConfigurationError, Error, Progress};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::{
    endpoint::{self, host_and_port},
    no_proxy::NoProxy,
};

/// Which proxy to go through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyChoice {
    /// None, whatever the environment says. The default: a library should not surprise.
    #[default]
    None,
    /// What `HTTPS_PROXY` or else `ALL_PROXY` says, except for the hosts in `NO_PROXY`; each also in lower
    /// case. Read at each connection.
    Environment,
    /// This one, except for the hosts that it leaves out (see [`Proxy::except`]).
    Url(Proxy),
}

impl From<Proxy> for ProxyChoice {
    fn from(proxy: Proxy) -> Self {
        Self::Url(proxy)
    }
}

/// An HTTP proxy that is asked for a tunnel with CONNECT, with basic authentication if it has a user.
///
/// See <https://www.rfc-editor.org/rfc/rfc9110#name-connect>. Neither `Debug` nor `Display` shows the password.
///
/// ```
/// # fn main() -> Result<(), dps_client::Error> {
/// use dps_client::Proxy;
/// let proxy: Proxy = "http://me:p%40ss@proxy.example:3128".parse()?;
/// assert_eq!(proxy.to_string(), "http://me:***@proxy.example:3128");
/// assert_eq!(proxy.credentials(), Some(("me", "p@ss")));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    host: String,
    port: u16,
    credentials: Option<(String, Zeroizing<String>)>,
    except: NoProxy,
}

impl Proxy {
    /// Leaves out the hosts of the list: they are reached directly.
    #[must_use]
    pub fn except(mut self, list: NoProxy) -> Self {
        self.except = list;
        self
    }

    /// The proxy's host; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The proxy's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port, as shown to people.
    #[must_use]
    pub fn address(&self) -> String {
        host_and_port(&self.host, self.port)
    }

    /// User and password, both decoded.
    #[must_use]
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.credentials.as_ref().map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// No error repeats the password, whatever the proxy says.
    #[doc(hidden)]
    pub fn hide(&self, progress: &Progress) {
        if let Some((_, password)) = self.credentials() {
            progress.hide(password);
        }
        if let Some(authorization) = self.authorization() {
            progress.hide(authorization.trim_start_matches("Basic "));
        }
    }

    /// The value of the `Proxy-Authorization` header.
    /// See <https://www.rfc-editor.org/rfc/rfc7617>.
    pub(crate) fn authorization(&self) -> Option<Zeroizing<String>> {
        let (user, password) = self.credentials()?;
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        Some(Zeroizing::new(format!("Basic {}", encoded.as_str())))
    }
}

impl FromStr for Proxy {
    type Err = Error;

    /// Takes `http://[USER[:PASSWORD]@]HOST[:PORT][/]`, where `http://` may be left out and the port is 80 if
    /// it is. User and password are percent-decoded.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the value (its password hidden) and what is wrong with it.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(reason) = surroundings(text) {
            return Err(ConfigurationError::new("proxy", shown_in_part(text), &reason).into());
        }
        let with_scheme = text
            .split_once("://")
            .filter(|(scheme, _)| scheme.chars().all(|c| c.is_ascii_alphanumeric()));
        let (scheme, rest) = with_scheme.unwrap_or(("http", text));
        let (user_info, authority) = match rest.rsplit_once('@') {
            Some((user_info, authority)) => (Some(user_info), authority),
            None => (None, rest),
        };
        let shown = || match user_info {
            Some(_) if with_scheme.is_none() => format!("***@{authority}"),
            Some(_) => format!("{scheme}://***@{authority}"),
            None => text.to_owned(),
        };
        let wrong = |reason: &str| Error::from(ConfigurationError::new("proxy", shown(), reason));
        if !scheme.eq_ignore_ascii_case("http") {
            let reason = format!("{scheme:?} is not supported; give an http:// proxy");
            return Err(wrong(&reason));
        }
        let is_misspelled = |user_info: &str| {
            let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
            password.starts_with(['/', '\\']) || user.contains("//")
        };
        if with_scheme.is_none() && user_info.is_some_and(is_misspelled) {
            return Err(wrong(
                "its scheme is misspelled; give it as in http://USER:PASSWORD@HOST:PORT",
            ));
        }
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        // A password whose host was forgotten stands where a port would.
        if user_info.is_none()
            && let Some((user, password)) = authority.split_once(':')
            && password
                .split(['/', ':'])
                .next()
                .is_some_and(|port| !port.bytes().all(|b| b.is_ascii_digit()))
            && !authority.starts_with('[')
            && authority.parse::<Ipv6Addr>().is_err()
        {
            let shown = format!("{scheme}://{user}:***");
            let reason = "no port follows the colon; a user and password stand before @HOST";
            return Err(ConfigurationError::new("proxy", shown, reason).into());
        }
        let (host, port) = endpoint::parse(authority).map_err(|e| wrong(&e))?;
        if rustls::pki_types::ServerName::try_from(host.as_str()).is_err() {
            return Err(wrong("the host is neither a name nor an IP address"));
        }
        let credentials = user_info.map(credentials).transpose().map_err(|e| wrong(&e))?;
        Ok(Self { host, port: port.unwrap_or(80), credentials, except: NoProxy::default() })
    }
}

fn is_space(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '\u{2018}'..='\u{201f}' | '«' | '»')
}

/// What stands around the URL or behind it, as in a line that was copied from a file of settings.
fn surroundings(text: &str) -> Option<String> {
    let bare = text.trim_matches(is_space);
    let is_in_quotes = bare.starts_with(is_quote) || bare.ends_with(is_quote);
    let (at, first) = match text.char_indices().find(|(_, c)| is_space(*c)) {
        _ if is_in_quotes => (0, '"'),
        Some(found) => found,
        None => {
            // A password may have such characters, unless another URL follows.
            let is_before_url =
                |at: &usize| text.get(*at..).is_some_and(|rest| rest.contains("://"));
            let lists = text.match_indices([';', ',']).map(|(at, _)| at).find(is_before_url);
            let end = lists.or_else(|| {
                let start = text.rfind('@').unwrap_or_default();
                Some(start + text.get(start..)?.find([';', ',', '#'])?)
            })?;
            (end, text.get(end..)?.chars().next()?)
        }
    };
    let rest = text.get(at..)?.trim_start_matches(is_space);
    let what = match first {
        _ if is_in_quotes => "quotes stand around it".to_owned(),
        ';' | ',' | '#' => format!("{first:?} follows it"),
        _ if at == 0 && !bare.is_empty() => format!("{} stands before it", name(first)),
        _ if rest.is_empty() => format!("{} follows it", name(first)),
        _ if rest.starts_with(['#', ';']) || rest.starts_with("//") => {
            format!(
                "{} and a comment or {:?} follow it",
                name(first),
                rest.get(..1).unwrap_or_default()
            )
        }
        _ => format!(
            "{} stands in it; in a password that is written in percent-encoding",
            name(first)
        ),
    };
    Some(format!("{what}; give the URL and nothing else"))
}

fn name(space: char) -> String {
    match space {
        ' ' => "a space".to_owned(),
        '\t' => "a tab".to_owned(),
        '\r' => "a carriage return".to_owned(),
        '\n' => "a line feed".to_owned(),
        '\u{a0}' => "a no-break space".to_owned(),
        other => format!("the invisible character U+{:04X}", u32::from(other)),
    }
}

/// Scheme, host and port, if it is sure that they are nothing else.
fn shown_in_part(text: &str) -> String {
    let ends = |c: char| is_space(c) || is_quote(c) || matches!(c, ';' | ',' | '#');
    let (scheme, rest) = text.trim_start_matches(ends).split_once("://").unwrap_or(("", text));
    let authority = rest.rsplit('@').next().unwrap_or_default().trim_start_matches(ends);
    let authority = authority.split(ends).next().unwrap_or_default();
    let is_address = endpoint::parse(authority).is_ok();
    match (scheme, rest.contains('@')) {
        _ if !is_address || scheme.contains(ends) => String::new(),
        ("", false) => authority.to_owned(),
        ("", true) => format!("***@{authority}"),
        (_, false) => format!("{scheme}://{authority}"),
        (_, true) => format!("{scheme}://***@{authority}"),
    }
}

fn credentials(user_info: &str) -> Result<(String, Zeroizing<String>), String> {
    let decode = |text, what| match percent_decode_str(text).decode_utf8() {
        Ok(decoded) if decoded.chars().any(char::is_control) => {
            Err(format!("the {what} has a control character"))
        }
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(format!("the {what} is not percent-encoded UTF-8")),
    };
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let user = decode(user, "user name")?;
    // The first colon ends the user name on the proxy's side.
    if user.contains(':') {
        return Err("the user name has a colon, which basic authentication can't carry".to_owned());
    }
    Ok((user, Zeroizing::new(decode(password, "password")?)))
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("http://")?;
        if let Some((user, _)) = &self.credentials {
            write!(f, "{user}:***@")?;
        }
        f.write_str(&self.address())
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl ProxyChoice {
    /// The proxy on the way to a host, given how the environment's variables are read.
    pub(crate) fn on_the_way_to(
        &self,
        host: &str,
        port: u16,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Proxy>, Error> {
        let proxy = match self {
            Self::None => return Ok(None),
            Self::Url(proxy) => proxy.clone(),
            Self::Environment => {
                let set = |name: &'static str| {
                    let value = variable(name).filter(|value| !value.is_empty())?;
                    Some((name, value))
                };
                let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
                let Some((name, url)) = names.into_iter().find_map(set) else { return Ok(None) };
                let proxy = url.parse::<Proxy>().map_err(|mut error| {
                    if let Error::Configuration(wrong) = &mut error {
                        wrong.field = name.into();
                    }
                    error
                })?;
                proxy.except(NoProxy::from_variables(variable))
            }
        };
        Ok((!proxy.except.matches(host, port)).then_some(proxy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_shown_without_its_password() {
        let cases = [
            ("http://p.example:3128", "p.example:3128", None, "http://p.example:3128"),
            ("p.example:3128", "p.example:3128", None, "http://p.example:3128"),
            ("HTTP://p.example/", "p.example:80", None, "http://p.example:80"),
            ("http://[::1]:3128/", "[::1]:3128", None, "http://[::1]:3128"),
            ("http://u@p.example", "p.example:80", Some(("u", "")), "http://u:***@p.example:80"),
            ("http://u:a:b%2F@h:1", "h:1", Some(("u", "a:b/")), "http://u:***@h:1"),
            ("http://u:p@ss@h:1", "h:1", Some(("u", "p@ss")), "http://u:***@h:1"),
            ("http://u:/p@h:1", "h:1", Some(("u", "/p")), "http://u:***@h:1"),
            ("OFFICE\\u:p@h:1", "h:1", Some(("OFFICE\\u", "p")), "http://OFFICE\\u:***@h:1"),
        ];
        for (text, address, credentials, shown) in cases {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!(
                (proxy.address().as_str(), proxy.credentials()),
                (address, credentials),
                "{text:?}"
            );
            assert_eq!(proxy.to_string(), shown, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_by_name_without_its_password() {
        let cases = [
            ("", "empty"),
            ("https://u:secret@p.example", "\"https\" is not supported"),
            ("socks5://p.example:1080", "\"socks5\" is not supported"),
            ("http://p.example:3128/path", "'/'"),
            ("http://u:secret@p.example:0", "\"0\""),
            ("http://u:secret@", "empty"),
            ("http://u:secret", "before @HOST"),
            ("http://u:secret/", "before @HOST"),
            ("u:12345678secret", "before @HOST"),
            ("u:secret:secret", "before @HOST"),
            ("2001:db8::x", "before @HOST"),
            ("p.example:99999", "65535"),
            ("http://u:secret%FF@p.example", "UTF-8"),
            ("http://u:secret%0d%0a@p.example", "control character"),
            ("http://u%3A:secret@p.example", "colon"),
            ("http://p!example", "neither"),
            ("me:secret://secret@p!example", "neither"),
            ("http:/me:secret@p.example:1", "misspelled"),
            ("http:\\\\me:secret@p.example:1", "misspelled"),
            ("http//me:secret@p.example:1", "misspelled"),
            ("me:/secret@p.example:1", "misspelled"),
        ];
        for (text, says) in cases {
            let message = text.parse::<Proxy>().unwrap_err().to_string();
            assert!(message.starts_with("proxy") && message.contains(says), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn what_stands_around_a_url_is_named_and_a_password_is_not() {
        let cases = [
            ("URL ", "a space follows it"),
            (" URL", "a space stands before it"),
            ("URL\t", "a tab follows it"),
            ("\tURL", "a tab stands before it"),
            ("URL\r", "a carriage return follows it"),
            ("URL\r\n", "a carriage return follows it"),
            ("URL\n", "a line feed follows it"),
            ("URL\u{a0}", "a no-break space follows it"),
            ("URL\u{200b}", "the invisible character U+200B follows it"),
            ("\u{feff}URL", "the invisible character U+FEFF stands before it"),
            ("URL\0", "the invisible character U+0000 follows it"),
            ("URL;", "';' follows it"),
            ("URL ;", "a space and a comment or \";\" follow it"),
            ("URL,", "',' follows it"),
            ("URL#office", "'#' follows it"),
            ("URL # office", "a space and a comment or \"#\" follow it"),
            ("URL\t# was me:secret@old", "a tab and a comment or \"#\" follow it"),
            ("URL # secret", "a space and a comment or \"#\" follow it"),
            ("URL // secret", "a space and a comment or \"/\" follow it"),
            ("URL ; secret", "a space and a comment or \";\" follow it"),
            ("URL;http://me:secret@other:1", "';' follows it"),
            ("URL other", "a space stands in it"),
            ("URL bob@office", "a space stands in it"),
            ("\"URL\"", "quotes stand around it"),
            ("'URL'", "quotes stand around it"),
            ("`URL`", "quotes stand around it"),
            ("\u{201c}URL\u{201d}", "quotes stand around it"),
            ("\u{2018}URL\u{2019}", "quotes stand around it"),
            ("\"URL", "quotes stand around it"),
            ("URL\"", "quotes stand around it"),
            (" \"URL\" ", "quotes stand around it"),
        ];
        for url in [
            "http://proxy:3128",
            "proxy:3128",
            "http://me:secret@proxy:3128",
            "http://me:my secret@proxy",
        ] {
            for (text, says) in cases {
                let text = text.replace("URL", url);
                let message = text.parse::<Proxy>().unwrap_err().to_string();
                let says = if url.contains("my secret")
                    && !says.contains("before")
                    && !says.contains("quotes")
                {
                    "a space stands in it"
                } else {
                    says
                };
                assert!(message.contains(says), "{text:?}: {message}");
                assert!(
                    !message.contains("secret") && !message.contains("me:"),
                    "{text:?}: {message}"
                );
                let from_environment = ProxyChoice::Environment
                    .on_the_way_to("h", 443, &|name| (name == "HTTPS_PROXY").then(|| text.clone()));
                let message = from_environment.unwrap_err().to_string();
                assert!(
                    message.starts_with("HTTPS_PROXY") && message.contains(says),
                    "{text:?}: {message}"
                );
                assert!(!message.contains("secret"), "{text:?}: {message}");
            }
        }
    }

    #[test]
    fn the_environment_counts_only_when_it_is_asked() {
        let chosen = |choice: ProxyChoice, variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            choice
                .on_the_way_to("global.azure-devices-provisioning.net", 443, &variable)
                .map(|proxy| proxy.map(|p| p.address()))
                .map_err(|error| error.to_string())
        };
        let a = Ok(Some("a:1".to_owned()));
        let ask = ProxyChoice::Environment;
        assert_eq!(chosen(ProxyChoice::None, &[("HTTPS_PROXY", "http://a:1")]), Ok(None));
        assert_eq!(chosen(ask.clone(), &[]), Ok(None));
        for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
            assert_eq!(chosen(ask.clone(), &[(name, "http://a:1")]), a, "{name}");
        }
        let both = [("ALL_PROXY", "http://b:1"), ("HTTPS_PROXY", "http://a:1")];
        assert_eq!(chosen(ask.clone(), &both), a);
        let empty = [("HTTPS_PROXY", ""), ("ALL_PROXY", "http://a:1"), ("NO_PROXY", "")];
        assert_eq!(chosen(ask.clone(), &empty), a);
        for (name, list, direct) in [
            ("NO_PROXY", "*", true),
            ("no_proxy", "azure-devices-provisioning.net:443", true),
            ("NO_PROXY", "azure-devices-provisioning.net:8883", false),
        ] {
            let variables = [("HTTPS_PROXY", "http://a:1"), (name, list)];
            let expected = if direct { Ok(None) } else { a.clone() };
            assert_eq!(chosen(ask.clone(), &variables), expected, "{list}");
        }
        let named = ProxyChoice::Url("http://a:1".parse().unwrap());
        assert_eq!(chosen(named, &[("NO_PROXY", "*")]), a, "only the list given with it counts");
        let wrong = chosen(ask, &[("HTTPS_PROXY", "socks5://a:1")]).unwrap_err();
        assert!(wrong.contains("socks5"), "never around it: {wrong}");
    }
}
