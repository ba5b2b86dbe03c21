//! The steps of a registration for a person who watches, on standard error.

use std::{
    io::IsTerminal as _,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use dps_client::{Next, OperationId, Printable, Step, internal as secret};

use crate::output;

/// What is shown of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shown {
    Nothing,
    /// Each step is a line.
    Lines,
    /// The steps are one line that changes.
    ChangingLine,
}

impl Shown {
    /// One line that changes at a terminal that can do so, unless other lines come between.
    pub(crate) fn at_standard_error(has_traces: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match std::io::stderr().is_terminal() && !is_dumb && !has_traces {
            true => Self::ChangingLine,
            false => Self::Lines,
        }
    }
}

/// How far a registration has come.
#[derive(Debug)]
pub(crate) struct Progress {
    start: Instant,
    shown: Shown,
    order: Mutex<Order>,
}

impl Progress {
    /// Tells each step with the time since `start`.
    pub(crate) fn new(start: Instant, shown: Shown) -> Arc<Self> {
        Arc::new(Self { start, shown, order: Mutex::new(Order::default()) })
    }

    pub(crate) fn observer(self: &Arc<Self>) -> impl Fn(&Step) + Send + Sync + 'static {
        let progress = Arc::clone(self);
        move |step| progress.tell(step)
    }

    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// The operation that the service made of it.
    pub(crate) fn operation_id(&self) -> Option<OperationId> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner).operation_id.clone()
    }

    /// The transport that was taken, of several.
    pub(crate) fn transport(&self) -> Option<&'static str> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner).transport
    }

    /// How long the registration took that ended since this was asked last; `None` when none has assigned the device.
    pub(crate) fn took(&self) -> Option<Duration> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.began = None;
        order.took.take()
    }

    fn tell(&self, step: &Step) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let began = *order.began.get_or_insert_with(Instant::now);
        if matches!(step, Step::Assigned) {
            order.took = Some(began.elapsed());
        }
        if let Step::Assigning { operation_id } = step {
            order.operation_id = Some(operation_id.clone());
        }
        if let Step::TransportChosen { transport } = step {
            order.transport = Some(transport);
        }
        let Some(words) = order.words(step) else { return };
        let seconds = self.start.elapsed().as_secs_f64();
        let words = secret::masked(&words);
        let line = format!("{seconds:7.2} s  {}", Printable::whole(words.as_ref()));
        match self.shown {
            Shown::Nothing => {}
            Shown::Lines => output::note(&format!("{line}\n")),
            Shown::ChangingLine => output::changing_line(&line),
        }
    }
}

/// The machine registers, and the transport makes its connection for that. To a person it is the other way round: so
/// the first registration is printed when the connection stands.
#[derive(Debug, Default)]
struct Order {
    connected: bool,
    /// Several transports make their connections: the one that is taken is named when it is.
    is_race: bool,
    transport: Option<&'static str>,
    operation_id: Option<OperationId>,
    /// When the first step came.
    began: Option<Instant>,
    took: Option<Duration>,
}

impl Order {
    fn words(&mut self, step: &Step) -> Option<String> {
        match step {
            Step::Registering if !self.connected => None,
            Step::TryingTransport { .. } => {
                self.is_race = true;
                Some(words(step))
            }
            Step::TransportChosen { .. } => {
                (self.is_race, self.connected) = (false, true);
                Some(words(step))
            }
            Step::Connected if self.is_race => None,
            Step::Connected if !self.connected => {
                self.connected = true;
                Some(words(&Step::Registering))
            }
            step => Some(words(step)),
        }
    }
}

fn words(step: &Step) -> String {
    match step {
        Step::TryingTransport { transport } => format!("trying {transport}"),
        Step::TransportFailed { transport, reason } => {
            format!("{transport} does not get through: {reason}")
        }
        Step::TransportChosen { transport } => format!("registering over {transport}"),
        Step::Signing => "waiting for the signer".to_owned(),
        Step::Signed => "signed".to_owned(),
        Step::Resolving { host } => format!("resolving {host}"),
        Step::Connecting { address } => format!("connecting to {address}"),
        Step::Proxy { proxy } => format!("asking the proxy {proxy} for a tunnel"),
        Step::Tls { server_name } => format!("TLS handshake with {server_name}"),
        Step::Websocket => "WebSocket upgrade".to_owned(),
        Step::Connected => "connected".to_owned(),
        Step::Registering => "registering".to_owned(),
        Step::CredentialRefused { credential } => {
            format!("credential {} refused; trying the next one", credential + 1)
        }
        Step::Assigning { operation_id } => format!("assigning, operation {operation_id}"),
        Step::Waiting { wait, then } => {
            let what = match then {
                Next::RegisterAgain => "the service is busy; registering again",
                Next::PollAgain => "next try of the poll",
                _ => "next poll",
            };
            format!("{what} in {} s", tenths(wait.as_secs_f64()))
        }
        Step::Polling => "polling".to_owned(),
        Step::Assigned => "assigned".to_owned(),
        other => format!("{other:?}"),
    }
}

/// Rounded to a tenth, and without one when there is none.
fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_the_connection_before_the_request() {
        let mut order = Order::default();
        let shown = [Step::Registering, Step::Websocket, Step::Connected, Step::Registering]
            .map(|step| order.words(&step).unwrap_or_default());
        assert_eq!(shown, ["", "WebSocket upgrade", "registering", "registering"]);
    }

    #[test]
    fn a_wait_is_shown_in_round_numbers() {
        for (millis, says) in [(3000, "next poll in 3 s"), (2349, "next poll in 2.3 s")] {
            let wait = Duration::from_millis(millis);
            assert_eq!(words(&Step::Waiting { wait, then: Next::Poll }), says, "{millis:?}");
        }
    }
}
