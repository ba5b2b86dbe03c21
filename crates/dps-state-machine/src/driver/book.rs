//! What the clones of a machine share under one lock.
//!
//! Nothing in here runs code that isn't ours: whatever could (an observer, a waker, the drop of a transport's future) is
//! put into a [`Turn`], which is carried out when the lock is free again. So that code may call the machine.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::events::OperationStatusEvents;
use crate::{
    error::{Error, TimeoutScope},
    ids::OperationId,
    machine::{Exchange, ExchangeId, Input, Machine, Output},
    progress::{Observer, Progress, Step},
    registration_result::{OperationStatus, RegistrationResult},
    request::RegistrationRequest,
};

type Outcome<V> = Result<V, Error>;

/// The machine and who waits for its outcome.
pub(super) struct Book {
    pub(super) machine: Machine,
    pub(super) observer: Observer,
    /// The call to the transport under way, except while it is polled.
    call: Option<Call>,
    registrant: Option<Registrant>,
    enders: Vec<oneshot::Sender<Outcome<()>>>,
    watchers: Vec<mpsc::Sender<OperationStatus>>,
    /// How many registrations and ends of sessions have an outcome.
    settled: u64,
}

/// The registration in progress and who waits for it.
struct Registrant {
    job: Job,
    outcome: oneshot::Sender<Outcome<Box<RegistrationResult>>>,
}

/// What a registration asks for, and how far it has come.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) request: Arc<RegistrationRequest>,
    pub(super) progress: Progress,
}

/// A call to the transport. It owns the lock on the transport: dropping it frees the transport.
pub(super) struct Call {
    pub(super) exchange: ExchangeId,
    pub(super) future: Pin<Box<dyn Future<Output = Input> + Send>>,
}

/// What the one who stepped the machine does next.
pub(super) enum Task {
    Call(Exchange, Request),
    Wait(Duration),
}

/// What to call the transport for.
pub(super) enum Request {
    Register(Job),
    Query(Job, OperationId),
    EndSession,
}

/// A registration or an end of a session that has begun, for one who waits for its outcome.
pub(super) struct Begun<V> {
    pub(super) ticket: Ticket,
    pub(super) outcome: oneshot::Receiver<Outcome<V>>,
    pub(super) turn: Turn,
}

/// Who may step the machine: void as soon as what began with it has its outcome, since somebody else may drive by then.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    settled: u64,
    /// Whether it began for this one, or was under way already and is only waited for.
    pub(super) drives: bool,
}

/// What becomes of somebody who wants to register.
pub(super) enum Registering {
    Begun(Begun<Box<RegistrationResult>>),
    /// The end of the session has to be waited for.
    NotYet(Begun<()>),
    Refused(Error),
}

impl Book {
    pub(super) fn new(machine: Machine) -> Self {
        Self {
            machine,
            observer: Observer::default(),
            call: None,
            registrant: None,
            enders: Vec::new(),
            watchers: Vec::new(),
            settled: 0,
        }
    }

    pub(super) fn subscribe(&mut self) -> OperationStatusEvents {
        let (sender, events) = OperationStatusEvents::new();
        self.watchers.retain(|watcher| !watcher.is_closed());
        self.watchers.push(sender);
        events
    }

    pub(super) fn register(
        &mut self,
        now: Duration,
        request: &Arc<RegistrationRequest>,
    ) -> Registering {
        let outputs = self.machine.step(now, Input::Register);
        match outputs.first() {
            Some(Output::Refuse(error)) => return Registering::Refused(error.clone()),
            Some(Output::NotYet { .. }) => return Registering::NotYet(self.end_session(now)),
            _ => {}
        }
        let progress = Progress::shown_to(self.observer.clone());
        let job = Job { request: Arc::clone(request), progress };
        let (sender, outcome) = oneshot::channel();
        self.registrant = Some(Registrant { job, outcome: sender });
        let turn = self.carry_out(now, outputs);
        let ticket = Ticket { settled: self.settled, drives: true };
        Registering::Begun(Begun { ticket, outcome, turn })
    }

    /// Begins to end the session. One that is being ended already is waited for, and given up in the other's place when
    /// its time is over.
    pub(super) fn end_session(&mut self, now: Duration) -> Begun<()> {
        let (sender, outcome) = oneshot::channel();
        self.enders.push(sender);
        let outputs = self.machine.step(now, Input::EndSession);
        let drives = !outputs.is_empty();
        let mut turn = self.carry_out(now, outputs);
        if !drives {
            turn.task = self.machine.state().until().map(Task::Wait);
        }
        Begun { ticket: Ticket { settled: self.settled, drives }, outcome, turn }
    }

