//! One connection: headers, SASL, open and close. Sessions and links are in [`session`](super::session).

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::{
    answer::Answer,
    claim::Claim,
    codec::{self, Frame},
    context::Context,
    refusal::condition,
    session::Session,
    tpm::{Progress, TpmLogin},
    write::{self, AMQP_HEADER, SASL_HEADER},
};
use crate::{
    behavior::{AmqpFault, ConnectionFault},
    core::ServiceError,
    server::{
        conversation::{self, Conversation as _, MAX_IDLE, Over},
        peer::Peer,
    },
};

/// How many sessions a connection may have at once.
const MAX_SESSIONS: usize = 8;
/// How much goes into the buffer before it is sent.
const HIGH_WATER: usize = 256 * 1024;

/// What comes next from the device.
enum Phase {
    /// The first header.
    Header,
    /// SASL's first word.
    Init,
    /// What a TPM answers to a challenge.
    Tpm(TpmLogin),
    /// The header after SASL.
    SecondHeader,
    /// Frames.
    Frames,
}

/// See the module.
pub(crate) struct Conversation {
    peer: Peer,
    /// What is to be sent.
    out: Vec<u8>,
    /// Set when nothing more is to be taken in.
    over: Option<Over>,
    phase: Phase,
    fault: Option<AmqpFault>,
    /// Frames and headers that have come in.
    taken: u32,
    /// How many of them since the last transfer.
    idle: u32,
    /// Who the device said it is, and whether it is.
    claim: Option<Claim>,
    /// The device's, as it opened the connection.
    max_frame_size: u32,
    idle_time_out: Option<Duration>,
    sessions: BTreeMap<u16, Session>,
    /// Answers that wait for a link with credit. It may stand in another session than the one of the request.
    waiting: VecDeque<Answer>,
}

impl conversation::Conversation for Conversation {
    const NAME: &str = "AMQP";

    fn new(peer: Peer) -> Self {
        let fault = match peer.fault {
            ConnectionFault::Amqp(fault) => Some(fault),
            _ => None,
        };
        Self {
            peer,
            out: Vec::new(),
            over: None,
            phase: Phase::Header,
            fault,
            taken: 0,
            idle: 0,
            claim: None,
            max_frame_size: 512,
            idle_time_out: None,
            sessions: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Takes in a header or a frame.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let taken = match self.phase {
            Phase::Header | Phase::SecondHeader => {
                let begins = |header: &[u8; 8]| bytes.iter().zip(header).all(|(a, b)| a == b);
                if bytes.len() < 8 && (begins(&SASL_HEADER) || begins(&AMQP_HEADER)) {
                    return None;
                }
                self.count();
                if self.over.is_none() {
                    self.take_header(bytes.first_chunk());
                }
                bytes.len().min(8)
            }
            Phase::Init | Phase::Tpm(_) | Phase::Frames => {
                match codec::decode(bytes, self.max_frame()) {
                    Ok(None) => return None,
                    Ok(Some((frame, size))) => {
                        self.count();
                        if self.over.is_none() {
                            self.take_frame(frame);
                        }
                        size
                    }
                    Err(reason) => {
                        self.close("amqp:decode-error", reason);
                        bytes.len()
                    }
                }
            }
        };
        Some(taken)
    }

    fn takes_more(&self) -> bool {
        self.over.is_none()
    }

    /// What the devices' credit and windows allow goes with it, about as much at once as fits the buffer.
    fn take_out(&mut self) -> Vec<u8> {
        let Self { sessions, out, over, max_frame_size, waiting, .. } = self;
        for (channel, session) in sessions {
            session.pump(out, *channel, *max_frame_size, HIGH_WATER, waiting, over);
        }
        std::mem::take(out)
    }

    fn over(&mut self) -> Option<Over> {
        self.over.take()
    }

    fn patience(&self) -> Duration {
        match self.fault {
            Some(AmqpFault::IdleTimeOut { millis }) => Duration::from_millis(millis.into()),
            _ => self.peer.limits.idle_timeout,
        }
    }

    fn heartbeat_every(&self) -> Option<Duration> {
        self.idle_time_out.filter(|time| !time.is_zero()).map(|time| time / 2)
    }

    fn put_heartbeat(&mut self) {
        write::heartbeat(&mut self.out);
    }

    fn dismiss(&mut self, reason: &str) {
        self.close("amqp:connection:forced", reason);
    }
}

impl Conversation {
    fn close(&mut self, condition: &str, reason: &str) {
        if matches!(self.phase, Phase::Frames) {
            let error = write::error(condition, Some(reason.to_owned()), []);
            write::close(&mut self.out, Some(error));
        }
        self.finish(reason);
    }

