//! Who may use the admin port: programs of this machine, and others by a token; no page of a browser but its own.

use std::net::IpAddr;

use http::{StatusCode, header, request::Parts, uri::Authority};
use subtle::ConstantTimeEq as _;

use super::answer::Problem;
use crate::config::Secret;

/// See the module.
pub(crate) struct Guard {
    /// Beside the loopback's: the addresses that are listened on, and the names of the server certificate.
    addresses: Vec<IpAddr>,
    names: Vec<String>,
    token: Option<Secret<String>>,
}

impl Guard {
    pub(crate) fn new(
        addresses: Vec<IpAddr>,
        names: Vec<String>,
        token: Option<Secret<String>>,
    ) -> Self {
        Self { addresses, names, token }
    }

    /// Refuses what a browser sends for a page of another origin, and for a name that merely leads to this machine.
    pub(super) fn check_page(&self, head: &Parts) -> Result<(), Problem> {
        let refused = |field, value: &str, message| {
            Err(Problem::new(StatusCode::FORBIDDEN, field, value, message))
        };
        let text = |name| head.headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = match (head.uri.authority(), text(header::HOST)) {
            (Some(authority), _) => Some(authority.as_str()),
            (None, host) => host,
        };
        // Browsers always send one.
        if let Some(host) = host
            && !host.parse().is_ok_and(|authority| self.serves(&authority))
        {
            let message = "the Host must be localhost or an address of this machine's loopback, or one that --admin-listen names";
            return refused("Host", host, message);
        }
        if let Some(origin) = text(header::ORIGIN) {
            let is_own = origin
                .strip_prefix("http://")
                .is_some_and(|origin| host.is_some_and(|host| origin.eq_ignore_ascii_case(host)));
            if !is_own {
                return refused("Origin", origin, "a page of another origin may not use this port");
            }
        }
        Ok(())
    }

    fn serves(&self, authority: &Authority) -> bool {
        let host = authority.host().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(address) => {
                let is_listened_on = |own: &IpAddr| {
                    *own == address || (own.is_unspecified() && self.token.is_some())
                };
                address.is_loopback() || self.addresses.iter().any(is_listened_on)
            }
            Err(_) => {
                host.eq_ignore_ascii_case("localhost")
                    || (self.token.is_some()
                        && self.names.iter().any(|name| name.eq_ignore_ascii_case(host)))
            }
        }
    }

    pub(super) fn check_token(&self, head: &Parts) -> Result<(), Problem> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = head.headers.get(header::AUTHORIZATION).and_then(|given| {
            let (scheme, given) = given.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("Bearer").then(|| given.trim())
        });
        if given.is_some_and(|given| given.as_bytes().ct_eq(token.0.as_bytes()).into()) {
            return Ok(());
        }
        let message = "give the admin port's token, as in Authorization: Bearer TOKEN";
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "Authorization", "", message);
        Err(problem.with(header::WWW_AUTHENTICATE, "Bearer"))
    }
}

/// Refuses the forms of a page, which can send no JSON.
pub(super) fn check_content_type(head: &Parts) -> Result<(), Problem> {
    let given = head.headers.get(header::CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    Err(Problem::new(status, "Content-Type", given, "it must be application/json"))
}
