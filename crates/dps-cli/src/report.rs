//! How a registration ended: readable lines or one JSON object, and the exit code.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use dps_client::{
    ConfigurationError, Error, ErrorKind, Printable, RegistrationId, RegistrationResult, Transport,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::secret;

/// Says how it ended, in the form that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reporter {
    json: bool,
}

/// A registration that succeeded.
#[derive(Debug)]
pub(crate) struct Success {
    pub(crate) registration_id: RegistrationId,
    pub(crate) transport: Transport,
    pub(crate) registered: RegistrationResult,
    pub(crate) elapsed: Duration,
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
    transport: &'static str,
    polls: u32,
    elapsed_ms: u64,
}

#[derive(Serialize)]
struct FailureJson {
    error: ErrorJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorJson {
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
}

impl Reporter {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// The result on standard output. The exit code is 0 unless it can't be written.
    pub(crate) fn succeeded(self, success: &Success) -> ExitCode {
        let text = if self.json { success.json() } else { success.lines() };
        print(&text)
    }

    /// The failure: as JSON on standard output, or for people on standard error.
    pub(crate) fn failed(self, error: &Error, transport: Option<Transport>) -> ExitCode {
        if self.json {
            print(&json(&FailureJson { error: ErrorJson::new(error, transport) }));
        } else {
            let _ = io::stderr().write_all(failure_lines(error, transport).as_bytes());
        }
        exit_code(error.kind())
    }
}

/// What scripts go by.
fn exit_code(kind: ErrorKind) -> ExitCode {
    ExitCode::from(match kind {
        ErrorKind::Configuration => 2,
        ErrorKind::Rejected => 3,
        ErrorKind::Connection => 4,
        ErrorKind::Timeout => 5,
        ErrorKind::Protocol => 6,
        ErrorKind::Cancelled => 130,
        // The command never registers twice at once.
        _ => 1,
    })
}

/// Writes to standard output. A reader that has gone away is no failure of ours, a full disk is.
pub(crate) fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "error: standard output can't be written: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn json(object: &impl Serialize) -> String {
    // Strings, numbers and JSON that was read before: there is nothing that can fail to serialize.
    serde_json::to_string(object).unwrap_or_default() + "\n"
}

/// Line breaks in JSON are never inside of a string, so the value stays the same to the letter.
fn in_one_line(payload: &RawValue) -> Option<Box<RawValue>> {
    RawValue::from_string(payload.get().replace(['\n', '\r'], " ")).ok()
}

fn seconds(length: Duration) -> f64 {
    (length.as_secs_f64() * 1000.0).round() / 1000.0
}

fn shown(text: &str) -> String {
    Printable::whole(text).to_string()
}

impl Success {
    fn json(&self) -> String {
        let Self { registration_id, transport, registered, elapsed } = self;
        json(&SuccessJson {
            status: "assigned",
            registration_id: registration_id.as_str(),
            device_id: &registered.device_id,
            assigned_hub: &registered.assigned_hub,
            operation_id: registered.operation_id.as_ref().map(|id| shown(id.as_str())),
            substatus: registered.substatus.as_ref().map(|word| shown(word.as_str())),
            payload: registered.payload.as_deref().and_then(in_one_line),
            transport: transport.as_str(),
            polls: registered.polls,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn lines(&self) -> String {
        let Self { registration_id, transport, registered, elapsed } = self;
        let mut text = format!("{registration_id} over {transport} in {} s", seconds(*elapsed));
        let polls = registered.polls;
        let _ = match polls {
            0 => Ok(()),
            1 => write!(text, ", 1 poll"),
            _ => write!(text, ", {polls} polls"),
        };
        if let Some(substatus) = &registered.substatus {
            let _ = write!(text, ", {substatus}");
        }
        let mut text = format!("assigned: {}\n", Printable::whole(&text));
        if let Some(payload) = registered.payload.as_deref().and_then(in_one_line) {
            let _ = writeln!(text, "  payload    {}", Printable::whole(payload.get()));
        }
        let _ = writeln!(text, "  hub        {}", Printable::whole(&registered.assigned_hub));
        let _ = writeln!(text, "  device id  {}", Printable::whole(&registered.device_id));
        text
    }
}

impl ErrorJson {
    fn new(error: &Error, transport: Option<Transport>) -> Self {
        Self {
            kind: error.kind().as_str(),
            stage: error.stage().map(|stage| stage.as_str()),
            transport: transport.map(Transport::as_str),
            http_status: error.status(),
            error_code: error.error_code(),
            tracking_id: error.tracking_id().map(|id| Printable::brief(id).to_string()),
            message: message(error),
            retryable: error.is_retryable(),
            retry_after_seconds: error.retry_after().map(whole_seconds),
            hint: error.hint().map(|hint| secret::masked(&hint).into_owned()),
        }
    }
}

/// What the error says, without a secret that was given in the wrong place.
fn message(error: &Error) -> String {
    if let Error::Configuration(error) = error
        && let Some(what) = secret::kind(&error.value)
    {
        let field = error.field;
        let reason = format!("it holds {what}, which is not repeated here; {}", error.reason);
        let error = ConfigurationError::new(field, "", &reason);
        return secret::masked(&error.to_string()).into_owned();
    }
    secret::masked(&error.to_string()).into_owned()
}

/// Never less than was asked for.
fn whole_seconds(length: Duration) -> u64 {
    length.as_secs().saturating_add(u64::from(length.subsec_nanos() > 0))
}

/// The message has the error code and the tracking id in it already.
fn failure_lines(error: &Error, transport: Option<Transport>) -> String {
    let ErrorJson {
        kind, stage, transport, http_status, message, retry_after_seconds, hint, ..
    } = ErrorJson::new(error, transport);
    let mut text = format!("error: {message}\n");
    if error.kind() != ErrorKind::Configuration {
        let facts = [
            stage.map(|stage| format!("stage {stage}")),
            transport.map(|transport| format!("transport {transport}")),
            http_status.map(|status| format!("status {status}")),
            retry_after_seconds.map(|wait| format!("retry after {wait} s")),
        ];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        let _ = writeln!(text, "  {kind}: {}", facts.join(", "));
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "hint: {hint}");
    }
    text
}
