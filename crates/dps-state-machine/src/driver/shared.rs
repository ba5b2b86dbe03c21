//! The lock that the clones of a machine share.

use std::{
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::time::{Instant, timeout_at};

use super::book::Book;
use crate::{
    machine::{ExchangeId, Input, Machine},
    transport::TransportHandlers,
};

pub(super) struct Shared<T>(Mutex<Book<T>>);

impl<T: TransportHandlers> Shared<T> {
    pub(super) fn new(transport: T, machine: Machine) -> Self {
        Self(Mutex::new(Book::new(transport, machine)))
    }

    /// Nobody else's code may run while this is held.
    pub(super) fn book(&self) -> MutexGuard<'_, Book<T>> {
        // Each holder leaves the book whole, so that one that panicked hurts nobody else.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the call answers, or that its time is up; without a call, that the time is up.
    pub(super) async fn answer_or_tick(&self, call: Option<ExchangeId>, until: Instant) -> Input {
        let answer = poll_fn(|cx| call.map_or(Poll::Pending, |call| self.poll_call(call, cx)));
        timeout_at(until, answer).await.unwrap_or(Input::Tick)
    }

    /// Polls the call under way. While it is polled it is out of the book: the transport, and an observer that it calls,
    /// may step the machine, and whoever cancels meanwhile finds nothing to drop. So a call that went stale is dropped
    /// here, and the outcome comes by its own way.
    fn poll_call(&self, exchange: ExchangeId, cx: &mut Context<'_>) -> Poll<Input> {
        let Some(mut call) = self.book().take_call(exchange) else { return Poll::Pending };
        let polled = call.as_mut().poll(cx);
        if polled.is_pending() {
            let stale = self.book().put_call(exchange, call);
            drop(stale);
        }
        polled
    }
}
