//! The lock, the clock and the transport that the clones of a machine share.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, sleep_until, timeout_at},
};

use super::book::{Book, Call, Job, Request, Task};
use crate::{
    machine::{Exchange, ExchangeId, Input, Machine},
    transport::TransportHandlers,
};

/// Far enough for ever, near enough to be an `Instant` everywhere.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

pub(super) struct Shared<T> {
    transport: Arc<AsyncMutex<T>>,
    book: Mutex<Book>,
    origin: Instant,
}

impl<T> Shared<T> {
    pub(super) fn new(transport: T, machine: Machine) -> Self {
        Self {
            transport: Arc::new(AsyncMutex::new(transport)),
            book: Mutex::new(Book::new(machine)),
            origin: Instant::now(),
        }
    }

    /// Nobody else's code may run while this is held.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        // Each holder leaves the book whole, so that one that panicked hurts nobody else.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }

    pub(super) fn instant(&self, since_origin: Duration) -> Instant {
        self.origin.checked_add(since_origin).unwrap_or_else(|| self.origin + FAR)
    }

    /// Polls the call under way. While it is polled it is out of the book: the transport, and an observer that it calls,
    /// may step the machine, and whoever cancels meanwhile finds nothing to drop. So a call that went stale is dropped
    /// here, and the outcome comes by its own way.
    fn poll_call(&self, exchange: ExchangeId, cx: &mut Context<'_>) -> Poll<Input> {
        let Some(mut call) = self.book().take_call(exchange) else { return Poll::Pending };
        let polled = call.future.as_mut().poll(cx);
        if polled.is_pending() {
            let stale = self.book().put_call(call);
            drop(stale);
        }
        polled
    }
}

impl<T: TransportHandlers> Shared<T> {
    /// Does one task and says what happened.
    pub(super) async fn perform(&self, task: Task) -> Input {
        let (Exchange { id, until, .. }, request) = match task {
            Task::Call(exchange, request) => (exchange, request),
            Task::Wait(until) => {
                sleep_until(self.instant(until)).await;
                return Input::Tick;
            }
        };
        let future = Box::pin(carry_out(Arc::clone(&self.transport), id, request));
        let stale = self.book().put_call(Call { exchange: id, future });
        drop(stale);
        let answered = poll_fn(|cx| self.poll_call(id, cx));
        timeout_at(self.instant(until), answered).await.unwrap_or(Input::Tick)
    }
}

/// Calls the transport, as soon as the call before has returned or has been dropped.
async fn carry_out<T: TransportHandlers>(
    transport: Arc<AsyncMutex<T>>,
    exchange: ExchangeId,
    request: Request,
) -> Input {
    let mut transport = transport.lock_owned().await;
    let answer = match request {
        Request::Register(Job { request, progress }) => {
            transport.registration_request(&request, &progress).await
        }
        Request::Query(Job { request, progress }, operation_id) => {
            transport.query_operation_status(&request, &operation_id, &progress).await
        }
        Request::EndSession => return Input::SessionEnded(exchange, transport.end_session().await),
    };
    Input::Answer(exchange, answer)
}
