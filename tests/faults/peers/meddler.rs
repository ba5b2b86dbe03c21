//! A man in the middle: between the client and a service in good health, he makes trouble at the step he is told,
//! on every connection, until it is lifted.
//!
//! He ends TLS on both sides, so that he sees the plain bytes and can break off, be silent, drip, send an alert,
//! change or repeat a message, at exactly one step. He can play a proxy as well: the tunnel then ends in himself.

use std::{io, net::SocketAddr, sync::Arc};

use dps_client::{Stage, Transport};
use rustls::{ClientConfig, RootCertStore};
use tokio::{select, sync::watch, task::JoinSet};
use tokio_rustls::TlsConnector;

use super::{
    door::{Door, DoorState},
    pki::{Credentials, Pki},
    spoiled::meet,
    talk::{Kind, Message},
};

/// What goes wrong, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trouble {
    pub(crate) at: Stage,
    /// Only with messages of this kind; `None` for the first of the step.
    pub(crate) with: Option<Kind>,
    pub(crate) what: Mischief,
}

impl Trouble {
    pub(crate) fn at(at: Stage, what: Mischief) -> Self {
        Self { at, with: None, what }
    }

    pub(crate) fn with(at: Stage, kind: Kind, what: Mischief) -> Self {
        Self { at, with: Some(kind), what }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Mischief {
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
    /// Keeps the message until the trouble is lifted, and sends it then.
    Late,
    /// Dies: breaks the connection and refuses or leaves unanswered every new one.
    Die(DoorState),
    /// Shows these credentials in the TLS handshake.
    Show(Credentials),
}

/// A running man in the middle; dropped, he stops.
pub(crate) struct Meddler {
    pub(crate) address: SocketAddr,
    plot: Arc<Plot>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
pub(super) struct Connections {
    open: usize,
    closed: usize,
}

/// What he and his connections share.
pub(super) struct Plot {
    pub(super) transport: Transport,
    /// Plays the proxy.
    pub(super) proxy: bool,
    pub(super) pki: Arc<Pki>,
    pub(super) service: SocketAddr,
    pub(super) connector: TlsConnector,
    pub(super) trouble: watch::Sender<Option<Trouble>>,
    /// How the door is to be, and how it is.
    door: watch::Sender<DoorState>,
    turned: watch::Sender<DoorState>,
    struck: watch::Sender<usize>,
    connections: watch::Sender<Connections>,
    pub(super) misses: watch::Sender<usize>,
}

impl Meddler {
    /// Stands before the service at an address, which shows a certificate of the given authority.
    pub(crate) async fn start(
        transport: Transport,
        proxy: bool,
        pki: Arc<Pki>,
        service: SocketAddr,
        service_ca: &str,
    ) -> io::Result<Self> {
        let (door, address) = Door::new()?;
        let plot = Arc::new(Plot {
            transport,
            proxy,
            pki,
            service,
            connector: connector(service_ca),
            trouble: watch::Sender::new(None),
            door: watch::Sender::new(DoorState::Open),
            turned: watch::Sender::new(DoorState::Shut),
            struck: watch::Sender::new(0),
            connections: watch::Sender::default(),
            misses: watch::Sender::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(door, address, Arc::clone(&plot)));
        plot.turn(DoorState::Open).await;
        Ok(Self { address, plot, _tasks: tasks })
    }

    /// From now on this goes wrong. What strikes at the end of the session strikes at once.
    pub(crate) fn make(&self, trouble: Trouble) {
        self.plot.trouble.send_replace(Some(trouble));
    }

    /// From now on nothing goes wrong, and the door is open. It is when this returns.
    pub(crate) async fn lift(&self) {
        self.plot.trouble.send_replace(None);
        self.turn(DoorState::Open).await;
    }

    /// Opens or shuts the door. It is so when this returns.
    pub(crate) async fn turn(&self, state: DoorState) {
        self.plot.turn(state).await;
    }

    /// How many times the trouble has struck.
    pub(crate) fn struck(&self) -> usize {
        *self.plot.struck.borrow()
    }

    /// How many messages were to be changed and had nothing in them to change.
    pub(crate) fn misses(&self) -> usize {
        *self.plot.misses.borrow()
    }

    /// How many connections are over.
    pub(crate) fn closed(&self) -> usize {
        self.plot.connections.borrow().closed
    }

    /// When a connection is over that was not when there were so many, or none is open.
    pub(crate) async fn has_closed_another(&self, closed: usize) {
        let over = |count: &Connections| count.open == 0 || count.closed > closed;
        // The sender lives as long as this.
        let _ = self.plot.connections.subscribe().wait_for(over).await;
    }

    /// When the trouble has struck.
    pub(crate) async fn has_struck(&self) {
        // The sender lives as long as this.
        let _ = self.plot.struck.subscribe().wait_for(|count| *count > 0).await;
    }
}

impl Plot {
    pub(super) fn trouble(&self, at: Stage) -> Option<Mischief> {
        self.trouble.borrow().filter(|trouble| trouble.at == at).map(|trouble| trouble.what)
    }

    pub(super) fn trouble_with(&self, message: &Message) -> Option<Mischief> {
        let trouble = (*self.trouble.borrow())?;
        let fits = message.step == Some(trouble.at)
            && trouble.with.is_none_or(|kind| {
                message.kind == kind
                    || message.kind == Kind::Other && self.transport == Transport::Http
            });
        fits.then_some(trouble.what)
    }

    pub(super) fn strikes(&self) {
        self.struck.send_modify(|count| *count += 1);
    }

    pub(super) async fn lifted(&self) {
        let _ = self.trouble.subscribe().wait_for(Option::is_none).await;
    }

    pub(super) async fn turn(&self, state: DoorState) {
        self.door.send_replace(state);
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

async fn accept(mut door: Door, address: SocketAddr, plot: Arc<Plot>) {
    let mut wanted = plot.door.subscribe();
    wanted.mark_changed();
    let mut connections = JoinSet::new();
    loop {
        select! {
            accepted = door.accept() => {
                if let Ok(tcp) = accepted {
                    let plot = Arc::clone(&plot);
                    plot.connections.send_modify(|count| count.open += 1);
                    connections.spawn(async move {
                        // Whoever hangs up does so here too.
                        let _over = meet(tcp, &plot).await;
                        plot.connections.send_modify(|count| {
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
                if let Err(error) = door.turn(address, state).await {
                    eprintln!("the door of {address} does not turn: {error}");
                }
                plot.turned.send_replace(state);
            }
        }
    }
}
