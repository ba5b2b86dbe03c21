//! A transport that does as a script says, and keeps a record.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use dps_state_machine::{
    Error, OperationId, Progress, RegistrationRequest, Response, Settings, StateMachine, Step,
    TransportHandlers,
};
use tokio::time::{Instant, sleep};

use crate::answers::{Answer, assigned};

/// What the transport was called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// To send the registration of the device with this name.
    Register(String),
    /// To ask about the operation with this id.
    Query(String),
    /// To end the session.
    End,
}

/// What the transport answers, in order, and after how long. `None` never answers. When nothing is left, a request has no
/// answer and the end of the session succeeds at once.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// To requests.
    pub answers: VecDeque<(Duration, Option<Answer>)>,
    /// To ends of sessions.
    pub ends_of_session: VecDeque<(Duration, Option<Result<(), Error>>)>,
}

/// When code of others runs within the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// A call to the transport begins: within its future.
    CallBegan,
    /// A call to the transport is over: within its future or the drop of that.
    CallOver,
    /// The observer sees a step.
    Step,
    /// A waker is woken.
    Woken,
    /// The waker of one who reads the events is woken.
    EventCame,
    /// An observer is dropped that has been replaced.
    ObserverDropped,
}

/// Code of others.
pub type Hook = Arc<dyn Fn(Moment) + Send + Sync>;

/// See the module. Clones are one transport.
#[derive(Clone, Default)]
pub struct Transport(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    script: Script,
    /// Whether a request that the script has nothing for is answered at once.
    healthy: bool,
    steps: Vec<Step>,
    hook: Option<Hook>,
    started: Option<Instant>,
    calls: Vec<Entry>,
    under_way: usize,
    most_under_way: usize,
}

/// One call. It has no end if it was dropped.
struct Entry {
    call: Call,
    /// Whose registration it belongs to.
    device: Option<String>,
    begin: Duration,
    end: Option<Duration>,
    answer: Option<Answer>,
}

impl Transport {
    /// One that does as the script says.
    #[must_use]
    pub fn new(script: Script) -> Self {
        let transport = Self::default();
        transport.record().script = script;
        transport
    }

