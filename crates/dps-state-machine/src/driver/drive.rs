//! Those who wait for an outcome: they drive the machine meanwhile, and when they go away, it learns of it.

use super::{
    book::{Begun, Ticket},
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
    turn.finish();
    let outcome = tokio::select! {
        biased;
        outcome = &mut outcome => outcome,
        () = driver.run() => outcome.await,
    };
    // The machine always settles what it began; should a bug break that, the caller gets an error and no hang.
    outcome.unwrap_or(Err(Error::Cancelled))
}

struct Driver<'a, T: TransportHandlers> {
    shared: &'a Shared<T>,
    ticket: Ticket,
}

impl<T: TransportHandlers> Driver<'_, T> {
    /// Brings the machine what it waits for, until what began has its outcome.
    async fn run(&self) {
        loop {
            let awaited = self.shared.book().awaited(self.ticket);
            let Some((call, until)) = awaited else { return };
            let input = self.shared.answer_or_tick(call, until).await;
            self.step(input);
        }
    }

    fn step(&self, input: Input) {
        let turn = self.shared.book().step_for(self.ticket, input);
        turn.finish();
    }
}

impl<T: TransportHandlers> Drop for Driver<'_, T> {
    fn drop(&mut self) {
        if self.ticket.drives {
            self.step(Input::Abandon);
        }
    }
}
