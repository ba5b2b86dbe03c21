//! How a registration ended: readable lines or one JSON object, and the exit code.

use std::{
    fmt::Write as _,
    io,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use dps_client::{
    CertificateFolder, ConfigurationError, Error, ErrorKind, Printable, RegistrationId,
    RegistrationResult, RegistrationState, Transport, TransportChoice, internal as secret,
};
use dps_provisioner::Assignment;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    advice::Advice,
    clock,
    config::Found,
    connect::Met,
    handover::Handed,
    interrupt,
    issue::{Delivery, NextTry},
    kept::{Kept, Source},
    output::{self, print},
    progress::Progress,
    status,
    style::{Color, Style},
};

/// Says how it ended, in the form that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter {
    json: bool,
}

/// What a failure is about, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context {
    pub(crate) transport: Option<TransportChoice>,
    /// The transport that was taken, of several.
    pub(crate) chosen: Option<&'static str>,
    pub(crate) registration_id: Option<String>,
    pub(crate) operation_id: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) advice: Advice,
    /// The folder whose certificate was to be renewed.
    pub(crate) renewed: Option<CertificateFolder>,
}

impl Context {
    /// What is known once a registration has begun.
    pub(crate) fn know(&mut self, progress: &Progress) {
        self.chosen = progress.transport();
        self.operation_id = progress.operation_id().map(|id| id.as_str().to_owned());
    }
}

/// A registration that succeeded.
#[derive(Debug)]
pub(crate) struct Success {
    pub(crate) registration_id: RegistrationId,
    pub(crate) transport: TransportChoice,
    pub(crate) registered: RegistrationResult,
    /// So many credentials were given.
    pub(crate) credentials: usize,
    pub(crate) elapsed: Duration,
    /// What became of the certificate, if one was asked for.
    pub(crate) certificate: Option<Delivery>,
    /// What the first connection to the hub met, if it was asked for.
    pub(crate) hub: Option<Met>,
    /// Where it comes from, when it is kept in a file.
    pub(crate) kept: Option<Kept>,
    /// What became of handing over, if that was asked for.
    pub(crate) handed: Option<Handed>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SuccessJson<'a> {
    status: &'static str,
    registration_id: &'a str,
    device_id: &'a str,
    assigned_hub: &'a str,
    operation_id: Option<String>,
    substatus: Option<String>,
    payload: Option<Box<RawValue>>,
    transport: &'a str,
    polls: u32,
    /// Which credential was taken, counted from 1, when there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<usize>,
    elapsed_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<&'a Delivery>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hub: Option<&'a Met>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stored_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registration_error: Option<&'a ErrorJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    handed_over: Option<&'a Handed>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RenewedJson<'a> {
    status: &'static str,
    registration_id: &'a str,
    hub: &'a str,
    certificate: &'a Delivery,
}

#[derive(Serialize)]
struct FailureJson {
    error: ErrorJson,
}

/// What a failure says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorJson {
    kind: &'static str,
    stage: Option<&'static str>,
    transport: Option<&'static str>,
    http_status: Option<u16>,
    error_code: Option<u32>,
    tracking_id: Option<String>,
    message: String,
    retryable: bool,
    retry_after_seconds: Option<u64>,
    hint: Option<String>,
    registration_id: Option<String>,
    operation_id: Option<String>,
    endpoint: Option<String>,
    timestamp: Option<String>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    next_try: Option<NextTry>,
}

impl Reporter {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn for_people() -> Self {
        Self::new(false)
    }

    /// The result on standard output. The exit code is 0 unless it can't be written or a certificate that was asked for
    /// is not there, or the device not connected that was to be.
    pub(crate) fn succeeded(self, success: &Success) -> ExitCode {
        let printed = match success.handed.as_ref().and_then(|handed| handed.printed.as_ref()) {
            Some(text) => print(text),
            None => print(&self.text(success)),
        };
        let hub = success.registered.assigned_hub.as_str();
        let not_stored = success.kept.as_ref().and_then(|kept| kept.not_stored.as_ref());
        let not_stored = not_stored
            .map(|why| format!("the device is assigned, but that could not be stored: {why}"));
        let failures = [
            (NOT_STORED, not_stored),
            (NOT_HANDED_OVER, success.handed.as_ref().and_then(Handed::failure)),
            (NO_CERTIFICATE, success.certificate.as_ref().and_then(Delivery::failure)),
            (NOT_CONNECTED, success.hub.as_ref().and_then(|met| met.failure(hub))),
        ];
        let failures = failures.into_iter().filter_map(|(code, why)| Some((code, why?)));
        failures.fold(printed, |so_far, (code, failure)| {
            if !self.json {
                let word = Style::of(&io::stderr()).paint(Color::Red, "error:");
                let failure = secret::masked(&failure);
                output::note(&format!("{word} {}\n", Printable::whole(failure.as_ref())));
            }
            if so_far == ExitCode::SUCCESS { ExitCode::from(code) } else { so_far }
        })
    }

