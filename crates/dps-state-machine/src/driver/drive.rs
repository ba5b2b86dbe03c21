//! Those who wait for an outcome: they drive the machine meanwhile, and when they go away, it learns of it.

use tokio::sync::oneshot::error::RecvError;

use super::{
    book::{Begun, Task, Ticket},
    shared::Shared,
};
use crate::{error::Error, machine::Input, transport::TransportHandlers};

/// Carries out what has begun and what follows from it, until there is an outcome.
///
/// Dropped before that, the machine learns that nobody drives any more.
pub(super) async fn drive<T: TransportHandlers, V>(
    shared: &Shared<T>,
    Begun { ticket, mut outcome, turn }: Begun<V>,
) -> Result<V, Error> {
    let driver = Driver { shared, ticket };
    let mut task = turn.finish();
    while let Some(current) = task {
        let input = tokio::select! {
            biased;
            outcome = &mut outcome => return settled(outcome),
            input = shared.perform(current) => input,
        };
        task = driver.step(input);
    }
    settled(outcome.await)
}

struct Driver<'a, T> {
    shared: &'a Shared<T>,
    ticket: Ticket,
}

impl<T> Driver<'_, T> {
    fn step(&self, input: Input) -> Option<Task> {
        let now = self.shared.now();
        let turn = self.shared.book().step_for(self.ticket, now, input);
        turn.finish()
    }
}

impl<T> Drop for Driver<'_, T> {
    fn drop(&mut self) {
        if self.ticket.drives {
            self.step(Input::Abandon);
        }
    }
}

/// The machine always settles what it began; should a bug break that, the caller gets an error and no hang.
fn settled<V>(outcome: Result<Result<V, Error>, RecvError>) -> Result<V, Error> {
    outcome.unwrap_or(Err(Error::Cancelled))
}
