//! An answer as every transport gets it from the service.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use dps_state_machine::Json;
use serde::Serialize;
use serde_json::{Value, json};

use super::{error::ServiceError, registrations::Fields, script::Fault};
use crate::behavior::{Body, Delivery, RetryAfter};

/// An answer: what it says, and how it is to be delivered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Reply {
    /// As HTTP counts it.
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: String,
    /// The values of its retry-after, each on its own.
    pub(crate) retry_after: Vec<String>,
    /// The operation that is under way.
    pub(crate) pending: Option<String>,
    pub(crate) error_code: Option<u32>,
    pub(crate) tracking_id: String,
    /// The status word of the registration, before any fault changed it.
    pub(crate) registration_status: Option<String>,
    /// The code of a registration that has failed, before any fault changed it; the answer itself is no refusal.
    pub(crate) failure: Option<u32>,
    pub(crate) delivery: Delivery,
    /// The answer is to bear the id of another request.
    pub(crate) wrong_id: bool,
    /// The answer is to be sent twice.
    pub(crate) twice: bool,
}

impl Reply {
    pub(crate) fn ok(status: u16, body: &impl Serialize) -> Self {
        // Objects of texts, numbers and what is JSON already: there is nothing that can fail to serialize.
        Self { body: serde_json::to_vec(body).unwrap_or_default(), ..Self::empty(status) }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            content_type: "application/json; charset=utf-8".to_owned(),
            ..Self::default()
        }
    }

    pub(crate) fn refusal(tracking_id: String, timestamp: &str, error: &ServiceError) -> Self {
        let body = json!({
            "errorCode": error.error_code,
            "trackingId": tracking_id,
            "message": error.message,
            "timestampUtc": timestamp,
        });
        Self { error_code: Some(error.error_code), ..Self::ok(error.status, &body) }
            .tracked(tracking_id)
    }

    pub(crate) fn tracked(mut self, tracking_id: String) -> Self {
        self.tracking_id = tracking_id;
        self
    }

    /// Sets the status word that the body has, and why the registration has failed if its state says so.
    pub(crate) fn registration_status(mut self, word: &str, state: Option<&Fields>) -> Self {
        self.registration_status = Some(word.to_owned());
        let code = state.and_then(|state| state.get("errorCode"));
        self.failure = code.and_then(|code| code.read().ok());
        self
    }

    pub(crate) fn pending(mut self, operation_id: String) -> Self {
        self.pending = Some(operation_id);
        self
    }

    pub(crate) fn retry_after(mut self, retry_after: &RetryAfter, now: SystemTime) -> Self {
        self.retry_after = match retry_after {
            RetryAfter::Absent => vec![],
            RetryAfter::Seconds(seconds) => vec![seconds.to_string()],
            RetryAfter::DateIn(seconds) => vec![http_date(now, *seconds)],
            RetryAfter::Raw(values) => values.clone(),
        };
        self
    }

    /// The answer with a fault's changes.
    pub(crate) fn with_fault(mut self, fault: &Fault, now: SystemTime) -> Self {
        if let Some(retry_after) = &fault.retry_after {
            self = self.retry_after(retry_after, now);
        }
        if let Some(status) = fault.status {
            self.status = status;
        }
        for (path, value) in &fault.edits {
            if let Ok(body) = serde_json::from_slice(&self.body)
                && let Some(edited) = edit(&body, path, value.as_ref())
            {
                self.body = edited.get().into();
            }
        }
        match &fault.body {
            None => {}
            Some(Body::Empty) => self.body.clear(),
            Some(Body::Garbage) => self.body = vec![0xff, 0xfe, 0x00, b'{', b'"', 0x80, 0xc3, b'!'],
            Some(Body::Html) => {
                self.body = HTML.into();
                self.content_type = "text/html".to_owned();
            }
            Some(Body::Text(text)) => self.body = text.clone().into_bytes(),
            Some(Body::Cut(length)) => self.body.truncate(*length),
            Some(Body::Oversized(length)) => {
                // White space after it keeps the JSON right and makes it large.
                let length = self.body.len().max((*length).min(Body::MAX_OVERSIZED));
                self.body.resize(length, b' ');
            }
        }
        if let Some(content_type) = &fault.content_type {
            self.content_type = content_type.clone();
        }
        self.delivery = fault.delivery;
        self.wrong_id = fault.wrong_id;
        self.twice = fault.twice;
        self
    }
}

const HTML: &str = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>\
                    <body><h1>This network needs you to sign in</h1></body></html>\n";

/// A date as HTTP has it, so many seconds from now.
pub(crate) fn http_date(now: SystemTime, seconds: u64) -> String {
    // HTTP dates end with the year 9999, and so does the formatter.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let elapsed = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let date = elapsed.saturating_add(Duration::from_secs(seconds)).min(LAST);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + date)
}

/// The object with the value at a dotted path set or removed, and the other values to the letter; objects on the way
/// to a value to set are made. `None` when there is nothing to change.
fn edit(object: &Json, path: &str, value: Option<&Value>) -> Option<Json> {
    let mut fields: BTreeMap<String, Json> = object.read().ok()?;
    match (path.split_once('.'), value) {
        (Some((parent, rest)), _) => {
            let child = match (fields.get(parent), value) {
                (Some(child), _) => edit(child, rest, value)?,
                (None, Some(_)) => edit(&json!({}).into(), rest, value)?,
                (None, None) => return None,
            };
            fields.insert(parent.to_owned(), child);
        }
        (None, Some(value)) => {
            fields.insert(path.to_owned(), value.clone().into());
        }
        (None, None) => {
            fields.remove(path)?;
        }
    }
    Json::new(&fields).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_and_removed_by_path() {
        let mut body: Json =
            r#"{"a": {"b": 1, "c": 2.0}, "d": 3, "h": {"z": 1e2, "a": 12345678901234567890123}}"#
                .parse()
                .unwrap();
        let edits = [
            ("a.b", None),
            ("d", Some(json!("x"))),
            ("e.f", Some(json!(null))),
            ("g.h", None),
            ("d.no-object", Some(json!(1))),
        ];
        for (path, value) in edits {
            body = edit(&body, path, value.as_ref()).unwrap_or(body);
        }
        assert_eq!(
            body.get(),
            r#"{"a":{"c":2.0},"d":"x","e":{"f":null},"h":{"z": 1e2, "a": 12345678901234567890123}}"#
        );
    }

    #[test]
    fn retry_after_is_written_in_every_form() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let written = |retry_after| Reply::empty(202).retry_after(&retry_after, now).retry_after;
        assert!(written(RetryAfter::Absent).is_empty());
        assert_eq!(written(RetryAfter::Seconds(3)), ["3"]);
        assert_eq!(written(RetryAfter::DateIn(10)), ["Sun, 06 Nov 1994 08:49:47 GMT"]);
        assert_eq!(written(RetryAfter::DateIn(u64::MAX)), ["Fri, 31 Dec 9999 23:59:59 GMT"]);
        assert_eq!(written(RetryAfter::Raw(vec!["1".into(), "x".into()])), ["1", "x"]);
    }
}
