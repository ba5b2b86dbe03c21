//! What an answer means, decided once for every wire.

use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use serde::{Deserialize, de::Error as _};
use serde_json::{Value, value::RawValue};

use crate::{
    error::{Error, ProtocolError, Rejection, RejectionCause, Stage},
    ids::OperationId,
    registered::{Registered, Substatus},
    response::Response,
};

/// What the machine does next.
pub(crate) enum Verdict {
    /// Done.
    Assigned(Box<Registered>),
    /// Ask again later.
    Assigning { operation_id: OperationId, retry_after: Option<Duration>, body: Vec<u8> },
    /// The same request can succeed later: wait and send it again.
    Transient(Box<Rejection>),
    /// Over.
    Failed(Error),
}

/// Same identity registering twice at once: transient although it is a 4xx.
const CONFLICT: u32 = 409_203;

/// Judges the answer to the request of the given stage. `known` is the operation asked about: an answer need
/// not repeat it.
pub(crate) fn judge(response: Response, stage: Stage, known: Option<&OperationId>) -> Verdict {
    match response.status {
        200..=299 => judge_success(response, stage, known),
        300..=599 => judge_refusal(response, stage),
        status => {
            let reason = format!("{status} is no status of an answer");
            Verdict::Failed(nonsense(response, stage, reason))
        }
    }
}

/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/operation-status-lookup>.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    operation_id: Option<String>,
    status: Option<String>,
    #[serde(borrow)]
    registration_state: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct StateBody {
    assigned_hub: Option<String>,
    device_id: Option<String>,
    substatus: Option<String>,
    payload: Option<Box<RawValue>>,
    error_code: Option<Value>,
    error_message: Option<String>,
}

/// The service's words out of a success.
fn read(body: &[u8]) -> serde_json::Result<(Body<'_>, StateBody)> {
    let body: Body<'_> = object(serde_json::from_slice(body)?)?;
    let state = body.registration_state.map(object).transpose()?;
    Ok((body, state.unwrap_or_default()))
}

/// An object, and not the list of its fields' values that the library would take too.
fn object<'a, T: Deserialize<'a>>(json: &'a RawValue) -> serde_json::Result<T> {
    if json.get().starts_with('{') {
        serde_json::from_str(json.get())
    } else {
        Err(serde_json::Error::custom("no object where one belongs"))
    }
}

fn judge_success(response: Response, stage: Stage, known: Option<&OperationId>) -> Verdict {
    let (body, state) = match read(&response.body) {
        Ok(read) => read,
        Err(error) => {
            let reason = if response.body.is_empty() {
                "it is empty".to_string()
            } else {
                format!("it is not the JSON expected: {error}")
            };
            return Verdict::Failed(nonsense(response, stage, reason));
        }
    };
    let operation_id = body.operation_id.and_then(OperationId::new).or_else(|| known.cloned());
    let Some(status) = body.status else {
        return Verdict::Failed(nonsense(response, stage, "it has no status".into()));
    };
    match (status.to_ascii_lowercase().as_str(), operation_id) {
        ("assigned", operation_id) => assigned(response, stage, operation_id, state),
        ("assigning" | "unassigned", Some(operation_id)) => Verdict::Assigning {
            operation_id,
            retry_after: response.retry_after,
            body: response.body,
        },
        ("assigning" | "unassigned", None) => {
            let reason = format!("its status is {status} and it has no operationId to ask about");
            Verdict::Failed(nonsense(response, stage, reason))
        }
        ("failed", _) => ended(response, stage, state, RejectionCause::Failed),
        ("disabled", _) => ended(response, stage, state, RejectionCause::Disabled),
        _ => {
            let reason = format!("its status {status:?} is unknown");
            let mut error = protocol_error(response, stage, reason);
            error.unknown_status = Some(status);
            Verdict::Failed(error.into())
        }
    }
}

fn assigned(
    response: Response,
    stage: Stage,
    operation_id: Option<OperationId>,
    state: StateBody,
) -> Verdict {
    let given = |field: Option<String>| field.filter(|text| !text.is_empty());
    match (given(state.assigned_hub), given(state.device_id)) {
        (Some(assigned_hub), Some(device_id)) => Verdict::Assigned(Box::new(Registered {
            assigned_hub,
            device_id,
            operation_id,
            substatus: state.substatus.map(Substatus::from),
            payload: state.payload,
            polls: 0,
            body: response.body,
            protocol_result: response.protocol_result,
        })),
        (hub, _) => {
            let missing = if hub.is_none() { "assignedHub" } else { "deviceId" };
            let reason = format!("its status is assigned and registrationState has no {missing}");
            Verdict::Failed(nonsense(response, stage, reason))
        }
    }
}

