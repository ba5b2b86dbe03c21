//! How much memory an event takes, about: whoever fills the log must not fill the memory.

use serde_json::Value;

use super::{Event, EventKind};

/// About the bytes of an event and of all that hangs on it.
pub(super) fn of(event: &Event) -> usize {
    size_of::<Event>() + event.time.len() + of_kind(&event.kind)
}

fn of_kind(kind: &EventKind) -> usize {
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    match kind {
        EventKind::Connected { .. } => 0,
        EventKind::TlsEstablished { version, server_name, thumbprint, .. } => {
            version.len() + optional(server_name) + optional(thumbprint)
        }
        EventKind::TlsFailed { reason } | EventKind::Closed { reason, .. } => reason.len(),
        EventKind::Request {
            registration_id, operation_id, api_version, headers, payload, ..
        } => {
            let fields = headers.iter().map(|(name, value)| name.len() + value.len());
            registration_id.len()
                + optional(operation_id)
                + optional(api_version)
                + of_map(fields)
                + payload.as_ref().map_or(0, of_value)
        }
        EventKind::Authenticated { registration_id, enrollment, .. } => {
            registration_id.len() + enrollment.len()
        }
        EventKind::AuthenticationFailed { registration_id, reason, .. } => {
            registration_id.len() + reason.len()
        }
        EventKind::Answer {
            registration_id,
            registration_status,
            tracking_id,
            retry_after,
            ..
        } => {
            registration_id.len()
                + optional(registration_status)
                + tracking_id.len()
                + retry_after.iter().map(|value| size_of::<String>() + value.len()).sum::<usize>()
        }
    }
}

/// The depth is bounded: a JSON text of more levels is not read.
fn of_value(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(values) => values.iter().map(of_value).sum(),
            Value::Object(fields) => {
                of_map(fields.iter().map(|(name, value)| name.len() + of_value(value)))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
}

/// A map's nodes have room for a dozen entries, whether they are there or not.
fn of_map(entries: impl Iterator<Item = usize>) -> usize {
    const NODE: usize = 12 * (size_of::<String>() + size_of::<Value>());
    entries.fold(0, |sum, entry| sum + entry + NODE / 6).max(NODE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::events::{EventLog, Operation, Recorder, Transport};

    fn request(payload: Value) -> EventKind {
        EventKind::Request {
            transport: Transport::Http,
            operation: Operation::Register,
            registration_id: "dev-1".into(),
            operation_id: None,
            api_version: None,
            force: false,
            headers: BTreeMap::new(),
            body_bytes: 0,
            payload: Some(payload),
        }
    }

    #[test]
    fn a_log_of_large_payloads_stays_within_its_bytes() {
        let recorder = Recorder::new(None);
        // 1.6 MiB in memory, 100 kB as text.
        let payload = json!(vec![1; 50_000]);
        for _ in 0..100 {
            recorder.record(1, request(payload.clone()));
        }
        let log = recorder.log();
        let kept = log.snapshot();
        assert!(kept.iter().map(of).sum::<usize>() <= EventLog::CAPACITY_BYTES);
        assert!(kept.len() > 10 && log.dropped() > 10, "{} kept", kept.len());
        assert_eq!(kept.last().map(|event| event.sequence), Some(99));
    }

    #[test]
    fn what_is_small_as_text_and_large_in_memory_weighs_what_it_takes() {
        let weight_of = |payload| of_kind(&request(payload));
        assert!(weight_of(json!(vec![1; 1000])) > 32_000);
        assert!(weight_of(json!(vec![json!({ "": 1 }); 1000])) > 600_000);
        assert!(weight_of(json!("x".repeat(1000))) > 1000);
    }
}
