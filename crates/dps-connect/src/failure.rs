//! What went wrong on the way to the service, in the same words on every transport.

use std::{error::Error as StdError, fmt, io, iter, sync::Arc, time::Duration};

use dps_state_machine::{ConnectionError, CredentialError, Error, ProtocolError, Stage};
use rustls::{AlertDescription, OtherError, PeerIncompatible};

use crate::{
    config::Config,
    endpoint::host_and_port,
    first_bytes::{NotTls, describe},
    flood::Flooded,
    proxy::Proxy,
    tls::Asked,
};

mod certificate;
mod websocket;

pub use websocket::{Closed, Violation};

/// The service's end of a connection, as messages name it, and the proxy on the way there.
#[derive(Clone, Debug)]
pub struct Peer {
    host: String,
    port: u16,
    /// The port that the transport has where the endpoint names none.
    own_port: u16,
    proxy: Option<Proxy>,
    /// Which certificate was asked for in the handshake.
    asked: Asked,
}

impl Peer {
    /// The endpoint and the proxy of a configuration. No I/O.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the environment names a proxy that can't be used.
    pub fn of(config: &Config, default_port: u16) -> Result<Self, Error> {
        let endpoint = &config.endpoint;
        let (host, port) = (endpoint.host().to_owned(), endpoint.port_or(default_port));
        let (proxy, asked) = (config.chosen_proxy(default_port)?, config.asked.clone());
        Ok(Self { host, port, own_port: default_port, proxy, asked })
    }

    /// The service's host; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The service's port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The proxy to ask for a tunnel.
    #[must_use]
    pub fn proxy(&self) -> Option<&Proxy> {
        self.proxy.as_ref()
    }

    /// Which port is right for the transport, as a message ends with it.
    fn own_port(&self) -> String {
        match self.own_port {
            own if own == self.port => format!("although {own} is this transport's own port"),
            own => format!("this transport's own port is {own}"),
        }
    }

    /// Host and port of the service.
    #[must_use]
    pub fn address(&self) -> String {
        host_and_port(&self.host, self.port)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address())?;
        match &self.proxy {
            Some(proxy) => write!(f, " (through the proxy {})", proxy.address()),
            None => Ok(()),
        }
    }
}

/// Looks for an error of one type in a chain of sources, and inside of [`io::Error`] and [`rustls::Error`], which hide
/// what they wrap.
#[must_use]
pub fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match (wrapped, error.downcast_ref::<rustls::Error>()) {
            (Some(wrapped), _) => Some(wrapped),
            (None, Some(rustls::Error::Other(OtherError(wrapped)))) => Some(&**wrapped),
            (None, _) => error.source(),
        };
    }
    None
}

/// Keeps the error below, for logs; not one whose words the message has already, which would be shown twice.
#[must_use]
pub fn because(
    mut error: ConnectionError,
    below: impl Into<Box<dyn StdError + Send + Sync>>,
) -> ConnectionError {
    let below = below.into();
    let first: &(dyn StdError + 'static) = &*below;
    let mut chain = iter::successors(Some(first), |&error| error.source());
    if !chain.any(|below| error.message.contains(&below.to_string())) {
        error.source = Some(Arc::from(below));
    }
    error
}

/// The innermost [`io::Error`] of a chain: the one that the system, or the TLS stream, made.
fn innermost_io<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut found = find::<io::Error>(error)?;
    while let Some(inner) = found.get_ref().and_then(|wrapped| find::<io::Error>(wrapped)) {
        found = inner;
    }
    Some(found)
}

/// What came of making a connection: a key that did not sign in the TLS handshake is no fault of the connection.
#[must_use]
pub fn into_error(error: ConnectionError) -> Error {
    match find::<CredentialError>(&error) {
        Some(credential) => credential.clone().into(),
        None => error.into(),
    }
}

/// The host of the service, or of the proxy, has no address.
#[must_use]
pub fn resolve(host: &str, reason: &dyn fmt::Display) -> ConnectionError {
    ConnectionError::new(Stage::Resolve, format!("the name {host} can't be resolved: {reason}"))
        .hint("check the name, and that this machine has a network and a working DNS")
}

