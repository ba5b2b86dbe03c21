//! `/events`: what happened, as lines of JSON or as server-sent events, of all devices or of one.

use std::{
    borrow::Cow,
    convert::Infallible,
    fmt::Write as _,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::header::{ACCEPT, HeaderName};
use hyper::body::{Body, Bytes, Frame};
use serde::Deserialize;
use tokio::{sync::watch, time::Instant};

use super::{
    Admin, Call,
    answer::{self, Answer, Problem},
    query::Query,
};
use crate::core::events::{EventLog, Line, PORTION};

const STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How long a long poll waits at most, in seconds.
const LONGEST: f64 = 60.0;

/// How long a stream is silent at most, so that both ends notice when the other is gone.
const SILENCE: Duration = Duration::from_secs(15);

pub(super) fn get(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let query = Query::read(call.head.uri.query(), &["after", "since", "device", "wait"])?;
    let log = admin.shared.core.log();
    let mut next = match (query.number("after")?, query.number("since")?) {
        (Some(after), None) => after.saturating_add(1),
        (None, since) => since.unwrap_or_default(),
        (Some(after), Some(_)) => {
            let reason = "give either after (what follows it) or since (it and what follows)";
            return Err(Problem::bad("after", &after.to_string(), reason));
        }
    };
    let is_stream = call.header(ACCEPT).is_some_and(|accept| {
        accept.split([',', ';']).any(|kind| kind.trim().eq_ignore_ascii_case(STREAM))
    });
    let end = if is_stream {
        if let Some(last) = call.header(LAST_EVENT_ID).and_then(|last| last.parse::<u64>().ok()) {
            // What an emulator of before has counted begins anew.
            next = if last < log.len() { last + 1 } else { 0 };
        }
        End::Never { begun: false }
    } else {
        let wait = query.get("wait").map(seconds).transpose()?;
        End::At { end: log.len(), until: wait.map(|wait| Instant::now() + wait) }
    };
    let device = query.get("device").map(str::to_owned);
    let reader = Reader { log, device, next, end, stopping: admin.stopping.clone() };
    let content_type = if is_stream { STREAM } else { "application/x-ndjson" };
    Ok(answer::stream(content_type, Events::of(reader)))
}

fn seconds(text: &str) -> Result<Duration, Problem> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=LONGEST).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| Problem::bad("wait", text, "give a number of seconds, from 0 to 60"))
}

/// A body that comes in portions, each made when the one before has been taken: whoever reads slowly holds no more of
/// them.
pub(super) struct Events(Option<Portion>);

/// The next portion, and the reader that makes those that follow; `None` at the end.
type Portion = Pin<Box<dyn Future<Output = Option<(Bytes, Reader)>> + Send>>;

impl Events {
    pub(super) fn of(reader: Reader) -> Self {
        Self(Some(Box::pin(reader.next())))
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(next) = &mut self.0 else { return Poll::Ready(None) };
        let portion = ready!(next.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(portion.map(|(bytes, reader)| {
            *self = Self::of(reader);
            Ok(Frame::data(bytes))
        }))
    }
}

/// Where a reader of the log is.
pub(super) struct Reader {
    pub(super) log: EventLog,
    /// The one whose events are wanted; all events without it.
    pub(super) device: Option<String>,
    pub(super) next: u64,
    pub(super) end: End,
    pub(super) stopping: watch::Receiver<bool>,
}

/// When there is no more to read.
pub(super) enum End {
    /// Lines, as far as the log goes; when none of them is wanted, and there is a time until which to wait, as far as
    /// it goes then.
    At { end: u64, until: Option<Instant> },
    /// Server-sent events, without an end.
    Never { begun: bool },
}

impl Reader {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        loop {
            let text = self.portion();
            if !text.is_empty() {
                return Some((text.into(), self));
            }
            match self.end {
                End::At { end, .. } if self.next < end => tokio::task::yield_now().await,
                End::At { until: None, .. } => return None,
                End::At { until: Some(until), .. } => {
                    let happens = self.happens(until).await;
                    let left = until.checked_duration_since(Instant::now());
                    let until = left.filter(|_| happens).map(|_| until);
                    self.end = End::At { end: self.log.len(), until };
                    if !happens {
                        return None;
                    }
                }
                End::Never { .. } if self.next < self.log.len() => {
                    tokio::task::yield_now().await;
                }
                End::Never { .. } => {
                    if !self.happens(Instant::now() + SILENCE).await {
                        let ends = *self.stopping.borrow() || self.stopping.has_changed().is_err();
                        return (!ends).then(|| (Bytes::from_static(b":\n\n"), self));
                    }
                }
            }
        }
    }

    /// Whether anything more happens until then.
    async fn happens(&mut self, until: Instant) -> bool {
        tokio::select! {
            happens = self.log.reaches(self.next) => happens,
            _ = self.stopping.wait_for(|stop| *stop) => false,
            () = tokio::time::sleep_until(until) => false,
        }
    }

    /// The next portion of the log, as it is to be written; empty when nothing of it is wanted.
    fn portion(&mut self) -> String {
        let mut text = String::new();
        let (first, mut lines) = self.log.lines(self.next, PORTION);
        match &mut self.end {
            End::At { end, until } => {
                lines.truncate(usize::try_from(end.saturating_sub(first)).unwrap_or(usize::MAX));
                lines.iter().filter(|line| is_of(&self.device, line)).for_each(|line| text += line);
                if !text.is_empty() {
                    *until = None;
                }
            }
            End::Never { begun } => {
                if !std::mem::replace(begun, true) {
                    text += "retry: 1000\n\n";
                }
                if first > self.next && self.next > 0 {
                    let count = first - self.next;
                    let _ = write!(text, "data: {{\"event\":\"dropped\",\"count\":{count}}}\n\n");
                }
                for (line, sequence) in lines.iter().zip(first..) {
                    if is_of(&self.device, line) {
                        let _ = write!(text, "id: {sequence}\ndata: {line}\n");
                    }
                }
            }
        }
        self.next = first + u64::try_from(lines.len()).unwrap_or(u64::MAX);
        text
    }
}

/// Whether an event is about the device, if one is asked for. Case does not count, as the service has it.
fn is_of(device: &Option<String>, line: &Line) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct About<'a> {
        #[serde(borrow)]
        registration_id: Option<Cow<'a, str>>,
        #[serde(borrow)]
        device_id: Option<Cow<'a, str>>,
    }
    let is_meant = |device: &String, about: About<'_>| {
        let id = about.registration_id.or(about.device_id);
        id.is_some_and(|id| id.eq_ignore_ascii_case(device))
    };
    device
        .as_ref()
        .is_none_or(|device| serde_json::from_str(line).is_ok_and(|about| is_meant(device, about)))
}
