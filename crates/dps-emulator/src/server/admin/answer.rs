//! Answers: JSON, text, or a stream; and what is wrong with a request, as JSON too.

use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::json;

use super::events::Events;
use crate::config_error::ConfigError;

pub(super) type Answer = Response<Either<Full<Bytes>, Events>>;

/// Why a request is refused: the part of it that is wrong, its value, and what would be right.
#[derive(Debug)]
pub(super) struct Problem(Box<Wrong>);

#[derive(Debug)]
struct Wrong {
    status: StatusCode,
    field: String,
    value: String,
    message: String,
    header: Option<(header::HeaderName, String)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, field: &str, value: &str, message: &str) -> Self {
        Self(Box::new(Wrong {
            status,
            field: field.to_owned(),
            value: value.chars().take(128).collect(),
            message: message.to_owned(),
            header: None,
        }))
    }

    pub(super) fn bad(field: &str, value: &str, message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, field, value, message)
    }

    pub(super) fn not_found(field: &str, value: &str, message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, field, value, message)
    }

    /// A name that is none.
    pub(super) fn unknown(error: ConfigError) -> Self {
        Self::not_found(error.field(), error.given(), error.reason())
    }

    pub(super) fn too_large() -> Self {
        let message = "it must be 1048576 bytes (1 MiB) at most";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body", "", message)
    }

    pub(super) fn with(mut self, name: header::HeaderName, value: &str) -> Self {
        self.0.header = Some((name, value.to_owned()));
        self
    }

    pub(super) fn into_answer(self) -> Answer {
        let Wrong { status, field, value, message, header } = *self.0;
        let error = json!({ "field": field, "value": value, "message": message });
        let mut answer = json(&json!({ "error": error }));
        *answer.status_mut() = status;
        if let Some((name, value)) = header
            && let Ok(value) = HeaderValue::from_str(&value)
        {
            answer.headers_mut().insert(name, value);
        }
        answer
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        Self::bad(error.field(), error.given(), error.reason())
    }
}

/// JSON in one line.
pub(super) fn json(value: &impl Serialize) -> Answer {
    // Keys that are texts, and values of JSON: there is nothing that can fail to serialize.
    let text = serde_json::to_string(value).unwrap_or_default() + "\n";
    whole("application/json", text)
}

pub(super) fn whole(content_type: &'static str, text: impl Into<Bytes>) -> Answer {
    answer(content_type, Either::Left(Full::new(text.into())))
}

pub(super) fn stream(content_type: &'static str, events: Events) -> Answer {
    answer(content_type, Either::Right(events))
}

/// What was done, without anything to say of it.
pub(super) fn done() -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

fn answer(content_type: &'static str, body: Either<Full<Bytes>, Events>) -> Answer {
    let mut answer = Response::new(body);
    let content_type = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}

/// Adds what keeps an answer out of caches, frames, and pages of other origins. An answer to HEAD has no body, or a
/// stream would never end.
pub(super) fn finish(mut answer: Answer, is_head: bool) -> Answer {
    const HEADERS: [(header::HeaderName, &str); 5] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if is_head && matches!(answer.body(), Either::Right(_)) {
        *answer.body_mut() = Either::Left(Full::default());
    }
    answer
}
