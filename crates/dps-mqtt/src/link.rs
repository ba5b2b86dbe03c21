//! One connection that speaks MQTT.

use std::{
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;
#[cfg(feature = "websocket")]
use dps_connect::{
    failure,
    websocket::{Violation, WsBytes},
};
use dps_state_machine::RegistrationId;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    select,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::codec::{self, Incoming};

/// How much room is made for what comes, in bytes.
const READ_CHUNK: usize = 4 * 1024;

/// A stream of bytes to the service.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// What the peer said when it closed.
    fn close_reason(&self) -> Option<&str> {
        None
    }
}

impl Io for dps_connect::Stream {}

#[cfg(feature = "websocket")]
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for WsBytes<S> {
    fn close_reason(&self) -> Option<&str> {
        Self::close_reason(self)
    }
}

/// Why nothing more comes.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection broke; beside it what the peer said, if it said something.
    Lost(io::Error, Option<String>),
    /// What came is no MQTT.
    Unreadable(String),
}

/// A connection, for one device.
pub(crate) struct Link {
    io: Box<dyn Io>,
    registration_id: RegistrationId,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// The write that failed. What the peer sent before that is still read.
    broken: Option<io::Error>,
    /// Whether any packet has come.
    pub(crate) heard: bool,
    /// Whether the service has accepted the session.
    accepted: bool,
    /// Whether a request may have been sent.
    pub(crate) asked: bool,
    /// Whether the service has refused to talk: nothing more will come.
    pub(crate) refused: bool,
    last_packet_id: u16,
    ping_every: Duration,
    ping_due: Instant,
    ping_unanswered: bool,
}

impl Link {
    /// Takes a stream on which nothing was sent yet, and what is to be sent first. The keep-alive is in seconds.
    pub(crate) fn new(
        io: Box<dyn Io>,
        registration_id: RegistrationId,
        keep_alive: u16,
        outgoing: BytesMut,
    ) -> Self {
        // Early enough to be on time after a slow way.
        let ping_every = Duration::from_secs(u64::from(keep_alive)) * 3 / 4;
        Self {
            io,
            registration_id,
            incoming: BytesMut::new(),
            outgoing,
            broken: None,
            heard: false,
            accepted: false,
            asked: false,
            refused: false,
            last_packet_id: 0,
            ping_every,
            ping_due: Instant::now() + ping_every,
            ping_unanswered: false,
        }
    }

    pub(crate) fn registration_id(&self) -> &RegistrationId {
        &self.registration_id
    }

    /// Where packets to send are appended. They leave together, with the next [`Link::next`] that waits.
    pub(crate) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// A packet id that no packet under way has.
    pub(crate) fn packet_id(&mut self) -> u16 {
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
        self.last_packet_id
    }

    /// The next packet. Sends what is to be sent, acknowledges deliveries and keeps the connection alive. Nothing
    /// is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Result<Incoming, Fault> {
        loop {
            // Told at once: what is no MQTT may look like a long packet that never ends.
            let first = self.incoming.first();
            if !self.accepted && first.is_some_and(|first| *first != codec::CONNACK) {
                let what = "it is not MQTT, which begins with CONNACK";
                return Err(Fault::Unreadable(what.to_owned()));
            }
            if let Some(packet) = codec::read(&mut self.incoming)
                .map_err(|error| Fault::Unreadable(error.to_string()))?
            {
                self.heard = true;
                match &packet {
                    Incoming::Accepted => self.accepted = true,
                    Incoming::Pong => self.ping_unanswered = false,
                    Incoming::Disconnected => {
                        return Err(self.lost(io::Error::other("it sent DISCONNECT")));
                    }
                    Incoming::Delivery(delivery) => {
                        if let Some(packet_id) = delivery.packet_id() {
                            codec::acknowledge(&mut self.outgoing, packet_id);
                        }
                    }
                    _ => {}
                }
                return Ok(packet);
            }
            self.send().await;
            self.incoming.reserve(READ_CHUNK);
            select! {
                read = self.io.read_buf(&mut self.incoming) => match read {
                    Ok(0) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {}
                    Err(error) => return Err(self.lost(error)),
                },
                () = sleep_until(self.ping_due) => {
                    if self.ping_unanswered {
                        let error = "it does not answer pings";
                        return Err(self.lost(io::Error::new(io::ErrorKind::TimedOut, error)));
                    }
                    tracing::debug!("keeping MQTT alive");
                    codec::ping(&mut self.outgoing);
                    self.ping_unanswered = true;
                }
            }
        }
    }

    /// Whether the connection has ended by now.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut now = Context::from_waker(Waker::noop());
        loop {
            match pin!(self.next()).poll(&mut now) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Sends what is to be sent. A failure is told once nothing more can be read.
    async fn send(&mut self) {
        if self.outgoing.is_empty() || self.broken.is_some() {
            return;
        }
        if let Err(error) = self.write().await {
            self.broken = Some(error);
        }
        self.ping_due = Instant::now() + self.ping_every;
    }

    async fn write(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            if self.io.write_buf(&mut self.outgoing).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        self.io.flush().await
    }

    fn lost(&mut self, error: io::Error) -> Fault {
        #[cfg(feature = "websocket")]
        if let Some(what) = failure::find::<Violation>(&error) {
            return Fault::Unreadable(what.to_string());
        }
        let said = self.io.close_reason().map(str::to_owned);
        Fault::Lost(self.broken.take().unwrap_or(error), said)
    }

    /// Says goodbye and closes. A peer that is gone already needs no goodbye.
    pub(crate) async fn close(mut self) {
        codec::disconnect(&mut self.outgoing);
        self.send().await;
        let closed = match self.broken.take() {
            Some(error) => Err(error),
            None => self.io.shutdown().await,
        };
        if let Err(error) = closed {
            tracing::debug!(%error, "MQTT ended without a goodbye");
        }
    }
}

