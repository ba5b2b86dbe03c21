//! An enrollment in the configuration file.

use std::{path::Path, str::FromStr};

use dps_attestation::SymmetricKey;
use serde::Deserialize;
use toml::{Table, Value};

use super::{choose, fault, fields, json, unopened, wrong};
use crate::{
    behavior::{Behavior, Outcome},
    config_error::ConfigError,
    enrollment::{Attestation, Enrollment, GroupAttestation, Reprovisioning, ReturnedPayload},
    keys::{CaCertificates, Thumbprint},
};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Raw {
    registration_id: Option<String>,
    group: Option<String>,
    symmetric_key: Option<String>,
    secondary_key: Option<String>,
    thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
    certificate: Option<String>,
    certificate_file: Option<String>,
    ca: Option<String>,
    ca_file: Option<String>,
    enabled: Option<bool>,
    hub: Option<String>,
    hubs: Option<Vec<String>>,
    device_id: Option<String>,
    payload: Option<Value>,
    reprovisioning: Option<String>,
    substatus: Option<String>,
    polls: Option<Value>,
    retry_after: Option<Value>,
    outcome: Option<Value>,
    #[serde(default)]
    register: Vec<Table>,
    #[serde(default)]
    query: Vec<Table>,
}

/// Reads an enrollment; every error names it.
pub(super) fn read(table: Table, index: usize, folder: &Path) -> Result<Enrollment, ConfigError> {
    let name = ["registration-id", "group"].iter().find_map(|key| table.get(*key)?.as_str());
    let name = name.map_or_else(|| format!("number {}", index + 1), str::to_owned);
    fields(table).and_then(|raw| build(raw, folder)).map_err(|error| error.of(&name))
}

fn build(raw: Raw, folder: &Path) -> Result<Enrollment, ConfigError> {
    let certificate = (&raw.certificate, &raw.certificate_file);
    let certificate = load("certificate", certificate, folder, Thumbprint::of_pem)?;
    let ca = load("ca", (&raw.ca, &raw.ca_file), folder, CaCertificates::from_pem)?;
    let enrollment = match (&raw.registration_id, &raw.group) {
        (Some(id), None) => {
            if ca.is_some() {
                return Err(ConfigError::new(
                    "ca",
                    "only a group has one; use thumbprint or certificate",
                ));
            }
            let id = id.parse();
            let id = id.map_err(|error| ConfigError::from_parser("registration-id", &error))?;
            Enrollment::individual(id, individual(certificate, &raw)?)
        }
        (None, Some(name)) => {
            let other = raw.thumbprint.is_some() || raw.secondary_thumbprint.is_some();
            if other || certificate.is_some() {
                return Err(ConfigError::new(
                    "group",
                    "a group is known by symmetric-key or by ca",
                ));
            }
            Enrollment::group(name.clone(), group(ca, &raw)?)
        }
        _ => {
            return Err(ConfigError::new(
                "registration-id",
                "give registration-id for one device, or group for many",
            ));
        }
    };
    settings(enrollment, raw)
}

/// What a PEM says that is given as text or as a file.
fn load<T>(
    field: &str,
    (text, file): (&Option<String>, &Option<String>),
    folder: &Path,
    parse: impl Fn(&[u8]) -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    match (text, file) {
        (Some(_), Some(_)) => {
            Err(ConfigError::new(field, "give it as text or as a file, not both"))
        }
        (Some(text), None) => parse(text.as_bytes()).map(Some),
        (None, Some(file)) => {
            let field = format!("{field}-file");
            let path = folder.join(file);
            let pem = std::fs::read(&path).map_err(|error| unopened(&path, &field, &error))?;
            parse(&pem).map(Some).map_err(|error| error.field_named(&field).value(file.chars()))
        }
        (None, None) => Ok(None),
    }
}

/// The primary and the secondary symmetric key, if any were given.
fn keys<K: FromStr<Err = dps_state_machine::Error>>(
    raw: &Raw,
) -> Result<Option<(K, Option<K>)>, ConfigError> {
    let parse = |field: &str, key: &Option<String>| {
        let key = key.as_ref().map(|key| key.parse());
        key.transpose().map_err(|error| ConfigError::from_parser(field, &error))
    };
    let primary = parse("symmetric-key", &raw.symmetric_key)?;
    match (primary, parse("secondary-key", &raw.secondary_key)?) {
        (None, Some(_)) => {
            Err(ConfigError::new("secondary-key", "it needs symmetric-key beside it"))
        }
        (primary, secondary) => Ok(primary.map(|primary| (primary, secondary))),
    }
}

