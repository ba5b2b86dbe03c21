//! A man in the middle: between the client and a service in good health, it injects a fault at the given step,
//! on every connection, until the fault is cleared.
//!
//! It ends TLS on both sides, so that it sees the plain bytes and can break off, be silent, drip, send an alert,
//! change or repeat a message, at exactly one step. It can play a proxy as well: the tunnel then ends in it.

use std::{io, net::SocketAddr, sync::Arc};

use dps_client::{Stage, Transport};
use rustls::{ClientConfig, RootCertStore};
use tokio::{select, sync::watch, task::JoinSet};
use tokio_rustls::TlsConnector;

use super::{
    controlled_port::{ControlledPort, PortState},
    conversation::{Kind, Message},
    pki::{Credentials, Pki},
    relayed_connection::serve,
};

/// What goes wrong, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injection {
    pub(crate) at: Stage,
    /// Only with messages of this kind; `None` for the first of the step.
    pub(crate) with: Option<Kind>,
    pub(crate) what: Misbehavior,
}

impl Injection {
    pub(crate) fn at(at: Stage, what: Misbehavior) -> Self {
        Self { at, with: None, what }
    }

    pub(crate) fn with(at: Stage, kind: Kind, what: Misbehavior) -> Self {
        Self { at, with: Some(kind), what }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Misbehavior {
    /// Closes the connection (FIN).
    Close,
    /// Breaks the connection (RST).
    Reset,
    /// Neither reads nor writes any more, and never closes.
    HalfOpen,
    /// Reads on and is silent.
    Stall,
    /// Sends a byte a second.
    Drip,
    /// Sends a fatal TLS alert: an internal error in the handshake, a record that could not be read after it.
    Alert,
    /// Sends a TLS record that can't be decrypted.
    Corrupt,
    /// Says this instead, and nothing more.
    Say(&'static [u8]),
    /// Closes the WebSocket with a code and a word.
    CloseWebsocket,
    /// Leaves the message out.
    Swallow,
    /// Sends the message twice.
    Twice,
    /// Changes the message; false when it finds nothing to change.
    Edit(fn(&mut [u8]) -> bool),
    /// Keeps the message until the fault is cleared, and sends it then.
    Late,
    /// Dies: breaks the connection and refuses or leaves unanswered every new one.
    Die(PortState),
    /// Shows these credentials in the TLS handshake.
    Show(Credentials),
}

/// A running man in the middle; dropped, he stops.
pub(crate) struct ManInTheMiddle {
    pub(crate) address: SocketAddr,
    interception: Arc<Interception>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
pub(super) struct Connections {
    open: usize,
    closed: usize,
}

/// What he and his connections share.
pub(super) struct Interception {
    pub(super) transport: Transport,
    /// Plays the proxy.
    pub(super) proxy: bool,
    pub(super) pki: Arc<Pki>,
    pub(super) service: SocketAddr,
    pub(super) connector: TlsConnector,
    pub(super) injection: watch::Sender<Option<Injection>>,
    /// The wanted state of the port, and its state.
    controlled_port: watch::Sender<PortState>,
    turned: watch::Sender<PortState>,
    injected: watch::Sender<usize>,
    connections: watch::Sender<Connections>,
    pub(super) misses: watch::Sender<usize>,
}

impl ManInTheMiddle {
    /// Stands before the service at an address, which shows a certificate of the given authority.
    pub(crate) async fn start(
        transport: Transport,
        proxy: bool,
        pki: Arc<Pki>,
        service: SocketAddr,
        service_ca: &str,
    ) -> io::Result<Self> {
        let (controlled_port, address) = ControlledPort::new()?;
        let interception = Arc::new(Interception {
            transport,
            proxy,
            pki,
            service,
            connector: connector(service_ca),
            injection: watch::Sender::new(None),
            controlled_port: watch::Sender::new(PortState::Open),
            turned: watch::Sender::new(PortState::Shut),
            injected: watch::Sender::new(0),
            connections: watch::Sender::default(),
            misses: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(controlled_port, address, Arc::clone(&interception)));
        interception.turn(PortState::Open).await;
        Ok(Self { address, interception, _tasks: tasks })
    }

    /// From now on this fault is injected. A fault at the end of the session is injected at once.
    pub(crate) fn make(&self, injection: Injection) {
        self.interception.injection.send_replace(Some(injection));
    }

    /// From now on nothing goes wrong, and the port is open. It is open when this returns.
    pub(crate) async fn clear(&self) {
        self.interception.injection.send_replace(None);
        self.turn(PortState::Open).await;
    }

    /// Opens or shuts the port, and returns when that is done.
    pub(crate) async fn turn(&self, state: PortState) {
        self.interception.turn(state).await;
    }

    /// How many times the fault was injected.
    pub(crate) fn injected(&self) -> usize {
        *self.interception.injected.borrow()
    }

    /// How many messages were to be changed and had nothing in them to change.
    pub(crate) fn misses(&self) -> usize {
        *self.interception.misses.borrow()
    }

    /// How many connections are over.
    pub(crate) fn closed(&self) -> usize {
        self.interception.connections.borrow().closed
    }

    /// When a connection is over that was not when there were so many, or none is open.
    pub(crate) async fn has_closed_another(&self, closed: usize) {
        let over = |count: &Connections| count.open == 0 || count.closed > closed;
        // The sender lives as long as this.
        let _ = self.interception.connections.subscribe().wait_for(over).await;
    }

    /// Waits until the fault was injected.
    pub(crate) async fn has_injected(&self) {
        // The sender lives as long as this.
        let _ = self.interception.injected.subscribe().wait_for(|count| *count > 0).await;
    }
}

impl Interception {
    pub(super) fn injection(&self, at: Stage) -> Option<Misbehavior> {
        self.injection
            .borrow()
            .filter(|injection| injection.at == at)
            .map(|injection| injection.what)
    }

    pub(super) fn injection_with(&self, message: &Message) -> Option<Misbehavior> {
        let injection = (*self.injection.borrow())?;
        let fits = message.step == Some(injection.at)
            && injection.with.is_none_or(|kind| {
                message.kind == kind
                    || message.kind == Kind::Other && self.transport == Transport::Http
            });
        fits.then_some(injection.what)
    }

    pub(super) fn injects(&self) {
        self.injected.send_modify(|count| *count += 1);
    }

    pub(super) async fn cleared(&self) {
        let _ = self.injection.subscribe().wait_for(Option::is_none).await;
    }

    pub(super) async fn turn(&self, state: PortState) {
        self.controlled_port.send_replace(state);
        let _ = self.turned.subscribe().wait_for(|turned| *turned == state).await;
    }
}

fn connector(ca_pem: &str) -> TlsConnector {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a CA certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the usual versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config).into()
}

async fn accept(
    mut controlled_port: ControlledPort,
    address: SocketAddr,
    interception: Arc<Interception>,
) {
    let mut wanted = interception.controlled_port.subscribe();
    wanted.mark_changed();
    let mut connections = JoinSet::new();
    loop {
        select! {
            accepted = controlled_port.accept() => {
                if let Ok(tcp) = accepted {
                    let interception = Arc::clone(&interception);
                    interception.connections.send_modify(|count| count.open += 1);
                    connections.spawn(async move {
                        // Whoever hangs up does so here too.
                        let _over = serve(tcp, &interception).await;
                        interception.connections.send_modify(|count| {
                            count.open -= 1;
                            count.closed += 1;
                        });
                    });
                }
            }
            Some(_) = connections.join_next() => {}
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let state = *wanted.borrow_and_update();
                if let Err(error) = controlled_port.turn(address, state).await {
                    eprintln!("the state of the port {address} can't be changed: {error}");
                }
                interception.turned.send_replace(state);
            }
        }
    }
}
