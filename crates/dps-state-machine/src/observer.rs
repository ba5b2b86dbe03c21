//! What happens, as it happens, for a person who watches.

use alloc::{string::String, sync::Arc};
use core::{fmt, time::Duration};

use crate::ids::OperationId;

/// One step of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Looking up the host.
    Resolving {
        /// The host's name.
        host: String,
    },
    /// Opening a TCP connection.
    Connecting {
        /// Host or address, and port.
        address: String,
    },
    /// Asking a proxy for a tunnel.
    Proxy {
        /// The proxy's host and port, without its credential.
        proxy: String,
    },
    /// The TLS handshake.
    Tls {
        /// The name that the server's certificate must have.
        server_name: String,
    },
    /// The WebSocket upgrade.
    Websocket,
    /// The registration goes out.
    Registering,
    /// The service works on it.
    Assigning {
        /// The service's handle for it.
        operation_id: OperationId,
    },
    /// Nothing to do for a while.
    Waiting {
        /// How long.
        wait: Duration,
        /// What comes after.
        then: Next,
    },
    /// The question for the operation's status goes out.
    Polling,
    /// Done: the device has a hub.
    Assigned,
}

/// What follows a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Next {
    /// The service is assigning: ask for the status.
    Poll,
    /// The service throttled or failed for the moment: send the registration again.
    RegisterAgain,
    /// The service throttled, failed for the moment, or the connection was lost: ask for the status again.
    PollAgain,
}

/// Gets each [`Step`] as it happens. It is called from the registration's own task: it must not block.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<OnStep>>);

type OnStep = dyn Fn(&Step) + Send + Sync;

impl Observer {
    /// An observer that calls the given function.
    #[must_use]
    pub fn new(on_step: impl Fn(&Step) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(on_step)))
    }

    /// Tells the observer of a step.
    pub fn notify(&self, step: &Step) {
        if let Some(on_step) = &self.0 {
            on_step(step);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer(set)" } else { "Observer(none)" })
    }
}
