//! Connections whose peer has not shown a valid credential yet.
//!
//! When the emulator is full, the one that has been silent for longest makes room: so silent and slow peers, however
//! many, can't keep devices out, and devices that are being served stay.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::Control;

/// The strangers by the number of their connection.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<BTreeMap<u64, Listed>>);

struct Listed {
    control: Arc<Control>,
    sent_away: Arc<Notify>,
}

impl Strangers {
    /// A connection is open, and its peer a stranger.
    pub(super) fn welcome(self: &Arc<Self>, connection: u64, control: Arc<Control>) -> Stranger {
        let sent_away = Arc::new(Notify::new());
        self.all().insert(connection, Listed { control, sent_away: sent_away.clone() });
        Stranger { connection, sent_away, among: self.clone() }
    }

    /// The peer has shown a valid credential.
    pub(super) fn know(&self, connection: u64) {
        self.all().remove(&connection);
    }

    /// Sends away whoever has been silent for longest; false when there is no stranger.
    pub(super) fn send_one_away(&self) -> bool {
        let mut all = self.all();
        let silent = all.iter().min_by_key(|(_, listed)| listed.control.heard());
        let Some(connection) = silent.map(|(connection, _)| *connection) else { return false };
        if let Some(listed) = all.remove(&connection) {
            listed.sent_away.notify_one();
        }
        true
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Listed>> {
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
    async fn the_most_silent_stranger_goes_first_and_no_known_peer() {
        let strangers = Arc::new(Strangers::default());
        let controls = [1, 2, 3, 4].map(|_| Arc::new(Control::default()));
        let [first, second, third, fourth] = [0, 1, 2, 3]
            .map(|i| strangers.welcome(i, controls[usize::try_from(i).unwrap()].clone()));
        strangers.know(0);
        drop(second);
        controls[2].hear();
        assert!(strangers.send_one_away());
        fourth.sent_away().await;
        assert!(strangers.send_one_away());
        third.sent_away().await;
        assert!(!strangers.send_one_away(), "a known peer was sent away");
        drop(first);
    }
}
