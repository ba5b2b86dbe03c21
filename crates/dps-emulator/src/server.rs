//! Sockets, TLS and the wires. Each wire is a thin layer over the one [`Service`].

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use rustls::{ServerConfig, pki_types::CertificateDer};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    behavior::ConnectionFault,
    config::Limits,
    events::{EventKind, Recorder, Wire},
    keys::Thumbprint,
    service::{Authenticated, Credential, Service, ServiceError},
};

pub(crate) mod admin;
pub(crate) mod http;
mod peer;
mod strangers;
mod stream;
mod websocket;

pub(crate) use peer::Peer;
use strangers::Strangers;
pub(crate) use stream::{Control, Stream};

/// Why a connection is over when the emulator is.
pub(crate) const STOPS: &str = "the emulator stops";

/// How long a peer may take to show its credential when others wait for its place, at most.
const STRANGERS_TIME: Duration = Duration::from_secs(1);

/// What all connections of an emulator share.
pub(crate) struct Shared {
    pub(crate) service: Mutex<Service>,
    pub(crate) recorder: Recorder,
    pub(crate) limits: Limits,
    connection_faults: Mutex<VecDeque<ConnectionFault>>,
    tls: TlsAcceptor,
    slots: Arc<Semaphore>,
    strangers: Arc<Strangers>,
    connections: AtomicU64,
    clock_ahead: Mutex<Duration>,
}

impl Shared {
    pub(crate) fn new(
        service: Service,
        recorder: Recorder,
        limits: Limits,
        connection_faults: Vec<ConnectionFault>,
        tls: Arc<ServerConfig>,
        clock_ahead: Duration,
    ) -> Self {
        Self {
            service: Mutex::new(service),
            recorder,
            limits,
            connection_faults: Mutex::new(connection_faults.into()),
            tls: tls.into(),
            slots: Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS))),
            strangers: Arc::new(Strangers::new(
                (limits.handshake_timeout / 10).min(STRANGERS_TIME),
            )),
            connections: AtomicU64::new(0),
            clock_ahead: Mutex::new(clock_ahead),
        }
    }

    /// The time of day by the service's clock.
    pub(crate) fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        now.checked_add(*self.clock_ahead()).unwrap_or(now)
    }

    pub(crate) fn set_clock_ahead(&self, ahead: Duration) {
        *self.clock_ahead() = ahead;
    }

    fn clock_ahead(&self) -> MutexGuard<'_, Duration> {
        self.clock_ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service; a panic elsewhere does not take it away.
    pub(crate) fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a connection: waits, if need be, for the place of a stranger that has had its time. `None` when every
    /// peer is known.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        /// How long it takes at most, about, until who was sent away is gone.
        const GOING: Duration = Duration::from_millis(100);
        let slot = || self.slots.clone().acquire_owned();
        loop {
            let Some(due) = self.strangers.next_due() else {
                return self.slots.clone().try_acquire_owned().ok();
            };
            tokio::select! {
                biased;
                slot = slot() => return slot.ok(),
                () = tokio::time::sleep_until(due) => {}
            }
            if self.strangers.send_one_away(Instant::now())
                && let Ok(slot) = tokio::time::timeout(GOING, slot()).await
            {
                return slot.ok();
            }
        }
    }

    /// Notes what came of a check of a connection's credential.
    pub(crate) fn checked(
        &self,
        connection: u64,
        registration_id: &str,
        credential: Credential<'_>,
        checked: &Result<Authenticated, ServiceError>,
    ) {
        let (registration_id, method) = (registration_id.to_owned(), credential.method());
        let event = match checked {
            Ok(who) => {
                self.strangers.know(connection);
                let enrolment = who.enrolment.clone();
                EventKind::Authenticated { registration_id, enrolment, method }
            }
            Err(error) => EventKind::AuthenticationFailed {
                registration_id,
                method,
                error_code: error.error_code,
                reason: error.reason.clone(),
            },
        };
        self.recorder.record(connection, event);
    }

    pub(crate) fn script_connections(&self, faults: impl IntoIterator<Item = ConnectionFault>) {
        *self.connection_script() = faults.into_iter().collect();
    }

    fn connection_script(&self) -> MutexGuard<'_, VecDeque<ConnectionFault>> {
        self.connection_faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection with TLS up, as a wire gets it.
