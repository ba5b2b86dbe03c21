//! The service: does it answer, does it take the credential, does it know the device?

mod beside;

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::{
    Attestation, Error, ErrorKind, GroupKey, Progress, RegistrationState, RegistrationStatus,
    Response, SymmetricKey,
};
use dps_connect::internal::roughly;
use serde_json::Value;

use crate::{
    check::{ANSWER, BUSY, ENROLLMENT, GROUP_KEY, LOGIN, SERVICE_CLOCK},
    clock::{apart, date},
    finding::Chart,
    login::{Login, Said, log_in},
    port::Ports,
    subject::{Subject, in_words},
};

/// A token holds for an hour; clocks that differ by less than this are not worth a word.
const TOLERANCE: Duration = Duration::from_secs(60);

/// What the service knows of the device: its hub, if it has one.
pub(crate) struct State {
    pub(crate) hub: Option<String>,
}

/// `None` when nothing more can be looked at.
pub(crate) async fn examine(
    subject: &Subject,
    ports: &Ports,
    login: Option<Login>,
    chart: &mut Chart<'_>,
) -> Option<State> {
    let (Ok(credential), Some(Login { said, elapsed })) = (&subject.credential, login) else {
        return None;
    };
    chart.took(elapsed);
    let refusal = match said {
        Said::State(response) => return over_https(subject, credential, response, chart).await,
        Said::LetIn => {
            let transport = subject.transport();
            chart.ok(&ANSWER, format!("it answers over {transport}"));
            chart.ok(&LOGIN, format!("{transport} lets the device in"));
            chart.ok(&BUSY, "it has time");
            chart.skip(&GROUP_KEY, "the credential was not refused");
            return beside::examine(subject, ports, credential, true, chart).await;
        }
        Said::Refused(response) => response,
        Said::Failed(error @ (Error::Connection(_) | Error::Protocol(_))) => {
            let advice = elsewhere(
                subject,
                ports,
                "something in between may answer instead of the service, or let nothing but TLS through",
            );
            chart.fail_by(&ANSWER, &error, Some(&advice));
            return None;
        }
        Said::Failed(error) => {
            chart.fail_by(&LOGIN, &error, None);
            return None;
        }
        Said::Silent(within) => {
            let seen = format!("no answer within {}", in_words(within));
            let advice = elsewhere(subject, ports, "try again; --timeout SECONDS allows more time");
            chart.fail(&ANSWER, ErrorKind::Timeout, seen, &advice);
            return None;
        }
    };
    let words = refusal
        .reason
        .clone()
        .unwrap_or_else(|| in_words_of(&refusal, json(&refusal.body).as_ref()));
    chart.ok(&ANSWER, format!("it answers over {}", subject.transport()));
    if matches!(refusal.status, 429 | 500..) {
        chart.fail_later(&BUSY, &words, "try again later; nothing is wrong with the device");
        return None;
    }
    chart.ok(&BUSY, "it has time");
    chart.fail(&LOGIN, ErrorKind::Rejected, words, &refused(&refusal, subject));
    group_key(subject, credential, chart).await;
    beside::examine(subject, ports, credential, false, chart).await;
    None
}

/// What to do next, and another transport that may get through.
fn elsewhere(subject: &Subject, ports: &Ports, advice: &str) -> String {
    match ports.another(subject).filter(|_| !subject.any_transport) {
        Some(flag) => format!("{advice}; another port is open here: {flag}"),
        None => advice.to_owned(),
    }
}

async fn over_https(
    subject: &Subject,
    credential: &Attestation,
    response: Response,
    chart: &mut Chart<'_>,
) -> Option<State> {
    let body = json(&response.body);
    answer(&response, body.as_ref(), chart)?;
    clocks(&response, subject, chart);
    let said = in_words_of(&response, body.as_ref());
    if matches!(response.status, 429 | 500..) {
        let wait = response
            .retry_after
            .map_or("later".to_owned(), |wait| format!("in {} s", wait.as_secs()));
        chart.fail_later(
            &BUSY,
            &said,
            &format!("try again {wait}; nothing is wrong with the device"),
        );
        return None;
    }
    chart.ok(&BUSY, "it has time");
    if response.refuses_credential() {
        chart.fail(&LOGIN, ErrorKind::Rejected, &said, &refused(&response, subject));
        group_key(subject, credential, chart).await;
        return None;
    }
    chart.ok(&LOGIN, "it was not refused");
    chart.skip(&GROUP_KEY, "the credential was not refused");
    enrollment(response, &said, chart)
}

