//! What the service says of an error: its code and message, and those of errors within the message.

use alloc::{format, string::String};

use crate::body::{self, Object};

/// Whether an answer says no to the device's credential: by its status, or by an error code, be it the answer's own, that
/// of a registration that has failed after it was accepted, or one of an error within the message.
pub(crate) fn refuses_credential(status: u16, body: &[u8]) -> bool {
    let text = body::text(body);
    let body = Object::read(&text).unwrap_or_default();
    let state = body.object("registrationState");
    let error = match body.text("status") {
        Some(word) if word.eq_ignore_ascii_case("failed") => {
            ServiceError::read(state.code("errorCode"), state.text("errorMessage"))
        }
        _ => ServiceError::read(body.code("errorCode"), body.text("message")),
    };
    status == 401 || error.refuses_credential
}

/// What an error says. Its message may be JSON of another error, or end with it: the part of the service that failed
/// passes on what it was told.
pub(crate) struct ServiceError {
    pub(crate) code: Option<u32>,
    pub(crate) message: Option<String>,
    pub(crate) tracking_id: Option<String>,
    /// Whether one of the error codes refuses the credential.
    refuses_credential: bool,
}

impl ServiceError {
    /// So many errors may stand in each other.
    const DEPTH: usize = 4;

    pub(crate) fn read(code: Option<u32>, message: Option<String>) -> Self {
        let is_about_it = |code: Option<u32>| code.map(status_of) == Some(401);
        let refuses_credential = is_about_it(code);
        let mut error = Self { code, message, tracking_id: None, refuses_credential };
        for _ in 0..Self::DEPTH {
            let Some((before, inner)) = error.message.as_deref().and_then(split_json) else {
                break;
            };
            let Ok(inner) = Object::read(inner) else { break };
            let (inner_code, words) = (inner.code("errorCode"), inner.text("message"));
            if inner_code.is_none() && words.is_none() {
                break;
            }
            error.refuses_credential |= is_about_it(inner_code);
            let mut message = format!("{before}{}", words.unwrap_or_default());
            match inner_code {
                Some(inner_code) if error.code.is_some_and(|code| code != inner_code) => {
                    message = format!("{} (error code {inner_code})", message.trim());
                }
                _ => error.code = error.code.or(inner_code),
            }
            error.tracking_id =
                inner.text("trackingId").filter(|id| !id.is_empty()).or(error.tracking_id);
            error.message = Some(message).filter(|message| !message.is_empty());
        }
        error
    }
}

/// What stands before a JSON object at the end of a text, and the object.
fn split_json(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_end();
    let start = text.find('{').filter(|_| text.ends_with('}'))?;
    text.split_at_checked(start)
}

/// An error code is its HTTP status times 1000 and a number of its own.
pub(crate) fn status_of(error_code: u32) -> u16 {
    u16::try_from(error_code / 1000).unwrap_or(0)
}