pub(crate) struct Connection<S = TlsStream<TcpStream>> {
    pub(crate) id: u64,
    pub(crate) stream: Stream<S>,
    pub(crate) control: Arc<Control>,
    /// What the peer showed in the TLS handshake.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    /// Becomes true when the emulator is to stop.
    pub(crate) stopping: watch::Receiver<bool>,
    /// What goes wrong with it, as far as the wire is concerned.
    pub(crate) fault: ConnectionFault,
}

/// Listens on one port of several addresses.
pub(crate) async fn bind(
    addresses: &[IpAddr],
    port: u16,
) -> Result<(u16, Vec<TcpListener>), (SocketAddr, io::Error)> {
    const LOOPBACK: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    // A port that is free on one address may be taken on another.
    const ATTEMPTS: usize = 16;
    let chosen = !addresses.is_empty();
    let addresses = if chosen { addresses } else { &LOOPBACK };
    let mut attempt = 0;
    loop {
        attempt += 1;
        match bind_each(addresses, port, chosen).await {
            Err((_, error))
                if port == 0 && attempt < ATTEMPTS && error.kind() == io::ErrorKind::AddrInUse => {}
            result => return result,
        }
    }
}

async fn bind_each(
    addresses: &[IpAddr],
    mut port: u16,
    chosen: bool,
) -> Result<(u16, Vec<TcpListener>), (SocketAddr, io::Error)> {
    let mut listeners = Vec::new();
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match listen(address) {
            Ok(listener) => {
                port = listener.local_addr().map_err(|error| (address, error))?.port();
                listeners.push(listener);
            }
            // Many machines have no IPv6. Nobody asked for it, so go on without.
            Err(error)
                if !chosen
                    && address.is_ipv6()
                    && error.kind() != io::ErrorKind::AddrInUse
                    && error.kind() != io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err((address, error)),
        }
    }
    Ok((port, listeners))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    /// Connections that may wait to be accepted; the system drops more.
    const BACKLOG: u32 = 4096;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port that a stopped emulator had is free at once.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until told to stop, brings TLS up, and serves each with the wire's own function.
