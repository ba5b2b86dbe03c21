//! The steps of a registration for a person who watches, on standard error.

use std::{
    io::{self, Write},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use dps_client::{Next, Printable, Step};

use crate::secret;

/// Prints each step with the time since `start`.
pub(crate) fn printer(start: Instant) -> impl Fn(&Step) + Send + Sync {
    let order = Mutex::new(Order::default());
    move |step| {
        let mut order = order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = order.words(step) {
            let seconds = start.elapsed().as_secs_f64();
            // Nobody may be listening.
            let words = secret::masked(&words);
            let _ = writeln!(io::stderr(), "{seconds:7.2} s  {}", Printable::whole(words.as_ref()));
        }
    }
}

/// The machine registers, and the transport makes its connection for that. To a person it is the other way round: so
/// the first registration is told when the connection stands.
#[derive(Default)]
struct Order {
    connected: bool,
}

impl Order {
    fn words(&mut self, step: &Step) -> Option<String> {
        match step {
            Step::Registering if !self.connected => None,
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
        Step::Signing => "waiting for the signer".to_owned(),
        Step::Signed => "signed".to_owned(),
        Step::Resolving { host } => format!("resolving {host}"),
        Step::Connecting { address } => format!("connecting to {address}"),
        Step::Proxy { proxy } => format!("asking the proxy {proxy} for a tunnel"),
        Step::Tls { server_name } => format!("TLS handshake with {server_name}"),
        Step::Websocket => "WebSocket upgrade".to_owned(),
        Step::Connected => "connected".to_owned(),
        Step::Registering => "registering".to_owned(),
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
    use std::time::Duration;

    #[test]
    fn the_connection_is_told_before_what_it_is_for() {
        let mut order = Order::default();
        let told = [Step::Registering, Step::Websocket, Step::Connected, Step::Registering]
            .map(|step| order.words(&step).unwrap_or_default());
        assert_eq!(told, ["", "WebSocket upgrade", "registering", "registering"]);
    }

    #[test]
    fn a_wait_is_told_in_round_numbers() {
        for (millis, says) in [(3000, "next poll in 3 s"), (2349, "next poll in 2.3 s")] {
            let wait = Duration::from_millis(millis);
            assert_eq!(words(&Step::Waiting { wait, then: Next::Poll }), says);
        }
    }
}