    fn finish(&mut self, reason: &str) {
        self.over.get_or_insert_with(|| Over::Properly(reason.to_owned()));
    }

    /// The largest frame that is taken, in bytes. Nothing that comes before the credential is large.
    fn max_frame(&self) -> u32 {
        match &self.claim {
            Some(claim) if claim.checked.is_ok() => codec::MAX_FRAME_SIZE,
            _ => 8192,
        }
    }

    fn count(&mut self) {
        self.taken += 1;
        self.idle += 1;
        if self.idle > MAX_IDLE {
            let reason = format!("{MAX_IDLE} frames came without a transfer among them");
            self.close("amqp:resource-limit-exceeded", &reason);
        }
        if self.fault == Some(AmqpFault::CutAfter { frames: self.taken }) {
            self.over = Some(Over::Cut);
        }
    }

    /// `None` for bytes that begin no header of ours, however they go on.
    fn take_header(&mut self, header: Option<&[u8; 8]>) {
        let insists =
            matches!(self.fault, Some(AmqpFault::InsistOnSasl | AmqpFault::InsistOnAnonymous));
        let trusted = self.peer.caller.has_certificate() && !insists;
        match (&self.phase, header) {
            (Phase::Header, Some(&SASL_HEADER)) => {
                self.out.extend(SASL_HEADER);
                let names = self.mechanisms();
                write::mechanisms(&mut self.out, names);
                self.phase = Phase::Init;
            }
            (Phase::Header, Some(&AMQP_HEADER)) if !trusted => {
                self.out.extend(SASL_HEADER);
                self.finish("the device did not begin with SASL");
            }
            (_, Some(&AMQP_HEADER)) => {
                self.out.extend(AMQP_HEADER);
                self.phase = Phase::Frames;
            }
            _ => {
                self.out.extend(AMQP_HEADER);
                self.finish("the device does not speak AMQP 1.0");
            }
        }
    }

    fn mechanisms(&self) -> &'static [&'static str] {
        match (self.fault, self.peer.caller.has_certificate()) {
            (_, false) => &["PLAIN", "TPM"],
            (Some(AmqpFault::InsistOnAnonymous), true) => &["PLAIN", "ANONYMOUS"],
            (_, true) => &["EXTERNAL", "PLAIN", "ANONYMOUS"],
        }
    }

    fn take_frame(&mut self, frame: Frame) {
        match (&mut self.phase, frame.sasl, frame.code) {
            (Phase::Init, true, Some(0x41)) => self.log_in(&frame),
            (Phase::Tpm(login), true, Some(0x43)) => {
                let progress = login.take(&self.peer.caller, frame.fields.binary(0));
                self.log_in_by_tpm(progress);
            }
            (Phase::Frames, false, None) => {}
            (Phase::Frames, false, Some(0x10)) => self.open(&frame),
            (Phase::Frames, false, Some(0x18)) => {
                write::close(&mut self.out, None);
                self.finish("the peer closed");
            }
            (Phase::Frames, false, Some(code)) => {
                if !frame.payload.is_empty() {
                    self.idle = 0;
                }
                self.take_session_frame(&frame, code);
            }
            _ => self.close("amqp:not-allowed", "a frame that has no place here"),
        }
    }

    fn log_in(&mut self, init: &Frame) {
        let mechanism = init.fields.text(0).unwrap_or_default();
        if let Some(AmqpFault::RefuseSasl { code }) = self.fault {
            write::sasl_outcome(&mut self.out, code);
            return self.finish("scripted: SASL refused");
        }
        let offered = self.mechanisms().contains(&mechanism);
        let outcome = match mechanism {
            "PLAIN" => self.log_in_plainly(init.fields.binary(1)),
            "TPM" if offered => match TpmLogin::begin(init.fields.binary(1)) {
                Some(login) => {
                    self.phase = Phase::Tpm(login);
                    return write::sasl_challenge(&mut self.out, &[0]);
                }
                None => 1,
            },
            _ if offered => 0,
            _ => 1,
        };
        self.end_sasl(outcome);
    }

