//! Sessions of which a device has one at a time: the newest takes the place of the one before.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::lock::lock;
use tokio::sync::Notify;

/// The session of each device, by its name.
#[derive(Clone, Default)]
pub(crate) struct Sessions(Arc<Mutex<HashMap<String, Arc<Notify>>>>);

/// The session of one device, until it is dropped.
pub(crate) struct Session {
    sessions: Sessions,
    name: String,
    taken_over: Arc<Notify>,
}

impl Sessions {
    /// Begins a session, which ends the one that had this name.
    pub(super) fn begin(&self, name: String) -> Session {
        let taken_over = Arc::new(Notify::new());
        if let Some(former) = lock(&self.0).insert(name.clone(), taken_over.clone()) {
            former.notify_one();
        }
        Session { sessions: self.clone(), name, taken_over }
    }
}

impl Session {
    /// Waits until another session takes the place of this one.
    pub(crate) async fn is_taken_over(&self) {
        self.taken_over.notified().await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut all = lock(&self.sessions.0);
        if all.get(&self.name).is_some_and(|newest| Arc::ptr_eq(newest, &self.taken_over)) {
            all.remove(&self.name);
        }
    }
}
