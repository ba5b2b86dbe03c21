//! One session with its two links, as both sides see it. It knows no socket and no clock: frames come in, frames
//! go out into a buffer.

use std::time::Duration;

use dps_connect::Config;
use dps_state_machine::RegistrationId;
use zeroize::Zeroizing;

use crate::codec::{
    self, AMQP_HEADER, Body, Failure, Frame, Malformed, Outcome, Position, RECEIVER, SENDER,
    message::{Answer, MAX_ANSWER_BYTES, too_large},
};

/// How many answers the service may send before it is given more credit.
const CREDIT: u32 = 16;
/// How large the sections of a message besides its body may be, in bytes.
const MAX_EXTRA_BYTES: usize = 64 * 1024;

/// What a frame means for the exchange that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A message came.
    Answer(Answer),
    /// What became of the request that was sent last.
    Outcome(Outcome),
    /// The service ended this part of the connection, for this reason.
    Gone(&'static str, Option<Failure>),
}

/// How many transfers were sent and may come.
#[derive(Debug, Default)]
struct Window {
    position: Position,
    /// How many transfers the service takes.
    outgoing: u32,
    /// How many transfers have come since the service last received our window.
    since_last_flow: u32,
}

#[derive(Debug, Default)]
struct Link {
    /// The service's number for it, once it is attached.
    theirs: Option<u32>,
    delivery_count: u32,
    credit: u32,
}

/// A message that comes in parts.
#[derive(Debug)]
struct Partial {
    delivery_id: u32,
    settled: bool,
    payload: Vec<u8>,
}

/// A message that goes out in parts.
#[derive(Debug)]
struct Sending {
    delivery_id: u32,
    message: Vec<u8>,
    sent: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// What is to be sent. A token may be in it.
    pub(crate) out: Zeroizing<Vec<u8>>,
    open: Option<Opened>,
    begun: bool,
    window: Window,
    requests: Link,
    answers: Link,
    partial: Option<Partial>,
    sending: Option<Sending>,
    deliveries: u32,
    /// The service ended a link, the session or the connection.
    gone: bool,
}

#[derive(Debug)]
struct Opened {
    max_frame_size: u32,
    idle_time_out: Option<Duration>,
    open_error: Option<Failure>,
}

/// The steps of a start, each of which the service answers with its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Open,
    Begin,
    Attach,
}

impl Step {
    pub(crate) const ALL: [Self; 3] = [Self::Open, Self::Begin, Self::Attach];
}

impl Session {
    pub(crate) fn put_header(&mut self) {
        self.out.extend(AMQP_HEADER);
    }

    /// Puts what a step says into the buffer.
    pub(crate) fn put(&mut self, step: Step, config: &Config, registration_id: &RegistrationId) {
        let out = &mut self.out;
        match step {
            Step::Open => codec::open(out, registration_id.as_str(), config.endpoint.host()),
            Step::Begin => codec::begin(out, &self.window.position),
            Step::Attach => {
                let address = format!("{}/registrations/{registration_id}", config.id_scope);
                let properties = [
                    ("com.microsoft:api-version", config.api_version.as_str()),
                    ("com.microsoft:client-version", config.user_agent.as_str()),
                ];
                codec::attach_sender(out, &address, properties);
                codec::attach_receiver(out, &address, properties);
                self.put_credit();
            }
        }
    }

    /// Whether the service has answered a step.
    pub(crate) fn is_done(&self, step: Step) -> bool {
        match step {
            Step::Open => self.open.is_some(),
            Step::Begin => self.begun,
            Step::Attach => self.requests.theirs.is_some() && self.answers.theirs.is_some(),
        }
    }

    /// After how long without a frame from us the service closes the connection, if it does.
    pub(crate) fn idle_time_out(&self) -> Option<Duration> {
        self.open.as_ref()?.idle_time_out.filter(|time| !time.is_zero())
    }

