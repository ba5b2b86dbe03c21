//! Where there is no systemd, nobody is told, and nobody asks to reload.

use std::{io, time::Duration};

pub(crate) struct Reload;

impl Reload {
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    pub(crate) async fn next(&mut self) {
        std::future::pending().await
    }
}

pub(crate) struct ServiceManager;

impl ServiceManager {
    pub(crate) fn from_environment() -> Self {
        Self
    }

    pub(crate) fn say(&self, _: &str) {}

    pub(crate) fn watchdog(&self) -> Option<Duration> {
        None
    }
}