/// No TCP connection to the service.
#[must_use]
pub fn connect(peer: &Peer, error: &(dyn StdError + 'static)) -> ConnectionError {
    let message = match innermost_io(error) {
        Some(error) => refusal(&peer.address(), error),
        None => format!("{} can't be reached: {error}", peer.address()),
    };
    ConnectionError::new(Stage::Connect, message).hint(port_hint(peer.port))
}

/// No tunnel, because the proxy has no address.
#[must_use]
pub fn proxy_unresolved(proxy: &Proxy, mut error: ConnectionError) -> ConnectionError {
    error.stage = Stage::Proxy;
    error.message = format!("the proxy {}: {}", proxy.address(), error.message);
    error.hint("check the proxy's host and port")
}

/// No tunnel, because the proxy could not be reached or broke the connection.
#[must_use]
pub fn proxy_unreachable(proxy: &Proxy, error: &(dyn StdError + 'static)) -> ConnectionError {
    let address = format!("the proxy {}", proxy.address());
    let message = match innermost_io(error) {
        Some(error) => refusal(&address, error),
        None => format!("{address} can't be reached: {error}"),
    };
    ConnectionError::new(Stage::Proxy, message).hint("check the proxy's host and port")
}

/// No tunnel, because the proxy wants other credentials or any at all (407). `offered` are the authentication schemes
/// that it names.
#[must_use]
pub fn proxy_authentication(proxy: &Proxy, offered: &[&str]) -> ConnectionError {
    let address = proxy.address();
    let speaks_basic = offered.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
    if !offered.is_empty() && !speaks_basic {
        let offered = offered.join(", ");
        return ConnectionError::new(
            Stage::Proxy,
            format!("the proxy {address} asks for the authentication {offered:.64?} (407)"),
        )
        .hint("only Basic authentication is spoken here: let the proxy offer that to this device, or let it in without any")
        .permanent();
    }
    let hint = match proxy.credentials() {
        Some((user, _)) => format!("check the password of the proxy's user {user:?}"),
        None => "give the proxy's user and password, as in http://USER:PASSWORD@HOST:PORT".into(),
    };
    ConnectionError::new(Stage::Proxy, format!("the proxy {address} refused our credentials (407)"))
        .hint(hint)
        .permanent()
}

/// No tunnel, for the given reason.
#[must_use]
pub fn proxy_refused(proxy: &Proxy, peer: &Peer, reason: &str) -> ConnectionError {
    let message =
        format!("the proxy {} opened no tunnel to {}: {reason}", proxy.address(), peer.address());
    ConnectionError::new(Stage::Proxy, message).hint(format!(
        "check that it is an HTTP proxy and lets CONNECT through to port {}",
        peer.port
    ))
}

/// The time for making a connection ran out.
#[must_use]
pub fn timed_out(stage: Stage, peer: &Peer, after: Duration) -> ConnectionError {
    let (what, whom, hint) = match stage {
        Stage::Resolve => ("address", peer.host.clone(), "check this machine's DNS".to_owned()),
        Stage::Proxy => {
            let proxy = peer.proxy().map(Proxy::address).unwrap_or_default();
            ("tunnel", format!("the proxy {proxy}"), "check the proxy's host and port".to_owned())
        }
        Stage::Tls => {
            let hint = format!(
                "something in between may let TCP through and swallow TLS, or the port is wrong: {}",
                peer.own_port()
            );
            ("TLS handshake", peer.to_string(), hint)
        }
        Stage::Websocket => ("WebSocket upgrade", peer.to_string(), WEBSOCKET_HINT.to_owned()),
        _ => ("connection", peer.address(), port_hint(peer.port)),
    };
    let message = format!("no {what} from {whom} within {} s", after.as_secs_f64());
    ConnectionError::new(stage, message).hint(hint)
}

/// The TLS handshake failed.
#[must_use]
pub fn tls(peer: &Peer, error: &(dyn StdError + 'static)) -> ConnectionError {
    let new = |message: String| ConnectionError::new(Stage::Tls, message);
    if let Some(NotTls(heard)) = find(error) {
        return not_tls(peer, heard);
    }
    match find::<rustls::Error>(error) {
        Some(rustls::Error::InvalidCertificate(reason)) => certificate::refused(peer, reason),
        Some(rustls::Error::NoCertificatesPresented) => certificate::missing(peer),
        Some(rustls::Error::AlertReceived(alert)) => alert_received(peer, *alert),
        Some(rustls::Error::PeerIncompatible(reason)) => new(match reason {
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOfferedOrEnabled => {
                format!("{peer} has no TLS version in common with us; it must speak 1.2 or 1.3")
            }
            other => format!("{peer} has no cipher or parameter in common with us ({other:?})"),
        })
        .permanent(),
        Some(rustls::Error::InvalidMessage(_)) => {
            new(format!("{peer} {NO_TLS}; {}", peer.own_port())).hint(PORT_HINT)
        }
        // Its words are those of the error below.
        Some(rustls::Error::Other(_)) => new(format!("the TLS handshake with {peer} failed")),
        Some(other) => new(format!("the TLS handshake with {peer} failed: {other}")),
        None => match innermost_io(error) {
            Some(io) if is_close(io.kind()) => {
                new(format!("{peer} closed the connection during the TLS handshake")).hint(format!(
                    "a firewall that inspects TLS may be in the way, or the port is wrong: {}",
                    peer.own_port()
                ))
            }
            Some(io) => new(format!("the TLS handshake with {peer} failed: {io}")),
            None => new(format!("the TLS handshake with {peer} failed: {error}")),
        },
    }
}

/// What is said when another protocol came where TLS should have begun.
const NO_TLS: &str = "does not speak TLS";

/// Whether that is what an error says.
pub(crate) fn is_not_tls(error: &ConnectionError) -> bool {
    error.stage == Stage::Tls && error.message.contains(NO_TLS)
}

/// Another protocol came where TLS should have begun: these are its first bytes.
#[must_use]
pub fn not_tls(peer: &Peer, heard: &[u8]) -> ConnectionError {
    let message = format!("{peer} {NO_TLS}: {}; {}", describe(heard), peer.own_port());
    ConnectionError::new(Stage::Tls, message).hint(PORT_HINT)
}

/// Another protocol than the transport's came within TLS: these are its first bytes.
#[must_use]
pub fn another_protocol(stage: Stage, peer: &Peer, ours: &str, heard: &[u8]) -> Error {
    ProtocolError::unreadable(stage, not_ours(peer, ours, heard)).into()
}

#[cfg(feature = "websocket")]
pub(crate) fn websocket_not_http(peer: &Peer, heard: &[u8]) -> ConnectionError {
    let error = websocket(peer, &not_ours(peer, "HTTP", heard));
    // What no protocol begins with may have been damaged on the way.
    if crate::first_bytes::is_known(heard) { error.permanent() } else { error }
}

fn not_ours(peer: &Peer, ours: &str, heard: &[u8]) -> String {
    format!("it does not speak {ours}: {}; {}", describe(heard), peer.own_port())
}

const PORT_HINT: &str =
    "check the endpoint's port, and that nothing in between answers instead of the service";

const WEBSOCKET_HINT: &str =
    "check the host and the port, and that nothing in between answers instead of the service";

/// No WebSocket, because somebody who is not the service answered the upgrade with another status than 101. `line`
/// is the status with the words after it.
#[must_use]
pub fn websocket_refused(peer: &Peer, status: u16, line: &str) -> ConnectionError {
    let refused = websocket(peer, &format!("it answered {line:.128?}"));
    match status {
        401 | 403 => refused
            .hint("check that the network, the proxy and the service let this device in")
            .permanent(),
        408 => refused.hint("the connection is too slow; try again later"),
        _ => refused.permanent(),
    }
}

/// No WebSocket, for the given reason.
#[must_use]
pub fn websocket(peer: &Peer, reason: &str) -> ConnectionError {
    let message = format!("{peer} opened no WebSocket: {reason}");
    ConnectionError::new(Stage::Websocket, message).hint(WEBSOCKET_HINT)
}

/// No WebSocket, because the server would speak another protocol over it.
#[cfg(feature = "websocket")]
pub(crate) fn websocket_speaks(peer: &Peer, spoken: &str, ours: &str) -> ConnectionError {
    let reason = format!("it speaks {spoken:?}, not {ours:?}; {}", peer.own_port());
    websocket(peer, &reason).permanent()
}

/// No WebSocket, because the connection broke. With TLS 1.3 a server refuses the device's certificate only now:
/// that is distinguished, at the stage `tls`.
#[must_use]
pub fn websocket_broke(peer: &Peer, error: &(dyn StdError + 'static)) -> ConnectionError {
    let lost = lost(Stage::Websocket, peer, error);
    if lost.stage != Stage::Websocket {
        return lost;
    }
    match innermost_io(error) {
        Some(io) if !is_close(io.kind()) => websocket(peer, &io.to_string()),
        _ => {
            let closed = websocket(peer, "it closed the connection during the upgrade");
            match lost.hint {
                Some(hint) => closed.hint(hint),
                None => closed,
            }
        }
    }
}

/// Reading from an established connection, or writing to it, failed: what came makes no sense as WebSocket, or is a
/// flood, or the connection is [`lost`].
#[must_use]
pub fn broken(stage: Stage, peer: &Peer, error: io::Error) -> Error {
    if let Some(violation) = find::<Violation>(&error) {
        return ProtocolError::unreadable(stage, violation.to_string()).into();
    }
    if let Some(flooded) = find::<Flooded>(&error) {
        return ProtocolError::unreadable(stage, flooded.to_string()).into();
    }
    because(lost(stage, peer, &error), error).into()
}

/// An established connection broke. With TLS 1.3 a server refuses the device's certificate only now: that is
/// distinguished, at the stage `tls`.
#[must_use]
pub fn lost(stage: Stage, peer: &Peer, error: &(dyn StdError + 'static)) -> ConnectionError {
    if let Some(rustls::Error::AlertReceived(alert)) = find(error)
        && about_our_certificate(*alert).is_some()
    {
        return alert_received(peer, *alert);
    }
    let reason = match (find::<Closed>(error), find::<rustls::Error>(error), innermost_io(error)) {
        (Some(closed), ..) => format!(" ({closed})"),
        (_, Some(error), _) => format!(": {error}"),
        (.., Some(error)) if !is_close(error.kind()) => format!(": {error}"),
        _ => String::new(),
    };
    let lost = ConnectionError::lost(
        stage,
        format!("{peer} closed the connection before it had answered{reason}"),
    );
    match stage {
        Stage::Register | Stage::Websocket if peer.port != peer.own_port => {
            lost.hint(format!("if it always does, check the endpoint's port: {}", peer.own_port()))
        }
        _ => lost,
    }
}

fn is_close(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof,
    };
    matches!(kind, UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe | NotConnected)
}

fn refusal(whom: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{whom} refused the connection"),
        io::ErrorKind::TimedOut => format!("no answer from {whom}"),
        io::ErrorKind::NetworkUnreachable => format!("{whom}: the network can't be reached"),
        io::ErrorKind::HostUnreachable => format!("{whom}: the host can't be reached"),
        kind if is_close(kind) => format!("{whom} closed the connection"),
        _ => format!("{whom} can't be reached: {error}"),
    }
}

fn port_hint(port: u16) -> String {
    let transport = match port {
        8883 => "MQTT",
        5671 => "AMQP",
        _ => {
            return "check the host, the port and the network; set a proxy if one is needed".into();
        }
    };
    format!(
        "port {port} is often closed by firewalls; use {transport} over WebSocket or HTTP, on port 443"
    )
}

/// What the server dislikes about our certificate. See <https://www.rfc-editor.org/rfc/rfc8446#section-6.2>.
fn about_our_certificate(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::UnknownCA => "it does not know the authority",
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::BadCertificate => "it is damaged or its signature is wrong",
        AlertDescription::UnsupportedCertificate => "it is of an unsupported kind",
        AlertDescription::CertificateUnknown => "it is not acceptable",
        AlertDescription::AccessDenied => "it gives no access",
        AlertDescription::DecryptError => "its signature does not hold",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            "it wants one, and got none"
        }
        _ => return None,
    })
}