fn individual(certificate: Option<Thumbprint>, raw: &Raw) -> Result<Attestation, ConfigError> {
    let keys: Option<(SymmetricKey, _)> = keys(raw)?;
    let thumbprint = |field: &str, text: &Option<String>| {
        text.as_ref().map(|t| t.parse().map_err(|e: ConfigError| e.field_named(field))).transpose()
    };
    let given: Option<Thumbprint> = thumbprint("thumbprint", &raw.thumbprint)?;
    let secondary = thumbprint("secondary-thumbprint", &raw.secondary_thumbprint)?;
    let primary = match (given, certificate) {
        (Some(_), Some(_)) => {
            return Err(ConfigError::new("thumbprint", "give thumbprint or certificate, not both"));
        }
        (given, certificate) => given.or(certificate),
    };
    match (keys, primary) {
        (Some((primary, key)), None) if secondary.is_none() => {
            Ok(Attestation::SymmetricKey { primary, secondary: key })
        }
        (None, Some(primary)) => Ok(Attestation::X509 { primary, secondary }),
        (None, None) => Err(ConfigError::new(
            "symmetric-key",
            "give symmetric-key, thumbprint, certificate or certificate-file",
        )),
        _ => Err(ConfigError::new(
            "symmetric-key",
            "give a symmetric key or a certificate, not both",
        )),
    }
}

fn group(ca: Option<CaCertificates>, raw: &Raw) -> Result<GroupAttestation, ConfigError> {
    match (keys(raw)?, ca) {
        (Some((primary, secondary)), None) => {
            Ok(GroupAttestation::SymmetricKey { primary, secondary })
        }
        (None, Some(ca)) => Ok(GroupAttestation::X509(ca)),
        (None, None) => Err(ConfigError::new("symmetric-key", "give symmetric-key, ca or ca-file")),
        _ => Err(ConfigError::new("symmetric-key", "give symmetric-key or ca, not both")),
    }
}

fn settings(mut enrollment: Enrollment, raw: Raw) -> Result<Enrollment, ConfigError> {
    enrollment = match (raw.hub, raw.hubs) {
        (Some(_), Some(_)) => return Err(ConfigError::new("hubs", "give hub or hubs, not both")),
        (Some(hub), None) => enrollment.assign_to(hub),
        (None, Some(hubs)) => enrollment.assign_to_each(hubs),
        (None, None) => enrollment,
    };
    if raw.enabled == Some(false) {
        enrollment = enrollment.disabled();
    }
    if let Some(device_id) = raw.device_id {
        enrollment = enrollment.device_id(device_id);
    }
    if let Some(substatus) = raw.substatus {
        enrollment = enrollment.substatus(substatus);
    }
    if let Some(given) = raw.reprovisioning {
        let choices = [
            ("migrate-data", Reprovisioning::MigrateData),
            ("reset-data", Reprovisioning::ResetData),
            ("never", Reprovisioning::Never),
        ];
        enrollment = enrollment.reprovisioning(choose("reprovisioning", &given, &choices)?);
    }
    enrollment = match raw.payload {
        None => enrollment,
        Some(Value::String(word)) if word == "echo" => enrollment.payload(ReturnedPayload::Echo),
        Some(value @ Value::Table(_)) => {
            enrollment.payload(ReturnedPayload::Fixed(json(value).into()))
        }
        Some(Value::String(text)) if text.trim_start().starts_with('{') => {
            let payload =
                text.parse().map_err(|error| ConfigError::from_parser("payload", &error))?;
            enrollment.payload(ReturnedPayload::Fixed(payload))
        }
        Some(other) => {
            return Err(wrong("payload", &other, "\"echo\", a table, or a JSON object as text"));
        }
    };
    let mut behavior = Behavior::new();
    if let Some(value) = raw.polls {
        behavior = behavior.polls(polls(&value)?);
    }
    if let Some(value) = raw.retry_after {
        behavior = behavior.retry_after(fault::retry_after(value)?);
    }
    if let Some(value) = raw.outcome {
        behavior = behavior.outcome(outcome(value)?);
    }
    for table in raw.register {
        behavior = behavior.on_register(fault::read(table).map_err(|e| e.within("register"))?);
    }
    for table in raw.query {
        behavior = behavior.on_query(fault::read(table).map_err(|e| e.within("query"))?);
    }
    Ok(enrollment.behavior(behavior))
}

fn polls(value: &Value) -> Result<u32, ConfigError> {
    match value {
        Value::String(word) if word == "forever" => Some(u32::MAX),
        Value::Integer(polls) => u32::try_from(*polls).ok(),
        _ => None,
    }
    .ok_or_else(|| wrong("polls", value, "a number of polls or \"forever\""))
}

fn outcome(value: Value) -> Result<Outcome, ConfigError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    struct Raw {
        status: Option<String>,
        error_code: Option<u32>,
        #[serde(default)]
        message: String,
    }
    let wanted =
        "\"assigned\", \"disabled\", { error-code = N, message = TEXT } or { status = WORD }";
    match value {
        Value::String(word) if word == "assigned" => Ok(Outcome::Assigned),
        Value::String(word) if word == "disabled" => Ok(Outcome::Disabled),
        Value::Table(table) => {
            let shown = Value::Table(table.clone());
            let raw: Raw = fields(table).map_err(|error| error.within("outcome"))?;
            match (raw.status, raw.error_code) {
                (Some(word), None) if raw.message.is_empty() => Ok(Outcome::Status(word)),
                (None, Some(code)) => Ok(Outcome::failed(code, raw.message)),
                _ => Err(wrong("outcome", &shown, wanted)),
            }
        }
        other => Err(wrong("outcome", &other, wanted)),
    }
}
