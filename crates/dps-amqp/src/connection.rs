//! A session over a stream.

use std::{
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::Poll,
    time::{Duration, SystemTime},
};

use dps_connect::{
    Config, Io,
    internal::{Flood, catch_up, greeting},
};
use dps_state_machine::{Error, PeerActivity, Progress, RegistrationId, Response};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    task::coop::consume_budget,
    time::{Instant, sleep_until},
};
use zeroize::Zeroize;

use crate::codec::{self, Body, Failure, Frame, Malformed, Outcome, Protocol, message::Answer};

mod login;
mod sasl;
mod session;
mod tpm;

pub(crate) use sasl::Login;
use session::{Event, Session, Step};

/// How long we wait for the last frames of a service that reads no more.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    /// Bytes that came and are less than a frame.
    buffer: Vec<u8>,
    session: Session,
    last_sent: Instant,
    /// Why writing failed. What the service sent before it stopped reading is still read.
    unsent: Option<io::Error>,
    /// The frames since the last request.
    idle: Flood,
}

/// Why a connection can't go on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It is gone.
    Lost(io::Error),
    /// The service ended it without a refusal.
    Dismissed(String),
    /// What came makes no sense.
    Nonsense(Malformed),
    /// What it says is clear and does not fit us.
    Unfit(Malformed),
    /// Another protocol than AMQP came first, which began so.
    AnotherProtocol(Vec<u8>),
    /// The device can't answer a challenge.
    Credential(Error),
}

impl From<Malformed> for Broken {
    fn from(error: Malformed) -> Self {
        Self::Nonsense(error)
    }
}

/// The result of a start.
pub(crate) enum Started {
    /// Requests can be sent.
    Ready(Box<Connection>),
    /// The service refused.
    Refused(Response),
    /// The service wants SASL first.
    WantsSasl,
}

/// The result of a request.
pub(crate) enum Asked {
    Answer(Answer),
    Refused(Response),
}

impl Connection {
    /// Starts a session: in two flights (one without SASL), or with `pipelined` off step by step.
    pub(crate) async fn start(
        io: Box<dyn Io>,
        config: &Config,
        registration_id: &RegistrationId,
        login: Login,
        pipelined: bool,
    ) -> Result<Started, Broken> {
        let mut this = Self {
            io,
            buffer: Vec::new(),
            session: Session::default(),
            last_sent: Instant::now(),
            unsent: None,
            idle: Flood::default(),
        };
        if let Some(refusal) = this.log_in(login, config.endpoint.host(), pipelined).await? {
            return Ok(Started::Refused(refusal));
        }
        this.session.put_header();
        if pipelined {
            for step in Step::ALL {
                this.session.put(step, config, registration_id);
            }
        }
        if this.header().await? == Protocol::Sasl {
            return Ok(Started::WantsSasl);
        }
        for step in Step::ALL {
            if !pipelined {
                this.session.put(step, config, registration_id);
            }
            while !this.session.is_done(step) {
                if let Some(Event::Gone(what, failure)) = this.event().await? {
                    let quarrels = failure.as_ref().is_some_and(Failure::may_concern_the_start);
                    let failure = failure.filter(|_| !(pipelined && quarrels));
                    return gone(what, failure).map(Started::Refused);
                }
            }
            if let Some(failure) = this.session.open_error() {
                return Ok(Started::Refused(failure.into_response(SystemTime::now())));
            }
        }
        Ok(Started::Ready(Box::new(this)))
    }

    /// Sends a request and waits for its answer. Other messages are accepted and dropped.
    pub(crate) async fn ask(
        &mut self,
        message: Vec<u8>,
        correlation_id: &str,
        progress: &Progress,
    ) -> Result<Asked, Broken> {
        self.session.send(message);
        self.idle = Flood::default();
        let refused = |response| Ok(Asked::Refused(response));
        let (mut acknowledged, mut unmatched) = (false, 0);
        loop {
            progress.saw(match (unmatched, acknowledged) {
                (1.., _) => Some(PeerActivity::UnmatchedAnswers(unmatched)),
                (_, true) => Some(PeerActivity::Acknowledged),
                _ if self.session.has_sent_nothing() => Some(PeerActivity::NoCredit),
                _ => None,
            });
            match self.event().await? {
                Some(Event::Answer(answer)) if answer.answers(correlation_id) => {
                    return Ok(Asked::Answer(answer));
                }
                Some(Event::Outcome(outcome)) => match refusal(outcome) {
                    Some(response) => return refused(response),
                    None => acknowledged = true,
                },
                Some(Event::Gone(what, failure)) => return refused(gone(what, failure)?),
                Some(Event::Answer(_)) => unmatched += 1,
                None => {}
            }
        }
    }

    /// Whether the service may have seen the request that was sent last.
    pub(crate) fn may_have_sent(&self) -> bool {
        !self.session.has_sent_nothing()
    }

