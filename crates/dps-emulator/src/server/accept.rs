//! One connection from accept to close: a place among the others, TLS, and the protocol that is spoken over it.

use std::{sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};
use tokio_rustls::server::TlsStream;

use super::{
    Shared,
    peer::{Connection, Peer, STOPS},
    protocol,
    stream::{Control, Stream, see_out, swallow},
    unauthenticated::Place,
};
use crate::{
    behavior::ConnectionFault,
    core::{
        Caller,
        events::{EventKind, Transport},
    },
    keys::Thumbprint,
};

/// The type of the record that begins TLS, and the alert that answers any other.
/// See <https://www.rfc-editor.org/rfc/rfc8446#section-5.1>.
const HANDSHAKE: u8 = 22;
const UNEXPECTED_MESSAGE: [u8; 7] = [21, 3, 3, 0, 2, 2, 10];

/// Accepts connections until the emulator stops, brings TLS up, and serves each in the protocol of the port.
pub(crate) async fn accept(
    listener: TcpListener,
    transport: Transport,
    shared: Arc<Shared>,
    mut stopping: watch::Receiver<bool>,
) {
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
                let gone = (0..16).filter(|_| shared.unauthenticated.close_first(now)).count();
                tokio::time::sleep(Duration::from_millis(if gone > 0 { 1 } else { 20 })).await;
                continue;
            }
        };
        let id = shared.next_connection();
        let local = tcp.local_addr().unwrap_or(peer);
        shared.core.record(id, EventKind::Connected { transport, peer, local });
        let open =
            Open { shared: shared.clone(), id, transport, control: Arc::default(), reason: None };
        let slot = tokio::select! {
            slot = shared.room() => slot,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let Some(slot) = slot else {
            open.over("too many connections".into());
            continue;
        };
        let place = shared.unauthenticated.enter(id, Instant::now());
        let stopping = stopping.clone();
        tasks.spawn(async move {
            let _slot = slot;
            let reason = tokio::select! {
                reason = connect(&open, &place, tcp, stopping) => reason,
                () = place.is_needed() => "made room for another connection".into(),
            };
            open.over(reason);
        });
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
}

/// A connection that is open. Its end is recorded however it comes.
struct Open {
    shared: Arc<Shared>,
    id: u64,
    transport: Transport,
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
        self.shared.core.record(self.id, EventKind::Closed { reason, received, sent });
    }
}

/// One connection from accept to close; says why it is over.
async fn connect(
    open: &Open,
    place: &Place,
    mut tcp: TcpStream,
    mut stopping: watch::Receiver<bool>,
) -> String {
    let Open { shared, id, transport, control, .. } = open;
    let (id, transport) = (*id, *transport);
    tcp.set_nodelay(true).ok();
    let fault = shared.next_fault();
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
    let mut first = [0];
    let handshake = async {
        if tcp.peek(&mut first).await? == 1 && first != [HANDSHAKE] {
            return Ok(Err(tcp));
        }
        shared.tls.accept(tcp).await.map(Ok)
    };
    let handshake = tokio::time::timeout(shared.limits.handshake_timeout, handshake);
    let tls = tokio::select! {
        handshake = handshake => handshake,
        _ = stopping.wait_for(|stop| *stop) => return STOPS.into(),
    };
    // On the heap, since it is large and all that serves the connection is moved with it.
    let mut tls = match tls {
        Ok(Ok(Ok(tls))) => Box::new(tls),
        Ok(Ok(Err(mut tcp))) => {
            let [first] = first;
            let closed = tls_failed(shared, id, format!("the first byte is {first:#04x}, not TLS"));
            // Few bytes: the system has room for them.
            tcp.try_write(&UNEXPECTED_MESSAGE).ok();
            see_out(&mut tcp, &mut stopping).await;
            return closed;
        }
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
    let is_known = place.is_known.clone();
    let caller = Caller::new(shared.core.clone(), id, transport, certificates, is_known);
    let peer = Peer { caller, control: control.clone(), limits: shared.limits, fault };
    protocol::serve(Connection { peer, stream, stopping }).await
}

fn tls_failed(shared: &Shared, id: u64, reason: String) -> String {
    let closed = format!("TLS failed: {reason}");
    shared.core.record(id, EventKind::TlsFailed { reason });
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
    shared.core.record(
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

/// Answers the first bytes with what is no TLS.
async fn answer_garbage(tcp: &mut TcpStream) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let exchange = async {
        // The hello is read first: bytes left unread would turn the close into a reset that eats the answer.
        let mut hello = vec![0; 4096];
        let _read = tcp.read(&mut hello).await?;
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await?;
        tcp.shutdown().await
    };
    tokio::time::timeout(Duration::from_secs(1), exchange).await.ok();
}
