//! What systemd is told, and the signals that the agent is told by: <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>.

use std::{
    io,
    os::unix::net::{SocketAddr, UnixDatagram},
    time::Duration,
};

use dps_provisioner::{HubRefusal, Order};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::given::variable;

/// The signals that tell the agent something.
pub(crate) struct Signals {
    reload: Signal,
    refused: Signal,
    connected: Signal,
}

impl Signals {
    /// From now on none of them ends the process.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            refused: signal(SignalKind::user_defined1())?,
            connected: signal(SignalKind::user_defined2())?,
        })
    }

    /// What the next one says: SIGHUP, which `systemctl reload` sends, SIGUSR1 or SIGUSR2. Of several that came at once, a
    /// hub that let the device in is told last.
    pub(crate) async fn next(&mut self) -> Order {
        tokio::select! {
            biased;
            Some(()) = self.reload.recv() => Order::Register,
            Some(()) = self.refused.recv() => Order::HubEnded(HubRefusal::NotAuthorized),
            Some(()) = self.connected.recv() => Order::HubConnected,
            else => std::future::pending().await,
        }
    }
}

/// The manager of this service, if there is one that listens.
pub(crate) struct ServiceManager(Option<(UnixDatagram, SocketAddr)>);

impl ServiceManager {
    /// The one whose socket `NOTIFY_SOCKET` names.
    pub(crate) fn from_environment() -> Self {
        let socket = || {
            let name = variable("NOTIFY_SOCKET").ok()??;
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that does not listen holds nobody up.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address(&name)?))
        };
        Self(socket())
    }

    /// Tells it, as far as it listens. Whether nobody is left who should have been told: one that is busy has no room.
    pub(crate) fn say(&self, text: &str) -> bool {
        let Some((socket, address)) = &self.0 else { return true };
        socket.send_to_addr(text.as_bytes(), address).is_ok()
    }

    /// How often it wants to be told that the service is alive: twice as often as it waits for at most.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        let number = |name| variable(name).ok()??.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(std::process::id()));
        let every = Duration::from_micros(number("WATCHDOG_USEC")? / 2);
        (is_ours && !every.is_zero()).then_some(every)
    }
}

/// A path, or with `@` in front a name that is in no folder.
fn address(name: &str) -> Option<SocketAddr> {
    match name.strip_prefix('@') {
        None => SocketAddr::from_pathname(name).ok(),
        #[cfg(target_os = "linux")]
        Some(name) => {
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name).ok()
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => None,
    }
}
