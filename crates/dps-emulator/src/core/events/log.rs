//! The log of events: the last ones are kept as lines of JSON, so that what they take of memory is known.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    io::{self, Write},
    sync::{Arc, Mutex, mpsc::SyncSender},
    time::{Instant, SystemTime},
};

use dps_state_machine::Json;
use serde_json::Value;
use tokio::sync::watch;

use super::{Event, EventKind, SinkEnd, shown::Shown, sink};
use crate::core::clock;
use crate::lock::lock;

/// The events of one emulator. It stays readable after the emulator is gone.
#[derive(Clone)]
pub struct EventLog {
    ring: Arc<Mutex<Ring>>,
    count: watch::Receiver<u64>,
}

/// How many bytes of lines are looked at, or written, at once.
pub(crate) const PORTION: usize = 32 * 1024;

/// One event as JSON, with a line feed at its end.
pub(crate) type Line = Arc<str>;

/// The last events. The newest one is kept whatever its size.
#[derive(Default)]
struct Ring {
    lines: VecDeque<Line>,
    /// What all lines take of memory, about.
    bytes: usize,
    /// The sequence number of the next event.
    next: u64,
}

impl Ring {
    fn push(&mut self, line: Line) {
        self.bytes = self.bytes.saturating_add(size(&line));
        self.lines.push_back(line);
        self.next += 1;
        while self.lines.len() > EventLog::CAPACITY
            || (self.bytes > EventLog::CAPACITY_BYTES && self.lines.len() > 1)
        {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(size(&oldest));
        }
    }

    /// The sequence number of the oldest event that is kept.
    fn first(&self) -> u64 {
        self.next.saturating_sub(u64::try_from(self.lines.len()).unwrap_or(u64::MAX))
    }
}

/// What a line takes of memory beside its text: its two counts, and its place in a list that may be half empty.
const OVERHEAD: usize = 48;

fn size(line: &Line) -> usize {
    line.len() + OVERHEAD
}

impl EventLog {
    /// How many events are kept; older ones are dropped.
    pub const CAPACITY: usize = 100_000;

    /// How many bytes of memory the events that are kept may take, about (16 MiB); older ones are dropped.
    pub const CAPACITY_BYTES: usize = 16 * 1024 * 1024;

