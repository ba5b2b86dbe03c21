//! One connection that speaks MQTT.

use std::{
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;
use dps_connect::{
    Io,
    internal::{Flood, begins_mqtt, catch_up, greeting},
};
use dps_state_machine::{PeerActivity, RegistrationId};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    select,
    sync::oneshot,
    task::{JoinHandle, coop::consume_budget},
    time::{Instant, sleep_until},
};

use crate::codec::{self, Incoming};

/// How much room is made for what comes, in bytes.
const READ_CHUNK: usize = 4 * 1024;

/// Why nothing more comes.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection broke.
    Lost(io::Error),
    /// What came is no MQTT.
    Unreadable(String),
    /// Another protocol than MQTT came first, which began so.
    AnotherProtocol(Vec<u8>),
}

/// A request that was sent.
struct Sent {
    packet_id: u16,
    acknowledged: bool,
    /// How many answers came meanwhile that belong to no request.
    unmatched: usize,
}

/// A connection, for one device.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    registration_id: RegistrationId,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Something was written and may still be in a buffer below.
    unflushed: bool,
    /// Nothing more can be sent. What the peer sent before that is still read, and says more.
    broken: bool,
    /// Whether the service has accepted the subscription.
    pub(crate) subscribed: bool,
    /// Whether the service has accepted the session.
    accepted: bool,
    /// The request that was sent last.
    request: Option<Sent>,
    /// Whether the service has refused the session: nothing more will come.
    pub(crate) refused: bool,
    /// Whether what came is about the device, the service or the protocol, whatever was sent early: another start would
    /// get it again.
    pub(crate) is_judged: bool,
    last_packet_id: u16,
    ping_every: Duration,
    ping_due: Instant,
    ping_unanswered: bool,
    /// The packets since the last request.
    idle: Flood,
}

impl Connection {
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
            unflushed: false,
            broken: false,
            subscribed: false,
            accepted: false,
            request: None,
            refused: false,
            is_judged: false,
            last_packet_id: 0,
            ping_every,
            ping_due: Instant::now() + ping_every,
            ping_unanswered: false,
            idle: Flood::default(),
        }
    }

    pub(crate) fn registration_id(&self) -> &RegistrationId {
        &self.registration_id
    }

    /// Where packets to send are appended. They leave together, with the next [`Connection::next`] that waits.
    pub(crate) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// A request with this packet id is to be sent.
    pub(crate) fn note_request(&mut self, packet_id: u16) {
        self.request = Some(Sent { packet_id, acknowledged: false, unmatched: 0 });
        self.idle = Flood::default();
    }

    pub(crate) fn note_acknowledgement(&mut self, packet_id: u16) {
        if let Some(request) = self.request.as_mut().filter(|sent| sent.packet_id == packet_id) {
            request.acknowledged = true;
        }
    }

    pub(crate) fn note_unmatched_answer(&mut self) {
        if let Some(request) = &mut self.request {
            request.unmatched += 1;
        }
    }

    /// Whether a request may have been sent.
    pub(crate) fn has_sent_a_request(&self) -> bool {
        self.request.is_some()
    }

    /// Whether the service has acknowledged the request that was sent last.
    pub(crate) fn acknowledged(&self) -> bool {
        self.request.as_ref().is_some_and(|sent| sent.acknowledged)
    }

    /// What the service did while the request waits for its answer.
    pub(crate) fn activity(&self) -> Option<PeerActivity> {
        match self.request.as_ref()? {
            Sent { unmatched: count @ 1.., .. } => Some(PeerActivity::UnmatchedAnswers(*count)),
            Sent { acknowledged: true, .. } => Some(PeerActivity::Acknowledged),
            Sent { .. } => None,
        }
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
            // A flood of packets leaves other tasks their turns.
            consume_budget().await;
            // This is an error at once: what is no MQTT may look like a long packet that never ends.
            if !self.accepted && !begins_mqtt(&self.incoming) {
                self.is_judged = true;
                let heard = greeting(&mut self.io, &self.incoming).await;
                return Err(Fault::AnotherProtocol(heard));
            }
            if let Some(packet) = codec::read(&mut self.incoming)
                .map_err(|error| Fault::Unreadable(error.to_string()))?
            {
                self.idle
                    .note(packet.name())
                    .map_err(|flooded| Fault::Unreadable(flooded.to_string()))?;
                match &packet {
                    Incoming::Accepted => self.accepted = true,
                    Incoming::Subscribed => self.subscribed = true,
                    Incoming::Disconnected(reason) => {
                        self.is_judged =
                            reason.is_some_and(|code| !codec::reason::may_concern_the_start(code));
                        return Err(Fault::Lost(io::Error::other(codec::disconnection(*reason))));
                    }
                    _ => codec::reply(&mut self.outgoing, &packet),
                }
                return Ok(packet);
            }
            self.send().await;
            self.incoming.reserve(READ_CHUNK);
            select! {
                biased;
                read = self.io.read_buf(&mut self.incoming) => match read {
                    Ok(0) => return Err(Fault::Lost(io::ErrorKind::UnexpectedEof.into())),
                    // Any byte counts: an answer that comes slowly keeps the answer to a ping waiting.
                    Ok(_) => self.ping_unanswered = false,
                    Err(error) => return Err(Fault::Lost(error)),
                },
                () = sleep_until(self.ping_due) => {
                    if self.ping_unanswered {
                        let error = "it does not answer pings";
                        return Err(Fault::Lost(io::Error::new(io::ErrorKind::TimedOut, error)));
                    }
                    tracing::debug!("keeping MQTT alive");
                    codec::ping(&mut self.outgoing);
                    self.idle.expect_one();
                    self.ping_unanswered = true;
                }
            }
        }
    }

    /// Whether the connection has ended by now.
    pub(crate) async fn has_ended(&mut self) -> bool {
        catch_up().await;
        let mut now = Context::from_waker(Waker::noop());
        loop {
            match pin!(self.next()).poll(&mut now) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// Sends what is to be sent. A failure is reported once nothing more can be read.
    async fn send(&mut self) {
        if self.broken || self.outgoing.is_empty() && !self.unflushed {
            return;
        }
        if let Err(error) = self.write().await {
            tracing::debug!(%error, "MQTT can't be sent any more");
            self.broken = true;
        }
        self.ping_due = Instant::now() + self.ping_every;
    }

    async fn write(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            if self.io.write_buf(&mut self.outgoing).await? == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.unflushed = true;
        }
        self.io.flush().await?;
        self.unflushed = false;
        Ok(())
    }

    /// Ends the session and closes. A peer that is gone already needs no end of the session.
    pub(crate) async fn close(mut self) {
        codec::disconnect(&mut self.outgoing);
        self.send().await;
        if let Err(error) = self.io.shutdown().await {
            tracing::debug!(%error, "MQTT ended without an end of the session");
        }
    }
}

/// A connection between two requests: a task answers pings, keeps it alive and sees when it ends.
pub(crate) struct Parked {
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Option<Connection>>,
}

impl Parked {
    pub(crate) fn new(mut connection: Connection) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let ended = async { while connection.next().await.is_ok() {} };
            select! {
                // First: an end of the session that follows at once takes along what is to be sent.
                biased;
                _ = stopped => Some(connection),
                () = ended => {
                    tracing::debug!("MQTT has ended between two requests");
                    None
                }
            }
        });
        Self { stop: Some(stop), task }
    }

    /// The connection, if it still stands.
    pub(crate) async fn take(mut self) -> Option<Connection> {
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
mod tests;
