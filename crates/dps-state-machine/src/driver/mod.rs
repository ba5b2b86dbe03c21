//! The driver: carries out on tokio what the pure [`Machine`](crate::machine::Machine) decides.
//!
//! No task is spawned: a registration lives in the future that [`StateMachine::register`] returns. The call to the
//! transport that is under way is kept beside that future, not in it, so that whoever cancels or ends the session can
//! drop the call even while nobody polls the registration.
//!
//! - `book`: the machine, the transport and all else that is shared under the one lock, and what a step of the machine
//!   leaves to be done without it;
//! - `shared`: the lock, and how the call to the transport is polled without it;
//! - `drive`: those who wait for an outcome, and drive the machine meanwhile;
//! - `events`: the stream of `operationStatus` events;
//! - `runtime`: an error in place of a panic where tokio can't carry out a call.

mod book;
mod drive;
mod events;
mod runtime;
mod shared;

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

use book::Registering;
use drive::drive;
pub use events::OperationStatusEvents;
use runtime::within_runtime;
use shared::Shared;

use crate::{
    error::Error,
    machine::{Input, Machine, State},
    progress::{Observer, Step},
    registration_result::RegistrationResult,
    request::RegistrationRequest,
    settings::Settings,
    transport::TransportHandlers,
};

/// A device's session with the provisioning service over one transport.
///
/// Clones share the session, and every method takes `&self`: one task can register while another watches the
/// events, cancels, or ends the session.
///
/// A session outlives a registration, whatever its outcome: call [`end_session`](Self::end_session) when done, or
/// drop the machine, which drops the connection without an end of the session.
pub struct StateMachine<T: TransportHandlers> {
    shared: Arc<Shared<T>>,
}

impl<T: TransportHandlers> StateMachine<T> {
    /// A machine that is not connected yet.
    #[must_use]
    pub fn new(transport: T, settings: Settings) -> Self {
        // The standard library's hasher keys are the operating system's random numbers.
        let seed = RandomState::new().build_hasher().finish();
        let machine = Machine::new(settings, seed);
        Self { shared: Arc::new(Shared::new(transport, machine)) }
    }

    /// Registers the device: sends the registration, asks for the operation's status until the device is
    /// assigned, and waits in between as the service asks.
    ///
    /// While a session is being ended it waits for the end and then starts.
    ///
    /// # Errors
    /// - [`Error::Configuration`] before any I/O: the request can't be sent, on this transport or at all; or, whenever it
    ///   happens: the future is polled outside of a tokio runtime, or in one that has no timer, has not the I/O that the
    ///   transport needs, or is shutting down.
    /// - [`Error::InvalidOperation`] at once: another registration is in progress; it is left untouched.
    /// - [`Error::Connection`], [`Error::Rejected`], [`Error::Protocol`]: what the transport or the service made of it.
    /// - [`Error::Timeout`]: one request or the whole registration took too long (see [`Settings`]).
    /// - [`Error::Cancelled`]: [`cancel`](Self::cancel) or [`end_session`](Self::end_session) was called.
    ///
    /// After any of them the machine can register again.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the registration: the transport drops the exchange under way, nothing is left
    /// behind, and the machine can register again.
    pub async fn register(
        &self,
        request: RegistrationRequest,
    ) -> Result<RegistrationResult, Error> {
        request.check()?;
        let request = Arc::new(request);
        within_runtime(async {
            loop {
                let registering = self.shared.book().register(&request);
                match registering {
                    Registering::Begun(begun) => {
                        return Ok(drive(&self.shared, begun).await?.answering(&request));
                    }
                    // How the end goes is for those who asked for it.
                    Registering::NotYet(end) => drop(drive(&self.shared, end).await),
                    Registering::Refused(error) => return Err(error),
                }
            }
        })
        .await
    }

    /// The `operationStatus` events of all registrations from now on: one for each answer that says assigning,
    /// and one for assigned, each before `register` returns.
    #[must_use]
    pub fn operation_status(&self) -> OperationStatusEvents {
        self.shared.book().subscribe()
    }

    /// Shows each [`Step`] to the given function as it happens, for all registrations that begin from now on; it takes
    /// the place of the one before. The clones of this machine share it, other machines don't.
    ///
    /// The function is called in the registration's own task, and it may call the machine: it must not block.
    pub fn observe(&self, on_step: impl Fn(&Step) + Send + Sync + 'static) {
        let former = std::mem::replace(&mut self.shared.book().observer, Observer::new(on_step));
        drop(former);
    }

    /// Cancels the registration in progress, if any: it fails with [`Error::Cancelled`]. The session stays.
    pub fn cancel(&self) {
        let turn = self.shared.book().step(Input::Cancel);
        turn.finish();
    }

    /// Ends the session: a registration in progress fails with [`Error::Cancelled`], then the transport ends the session
    /// and drops its connection. On a machine that isn't connected it returns at once and calls nothing. If the
    /// session is being ended already, it waits for that same end.
    ///
    /// # Errors
    /// - What the transport's end of the session met, or [`Error::Timeout`] when it took longer than
    ///   [`Settings::end_session_timeout`]. The machine is disconnected either way and can register again.
    /// - [`Error::Configuration`] when the machine is connected and the future is polled where
    ///   [`register`](Self::register) can't be polled either. The machine counts as connected then.
    ///
    /// # Cancel safety
    /// Dropping the future cuts the end of the session short: the machine counts as connected, and ending the session again
    /// reaches the transport again.
    pub async fn end_session(&self) -> Result<(), Error> {
        if *self.shared.book().machine.state() == State::Disconnected {
            return Ok(());
        }
        within_runtime(async {
            loop {
                let end = self.shared.book().end_session();
                let drives = end.ticket.drives;
                match drive(&self.shared, end).await {
                    // Whoever was ending the session gave up half-way: take over.
                    Err(Error::Cancelled) if !drives => {}
                    outcome => return outcome,
                }
            }
        })
        .await
    }
}

impl<T: TransportHandlers> Clone for StateMachine<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T: TransportHandlers> fmt::Debug for StateMachine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateMachine")
            .field("state", &self.shared.book().machine.state().name())
            .finish()
    }
}
