//! An answer as every transport gets it from the service.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{error::ServiceError, script::Fault};
use crate::behavior::{Body, Delivery, RetryAfter};

/// An answer: what it says, and how it is to be delivered.
#[derive(Clone, Debug, PartialEq)]
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
    pub(crate) delivery: Delivery,
    /// The answer is to bear the id of another request.
    pub(crate) wrong_id: bool,
    /// The answer is to be sent twice.
    pub(crate) twice: bool,
}

impl Reply {
    pub(crate) fn ok(status: u16, body: Value) -> Self {
        Self {
            status,
            registration_status: body.get("status").and_then(Value::as_str).map(str::to_owned),
            body: to_bytes(&body),
            content_type: "application/json; charset=utf-8".to_owned(),
            retry_after: Vec::new(),
            pending: None,
            error_code: None,
            tracking_id: String::new(),
            delivery: Delivery::Whole,
            wrong_id: false,
            twice: false,
        }
    }

    pub(crate) fn refusal(tracking_id: String, timestamp: &str, error: &ServiceError) -> Self {
        let body = json!({
            "errorCode": error.error_code,
            "trackingId": tracking_id,
            "message": error.message,
            "timestampUtc": timestamp,
        });
        Self { error_code: Some(error.error_code), ..Self::ok(error.status, body) }
            .tracked(tracking_id)
    }

    pub(crate) fn tracked(mut self, tracking_id: String) -> Self {
        self.tracking_id = tracking_id;
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
    pub(crate) fn spoiled(mut self, fault: &Fault, now: SystemTime) -> Self {
        if let Some(retry_after) = &fault.retry_after {
            self = self.retry_after(retry_after, now);
        }
        if let Some(status) = fault.status {
            self.status = status;
        }
        if !fault.edits.is_empty()
            && let Ok(mut body) = serde_json::from_slice::<Value>(&self.body)
        {
            for (path, value) in &fault.edits {
                edit(&mut body, path, value.as_ref());
            }
            self.body = to_bytes(&body);
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

fn to_bytes(body: &Value) -> Vec<u8> {
    if body.is_null() { Vec::new() } else { body.to_string().into_bytes() }
}

/// Sets or removes the value at a dotted path; objects on the way to a value to set are made.
fn edit(body: &mut Value, path: &str, value: Option<&Value>) {
    let (parents, name) = match path.rsplit_once('.') {
        Some((parents, name)) => (Some(parents), name),
        None => (None, path),
    };
    let mut at = body;
    for parent in parents.into_iter().flat_map(|parents| parents.split('.')) {
        let Value::Object(fields) = at else { return };
        if value.is_none() && !fields.contains_key(parent) {
            return;
        }
        at = fields.entry(parent).or_insert_with(|| json!({}));
    }
    if let Value::Object(fields) = at {
        match value {
            Some(value) => fields.insert(name.to_owned(), value.clone()),
            None => fields.remove(name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_set_and_removed_by_path() {
        let mut body = json!({"a": {"b": 1, "c": 2}, "d": 3});
        edit(&mut body, "a.b", None);
        edit(&mut body, "d", Some(&json!("x")));
        edit(&mut body, "e.f", Some(&json!(null)));
        edit(&mut body, "g.h", None);
        edit(&mut body, "d.no-object", Some(&json!(1)));
        assert_eq!(body, json!({"a": {"c": 2}, "d": "x", "e": {"f": null}}));
    }

    #[test]
    fn retry_after_is_written_in_every_form() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let written =
            |retry_after| Reply::ok(202, json!({})).retry_after(&retry_after, now).retry_after;
        assert!(written(RetryAfter::Absent).is_empty());
        assert_eq!(written(RetryAfter::Seconds(3)), ["3"]);
        assert_eq!(written(RetryAfter::DateIn(10)), ["Sun, 06 Nov 1994 08:49:47 GMT"]);
        assert_eq!(written(RetryAfter::DateIn(u64::MAX)), ["Fri, 31 Dec 9999 23:59:59 GMT"]);
        assert_eq!(written(RetryAfter::Raw(vec!["1".into(), "x".into()])), ["1", "x"]);
    }
}