    /// Whether another request can follow on it. What came in the meantime is taken in; nothing is waited for.
    pub(crate) async fn is_usable(&mut self) -> bool {
        catch_up().await;
        let idle = self.session.idle_time_out();
        if self.unsent.is_some()
            || !self.session.is_whole()
            || idle.is_some_and(|idle| self.last_sent.elapsed() >= idle)
        {
            return false;
        }
        loop {
            consume_budget().await;
            match self.buffered().map(|frame| frame.map(|frame| self.session.handle(frame))) {
                Ok(Some(Ok(Some(Event::Gone(..))) | Err(_))) | Err(_) => return false,
                Ok(Some(_)) => continue,
                Ok(None) => {}
            }
            let mut chunk = [0; 4096];
            let mut chunk = ReadBuf::new(&mut chunk);
            let read = poll_fn(|cx| {
                Poll::Ready(match Pin::new(&mut self.io).poll_read(cx, &mut chunk) {
                    Poll::Ready(Ok(())) if chunk.filled().is_empty() => Some(false),
                    Poll::Ready(Ok(())) => Some(true),
                    Poll::Ready(Err(_)) => Some(false),
                    Poll::Pending => None,
                })
            });
            match read.await {
                None => return true,
                Some(false) => return false,
                Some(true) => self.buffer.extend(chunk.filled()),
            }
        }
    }

    /// Ends the session and closes the stream. The service's own end of the session is not waited for.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        if self.is_usable().await {
            self.session.put_end_of_session();
            self.flush().await;
            match self.unsent.take() {
                Some(error) => return Err(error),
                None => {
                    // The end of the session is sent: a service that has closed upon it needs no more.
                    if let Err(error) = self.io.shutdown().await {
                        tracing::debug!(%error, "AMQP ended before the stream below was closed");
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what is to be sent, reads one frame, and returns the event that it is, if it is one.
    async fn event(&mut self) -> Result<Option<Event>, Broken> {
        let frame = self.frame().await?;
        Ok(self.session.handle(frame)?)
    }

    async fn frame(&mut self) -> Result<Frame, Broken> {
        self.flush().await;
        loop {
            // A flood of frames leaves other tasks their turns.
            consume_budget().await;
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.read_more().await?;
        }
    }

    fn buffered(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some((frame, size)) = codec::decode(&self.buffer)? else { return Ok(None) };
        self.buffer.drain(..size);
        // The parts of one message are bounded by its size.
        let is_part = matches!(
            &frame.body,
            Body::Transfer { more: true, aborted: false, payload, .. } if !payload.is_empty()
        );
        if !is_part {
            self.idle
                .note(frame.body.name())
                .map_err(|flooded| Malformed::new(flooded.to_string()))?;
        }
        // Its kind only: the peer may have put anything into its reasons.
        tracing::trace!(channel = frame.channel, body = frame.body.name(), "a frame");
        Ok(Some(frame))
    }

    async fn header(&mut self) -> Result<Protocol, Broken> {
        self.flush().await;
        loop {
            let start = self.buffer.get(..codec::AMQP.len()).unwrap_or(&self.buffer);
            if !codec::AMQP.starts_with(start) {
                let heard = greeting(&mut self.io, &self.buffer).await;
                return Err(Broken::AnotherProtocol(heard));
            }
            if let Some((header, _)) = self.buffer.split_first_chunk() {
                let protocol = Protocol::read(*header).map_err(Broken::Unfit)?;
                self.buffer.drain(..header.len());
                return Ok(protocol);
            }
            self.read_more().await?;
        }
    }

    /// Reads once, and meanwhile sends heartbeats as often as the service asks for.
    async fn read_more(&mut self) -> Result<(), Broken> {
        loop {
            let heartbeat = self.session.idle_time_out().map(|idle| self.last_sent + idle / 2);
            let due = match self.unsent {
                Some(_) => Some(self.last_sent + LAST_WORDS),
                None => heartbeat,
            };
            self.buffer.reserve(4096);
            tokio::select! {
                read = self.io.read_buf(&mut self.buffer) => match read {
                    Ok(1..) => return Ok(()),
                    read => {
                        let error = read.err().or_else(|| self.unsent.take());
                        let end = || io::ErrorKind::UnexpectedEof.into();
                        return Err(Broken::Lost(error.unwrap_or_else(end)));
                    }
                },
                () = sleep_until(due.unwrap_or(self.last_sent)), if due.is_some() => {
                    if let Some(error) = self.unsent.take() {
                        return Err(Broken::Lost(error));
                    }
                    self.session.put_heartbeat();
                    self.flush().await;
                }
            }
        }
    }

    async fn flush(&mut self) {
        if self.session.out.is_empty() {
            return;
        }
        let sent = async {
            self.io.write_all(&self.session.out).await?;
            self.io.flush().await
        };
        let sent = sent.await;
        self.session.out.zeroize();
        self.last_sent = Instant::now();
        if let Err(error) = sent {
            self.unsent.get_or_insert(error);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// The meaning of an end by the service: a refusal if its reason is one.
fn gone(what: &'static str, failure: Option<Failure>) -> Result<Response, Broken> {
    match failure {
        Some(failure) if failure.is_loss() => {
            Err(Broken::Dismissed(format!("the {what}, saying {failure}")))
        }
        Some(failure) => Ok(failure.into_response(SystemTime::now())),
        None => Err(Broken::Dismissed(format!("the {what} without a reason"))),
    }
}

/// The refusal that an outcome is, if it is one.
fn refusal(outcome: Outcome) -> Option<Response> {
    Some(match outcome {
        Outcome::Accepted => return None,
        Outcome::Rejected(Some(failure)) => failure.into_response(SystemTime::now()),
        Outcome::Rejected(None) => {
            Response::refusal(400, "the service rejected the request without a reason")
        }
        Outcome::Released => Response::refusal(503, "the service released the request unhandled"),
        Outcome::Modified { undeliverable_here: false } => {
            Response::refusal(503, "the service gave the request back unhandled")
        }
        Outcome::Modified { undeliverable_here: true } => {
            Response::refusal(400, "the service gave the request back: it can't be handled here")
        }
    })
}

#[cfg(test)]
mod tests;
