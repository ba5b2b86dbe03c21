//! The AMQP wire of the service, over TLS and over WebSocket.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-overview-v1.0-os.html>.
//!
//! [`Conversation`] takes frames in and puts frames out, without a socket; this module moves the bytes and keeps
//! the time. The frames are made by hand on the library's codec and not by its acceptor: that one can't misbehave
//! as scripts want it, nor answer frames that came together in one flight.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    events::Wire,
    server::{self, Connection, Peer, STOPS, Shared},
};

mod answer;
mod codec;
mod conversation;
mod device;
mod fault;
mod guard;
mod mischief;
mod session;
mod write;

use conversation::{Conversation, Over};
pub use fault::{AmqpFault, InfoRetryAfter};

/// How much goes into the buffer before it is sent.
const HIGH_WATER: usize = 256 * 1024;

/// Serves one connection of the AMQP port until it is over; says why it is.
pub(crate) async fn serve<S>(shared: Arc<Shared>, connection: Connection<S>) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Connection { id, stream, control, certificates, stopping, fault } = connection;
    let peer = Peer { id, wire: Wire::Amqp, shared, control, certificates, fault };
    serve_stream(peer, stream, stopping).await
}

/// Serves one connection over whatever carries it until it is over; says why it is.
pub(crate) async fn serve_stream(
    peer: Peer,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    stopping: watch::Receiver<bool>,
) -> String {
    let control = peer.control.clone();
    let mut driver =
        Driver { stream, buffer: Vec::new(), conversation: Conversation::new(peer), stopping };
    tokio::select! {
        result = driver.run() => match result {
            Ok(reason) => reason,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the peer closed".into(),
            Err(error) => format!("AMQP failed: {error}"),
        },
        () = control.is_cut() => "scripted".into(),
    }
}

struct Driver<S> {
    stream: S,
    /// What came and is not a whole frame yet.
    buffer: Vec<u8>,
    conversation: Conversation,
    stopping: watch::Receiver<bool>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    async fn run(&mut self) -> io::Result<String> {
        let mut heard = Instant::now();
        let mut sent = heard;
        loop {
            // A peer that drips does not win time by it.
            if self.take_in() {
                heard = Instant::now();
            }
            while self.conversation.pump(HIGH_WATER) || !self.conversation.out.is_empty() {
                let out = std::mem::take(&mut self.conversation.out);
                self.stream.write_all(&out).await?;
                self.stream.flush().await?;
                sent = Instant::now();
            }
            match self.conversation.over.take() {
                Some(Over::Properly(reason)) => {
                    server::see_out(&mut self.stream, &mut self.stopping).await;
                    return Ok(reason);
                }
                Some(Over::Cut) => return Ok("scripted".into()),
                None => {}
            }
            let patience = heard + self.conversation.patience();
            let due = self.conversation.heartbeat_every().map(|every| sent + every);
            self.buffer.reserve(4096);
            tokio::select! {
                read = self.stream.read_buf(&mut self.buffer) => if read? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                },
                () = sleep_until(due.unwrap_or(patience)), if due.is_some() => {
                    self.conversation.put_heartbeat();
                }
                () = sleep_until(patience) => self.conversation.dismiss("idle for too long"),
                _ = self.stopping.wait_for(|stop| *stop) => self.conversation.dismiss(STOPS),
            }
        }
    }

    /// Hands over all that is whole; whether anything was.
    fn take_in(&mut self) -> bool {
        let mut rest = self.buffer.as_slice();
        while self.conversation.over.is_none() {
            match self.conversation.take(rest) {
                Some(taken) => rest = rest.get(taken..).unwrap_or_default(),
                None => break,
            }
        }
        let taken = self.buffer.len() - rest.len();
        self.buffer.drain(..taken);
        taken > 0
    }
}
