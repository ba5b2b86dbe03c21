//! A transport that does as the test says, and keeps book of what it was asked.
#![allow(
    clippy::allow_attributes,
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of it: an expectation would fail in some"
)]
#![allow(missing_debug_implementations, clippy::unwrap_used, reason = "test support")]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use dps_state_machine::{
    ConnectionError, Error, OperationId, Progress, ProtocolResult, RegistrationRequest, Response,
    Settings, Stage, StateMachine, Step, TransportHandlers,
};
use tokio::time::{Instant, sleep};

/// What the transport was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Register(String),
    Query(String),
    End,
}

/// How it answers, after how long. `None` never answers.
pub type Scripted = (Duration, Option<Result<Response, Error>>);

/// When somebody else's code runs within ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    CallBegan,
    CallOver,
    Step,
    Woken,
}

pub type Hook = Arc<dyn Fn(Moment) + Send + Sync>;

pub type EndOfSession = (Duration, Result<(), Error>);

#[derive(Clone, Default)]
pub struct ScriptedTransport {
    pub calls: Arc<Mutex<Vec<(Duration, Call)>>>,
    pub answers: Arc<Mutex<VecDeque<Scripted>>>,
    pub ends_of_session: Arc<Mutex<VecDeque<EndOfSession>>>,
    /// Calls under way; more than one at once is a fault of the machine's.
    pub under_way: Arc<AtomicUsize>,
    pub most_under_way: Arc<AtomicUsize>,
    /// What each call says of its connection.
    pub steps: Arc<Mutex<Vec<Step>>>,
    /// Called when a call begins and when it is over, from within its future and from within its drop.
    pub hook: Arc<Mutex<Option<Hook>>>,
    started: Arc<Mutex<Option<Instant>>>,
}

impl ScriptedTransport {
    pub fn answering(answers: impl IntoIterator<Item = Result<Response, Error>>) -> Self {
        let transport = Self::default();
        for answer in answers {
            transport.then(Duration::ZERO, answer);
        }
        transport
    }

    pub fn then(&self, after: Duration, answer: Result<Response, Error>) -> &Self {
        self.answers.lock().unwrap().push_back((after, Some(answer)));
        self
    }

    pub fn then_never(&self) -> &Self {
        self.answers.lock().unwrap().push_back((Duration::ZERO, None));
        self
    }

    pub fn end_of_session(&self, after: Duration, result: Result<(), Error>) -> &Self {
        self.ends_of_session.lock().unwrap().push_back((after, result));
        self
    }

    pub fn machine(&self) -> StateMachine<Self> {
        self.machine_with(settings())
    }

    pub fn machine_with(&self, settings: Settings) -> StateMachine<Self> {
        StateMachine::new(self.clone(), settings)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().iter().map(|(_, call)| call.clone()).collect()
    }

    /// When each call was made, since the first.
    pub fn times(&self) -> Vec<Duration> {
        self.calls.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }

    fn enter(&self, call: Call) -> UnderWay {
        let started = *self.started.lock().unwrap().get_or_insert_with(Instant::now);
        self.calls.lock().unwrap().push((started.elapsed(), call));
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(now, Ordering::SeqCst);
        let under_way = UnderWay(self.clone());
        self.call_hook(Moment::CallBegan);
        under_way
    }

    fn call_hook(&self, moment: Moment) {
        let hook = self.hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(moment);
        }
    }

    fn connect(&self, progress: &Progress) {
        let steps = self.steps.lock().unwrap().clone();
        for step in &steps {
            progress.enter(step);
        }
    }

    async fn answer(&self) -> Result<Response, Error> {
        let next = self.answers.lock().unwrap().pop_front();
        let (after, answer) = next.unwrap_or((Duration::ZERO, None));
        sleep(after).await;
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

/// Counts a call until it returns or is dropped.
struct UnderWay(ScriptedTransport);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        self.0.call_hook(Moment::CallOver);
    }
}

impl TransportHandlers for ScriptedTransport {
    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let _under_way = self.enter(Call::Register(request.registration_id().to_string()));
        self.connect(progress);
        self.answer().await
    }

    async fn query_operation_status(
        &mut self,
        _: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let _under_way = self.enter(Call::Query(operation_id.to_string()));
        self.connect(progress);
        self.answer().await
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        let _under_way = self.enter(Call::End);
        let next = self.ends_of_session.lock().unwrap().pop_front();
        let (after, result) = next.unwrap_or((Duration::ZERO, Ok(())));
        sleep(after).await;
        result
    }
}

/// No jitter, so that times are exact; all else as the real service wants it.
pub fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.jitter_percent = 0;
    settings
}

/// The same with some of them changed.
pub fn settings_with(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = settings();
    change(&mut settings);
    settings
}

pub fn request() -> RegistrationRequest {
    RegistrationRequest::new("dev-1".parse().unwrap())
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn assigned() -> Result<Response, Error> {
    let body = r#"{"operationId":"op-1","status":"assigned","registrationState":{"assignedHub":"hub-1","deviceId":"dev-1","substatus":"initialAssignment"}}"#;
    Ok(Response::new(200, body)
        .protocol_result(ProtocolResult::from_iter([("transport", "scripted")])))
}

pub fn assigning() -> Result<Response, Error> {
    Ok(Response::new(202, r#"{"operationId":"op-1","status":"assigning"}"#))
}

pub fn assigning_after(seconds: u64) -> Result<Response, Error> {
    assigning().map(|response| response.retry_after(Some(secs(seconds))))
}

pub fn status(word: &str) -> Result<Response, Error> {
    let body = format!(
        r#"{{"operationId":"op-1","status":"{word}","registrationState":{{"errorCode":400207,"errorMessage":"no hub"}}}}"#
    );
    Ok(Response::new(200, body)
        .protocol_result(ProtocolResult::from_iter([("transport", "scripted")])))
}

pub fn refused(code: u32, retry_after: Option<u64>) -> Result<Response, Error> {
    let body = format!(r#"{{"errorCode":{code},"trackingId":"t-1","message":"not now"}}"#);
    let status = u16::try_from(code / 1000).unwrap();
    Ok(Response::new(status, body).retry_after(retry_after.map(secs)))
}

pub fn broken() -> Result<Response, Error> {
    Err(ConnectionError::new(Stage::Connect, "connection refused").into())
}

pub fn lost() -> Result<Response, Error> {
    Err(ConnectionError::lost(Stage::Query, "connection reset").into())
}
