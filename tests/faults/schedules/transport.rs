//! A transport that does as a seed says, and keeps book.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use dps_client::{
    ConnectionError, Error, OperationId, Progress, ProtocolError, RegistrationRequest, Settings,
    Stage, TransportHandlers,
};
use dps_state_machine::Response;
use tokio::time::{Instant, sleep};

use super::random::Random;

/// What the transport says to one request.
#[derive(Clone, Debug)]
enum Reply {
    Assigned,
    Assigning(Option<u64>),
    Unassigned,
    Ended(&'static str),
    Junk,
    Refused(u32, Option<u64>),
    /// No connection could be made.
    Broken,
    /// The connection was lost.
    Lost,
    Unreadable,
    Never,
}

impl Reply {
    fn random(random: &mut Random) -> Self {
        let retry_after = match random.below(8) {
            0 => Some(0),
            1 => Some(1),
            2 => Some(random.below(30)),
            3 => Some(u64::MAX),
            _ => None,
        };
        match random.below(30) {
            0..6 => Self::Assigned,
            6..14 => Self::Assigning(retry_after),
            14 => Self::Unassigned,
            15 => Self::Ended("failed"),
            16 => Self::Ended("disabled"),
            17 => Self::Ended("enchanted"),
            18 => Self::Junk,
            19 => Self::Refused(401_002, None),
            20..23 => Self::Refused(429_001, retry_after),
            23 => Self::Refused(500_000, retry_after),
            24 => Self::Refused(409_203, retry_after),
            25 => Self::Broken,
            26..28 => Self::Lost,
            28 => Self::Unreadable,
            _ => Self::Never,
        }
    }

    /// The answer to the request of this number; it says whose it is.
    fn say(&self, number: u32) -> Result<Response, Error> {
        let state = |status: &str| {
            format!(
                r#"{{"operationId":"op-{number}","status":"{status}","registrationState":{{"assignedHub":"hub","deviceId":"dev","payload":{{"number":{number}}},"errorCode":400207}}}}"#
            )
        };
        let seconds = |seconds: &Option<u64>| seconds.map(Duration::from_secs);
        Ok(match self {
            Self::Assigned => Response::new(200, state("assigned")),
            Self::Assigning(asked) => {
                Response::new(202, state("assigning")).retry_after(seconds(asked))
            }
            Self::Unassigned => Response::new(202, state("unassigned")),
            Self::Ended(status) => Response::new(200, state(status)),
            Self::Junk => Response::new(200, "{\"operationId\":"),
            Self::Refused(code, asked) => {
                let body = format!(r#"{{"errorCode":{code},"message":"not now"}}"#);
                Response::new((code / 1000) as u16, body).retry_after(seconds(asked))
            }
            Self::Broken => {
                return Err(ConnectionError::new(Stage::Connect, "connection refused").into());
            }
            Self::Lost | Self::Never => {
                return Err(ConnectionError::lost(Stage::Query, "connection reset").into());
            }
            Self::Unreadable => {
                return Err(ProtocolError::unreadable(Stage::Query, "no such thing").into());
            }
        })
    }

    /// How long it asks to wait, at least, before the next request.
    fn asks(&self, settings: &Settings) -> Duration {
        match self {
            Self::Assigning(Some(seconds)) | Self::Refused(_, Some(seconds)) => {
                Duration::from_secs(*seconds).max(settings.poll_floor)
            }
            _ => settings.poll_interval.max(settings.poll_floor),
        }
    }
}

/// What the transport will say, in order, and after how long.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    replies: Vec<(Duration, Reply)>,
    /// Whether the end of the session succeeds; `None` never returns.
    ends_of_session: Vec<(Duration, Option<bool>)>,
}

impl Script {
    pub(crate) fn random(random: &mut Random) -> Self {
        let replies =
            (0..random.below(24)).map(|_| (random.time(40_000), Reply::random(random))).collect();
        let ends_of_session = (0..random.below(6))
            .map(|_| {
                let result = match random.below(5) {
                    0 => None,
                    1 => Some(false),
                    _ => Some(true),
                };
                (random.time(800), result)
            })
            .collect();
        Self { replies, ends_of_session }
    }

    pub(crate) fn describe(&self) -> String {
        let mut text = "answers:\n".to_owned();
        for (after, reply) in &self.replies {
            writeln!(text, "  after {after:?} {reply:?}").ok();
        }
        text.push_str("ends_of_session:\n");
        for (after, result) in &self.ends_of_session {
            writeln!(text, "  after {after:?} {result:?}").ok();
        }
        text
    }
}

/// A call to the transport: for whom, when it began, and when it returned, if it was not dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Register { number: u32, begin: Duration, end: Option<Duration> },
    Query { number: u32, begin: Duration, end: Option<Duration> },
    End { begin: Duration, end: Option<Duration> },
}

impl Call {
    fn request(&self) -> Option<(u32, Duration, Option<Duration>)> {
        match self {
            Self::Register { number, begin, end } | Self::Query { number, begin, end } => {
                Some((*number, *begin, *end))
            }
            Self::End { .. } => None,
        }
    }
}

/// See the module. Clones are one transport.
#[derive(Clone, Debug)]
pub(crate) struct Transport(Arc<Mutex<Book>>);

#[derive(Debug)]
struct Book {
    origin: Instant,
    replies: VecDeque<(Duration, Reply)>,
    ends_of_session: VecDeque<(Duration, Option<bool>)>,
    healthy: bool,
    calls: Vec<(Call, Option<Reply>)>,
    under_way: usize,
    most_under_way: usize,
}

