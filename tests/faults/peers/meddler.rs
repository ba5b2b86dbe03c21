//! A man in the middle: between the client and a service in good health, he makes trouble at the step he is told,
//! on every connection, until it is lifted.
//!
//! He ends TLS on both sides, so that he sees the plain bytes and can break off, be silent, drip, send an alert,
//! change or repeat a message, at exactly one step. He can play a proxy as well: the tunnel then ends in himself.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use dps_client::{Stage, Transport};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    select,
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, server::TlsStream};

use super::{
    door::{Door, DoorState},
    paced::{Pace, Paced},
    pki::{Credentials, Pki},
    talk::{Kind, Message, Talk, close_frame},
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

struct Plot {
    wire: Transport,
    /// Plays the proxy.
    proxy: bool,
    pki: Arc<Pki>,
    service: SocketAddr,
    connector: TlsConnector,
    trouble: watch::Sender<Option<Trouble>>,
    /// How the door is to be, and how it is.
    door: watch::Sender<DoorState>,
    turned: watch::Sender<DoorState>,
    struck: watch::Sender<usize>,
    open: watch::Sender<usize>,
    misses: watch::Sender<usize>,
}

impl Meddler {
    /// Stands before the service at an address, which shows a certificate of the given authority.
    pub(crate) async fn start(
        wire: Transport,
        proxy: bool,
        pki: Arc<Pki>,
        service: SocketAddr,
        service_ca: &str,
    ) -> io::Result<Self> {
        let (door, address) = Door::new()?;
        let plot = Arc::new(Plot {
            wire,
            proxy,
            pki,
            service,
            connector: connector(service_ca),
            trouble: watch::Sender::new(None),
            door: watch::Sender::new(DoorState::Open),
            turned: watch::Sender::new(DoorState::Shut),
            struck: watch::Sender::new(0),
            open: watch::Sender::new(0),
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

    /// When no connection is open.
    pub(crate) async fn is_alone(&self) {
        // The sender lives as long as this.
        let _ = self.plot.open.subscribe().wait_for(|count| *count == 0).await;
    }

    /// When the trouble has struck.
    pub(crate) async fn has_struck(&self) {
        // The sender lives as long as this.
        let _ = self.plot.struck.subscribe().wait_for(|count| *count > 0).await;
    }
}

impl Plot {
    fn trouble(&self, at: Stage) -> Option<Mischief> {
        self.trouble.borrow().filter(|trouble| trouble.at == at).map(|trouble| trouble.what)
    }

    fn trouble_with(&self, message: &Message) -> Option<Mischief> {
        let trouble = (*self.trouble.borrow())?;
        let fits = message.step == Some(trouble.at)
            && trouble.with.is_none_or(|kind| {
                message.kind == kind || message.kind == Kind::Other && self.wire == Transport::Http
            });
        fits.then_some(trouble.what)
    }

    fn strikes(&self) {
        self.struck.send_modify(|count| *count += 1);
    }

    async fn lifted(&self) {
        let _ = self.trouble.subscribe().wait_for(Option::is_none).await;
    }

    async fn turn(&self, state: DoorState) {
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
                    plot.open.send_modify(|count| *count += 1);
                    connections.spawn(async move {
                        // Whoever hangs up does so here too.
                        let _over = meet(tcp, &plot).await;
                        plot.open.send_modify(|count| *count -= 1);
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

/// One connection, from the first byte on.
async fn meet(tcp: TcpStream, plot: &Plot) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let trouble = plot.trouble.subscribe();
    let pace = Pace::new(move || {
        let mut trouble = trouble.clone();
        async move {
            let _ = trouble.wait_for(Option::is_none).await;
        }
    });
    let mut client = Paced::new(tcp, pace.clone());
    if plot.proxy {
        read_head(&mut client).await?;
        if let Some(what) = plot.trouble(Stage::Proxy) {
            plot.strikes();
            match what {
                Mischief::Drip => pace.set(DRIP),
                other => return spoil(client, other, plot).await,
            }
        }
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    }
    let mut credentials = Credentials::Valid;
    if let Some(what) = plot.trouble(Stage::Tls) {
        plot.strikes();
        match what {
            Mischief::Drip => pace.set(DRIP),
            Mischief::Show(bad) => credentials = bad,
            other => {
                // The hello is read first: a close with bytes unread is a reset.
                let _hello = client.read(&mut [0; 4096]).await?;
                return spoil(client, other, plot).await;
            }
        }
    }
    let client = plot.pki.acceptor(credentials).accept(client).await?;
    relay(client, pace, plot).await
}

/// Between two bytes. Whoever waits for an answer has given up long before.
const DRIP: Duration = Duration::from_secs(1);

/// A record that says: fatal, internal error.
const ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 80];

/// Trouble before TLS stands.
async fn spoil(mut client: Paced, what: Mischief, plot: &Plot) -> io::Result<()> {
    match what {
        Mischief::Close => Ok(()),
        Mischief::Reset => client.tcp.set_zero_linger(),
        Mischief::HalfOpen => {
            plot.lifted().await;
            Ok(())
        }
        Mischief::Alert => say(client, ALERT, plot).await,
        Mischief::Corrupt => say(client, CORRUPT, plot).await,
        Mischief::Say(bytes) => say(client, bytes, plot).await,
        Mischief::Die(state) => {
            client.tcp.set_zero_linger()?;
            plot.turn(state).await;
            Ok(())
        }
        _ => swallow(&mut client, plot).await,
    }
}

async fn say(
    mut client: impl AsyncRead + tokio::io::AsyncWrite + Unpin,
    bytes: &[u8],
    plot: &Plot,
) -> io::Result<()> {
    client.write_all(bytes).await?;
    client.flush().await?;
    swallow(&mut client, plot).await
}

/// Reads and forgets until the client is gone or the trouble is over.
async fn swallow(client: &mut (impl AsyncRead + Unpin), plot: &Plot) -> io::Result<()> {
    let mut nowhere = tokio::io::sink();
    select! {
        read = tokio::io::copy(client, &mut nowhere) => read.map(|_| ()),
        () = plot.lifted() => Ok(()),
    }
}

async fn read_head(client: &mut Paced) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    Ok(())
}

/// An application-data record of noise.
const CORRUPT: &[u8] = b"\x17\x03\x03\x00\x20not what the keys would have made of";

/// Both sides of TLS stand: everything goes through, but for the trouble.
async fn relay(mut client: TlsStream<Paced>, pace: Pace, plot: &Plot) -> io::Result<()> {
    let service = TcpStream::connect(plot.service).await?;
    service.set_nodelay(true)?;
    let name = ServerName::IpAddress(plot.service.ip().into());
    let mut service = plot.connector.connect(name, service).await?;
    let mut talk = Talk::new(plot.wire);
    let mut trouble = plot.trouble.subscribe();
    let (mut up, mut down) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        select! {
            read = client.read(&mut up) => {
                let bytes = up.get(..read?).unwrap_or_default();
                if bytes.is_empty() {
                    return service.shutdown().await;
                }
                talk.client_says(bytes);
                service.write_all(bytes).await?;
                service.flush().await?;
            }
            read = service.read(&mut down) => {
                let bytes = down.get(..read?).unwrap_or_default();
                if bytes.is_empty() {
                    return client.shutdown().await;
                }
                for message in talk.service_says(bytes) {
                    let Some(what) = plot.trouble_with(&message) else {
                        client.write_all(&message.bytes).await?;
                        continue;
                    };
                    plot.strikes();
                    match pass(&mut client, message, what, &pace, plot).await? {
                        Then::GoOn => {}
                        Then::Over => return meddle(client, what, plot).await,
                    }
                }
                client.flush().await?;
            }
            changed = trouble.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let now = *trouble.borrow_and_update();
                if let Some(Trouble { at: Stage::EndSession, what, .. }) = now {
                    if let Mischief::Drip = what {
                        pace.set(DRIP);
                        plot.strikes();
                    } else {
                        return meddle_at_the_end(client, what, plot).await;
                    }
                }
            }
        }
    }
}

enum Then {
    GoOn,
    Over,
}

/// Trouble with one message, after which the conversation goes on, if it does.
async fn pass(
    client: &mut TlsStream<Paced>,
    mut message: Message,
    what: Mischief,
    pace: &Pace,
    plot: &Plot,
) -> io::Result<Then> {
    match what {
        Mischief::Drip => {
            pace.set(DRIP);
            client.write_all(&message.bytes).await?;
        }
        Mischief::Swallow => {}
        Mischief::Twice => {
            client.write_all(&message.bytes).await?;
            client.write_all(&message.bytes).await?;
        }
        Mischief::Edit(edit) => {
            if !edit(&mut message.bytes) {
                plot.misses.send_modify(|count| *count += 1);
            }
            client.write_all(&message.bytes).await?;
        }
        Mischief::Late => {
            plot.lifted().await;
            client.write_all(&message.bytes).await?;
        }
        _ => return Ok(Then::Over),
    }
    Ok(Then::GoOn)
}

/// As [`meddle`]; that it has struck is told once the connection is broken, or while it is being spoilt.
async fn meddle_at_the_end(
    client: TlsStream<Paced>,
    what: Mischief,
    plot: &Plot,
) -> io::Result<()> {
    let at_once = matches!(what, Mischief::Close | Mischief::Reset | Mischief::Die(_));
    if !at_once {
        plot.strikes();
    }
    let over = meddle(client, what, plot).await;
    if at_once {
        plot.strikes();
    }
    over
}

/// Trouble that ends the conversation.
async fn meddle(mut client: TlsStream<Paced>, what: Mischief, plot: &Plot) -> io::Result<()> {
    match what {
        Mischief::Close => Ok(()),
        Mischief::Reset => client.get_ref().0.tcp.set_zero_linger(),
        Mischief::HalfOpen => {
            plot.lifted().await;
            Ok(())
        }
        Mischief::Alert => {
            // A record that our own side can't decrypt makes it send the alert, encrypted as it must be.
            let session = client.get_mut().1;
            session.read_tls(&mut &*CORRUPT)?;
            let _refused = session.process_new_packets();
            client.flush().await?;
            swallow(&mut client.get_mut().0, plot).await
        }
        Mischief::Corrupt => {
            let tcp = client.get_mut().0;
            tcp.write_all(CORRUPT).await?;
            swallow(tcp, plot).await
        }
        Mischief::Say(bytes) => say(client, bytes, plot).await,
        Mischief::CloseWebsocket => say(client, &close_frame(1011, "in trouble"), plot).await,
        Mischief::Die(state) => {
            client.get_ref().0.tcp.set_zero_linger()?;
            plot.turn(state).await;
            Ok(())
        }
        _ => swallow(&mut client, plot).await,
    }
}
