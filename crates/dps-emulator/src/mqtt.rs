//! The MQTT wire of the service, over TLS and over WebSocket.
//! See <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>.
//!
//! [`Conversation`] takes packets in and puts packets out, without a socket; this module moves the bytes and keeps
//! the time.

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

mod codec;
mod conversation;
mod device;
mod fault;

use conversation::{Conversation, Over};
pub use fault::MqttFault;

/// Serves one connection of the MQTT port until it is over; says why it is.
pub(crate) async fn serve<S>(shared: Arc<Shared>, connection: Connection<S>) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Connection { id, stream, control, certificates, stopping, fault } = connection;
    let peer = Peer { id, wire: Wire::Mqtt, shared, control, certificates, fault };
    serve_stream(peer, stream, stopping).await
}

/// Serves one connection over whatever carries it until it is over; says why it is.
pub(crate) async fn serve_stream(
    peer: Peer,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    stopping: watch::Receiver<bool>,
) -> String {
    let mut driver =
        Driver { stream, buffer: Vec::new(), conversation: Conversation::new(peer), stopping };
    match driver.run().await {
        Ok(reason) => reason,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the peer closed".into(),
        Err(error) => format!("MQTT failed: {error}"),
    }
}

struct Driver<S> {
    stream: S,
    /// What came and is not a whole packet yet.
    buffer: Vec<u8>,
    conversation: Conversation,
    stopping: watch::Receiver<bool>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    async fn run(&mut self) -> io::Result<String> {
        // When the last whole packet came: a peer that drips does not win time by it.
        let mut heard = Instant::now();
        loop {
            // One packet at a time: what answers it has gone out before the next one is looked at.
            while let Some(taken) = self.conversation.take(&self.buffer) {
                self.buffer.drain(..taken);
                heard = Instant::now();
                self.stream.write_all(&self.conversation.take_out()).await?;
                self.stream.flush().await?;
                match self.conversation.over() {
                    Some(Over::Properly(reason)) => {
                        let reason = reason.clone();
                        server::see_out(&mut self.stream, &mut self.stopping).await;
                        return Ok(reason);
                    }
                    Some(Over::Cut) => return Ok("scripted".into()),
                    None => {}
                }
            }
            let patience = heard + self.conversation.patience();
            self.buffer.reserve(4096);
            let reason = tokio::select! {
                read = self.stream.read_buf(&mut self.buffer) => match read? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    _ => continue,
                },
                () = sleep_until(patience) => "idle for too long",
                _ = self.stopping.wait_for(|stop| *stop) => STOPS,
            };
            // MQTT 3.1.1 has no word for it: the connection closes.
            server::see_out(&mut self.stream, &mut self.stopping).await;
            return Ok(reason.into());
        }
    }
}