pub(crate) fn json(body: &[u8]) -> Option<Value> {
    serde_json::from_slice(body).ok()
}

fn answer(response: &Response, body: Option<&Value>, chart: &mut Chart<'_>) -> Option<()> {
    let Some((what, advice)) = stranger(response, body) else {
        chart.ok(&ANSWER, format!("it answers, with the status {}", response.status));
        return Some(());
    };
    match response.status {
        500.. => chart.fail_later(&ANSWER, &what, advice),
        300.. => chart.fail(&ANSWER, ErrorKind::Rejected, what, advice),
        _ => chart.fail(&ANSWER, ErrorKind::Protocol, what, advice),
    }
    None
}

/// What came in place of the service's answer, and what to do about it. The service answers with JSON, which has an error
/// code or a tracking id where it refuses; what has no time for a request may have none for that either.
pub(crate) fn stranger(
    response: &Response,
    body: Option<&Value>,
) -> Option<(String, &'static str)> {
    const PORTAL: &str = "a captive portal or a filter answers: log in to this network, or have it let the service through";
    const SERVER: &str = "another web server, a proxy or a filter answers: --endpoint HOST names the service, and the network must let it through";
    let header = |name| response.protocol_result.get(name).unwrap_or_default();
    let is_page = header("content-type").contains("html")
        || response.body.trim_ascii_start().first() == Some(&b'<');
    let is_refusal = body
        .is_some_and(|body| body.get("errorCode").is_some() || body.get("trackingId").is_some())
        || !header("x-ms-error-code").is_empty();
    let is_ours = match response.status {
        511 => false,
        429 | 500.. => true,
        ..300 => !is_page && body.is_some_and(Value::is_object),
        _ => is_refusal,
    };
    if is_ours {
        return None;
    }
    let (what, advice) = match header("location") {
        "" if is_page => ("a web page".to_owned(), PORTAL),
        "" if response.status >= 300 => {
            ("something without the service's error code".to_owned(), SERVER)
        }
        "" => ("something else than JSON".to_owned(), PORTAL),
        place => (format!("a redirection to {place:.100}"), PORTAL),
    };
    let status = response.status;
    Some((
        format!("{what} came, with the status {status}, in place of the service's answer"),
        advice,
    ))
}

/// See <https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1>.
pub(crate) fn clocks(response: &Response, subject: &Subject, chart: &mut Chart<'_>) {
    let said = response.protocol_result.get("date");
    let Some(service) = said.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return chart.skip(&SERVICE_CLOCK, "the service does not say the time");
    };
    let now: SystemTime = (subject.clock)();
    let apart = apart(now, service);
    if apart < TOLERANCE {
        return chart.ok(&SERVICE_CLOCK, "as this machine's");
    }
    let side = if now < service { "behind" } else { "ahead of" };
    let seen =
        format!("this machine's clock says {}, {} {side} the service's", date(now), roughly(apart));
    chart.warn(
        &SERVICE_CLOCK,
        seen,
        "set the clock: a token that is signed by a wrong one is refused",
    );
}

pub(crate) fn in_words_of(response: &Response, body: Option<&Value>) -> String {
    let message = body.and_then(|body| body.get("message")?.as_str());
    let code = response.error_code().flatten();
    let code = code.map_or_else(
        || response.status.to_string(),
        |code| format!("{}, error code {code}", response.status),
    );
    match message {
        Some(message) => format!("the service says {message:.200?} ({code})"),
        None => format!("the service answers with the status {code}"),
    }
}

