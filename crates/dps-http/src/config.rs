//! The settings of the HTTP client underneath, made from what every transport is made from.

use std::{net::Ipv6Addr, sync::Arc};

use dps_connect::{Config, internal::failure::Peer};
use dps_state_machine::{ConfigurationError, Error};
use reqwest::{Client, Proxy, redirect::Policy, retry};
use rustls::{ClientConfig, client::Resumption};

use crate::watch::Watch;

/// A client without a connection yet, whose connections are watched. It follows no redirect, keeps no cookie, decodes
/// no body, repeats no request, and asks no environment.
pub(crate) fn client(config: &Config, tls: &ClientConfig, watch: &Watch) -> Result<Client, Error> {
    let mut tls = tls.clone();
    tls.resumption = Resumption::store(Arc::new(watch.clone()));
    let builder = Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .user_agent(&config.user_agent)
        .redirect(Policy::none())
        .referer(false)
        .retry(retry::never())
        .tcp_nodelay(true)
        // The switches with which dps-connect reads the heads of answers too.
        .http1_allow_obsolete_multiline_headers_in_responses(true)
        .http1_allow_spaces_after_header_name_in_responses(true)
        .http1_ignore_invalid_headers_in_responses(true)
        .pool_max_idle_per_host(1)
        .dns_resolver(watch.clone())
        .connector_layer(watch.clone());
    let builder = match proxy(watch.peer())? {
        Some(proxy) => builder.proxy(proxy),
        None => builder,
    };
    builder.build().map_err(|error| unusable(&error))
}

fn proxy(peer: &Peer) -> Result<Option<Proxy>, Error> {
    let Some(proxy) = peer.proxy() else { return Ok(None) };
    // The client underneath can't check the certificate of a bare IPv6 address behind a tunnel.
    if peer.host().parse::<Ipv6Addr>().is_ok() {
        let reason =
            "over HTTP an IPv6 address can't be reached through a proxy; give the host's name";
        return Err(ConfigurationError::new("endpoint", peer.address(), reason).into());
    }
    let given = Proxy::all(format!("http://{}", proxy.address())).map_err(|e| unusable(&e))?;
    Ok(Some(match proxy.credentials() {
        Some((user, password)) => given.basic_auth(user, password),
        None => given,
    }))
}

fn unusable(error: &reqwest::Error) -> Error {
    ConfigurationError::new("HTTP client", "", &error.to_string()).into()
}
