//! A path with a delay: every byte takes half a round trip each way, and is counted.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::Result;

/// Relays connections to one address until the program ends.
pub(crate) struct SlowPath {
    pub(crate) port: u16,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
}

impl SlowPath {
    /// Listens on a free port of the loopback.
    pub(crate) fn to(server: SocketAddr, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let (up, down) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (Arc::clone(&up), Arc::clone(&down));
        thread::spawn(move || {
            for client in listener.incoming().map_while(|client| client.ok()) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                relay(client, server, round_trip / 2, Arc::clone(&counters.0));
                relay(server2, client2, round_trip / 2, Arc::clone(&counters.1));
            }
        });
        Ok(Self { port, up, down })
    }

    /// The bytes that went up and down since the last call.
    pub(crate) fn take_bytes(&self) -> (u64, u64) {
        (self.up.swap(0, Ordering::SeqCst), self.down.swap(0, Ordering::SeqCst))
    }
}

/// Each chunk leaves as long after it came as the delay says, in order.
fn relay(mut from: TcpStream, mut to: TcpStream, delay: Duration, counter: Arc<AtomicU64>) {
    let _ = to.set_nodelay(true);
    let (queue, chunks) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count) = from.read(&mut buffer) {
            let chunk = buffer.get(..count).unwrap_or_default().to_vec();
            if count == 0 || queue.send((Instant::now() + delay, chunk)).is_err() {
                break;
            }
            counter.fetch_add(count as u64, Ordering::SeqCst);
        }
    });
    thread::spawn(move || {
        for (due, chunk) in chunks {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&chunk).is_err() {
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
