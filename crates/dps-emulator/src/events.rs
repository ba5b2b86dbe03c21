//! What happened: every connection, authentication, request and answer, with its time.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use crate::{behavior::Delivery, clock};

mod sink;
mod weight;

pub(crate) use sink::{Sink, SinkEnd};

/// One thing that happened. It serializes to one line of JSON; no secret is ever in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Event {
    /// Counts up from 0, without gaps.
    pub sequence: u64,
    /// Milliseconds since the emulator started, by a clock that never jumps.
    pub elapsed_ms: u64,
    /// The time of day in UTC.
    pub time: String,
    /// Which connection, counted from 1.
    pub connection: u64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

impl Event {
    /// The device that it is about, as written; `None` for what has no device yet.
    #[must_use]
    pub fn registration_id(&self) -> Option<&str> {
        match &self.kind {
            EventKind::Request { registration_id, .. }
            | EventKind::Authenticated { registration_id, .. }
            | EventKind::AuthenticationFailed { registration_id, .. }
            | EventKind::Answer { registration_id, .. } => Some(registration_id),
            _ => None,
        }
    }

    /// Whether it is a request of this kind.
    #[must_use]
    pub fn is_request(&self, wanted: Operation) -> bool {
        matches!(self.kind, EventKind::Request { operation, .. } if operation == wanted)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum EventKind {
    /// A connection was accepted.
    Connected {
        /// The protocol of the port.
        transport: Transport,
        /// The other end.
        peer: SocketAddr,
        /// This end.
        local: SocketAddr,
    },
    /// TLS is up.
    TlsEstablished {
        /// For example `TLSv1_3`.
        version: String,
        /// The name that the peer asked for.
        server_name: Option<String>,
        /// How many certificates the peer sent.
        client_certificates: usize,
        /// The SHA-256 thumbprint of the peer's own.
        thumbprint: Option<String>,
    },
    /// TLS did not come up.
    TlsFailed {
        /// Why.
        reason: String,
    },
    /// A request came in.
    Request {
        /// The protocol that it came by.
        transport: Transport,
        /// What it asks for.
        operation: Operation,
        /// Which device asks, as written.
        registration_id: String,
        /// Which operation it asks about.
        operation_id: Option<String>,
        /// The api-version, as written.
        api_version: Option<String>,
        /// Whether it forces the allocation.
        force: bool,
        /// The headers or properties that matter, credentials left out.
        headers: BTreeMap<String, String>,
        /// The size of its body.
        body_bytes: usize,
        /// The payload for the allocation.
        payload: Option<Value>,
    },
    /// A credential was found right.
    Authenticated {
        /// Whose.
        registration_id: String,
        /// The enrollment that it belongs to.
        enrollment: String,
        /// What kind of credential it is.
        method: Method,
    },
    /// A credential was refused.
    AuthenticationFailed {
        /// Whose, as written.
        registration_id: String,
        /// What kind of credential it is.
        method: Method,
        /// The service's code.
        error_code: u32,
        /// The true reason, which the answer does not always tell.
        reason: String,
    },
    /// A request was answered, or would have been but for a fault.
    Answer {
        /// The protocol that it goes by.
        transport: Transport,
        /// What it answers.
        operation: Operation,
        /// To which device.
        registration_id: String,
        /// As HTTP counts it.
        status: u16,
        /// The status word of the registration, when the answer has one.
        registration_status: Option<String>,
        /// The service's code, when it is a refusal.
        error_code: Option<u32>,
        /// The id of the answer.
        tracking_id: String,
        /// The values of its retry-after.
        retry_after: Vec<String>,
        /// The size of its body.
        body_bytes: usize,
        /// How it is delivered.
        delivery: Delivery,
    },
    /// A connection is over.
    Closed {
        /// Why.
        reason: String,
        /// Bytes that came in, TLS not counted.
        received: u64,
        /// Bytes that went out, TLS not counted.
        sent: u64,
    },
}

/// A protocol that devices speak to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Transport {
    /// HTTPS.
    Http,
    /// MQTT over TLS.
    Mqtt,
    /// MQTT over WebSocket.
    MqttWs,
    /// AMQP over TLS.
    Amqp,
    /// AMQP over WebSocket.
    AmqpWs,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Operation {
    /// To register.
    Register,
    /// How far an operation is.
    Query,
    /// Something that the service doesn't know.
    Unknown,
}

/// The kind of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Method {
    /// None was given.
    None,
    /// A SAS token.
    SymmetricKey,
    /// A TLS client certificate.
    X509,
}

/// The events of one emulator. It stays readable after the emulator is gone.
#[derive(Clone)]
pub struct EventLog {
    ring: Arc<Mutex<Ring>>,
    count: watch::Receiver<u64>,
}

struct Ring {
    events: VecDeque<Event>,
    /// About the bytes that they take.
    bytes: usize,
    next: u64,
}

impl Ring {
    /// Takes an event in; drops the oldest ones for it when the log is full.
    fn push(&mut self, event: Event) {
        self.bytes = self.bytes.saturating_add(weight::of(&event));
        self.events.push_back(event);
        self.next += 1;
        while self.events.len() > EventLog::CAPACITY
            || (self.bytes > EventLog::CAPACITY_BYTES && self.events.len() > 1)
        {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(weight::of(&oldest));
        }
    }
}

impl EventLog {
    /// How many events are kept; older ones are dropped.
    pub const CAPACITY: usize = 100_000;

