//! Locks that a panic elsewhere doesn't take away.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the lock. Each holder leaves what it guards as it should be at every moment, so a panic while one had it
/// changes nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
