//! From a configuration to a TLS stream.

use std::{fmt, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use dps_state_machine::{ConnectionError, Error, Progress, Response, Stage, Step};
use futures_util::{StreamExt, stream::FuturesUnordered};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

#[cfg(feature = "websocket")]
use crate::{
    carrier::WEBSOCKET_PORT,
    websocket::{self, WsBytes},
};
use crate::{
    carrier::{Carrier, Io, Protocol},
    config::Config,
    failure::{self, Peer, because},
    first_bytes::{self, Listening, greeting},
    lookup::resolve,
    proxy::Proxy,
    tls::tls_config,
    tunnel::{self, NoTunnel},
};

/// The TLS stream that a transport speaks over.
pub type Stream = tokio_rustls::client::TlsStream<Listening<TcpStream>>;

/// Each address that doesn't answer delays the next one by this much.
/// See <https://www.rfc-editor.org/rfc/rfc8305#section-5>.
pub const STAGGER: Duration = Duration::from_millis(250);
/// Longer times for one connection mean this.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What comes of opening a stream.
#[derive(Debug)]
pub enum Opened<S> {
    /// The stream stands.
    Ready(S),
    /// The service refused before it stood. Only an upgrade to WebSocket has a way to say that.
    Refused(Response),
}

impl<S> Opened<S> {
    /// Makes something of the stream.
    pub fn map<T>(self, make: impl FnOnce(S) -> T) -> Opened<T> {
        match self {
            Self::Ready(stream) => Opened::Ready(make(stream)),
            Self::Refused(response) => Opened::Refused(response),
        }
    }
}

/// Opens TLS streams to the service, directly or through the proxy. Keep it for the session: it remembers TLS
/// sessions.
#[derive(Clone)]
pub struct Connector {
    config: Config,
    server_name: ServerName<'static>,
    tls: Arc<ClientConfig>,
}

impl Connector {
    /// Prepares all that needs no I/O.
    ///
    /// # Errors
    /// [`Error::Configuration`], see [`tls_config`].
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        let config = config.apart();
        let server_name = config.endpoint.server_name()?;
        let tls = Arc::new(tls_config(&config)?);
        Ok(Self { config, server_name, tls })
    }

    /// With another TLS configuration.
    pub(crate) fn changed(mut self, change: impl FnOnce(&mut ClientConfig)) -> Self {
        change(Arc::make_mut(&mut self.tls));
        self
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Opens a stream for the protocol: looks up the name, connects with TCP, asks the proxy for a tunnel if there is
    /// one, does the TLS handshake and, where that is the carrier, the upgrade to WebSocket. The whole takes at most
    /// [`Config::connect_timeout`]. Each step goes to the progress of the registration that the stream is opened for.
    ///
    /// # Errors
    /// [`Error::Connection`] with the stage `resolve`, `connect`, `proxy` (all that concerns a proxy, its own name
    /// included), `tls` or `websocket`; [`Error::Configuration`] when the environment names a proxy that can't be used,
    /// or the carrier is not compiled in.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was open; nothing goes on, except that the system's resolver may finish
    /// its lookup on a thread of its own.
    pub async fn open(
        &self,
        protocol: &Protocol,
        carrier: Carrier,
        progress: &Progress,
    ) -> Result<Opened<Box<dyn Io>>, Error> {
        carrier.ensure_built()?;
        match carrier {
            #[cfg(feature = "websocket")]
            Carrier::WebSocket => {
                let opened = self.websocket(protocol.subprotocol, progress).await?;
                Ok(opened.map(|stream| Box::new(stream) as _))
            }
            _ => Ok(Opened::Ready(Box::new(self.connect(protocol.tls_port, progress).await?))),
        }
    }

    /// Looks up the name, connects with TCP (without Nagle's delay) to each address in turn until one answers,
    /// asks the proxy for a tunnel if there is one, and does the TLS handshake. The whole takes at most
    /// [`Config::connect_timeout`]. `default_port` is the transport's own port, for an endpoint that names none. Each
    /// step goes to the progress of the registration that the connection is made for.
    ///
    /// # Errors
    /// [`Error::Connection`] with the stage `resolve`, `connect`, `proxy` (all that concerns a proxy, its own name
    /// included) or `tls`; [`Error::Credential`] when the device's private key did not sign; [`Error::Configuration`] when the environment names a proxy that can't be used.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was open; nothing goes on, except that the system's resolver may finish
    /// its lookup on a thread of its own.
    #[doc(hidden)]
    pub async fn connect(&self, default_port: u16, progress: &Progress) -> Result<Stream, Error> {
        let peer = Peer::of(&self.config, default_port)?;
        let attempt = Attempt::new(&self.config, &peer, progress);
        let stream = attempt.open(self).await.map_err(failure::into_error)?;
        progress.enter(&Step::Connected);
        Ok(stream)
    }

    /// Does what [`connect`](Self::connect) does, and then the WebSocket upgrade on the stream, within the same
    /// [`Config::connect_timeout`]. The server must speak the given subprotocol, in any spelling.
    ///
    /// What comes may be the service's refusal instead: an upgrade answered with 429, with 5xx, or with another status
    /// from 300 on and an error of the service for a body.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect), and [`Error::Connection`] with the stage `websocket`.
    ///
    /// # Cancel safety
    /// As for [`connect`](Self::connect).
    #[cfg(feature = "websocket")]
    #[doc(hidden)]
    pub async fn websocket(
        &self,
        subprotocol: &str,
        progress: &Progress,
    ) -> Result<Opened<WsBytes<Stream>>, Error> {
        let peer = Peer::of(&self.config, WEBSOCKET_PORT)?;
        let attempt = Attempt::new(&self.config, &peer, progress);
        let stream = attempt.open(self).await.map_err(failure::into_error)?;
        progress.enter(&Step::Websocket);
        let upgrade = websocket::upgrade(stream, &peer, subprotocol, attempt.user_agent);
        let upgraded = attempt.bound(Stage::Websocket, upgrade).await?;
        if matches!(upgraded, Opened::Ready(_)) {
            progress.enter(&Step::Connected);
        }
        Ok(upgraded)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("config", &self.config).finish_non_exhaustive()
    }
}

/// One attempt to get through, and until when.
struct Attempt<'a> {
    peer: &'a Peer,
    progress: &'a Progress,
    user_agent: &'a str,
    timeout: Duration,
    deadline: Instant,
}

