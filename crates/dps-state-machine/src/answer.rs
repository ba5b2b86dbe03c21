//! What an answer means, decided once for every transport.

use alloc::{
    borrow::ToOwned,
    boxed::Box,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;

use crate::{
    body::{self, Object},
    certificates::{ConnectionProfile, IssuedCertificates, TrustBundle},
    error::{Error, ProtocolError, RejectionCause, RejectionError, Stage},
    ids::OperationId,
    json::Json,
    registration_result::{RegistrationResult, Substatus},
    response::Response,
    service_error::{ServiceError, status_of},
};

/// What the machine does next.
pub(crate) enum Verdict {
    /// Done.
    Assigned(Box<RegistrationResult>),
    /// Ask again later.
    Assigning { operation_id: OperationId, retry_after: Option<Duration>, body: Vec<u8> },
    /// The same request can succeed later: wait and send it again.
    Transient(Box<RejectionError>),
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
fn judge_success(response: Response, stage: Stage, known: Option<&OperationId>) -> Verdict {
    match read_success(&response, known) {
        Ok(success) => conclude(response, stage, success),
        Err(reason) => Verdict::Failed(nonsense(response, stage, reason)),
    }
}

/// What a success must say, and the rest of it.
struct Success {
    status: String,
    operation_id: Option<OperationId>,
    state: State,
}

/// What became of the registration, as far as the answer says.
struct State {
    assigned_hub: Option<String>,
    device_id: Option<String>,
    substatus: Option<String>,
    payload: Option<Json>,
    certificates: IssuedCertificates,
    trust_bundle: Option<TrustBundle>,
    connection_profile: Option<ConnectionProfile>,
    error_code: Option<u32>,
    error_message: Option<String>,
}

/// The service's words out of a success, or what is wrong with it.
fn read_success(response: &Response, known: Option<&OperationId>) -> Result<Success, String> {
    if response.body.is_empty() {
        return Err("it is empty".to_string());
    }
    let text = body::text(&response.body);
    let body = Object::read(&text).map_err(|e| format!("it is not the JSON expected: {e}"))?;
    let state = body.object("registrationState");
    let operation_id = body.exact_text("operationId")?.and_then(OperationId::new);
    Ok(Success {
        status: body.exact_text("status")?.ok_or("it has no status")?,
        operation_id: operation_id.or_else(|| known.cloned()),
        state: State {
            assigned_hub: state.exact_text("assignedHub")?,
            device_id: state.exact_text("deviceId")?,
            substatus: state.text("substatus"),
            payload: state.get("payload").map(Json::from),
            certificates: IssuedCertificates::read(&state),
            trust_bundle: state.get("trustBundle").map(TrustBundle::read),
            connection_profile: ConnectionProfile::read(&state),
            error_code: state.code("errorCode"),
            error_message: state.text("errorMessage"),
        },
    })
}

fn conclude(response: Response, stage: Stage, success: Success) -> Verdict {
    let Success { status, operation_id, state } = success;
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
    state: State,
) -> Verdict {
    let given = |field: Option<String>| field.filter(|text| !text.is_empty());
    match (given(state.assigned_hub), given(state.device_id)) {
        (Some(assigned_hub), Some(device_id)) => Verdict::Assigned(Box::new(RegistrationResult {
            operation_id,
            substatus: state.substatus.map(Substatus::from),
            payload: state.payload,
            certificates: state.certificates,
            trust_bundle: state.trust_bundle,
            connection_profile: state.connection_profile,
            credential: response.credential,
            transport: response.transport.map(ToOwned::to_owned),
            body: response.body,
            protocol_result: response.protocol_result,
            ..RegistrationResult::new(assigned_hub, device_id)
        })),
        (hub, _) => {
            let missing = if hub.is_none() { "assignedHub" } else { "deviceId" };
            let reason = format!("its status is assigned and registrationState has no {missing}");
            Verdict::Failed(nonsense(response, stage, reason))
        }
    }
}

/// The registration came to an end that is no success.
fn ended(response: Response, stage: Stage, state: State, cause: RejectionCause) -> Verdict {
    let ServiceError { code: error_code, message, tracking_id, .. } =
        ServiceError::read(state.error_code, state.error_message);
    let message = message
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| "the service gives no reason".to_string());
    Verdict::Failed(
        RejectionError {
            stage,
            cause,
            error_code,
            tracking_id,
            retry_after: response.retry_after,
            hint: response.hint,
            retryable: error_code.is_some_and(|code| is_transient(status_of(code), Some(code))),
            body: response.body,
            protocol_result: response.protocol_result,
            ..RejectionError::new(response.status, message)
        }
        .into(),
    )
}

/// The error that an answer which says no stands for.
#[cfg(feature = "std")]
pub(crate) fn refused(response: Response, stage: Stage) -> Error {
    match judge(response, stage, None) {
        Verdict::Transient(rejection) => Error::Rejected(rejection),
        Verdict::Failed(error) => error,
        // A success is none.
        Verdict::Assigned(_) | Verdict::Assigning { .. } => {
            ProtocolError::unreadable(stage, "it is no refusal").into()
        }
    }
}

fn judge_refusal(response: Response, stage: Stage) -> Verdict {
    let text = body::text(&response.body);
    // An error body of another shape still gives what it has.
    let body = Object::read(&text).unwrap_or_default();
    let ServiceError { code: error_code, message, tracking_id, .. } =
        ServiceError::read(body.code("errorCode"), body.text("message"));
    let retryable = is_transient(response.status, error_code);
    let message =
        message.or_else(|| response.reason.clone()).unwrap_or_else(|| describe_body(&text));
    let rejection = Box::new(RejectionError {
        stage: if response.status == 401 { Stage::Authenticate } else { stage },
        error_code,
        tracking_id: body.text("trackingId").filter(|id| !id.is_empty()).or(tracking_id),
        timestamp: body.text("timestampUtc"),
        retry_after: response.retry_after,
        hint: response.hint,
        retryable,
        body: response.body,
        protocol_result: response.protocol_result,
        ..RejectionError::new(response.status, message)
    });
    if retryable {
        Verdict::Transient(rejection)
    } else {
        Verdict::Failed(Error::Rejected(rejection))
    }
}

/// Whether the same request can succeed later, by itself.
pub(crate) fn is_transient(status: u16, error_code: Option<u32>) -> bool {
    status == 429 || status >= 500 || error_code == Some(CONFLICT)
}

/// Enough of an unexpected body to recognize a proxy's page by. The status is given beside it.
fn describe_body(text: &str) -> String {
    const SHOWN: usize = 120;
    let mut words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() {
        return "no body says why".to_string();
    }
    match words.char_indices().nth(SHOWN) {
        Some((end, _)) => {
            words.truncate(end);
            format!("the body begins {words:?}")
        }
        None => format!("the body is {words:?}"),
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
            assert_eq!(error.to_string().matches("403").count(), 1, "{error}");
        }
    }

    #[test]
    fn an_error_within_a_message_is_read_as_if_it_stood_alone() {
        let cases = [
            (
                r#"{"errorCode":401002,"trackingId":"t-1","message":"no key"}"#,
                "no key",
                Some(401_002),
                Some("t-1"),
            ),
            (
                r#"{"message":"{\"errorCode\":401002,\"message\":\"no key\"}"}"#,
                "no key",
                Some(401_002),
                None,
            ),
            (
                r#"Allocation: {"errorCode":"401002","message":"no key"}"#,
                "Allocation: no key",
                Some(401_002),
                None,
            ),
            (r#"{"errorCode":401002}"#, "the service gives no reason", Some(401_002), None),
            ("{no JSON}", "{no JSON}", None, None),
            ("{\"a\":1}", "{\"a\":1}", None, None),
            ("a } b {", "a } b {", None, None),
        ];
        for (message, says, code, tracking_id) in cases {
            let words = serde_json::to_string(message).unwrap();
            let failed =
                format!(r#"{{"status":"failed","registrationState":{{"errorMessage":{words}}}}}"#);
            let Error::Rejected(failed) = error(200, &failed) else { panic!("{message}") };
            assert_eq!((failed.message.as_str(), failed.error_code), (says, code), "{message}");
            assert_eq!(failed.tracking_id.as_deref(), tracking_id, "{message}");
            let refuses = Response::new(200, failed.body.clone()).refuses_credential();
            assert_eq!(refuses, code.is_some(), "{message}");
            let hint = Error::Rejected(failed).hint();
            assert_eq!(hint.is_some_and(|h| h.contains("check the ID scope")), code.is_some());
            let refused = error(403, &format!(r#"{{"message":{words}}}"#));
            assert_eq!(refused.error_code(), code, "{message}");
        }
        let both = error(
            403,
            r#"{"errorCode":403001,"message":"{\"errorCode\":401002,\"message\":\"no\"}"}"#,
        );
        assert_eq!(both.error_code(), Some(403_001));
        assert!(both.to_string().contains("no (error code 401002)"), "{both}");
        assert!(both.hint().is_some_and(|hint| hint.contains("check the ID scope")), "{both:?}");
    }

    #[test]
    fn one_odd_byte_does_not_make_a_refusal_fatal() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for odd in [
            br#"{"message":"\ud800","#.to_vec(),
            b"{\"message\":\"gr\xf6\xdfe\",".to_vec(),
            b"\xef\xbb\xbf{".to_vec(),
            format!("{{\"info\":{deep},").into_bytes(),
        ] {
            let body = [odd, br#""errorCode":409203,"trackingId":"t-1"}"#.to_vec()].concat();
            let response = Response::new(409, body.as_slice());
            let Verdict::Transient(rejection) = judge(response, Stage::Register, None) else {
                panic!("{}", String::from_utf8_lossy(&body))
            };
            assert_eq!(rejection.tracking_id.as_deref(), Some("t-1"), "{rejection}");
            assert_eq!(rejection.body, body, "{rejection}");
        }
    }

    #[test]
    fn an_odd_field_costs_no_assignment() {
        for odd in [
            r#""substatus":5"#,
            r#""errorMessage":5,"errorCode":{}"#,
            r#""errorCode":"no number","lastUpdatedDateTimeUtc":"\ud800""#,
            r#""etag":[[[]]],"payload":null"#,
        ] {
            let body = format!(
                r#"{{"status":"assigned","registrationState":{{"assignedHub":"h","deviceId":"d",{odd}}}}}"#
            );
            let Verdict::Assigned(registered) = judged(200, &body) else { panic!("{body}") };
            assert_eq!(
                (registered.substatus, registered.payload.is_none()),
                (None, true),
                "{odd:?}"
            );
        }
    }

    #[test]
    fn what_counts_must_be_exact() {
        for (body, says) in [
            (r#"{"status":5}"#, "its status is no text"),
            (r#"{"status":"assigning","operationId":5}"#, "its operationId is no text"),
            (
                r#"{"status":"assigned","registrationState":{"assignedHub":[],"deviceId":"d"}}"#,
                "its assignedHub is no text",
            ),
            ("[]", "expected a JSON object"),
        ] {
            let error = error(200, body).to_string();
            assert!(error.contains(says) && !error.contains("struct"), "{error}");
        }
    }

    #[test]
    fn only_what_no_service_says_is_taken_for_a_proxys_page() {
        for (body, is_page) in [
            ("<html></html>", true),
            ("", true),
            ("[]", true),
            ("{}", false),
            (r#"{"status":"enchanted"}"#, false),
            (r#"{"status":"assigning","operationId":5}"#, false),
            (r#"{"status":"assigned"}"#, false),
        ] {
            assert_eq!(error(200, body).hint().is_some(), is_page, "{body}");
        }
    }

    #[test]
    fn a_refusal_without_a_code_may_be_that_of_another_web_server() {
        let hint = |body: &str| error(404, body).hint().unwrap_or_default();
        assert!(hint("").contains("another web server"), "{}", hint(""));
        let said = hint("{\"errorCode\":404201,\"message\":\"Not found\"}");
        assert!(!said.contains("web server") && said.contains("an enrollment exists"), "{said}");
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
