//! Those who wait for an outcome, and what becomes of it when they go away.

use tokio::{
    sync::{
        futures::Notified,
        oneshot::{self, error::TryRecvError},
    },
    time::{Instant, sleep_until, timeout_at},
};

use super::shared::Shared;
use crate::{error::Error, machine::Input};

/// Somebody who drives a registration or the end of a session. Dropped before the outcome came, the machine
/// learns that nobody drives any more.
pub(super) struct Running<'a, T, V> {
    pub(super) shared: &'a Shared<T>,
    pub(super) outcome: oneshot::Receiver<Result<V, Error>>,
}

impl<T, V> Running<'_, T, V> {
    /// The outcome. It is safe to drop this future and call again.
    pub(super) async fn outcome(&mut self) -> Result<V, Error> {
        settled((&mut self.outcome).await)
    }
}

impl<T, V> Drop for Running<'_, T, V> {
    fn drop(&mut self) {
        let Self { shared, outcome } = self;
        shared.abandon_unless(|| !matches!(outcome.try_recv(), Err(TryRecvError::Empty)));
    }
}

/// Somebody who waits for the end of a session that somebody else carries out.
pub(super) struct Joined<'a, T> {
    pub(super) shared: &'a Shared<T>,
    pub(super) outcome: oneshot::Receiver<Result<(), Error>>,
    pub(super) until: Instant,
}

impl<T> Joined<'_, T> {
    /// Waits, and gives the end of the session up in the other's place when its time is over.
    pub(super) async fn outcome(mut self) -> Result<(), Error> {
        tokio::select! {
            biased;
            outcome = &mut self.outcome => return settled(outcome),
            () = sleep_until(self.until) => {}
        }
        self.shared.step(Input::Tick);
        settled(self.outcome.await)
    }
}

/// Somebody who registers as soon as the session that is being ended has ended.
pub(super) struct EndInSight<'a, T> {
    pub(super) shared: &'a Shared<T>,
    pub(super) changed: Notified<'a>,
    pub(super) until: Instant,
}

impl<T> EndInSight<'_, T> {
    /// Waits until the state has changed, or gives the end up in the other's place when its time is over.
    pub(super) async fn wait(self) {
        if timeout_at(self.until, self.changed).await.is_err() {
            self.shared.step(Input::Tick);
        }
    }
}

/// The machine always settles what it began; should a bug break that, the caller gets an error and no hang.
fn settled<V>(outcome: Result<Result<V, Error>, oneshot::error::RecvError>) -> Result<V, Error> {
    outcome.unwrap_or(Err(Error::Cancelled))
}