impl<'a> Attempt<'a> {
    fn new(config: &'a Config, peer: &'a Peer, progress: &'a Progress) -> Self {
        let timeout = config.connect_timeout.unwrap_or(LONGEST).min(LONGEST);
        let user_agent = &config.user_agent;
        Self { peer, progress, user_agent, timeout, deadline: Instant::now() + timeout }
    }

    async fn open(&self, connector: &Connector) -> Result<Stream, ConnectionError> {
        let tcp = self.tcp().await?;
        let stream = self.tls(connector, tcp).await?;
        let (_, session) = stream.get_ref();
        let (version, suite) = (session.protocol_version(), session.negotiated_cipher_suite());
        tracing::debug!(peer = %self.peer, ?version, ?suite, "TLS stands");
        Ok(stream)
    }

    async fn tcp(&self) -> Result<TcpStream, ConnectionError> {
        match self.peer.proxy() {
            None => self.direct().await,
            Some(proxy) => self.through(proxy).await,
        }
    }

    async fn direct(&self) -> Result<TcpStream, ConnectionError> {
        let lookup = resolve(self.peer.host(), self.peer.port(), self.progress);
        let addresses = self.bound(Stage::Resolve, lookup).await?;
        self.progress.enter(&Step::Connecting { address: self.peer.address() });
        let dial = async {
            dial(addresses).await.map_err(|e| because(failure::connect(self.peer, &e), e))
        };
        self.bound(Stage::Connect, dial).await
    }

