//! Sockets, TLS and the transports. Each transport is a thin layer over the one [`Service`].

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    behavior::ConnectionFault,
    config::Limits,
    events::{EventKind, Recorder},
    service::{Authenticated, Credential, Service, ServiceError},
};

mod accept;
pub(crate) mod admin;
mod bind;
mod conversation;
pub(crate) mod http;
mod peer;
mod strangers;
pub(crate) mod stream;
mod websocket;

pub(crate) use accept::{Connection, accept};
pub(crate) use bind::bind;
pub(crate) use conversation::{Conversation, Over, serve};
pub(crate) use peer::Peer;
use strangers::Strangers;
use stream::Control;

/// Why a connection is over when the emulator is.
pub(crate) const STOPS: &str = "the emulator stops";

/// How long a peer may take to show its credential when others wait for its place, at most.
const STRANGERS_TIME: Duration = Duration::from_secs(1);

/// What all connections of an emulator share.
pub(crate) struct Shared {
    pub(crate) service: Mutex<Service>,
    pub(crate) recorder: Recorder,
    pub(crate) limits: Limits,
    connection_faults: Mutex<VecDeque<ConnectionFault>>,
    tls: TlsAcceptor,
    slots: Arc<Semaphore>,
    strangers: Arc<Strangers>,
    connections: AtomicU64,
    clock_ahead: Mutex<Duration>,
}

impl Shared {
    pub(crate) fn new(
        service: Service,
        recorder: Recorder,
        limits: Limits,
        connection_faults: Vec<ConnectionFault>,
        tls: Arc<ServerConfig>,
        clock_ahead: Duration,
    ) -> Self {
        Self {
            service: Mutex::new(service),
            recorder,
            limits,
            connection_faults: Mutex::new(connection_faults.into()),
            tls: tls.into(),
            slots: Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS))),
            strangers: Arc::new(Strangers::new(
                (limits.handshake_timeout / 10).min(STRANGERS_TIME),
            )),
            connections: AtomicU64::new(0),
            clock_ahead: Mutex::new(clock_ahead),
        }
    }

    /// The time of day by the service's clock.
    pub(crate) fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        now.checked_add(*self.clock_ahead()).unwrap_or(now)
    }

    pub(crate) fn set_clock_ahead(&self, ahead: Duration) {
        *self.clock_ahead() = ahead;
    }

    fn clock_ahead(&self) -> MutexGuard<'_, Duration> {
        self.clock_ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service; a panic elsewhere does not take it away.
    pub(crate) fn service(&self) -> MutexGuard<'_, Service> {
        self.service.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a connection: waits, if need be, for the place of a stranger that has had its time. `None` when every
    /// peer is known.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        /// How long it takes at most, about, until who was sent away is gone.
        const GOING: Duration = Duration::from_millis(100);
        let slot = || self.slots.clone().acquire_owned();
        loop {
            let Some(due) = self.strangers.next_due() else {
                return self.slots.clone().try_acquire_owned().ok();
            };
            tokio::select! {
                biased;
                slot = slot() => return slot.ok(),
                () = tokio::time::sleep_until(due) => {}
            }
            if self.strangers.send_one_away(Instant::now())
                && let Ok(slot) = tokio::time::timeout(GOING, slot()).await
            {
                return slot.ok();
            }
        }
    }

    /// Notes what came of a check of a connection's credential.
    pub(crate) fn checked(
        &self,
        connection: u64,
        registration_id: &str,
        credential: Credential<'_>,
        checked: &Result<Authenticated, ServiceError>,
    ) {
        let (registration_id, method) = (registration_id.to_owned(), credential.method());
        let event = match checked {
            Ok(who) => {
                self.strangers.know(connection);
                let enrollment = who.enrollment.clone();
                EventKind::Authenticated { registration_id, enrollment, method }
            }
            Err(error) => EventKind::AuthenticationFailed {
                registration_id,
                method,
                error_code: error.error_code,
                reason: error.reason.clone(),
            },
        };
        self.recorder.record(connection, event);
    }

    pub(crate) fn script_connections(&self, faults: impl IntoIterator<Item = ConnectionFault>) {
        *self.connection_script() = faults.into_iter().collect();
    }

    fn connection_script(&self) -> MutexGuard<'_, VecDeque<ConnectionFault>> {
        self.connection_faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
