//! A connection that stays, as MQTT and AMQP have it. A protocol gives its [`Conversation`], which knows no socket; this
//! module moves the bytes and keeps the time.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    peer::{Connection, Peer, STOPS},
    stream::see_out,
};

/// So many packets, or frames, may come in a row without a request among them.
pub(super) const MAX_IDLE: u32 = 10_000;

/// Why a session is over that another one took the place of.
const TAKEN_OVER: &str = "the device connected again";

/// One connection as a protocol sees it: bytes in, bytes out.
pub(super) trait Conversation {
    /// The name of the protocol in the reason for an end.
    const NAME: &str;

    fn new(peer: Peer) -> Self;

    /// Takes in the packet at the front of the bytes; says how many bytes it had. `None` when it is not whole.
    fn take(&mut self, bytes: &[u8]) -> Option<usize>;

    /// Whether more may be taken in before what is to be sent has gone out. It may not when the conversation is over.
    fn takes_more(&self) -> bool;

    /// What is to be sent now, or a part of it; empty when all has gone out.
    fn take_out(&mut self) -> Vec<u8>;

    /// Whether it is over once all has gone out; nothing more is taken in then.
    fn over(&mut self) -> Option<Over>;

    /// How long the device may be silent.
    fn patience(&self) -> Duration;

    /// How often the device wants to hear from us.
    fn heartbeat_every(&self) -> Option<Duration> {
        None
    }

    fn put_heartbeat(&mut self) {}

    /// Waits until the device has begun another session in the place of this one.
    async fn is_taken_over(&self) {
        std::future::pending().await
    }

    /// Lets the device go, through no fault of its own.
    fn dismiss(&mut self, reason: &str);
}

/// How a connection ends once all has gone out.
pub(super) enum Over {
    /// In good order, for this reason.
    Properly(String),
    /// By a cut.
    Cut,
}

/// Serves one connection until it is over; says why it is.
pub(super) async fn serve<C, S>(connection: Connection<S>) -> String
where
    C: Conversation,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Connection { peer, stream, stopping } = connection;
    let mut driver = Driver { stream, buffer: Vec::new(), conversation: C::new(peer), stopping };
    match driver.run().await {
        Ok(reason) => reason,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the peer closed".into(),
        Err(error) => format!("{} failed: {error}", C::NAME),
    }
}

struct Driver<C, S> {
    stream: S,
    /// What came and is not a whole packet yet.
    buffer: Vec<u8>,
    conversation: C,
    stopping: watch::Receiver<bool>,
}

impl<C: Conversation, S: AsyncRead + AsyncWrite + Unpin> Driver<C, S> {
    async fn run(&mut self) -> io::Result<String> {
        // When the last whole packet came: a peer that drips does not win time by it.
        let mut heard = Instant::now();
        let mut sent = heard;
        loop {
            let taken = self.take();
            if taken > 0 {
                heard = Instant::now();
            }
            if self.send().await? {
                sent = Instant::now();
            }
            match self.conversation.over() {
                Some(Over::Properly(reason)) => {
                    see_out(&mut self.stream, &mut self.stopping).await;
                    return Ok(reason);
                }
                Some(Over::Cut) => return Ok("scripted".into()),
                None if taken > 0 => {
                    // A device that sends without end leaves the others their turns.
                    tokio::task::yield_now().await;
                    continue;
                }
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
                () = self.conversation.is_taken_over() => self.conversation.dismiss(TAKEN_OVER),
                () = sleep_until(patience) => self.conversation.dismiss("idle for too long"),
                _ = self.stopping.wait_for(|stop| *stop) => self.conversation.dismiss(STOPS),
            }
        }
    }

    /// Takes in all that is whole, so that what came together is answered together; says how many bytes it had.
    fn take(&mut self) -> usize {
        let mut taken = 0;
        while self.conversation.takes_more()
            && let Some(rest) = self.buffer.get(taken..)
            && let Some(size) = self.conversation.take(rest)
        {
            taken += size;
        }
        self.buffer.drain(..taken);
        taken
    }

    /// Sends all that there is to send; whether there was anything.
    async fn send(&mut self) -> io::Result<bool> {
        let mut any = false;
        loop {
            let out = self.conversation.take_out();
            if out.is_empty() {
                return Ok(any);
            }
            self.stream.write_all(&out).await?;
            self.stream.flush().await?;
            any = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends every byte back until one is `q`, what came up to a `c` on its own; `.` is a heartbeat, `!` the end of the session.
    #[derive(Default)]
    struct Echo {
        out: Vec<u8>,
        over: Option<Over>,
    }

    impl Conversation for Echo {
        const NAME: &str = "Echo";

        fn new(_: Peer) -> Self {
            Self::default()
        }

        fn take(&mut self, bytes: &[u8]) -> Option<usize> {
            let byte = bytes.first()?;
            assert!(!self.out.ends_with(b"c"), "the last answer has gone out");
            self.out.push(*byte);
            if *byte == b'q' {
                self.over = Some(Over::Properly("asked to".into()));
            }
            Some(1)
        }

        fn takes_more(&self) -> bool {
            self.over.is_none() && !self.out.ends_with(b"c")
        }

        fn take_out(&mut self) -> Vec<u8> {
            std::mem::take(&mut self.out)
        }

        fn over(&mut self) -> Option<Over> {
            self.over.take()
        }

        fn patience(&self) -> Duration {
            Duration::from_secs(10)
        }

        fn heartbeat_every(&self) -> Option<Duration> {
            Some(Duration::from_secs(3))
        }

        fn put_heartbeat(&mut self) {
            self.out.push(b'.');
        }

        fn dismiss(&mut self, reason: &str) {
            self.out.push(b'!');
            self.over = Some(Over::Properly(reason.to_owned()));
        }
    }

    /// What a device receives that sends these bytes, and why the connection is over.
    async fn heard(says: &[u8], stops: bool) -> (String, String) {
        let (mut device, stream) = tokio::io::duplex(64);
        let (stop, stopping) = watch::channel(stops);
        device.write_all(says).await.unwrap();
        let mut driver =
            Driver { stream, buffer: Vec::new(), conversation: Echo::default(), stopping };
        let mut heard = String::new();
        let (reason, _) = tokio::join!(driver.run(), device.read_to_string(&mut heard));
        drop(stop);
        (heard, reason.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_taken_in_before_what_must_go_out_has_gone_nor_after_the_end() {
        assert_eq!(heard(b"abcbqde", false).await, ("abcbq".into(), "asked to".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_device_hears_that_we_are_there_until_its_time_is_over() {
        assert_eq!(heard(b"", false).await, ("...!".into(), "idle for too long".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_is_dismissed_when_the_emulator_stops() {
        assert_eq!(heard(b"", true).await, ("!".into(), STOPS.into()));
    }
}
