//! What happens, as it happens, for a person who watches.

use alloc::{string::String, sync::Arc};
use core::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crate::{error::Stage, ids::OperationId};

/// One step of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Waiting for a signer outside of the process to sign a SAS token.
    Signing,
    /// The signer has signed.
    Signed,
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
    /// The connection stands: what goes out next is the transport's own.
    Connected,
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

impl Step {
    /// The stage of the connection that begins with this step; `None` for a step of the registration itself.
    #[must_use]
    pub fn connection_stage(&self) -> Option<Stage> {
        match self {
            Self::Signing => Some(Stage::Sign),
            Self::Resolving { .. } => Some(Stage::Resolve),
            Self::Connecting { .. } => Some(Stage::Connect),
            Self::Proxy { .. } => Some(Stage::Proxy),
            Self::Tls { .. } => Some(Stage::Tls),
            Self::Websocket => Some(Stage::Websocket),
            _ => None,
        }
    }
}

/// Gets each [`Step`] as it happens. It is called from the registration's own task: it must not block.
///
/// Give clones of one observer to the transport and to the machine: so a timeout names the stage of the connection that
/// it struck.
#[derive(Clone)]
pub struct Observer {
    on_step: Option<Arc<OnStep>>,
    /// How far the connection that is being made has come, as an index into [`CONNECTION_STAGES`].
    stage: Arc<AtomicUsize>,
}

type OnStep = dyn Fn(&Step) + Send + Sync;

const CONNECTION_STAGES: [Stage; 6] =
    [Stage::Sign, Stage::Resolve, Stage::Connect, Stage::Proxy, Stage::Tls, Stage::Websocket];

impl Default for Observer {
    fn default() -> Self {
        Self { on_step: None, stage: Arc::new(AtomicUsize::new(CONNECTION_STAGES.len())) }
    }
}

impl Observer {
    /// An observer that calls the given function.
    #[must_use]
    pub fn new(on_step: impl Fn(&Step) + Send + Sync + 'static) -> Self {
        Self { on_step: Some(Arc::new(on_step)), ..Self::default() }
    }

    /// Tells the observer of a step.
    pub fn notify(&self, step: &Step) {
        let stage = step.connection_stage();
        let index = CONNECTION_STAGES.iter().position(|known| Some(*known) == stage);
        self.stage.store(index.unwrap_or(CONNECTION_STAGES.len()), Ordering::Relaxed);
        if let Some(on_step) = &self.on_step {
            on_step(step);
        }
    }

    /// The stage of the connection that is being made; `None` when none is.
    #[must_use]
    pub fn connection_stage(&self) -> Option<Stage> {
        CONNECTION_STAGES.get(self.stage.load(Ordering::Relaxed)).copied()
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.on_step.is_some() { "Observer(set)" } else { "Observer(none)" })
    }
}
