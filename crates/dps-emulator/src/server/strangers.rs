//! Connections whose peer has not shown a valid credential yet.
//!
//! When the emulator is full, the one that has been a stranger for longest makes room: silent, slow and endless peers,
//! however many, can't keep devices out, and devices that are being served stay.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The strangers by the number of their connection, which tells who came first.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<BTreeMap<u64, Arc<Notify>>>);

impl Strangers {
    /// A connection is open, and its peer a stranger.
    pub(super) fn welcome(self: &Arc<Self>, connection: u64) -> Stranger {
        let sent_away = Arc::new(Notify::new());
        self.all().insert(connection, sent_away.clone());
        Stranger { connection, sent_away, among: self.clone() }
    }

    /// The peer has shown a valid credential.
    pub(super) fn know(&self, connection: u64) {
        self.all().remove(&connection);
    }

    /// Sends away whoever has been here for longest; false when there is no stranger.
    pub(super) fn send_away_oldest(&self) -> bool {
        match self.all().pop_first() {
            Some((_, oldest)) => {
                oldest.notify_one();
                true
            }
            None => false,
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn the_oldest_stranger_goes_first_and_no_known_peer() {
        let strangers = Arc::new(Strangers::default());
        let [first, second, third] = [1, 2, 3].map(|connection| strangers.welcome(connection));
        strangers.know(1);
        drop(second);
        assert!(strangers.send_away_oldest());
        third.sent_away().await;
        assert!(!strangers.send_away_oldest(), "a known peer was sent away");
        drop(first);
    }
}