/// The registration came to an end that is no success.
fn ended(response: Response, stage: Stage, state: StateBody, cause: RejectionCause) -> Verdict {
    let error_code = state.error_code.as_ref().and_then(code_of);
    let message = state.error_message.unwrap_or_else(|| "the service gives no reason".to_string());
    Verdict::Failed(
        Rejection {
            stage,
            cause,
            status: response.status,
            error_code,
            tracking_id: None,
            message,
            timestamp: None,
            retry_after: response.retry_after,
            hint: response.hint,
            retryable: error_code.is_some_and(|code| is_transient(status_of(code), Some(code))),
            body: response.body,
            protocol_result: response.protocol_result,
        }
        .into(),
    )
}

fn judge_refusal(response: Response, stage: Stage) -> Verdict {
    // By hand and field by field: an error body of another shape still gives what it has.
    let body: Option<Value> = serde_json::from_slice(&response.body).ok();
    let field = |name: &str| body.as_ref().and_then(|body| body.get(name));
    let text = |name: &str| field(name).and_then(Value::as_str).map(ToString::to_string);

    let error_code = field("errorCode").and_then(code_of);
    let retryable = is_transient(response.status, error_code);
    let message = text("message")
        .or_else(|| response.reason.clone())
        .unwrap_or_else(|| describe_body(response.status, &response.body));
    let rejection = Box::new(Rejection {
        stage: if response.status == 401 { Stage::Authenticate } else { stage },
        cause: RejectionCause::Refused,
        status: response.status,
        error_code,
        tracking_id: text("trackingId").filter(|id| !id.is_empty()),
        message,
        timestamp: text("timestampUtc"),
        retry_after: response.retry_after,
        hint: response.hint,
        retryable,
        body: response.body,
        protocol_result: response.protocol_result,
    });
    if retryable {
        Verdict::Transient(rejection)
    } else {
        Verdict::Failed(Error::Rejected(rejection))
    }
}

fn is_transient(status: u16, error_code: Option<u32>) -> bool {
    status == 429 || status >= 500 || error_code == Some(CONFLICT)
}

/// An error code is its HTTP status times 1000 and a number of its own.
fn status_of(error_code: u32) -> u16 {
    u16::try_from(error_code / 1000).unwrap_or(0)
}

/// A number, or a text that is one.
fn code_of(value: &Value) -> Option<u32> {
    match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|code| u32::try_from(code).ok()),
    }
}

/// Enough of an unexpected body to recognise a proxy's page by.
fn describe_body(status: u16, body: &[u8]) -> String {
    const SHOWN: usize = 120;
    let text = String::from_utf8_lossy(body);
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() {
        return format!("status {status} without a body");
    }
    match words.char_indices().nth(SHOWN) {
        Some((end, _)) => {
            words.truncate(end);
            format!("status {status} with a body that begins {words:?}")
        }
        None => format!("status {status} with the body {words:?}"),
    }
}

fn nonsense(response: Response, stage: Stage, reason: String) -> Error {
    protocol_error(response, stage, reason).into()
}