    fn log_in_by_tpm(&mut self, progress: Progress) {
        match progress {
            Progress::Challenge(challenge) => write::sasl_challenge(&mut self.out, &challenge),
            Progress::Answered(claim) => {
                let refused = claim.checked.is_err();
                self.claim = Some(claim);
                self.end_sasl(u8::from(refused));
            }
            Progress::Refused => self.end_sasl(1),
        }
    }

    fn end_sasl(&mut self, outcome: u8) {
        write::sasl_outcome(&mut self.out, outcome);
        match outcome {
            0 => self.phase = Phase::SecondHeader,
            _ => self.finish("SASL refused"),
        }
    }

    /// See <https://www.rfc-editor.org/rfc/rfc4616>. A bad token is refused later, with the service's own error.
    fn log_in_plainly(&mut self, response: &[u8]) -> u8 {
        let mut parts = response.split(|byte| *byte == 0);
        let (Some(_), Some(user), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return 1;
        };
        let (user, token) = (String::from_utf8_lossy(user), String::from_utf8_lossy(password));
        let (id_scope, registration_id) = user.split_once("/registrations/").unwrap_or((&user, ""));
        let claim = Claim::check(&self.peer.caller, id_scope, registration_id, Some(&token));
        let refused = claim.checked.is_err() && self.fault == Some(AmqpFault::SaslDecides);
        self.claim = Some(claim);
        u8::from(refused)
    }

    fn open(&mut self, open: &Frame) {
        self.max_frame_size =
            open.fields.u32(2).unwrap_or(u32::MAX).clamp(512, codec::MAX_FRAME_SIZE);
        self.idle_time_out = open.fields.u32(4).map(|millis| Duration::from_millis(millis.into()));
        let refusal = match (self.fault, self.claim.as_ref().map(|claim| &claim.checked)) {
            (Some(AmqpFault::OpenError), _) => Some(ServiceError::unauthorized("scripted")),
            (_, Some(Err(error))) => Some(error.clone()),
            _ => None,
        };
        let refusal = refusal.map(|error| {
            let registration_id = self.claim.as_ref().map(|claim| &*claim.registration_id);
            let reply = self.peer.caller.refuse(registration_id.unwrap_or_default(), &error);
            write::error(condition(reply.status), Some(reply.text()), [])
        });
        let open_error = refusal.clone().filter(|_| self.fault == Some(AmqpFault::OpenError));
        let narrow = self.fault == Some(AmqpFault::Narrow);
        let max_frame_size = if narrow { 512 } else { codec::MAX_FRAME_SIZE };
        let idle_time_out = u32::try_from(self.patience().as_millis()).unwrap_or(u32::MAX);
        write::open(&mut self.out, max_frame_size, idle_time_out, open_error);
        if refusal.is_some() {
            write::close(&mut self.out, refusal);
            self.finish("the device was refused");
        }
    }

    fn take_session_frame(&mut self, frame: &Frame, code: u64) {
        let channel = frame.channel;
        match (code, self.sessions.len()) {
            (0x11, 0..MAX_SESSIONS) => {
                let session = Session::begin(&mut self.out, channel, frame, self.fault);
                self.sessions.insert(channel, session);
            }
            (0x11, _) => self.close("amqp:resource-limit-exceeded", "too many sessions"),
            (0x17, _) => {
                if self.sessions.remove(&channel).is_some() {
                    write::end(&mut self.out, channel);
                }
            }
            _ => {
                // Frames for a session that ended while they were on their way.
                let Some(session) = self.sessions.get_mut(&channel) else { return };
                let mut context = Context {
                    peer: &self.peer,
                    out: &mut self.out,
                    over: &mut self.over,
                    claim: &mut self.claim,
                    fault: &mut self.fault,
                    waiting: &mut self.waiting,
                    channel,
                };
                if let Err(reason) = session.take(&mut context, frame, code) {
                    self.close("amqp:not-allowed", reason);
                }
            }
        }
    }
}
