//! What the clones of a machine share, and how its outputs are carried out.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError},
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::{Mutex as AsyncMutex, Notify, mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::debug;

use super::{
    events::OperationStatusEvents,
    waiting::{EndInSight, Joined, Running},
};
use crate::{
    error::Error,
    ids::OperationId,
    machine::{ExchangeId, Input, Machine, Output},
    progress::{Observer, Progress, Step},
    registration_result::{OperationStatus, RegistrationResult},
    request::RegistrationRequest,
    settings::Settings,
    transport::TransportHandlers,
};

/// Far enough for ever, near enough to be an `Instant` everywhere.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

pub(super) struct Shared<T> {
    transport: Arc<AsyncMutex<T>>,
    book: Mutex<Book>,
    /// The call to the transport under way. It owns the lock on the transport: dropping it frees the transport.
    call: Mutex<Option<Call>>,
    /// Tells those who wait for the end of a session that the state has changed, in the order in which they came.
    changed: Notify,
    origin: Instant,
}

/// The machine and who is to be told.
struct Book {
    machine: Machine,
    settings: Settings,
    registrant: Option<Registrant>,
    enders: Vec<oneshot::Sender<Result<(), Error>>>,
    watchers: Vec<mpsc::Sender<OperationStatus>>,
    observer: Observer,
}

/// The registration in progress: what it asks for and who waits for it.
struct Registrant {
    request: Arc<RegistrationRequest>,
    progress: Progress,
    outcome: oneshot::Sender<Result<Box<RegistrationResult>, Error>>,
}

struct Call {
    exchange: ExchangeId,
    future: Pin<Box<dyn Future<Output = Input> + Send>>,
}

/// What the one who stepped the machine does next.
pub(super) enum Task {
    Register {
        exchange: ExchangeId,
        until: Duration,
        request: Arc<RegistrationRequest>,
        progress: Progress,
    },
    Query {
        exchange: ExchangeId,
        until: Duration,
        request: Arc<RegistrationRequest>,
        progress: Progress,
        operation_id: OperationId,
    },
    EndSession {
        exchange: ExchangeId,
        until: Duration,
    },
    Wait {
        until: Duration,
    },
}

/// What became of a wish to register.
pub(super) enum Registering<'a, T> {
    Run(Task, Running<'a, T, Box<RegistrationResult>>),
    NotYet(EndInSight<'a, T>),
    Refused(Error),
}

/// What became of a wish to end the session.
pub(super) enum Ending<'a, T> {
    Run(Task, Running<'a, T, ()>),
    /// Somebody else is at it, or there is nothing to end.
    Join(Joined<'a, T>),
}

impl<T> Shared<T> {
    pub(super) fn new(transport: T, settings: Settings, machine: Machine) -> Self {
        Self {
            transport: Arc::new(AsyncMutex::new(transport)),
            book: Mutex::new(Book {
                machine,
                settings,
                registrant: None,
                enders: Vec::new(),
                watchers: Vec::new(),
                observer: Observer::default(),
            }),
            call: Mutex::new(None),
            changed: Notify::new(),
            origin: Instant::now(),
        }
    }

    pub(super) fn state_name(&self) -> &'static str {
        self.book().machine.state().name()
    }

    pub(super) fn subscribe(&self) -> OperationStatusEvents {
        let (sender, events) = OperationStatusEvents::new();
        let mut book = self.book();
        book.watchers.retain(|watcher| !watcher.is_closed());
        book.watchers.push(sender);
        events
    }

    pub(super) fn observe(&self, observer: Observer) {
        let former = std::mem::replace(&mut self.book().observer, observer);
        // Outside of the lock: it runs code that isn't ours.
        drop(former);
    }

    pub(super) fn begin_registration(
        &self,
        request: &Arc<RegistrationRequest>,
    ) -> Registering<'_, T> {
        // Made before the step, so that no change is missed after it.
        let changed = self.changed.notified();
        let mut book = self.book();
        let outputs = book.step(self.now(), Input::Register);
        for output in &outputs {
            match output {
                Output::Refuse(error) => return Registering::Refused(error.clone()),
                Output::NotYet { until } => {
                    let until = self.instant(*until);
                    return Registering::NotYet(EndInSight { shared: self, changed, until });
                }
                _ => {}
            }
        }
        let (sender, outcome) = oneshot::channel();
        let (request, progress) = (Arc::clone(request), Progress::shown_to(book.observer.clone()));
        book.registrant = Some(Registrant { request, progress, outcome: sender });
        let running = Running { shared: self, outcome };
        match self.carry_out(book, outputs) {
            Some(task) => Registering::Run(task, running),
            None => Registering::Refused(Error::Cancelled),
        }
    }

    pub(super) fn begin_end(&self) -> Ending<'_, T> {
        let (sender, outcome) = oneshot::channel();
        let mut book = self.book();
        book.enders.push(sender);
        let outputs = book.step(self.now(), Input::EndSession);
        let until = self.instant(book.machine.state().until().unwrap_or_default());
        match self.carry_out(book, outputs) {
            Some(task) => Ending::Run(task, Running { shared: self, outcome }),
            None => Ending::Join(Joined { shared: self, outcome, until }),
        }
    }

    /// Steps the machine and carries out all but the task that is left to whoever stepped.
    pub(super) fn step(&self, input: Input) -> Option<Task> {
        let mut book = self.book();
        let outputs = book.step(self.now(), input);
        self.carry_out(book, outputs)
    }

    /// Tells the machine that nobody drives any more, unless the outcome has come. That is asked under the lock:
    /// either it has, or it comes because of this step.
    pub(super) fn abandon_unless(&self, has_come: impl FnOnce() -> bool) {
        let mut book = self.book();
        if !has_come() {
            let outputs = book.step(self.now(), Input::Abandon);
            self.carry_out(book, outputs);
        }
    }

    fn carry_out(&self, mut book: MutexGuard<'_, Book>, outputs: Vec<Output>) -> Option<Task> {
        let now = self.now();
        let mut task = None;
        let mut dropped = None;
        let mut steps = Vec::new();
        let progress = book.registrant.as_ref().map(|registrant| registrant.progress.clone());
        for output in outputs {
            match output {
                Output::RegistrationRequest { exchange, until } => {
                    steps.push(Step::Registering);
                    task = book.request().map(|(request, progress)| Task::Register {
                        exchange,
                        until,
                        request,
                        progress,
                    });
                }
                Output::QueryOperationStatus { exchange, operation_id, until } => {
                    steps.push(Step::Polling);
                    task = book.request().map(|(request, progress)| Task::Query {
                        exchange,
                        until,
                        request,
                        progress,
                        operation_id,
                    });
                }
                Output::Wait { until, then } => {
                    steps.push(Step::Waiting { wait: until.saturating_sub(now), then });
                    task = Some(Task::Wait { until });
                }
                Output::EndSession { exchange, until } => {
                    task = Some(Task::EndSession { exchange, until });
                }
                Output::Drop(exchange) => dropped = self.take_call(exchange),
                Output::Emit(event) => {
                    steps.push(match &event {
                        OperationStatus::Assigning { operation_id, .. } => {
                            Step::Assigning { operation_id: operation_id.clone() }
                        }
                        OperationStatus::Assigned { .. } => Step::Assigned,
                    });
                    // A reader that is far behind misses this one: the registration does not wait for it.
                    book.watchers.retain(|watcher| {
                        !matches!(
                            watcher.try_send(event.clone()),
                            Err(mpsc::error::TrySendError::Closed(_))
                        )
                    });
                }
                Output::Complete(mut outcome) => {
                    if let Some(registrant) = book.registrant.take() {
                        name_the_stage(&mut outcome, &registrant.progress);
                        let _ = registrant.outcome.send(outcome);
                    }
                }
                Output::Ended(result) => {
                    for ender in book.enders.drain(..) {
                        let _ = ender.send(result.clone());
                    }
                }
                // Read by `begin_registration`, who alone can cause them.
                Output::Refuse(_) | Output::NotYet { .. } => {}
            }
        }
        drop(book);
        // Outside of the lock: both run code that isn't ours.
        drop(dropped);
        for step in &steps {
            debug!(?step);
            if let Some(progress) = &progress {
                progress.enter(step);
            }
        }
        self.changed.notify_waiters();
        task
    }

    /// Takes the call out of its place to be dropped. While it is being polled it stays there: whoever polls it
    /// sees afterwards that it is stale.
    fn take_call(&self, exchange: ExchangeId) -> Option<Call> {
        let mut call = match self.call.try_lock() {
            Ok(call) => call,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        call.take_if(|call| call.exchange == exchange)
    }

    /// Waits for the transport, or for time to pass.
    async fn call(
        &self,
        exchange: ExchangeId,
        until: Duration,
        future: impl Future<Output = Input> + Send + 'static,
    ) -> Input {
        let former = lock(&self.call).replace(Call { exchange, future: Box::pin(future) });
        drop(former);
        let answered = poll_fn(|cx| {
            let mut place = lock(&self.call);
            let Some(call) = place.as_mut().filter(|call| call.exchange == exchange) else {
                // Dropped by whoever cancelled: the outcome comes by its own way.
                return Poll::Pending;
            };
            let polled = call.future.as_mut().poll(cx);
            let done =
                if polled.is_ready() || !self.is_current(exchange) { place.take() } else { None };
            drop(place);
            drop(done);
            polled
        });
        timeout_at(self.instant(until), answered).await.unwrap_or(Input::Tick)
    }

    fn is_current(&self, exchange: ExchangeId) -> bool {
        self.book().machine.state().exchange() == Some(exchange)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }

    fn instant(&self, since_origin: Duration) -> Instant {
        self.origin.checked_add(since_origin).unwrap_or_else(|| self.origin + FAR)
    }
}

impl<T: TransportHandlers> Shared<T> {
    /// Does one task and says what happened.
    pub(super) async fn perform(&self, task: Task) -> Input {
        let transport = Arc::clone(&self.transport);
        match task {
            Task::Register { exchange, until, request, progress } => {
                let call = async move {
                    let mut transport = transport.lock_owned().await;
                    let answer = transport.registration_request(&request, &progress).await;
                    Input::Answer(exchange, answer)
                };
                self.call(exchange, until, call).await
            }
            Task::Query { exchange, until, request, progress, operation_id } => {
                let call = async move {
                    let mut transport = transport.lock_owned().await;
                    let answer =
                        transport.query_operation_status(&request, &operation_id, &progress).await;
                    Input::Answer(exchange, answer)
                };
                self.call(exchange, until, call).await
            }
            Task::EndSession { exchange, until } => {
                let call = async move {
                    let mut transport = transport.lock_owned().await;
                    Input::SessionEnded(exchange, transport.end_session().await)
                };
                self.call(exchange, until, call).await
            }
            Task::Wait { until } => {
                sleep_until(self.instant(until)).await;
                Input::Tick
            }
        }
    }
}

impl Book {
    fn step(&mut self, now: Duration, input: Input) -> Vec<Output> {
        let idle = Machine::new(self.settings, 0);
        let (machine, outputs) = std::mem::replace(&mut self.machine, idle).step(now, input);
        self.machine = machine;
        outputs
    }

    fn request(&self) -> Option<(Arc<RegistrationRequest>, Progress)> {
        let Registrant { request, progress, .. } = self.registrant.as_ref()?;
        Some((Arc::clone(request), progress.clone()))
    }
}

/// The machine knows which request timed out; which part of the connection it hung in, the transport has said.
fn name_the_stage(outcome: &mut Result<Box<RegistrationResult>, Error>, progress: &Progress) {
    if let (Err(Error::Timeout(timeout)), Some(stage)) = (outcome, progress.stage()) {
        timeout.stage = stage;
    }
}

fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    // Each holder leaves the value whole, so that one that panicked hurts nobody else.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
