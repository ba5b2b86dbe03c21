//! How far a registration has come: what the transport and the machine say of it as it happens.

use alloc::{string::String, sync::Arc};
use core::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

#[cfg(feature = "std")]
use crate::known::Known;
use crate::{error::Stage, ids::OperationId, registration_result::OperationStatus};

/// One step of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// One of several transports begins to make its connection (see [`Race`](crate::Race)).
    TryingTransport {
        /// Its name.
        transport: &'static str,
    },
    /// One of several transports does not get through; the next one begins at once.
    TransportFailed {
        /// Its name.
        transport: &'static str,
        /// What it met.
        reason: String,
    },
    /// This transport's connection was the first to stand: the registration goes over it, and the others are given up.
    TransportChosen {
        /// Its name.
        transport: &'static str,
    },
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
    /// The service refused this credential, and the next one is tried (see [`Fallback`](crate::Fallback)).
    CredentialRefused {
        /// Which one, counted from 0 in the order in which they were given.
        credential: usize,
    },
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
    /// The poll of the operation's status goes out.
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
    /// The stage of the way to the service that begins with this step; `None` when it is a step of the registration
    /// itself, or ends a stage.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
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

impl From<&OperationStatus> for Step {
    fn from(event: &OperationStatus) -> Self {
        match event {
            OperationStatus::Assigning { operation_id, .. } => {
                Self::Assigning { operation_id: operation_id.clone() }
            }
            OperationStatus::Assigned { .. } => Self::Assigned,
        }
    }
}

/// How far one registration has come.
///
/// The machine makes one for each registration and hands it to the transport with each request. The transport says
/// [`enter`](Self::enter) whenever a step begins. So a timeout names the stage that it struck, and it
/// is always the stage of its own registration, whatever else runs beside it.
///
/// Clones are one and the same progress: a transport may keep one for a task or a callback of its own, and what a task
/// says that outlives its registration concerns nobody any more.
#[derive(Clone, Default)]
pub struct Progress(Arc<Inner>);

/// What the peer did while a request waited for its answer. A timeout names it: the network path is not at fault then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerActivity {
    /// The peer gives no credit, so that the request could not be sent (AMQP).
    NoCredit,
    /// The peer has acknowledged the request (MQTT, AMQP).
    Acknowledged,
    /// So many answers came, and none belongs to the request.
    UnmatchedAnswers(usize),
}

struct Inner {
    observer: Observer,
    /// 0 for none, 1 for no credit, 2 for acknowledged, and 2 more than the number of unmatched answers.
    activity: AtomicUsize,
    /// The stage that the way to the service has come to, as an index into [`STAGES`].
    stage: AtomicUsize,
    #[cfg(feature = "std")]
    known: Arc<Known>,
}

const STAGES: [Stage; 6] =
    [Stage::Sign, Stage::Resolve, Stage::Connect, Stage::Proxy, Stage::Tls, Stage::Websocket];

impl Default for Inner {
    fn default() -> Self {
        Self {
            observer: Observer::default(),
            activity: AtomicUsize::new(0),
            stage: AtomicUsize::new(STAGES.len()),
            #[cfg(feature = "std")]
            known: Arc::default(),
        }
    }
}

impl Progress {
    /// The progress of one registration, each step of which is shown to the given function. The machine makes its own:
    /// this is for who calls a transport without a machine, as a test does. [`Progress::default`] shows no step to
    /// anybody.
    #[must_use]
    pub fn new(on_step: impl Fn(&Step) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { observer: Observer::new(on_step), ..Inner::default() }))
    }

    #[cfg(feature = "std")]
    pub(crate) fn shown_to(observer: Observer, known: Arc<Known>) -> Self {
        Self(Arc::new(Inner { observer, known, ..Inner::default() }))
    }

    /// The progress of another connection that is made beside this one, for the same registration: its steps are shown to
    /// the same observer, and its stage is its own.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self(Arc::new(Inner {
            observer: self.0.observer.clone(),
            #[cfg(feature = "std")]
            known: Arc::clone(&self.0.known),
            ..Inner::default()
        }))
    }

    /// The client uses or sends this secret from now on: none of its errors repeats it, in any encoding.
    #[cfg(feature = "std")]
    #[doc(hidden)]
    pub fn hide(&self, secret: &str) {
        self.0.known.add(secret.as_bytes(), false);
    }

    /// As [`hide`](Self::hide), for random bytes as they are, or in base64 that may be percent-encoded: no part of them is
    /// repeated.
    #[cfg(feature = "std")]
    #[doc(hidden)]
    pub fn hide_key(&self, key: &[u8]) {
        self.0.known.add(key, true);
    }

    /// The error without what [`hide`](Self::hide) and [`hide_key`](Self::hide_key) have named, for a call that no machine
    /// drives.
    #[cfg(feature = "std")]
    #[doc(hidden)]
    #[must_use]
    pub fn without_secrets(&self, mut error: crate::Error) -> crate::Error {
        if let Some(secrets) = self.0.known.encodings() {
            error.hide(&secrets);
        }
        error
    }

    /// A step as it can be logged: the service chose the operation's id.
    #[cfg(feature = "std")]
    pub(crate) fn masked(&self, step: &Step) -> String {
        self.masked_text(alloc::format!("{step:?}"))
    }

    /// A text of a peer's without what the client has sent it of its secrets.
    #[cfg(feature = "std")]
    pub(crate) fn masked_text(&self, text: String) -> String {
        let known = self.0.known.encodings();
        known.and_then(|known| known.masked_text(&text)).unwrap_or(text)
    }

    /// A step begins. The observer's code runs in this call.
    pub fn enter(&self, step: &Step) {
        let stage = step.stage();
        let index = STAGES.iter().position(|known| Some(*known) == stage);
        self.0.stage.store(index.unwrap_or(STAGES.len()), Ordering::Relaxed);
        self.0.activity.store(0, Ordering::Relaxed);
        self.0.observer.see(step);
    }

    /// The request still waits, and the peer did this. The next step, or the next call, takes its place.
    pub fn saw(&self, activity: Option<PeerActivity>) {
        let number = match activity {
            None => 0,
            Some(PeerActivity::NoCredit) => 1,
            Some(PeerActivity::Acknowledged) => 2,
            Some(PeerActivity::UnmatchedAnswers(count)) => count.saturating_add(2).max(3),
        };
        self.0.activity.store(number, Ordering::Relaxed);
    }

    /// What the peer did last while the request waited.
    #[must_use]
    pub fn activity(&self) -> Option<PeerActivity> {
        match self.0.activity.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(PeerActivity::NoCredit),
            2 => Some(PeerActivity::Acknowledged),
            number => Some(PeerActivity::UnmatchedAnswers(number - 2)),
        }
    }

    /// The stage that the way to the service has come to; `None` when the way is clear.
    #[must_use]
    pub fn stage(&self) -> Option<Stage> {
        STAGES.get(self.0.stage.load(Ordering::Relaxed)).copied()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.stage()).finish()
    }
}

/// Who is shown each step; by default nobody.
#[derive(Clone, Default)]
pub(crate) struct Observer(Option<Arc<OnStep>>);

type OnStep = dyn Fn(&Step) + Send + Sync;

impl Observer {
    pub(crate) fn new(on_step: impl Fn(&Step) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(on_step)))
    }

    fn see(&self, step: &Step) {
        if let Some(on_step) = &self.0 {
            on_step(step);
        }
    }
}