    /// The result in the form that was asked for.
    pub(crate) fn text(self, success: &Success) -> String {
        if self.json { success.json() } else { success.lines() }
    }

    /// What a hub has issued in place of a stored certificate. The exit code is 0 unless it could not be stored.
    pub(crate) fn renewed(self, id: &RegistrationId, hub: &str, delivery: &Delivery) -> ExitCode {
        let failure = delivery.failure_at_hub();
        if self.json {
            let status = if failure.is_none() { "renewed" } else { "notRenewed" };
            let printed = json(&RenewedJson {
                status,
                registration_id: id.as_str(),
                hub: &shown(hub),
                certificate: delivery,
            });
            print(&printed);
        } else if failure.is_none() {
            let mut text = format!("renewed: {id} by {}\n", Printable::whole(hub));
            for (name, value) in delivery.rows() {
                let _ = writeln!(text, "  {name:<10} {}", Printable::whole(value));
            }
            print(&text);
        }
        let Some(failure) = failure else { return ExitCode::SUCCESS };
        if !self.json {
            let word = Style::of(&io::stderr()).paint(Color::Red, "error:");
            output::note(&format!("{word} {}\n", Printable::whole(&failure)));
        }
        ExitCode::from(NO_CERTIFICATE)
    }

    /// What a check has found. The exit code is 0 unless it can't be written.
    pub(crate) fn found(self, found: &Found) -> ExitCode {
        found.print(self.json)
    }

    /// What the service keeps of a device.
    pub(crate) fn shows(self, id: &RegistrationId, state: &RegistrationState) -> ExitCode {
        status::show(id, state, self.json)
    }

    /// The failure: as JSON on standard output, or for people on standard error.
    pub(crate) fn failed(self, error: &Error, context: &Context) -> ExitCode {
        if self.json {
            print(&json(&FailureJson { error: ErrorJson::new(error, context) }));
        } else {
            output::note(&failure_lines(error, context));
        }
        ExitCode::from(exit_code(error))
    }
}

/// The exit code of a device that is assigned, when that could not be stored: as of what can't be printed.
const NOT_STORED: u8 = 1;

/// The exit code of a device that is assigned, without the certificate that was asked for.
const NO_CERTIFICATE: u8 = 9;

/// The exit code of a device that is assigned, and not connected to its hub, though that was asked for.
pub(crate) const NOT_CONNECTED: u8 = 10;

/// The exit code of a device that is assigned, and not handed over to another program, though that was asked for.
const NOT_HANDED_OVER: u8 = 11;

/// What scripts go by.
fn exit_code(error: &Error) -> u8 {
    exit_code_of(error.kind(), error.is_retryable())
}

pub(crate) fn exit_code_of(kind: ErrorKind, is_retryable: bool) -> u8 {
    match kind {
        ErrorKind::Configuration => 2,
        // The service asks to come back later.
        ErrorKind::Rejected if is_retryable => 7,
        ErrorKind::Rejected => 3,
        ErrorKind::Connection => 4,
        ErrorKind::Timeout => 5,
        ErrorKind::Protocol => 6,
        ErrorKind::Credential => 8,
        ErrorKind::Cancelled => interrupt::exit_code(),
        // The command never registers twice at once.
        _ => 1,
    }
}

/// Something odd that stops nothing, on standard error.
pub(crate) fn warn(warning: &str) {
    let word = Style::of(&io::stderr()).paint(Color::Yellow, "warning:");
    output::note(&format!("{word} {}\n", Printable::whole(secret::masked(warning).as_ref())));
}

pub(crate) fn json(object: &impl Serialize) -> String {
    // Strings, numbers and JSON that was read before: there is nothing that can fail to serialize.
    let text = serde_json::to_string(object).unwrap_or_default();
    escaped(&text) + "\n"
}

