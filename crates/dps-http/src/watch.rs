//! How far the making of a connection has come. The HTTP client underneath makes its connections itself; it is
//! watched at the three places where it lets others in: its connector, its resolver, and the store of TLS
//! sessions, which rustls asks first of all in each handshake.

use std::{
    any::Any,
    error::Error as StdError,
    fmt,
    future::{self, Future},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use dps_connect::{
    Config, Proxy,
    internal::{
        ProxyCredentials, STAGGER, dial,
        failure::{self, Peer},
        greeting_in_tls, greeting_instead_of_tls, probe_proxy, resolve, resumes_sessions,
    },
};
use dps_state_machine::{ConnectionError, Error, Progress, Stage, Step};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{
    NamedGroup,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue,
        Tls13ClientSessionValue,
    },
    pki_types::ServerName,
};
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout_at},
};
use tower_layer::Layer;
use tower_service::Service;

use crate::codec::DEFAULT_PORT;

type BoxError = Box<dyn StdError + Send + Sync>;

/// How many TLS sessions are remembered: there is one server.
const SESSIONS: usize = 8;

/// A look at a proxy, to learn what it answered, takes no longer.
const LOOK_TIME: Duration = Duration::from_secs(5);
/// A handshake that takes longer may be none. A look at what came instead of HTTP takes no longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// A connection that waits longer for its first request may be closed by then.
pub(crate) const FRESH: Duration = Duration::from_secs(5);
/// Longer times for one connection mean this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Watches the connections to one peer, says each step to the progress of the registration at hand, and knows what a
/// failure means.
#[derive(Clone)]
pub(crate) struct Watch(Arc<Inner>);

struct Inner {
    peer: Peer,
    config: Config,
    connect_timeout: Duration,
    attempt: Mutex<Attempt>,
    /// The resolver has put the addresses into the attempt.
    resolved: Notify,
    /// What names are said to have for addresses, if any.
    #[cfg(test)]
    known: Mutex<Vec<SocketAddr>>,
    /// Kept only if they may be resumed.
    sessions: ClientSessionMemoryCache,
    resumes: bool,
}

/// The connection that is being made, or was made last.
struct Attempt {
    progress: Progress,
    stage: Stage,
    deadline: Instant,
    /// Where it may go, the best address first.
    addresses: Vec<SocketAddr>,
    /// Where the next attempt goes, because the first address of the last one did not answer.
    redirected: Option<SocketAddr>,
    /// Whether the connection is for a later request.
    is_kept: bool,
}

/// A connection that was made before its request, and when.
type Ahead = Arc<Mutex<Option<(Instant, Box<dyn Any + Send>)>>>;

/// The connection stands and is kept for a later request: this one was not sent.
#[derive(Debug)]
pub(crate) struct Kept;

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is kept for a later request")
    }
}

impl StdError for Kept {}

/// The attempt was given up because another address answers sooner: nothing was sent, and it is to be repeated, which
/// leads there.
#[derive(Debug)]
pub(crate) struct AnotherAddress;

impl fmt::Display for AnotherAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another address answers sooner")
    }
}

impl StdError for AnotherAddress {}

