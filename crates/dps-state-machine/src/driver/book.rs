//! What the clones of a machine share under one lock.
//!
//! Nothing in here runs code that isn't ours: whatever could (an observer, a waker, the drop of a transport's future) is
//! put into a [`Turn`], which is carried out when the lock is free again. So that code may call the machine.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, oneshot},
    time::Instant,
};
use tracing::debug;

use super::events::OperationStatusEvents;
use crate::{
    error::{Error, TimeoutScope},
    ids::OperationId,
    known::Known,
    machine::{Exchange, ExchangeId, Input, Machine, Output},
    progress::{Observer, Progress, Step},
    registration_result::{OperationStatus, RegistrationResult},
    request::RegistrationRequest,
    transport::TransportHandlers,
};

/// Far enough for ever, near enough to be an `Instant` everywhere.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

type Outcome<V> = Result<V, Error>;

/// The machine, the call to the transport, and who waits for the outcome.
pub(super) struct Book<T> {
    pub(super) machine: Machine,
    /// The machine counts its times from here.
    origin: Instant,
    pub(super) observer: Observer,
    transport: Arc<AsyncMutex<T>>,
    /// The call to the transport under way, except while it is polled.
    call: Option<(ExchangeId, Call)>,
    registrant: Option<Registrant>,
    enders: Vec<oneshot::Sender<Outcome<()>>>,
    watchers: Vec<mpsc::Sender<OperationStatus>>,
    /// A connection may stand longer than the registration that it was made for.
    known: Arc<Known>,
    /// How many registrations and ends of sessions have an outcome.
    settled: u64,
}

/// The registration in progress, how far it has come, and who waits for it.
struct Registrant {
    request: Arc<RegistrationRequest>,
    progress: Progress,
    outcome: oneshot::Sender<Outcome<Box<RegistrationResult>>>,
}

impl Registrant {
    /// The registrant as a whole goes away here, since it may be the last to hold an observer that has been replaced.
    fn settle(self, outcome: Outcome<Box<RegistrationResult>>) {
        drop(self.outcome.send(outcome));
    }
}

/// A call to the transport. It takes the lock on the transport when it is polled first, that is when the call before has
/// returned or has been dropped, and dropping it frees the transport.
pub(super) type Call = Pin<Box<dyn Future<Output = Input> + Send>>;

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

impl<T: TransportHandlers> Book<T> {
    pub(super) fn new(transport: T, machine: Machine) -> Self {
        Self {
            machine,
            origin: Instant::now(),
            observer: Observer::default(),
            transport: Arc::new(AsyncMutex::new(transport)),
            call: None,
            registrant: None,
            enders: Vec::new(),
            watchers: Vec::new(),
            known: Arc::default(),
            settled: 0,
        }
    }

    pub(super) fn subscribe(&mut self) -> OperationStatusEvents {
        let (sender, events) = OperationStatusEvents::new();
        self.watchers.retain(|watcher| !watcher.is_closed());
        self.watchers.push(sender);
        events
    }

    pub(super) fn register(&mut self, request: &Arc<RegistrationRequest>) -> Registering {
        let now = self.now();
        let outputs = self.machine.step(now, Input::Register);
        match outputs.first() {
            Some(Output::Refuse(error)) => return Registering::Refused(error.clone()),
            Some(Output::NotYet { .. }) => return Registering::NotYet(self.end_session()),
            _ => {}
        }
        let (sender, outcome) = oneshot::channel();
        let progress = Progress::shown_to(self.observer.clone(), Arc::clone(&self.known));
        let request = Arc::clone(request);
        self.registrant = Some(Registrant { request, progress, outcome: sender });
        let turn = self.carry_out(now, outputs);
        let ticket = Ticket { settled: self.settled, drives: true };
        Registering::Begun(Begun { ticket, outcome, turn })
    }

    /// Begins to end the session. One that is being ended already is waited for, and given up in the other's place when
    /// its time is over.
    pub(super) fn end_session(&mut self) -> Begun<()> {
        let now = self.now();
        let (sender, outcome) = oneshot::channel();
        self.enders.push(sender);
        let outputs = self.machine.step(now, Input::EndSession);
        let drives = matches!(outputs.last(), Some(Output::EndSession(_)));
        let turn = self.carry_out(now, outputs);
        Begun { ticket: Ticket { settled: self.settled, drives }, outcome, turn }
    }

    pub(super) fn step(&mut self, input: Input) -> Turn {
        let now = self.now();
        let outputs = self.machine.step(now, input);
        self.carry_out(now, outputs)
    }

