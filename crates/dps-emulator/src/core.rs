//! The core: what the service knows and what it answers, by whatever transport a device asks.
//!
//! It knows no socket and no protocol. A server has one [`Caller`] for each connection: it reads a [`DeviceRequest`]
//! from what the device sent, has it answered by [`Caller::ask`], and writes the [`Reply`] in its protocol's form.
//! What happens on the way is in the log of events.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard},
};

mod caller;
pub(crate) mod clock;
pub(crate) mod events;
mod service;
mod service_api;
mod sessions;

use crate::lock::lock;
pub(crate) use caller::{Caller, DeviceRequest, Proof};
pub(crate) use clock::Clock;
use events::{EventKind, EventLog, Recorder};
#[cfg(fuzzing)]
pub(crate) use service::Credential;
pub use service::KnownDevice;
pub(crate) use service::{
    ApiVersion, Authenticated, HubDevice, Instance, Kind, QUEUE as WEBHOOK_QUEUE, Registration,
    Reply, Service, ServiceError, TpmKeys, WebhookCall, http_date,
};
#[cfg(feature = "state")]
pub(crate) use service::{Record, RecordKind};
pub(crate) use service_api::{ApiReply, ApiRequest, Call};
pub use service_api::{ServicePolicy, ServiceRight};
pub(crate) use sessions::Session;
use sessions::Sessions;

/// One emulated service: its rules and its state, its clock, and the log of what happened.
pub(crate) struct Core {
    service: Mutex<Keeper>,
    clock: Clock,
    recorder: Recorder,
    sessions: Sessions,
}

/// The service, and the file that has its state.
struct Keeper {
    service: Service,
    #[cfg(feature = "state")]
    file: Option<crate::state::StateFile>,
}

impl Keeper {
    /// Writes what has changed.
    fn keep(&mut self) {
        #[cfg(feature = "state")]
        if let Some(file) = &mut self.file {
            return file.write(self.service.take_changes());
        }
        self.service.drop_changes();
    }
}

/// The service for as long as nobody else has it. What was changed is in the file when this is gone, and so before an
/// answer goes out.
pub(crate) struct ServiceGuard<'a>(MutexGuard<'a, Keeper>);

impl Deref for ServiceGuard<'_> {
    type Target = Service;

    fn deref(&self) -> &Service {
        &self.0.service
    }
}

impl DerefMut for ServiceGuard<'_> {
    fn deref_mut(&mut self) -> &mut Service {
        &mut self.0.service
    }
}

impl Drop for ServiceGuard<'_> {
    fn drop(&mut self) {
        self.0.keep();
    }
}

impl Core {
    pub(crate) fn new(service: Service, clock: Clock, recorder: Recorder) -> Self {
        let service = Keeper {
            service,
            #[cfg(feature = "state")]
            file: None,
        };
        Self { service: Mutex::new(service), clock, recorder, sessions: Sessions::default() }
    }

    /// Keeps the state in a file from now on.
    #[cfg(feature = "state")]
    pub(crate) fn kept_in(self, file: Option<crate::state::StateFile>) -> Self {
        lock(&self.service).file = file;
        self
    }

    /// The service; a panic elsewhere does not take it away.
    pub(crate) fn service(&self) -> ServiceGuard<'_> {
        ServiceGuard(lock(&self.service))
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(crate) fn record(&self, connection: u64, event: EventKind) {
        self.recorder.record(connection, event);
    }

    /// Keeps what a connection shows as its credential out of all its events.
    pub(crate) fn conceal(&self, connection: u64, credential: &str) {
        self.recorder.conceal(connection, credential);
    }

    pub(crate) fn log(&self) -> EventLog {
        self.recorder.log()
    }
}