    /// All events that are kept, the oldest first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Event> {
        self.since(0)
    }

    /// All events that are kept from this sequence number on.
    #[must_use]
    pub fn since(&self, sequence: u64) -> Vec<Event> {
        let (_, lines) = self.lines(sequence, usize::MAX);
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Some lines from this sequence number on: the number of the first, and as many as have `bytes` together, but
    /// one at least if there is one.
    pub(crate) fn lines(&self, sequence: u64, bytes: usize) -> (u64, Vec<Line>) {
        let ring = lock(&self.ring);
        let first = sequence.max(ring.first());
        let skipped = usize::try_from(first - ring.first()).unwrap_or(usize::MAX);
        let mut left = Some(bytes);
        let lines = ring.lines.iter().skip(skipped).take_while(|line| {
            let fits = left.is_some();
            left = left.and_then(|left| left.checked_sub(line.len()));
            fits
        });
        (first, lines.cloned().collect())
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
        lock(&self.ring).first()
    }

    /// Waits until there is an event with this sequence number; false when the emulator is gone before.
    pub(crate) async fn reaches(&self, sequence: u64) -> bool {
        self.count.clone().wait_for(|count| *count > sequence).await.is_ok()
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
            // Whether the emulator is gone is asked before the look: what happened before its end is then seen.
            let over = count.has_changed().is_err();
            count.mark_unchanged();
            loop {
                let (first, lines) = self.lines(next, PORTION);
                if lines.is_empty() {
                    break;
                }
                next = first;
                for line in lines {
                    next += 1;
                    let event = serde_json::from_str(&line).ok().filter(&mut matches);
                    if event.is_some() {
                        return event;
                    }
                }
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

/// The writing end of the log. When it is gone, so is the emulator.
pub(crate) struct Recorder {
    log: EventLog,
    count: watch::Sender<u64>,
    started: Instant,
    shown: Shown,
    /// Wakes the thread that copies the log to a sink.
    wake: Option<SyncSender<()>>,
}

impl Recorder {
    pub(crate) fn new() -> Self {
        let (count, receiver) = watch::channel(0);
        let log = EventLog { ring: Arc::default(), count: receiver };
        Self { log, count, started: Instant::now(), shown: Shown::default(), wake: None }
    }

    /// Copies every event to this sink, from a thread of its own.
    pub(crate) fn copy_to(&mut self, sink: Box<dyn Write + Send>) -> io::Result<SinkEnd> {
        let (wake, end) = sink::start(self.log(), sink)?;
        self.wake = Some(wake);
        Ok(end)
    }

    pub(crate) fn log(&self) -> EventLog {
        self.log.clone()
    }

    /// Keeps what a connection shows as its credential out of all its events.
    pub(crate) fn conceal(&self, connection: u64, credential: &str) {
        self.shown.add(connection, credential);
    }

    /// Records an event. Whatever in it has the form of a secret, or is one that the connection has shown, is masked
    /// here, in whatever field it stands.
    pub(crate) fn record(&self, connection: u64, kind: EventKind) {
        // Most of the work is done before anybody has to wait for it.
        let what = self.masked(connection, &kind);
        let mut ring = lock(&self.log.ring);
        let line = self.line(ring.next, connection, &what);
        ring.push(line);
        self.count.send_replace(ring.next);
        if let Some(wake) = &self.wake {
            // A wake-up that waits already does for this event too.
            wake.try_send(()).ok();
        }
    }

    /// The event as an object of JSON without a secret, which can be read again.
    fn masked(&self, connection: u64, kind: &EventKind) -> String {
        // Its keys are texts and its values are JSON's: there is nothing that can fail to serialize.
        let what = serde_json::to_string(kind).unwrap_or_default();
        self.shown.learn(connection, kind);
        let mut masked = self.shown.mask(connection, &what).into_owned();
        // What was shown as a credential may be a word that events have themselves, or be made to look like a part of one.
        if masked != what && !self.is_readable(&masked) {
            masked = self.masked_by_field(connection, &what);
        }
        if let EventKind::Closed { .. } = kind {
            self.shown.forget(connection);
        }
        masked
    }

    /// Masks the value of each field by itself, but for those that then say nothing any more.
    fn masked_by_field(&self, connection: u64, what: &str) -> String {
        let mut fields: BTreeMap<String, Json> = serde_json::from_str(what).unwrap_or_default();
        let names: Vec<String> = fields.keys().cloned().collect();
        let written = |fields: &BTreeMap<_, _>| serde_json::to_string(fields).unwrap_or_default();
        for name in names {
            let Some(value) = fields.get(&name).cloned() else { continue };
            let masked = self.shown.mask(connection, value.get()).parse();
            fields.insert(name.clone(), masked.unwrap_or_else(|_| Value::from("***").into()));
            if !self.is_readable(&written(&fields)) {
                fields.insert(name, value);
            }
        }
        written(&fields)
    }

    fn is_readable(&self, what: &str) -> bool {
        serde_json::from_str::<Event>(&self.line(0, 0, what)).is_ok()
    }

    /// The line of an [`Event`], whose kind is an object of JSON already.
    fn line(&self, sequence: u64, connection: u64, what: &str) -> Line {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let time = clock::rfc3339(SystemTime::now());
        let fields = what.strip_prefix('{').unwrap_or_default();
        format!(
            "{{\"sequence\":{sequence},\"elapsedMs\":{elapsed},\"time\":\"{time}\",\
             \"connection\":{connection},{fields}\n"
        )
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::events::{Operation, Transport};

    #[test]
    fn the_oldest_events_are_dropped_when_the_log_has_its_bytes() {
        let mut ring = Ring::default();
        let large: Line = "x".repeat(EventLog::CAPACITY_BYTES / 4 - OVERHEAD).into();
        (0..6).for_each(|_| ring.push(large.clone()));
        assert_eq!((ring.next, ring.first(), ring.bytes), (6, 2, EventLog::CAPACITY_BYTES));
        ring.push("y".into());
        assert_eq!((ring.next, ring.first()), (7, 3));
        ring.push("x".repeat(EventLog::CAPACITY_BYTES * 2).into());
        assert_eq!((ring.next, ring.first()), (8, 7), "the newest one is kept whatever its size");
    }

    #[tokio::test]
    async fn what_the_log_dropped_before_the_sink_took_it_is_counted_in_the_sink() {
        #[derive(Clone, Default)]
        struct Written(Arc<Mutex<Vec<u8>>>);
        impl Write for Written {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut recorder = Recorder::new();
        let large: Line = "x".repeat(EventLog::CAPACITY_BYTES / 2 - OVERHEAD).into();
        (0..4).for_each(|_| lock(&recorder.log.ring).push(large.clone()));
        lock(&recorder.log.ring).push("last\n".into());
        let written = Written::default();
        let end = recorder.copy_to(Box::new(written.clone())).unwrap();
        drop(recorder);
        end.wait(std::time::Duration::from_secs(60)).await;
        let written = written.0.lock().unwrap();
        assert!(written.starts_with(b"{\"event\":\"dropped\",\"count\":3}\n"));
        assert!(written.ends_with(b"xlast\n"));
    }

    #[test]
    fn a_line_is_the_event_as_it_serializes() {
        let recorder = Recorder::new();
        let closed = EventKind::Closed { reason: "\"".into(), received: 1, sent: 2 };
        recorder.record(7, closed.clone());
        recorder.record(0, EventKind::Reset {});
        let (_, lines) = recorder.log().lines(0, usize::MAX);
        let events = recorder.log().snapshot();
        assert_eq!((events[0].sequence, events[0].connection, &events[0].kind), (0, 7, &closed));
        for (line, event) in lines.iter().zip(&events) {
            assert_eq!(**line, serde_json::to_string(event).unwrap() + "\n");
        }
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn an_event_can_be_read_whatever_was_shown_as_a_credential() {
        let payload = r#"{"a":"secret-1","transport":"b"}"#;
        let request = EventKind::Request {
            transport: Transport::Mqtt,
            operation: Operation::Register,
            registration_id: "dev-register".into(),
            operation_id: None,
            api_version: None,
            force: false,
            headers: BTreeMap::from([("registrationId".into(), "\"a\":\"secret-1\"".into())]),
            body_bytes: 1,
            payload: Some(payload.parse().unwrap()),
        };
        for shown in [
            "transport",
            "register",
            "registrationId",
            "{\"event\":",
            "\"a\":\"secret-1\"",
            ",\"headers\":{",
        ] {
            let recorder = Recorder::new();
            recorder.conceal(1, shown);
            recorder.record(1, request.clone());
            let (_, lines) = recorder.log().lines(0, usize::MAX);
            let [event] = &recorder.log().snapshot()[..] else { panic!("{shown}: {lines:?}") };
            assert!(event.is_request(Operation::Register), "{shown}: {event:?}");
            let EventKind::Request { registration_id, headers, payload, .. } = &event.kind else {
                panic!("{shown}: {event:?}")
            };
            assert_eq!(registration_id == "dev-***", shown == "register");
            let free = format!("{headers:?}{payload:?}");
            assert!(!free.contains(shown) && !free.contains(&shown.replace('"', "\\\"")), "{free}");
        }
    }

    #[test]
    fn lines_come_in_portions_without_a_gap() {
        let recorder = Recorder::new();
        for number in 0..10 {
            let closed = EventKind::Closed { reason: "why".into(), received: 0, sent: 0 };
            recorder.record(number, closed);
        }
        let (mut next, mut portions) = (0, 0);
        loop {
            let (first, lines) = recorder.log().lines(next, 300);
            if lines.is_empty() {
                break;
            }
            assert_eq!(first, next);
            next += u64::try_from(lines.len()).unwrap();
            portions += 1;
        }
        assert_eq!(next, 10);
        assert!((2..10).contains(&portions), "{portions}");
        assert_eq!(recorder.log().lines(99, 300), (99, vec![]));
    }
}