    /// One that gives these answers, each at once.
    #[must_use]
    pub fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = answers.into_iter().map(|answer| (Duration::ZERO, Some(answer)));
        Self::new(Script { answers: answers.collect(), ..Script::default() })
    }

    /// Then it gives this answer.
    pub fn then(&self, after: Duration, answer: Answer) -> &Self {
        self.record().script.answers.push_back((after, Some(answer)));
        self
    }

    /// Then it never answers.
    pub fn then_never(&self) -> &Self {
        self.record().script.answers.push_back((Duration::ZERO, None));
        self
    }

    /// The next end of a session goes like this.
    pub fn end_of_session(&self, after: Duration, result: Result<(), Error>) -> &Self {
        self.record().script.ends_of_session.push_back((after, Some(result)));
        self
    }

    /// Nothing is left of the script.
    pub fn forget_script(&self) {
        self.record().script = Script::default();
    }

    /// From now on every request is answered at once: assigned.
    pub fn be_healthy(&self) {
        self.forget_script();
        self.record().healthy = true;
    }

    /// What each request says of the connection it makes.
    pub fn say_steps(&self, steps: impl Into<Vec<Step>>) {
        self.record().steps = steps.into();
    }

    /// Whom to call when a call begins and when it is over.
    pub fn hook(&self, hook: Option<Hook>) {
        self.record().hook = hook;
    }

    /// A machine over it with exact [`settings`].
    #[must_use]
    pub fn machine(&self) -> StateMachine<Self> {
        self.machine_with(settings())
    }

    /// A machine over it.
    #[must_use]
    pub fn machine_with(&self, settings: Settings) -> StateMachine<Self> {
        StateMachine::new(self.clone(), settings)
    }

    /// What it was called for.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.record().calls.iter().map(|entry| entry.call.clone()).collect()
    }

    /// When each call began, since the first.
    #[must_use]
    pub fn times(&self) -> Vec<Duration> {
        self.record().calls.iter().map(|entry| entry.begin).collect()
    }

    /// How many calls neither returned nor were dropped.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.record().under_way
    }

    /// How many calls were under way at once.
    #[must_use]
    pub fn most_under_way(&self) -> usize {
        self.record().most_under_way
    }

    /// How many times it was called for this device's registration: to send it, and to ask for its status.
    #[must_use]
    pub fn calls_of(&self, device: &str) -> (usize, usize) {
        let record = self.record();
        let of_it = record.calls.iter().filter(|entry| entry.device.as_deref() == Some(device));
        let (queries, registrations): (Vec<_>, Vec<_>) =
            of_it.partition(|entry| matches!(entry.call, Call::Query(_)));
        (registrations.len(), queries.len())
    }

    /// The body of the last answer to this device.
    #[must_use]
    pub fn last_body(&self, device: &str) -> Option<Vec<u8>> {
        let record = self.record();
        let mut of_it = record.calls.iter().filter(|entry| entry.device.as_deref() == Some(device));
        of_it.next_back()?.answer.clone()?.ok().map(|response| response.body)
    }

    /// What must hold between the calls: one at a time, an end of the session on a connection only, each request within its
    /// time, none sooner after the one before than its answer asked for, none later either but for the back-off and the
    /// jitter after a refusal, and none after a call that was dropped.
    ///
    /// # Errors
    /// What does not hold. `suspended` is the time that the computer slept.
    pub fn check(&self, settings: &Settings, suspended: Duration) -> Result<(), String> {
        let record = self.record();
        if record.most_under_way > 1 {
            return Err(format!("{} calls to the transport at once", record.most_under_way));
        }
        let mut connected = false;
        for entry in &record.calls {
            if entry.call != Call::End {
                connected = true;
            } else if connected {
                // An end of the session that was cut short may have to be made again.
                connected = entry.end.is_none();
            } else {
                return Err("an end of session on a transport that is not connected".to_owned());
            }
        }
        for (place, entry) in record.calls.iter().enumerate() {
            let Entry { call, device: Some(_), begin, end, answer } = entry else { continue };
            let of_it = |other: &&Entry| other.device == entry.device;
            let first = record.calls.iter().find(of_it).map_or(*begin, |first| first.begin);
            if *begin - first > settings.registration_timeout {
                return Err(format!("{call:?} {:?} after the registration began", *begin - first));
            }
            if end.is_some_and(|end| end - *begin > settings.request_timeout + suspended) {
                return Err(format!("under way for longer than its time: {call:?}"));
            }
            let Some(next) = record.calls.iter().skip(place + 1).find(of_it) else { continue };
            let Some(end) = end else {
                return Err(format!("asked again although the last call was dropped: {call:?}"));
            };
            let (wait, least) = (next.begin - *end, least_wait(answer.as_ref(), settings));
            let most = most_wait(answer.as_ref(), settings) + suspended + Duration::from_millis(1);
            if wait < least || wait > most {
                return Err(format!("{wait:?} after {answer:?}"));
            }
        }
        Ok(())
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().expect("no holder of the lock panics")
    }

    fn call_hook(&self, moment: Moment) {
        let hook = self.record().hook.clone();
        if let Some(hook) = hook {
            hook(moment);
        }
    }

    fn begin(&self, call: Call, device: Option<String>, answer: Option<Answer>) -> UnderWay {
        let mut record = self.record();
        let begin = record.started.get_or_insert_with(Instant::now).elapsed();
        record.calls.push(Entry { call, device, begin, end: None, answer });
        record.under_way += 1;
        record.most_under_way = record.most_under_way.max(record.under_way);
        let under_way = UnderWay { transport: self.clone(), place: record.calls.len() - 1 };
        drop(record);
        self.call_hook(Moment::CallBegan);
        under_way
    }

    async fn answer(
        &self,
        call: Call,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let (next, steps) = {
            let mut record = self.record();
            let otherwise = record.healthy.then(assigned);
            let next = record.script.answers.pop_front().unwrap_or((Duration::ZERO, otherwise));
            (next, record.steps.clone())
        };
        let (after, answer) = next;
        let device = request.registration_id().to_string();
        let under_way = self.begin(call, Some(device), answer.clone());
        for step in &steps {
            progress.enter(step);
        }
        sleep(after).await;
        under_way.answer(answer).await
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Transport").field(&self.calls()).finish()
    }
}

/// The default without jitter, so that times are exact.
#[must_use]
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.jitter_percent = 0;
    settings
}

/// [`settings`] with some of them changed.
#[must_use]
pub fn settings_with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = settings();
    change(&mut settings);
    settings
}

/// How long an answer asks to wait, at least, before the next request.
fn least_wait(answer: Option<&Answer>, settings: &Settings) -> Duration {
    let asked = answer.and_then(|answer| answer.as_ref().ok()?.retry_after);
    asked.unwrap_or(settings.poll_interval).max(settings.poll_floor)
}

/// How long the machine waits at most: longer than asked only after a refusal.
fn most_wait(answer: Option<&Answer>, settings: &Settings) -> Duration {
    let least = least_wait(answer, settings);
    let Some(Ok(response)) = answer else { return least };
    if response.status < 300 {
        return least;
    }
    let wait = match response.retry_after {
        Some(_) => least,
        None => least.max(settings.max_backoff),
    };
    wait.saturating_add(wait / 100 * u32::from(settings.jitter_percent))
}

/// A call until it returns or is dropped.
struct UnderWay {
    transport: Transport,
    place: usize,
}

impl UnderWay {
    /// Returns with the answer, or never.
    async fn answer<V>(&self, answer: Option<V>) -> V {
        let Some(answer) = answer else { return std::future::pending().await };
        let mut record = self.transport.record();
        let now = record.started.map(|started| started.elapsed());
        if let Some(entry) = record.calls.get_mut(self.place) {
            entry.end = now;
        }
        answer
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.transport.record().under_way -= 1;
        self.transport.call_hook(Moment::CallOver);
    }
}

impl TransportHandlers for Transport {
    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let call = Call::Register(request.registration_id().to_string());
        self.answer(call, request, progress).await
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.answer(Call::Query(operation_id.to_string()), request, progress).await
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        let next = self.record().script.ends_of_session.pop_front();
        let (after, result) = next.unwrap_or((Duration::ZERO, Some(Ok(()))));
        let under_way = self.begin(Call::End, None, None);
        sleep(after).await;
        under_way.answer(result).await
    }
}
