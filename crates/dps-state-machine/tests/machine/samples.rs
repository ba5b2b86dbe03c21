//! One machine in each state and one of each kind of input, for the tests that go over all of them.

use std::time::Duration;

use dps_simulator::{answers::*, settings_with};
use dps_state_machine::{
    ConnectionError, Error, OperationStatus, Response, Settings, Stage,
    machine::{ExchangeId, Input, Machine, Output, State},
};

/// Short bounds without jitter: few enough moments to visit them all.
pub(super) fn settings() -> Settings {
    settings_with(|settings| {
        settings.request_timeout = secs(3);
        settings.registration_timeout = secs(10);
        settings.end_session_timeout = secs(1);
    })
}

pub(super) fn new_machine() -> Machine {
    Machine::new(settings(), 0)
}

/// What a transport can answer, each with its name.
pub(super) fn answers() -> Vec<(&'static str, Result<Response, Error>)> {
    let body = |status: u16, text: &str| Ok(Response::new(status, text));
    let asked = |answer: Result<Response, Error>, wait| {
        answer.map(|response| response.retry_after(Some(wait)))
    };
    let assigning = || body(202, r#"{"operationId":"op","status":"assigning"}"#);
    let throttled = || body(429, r#"{"errorCode":429001}"#);
    let state = r#""registrationState":{"assignedHub":"h","deviceId":"d","errorCode":400207}"#;
    let status = |word: &str| body(200, &format!(r#"{{"status":"{word}",{state}}}"#));
    vec![
        ("assigned", status("assigned")),
        ("assigning", assigning()),
        ("assigning, asks for 4 s", asked(assigning(), secs(4))),
        ("assigning, asks for more than is left", asked(assigning(), secs(99))),
        (
            "unassigned with an operation",
            body(200, r#"{"operationId":"op","status":"unassigned"}"#),
        ),
        ("status failed", status("failed")),
        ("status disabled", status("disabled")),
        ("unknown status", status("enchanted")),
        ("junk", body(200, "<html>")),
        ("429", throttled()),
        ("429, asks for 4 s", asked(throttled(), secs(4))),
        ("429, asks for more than is left", asked(throttled(), secs(99))),
        ("401", body(401, r#"{"errorCode":401002}"#)),
        ("no connection", Err(ConnectionError::new(Stage::Connect, "refused").into())),
        ("connection lost", Err(ConnectionError::lost(Stage::Query, "reset").into())),
    ]
}

/// The first exchange of any machine: late for one that has gone on.
fn first_exchange() -> ExchangeId {
    let outputs = new_machine().step(secs(0), Input::Register);
    let [Output::RegistrationRequest(exchange)] = *outputs else { panic!("{outputs:?}") };
    exchange.id
}

/// All inputs that can come in the given state, each with its name and the time at which it comes.
pub(super) fn inputs(state: &State, now: Duration) -> Vec<(String, Duration, Input)> {
    let due = state.until().unwrap_or(now);
    let stale = first_exchange();
    let current = state.exchange();
    let mut inputs = vec![
        (String::from("register"), now, Input::Register),
        (String::from("cancel"), now, Input::Cancel),
        (String::from("end session"), now, Input::EndSession),
        (String::from("abandon"), now, Input::Abandon),
        (String::from("tick, early"), now, Input::Tick),
        (String::from("tick, due"), due, Input::Tick),
        (String::from("tick, past the deadline"), due + secs(3600), Input::Tick),
        (String::from("session ended, late"), now, Input::SessionEnded(stale, Ok(()))),
    ];
    for (name, answer) in answers() {
        inputs.push((format!("answer, late: {name}"), now, Input::Answer(stale, answer)));
    }
    if let Some(exchange) = current {
        for (name, answer) in answers() {
            inputs.push((format!("answer: {name}"), now, Input::Answer(exchange, answer)));
        }
        let failed = Err(ConnectionError::new(Stage::EndSession, "reset").into());
        inputs.push((String::from("session ended"), now, Input::SessionEnded(exchange, Ok(()))));
        inputs.push((
            String::from("session ended badly"),
            now,
            Input::SessionEnded(exchange, failed),
        ));
    }
    inputs
}

/// An output in a few words.
pub(super) fn describe(output: &Output, now: Duration) -> String {
    let in_seconds = |until: &Duration| until.saturating_sub(now).as_secs();
    match output {
        Output::RegistrationRequest(exchange) => {
            format!("registrationRequest (within {} s)", in_seconds(&exchange.until))
        }
        Output::QueryOperationStatus { exchange, .. } => {
            format!("queryOperationStatus (within {} s)", in_seconds(&exchange.until))
        }
        Output::Wait { until, .. } => format!("wait {} s", in_seconds(until)),
        Output::EndSession(exchange) => {
            format!("endSession (within {} s)", in_seconds(&exchange.until))
        }
        Output::Drop(_) => "drop the call".into(),
        Output::Emit(OperationStatus::Assigning { .. }) => "emit assigning".into(),
        Output::Emit(OperationStatus::Assigned { .. }) => "emit assigned".into(),
        Output::Complete(Ok(_)) => "**assigned**".into(),
        Output::Complete(Err(error)) => format!("**{}**", error.kind()),
        Output::Ended(Ok(())) => "ended".into(),
        Output::Ended(Err(error)) => format!("ended ({})", error.kind()),
        Output::Refuse(error) => format!("refuse ({})", error.kind()),
        Output::NotYet { .. } => "not yet".into(),
        other => panic!("{other:?}"),
    }
}