/// A connection between two requests: a task answers pings, keeps it alive and sees when it ends.
pub(crate) struct Parked {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Option<Link>>,
}

impl Parked {
    pub(crate) fn new(mut link: Link) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let ended = async { while link.next().await.is_ok() {} };
            select! {
                // First: a goodbye that follows at once takes along what is to be sent.
                biased;
                _ = stopped => Some(link),
                () = ended => {
                    tracing::debug!("MQTT has ended between two requests");
                    None
                }
            }
        });
        Self { stop: Some(stop), task }
    }

    /// The connection, if it still stands.
    pub(crate) async fn take(mut self) -> Option<Link> {
        // The task may be at its end already.
        let _ = self.stop.take().map(|stop| stop.send(()));
        (&mut self.task).await.ok().flatten()
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };
    use tokio::io::{DuplexStream, ReadBuf, duplex};

    /// A stream that counts how often it is written to.
    struct Counting(DuplexStream, Arc<AtomicUsize>);

    impl Io for Counting {}

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buffer)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut self.0).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    fn link(room: usize) -> (Link, DuplexStream, Arc<AtomicUsize>) {
        let (client, server) = duplex(room);
        let writes = Arc::new(AtomicUsize::new(0));
        let io = Box::new(Counting(client, Arc::clone(&writes)));
        let first = BytesMut::from(&b"first,"[..]);
        (Link::new(io, "pump-17".parse().unwrap(), 60, first), server, writes)
    }

    async fn received(server: &mut DuplexStream, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        server.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_is_to_be_sent_leaves_in_one_write() {
        let (mut link, mut server, writes) = link(1024);
        link.outgoing().extend_from_slice(b"second,");
        link.outgoing().extend_from_slice(b"third");
        server.write_all(b"\x20\x02\x00\x00").await.unwrap();
        assert!(matches!(link.next().await, Ok(Incoming::Accepted)));
        assert_eq!(received(&mut server, 18).await, b"first,second,third");
        assert_eq!(writes.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn pings_leave_before_the_time_is_over_and_silence_is_an_end() {
        let (mut link, mut server, _) = link(1024);
        link.outgoing().clear();
        let begin = Instant::now();
        let waiting = tokio::spawn(async move { (link.next().await.map(|_| ()), link) });
        assert_eq!(received(&mut server, 2).await, b"\xc0\x00");
        assert_eq!(begin.elapsed().as_secs(), 45);
        server.write_all(b"\x20\x02\x00\x00\xd0\x00").await.unwrap();
        let (heard, mut link) = waiting.await.unwrap();
        assert!(heard.is_ok() && matches!(link.next().await, Ok(Incoming::Pong)));
        let waiting = tokio::spawn(async move { link.next().await.map(|_| ()) });
        assert_eq!(received(&mut server, 2).await, b"\xc0\x00");
        assert_eq!(begin.elapsed().as_secs(), 90);
        let Err(Fault::Lost(error, None)) = waiting.await.unwrap() else { panic!("an end") };
        assert_eq!((error.kind(), begin.elapsed().as_secs()), (io::ErrorKind::TimedOut, 135));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_cut_short_loses_no_byte() {
        let (mut link, mut server, _) = link(4);
        let mut sent = Vec::new();
        // The room is for four bytes only: each turn is cut in the middle of a write.
        while sent.len() < 6 {
            assert!(!link.has_ended());
            sent.extend(received(&mut server, 2).await);
        }
        assert_eq!(sent, b"first,");
        for byte in b"\x20\x02\x00\x00" {
            assert!(!link.has_ended());
            server.write_all(&[*byte]).await.unwrap();
        }
        assert!(matches!(link.next().await, Ok(Incoming::Accepted)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_peer_said_before_it_closed_is_read_though_nothing_can_be_sent() {
        let (mut link, mut server, _) = link(1024);
        server.write_all(b"\x20\x02\x00\x05").await.unwrap();
        drop(server);
        assert!(matches!(link.next().await, Ok(Incoming::Refused(_))));
        let Err(Fault::Lost(error, None)) = link.next().await else { panic!("an end") };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_connection_is_served_and_given_back() {
        let (mut link, mut server, _) = link(1024);
        link.outgoing().clear();
        server.write_all(b"\x20\x02\x00\x00\x32\x05\x00\x01a\x00\x07").await.unwrap();
        let parked = Parked::new(link);
        assert_eq!(received(&mut server, 4).await, b"\x40\x02\x00\x07");
        assert_eq!(received(&mut server, 2).await, b"\xc0\x00", "kept alive");
        assert!(parked.take().await.is_some_and(|mut link| !link.has_ended()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_parked_connection_that_ends_is_not_given_back_and_a_dropped_one_closes() {
        let (link, server, _) = link(1024);
        let parked = Parked::new(link);
        drop(server);
        tokio::task::yield_now().await;
        assert!(parked.take().await.is_none_or(|mut link| link.has_ended()));

        let (link, mut server, _) = self::link(1024);
        drop(Parked::new(link));
        let mut rest = Vec::new();
        server.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty() || rest == b"first,", "{rest:?}");
    }
}
