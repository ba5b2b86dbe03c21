//! The service: does it answer, does it take the credential, does it know the device?

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::{
    Attestation, Config, Error, ErrorKind, GroupKey, HttpTransport, MqttConfig, Progress,
    RegistrationId, RegistrationState, RegistrationStatus, Response, SymmetricKey, Transport,
};
use dps_connect::{Opened, internal::roughly};
use dps_mqtt::internal::log_in;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    check::{ANSWER, BUSY, ENROLLMENT, GROUP_KEY, LOGIN, SERVICE_CLOCK},
    clock::{apart, date},
    finding::Chart,
    port::Ports,
    subject::Subject,
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
    chart: &mut Chart<'_>,
) -> Option<State> {
    let (Ok(id), Ok(credential), Ok(_)) =
        (&subject.registration_id, &subject.credential, &subject.id_scope)
    else {
        return None;
    };
    if !ports.stands(Transport::Http) {
        return over_mqtt(subject, ports, credential, id, chart).await;
    }
    let outcome = timeout(subject.limits.step, ask(subject, credential.clone(), id)).await;
    let response = match outcome {
        Ok(Some(Ok(response))) => response,
        Ok(Some(Err(error))) => {
            chart.fail_by(
                &ANSWER,
                &error,
                Some("something in between may answer instead of the service"),
            );
            return None;
        }
        Ok(None) => return None,
        Err(_) => {
            let seen = format!("no answer within {} s", subject.limits.step.as_secs_f64());
            chart.fail(
                &ANSWER,
                ErrorKind::Timeout,
                seen,
                "try again; --timeout SECONDS allows more time",
            );
            return None;
        }
    };
    let body: Option<Value> = serde_json::from_slice(&response.body).ok();
    answer(&response, body.as_ref(), chart)?;
    clocks(&response, subject, chart);
    let said = said(&response, body.as_ref());
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
        group_key(subject, credential, id, chart).await;
        return None;
    }
    chart.ok(&LOGIN, "it was not refused");
    chart.skip(&GROUP_KEY, "the credential was not refused");
    enrollment(response, &said, chart)
}

/// Where there is no HTTPS, MQTT tells whether the credential is taken, and nothing more.
async fn over_mqtt(
    subject: &Subject,
    ports: &Ports,
    credential: &Attestation,
    id: &RegistrationId,
    chart: &mut Chart<'_>,
) -> Option<State> {
    const NO_HTTPS: &str = "it is asked over HTTPS, and there is no TLS with that port";
    for check in [&ANSWER, &SERVICE_CLOCK, &GROUP_KEY, &ENROLLMENT] {
        chart.skip(check, NO_HTTPS);
    }
    let endpoint = subject.endpoint_of(Transport::Mqtt).filter(|_| ports.stands(Transport::Mqtt));
    let Some(mut config) = endpoint
        .filter(|_| credential.tpm().is_none())
        .and_then(|endpoint| subject.config(&endpoint))
    else {
        chart.skip(&LOGIN, NO_HTTPS);
        chart.skip(&BUSY, NO_HTTPS);
        return Some(State { hub: None });
    };
    config.attestation = credential.clone();
    let (config, progress) = (MqttConfig::new(config), Progress::default());
    let said = match timeout(subject.limits.step, log_in(&config, id, &progress)).await {
        Ok(Ok(Opened::Ready(()))) => {
            chart.ok(&LOGIN, "MQTT lets the device in");
            chart.ok(&BUSY, "it has time");
            return Some(State { hub: None });
        }
        Ok(Ok(Opened::Refused(response))) => response,
        Ok(Err(error)) => {
            chart.fail_by(&LOGIN, &error, None);
            return None;
        }
        Err(_) => {
            let seen =
                format!("MQTT gave no answer within {} s", subject.limits.step.as_secs_f64());
            chart.fail(&LOGIN, ErrorKind::Timeout, seen, "try again");
            return None;
        }
    };
    let words = said.reason.clone().unwrap_or_else(|| format!("it refused with {}", said.status));
    if matches!(said.status, 429 | 500..) {
        chart.fail_later(&BUSY, &words, "try again later; nothing is wrong with the device");
    } else {
        let hinted = said.hint(config.connect.credential_hint(None));
        chart.fail(&LOGIN, ErrorKind::Rejected, words, &refused(&hinted, subject));
    }
    None
}

/// Asks for the state of the registration; `None` when nothing says where.
async fn ask(
    subject: &Subject,
    credential: Attestation,
    id: &RegistrationId,
) -> Option<Result<Response, Error>> {
    let endpoint = subject.endpoint_of(Transport::Http)?;
    let endpoint = endpoint.with_port(endpoint.port_or(subject.ports.https));
    let mut config: Config = subject.config(&endpoint)?;
    config.attestation = credential;
    Some(match HttpTransport::new(config) {
        Ok(mut transport) => transport.registration_state(id, &Progress::default()).await,
        Err(error) => Err(error),
    })
}

/// Whether it is the service that answers: it does so with JSON.
fn answer(response: &Response, body: Option<&Value>, chart: &mut Chart<'_>) -> Option<()> {
    let header = |name| response.protocol_result.get(name).unwrap_or_default();
    let is_page = header("content-type").contains("html")
        || response.body.trim_ascii_start().first() == Some(&b'<');
    let is_portal = matches!(response.status, 300..=399 | 511) || is_page;
    if is_portal || (response.status < 300 && !body.is_some_and(Value::is_object)) {
        let what = match header("location") {
            _ if is_page => "a web page".to_owned(),
            "" => "something else than JSON".to_owned(),
            place => format!("a redirection to {place:.100}"),
        };
        let seen = format!(
            "{what} came, with the status {}, in place of the service's answer",
            response.status
        );
        let advice = "a captive portal or a filter answers: log in to this network, or have it let the service through";
        chart.fail(&ANSWER, ErrorKind::Protocol, seen, advice);
        return None;
    }
    chart.ok(&ANSWER, format!("it answers, with the status {}", response.status));
    Some(())
}

/// See <https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1>.
fn clocks(response: &Response, subject: &Subject, chart: &mut Chart<'_>) {
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

fn said(response: &Response, body: Option<&Value>) -> String {
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
async fn group_key(
    subject: &Subject,
    credential: &Attestation,
    id: &RegistrationId,
    chart: &mut Chart<'_>,
) {
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
    let asked = timeout(subject.limits.step, ask(subject, other.into(), id)).await;
    match asked {
        Ok(Some(Ok(response))) if !response.refuses_credential() && response.status < 500 => {
            chart.fail(
                &GROUP_KEY,
                ErrorKind::Rejected,
                "it is taken when it is used the other way",
                advice,
            );
        }
        _ => chart.ok(&GROUP_KEY, "it is refused either way"),
    }
}

fn enrollment(response: Response, said: &str, chart: &mut Chart<'_>) -> Option<State> {
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
