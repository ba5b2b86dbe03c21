//! Connections whose peer has not shown a valid credential yet.
//!
//! When the emulator is full, the one that has been a stranger for longest makes room, once it has had its time: so
//! silent, slow and endless peers, however many, can't keep devices out. A device waits in line like everyone else,
//! then has its time undisturbed, and stays once it is known.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The strangers by the number of their connection, which tells who came first.
pub(crate) struct Strangers {
    /// How long each of them may stay, whatever happens.
    time: Duration,
    all: Mutex<BTreeMap<u64, Listed>>,
}

struct Listed {
    until: Instant,
    sent_away: Arc<Notify>,
}

impl Strangers {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, all: Mutex::default() }
    }

    /// A connection is open, and its peer a stranger.
    pub(super) fn welcome(self: &Arc<Self>, connection: u64, now: Instant) -> Stranger {
        let sent_away = Arc::new(Notify::new());
        let listed = Listed { until: now + self.time, sent_away: sent_away.clone() };
        self.all().insert(connection, listed);
        Stranger { connection, sent_away, among: self.clone() }
    }

    /// The peer has shown a valid credential.
    pub(super) fn know(&self, connection: u64) {
        self.all().remove(&connection);
    }

    /// When the first of them will have had its time; `None` when there is no stranger.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.all().first_key_value().map(|(_, listed)| listed.until)
    }

    /// Sends the first of them away if it has had its time; whether it has.
    pub(super) fn send_one_away(&self, now: Instant) -> bool {
        let mut all = self.all();
        match all.first_entry() {
            Some(first) if first.get().until <= now => {
                first.remove().sent_away.notify_one();
                true
            }
            _ => false,
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Listed>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection among the strangers, until it is over or its peer is known.
pub(super) struct Stranger {
    connection: u64,
    sent_away: Arc<Notify>,
    among: Arc<Strangers>,
}

impl Stranger {
    /// Waits until another connection needs the room.
    pub(super) async fn sent_away(&self) {
        self.sent_away.notified().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.among.know(self.connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_stranger_goes_once_it_has_had_its_time_and_a_known_peer_never() {
        let strangers = Arc::new(Strangers::new(Duration::from_secs(1)));
        let now = Instant::now();
        let [known, gone, stays] = [1, 2, 3].map(|connection| strangers.welcome(connection, now));
        strangers.know(1);
        drop(gone);
        assert!(!strangers.send_one_away(now), "it has not had its time");
        let later = strangers.next_due().unwrap();
        assert_eq!(later, now + Duration::from_secs(1));
        let late = strangers.welcome(4, later);
        assert!(strangers.send_one_away(later));
        stays.sent_away().await;
        assert!(!strangers.send_one_away(later), "the next one has not had its time");
        drop(late);
        assert_eq!(strangers.next_due(), None);
        drop(known);
    }
}