fn protocol_error(response: Response, stage: Stage, reason: String) -> ProtocolError {
    ProtocolError {
        stage,
        reason,
        status: Some(response.status),
        unknown_status: None,
        body: response.body,
        protocol_result: response.protocol_result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Verdict {
        judge(Response::new(status, body), Stage::Register, None)
    }

    fn error(status: u16, body: &str) -> Error {
        match judged(status, body) {
            Verdict::Failed(error) => error,
            Verdict::Transient(rejection) => Error::Rejected(rejection),
            _ => panic!("{status} {body} is no error"),
        }
    }

    #[test]
    fn transient_is_429_every_5xx_and_the_conflict_of_one_identity() {
        for status in [429, 500, 502, 503, 504, 599] {
            assert!(matches!(judged(status, "<html>"), Verdict::Transient(_)), "{status}");
        }
        assert!(matches!(judged(409, r#"{"errorCode":409203}"#), Verdict::Transient(_)));
        assert!(matches!(judged(409, r#"{"errorCode":"409203"}"#), Verdict::Transient(_)));
        for (status, body) in [(409, r#"{"errorCode":409001}"#), (400, ""), (404, ""), (302, "")] {
            assert!(
                matches!(judged(status, body), Verdict::Failed(Error::Rejected(_))),
                "{status}"
            );
        }
    }

    #[test]
    fn an_error_body_of_any_shape_gives_what_it_has() {
        let whole = error(
            401,
            r#"{"errorCode":401002,"trackingId":"t-1","message":"no","timestampUtc":"2026-01-01T00:00:00Z"}"#,
        );
        assert_eq!(whole.error_code(), Some(401_002));
        assert_eq!(whole.tracking_id(), Some("t-1"));
        assert_eq!(whole.stage(), Some(Stage::Authenticate));
        for body in [
            "",
            "[]",
            "<html>busy</html>",
            "{\"errorCode\":-5}",
            "{\"errorCode\":[]}",
            "\u{0}\u{1}",
        ] {
            let error = error(403, body);
            assert_eq!((error.status(), error.error_code()), (Some(403), None), "{body}");
            assert!(error.to_string().contains("403"), "{error}");
        }
    }

    #[test]
    fn a_long_body_is_shown_in_part_and_kept_whole() {
        let body = format!("<html>{}</html>", "é".repeat(5000));
        let Error::Rejected(rejection) = error(400, &body) else { panic!("a refusal") };
        assert!(rejection.message.len() < 400, "{}", rejection.message.len());
        assert_eq!(rejection.body, body.as_bytes());
    }

    #[test]
    fn what_an_assigned_answer_must_have_is_named_when_it_lacks_it() {
        for (body, missing) in [
            (r#"{"status":"assigned"}"#, "assignedHub"),
            (r#"{"status":"assigned","registrationState":null}"#, "assignedHub"),
            (r#"{"status":"assigned","registrationState":{"deviceId":"d"}}"#, "assignedHub"),
            (r#"{"status":"assigned","registrationState":{"assignedHub":"h"}}"#, "deviceId"),
            (
                r#"{"status":"assigned","registrationState":{"assignedHub":"h","deviceId":""}}"#,
                "deviceId",
            ),
            (r#"{"operationId":"o"}"#, "status"),
            (r#"{"status":"assigning"}"#, "operationId"),
            (r#"{"status":"unassigned","operationId":""}"#, "operationId"),
        ] {
            let error = error(200, body);
            assert_eq!(error.kind(), crate::ErrorKind::Protocol, "{body}");
            assert!(error.to_string().contains(missing), "{body}: {error}");
        }
    }

    #[test]
    fn status_words_are_read_without_regard_to_case() {
        let body = r#"{"status":"ASSIGNED","registrationState":{"assignedHub":"h","deviceId":"d","new":1}}"#;
        assert!(matches!(judged(200, body), Verdict::Assigned(r) if r.body == body.as_bytes()));
        let body = r#"{"status":"Unassigned","operationId":"o"}"#;
        assert!(matches!(judged(202, body), Verdict::Assigning { .. }));
    }

    #[test]
    fn the_returned_payload_is_handed_over_to_the_letter() {
        let payload = r#"{"n": 12345678901234567890123, "f":1.50, "z":1,  "a":2}"#;
        let body = format!(
            r#"{{"status":"assigned","registrationState":{{"assignedHub":"h","deviceId":"d","payload":{payload}}}}}"#
        );
        let Verdict::Assigned(registered) = judged(200, &body) else { panic!("assigned") };
        assert_eq!(registered.payload.unwrap().get(), payload);
    }

    #[test]
    fn junk_in_a_success_is_nonsense_and_kept() {
        let list = r#"["an operation", "assigned", {"assignedHub": "h", "deviceId": "d"}]"#;
        let state =
            r#"{"status": "assigned", "registrationState": ["h", "d", null, null, null, null]}"#;
        for body in
            ["", "{", "null", "[]", "\"assigned\"", "{\"status\":5}", "<html></html>", list, state]
        {
            let Error::Protocol(error) = error(200, body) else { panic!("{body}") };
            assert_eq!(error.body, body.as_bytes());
        }
        for status in [0, 100, 600, u16::MAX] {
            assert!(matches!(error(status, "{}"), Error::Protocol(_)), "{status}");
        }
    }
}
