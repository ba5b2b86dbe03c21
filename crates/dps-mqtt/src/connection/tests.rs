use super::*;
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

/// A stream that counts how often it is written to, and whose flush takes two turns.
struct Counting(DuplexStream, Arc<AtomicUsize>, bool);

/// What a flush counts, as against a write.
const FLUSHED: usize = 1000;

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
        self.2 = !self.2;
        if self.2 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.1.fetch_add(FLUSHED, Ordering::SeqCst);
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn connection(room: usize) -> (Connection, DuplexStream, Arc<AtomicUsize>) {
    let (client, server) = duplex(room);
    let writes = Arc::new(AtomicUsize::new(0));
    let io = Box::new(Counting(client, Arc::clone(&writes), false));
    let first = BytesMut::from(&b"first,"[..]);
    (Connection::new(io, "pump-17".parse().unwrap(), 60, first), server, writes)
}

async fn received(server: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    server.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn all_that_is_to_be_sent_leaves_in_one_write() {
    let (mut connection, mut server, writes) = connection(1024);
    connection.outgoing().extend_from_slice(b"second,");
    connection.outgoing().extend_from_slice(b"third");
    server.write_all(b"\x20\x02\x00\x00").await.unwrap();
    assert!(matches!(connection.next().await, Ok(Incoming::Accepted)));
    assert_eq!(received(&mut server, 18).await, b"first,second,third");
    assert_eq!(writes.load(Ordering::SeqCst), 1 + FLUSHED);
}

#[tokio::test(start_paused = true)]
async fn pings_leave_before_the_time_is_over_and_silence_is_an_end() {
    let (mut connection, mut server, _) = connection(1024);
    connection.outgoing().clear();
    let begin = Instant::now();
    let waiting = tokio::spawn(async move { (connection.next().await.map(|_| ()), connection) });
    assert_eq!(received(&mut server, 2).await, b"\xc0\x00");
    assert_eq!(begin.elapsed().as_secs(), 45);
    server.write_all(b"\x20\x02\x00\x00\xd0\x00").await.unwrap();
    let (heard, mut connection) = waiting.await.unwrap();
    assert!(heard.is_ok() && matches!(connection.next().await, Ok(Incoming::Pong)));
    let waiting = tokio::spawn(async move { connection.next().await.map(|_| ()) });
    assert_eq!(received(&mut server, 2).await, b"\xc0\x00");
    assert_eq!(begin.elapsed().as_secs(), 90);
    // A packet that takes its time is a sign of life.
    server.write_all(b"\x30\x10").await.unwrap();
    assert_eq!(received(&mut server, 2).await, b"\xc0\x00");
    assert_eq!(begin.elapsed().as_secs(), 135);
    let Err(Fault::Lost(error)) = waiting.await.unwrap() else { panic!("an end") };
    assert_eq!((error.kind(), begin.elapsed().as_secs()), (io::ErrorKind::TimedOut, 180));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_cut_short_loses_no_byte() {
    let (mut connection, mut server, writes) = connection(4);
    let mut sent = Vec::new();
    // The room is for four bytes only: each turn is cut in the middle of a write.
    while sent.len() < 6 {
        assert!(!connection.has_ended().await);
        sent.extend(received(&mut server, 2).await);
    }
    assert_eq!(sent, b"first,");
    assert!(
        !connection.has_ended().await && writes.load(Ordering::SeqCst) > FLUSHED,
        "flushed after all"
    );
    for byte in b"\x20\x02\x00\x00" {
        assert!(!connection.has_ended().await, "{byte:?}");
        server.write_all(&[*byte]).await.unwrap();
    }
    assert!(matches!(connection.next().await, Ok(Incoming::Accepted)));
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_said_before_it_closed_is_read_though_nothing_can_be_sent() {
    let (mut connection, mut server, _) = connection(1024);
    server.write_all(b"\x20\x02\x00\x05").await.unwrap();
    drop(server);
    assert!(matches!(connection.next().await, Ok(Incoming::Refused(_))));
    let Err(Fault::Lost(error)) = connection.next().await else { panic!("an end") };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_is_served_and_given_back() {
    let (mut connection, mut server, _) = connection(1024);
    connection.outgoing().clear();
    server.write_all(b"\x20\x02\x00\x00\x32\x05\x00\x01a\x00\x07").await.unwrap();
    let parked = Parked::new(connection);
    assert_eq!(received(&mut server, 4).await, b"\x40\x02\x00\x07");
    assert_eq!(received(&mut server, 2).await, b"\xc0\x00", "kept alive");
    let mut connection = parked.take().await.unwrap();
    assert!(!connection.has_ended().await);
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_that_ends_is_not_given_back_and_a_dropped_one_closes() {
    let (connection, server, _) = connection(1024);
    let parked = Parked::new(connection);
    drop(server);
    catch_up().await;
    assert!(parked.take().await.is_none());

    let (connection, mut server, _) = self::connection(1024);
    drop(Parked::new(connection));
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty() || rest == b"first,", "{rest:?}");
}
