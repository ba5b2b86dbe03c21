//! Every status that the service can answer with.

use dps_client::{Error, ErrorKind, RejectionCause, Stage};
use dps_conformance::{Bench, Cell, adjusted};
use dps_emulator::{Behavior, Outcome};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let cases = [
        case!(failed_is_an_error_with_code_and_message),
        case!(failed_after_polls_is_the_same_error),
        case!(disabled_enrollment_is_an_error_of_its_own),
        case!(disabled_outcome_is_an_error_of_its_own),
        case!(unknown_status_keeps_body_and_result),
        case!(unknown_status_of_a_query_keeps_body_and_result),
        case!(unassigned_with_an_operation_is_polled).within_a_short_time(),
        case!(status_words_have_no_case),
    ];
    cases.into_iter().map(Case::after_the_handshake).collect()
}

async fn rejection(cell: Cell, behavior: Behavior) -> Box<dps_client::RejectionError> {
    let bench = Bench::new(cell, behavior).await;
    match bench.register().await {
        Err(Error::Rejected(rejection)) => rejection,
        other => panic!("{other:?}"),
    }
}

async fn failed_is_an_error_with_code_and_message(cell: Cell) {
    let outcome = Outcome::failed(400_207, "Custom allocation failed");
    let failed = rejection(cell, Behavior::new().outcome(outcome)).await;
    assert_eq!((failed.cause, failed.error_code), (RejectionCause::Failed, Some(400_207)));
    assert_eq!(
        (failed.stage, failed.message.as_str()),
        (Stage::Register, "Custom allocation failed")
    );
    assert!(!failed.retryable);
}

async fn failed_after_polls_is_the_same_error(cell: Cell) {
    let outcome = Outcome::failed(400_208, "No hub");
    let failed = rejection(cell, Behavior::new().polls(2).outcome(outcome)).await;
    assert_eq!((failed.cause, failed.error_code), (RejectionCause::Failed, Some(400_208)));
    assert_eq!(failed.stage, Stage::Query);
}

async fn disabled_enrollment_is_an_error_of_its_own(cell: Cell) {
    let bench = Bench::with(cell, dps_emulator::Enrollment::disabled).await;
    let error = bench.register().await.unwrap_err();
    let Error::Rejected(rejection) = &error else { panic!("{error:?}") };
    assert_eq!(rejection.cause, RejectionCause::Disabled);
    assert!(!error.is_retryable());
    assert!(error.hint().unwrap().contains("enable"));
}

async fn disabled_outcome_is_an_error_of_its_own(cell: Cell) {
    let disabled = rejection(cell, Behavior::new().polls(1).outcome(Outcome::Disabled)).await;
    assert_eq!((disabled.cause, disabled.stage), (RejectionCause::Disabled, Stage::Query));
}

async fn unknown(cell: Cell, behavior: Behavior) -> Box<dps_client::ProtocolError> {
    let bench = Bench::new(cell, behavior.outcome(Outcome::status("enchanted"))).await;
    match bench.register().await {
        Err(Error::Protocol(error)) => error,
        other => panic!("{other:?}"),
    }
}

async fn unknown_status_keeps_body_and_result(cell: Cell) {
    let error = unknown(cell, Behavior::new()).await;
    assert_eq!(error.unknown_status.as_deref(), Some("enchanted"));
    assert_eq!(error.stage, Stage::Register);
    assert!(String::from_utf8_lossy(&error.body).contains("enchanted"));
    assert!(error.protocol_result.iter().next().is_some());
}

async fn unknown_status_of_a_query_keeps_body_and_result(cell: Cell) {
    let error = unknown(cell, Behavior::new().polls(1)).await;
    assert_eq!(error.unknown_status.as_deref(), Some("enchanted"));
    assert_eq!(error.stage, Stage::Query);
    assert!(error.protocol_result.iter().next().is_some());
}

async fn unassigned_with_an_operation_is_polled(cell: Cell) {
    // For ever unassigned: polled on until the time is up.
    let bench = Bench::new(cell, Behavior::new().outcome(Outcome::status("unassigned"))).await;
    let bounds = adjusted(dps_conformance::fast(), |settings| {
        settings.registration_timeout = std::time::Duration::from_secs(2)
    });
    let client = bench.client_with(bench.config.clone(), bounds);
    let error = client.register(bench.request()).await.unwrap_err();
    dps_conformance::settle(&client).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(bench.requests().len() > 2, "{:?}", bench.requests());
}

async fn status_words_have_no_case(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().outcome(Outcome::status("ASSIGNED"))).await;
    assert!(!bench.register().await.unwrap().assigned_hub.is_empty());
}