fn alert_received(peer: &Peer, alert: AlertDescription) -> ConnectionError {
    let new = |message: String| ConnectionError::new(Stage::Tls, message);
    if let Some(reason) = about_our_certificate(alert) {
        let not_sent = peer.asked.last().and_then(|request| request.not_sent());
        let hint = not_sent.unwrap_or_else(|| {
            "check the device's certificate, its chain and the enrollment".to_owned()
        });
        return new(format!(
            "{peer} refused this device's certificate: {reason} (alert {alert:?})"
        ))
        .hint(hint)
        .permanent();
    }
    match alert {
        AlertDescription::ProtocolVersion => {
            new(format!("{peer} has no TLS version in common with us; it must speak 1.2 or 1.3"))
                .permanent()
        }
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            new(format!("{peer} has no cipher or parameter in common with us (alert {alert:?})"))
                .permanent()
        }
        AlertDescription::UnrecognisedName => {
            new(format!("{peer} does not know the name {}", peer.host))
                .hint("check the endpoint")
                .permanent()
        }
        AlertDescription::NoApplicationProtocol => new(format!(
            "{peer} wants a protocol to be named by ALPN, which the service does not: it is another server; {}",
            peer.own_port()
        ))
        .hint(PORT_HINT)
        .permanent(),
        _ => new(format!("{peer} broke the TLS handshake off (alert {alert:?})")),
    }
}
