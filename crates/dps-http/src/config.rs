//! The HTTP client underneath, made from what every transport is made from.

use std::{net::Ipv6Addr, sync::Arc};

use dps_connect::{
    Config,
    failure::{self, Peer},
};
use dps_state_machine::{ConfigurationError, Error};
use reqwest::{Client, Proxy, Request, Response, redirect::Policy, retry};
use rustls::{ClientConfig, client::Resumption};
use tokio::time::Instant;

use crate::{
    codec::DEFAULT_PORT,
    watch::{AnotherAddress, Watch},
};

/// The client of one session, and the watch on its connections.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) watch: Watch,
    /// When the connection that carried the last answer is surely free again.
    pub(crate) free: Option<Instant>,
}

impl Link {
    /// A client without a connection yet. It follows no redirect, keeps no cookie, decodes no body, repeats no
    /// request, and asks no environment.
    pub(crate) fn new(config: &Config, tls: &ClientConfig) -> Result<Self, Error> {
        let peer = Peer::of(config, DEFAULT_PORT)?;
        let proxy = proxy(&peer)?;
        let watch = Watch::new(peer, config);
        let mut tls = tls.clone();
        tls.resumption = Resumption::store(Arc::new(watch.clone()));
        let mut builder = Client::builder()
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
        if let Some(proxy) = proxy {
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| unusable(&error))?;
        Ok(Self { client, watch, free: None })
    }

    /// Sends the request. While a connection for it is made, another address than the first may turn out to answer
    /// sooner; then nothing has been sent, and the second attempt goes there.
    pub(crate) async fn execute(&self, request: Request) -> reqwest::Result<Response> {
        let Some(again) = request.try_clone() else { return self.client.execute(request).await };
        match self.client.execute(request).await {
            Err(error) if failure::find::<AnotherAddress>(&error).is_some() => {
                self.client.execute(again).await
            }
            outcome => outcome,
        }
    }
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