    async fn through(&self, proxy: &Proxy) -> Result<TcpStream, ConnectionError> {
        proxy.hide(self.progress);
        let open = async {
            self.progress.enter(&Step::Proxy { proxy: proxy.address() });
            // All that concerns the proxy is one stage, so one step is shown.
            open_tunnel(proxy, self.peer, self.user_agent, ProxyCredentials::Sent).await
        };
        self.bound(Stage::Proxy, open).await
    }

    async fn tls(&self, connector: &Connector, tcp: TcpStream) -> Result<Stream, ConnectionError> {
        let Connector { server_name, tls, .. } = connector;
        self.progress.enter(&Step::Tls { server_name: server_name.to_str().into_owned() });
        let handshake = async {
            TlsConnector::from(Arc::clone(tls))
                .connect(server_name.clone(), Listening::new(tcp))
                .await
                .map_err(|e| because(failure::tls(self.peer, &e), e))
        };
        self.bound(Stage::Tls, handshake).await
    }

    async fn bound<T>(
        &self,
        stage: Stage,
        work: impl Future<Output = Result<T, ConnectionError>>,
    ) -> Result<T, ConnectionError> {
        match timeout_at(self.deadline, work).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failure::timed_out(stage, self.peer, self.timeout)),
        }
    }
}

/// Whether a request for a tunnel carries the proxy's user and password, if it has any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyCredentials {
    /// It does.
    Sent,
    /// It does not: the proxy is asked only what authentication it wants.
    Withheld,
}

async fn open_tunnel(
    proxy: &Proxy,
    peer: &Peer,
    user_agent: &str,
    credentials: ProxyCredentials,
) -> Result<TcpStream, ConnectionError> {
    let addresses = resolve(proxy.host(), proxy.port(), &Progress::default())
        .await
        .map_err(|error| failure::proxy_unresolved(proxy, error))?;
    let mut tcp =
        dial(addresses).await.map_err(|e| because(failure::proxy_unreachable(proxy, &e), e))?;
    let authorization = proxy.authorization().filter(|_| credentials == ProxyCredentials::Sent);
    let authorization = authorization.as_ref().map(|value| value.as_str());
    let opened = tunnel::open(&mut tcp, proxy, peer, user_agent, authorization).await;
    opened.map_err(|no| no.error).map(|()| tcp)
}

/// Asks a proxy that is connected for a tunnel, with the user and the password that it has.
///
/// # Errors
/// [`NoTunnel`].
///
/// # Cancel safety
/// Dropping the future leaves the stream in the middle of an exchange.
pub async fn ask_proxy(
    tcp: &mut TcpStream,
    proxy: &Proxy,
    peer: &Peer,
    user_agent: &str,
) -> Result<(), NoTunnel> {
    let authorization = proxy.authorization();
    let authorization = authorization.as_ref().map(|value| value.as_str());
    tunnel::open(tcp, proxy, peer, user_agent, authorization).await
}

/// Asks the proxy for a tunnel and closes it again, to learn why there was none: for the HTTP transport, whose client
/// keeps a proxy's refusal to itself.
///
/// # Errors
/// The refusal, in the words of the other transports.
///
/// # Cancel safety
/// Safe to drop.
pub async fn probe_proxy(
    proxy: &Proxy,
    peer: &Peer,
    user_agent: &str,
    credentials: ProxyCredentials,
) -> Result<(), ConnectionError> {
    open_tunnel(proxy, peer, user_agent, credentials).await.map(drop)
}

/// What a peer that does not speak TLS sends to one that begins with it; `None` when it sends nothing, or TLS. It is for
/// the HTTP transport, whose client keeps that to itself. No handshake is carried out, and nothing is signed.
///
/// # Cancel safety
/// Safe to drop.
pub async fn greeting_instead_of_tls(config: &Config, default_port: u16) -> Option<Vec<u8>> {
    let Connector { server_name, tls, .. } = Connector::new(config.clone()).ok()?;
    let peer = Peer::of(config, default_port).ok()?;
    let mut tcp = Attempt::new(config, &peer, &Progress::default()).tcp().await.ok()?;
    let mut hello = Vec::new();
    rustls::ClientConnection::new(tls, server_name).ok()?.write_tls(&mut hello).ok()?;
    tcp.write_all(&hello).await.ok()?;
    let first = tcp.read_u8().await.ok()?;
    if first_bytes::begins_tls(first) {
        return None;
    }
    Some(greeting(&mut tcp, &[first]).await)
}

