//! `dps emulate -v`: one line for each registration that ended and each refusal, with its reason.

use std::collections::HashMap;

use dps_client::Printable;
use dps_emulator::{Event, EventKind, EventLog, Operation, Transport};

use crate::output::Traces;

/// Of so many connections it is kept by which transport they came.
const CONNECTIONS: usize = 4096;

/// Tells them until the emulator is gone.
pub(crate) async fn tell(events: &EventLog) {
    let mut lines = Lines::default();
    let mut next = 0;
    while let Some(event) = events.wait_for_since(next, |_| true).await {
        next = event.sequence + 1;
        if let Some(line) = lines.of(&event) {
            // Nobody may be reading: then it is dropped.
            let _ = std::io::Write::write(&mut Traces, line.as_bytes());
        }
    }
}

/// The transport of each connection that is open.
#[derive(Default)]
struct Lines {
    transports: HashMap<u64, &'static str>,
}

impl Lines {
    fn of(&mut self, event: &Event) -> Option<String> {
        let (device, what) = match &event.kind {
            // The port of HTTP is that of WebSocket, and over that the credential comes before any request.
            EventKind::Connected { transport: Transport::Http, .. } => {
                self.keep(event.connection, "websocket");
                return None;
            }
            EventKind::Connected { transport, .. } | EventKind::Request { transport, .. } => {
                self.keep(event.connection, name(*transport));
                return None;
            }
            EventKind::Closed { .. } => {
                self.transports.remove(&event.connection);
                return None;
            }
            EventKind::TlsFailed { reason } => (None, format!("refused: no TLS: {reason}")),
            EventKind::AuthenticationFailed { registration_id, error_code, reason, .. } => {
                (Some(registration_id), format!("refused: {reason} ({error_code})"))
            }
            // Its reason was printed already.
            EventKind::Answer { status: 401, .. } => return None,
            EventKind::Answer { registration_id, status, error_code, operation, .. }
                if *status >= 300 =>
            {
                let code = error_code.map(|code| format!(", error code {code}"));
                let what = match operation {
                    Operation::Register => "the registration",
                    Operation::Query => "the query",
                    Operation::Lookup => "the status lookup",
                    Operation::OnboardingUpdate | Operation::SoftwareUpdate => {
                        "the request for an update"
                    }
                    Operation::UpdateStatus => "the report on an update",
                    _ => "an unknown request",
                };
                let code = code.unwrap_or_default();
                (Some(registration_id), format!("refused: {what} with status {status}{code}"))
            }
            EventKind::Answer {
                registration_id,
                registration_status: Some(status),
                operation: Operation::Register | Operation::Query,
                ..
            } if !matches!(status.as_str(), "assigning" | "unassigned") => {
                (Some(registration_id), status.clone())
            }
            _ => return None,
        };
        let transport = self.transports.get(&event.connection).copied().unwrap_or("?");
        let device = device.map_or("?", String::as_str);
        let line = format!("{} {transport} {device} {what}", event.time);
        Some(format!("{}\n", Printable::brief(&line)))
    }

    fn keep(&mut self, connection: u64, transport: &'static str) {
        if self.transports.len() < CONNECTIONS {
            self.transports.insert(connection, transport);
        }
    }
}

fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Http => "http",
        Transport::Mqtt => "mqtt",
        Transport::MqttWs => "mqtt-ws",
        Transport::Amqp => "amqp",
        Transport::AmqpWs => "amqp-ws",
        _ => "?",
    }
}