    /// Why the service refused the connection while it opened it.
    pub(crate) fn open_error(&mut self) -> Option<Failure> {
        self.open.as_mut()?.open_error.take()
    }

    /// Sends a message as soon as the service gives credit for it.
    pub(crate) fn send(&mut self, message: Vec<u8>) {
        let delivery_id = self.deliveries;
        self.deliveries = self.deliveries.wrapping_add(1);
        self.sending = Some(Sending { delivery_id, message, sent: 0 });
        self.pump();
    }

    /// Whether another message can be sent: all of it is there, and the one before has gone out whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.sending.is_none() && !self.gone
    }

    /// Whether nothing of the message that is to be sent has gone out.
    pub(crate) fn has_sent_nothing(&self) -> bool {
        self.sending.as_ref().is_some_and(|sending| sending.sent == 0)
    }

    pub(crate) fn put_heartbeat(&mut self) {
        codec::heartbeat(&mut self.out);
    }

    pub(crate) fn put_end_of_session(&mut self) {
        codec::detach(&mut self.out, SENDER);
        codec::detach(&mut self.out, RECEIVER);
        codec::close(&mut self.out);
    }

    /// Takes in a frame.
    pub(crate) fn handle(
        &mut self,
        Frame { channel: _, body }: Frame,
    ) -> Result<Option<Event>, Malformed> {
        match body {
            Body::Open { max_frame_size, idle_time_out, open_error } => {
                // Smaller frames are against the standard; a size of nothing would never get anything sent.
                let max_frame_size = max_frame_size.max(512);
                self.open = Some(Opened { max_frame_size, idle_time_out, open_error });
            }
            Body::Begin { next_outgoing_id, incoming_window } => {
                self.begun = true;
                self.window.position.next_incoming_id = Some(next_outgoing_id);
                self.window.outgoing = incoming_window;
                self.pump();
            }
            Body::Attach { name, handle, .. } if name == SENDER.1 => {
                self.requests.theirs = Some(handle);
            }
            Body::Attach { name, handle, delivery_count } if name == RECEIVER.1 => {
                self.answers.theirs = Some(handle);
                self.answers.delivery_count = delivery_count;
            }
            Body::Flow { .. } => self.handle_flow(&body),
            Body::Transfer { .. } => return self.handle_transfer(body),
            Body::Disposition { of_ours: true, first, last, outcome: Some(outcome) } => {
                let ours = self.deliveries.wrapping_sub(1);
                let covered = ours.wrapping_sub(first) <= last.wrapping_sub(first);
                return Ok(covered.then_some(Event::Outcome(outcome)));
            }
            Body::Detach { handle, failure } => {
                let link = self.link_name(handle);
                return Ok(link.map(|link| self.lose(link, failure)));
            }
            Body::End { failure } => return Ok(Some(self.lose("session", failure))),
            Body::Close { failure } => {
                let failure = failure.or_else(|| self.open_error());
                return Ok(Some(self.lose("connection", failure)));
            }
            Body::Mechanisms(_) | Body::Challenge(_) | Body::SaslOutcome { .. } => {
                return Err(Malformed::new("a frame of SASL's after its end"));
            }
            _ => {}
        }
        Ok(None)
    }

    fn lose(&mut self, what: &'static str, failure: Option<Failure>) -> Event {
        self.gone = true;
        Event::Gone(what, failure)
    }

    fn link_name(&self, handle: u32) -> Option<&'static str> {
        match Some(handle) {
            theirs if theirs == self.requests.theirs => Some("link for requests"),
            theirs if theirs == self.answers.theirs => Some("link for answers"),
            _ => None,
        }
    }

    fn handle_flow(&mut self, flow: &Body) {
        let Body::Flow {
            handle,
            next_incoming_id,
            incoming_window,
            delivery_count,
            link_credit,
            drain,
            echo,
        } = *flow
        else {
            return;
        };
        // Until the service has begun its session it counts from where we began: at 0.
        let sent =
            self.window.position.next_outgoing_id.wrapping_sub(next_incoming_id.unwrap_or(0));
        self.window.outgoing = incoming_window.saturating_sub(sent);
        let is_ours = handle.is_some() && handle == self.requests.theirs;
        if is_ours {
            let seen = delivery_count.unwrap_or(0);
            let in_flight = self.requests.delivery_count.wrapping_sub(seen);
            self.requests.credit = link_credit.saturating_sub(in_flight);
        }
        self.pump();
        if is_ours && drain {
            let link = &mut self.requests;
            link.delivery_count = link.delivery_count.wrapping_add(link.credit);
            link.credit = 0;
        }
        if drain || echo {
            let requests = (SENDER.0, Some(self.requests.delivery_count), self.requests.credit);
            codec::flow(&mut self.out, &self.window.position, is_ours.then_some(requests));
        }
    }

    fn handle_transfer(&mut self, transfer: Body) -> Result<Option<Event>, Malformed> {
        let Body::Transfer { handle, delivery_id, settled, more, aborted, payload } = transfer
        else {
            return Ok(None);
        };
        self.window.position.next_incoming_id =
            self.window.position.next_incoming_id.map(|id| id.wrapping_add(1));
        self.window.since_last_flow = self.window.since_last_flow.saturating_add(1);
        if self.answers.theirs != Some(handle) {
            return Err(Malformed::new("a message came by a link that brings none"));
        }
        let mut partial = match self.partial.take() {
            Some(partial) => partial,
            None => Partial {
                delivery_id: delivery_id
                    .ok_or_else(|| Malformed::new("a message has no number"))?,
                settled: false,
                payload: Vec::new(),
            },
        };
        partial.settled |= settled;
        if partial.payload.len() + payload.len() > MAX_ANSWER_BYTES + MAX_EXTRA_BYTES {
            return Err(too_large());
        }
        partial.payload.extend(payload);
        if more && !aborted {
            self.partial = Some(partial);
            if self.window.since_last_flow > Position::INCOMING / 2 {
                self.put_credit();
            }
            return Ok(None);
        }
        self.answers.delivery_count = self.answers.delivery_count.wrapping_add(1);
        self.answers.credit = self.answers.credit.saturating_sub(1);
        if !partial.settled && !aborted {
            codec::accept(&mut self.out, partial.delivery_id);
        }
        if self.answers.credit <= CREDIT / 2 {
            self.put_credit();
        }
        if aborted { Ok(None) } else { Answer::read(&partial.payload).map(Event::Answer).map(Some) }
    }

    /// Lets the service send answers again.
    fn put_credit(&mut self) {
        self.answers.credit = CREDIT;
        self.window.since_last_flow = 0;
        // Before the service has attached the link nobody but the service knows its count.
        let seen = self.answers.theirs.map(|_| self.answers.delivery_count);
        codec::flow(&mut self.out, &self.window.position, Some((RECEIVER.0, seen, CREDIT)));
    }

    /// Sends what the service has room for.
    fn pump(&mut self) {
        let (Some(open), true) = (&self.open, self.begun) else { return };
        while let Some(sending) = &mut self.sending
            && self.window.outgoing > 0
            && (sending.sent > 0 || self.requests.credit > 0)
        {
            let first = sending.sent == 0;
            let left = sending.message.get(sending.sent..).unwrap_or_default();
            let rest = codec::transfer(
                &mut self.out,
                sending.delivery_id,
                first,
                left,
                open.max_frame_size,
            );
            sending.sent = sending.message.len() - rest.len();
            let done = rest.is_empty();
            self.window.outgoing -= 1;
            self.window.position.next_outgoing_id =
                self.window.position.next_outgoing_id.wrapping_add(1);
            if first {
                self.requests.credit -= 1;
                self.requests.delivery_count = self.requests.delivery_count.wrapping_add(1);
            }
            if done {
                self.sending = None;
            }
        }
    }
}