/// What a peer sends within TLS to one that asks nothing, but begins with `words`; `None` when it sends nothing. It is for
/// the HTTP transport too.
///
/// # Cancel safety
/// Safe to drop.
pub async fn greeting_in_tls(config: &Config, default_port: u16, words: &[u8]) -> Option<Vec<u8>> {
    let connector = Connector::new(config.clone()).ok()?;
    let mut stream = connector.connect(default_port, &Progress::default()).await.ok()?;
    stream.write_all(words).await.ok()?;
    stream.flush().await.ok()?;
    let first = stream.read_u8().await.ok()?;
    Some(greeting(&mut stream, &[first]).await)
}

/// Lets the runtime take in what has come to its sockets. A stream knows no more than the runtime does: until then,
/// one that the peer has closed may look open.
///
/// # Cancel safety
/// Safe to drop.
pub async fn catch_up() {
    // Tokio takes a task up again that yields once it has looked at the sockets.
    tokio::task::yield_now().await;
}

/// The first of the addresses to answer. Each gets its turn when the one before has failed or has let
/// [`STAGGER`] pass; of several failures the first counts, the resolver having put the best address first.
///
/// # Errors
/// [`io::Error`] when none answers.
///
/// # Cancel safety
/// Safe to drop: what was begun is closed.
pub async fn dial(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut dialled = FuturesUnordered::new();
    let mut failure = None;
    loop {
        match waiting.next() {
            Some(address) => {
                tracing::debug!(%address, "connecting");
                dialled.push(TcpStream::connect(address));
            }
            None if dialled.is_empty() => {
                return Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
            }
            None => {}
        }
        tokio::select! {
            Some(outcome) = dialled.next() => match outcome {
                Ok(tcp) => {
                    tcp.set_nodelay(true)?;
                    return Ok(tcp);
                }
                Err(error) => {
                    failure.get_or_insert(error);
                }
            },
            () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::{TcpListener, TcpSocket};

    /// An address where nobody listens as long as the socket is kept.
    fn closed_address() -> (TcpSocket, SocketAddr) {
        let taken = TcpSocket::new_v4().unwrap();
        taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = taken.local_addr().unwrap();
        (taken, address)
    }

    #[tokio::test]
    async fn each_address_gets_its_turn_when_the_one_before_failed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let ((_one, one), (_two, two)) = (closed_address(), closed_address());
        let tcp = dial(vec![one, two, good]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), good);
        assert!(tcp.nodelay().unwrap(), "no delay");
        let failure = dial(vec![one, two]).await.unwrap_err();
        assert_eq!(failure.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(dial(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    /// Linux drops what comes to a listener whose queue is full: on loopback that is as silent as a lost route.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_up_no_other() {
        let hole = TcpSocket::new_v4().unwrap();
        hole.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let hole = hole.listen(1).unwrap();
        let silent = hole.local_addr().unwrap();
        let _queued = (dial(vec![silent]).await.unwrap(), dial(vec![silent]).await.unwrap());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let tcp = dial(vec![silent, good]).await.unwrap();
        assert_eq!(tcp.peer_addr().unwrap(), good);

        let roots = crate::roots::Roots::default();
        let key = dps_attestation::SymmetricKey::from_bytes(b"the key of a device").unwrap();
        let attestation = dps_attestation::Attestation::SymmetricKey(key);
        let mut config = Config::new("0ne00AABBCC".parse().unwrap(), attestation);
        config.endpoint = silent.to_string().parse().unwrap();
        config.roots = roots;
        config.connect_timeout = Some(Duration::from_millis(300));
        let error =
            Connector::new(config).unwrap().connect(443, &Progress::default()).await.unwrap_err();
        assert_eq!(error.stage(), Some(Stage::Connect));
        let message = error.to_string();
        assert!(message.contains("no connection") && message.contains("0.3 s"), "{message}");
    }
}
