//! Connections whose peer has not shown a valid credential yet.
//!
//! When the emulator is full, the oldest of them is closed, once it has had its time: so silent, slow and endless peers,
//! however many, can't keep devices out. A device waits in line like everyone else, then has its time undisturbed, and
//! stays once it has shown its credential.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::lock::lock;
use tokio::{sync::Notify, time::Instant};

/// The connections by their number, which tells who came first.
pub(super) struct Unauthenticated {
    /// How long each of them may stay, whatever happens.
    time: Duration,
    all: Mutex<BTreeMap<u64, Listed>>,
}

struct Listed {
    until: Instant,
    is_known: Arc<AtomicBool>,
    close: Arc<Notify>,
}

impl Unauthenticated {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, all: Mutex::default() }
    }

    /// Lists a new connection.
    pub(super) fn enter(self: &Arc<Self>, connection: u64, now: Instant) -> Place {
        let (is_known, close) = (Arc::default(), Arc::new(Notify::new()));
        let place = Place {
            connection,
            is_known: Arc::clone(&is_known),
            close: close.clone(),
            list: self.clone(),
        };
        self.all().insert(connection, Listed { until: now + self.time, is_known, close });
        place
    }

    /// When the first of them will have had its time; `None` when there is none.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.all().first_key_value().map(|(_, listed)| listed.until)
    }

    /// Closes the first of them if it has had its time; whether it has.
    pub(super) fn close_first(&self, now: Instant) -> bool {
        let mut all = self.all();
        match all.first_entry() {
            Some(first) if first.get().until <= now => {
                first.remove().close.notify_one();
                true
            }
            _ => false,
        }
    }

    /// The list, which begins with one that has shown no credential.
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Listed>> {
        let mut all = lock(&self.all);
        while let Some(first) = all.first_entry()
            && first.get().is_known.load(Ordering::Relaxed)
        {
            first.remove();
        }
        all
    }
}

/// The place of one connection in the list, until the connection is over.
pub(super) struct Place {
    connection: u64,
    /// To be set when the peer has shown a valid credential.
    pub(super) is_known: Arc<AtomicBool>,
    close: Arc<Notify>,
    list: Arc<Unauthenticated>,
}

impl Place {
    /// Waits until another connection needs the room.
    pub(super) async fn is_needed(&self) {
        self.close.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.list.all().remove(&self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_connection_goes_once_it_has_had_its_time_and_a_known_peer_never() {
        let list = Arc::new(Unauthenticated::new(Duration::from_secs(1)));
        let now = Instant::now();
        let [known, gone, stays] = [1, 2, 3].map(|connection| list.enter(connection, now));
        known.is_known.store(true, Ordering::Relaxed);
        drop(gone);
        assert!(!list.close_first(now), "it has not had its time");
        let later = list.next_due().unwrap();
        assert_eq!(later, now + Duration::from_secs(1));
        let late = list.enter(4, later);
        assert!(list.close_first(later));
        stays.is_needed().await;
        assert!(!list.close_first(later), "the next one has not had its time");
        drop(late);
        assert_eq!(list.next_due(), None);
        drop(known);
    }
}
