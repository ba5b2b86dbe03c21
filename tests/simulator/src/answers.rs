//! What a transport can answer.

use std::time::Duration;

use dps_state_machine::{
    ConnectionError, Error, ProtocolError, ProtocolResult, RegistrationRequest, Response, Stage,
};

/// An answer of a transport.
pub type Answer = Result<Response, Error>;

/// The request of the device with this name.
///
/// # Panics
/// When it is no registration id.
#[must_use]
pub fn request_of(device: &str) -> RegistrationRequest {
    RegistrationRequest::new(device.parse().expect("a registration id"))
}

/// The request of `dev-1`.
#[must_use]
pub fn request() -> RegistrationRequest {
    request_of("dev-1")
}

/// So many seconds.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The operation `op-1` with this status, and everything that any status can have beside it.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn status(word: &str) -> Answer {
    status_of("op-1", word)
}

/// An operation with this status.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn status_of(operation: &str, word: &str) -> Answer {
    let state = r#"{"assignedHub":"hub-1","deviceId":"dev-1","substatus":"initialAssignment","errorCode":400207,"errorMessage":"no hub"}"#;
    let body =
        format!(r#"{{"operationId":"{operation}","status":"{word}","registrationState":{state}}}"#);
    let metadata = ProtocolResult::from_iter([("transport", "scripted")]);
    Ok(Response::new(200, body).protocol_result(metadata))
}

/// The device has a hub.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn assigned() -> Answer {
    status("assigned")
}

/// The service is at work.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn assigning() -> Answer {
    Ok(Response::new(202, r#"{"operationId":"op-1","status":"assigning"}"#))
}

/// The service is at work and says when to ask again.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn assigning_after(seconds: u64) -> Answer {
    asking(assigning(), Some(seconds))
}

/// The answer with a retry-after.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn asking(answer: Answer, seconds: Option<u64>) -> Answer {
    answer.map(|response| response.retry_after(seconds.map(secs)))
}

/// The service refuses with this code, and with a retry-after.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn refused(code: u32, retry_after: Option<u64>) -> Answer {
    let body = format!(r#"{{"errorCode":{code},"trackingId":"t-1","message":"not now"}}"#);
    let status = u16::try_from(code / 1000).unwrap_or(u16::MAX);
    asking(Ok(Response::new(status, body)), retry_after)
}

/// No connection could be made.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn broken<V>() -> Result<V, Error> {
    Err(ConnectionError::new(Stage::Connect, "connection refused").into())
}

/// The connection was lost.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn lost<V>() -> Result<V, Error> {
    Err(ConnectionError::lost(Stage::Query, "connection reset").into())
}

/// Something came that the transport could not read.
#[expect(clippy::missing_errors_doc, reason = "the error is the answer")]
pub fn unreadable() -> Answer {
    Err(ProtocolError::unreadable(Stage::Query, "no such thing").into())
}