    pub(super) fn step(&mut self, now: Duration, input: Input) -> Turn {
        let outputs = self.machine.step(now, input);
        self.carry_out(now, outputs)
    }

    pub(super) fn step_for(&mut self, ticket: Ticket, now: Duration, input: Input) -> Turn {
        if ticket.settled == self.settled { self.step(now, input) } else { Turn::default() }
    }

    /// Takes the call out, to be polled or dropped.
    pub(super) fn take_call(&mut self, exchange: ExchangeId) -> Option<Call> {
        self.call.take_if(|call| call.exchange == exchange)
    }

    /// Puts a call in its place, or gives it back when it is stale: it was cancelled or timed out meanwhile.
    pub(super) fn put_call(&mut self, call: Call) -> Option<Call> {
        if self.machine.state().exchange() != Some(call.exchange) {
            return Some(call);
        }
        self.call.replace(call)
    }

    fn carry_out(&mut self, now: Duration, outputs: Vec<Output>) -> Turn {
        let mut turn = Turn::default();
        let job = self.registrant.as_ref().map(|registrant| registrant.job.clone());
        let progress = job.as_ref().map(|job| job.progress.clone()).unwrap_or_default();
        for output in outputs {
            match output {
                Output::RegistrationRequest(exchange) => {
                    turn.call(exchange, job.clone().map(Request::Register));
                    turn.show(&progress, Step::Registering);
                }
                Output::QueryOperationStatus { exchange, operation_id } => {
                    turn.call(exchange, job.clone().map(|job| Request::Query(job, operation_id)));
                    turn.show(&progress, Step::Polling);
                }
                Output::Wait { until, then } => {
                    turn.task = Some(Task::Wait(until));
                    turn.show(&progress, Step::Waiting { wait: until.saturating_sub(now), then });
                }
                Output::EndSession(exchange) => turn.call(exchange, Some(Request::EndSession)),
                Output::Drop(exchange) => {
                    let dropped = self.take_call(exchange);
                    turn.afterwards(|| drop(dropped));
                }
                Output::Emit(event) => {
                    let (step, watchers) = (Step::from(&event), self.watchers.clone());
                    turn.afterwards(move || {
                        for watcher in watchers {
                            // A reader that is far behind misses this one: the registration does not wait for it.
                            let _ = watcher.try_send(event.clone());
                        }
                    });
                    turn.show(&progress, step);
                }
                Output::Complete(mut outcome) => {
                    self.settled += 1;
                    let Some(registrant) = self.registrant.take() else { continue };
                    name_the_stage(&mut outcome, &progress);
                    turn.afterwards(|| drop(registrant.outcome.send(outcome)));
                }
                Output::Ended(outcome) => {
                    self.settled += 1;
                    let enders = std::mem::take(&mut self.enders);
                    turn.afterwards(move || {
                        enders.into_iter().for_each(|ender| drop(ender.send(outcome.clone())));
                    });
                }
                // Read by `register`, which alone can cause them.
                Output::Refuse(_) | Output::NotYet { .. } => {}
            }
        }
        turn
    }
}

/// The machine knows which request timed out. The transport has said which stage on the way to the service that was,
/// or what the peer did while the request waited.
fn name_the_stage(outcome: &mut Outcome<Box<RegistrationResult>>, progress: &Progress) {
    let Err(Error::Timeout(timeout)) = outcome else { return };
    match progress.stage() {
        Some(stage) => timeout.stage = stage,
        None if timeout.scope == TimeoutScope::Request => timeout.activity = progress.activity(),
        None => {}
    }
}

/// What one step of the machine leaves to be done when the lock is free again.
#[derive(Default)]
#[must_use]
pub(super) struct Turn {
    task: Option<Task>,
    afterwards: Vec<Box<dyn FnOnce() + Send>>,
}

impl Turn {
    /// Does all but the task, which is left to the one who drives.
    pub(super) fn finish(self) -> Option<Task> {
        self.afterwards.into_iter().for_each(|act| act());
        self.task
    }

    fn call(&mut self, exchange: Exchange, request: Option<Request>) {
        self.task = request.map(|request| Task::Call(exchange, request));
    }

    fn afterwards(&mut self, act: impl FnOnce() + Send + 'static) {
        self.afterwards.push(Box::new(act));
    }

    fn show(&mut self, progress: &Progress, step: Step) {
        let progress = progress.clone();
        self.afterwards(move || {
            debug!(?step);
            progress.enter(&step);
        });
    }
}
