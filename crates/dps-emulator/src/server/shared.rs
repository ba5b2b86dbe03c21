//! What all connections of an emulator share.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::unauthenticated::Unauthenticated;
use crate::lock::lock;
use crate::{
    behavior::ConnectionFault,
    config::Limits,
    config_error::ConfigError,
    core::{Core, clock::ClockSetting, events::EventKind},
    enrollment::Enrollment,
};

/// How long a peer may take to show its credential when others wait for its place, at most.
const UNAUTHENTICATED_TIME: Duration = Duration::from_secs(1);

/// What a reset leads back to.
pub(crate) struct Start {
    pub(crate) enrollments: Vec<Enrollment>,
    pub(crate) connection_faults: Vec<ConnectionFault>,
    /// In seconds.
    pub(crate) clock_ahead: f64,
    /// Of all ids.
    pub(crate) seed: Zeroizing<[u8; 32]>,
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(super) limits: Limits,
    pub(super) tls: TlsAcceptor,
    pub(super) unauthenticated: Arc<Unauthenticated>,
    start: Start,
    connection_faults: Mutex<VecDeque<ConnectionFault>>,
    slots: Arc<Semaphore>,
    connections: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        core: Arc<Core>,
        limits: Limits,
        tls: Arc<ServerConfig>,
        start: Start,
    ) -> Self {
        let time = (limits.handshake_timeout / 10).min(UNAUTHENTICATED_TIME);
        Self {
            core,
            limits,
            tls: tls.into(),
            unauthenticated: Arc::new(Unauthenticated::new(time)),
            connection_faults: Mutex::new(start.connection_faults.iter().copied().collect()),
            start,
            slots: Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS))),
            connections: AtomicU64::new(0),
        }
    }

    /// The number of a new connection, counted from 1.
    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Room for a connection: waits, if need be, for the place of a peer that has shown no credential in its time.
    /// `None` when every peer has shown one.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        /// How long it takes at most, about, until a connection that was closed is gone.
        const GOING: Duration = Duration::from_millis(100);
        let slot = || self.slots.clone().acquire_owned();
        loop {
            let Some(due) = self.unauthenticated.next_due() else {
                return self.slots.clone().try_acquire_owned().ok();
            };
            tokio::select! {
                biased;
                slot = slot() => return slot.ok(),
                () = tokio::time::sleep_until(due) => {}
            }
            if self.unauthenticated.close_first(Instant::now())
                && let Ok(slot) = tokio::time::timeout(GOING, slot()).await
            {
                return slot.ok();
            }
        }
    }

    /// Sets what goes wrong with the next connections.
    pub(crate) fn script_connections(&self, faults: impl IntoIterator<Item = ConnectionFault>) {
        *lock(&self.connection_faults) = faults.into_iter().collect();
    }

    /// What goes wrong with the next connections.
    pub(crate) fn scripted_connections(&self) -> Vec<ConnectionFault> {
        lock(&self.connection_faults).iter().copied().collect()
    }

    /// Puts the service back to what it was at the start: enrollments, what is known of devices, faults, the clock. The
    /// log of events goes on, connections stay open, and the authorities are those that devices trust already.
    pub(crate) fn reset(&self) -> Result<(), ConfigError> {
        let ahead = ClockSetting::Ahead(self.start.clock_ahead);
        let settings = [("frozen", ClockSetting::Frozen(false)), ("clock-ahead", ahead)];
        self.core.clock().set_each(&settings)?;
        let now = self.core.clock().now();
        self.core.service().reset(self.start.enrollments.clone(), *self.start.seed, now)?;
        self.script_connections(self.start.connection_faults.iter().copied());
        self.core.record(0, EventKind::Reset {});
        Ok(())
    }

    /// What goes wrong with a new connection.
    pub(super) fn next_fault(&self) -> ConnectionFault {
        lock(&self.connection_faults).pop_front().unwrap_or(ConnectionFault::Pass)
    }
}