pub(crate) async fn accept<F, S>(
    listener: TcpListener,
    wire: Wire,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<bool>,
    serve: F,
) where
    F: Fn(Arc<Shared>, Connection) -> S + Clone + Send + 'static,
    S: Future<Output = String> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most often: give connections the time to end.
                tracing::warn!(%error, "a connection could not be accepted");
                // Several at a time, or a flood would win the race against the pauses.
                let now = Instant::now();
                let gone = (0..16).filter(|_| shared.strangers.send_one_away(now)).count();
                tokio::time::sleep(Duration::from_millis(if gone > 0 { 1 } else { 20 })).await;
                continue;
            }
        };
        let id = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let local = tcp.local_addr().unwrap_or(peer);
        shared.recorder.record(id, EventKind::Connected { wire, peer, local });
        let open = Open { shared: shared.clone(), id, control: Arc::default(), reason: None };
        let slot = tokio::select! {
            slot = shared.room() => slot,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let Some(slot) = slot else {
            open.over("too many connections".into());
            continue;
        };
        let stranger = shared.strangers.welcome(id, Instant::now());
        let (stopping, serve) = (stopping.clone(), serve.clone());
        tasks.spawn(async move {
            let _slot = slot;
            let reason = tokio::select! {
                reason = connect(&open, tcp, stopping, serve) => reason,
                () = stranger.sent_away() => "made room for another connection".into(),
            };
            open.over(reason);
        });
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// A connection that is open. Its end is told however it comes.
struct Open {
    shared: Arc<Shared>,
    id: u64,
    control: Arc<Control>,
    /// Why it is over; `None` when it is dropped from outside.
    reason: Option<String>,
}

impl Open {
    fn over(mut self, reason: String) {
        self.reason = Some(reason);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let reason = self.reason.take().unwrap_or_else(|| STOPS.to_owned());
        let (received, sent) = self.control.traffic();
        self.shared.recorder.record(self.id, EventKind::Closed { reason, received, sent });
    }
}

/// One connection from accept to close; says why it is over.
async fn connect<F, S>(
    open: &Open,
    mut tcp: TcpStream,
    mut stopping: watch::Receiver<bool>,
    serve: F,
) -> String
where
    F: Fn(Arc<Shared>, Connection) -> S,
    S: Future<Output = String>,
{
    let Open { shared, id, control, .. } = open;
    let id = *id;
    tcp.set_nodelay(true).ok();
    let fault = shared.connection_script().pop_front().unwrap_or(ConnectionFault::Pass);
    match fault {
        ConnectionFault::CloseOnAccept => return "scripted: closed on accept".into(),
        ConnectionFault::HangOnAccept => {
            swallow(&mut tcp, &mut stopping).await;
            return "scripted: no TLS".into();
        }
        ConnectionFault::GarbageForTls => {
            answer_garbage(&mut tcp).await;
            return "scripted: garbage for TLS".into();
        }
        _ => {}
    }
    let handshake = tokio::time::timeout(shared.limits.handshake_timeout, shared.tls.accept(tcp));
    let tls = tokio::select! {
        handshake = handshake => handshake,
        _ = stopping.wait_for(|stop| *stop) => return STOPS.into(),
    };
    let mut tls = match tls {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tls_failed(shared, id, error.to_string()),
        Err(_) => return tls_failed(shared, id, "the handshake took too long".into()),
    };
    let certificates = tls_established(shared, id, &tls);
    match fault {
        ConnectionFault::CloseAfterTls => return "scripted: closed after TLS".into(),
        ConnectionFault::HangAfterTls => {
            swallow(&mut tls, &mut stopping).await;
            return "scripted: no answer".into();
        }
        _ => {}
    }
    let stream = Stream::new(tls, control.clone(), shared.limits.idle_timeout);
    serve(
        shared.clone(),
        Connection { id, stream, control: control.clone(), certificates, stopping, fault },
    )
    .await
}

fn tls_failed(shared: &Shared, id: u64, reason: String) -> String {
    let closed = format!("TLS failed: {reason}");
    shared.recorder.record(id, EventKind::TlsFailed { reason });
    closed
}

fn tls_established(
    shared: &Shared,
    id: u64,
    tls: &TlsStream<TcpStream>,
) -> Arc<[CertificateDer<'static>]> {
    let (_, session) = tls.get_ref();
    let certificates: Arc<[_]> = session.peer_certificates().unwrap_or_default().to_vec().into();
    let version = session.protocol_version().map(|version| format!("{version:?}"));
    shared.recorder.record(
        id,
        EventKind::TlsEstablished {
            version: version.unwrap_or_default(),
            server_name: session.server_name().map(str::to_owned),
            client_certificates: certificates.len(),
            thumbprint: certificates.first().map(|leaf| Thumbprint::of_der(leaf).to_string()),
        },
    );
    certificates
}

/// Reads and forgets until the peer is gone.
async fn swallow(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    stopping: &mut watch::Receiver<bool>,
) {
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        _ = tokio::io::copy(stream, &mut nowhere) => {}
        _ = stopping.wait_for(|stop| *stop) => {}
    }
}

/// Closes a stream, and reads for a moment what the peer still sends: bytes left unread would turn the close into a
/// reset that eats what was said last.
pub(crate) async fn see_out(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    stopping: &mut watch::Receiver<bool>,
) {
    /// How long a peer may take to hang up.
    const LINGER: Duration = Duration::from_millis(500);
    let goodbye = async {
        if tokio::io::AsyncWriteExt::shutdown(stream).await.is_ok() {
            swallow(stream, stopping).await;
        }
    };
    tokio::time::timeout(LINGER, goodbye).await.ok();
}

/// Answers the first bytes with what is no TLS.
async fn answer_garbage(tcp: &mut TcpStream) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let exchange = async {
        // The hello is read first: bytes left unread would turn the close into a reset that eats the answer.
        let mut hello = [0; 4096];
        let _read = tcp.read(&mut hello).await?;
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
        tcp.shutdown().await
    };
    tokio::time::timeout(Duration::from_secs(1), exchange).await.ok();
}

/// A future of any kind, for tasks of one set.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