impl Transport {
    pub(crate) fn new(script: &Script) -> Self {
        Self(Arc::new(Mutex::new(Book {
            origin: Instant::now(),
            replies: script.replies.clone().into(),
            ends_of_session: script.ends_of_session.clone().into(),
            healthy: false,
            calls: Vec::new(),
            under_way: 0,
            most_under_way: 0,
        })))
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().expect("nobody panics with it")
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.book().calls.iter().map(|(call, _)| call.clone()).collect()
    }

    pub(crate) fn under_way(&self) -> usize {
        self.book().under_way
    }

    /// From now on every request is answered at once.
    pub(crate) fn be_healthy(&self) {
        let mut book = self.book();
        book.healthy = true;
        book.replies.clear();
        book.ends_of_session.clear();
    }

    pub(crate) fn queries_of(&self, wanted: u32) -> usize {
        let of = |call: &Call| matches!(call, Call::Query { number, .. } if *number == wanted);
        self.calls().iter().filter(|call| of(call)).count()
    }

    pub(crate) fn was_called_for(&self, wanted: u32) -> bool {
        self.calls().iter().any(|call| call.request().is_some_and(|(of, ..)| of == wanted))
    }

    /// What must hold between the calls.
    pub(crate) fn check(&self, settings: &Settings, suspended: Duration) -> Result<(), String> {
        let book = self.book();
        if book.most_under_way > 1 {
            return Err(format!("{} calls to the transport at once", book.most_under_way));
        }
        let mut connected = false;
        for (call, _) in &book.calls {
            match call {
                Call::End { .. } if !connected => {
                    return Err("an end of session on a transport that is not connected".to_owned());
                }
                // An end of the session that was cut short may have to be said again.
                Call::End { end, .. } => connected = end.is_none(),
                _ => connected = true,
            }
        }
        for (place, (call, reply)) in book.calls.iter().enumerate() {
            let (Some((number, begin, end)), Some(reply)) = (call.request(), reply) else {
                continue;
            };
            let same = |(call, _): &&(Call, _)| call.request().is_some_and(|(of, ..)| of == number);
            let first = book.calls.iter().find(same).and_then(|(call, _)| call.request());
            let since = first.map_or(Duration::ZERO, |(_, first, _)| begin - first);
            if since > settings.registration_timeout {
                return Err(format!("a request {since:?} after the registration began"));
            }
            if end.is_some_and(|end| end - begin > settings.request_timeout + suspended) {
                return Err(format!("a request under way for longer than its time: {call:?}"));
            }
            let next = book.calls.iter().skip(place + 1).find(same);
            if let Some((_, next, _)) = next.and_then(|(call, _)| call.request()) {
                let Some(end) = end else {
                    return Err(format!(
                        "asked again although the last call was dropped: {call:?}"
                    ));
                };
                if next - end < reply.asks(settings) {
                    return Err(format!("{:?} after {reply:?}", next - end));
                }
            }
        }
        Ok(())
    }

    fn begin(&self, call: impl FnOnce(Duration) -> Call, reply: Option<Reply>) -> UnderWay {
        let mut book = self.book();
        let now = book.origin.elapsed();
        book.calls.push((call(now), reply));
        book.under_way += 1;
        book.most_under_way = book.most_under_way.max(book.under_way);
        UnderWay { transport: self.clone(), place: book.calls.len() - 1 }
    }

    fn next_reply(&self) -> (Duration, Reply) {
        let mut book = self.book();
        if book.healthy {
            return (Duration::ZERO, Reply::Assigned);
        }
        book.replies.pop_front().unwrap_or((Duration::ZERO, Reply::Never))
    }

    async fn answer(
        &self,
        number: u32,
        call: impl FnOnce(Duration) -> Call,
    ) -> Result<Response, Error> {
        let (after, reply) = self.next_reply();
        let under_way = self.begin(call, Some(reply.clone()));
        sleep(after).await;
        if let Reply::Never = reply {
            std::future::pending::<()>().await;
        }
        under_way.returns();
        reply.say(number)
    }
}

/// A call until it returns or is dropped.
struct UnderWay {
    transport: Transport,
    place: usize,
}

impl UnderWay {
    fn returns(&self) {
        let mut book = self.transport.book();
        let now = book.origin.elapsed();
        match book.calls.get_mut(self.place) {
            Some((
                Call::Register { end, .. } | Call::Query { end, .. } | Call::End { end, .. },
                _,
            )) => *end = Some(now),
            None => {}
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.transport.book().under_way -= 1;
    }
}

/// The number that the request carries.
fn number_of(request: &RegistrationRequest) -> u32 {
    let body: serde_json::Value = serde_json::from_slice(&request.body()).unwrap_or_default();
    body["payload"]["number"].as_u64().unwrap_or_default() as u32
}

impl TransportHandlers for Transport {
    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        _: &Progress,
    ) -> Result<Response, Error> {
        let number = number_of(request);
        self.answer(number, |begin| Call::Register { number, begin, end: None }).await
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        _: &OperationId,
        _: &Progress,
    ) -> Result<Response, Error> {
        let number = number_of(request);
        self.answer(number, |begin| Call::Query { number, begin, end: None }).await
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        let next = self.book().ends_of_session.pop_front();
        let (after, result) = next.unwrap_or((Duration::ZERO, Some(true)));
        let under_way = self.begin(|begin| Call::End { begin, end: None }, None);
        sleep(after).await;
        match result {
            None => std::future::pending().await,
            Some(well) => {
                under_way.returns();
                if well {
                    return Ok(());
                }
                Err(ConnectionError::lost(Stage::EndSession, "no end of the session").into())
            }
        }
    }
}