impl Watch {
    pub(crate) fn new(peer: Peer, config: &Config) -> Self {
        Self(Arc::new(Inner {
            peer,
            config: config.clone(),
            connect_timeout: config.connect_timeout.unwrap_or(LONGEST).min(LONGEST),
            attempt: Mutex::new(Attempt {
                progress: Progress::default(),
                stage: Stage::Connect,
                deadline: Instant::now(),
                addresses: Vec::new(),
                redirected: None,
                is_kept: false,
            }),
            resolved: Notify::new(),
            #[cfg(test)]
            known: Mutex::default(),
            sessions: ClientSessionMemoryCache::new(SESSIONS),
            resumes: resumes_sessions(&config.attestation),
        }))
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// From here on a connection is made for the registration of this progress. The next attempt is a first one,
    /// whatever became of an earlier request.
    pub(crate) fn follow(&self, progress: &Progress) {
        let mut attempt = self.attempt();
        attempt.progress = progress.clone();
        attempt.redirected = None;
        attempt.is_kept = false;
    }

    /// Whether the next connection is made for a later request.
    pub(crate) fn keep_next(&self, is_kept: bool) {
        self.attempt().is_kept = is_kept;
    }

    fn progress(&self) -> Progress {
        self.attempt().progress.clone()
    }

    fn attempt(&self) -> MutexGuard<'_, Attempt> {
        self.0.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the connection being made is.
    fn stage(&self) -> Stage {
        self.attempt().stage
    }

    fn enter(&self, stage: Stage) {
        self.attempt().stage = stage;
    }

    fn notify(&self, step: &Step) {
        self.progress().enter(step);
    }

    /// A connection is to be made. An address is not looked up, so connecting begins at once.
    fn begin(&self) {
        if self.attempt().redirected.is_some() {
            // The attempt goes on, elsewhere.
            return;
        }
        self.attempt().deadline = Instant::now() + self.0.connect_timeout;
        self.attempt().addresses.clear();
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

    #[cfg(test)]
    pub(crate) fn answer_lookups_with(&self, addresses: Vec<SocketAddr>) {
        *self.0.known.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    async fn look_up(
        &self,
        host: &str,
        port: u16,
        progress: &Progress,
    ) -> Result<Vec<SocketAddr>, ConnectionError> {
        #[cfg(test)]
        {
            let known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !known.is_empty() {
                return Ok(known);
            }
        }
        resolve(host, port, progress).await
    }

    /// Where the attempt may go. All that concerns a proxy is one stage and one step.
    async fn addresses(&self, host: &str) -> Result<Vec<SocketAddr>, ConnectionError> {
        if let Some(address) = self.attempt().redirected.take() {
            return Ok(vec![address]);
        }
        let addresses = match self.peer().proxy() {
            Some(proxy) => self.look_up(host, proxy.port(), &Progress::default()).await?,
            None => {
                let addresses = self.look_up(host, self.peer().port(), &self.progress()).await?;
                self.connecting();
                addresses
            }
        };
        self.attempt().addresses.clone_from(&addresses);
        self.0.resolved.notify_one();
        Ok(addresses)
    }

    /// Comes to an end when the first address has not answered within [`STAGGER`] and another one does. The next
    /// attempt goes there: the client underneath would wait for the first one as long as the system does.
    async fn another_address_answers(&self) {
        let addresses = loop {
            self.0.resolved.notified().await;
            let addresses = std::mem::take(&mut self.attempt().addresses);
            if addresses.len() > 1 {
                break addresses;
            }
        };
        tokio::time::sleep(STAGGER).await;
        if let Some((first, others)) = addresses.split_first()
            && self.waits_for_tcp()
        {
            tokio::select! {
                // Behind a proxy's first address it may be the tunnel that takes its time.
                biased;
                Ok(_) = TcpStream::connect(first) => {}
                Ok(tcp) = dial(others.to_vec()) => {
                    if self.waits_for_tcp() && let Ok(address) = tcp.peer_addr() {
                        self.attempt().redirected = Some(address);
                        return;
                    }
                }
                else => {}
            }
        }
        std::future::pending().await
    }

    /// Whether no TCP connection is known to stand. Of one to a proxy it is not known before its tunnel does.
    fn waits_for_tcp(&self) -> bool {
        matches!(self.stage(), Stage::Connect | Stage::Proxy)
    }

    /// What the failure of a connection being made means.
    async fn explain(&self, error: BoxError) -> ConnectionError {
        let peer = self.peer();
        let explained = match (failure::find::<ConnectionError>(&*error), peer.proxy()) {
            (Some(known), Some(proxy)) => return failure::proxy_unresolved(proxy, known.clone()),
            (Some(known), None) => return known.clone(),
            _ if self.stage() == Stage::Tls => {
                let explained = failure::tls(peer, &*error);
                // Bytes that are no TLS are kept by the client underneath, and of a few that come before the end it
                // says only that it was the end.
                match explained.retryable {
                    true => self.not_tls().await.unwrap_or(explained),
                    false => explained,
                }
            }
            (None, Some(proxy)) => self.no_tunnel(proxy, &*error).await,
            (None, None) => failure::connect(peer, &*error),
        };
        failure::because(explained, error)
    }

    /// The tunnel's errors have no public type, only their words, and what the proxy answered is not among them. Where
    /// that would say more, the proxy is asked once again: for the same tunnel with the same credentials, but without
    /// any after it refused those, because one attempt more may lock an account.
    async fn no_tunnel(
        &self,
        proxy: &Proxy,
        error: &(dyn StdError + Send + Sync + 'static),
    ) -> ConnectionError {
        let (peer, words) = (self.peer(), error.to_string());
        let says = |part| words.contains(part);
        let refused = |reason| failure::proxy_refused(proxy, peer, reason);
        if failure::find::<io::Error>(error).is_some() {
            return failure::proxy_unreachable(proxy, error);
        }
        if says("unexpected end of file") {
            return refused("it closed the connection without an answer");
        }
        if says("too long") {
            return refused("its answer is too long");
        }
        if says("proxy authorization required") {
            return match self.look_at(proxy, ProxyCredentials::Withheld).await {
                // It may speak no authentication that we do.
                Some(Err(error)) if !error.retryable && proxy.credentials().is_none() => error,
                Some(Err(error)) if !error.retryable && error.message.contains("asks for") => error,
                _ => failure::proxy_authentication(proxy, &[]),
            };
        }
        match self.look_at(proxy, ProxyCredentials::Sent).await {
            Some(Err(error)) => error,
            Some(Ok(())) => {
                refused("the HTTP client can't read the answer with which it opens one")
            }
            None => refused("it answered with a refusal, or not in HTTP"),
        }
    }

    /// What the proxy answers; `None` when it takes too long.
    async fn look_at(
        &self,
        proxy: &Proxy,
        credentials: ProxyCredentials,
    ) -> Option<Result<(), ConnectionError>> {
        let look = probe_proxy(proxy, self.peer(), &self.0.config.user_agent, credentials);
        tokio::time::timeout(LOOK_TIME, look).await.ok()
    }

    /// What the peer says instead of TLS, if it says anything else.
    async fn not_tls(&self) -> Option<ConnectionError> {
        let heard = greeting_instead_of_tls(&self.0.config, DEFAULT_PORT);
        let heard = tokio::time::timeout(LOOK_TIME, heard).await.ok()??;
        Some(failure::not_tls(self.peer(), &heard))
    }

    /// Comes to an end when a handshake takes long because something else than TLS has come, and too little of it for the
    /// client underneath to see that.
    async fn another_protocol_answers(&self) -> ConnectionError {
        while self.stage() != Stage::Tls {
            tokio::time::sleep(STAGGER).await;
        }
        tokio::time::sleep(PATIENCE).await;
        match self.not_tls().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// What is heard where no HTTP answer came, if it is heard once more. What is sent for it is no whole request: to an
    /// HTTP server it means nothing.
    pub(crate) async fn not_http(&self, stage: Stage) -> Option<Error> {
        let heard = greeting_in_tls(&self.0.config, DEFAULT_PORT, b"OPTIONS * HTTP/1.1\r\n");
        let heard = tokio::time::timeout(PATIENCE, heard).await.ok()??;
        let is_http = heard.trim_ascii_start().starts_with(b"HTTP/");
        (!is_http).then(|| failure::another_protocol(stage, self.peer(), "HTTP", &heard))
    }

    fn timed_out(&self) -> ConnectionError {
        failure::timed_out(self.stage(), self.peer(), self.0.connect_timeout)
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
            let addresses = watch.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

impl<S> Layer<S> for Watch {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, watch: self.clone(), ahead: Ahead::default() }
    }
}

/// A connector that is watched.
#[derive(Clone)]
pub(crate) struct Watched<S> {
    inner: S,
    watch: Watch,
    ahead: Ahead,
}

impl<S, R> Service<R> for Watched<S>
where
    S: Service<R, Error = BoxError>,
    S::Response: Send + 'static,
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
        let is_kept = watch.attempt().is_kept;
        let ahead = Arc::clone(&self.ahead);
        let former = ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((at, connection)) = former
            && !is_kept
            && at.elapsed() < FRESH
            && let Ok(connection) = connection.downcast()
        {
            return Box::pin(future::ready(Ok(*connection)));
        }
        watch.begin();
        let connecting = self.inner.call(target);
        let deadline = watch.attempt().deadline;
        Box::pin(async move {
            let connecting = async {
                match connecting.await {
                    Ok(connection) => Ok(connection),
                    Err(error) => Err(watch.explain(error).await),
                }
            };
            tokio::select! {
                biased;
                outcome = timeout_at(deadline, connecting) => {
                    let connection = outcome.unwrap_or_else(|_| Err(watch.timed_out()))?;
                    watch.notify(&Step::Connected);
                    if !is_kept {
                        return Ok(connection);
                    }
                    let kept = (Instant::now(), Box::new(connection) as _);
                    *ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
                    Err(Kept.into())
                }
                () = watch.another_address_answers() => Err(AnotherAddress.into()),
                error = watch.another_protocol_answers() => Err(error.into()),
            }
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