    pub(super) fn step_for(&mut self, ticket: Ticket, input: Input) -> Turn {
        if ticket.settled == self.settled { self.step(input) } else { Turn::default() }
    }

    /// What the machine waits for: the call to the transport, if it is for this one to poll, and the time.
    pub(super) fn awaited(&self, ticket: Ticket) -> Option<(Option<ExchangeId>, Instant)> {
        let state = self.machine.state();
        let until = state.until().filter(|_| ticket.settled == self.settled)?;
        let until = self.origin.checked_add(until).unwrap_or_else(|| self.origin + FAR);
        Some((state.exchange().filter(|_| ticket.drives), until))
    }

    /// Takes the call out, to be polled or dropped.
    pub(super) fn take_call(&mut self, exchange: ExchangeId) -> Option<Call> {
        self.call.take_if(|(id, _)| *id == exchange).map(|(_, call)| call)
    }

    /// Puts a call back, or returns it when it is stale: it was cancelled or timed out meanwhile.
    pub(super) fn put_call(&mut self, exchange: ExchangeId, call: Call) -> Option<Call> {
        if self.machine.state().exchange() != Some(exchange) {
            return Some(call);
        }
        self.call.replace((exchange, call)).map(|(_, call)| call)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn carry_out(&mut self, now: Duration, outputs: Vec<Output>) -> Turn {
        let mut turn = Turn::default();
        let progress = self.registrant.as_ref().map(|registrant| registrant.progress.clone());
        let progress = progress.unwrap_or_default();
        for output in outputs {
            match output {
                Output::RegistrationRequest(exchange) => {
                    self.request(exchange.id, None);
                    turn.show(&progress, Step::Registering);
                }
                Output::QueryOperationStatus { exchange, operation_id } => {
                    self.request(exchange.id, Some(operation_id));
                    turn.show(&progress, Step::Polling);
                }
                Output::Wait { until, then } => {
                    turn.show(&progress, Step::Waiting { wait: until.saturating_sub(now), then });
                }
                Output::EndSession(Exchange { id, .. }) => {
                    let transport = Arc::clone(&self.transport).lock_owned();
                    let call =
                        async move { Input::SessionEnded(id, transport.await.end_session().await) };
                    self.call = Some((id, Box::pin(call)));
                }
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
                    let known = Arc::clone(&self.known);
                    turn.afterwards(move || {
                        hide(&mut outcome, &known);
                        registrant.settle(outcome);
                    });
                }
                Output::Ended(mut outcome) => {
                    self.settled += 1;
                    let enders = std::mem::take(&mut self.enders);
                    let known = Arc::clone(&self.known);
                    turn.afterwards(move || {
                        hide(&mut outcome, &known);
                        enders.into_iter().for_each(|ender| drop(ender.send(outcome.clone())));
                    });
                }
                // Read by `register`, which alone can cause them.
                Output::Refuse(_) | Output::NotYet { .. } => {}
            }
        }
        turn
    }

    /// Calls the transport for the registration in progress: to ask about its operation, if it has one.
    fn request(&mut self, id: ExchangeId, operation: Option<OperationId>) {
        let Some(Registrant { request, progress, .. }) = &self.registrant else { return };
        let (request, progress) = (Arc::clone(request), progress.clone());
        let transport = Arc::clone(&self.transport).lock_owned();
        let call = async move {
            let mut transport = transport.await;
            let answer = match operation {
                None => transport.registration_request(&request, &progress).await,
                Some(operation) => {
                    transport.query_operation_status(&request, &operation, &progress).await
                }
            };
            Input::Answer(id, answer)
        };
        self.call = Some((id, Box::pin(call)));
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

/// A peer may have said back what the client has sent.
fn hide<V>(outcome: &mut Outcome<V>, known: &Known) {
    if let Err(error) = outcome
        && let Some(secrets) = known.encodings()
    {
        error.hide(&secrets);
    }
}

/// What one step of the machine leaves to be done when the lock is free again.
#[derive(Default)]
#[must_use]
pub(super) struct Turn(Vec<Box<dyn FnOnce() + Send>>);

impl Turn {
    pub(super) fn finish(self) {
        self.0.into_iter().for_each(|act| act());
    }

    fn afterwards(&mut self, act: impl FnOnce() + Send + 'static) {
        self.0.push(Box::new(act));
    }

    fn show(&mut self, progress: &Progress, step: Step) {
        let progress = progress.clone();
        self.afterwards(move || {
            debug!(step = %progress.masked(&step));
            progress.enter(&step);
        });
    }
}
