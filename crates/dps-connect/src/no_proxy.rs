//! Which hosts are reached without the proxy.

use std::{convert::Infallible, net::IpAddr, str::FromStr};

/// A list of hosts to reach directly, as `NO_PROXY` has it: separated by commas or spaces, each a name (`example.com` or
/// `.example.com`, both with everything below it), an IP address, a network like `10.0.0.0/8`, or `*` for all.
/// `:PORT` after an entry restricts it to that port. Case does not matter; what can't be read matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<Entry>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    Domain(String),
    Network(IpAddr, u8),
}

impl NoProxy {
    /// What `NO_PROXY`, or else `no_proxy`, says; nothing when neither is set.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::from_variables(&|name| std::env::var(name).ok())
    }

    pub(crate) fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        set("NO_PROXY")
            .or_else(|| set("no_proxy"))
            .map(|list| Self::read(&list))
            .unwrap_or_default()
    }

    /// Whether the host is to be reached directly.
    #[must_use]
    pub fn matches(&self, host: &str, port: u16) -> bool {
        self.0
            .iter()
            .any(|entry| entry.port.is_none_or(|only| only == port) && entry.hosts.contain(host))
    }

    fn read(list: &str) -> Self {
        let separates = |character: char| character == ',' || character.is_whitespace();
        Self(list.split(separates).filter(|entry| !entry.is_empty()).map(Entry::read).collect())
    }
}

impl FromStr for NoProxy {
    type Err = Infallible;

    fn from_str(list: &str) -> Result<Self, Infallible> {
        Ok(Self::read(list))
    }
}

impl Entry {
    fn read(text: &str) -> Self {
        if text == "*" {
            return Self { hosts: Hosts::All, port: None };
        }
        if let Some(hosts) = network(text) {
            return Self { hosts, port: None };
        }
        if let Some((host, port)) = text.rsplit_once(':')
            && let Ok(port) = port.parse()
        {
            return Self { hosts: Hosts::read(host), port: Some(port) };
        }
        Self { hosts: Hosts::read(text), port: None }
    }
}

impl Hosts {
    fn read(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        network(bare).unwrap_or_else(|| {
            let domain = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
            Self::Domain(domain.trim_end_matches('.').to_ascii_lowercase())
        })
    }

    fn contain(&self, host: &str) -> bool {
        match self {
            Self::All => true,
            Self::Domain(domain) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                // `example.com` covers `a.example.com`, but not `badexample.com`.
                host.strip_suffix(domain.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            Self::Network(network, bits) => {
                host.parse().is_ok_and(|address| within(address, *network, *bits))
            }
        }
    }
}

fn network(text: &str) -> Option<Hosts> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Hosts::Network(address, width(address)));
    }
    let (address, bits) = text.split_once('/')?;
    let address = address.parse().ok()?;
    let bits = bits.parse().ok().filter(|bits| *bits <= width(address))?;
    Some(Hosts::Network(address, bits))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let differ = match (address.to_canonical(), network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => u128::from(a.to_bits() ^ n.to_bits()) << 96,
        (IpAddr::V6(a), IpAddr::V6(n)) => a.to_bits() ^ n.to_bits(),
        _ => return false,
    };
    differ.leading_zeros() >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_networks_match_as_people_expect() {
        let cases: &[(&str, &str, bool)] = &[
            ("", "dps.example", false),
            ("*", "dps.example", true),
            ("example", "dps.example", true),
            (".example", "dps.example", true),
            (".dps.example", "dps.example", true),
            ("*.dps.example", "a.dps.example", true),
            ("dps.example", "DPS.Example", true),
            ("dps.example", "badps.example", false),
            ("dps.example.", "dps.example", true),
            ("ps.example", "dps.example", false),
            ("other, dps.example ,x", "dps.example", true),
            ("other dps.example", "dps.example", true),
            (" other\tdps.example:443, x", "dps.example", true),
            ("localhost", "127.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.0/8", "127.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "11.0.0.1", true),
            ("10.0.0.0/33", "10.0.0.1", false),
            ("10.0.0.0/8", "::1", false),
            ("::1", "::1", true),
            ("[::1]", "::1", true),
            ("[::1]:443", "::1", true),
            ("[::1]:444", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("::/0", "fd12::1", true),
            ("dps.example:443", "dps.example", true),
            ("dps.example:8883", "dps.example", false),
            ("10.0.0.1:443", "10.0.0.1", true),
            (",,", "dps.example", false),
        ];
        for (list, host, direct) in cases {
            let list: NoProxy = list.parse().unwrap();
            assert_eq!(list.matches(host, 443), *direct, "{list:?} {host}");
        }
    }
}