    /// How much memory the events take, about, in bytes (64 MiB); older ones are dropped.
    pub const CAPACITY_BYTES: usize = 64 * 1024 * 1024;

    /// All events that are kept, the oldest first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Event> {
        self.since(0)
    }

    /// All events that are kept from this sequence number on.
    #[must_use]
    pub fn since(&self, sequence: u64) -> Vec<Event> {
        let ring = lock(&self.ring);
        ring.events.iter().filter(|event| event.sequence >= sequence).cloned().collect()
    }

    /// How many events have happened, dropped ones among them. It is the next event's sequence number.
    #[must_use]
    pub fn len(&self) -> u64 {
        lock(&self.ring).next
    }

    /// Whether nothing has happened yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many events were dropped because newer ones needed their place.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let ring = lock(&self.ring);
        ring.next.saturating_sub(u64::try_from(ring.events.len()).unwrap_or(u64::MAX))
    }

    /// The first event that matches, past ones included; waits for one if need be. `None` when the emulator is
    /// gone and no such event happened.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_for(&self, matches: impl FnMut(&Event) -> bool) -> Option<Event> {
        self.wait_for_since(0, matches).await
    }

    /// As [`EventLog::wait_for`], from this sequence number on.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn wait_for_since(
        &self,
        sequence: u64,
        mut matches: impl FnMut(&Event) -> bool,
    ) -> Option<Event> {
        let mut count = self.count.clone();
        let mut next = sequence;
        loop {
            // Whether this is the last look is asked first: what happened before the end is then seen.
            let over = count.has_changed().is_err();
            count.mark_unchanged();
            for event in self.since(next) {
                if matches(&event) {
                    return Some(event);
                }
                next = event.sequence + 1;
            }
            if over {
                return None;
            }
            // An error means that the emulator is gone: the next look is the last.
            count.changed().await.ok();
        }
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// The writing end of the log. When the last clone is gone, so is the emulator.
#[derive(Clone)]
pub(crate) struct Recorder {
    log: EventLog,
    count: watch::Sender<u64>,
    started: Instant,
    sink: Option<Sink>,
}

impl Recorder {
    pub(crate) fn new(sink: Option<Sink>) -> Self {
        let (sender, receiver) = watch::channel(0);
        let ring = Arc::new(Mutex::new(Ring { events: VecDeque::new(), bytes: 0, next: 0 }));
        Self {
            log: EventLog { ring, count: receiver },
            count: sender,
            started: Instant::now(),
            sink,
        }
    }

    pub(crate) fn log(&self) -> EventLog {
        self.log.clone()
    }

    pub(crate) fn record(&self, connection: u64, kind: EventKind) {
        let mut ring = lock(&self.log.ring);
        let event = Event {
            sequence: ring.next,
            elapsed_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            time: clock::rfc3339(SystemTime::now()),
            connection,
            kind,
        };
        if let Some(sink) = &self.sink {
            sink.write(&event);
        }
        ring.push(event);
        self.count.send_replace(ring.next);
    }
}

fn lock(ring: &Mutex<Ring>) -> std::sync::MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}
