//! How far the making of a connection has come. The HTTP client underneath makes its connections itself; it is
//! watched at the three places where it lets others in: its connector, its resolver, and the store of TLS
//! sessions, which rustls asks first of all in each handshake.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use dps_connect::{
    Config, Proxy,
    failure::{self, Peer},
    resumes_sessions,
};
use dps_state_machine::{ConnectionError, Progress, Stage, Step};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{
    NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    pki_types::ServerName,
};
use tower_layer::Layer;
use tower_service::Service;

type BoxError = Box<dyn StdError + Send + Sync>;

/// How many TLS sessions are remembered: there is one server.
const SESSIONS: usize = 8;

/// Watches the connections to one peer, says each step to the progress of the registration at hand, and knows what a
/// failure means.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Inner>);

struct Inner {
    peer: Peer,
    progress: Mutex<Progress>,
    stage: Mutex<Stage>,
    /// Kept only if they may be resumed.
    sessions: ClientSessionMemoryCache,
    resumes: bool,
}

impl Watch {
    pub(crate) fn new(peer: Peer, config: &Config) -> Self {
        Self(Arc::new(Inner {
            peer,
            progress: Mutex::default(),
            stage: Mutex::new(Stage::Connect),
            sessions: ClientSessionMemoryCache::new(SESSIONS),
            resumes: resumes_sessions(&config.attestation),
        }))
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// From here on a connection is made for the registration of this progress.
    pub(crate) fn follow(&self, progress: &Progress) {
        *self.0.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress.clone();
    }

    fn progress(&self) -> Progress {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the connection being made is.
    pub(crate) fn stage(&self) -> Stage {
        *self.0.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, stage: Stage) {
        *self.0.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn notify(&self, step: &Step) {
        self.progress().enter(step);
    }

    /// A connection is to be made. An address is not looked up, so connecting begins at once.
    fn begin(&self) {
        match self.peer().proxy() {
            Some(proxy) => {
                self.enter(Stage::Proxy);
                self.notify(&Step::Proxy { proxy: proxy.address() });
            }
            None if self.peer().host().parse::<IpAddr>().is_ok() => self.connecting(),
            None => self.enter(Stage::Resolve),
        }
    }

    fn connecting(&self) {
        self.enter(Stage::Connect);
        self.notify(&Step::Connecting { address: self.peer().address() });
    }

    /// What the failure of a connection being made means.
    fn explain(&self, error: BoxError) -> ConnectionError {
        let peer = self.peer();
        let explained = match (failure::find::<ConnectionError>(&*error), peer.proxy()) {
            (Some(known), Some(proxy)) => return failure::proxy_unresolved(proxy, known.clone()),
            (Some(known), None) => return known.clone(),
            _ if self.stage() == Stage::Tls => failure::tls(peer, &*error),
            (None, Some(proxy)) => no_tunnel(proxy, peer, &*error),
            (None, None) => failure::connect(peer, &*error),
        };
        failure::because(explained, error)
    }
}

/// The tunnel's errors have no public type, only their words.
fn no_tunnel(proxy: &Proxy, peer: &Peer, error: &(dyn StdError + 'static)) -> ConnectionError {
    let words = error.to_string();
    let says = |part| words.contains(part);
    if says("proxy authorization required") {
        failure::proxy_authentication(proxy)
    } else if failure::find::<std::io::Error>(error).is_some() {
        failure::proxy_unreachable(proxy, error)
    } else if says("unexpected end of file") {
        failure::proxy_refused(proxy, peer, "it closed the connection without an answer")
    } else if says("too long") {
        failure::proxy_refused(proxy, peer, "its answer is too long")
    } else {
        failure::proxy_refused(proxy, peer, "it answered with a refusal, or not in HTTP")
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({}, {})", self.peer(), self.stage())
    }
}

impl Resolve for Watch {
    fn resolve(&self, name: Name) -> Resolving {
        let watch = self.clone();
        Box::pin(async move {
            // Port 0 stands for the one in the URL. All that concerns a proxy is one stage and one step.
            let addresses = if watch.peer().proxy().is_some() {
                dps_connect::resolve(name.as_str(), 0, &Progress::default()).await?
            } else {
                let addresses = dps_connect::resolve(name.as_str(), 0, &watch.progress()).await?;
                watch.connecting();
                addresses
            };
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, watch: self.clone() }
    }
}

/// A connector that is watched.
#[derive(Clone)]
pub(crate) struct Watched<S> {
    inner: S,
    watch: Watch,
}

impl<S, R> Service<R> for Watched<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let watch = self.watch.clone();
        watch.begin();
        let connecting = self.inner.call(target);
        Box::pin(async move {
            let connection = connecting.await.map_err(|error| watch.explain(error))?;
            watch.notify(&Step::Connected);
            Ok(connection)
        })
    }
}

impl ClientSessionStore for Watch {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.0.sessions.set_kx_hint(server_name, group);
    }

    /// Asked at the start of each handshake.
    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.enter(Stage::Tls);
        self.notify(&Step::Tls { server_name: server_name.to_str().into_owned() });
        self.0.sessions.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        if self.0.resumes {
            self.0.sessions.set_tls12_session(server_name, value);
        }
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.sessions.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.0.sessions.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(
        &self,
        server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        if self.0.resumes {
            self.0.sessions.insert_tls13_ticket(server_name, value);
        }
    }

    fn take_tls13_ticket(
        &self,
        server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.0.sessions.take_tls13_ticket(server_name)
    }
}