fn refused(response: &Response, subject: &Subject) -> String {
    let hint = response.hint.clone().unwrap_or_default();
    let flag = match &subject.credential {
        Ok(Attestation::X509(_) | Attestation::X509Files(_)) => {
            "compare the certificate with the enrollment; --cert and --key name another"
        }
        Ok(credential) if credential.tpm().is_some() => {
            "compare the endorsement key with the enrollment; dps tpm show prints it"
        }
        _ if subject.group_key.is_some() => {
            "compare the group's key and the registration id with the enrollment group"
        }
        _ => "compare the key with the enrollment; --symmetric-key-file FILE names another",
    };
    if hint.is_empty() { flag.to_owned() } else { format!("{flag}; {hint}") }
}

/// Tries the same key for what else it may be.
async fn group_key(subject: &Subject, credential: &Attestation, chart: &mut Chart<'_>) {
    let Ok(id) = &subject.registration_id else { return };
    let (other, advice) = match (&subject.group_key, credential) {
        (Some(group), _) => (
            STANDARD
                .decode(group.expose_base64().as_bytes())
                .ok()
                .and_then(|key| SymmetricKey::from_bytes(&key).ok()),
            "the key is that of the device itself: give it with --symmetric-key-file",
        ),
        (None, Attestation::SymmetricKey(key)) => (
            STANDARD
                .decode(key.expose_base64().as_bytes())
                .ok()
                .and_then(|key| GroupKey::from_bytes(&key).ok())
                .map(|group| group.derive(id)),
            "the key is that of a group: give it with --group-key-file, or what dps derive-key makes of it",
        ),
        _ => return chart.skip(&GROUP_KEY, "the credential is no symmetric key"),
    };
    let Some(other) = other else { return };
    let login = log_in(subject, subject.transport(), &other.into(), subject.limits.step).await;
    let is_taken = login.is_some_and(|login| match login.said {
        Said::LetIn => true,
        Said::State(response) => {
            let is_ours = stranger(&response, json(&response.body).as_ref()).is_none();
            is_ours && !response.refuses_credential() && response.status < 500
        }
        _ => false,
    });
    match is_taken {
        true => chart.fail(
            &GROUP_KEY,
            ErrorKind::Rejected,
            "it is taken when it is used the other way",
            advice,
        ),
        false => chart.ok(&GROUP_KEY, "it is refused either way"),
    }
}

pub(crate) fn enrollment(response: Response, said: &str, chart: &mut Chart<'_>) -> Option<State> {
    match response.status {
        200..=299 => match RegistrationState::read(response, &Progress::default()) {
            Ok(state) => {
                known(&state, chart);
                Some(State { hub: state.assigned_hub })
            }
            Err(error) => {
                chart.fail_by(&ENROLLMENT, &error, None);
                None
            }
        },
        404 if said.to_ascii_lowercase().contains("scope") => {
            let advice = "compare it with the ID scope on the overview page of the provisioning service; --id-scope SCOPE";
            chart.fail(&ENROLLMENT, ErrorKind::Rejected, said, advice);
            None
        }
        404 => {
            chart.warn(
                &ENROLLMENT,
                said,
                "either this device has never registered, or no enrollment of this ID scope names it: compare --id-scope and --registration-id with the service, then dps register",
            );
            Some(State { hub: None })
        }
        _ => {
            let advice = "look at the enrollment of the device: it may be disabled, or not allowed to register";
            chart.fail(&ENROLLMENT, ErrorKind::Rejected, said, advice);
            None
        }
    }
}

/// What the service keeps of the device.
fn known(state: &RegistrationState, chart: &mut Chart<'_>) {
    match (&state.status, &state.assigned_hub) {
        (RegistrationStatus::Disabled, _) => chart.fail(
            &ENROLLMENT,
            ErrorKind::Rejected,
            "the service says that the device is disabled",
            "enable its enrollment at the service",
        ),
        (RegistrationStatus::Failed, _) => {
            let why = state.error_message.as_deref().unwrap_or("no reason is given");
            let advice = "look at the allocation of the enrollment, and at its hubs";
            chart.warn(&ENROLLMENT, format!("the last registration failed: {why:.200}"), advice);
        }
        (status, Some(hub)) => chart.ok(&ENROLLMENT, format!("{status} to {hub:.200}")),
        (status, None) => chart.ok(&ENROLLMENT, status),
    }
}