/// With an escape for each character that is not fit for a terminal, as a peer may write it. Outside of texts JSON has
/// none, so that it means the same as before.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        let mut bytes = [0; 4];
        let unchanged: &str = c.encode_utf8(&mut bytes);
        if c.is_ascii_graphic() || c == ' ' || Printable::whole(unchanged).to_string() == *unchanged
        {
            text.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// Line breaks in JSON are never inside of a string, so the value stays the same to the letter.
pub(crate) fn in_one_line(payload: &RawValue) -> Option<Box<RawValue>> {
    RawValue::from_string(payload.get().replace(['\n', '\r'], " ")).ok()
}

fn seconds(length: Duration) -> f64 {
    (length.as_secs_f64() * 1000.0).round() / 1000.0
}

fn shown(text: &str) -> String {
    Printable::whole(text).to_string()
}

impl Success {
    /// What is stored, with the certificate that is in this folder.
    pub(crate) fn stored(assignment: &Assignment, folder: Option<&CertificateFolder>) -> Self {
        let kept = Kept::new(assignment, Source::Stored);
        let registration_id = assignment.identity.registration_id.clone();
        let certificate = folder.and_then(|folder| Delivery::in_use(folder, &registration_id));
        Self {
            registration_id,
            transport: assignment.transport.unwrap_or(Transport::Http).into(),
            registered: assignment.result.clone(),
            credentials: 1,
            elapsed: Duration::ZERO,
            certificate,
            hub: None,
            kept: Some(kept),
            handed: None,
        }
    }

    /// The one that was taken, of several.
    pub(crate) fn transport(&self) -> &str {
        self.registered.transport.as_deref().unwrap_or(self.transport.as_str())
    }

    pub(crate) fn json(&self) -> String {
        let Self { registration_id, registered, elapsed, certificate, .. } = self;
        json(&SuccessJson {
            status: "assigned",
            registration_id: registration_id.as_str(),
            device_id: &registered.device_id,
            assigned_hub: &registered.assigned_hub,
            operation_id: registered.operation_id.as_ref().map(|id| shown(id.as_str())),
            substatus: registered.substatus.as_ref().map(|word| shown(word.as_str())),
            payload: registered.payload.as_deref().and_then(in_one_line),
            transport: self.transport(),
            polls: registered.polls,
            credential: (self.credentials > 1).then_some(registered.credential + 1),
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            certificate: certificate.as_ref(),
            hub: self.hub.as_ref(),
            source: self.kept.as_ref().map(|kept| kept.source),
            stored_at: self.kept.as_ref().and_then(Kept::stored_at),
            registration_error: self
                .kept
                .as_ref()
                .and_then(|kept| kept.registration_error.as_deref()),
            handed_over: self.handed.as_ref(),
        })
    }

    fn lines(&self) -> String {
        let Self { registration_id, registered, elapsed, certificate, .. } = self;
        let transport = self.transport();
        let stored = self.kept.as_ref().filter(|kept| kept.source == Source::Stored);
        let mut text = match stored.map(|kept| kept.stored_at().unwrap_or_default()) {
            Some(stored_at) => format!("{registration_id}, stored at {stored_at}"),
            None => format!("{registration_id} over {transport} in {} s", seconds(*elapsed)),
        };
        let _ = match registered.polls {
            polls if stored.is_some() || polls == 0 => Ok(()),
            1 => write!(text, ", 1 poll"),
            polls => write!(text, ", {polls} polls"),
        };
        if let Some(substatus) = &registered.substatus {
            let _ = write!(text, ", {substatus}");
        }
        let word = Style::of(&io::stdout()).paint(Color::Green, "assigned:");
        let mut text = format!("{word} {}\n", Printable::whole(&text));
        if let Some(payload) = registered.payload.as_deref().and_then(in_one_line) {
            let _ = writeln!(text, "  payload    {}", Printable::whole(payload.get()));
        }
        let _ = writeln!(text, "  hub        {}", Printable::whole(&registered.assigned_hub));
        let _ = writeln!(text, "  device id  {}", Printable::whole(&registered.device_id));
        if self.credentials > 1 {
            let (which, of) = (registered.credential + 1, self.credentials);
            let _ = writeln!(text, "  credential {which} of {of}");
        }
        for (name, value) in certificate.iter().flat_map(Delivery::rows) {
            let _ = writeln!(text, "  {name:<10} {}", Printable::whole(value));
        }
        for (name, value) in self.handed.iter().flat_map(Handed::rows) {
            let _ = writeln!(text, "  {name:<10} {}", Printable::whole(&value));
        }
        if let Some(connected) = self.hub.as_ref().and_then(Met::row) {
            let _ = writeln!(text, "  connected  {}", Printable::whole(&connected));
        }
        text
    }
}

impl ErrorJson {
    pub(crate) fn new(error: &Error, context: &Context) -> Self {
        let now = || clock::rfc3339(SystemTime::now());
        let hint = context.advice.hint(error).map(|hint| secret::masked(&hint).into_owned());
        Self {
            kind: error.kind().as_str(),
            stage: error.stage().map(|stage| stage.as_str()),
            transport: context.chosen.or(context.transport.map(TransportChoice::as_str)),
            http_status: error.status(),
            error_code: error.error_code(),
            tracking_id: error.tracking_id().map(|id| Printable::brief(id).to_string()),
            message: message(error),
            retryable: error.is_retryable(),
            retry_after_seconds: error.retry_after().map(whole_seconds),
            hint,
            registration_id: context.registration_id.clone(),
            operation_id: context
                .operation_id
                .as_deref()
                .map(|id| Printable::brief(id).to_string()),
            endpoint: context.endpoint.clone(),
            next_try: next_try(error, context),
            timestamp: timestamp(error).map(|said| Printable::brief(said).to_string()).or_else(now),
        }
    }
}

/// When to try again to renew a certificate. What only another command line mends is not tried again.
fn next_try(error: &Error, context: &Context) -> Option<NextTry> {
    let folder = context.renewed.as_ref().filter(|_| error.kind() != ErrorKind::Configuration)?;
    NextTry::of(folder, error.retry_after())
}

/// When the service says that it answered: what its support asks for.
fn timestamp(error: &Error) -> Option<&str> {
    match error {
        Error::Rejected(rejection) => rejection.timestamp.as_deref(),
        _ => None,
    }
}

/// What the error says, without a secret that was given in the wrong place.
fn message(error: &Error) -> String {
    if let Error::Configuration(error) = error
        && let Some(what) = secret::kind(&error.value)
    {
        let field = error.field.clone();
        let reason = format!("it holds {what}, which is not repeated here; {}", error.reason);
        let error = ConfigurationError::new(field, "", &reason);
        return secret::masked(&error.to_string()).into_owned();
    }
    secret::masked(&error.to_string()).into_owned()
}

/// Never less than was asked for.
pub(crate) fn whole_seconds(length: Duration) -> u64 {
    length.as_secs().saturating_add(u64::from(length.subsec_nanos() > 0))
}

/// The message has the status or the error code and the tracking id in it already.
fn failure_lines(error: &Error, context: &Context) -> String {
    let ErrorJson { kind, stage, transport, message, retry_after_seconds, hint, next_try, .. } =
        ErrorJson::new(error, context);
    let style = Style::of(&io::stderr());
    let mut text = format!("{} {message}\n", style.paint(Color::Red, "error:"));
    if error.kind() != ErrorKind::Configuration {
        let status = error.status().filter(|_| error.error_code().is_some());
        let facts = [
            stage.map(|stage| format!("stage {stage}")),
            transport.map(|transport| format!("transport {transport}")),
            status.map(|status| format!("status {status}")),
            retry_after_seconds.map(|wait| format!("retry after {wait} s")),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        let _ = match facts.is_empty() {
            true => writeln!(text, "  {kind}"),
            false => writeln!(text, "  {kind}: {}", facts.join(", ")),
        };
    }
    if let Some(next_try) = next_try {
        let _ = writeln!(text, "  {}", next_try.words());
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "{} {hint}", style.paint(Color::Yellow, "hint:"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_escapes_what_is_not_fit_for_a_terminal_and_means_the_same() {
        let payload =
            "{\"a\": \"\u{7f}\u{9b}2J \u{202e}cod.exe \u{2066}\u{200f} größe 表 🙂 \\n\"}";
        let shown = escaped(payload);
        assert_eq!(
            shown,
            "{\"a\": \"\\u007f\\u009b2J \\u202ecod.exe \\u2066\\u200f größe 表 🙂 \\n\"}"
        );
        let [before, after] =
            [payload, &shown].map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(before, after);
    }
}
