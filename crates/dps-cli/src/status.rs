//! `dps status`: what the service keeps of a device's registration.

use std::{fmt::Write as _, process::ExitCode};

use dps_client::{
    Config, Error, HttpTransport, Printable, Progress, RegistrationId, RegistrationState,
};
use serde::Serialize;

use crate::{
    output,
    register::{Plan, Registration},
    report,
};

const DETAILS: &str = "\
It asks over HTTPS, registers nothing, and takes the flags and variables of
`dps register`. The exit codes are those too: 0 whatever the state is, 3 when
the service keeps nothing of the device or refuses its credential.

Examples:
  dps status --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --symmetric-key-file pump-17.key
  dps status --id-scope 0ne00AABBCC --registration-id pump-17 \\
      --cert chain.pem --key key.pem --json";

#[derive(Debug, clap::Args)]
#[command(after_help = DETAILS)]
pub(crate) struct Arguments {
    #[command(flatten)]
    registration: Registration,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateJson<'a> {
    registration_id: &'a str,
    status: String,
    substatus: Option<String>,
    assigned_hub: Option<&'a str>,
    device_id: Option<&'a str>,
    payload: Option<Box<serde_json::value::RawValue>>,
    error_code: Option<u32>,
    error_message: Option<&'a str>,
    created: Option<&'a str>,
    last_updated: Option<&'a str>,
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let registration = &arguments.registration;
    registration.run(|| registration.ensure_asks_only().map(|()| Plan::look_up()))
}

/// Asks with each credential until one is taken.
pub(crate) async fn ask(
    configs: Vec<Config>,
    id: &RegistrationId,
    progress: &Progress,
) -> Result<RegistrationState, Error> {
    let mut last = Err(Error::Cancelled);
    for config in configs {
        let answer = HttpTransport::new(config)?.registration_state(id, progress).await;
        last = answer.and_then(|answer| RegistrationState::read(answer, progress));
        if !matches!(&last, Err(error) if error.status() == Some(401)) {
            break;
        }
    }
    last
}

/// The state on standard output.
pub(crate) fn show(id: &RegistrationId, state: &RegistrationState, as_json: bool) -> ExitCode {
    let shown =
        |text: &Option<String>| text.as_ref().map(|text| Printable::whole(text).to_string());
    let payload = state.payload.as_deref().and_then(report::in_one_line);
    let substatus =
        state.substatus.as_ref().map(|word| Printable::whole(word.as_str()).to_string());
    if as_json {
        return output::print(&report::json(&StateJson {
            registration_id: id.as_str(),
            status: state.status.to_string(),
            substatus,
            assigned_hub: state.assigned_hub.as_deref(),
            device_id: state.device_id.as_deref(),
            payload,
            error_code: state.error_code,
            error_message: state.error_message.as_deref(),
            created: state.created.as_deref(),
            last_updated: state.last_updated.as_deref(),
        }));
    }
    let mut text = format!("{}: {id}\n", state.status);
    let rows = [
        ("hub", shown(&state.assigned_hub)),
        ("device id", shown(&state.device_id)),
        ("substatus", substatus),
        ("payload", payload.map(|payload| Printable::whole(payload.get()).to_string())),
        ("error code", state.error_code.map(|code| code.to_string())),
        ("error", shown(&state.error_message)),
        ("registered", shown(&state.created)),
        ("changed", shown(&state.last_updated)),
    ];
    for (name, value) in rows.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {name:<10} {value}");
    }
    output::print(&text)
}
