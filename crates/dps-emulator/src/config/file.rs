//! The configuration file.

use std::{io, net::IpAddr, path::Path, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};
use toml::{Table, Value};
use zeroize::Zeroizing;

use super::{Config, Limits, ServerCertificate};
use crate::{
    config_error::ConfigError,
    core::{ServicePolicy, ServiceRight},
};

mod enrollment;
mod fault;

#[derive(Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[derive(Default)]
struct File {
    id_scope: Option<String>,
    https_port: u16,
    mqtt_port: u16,
    amqp_port: u16,
    admin_port: Option<u16>,
    admin_listen: Vec<IpAddr>,
    bind: Vec<IpAddr>,
    server_names: Vec<String>,
    server_certificate: ServerCertificate,
    ca_cert_file: Option<String>,
    ca_key_file: Option<String>,
    connections: Vec<Value>,
    clock_ahead: f64,
    nearest_hubs: Vec<String>,
    linked_hubs: Option<Vec<String>>,
    service_api: Vec<Table>,
    limits: Limits,
    service_policy: Vec<Policy>,
    verified_ca: Vec<VerifiedCa>,
    enrollment: Vec<Table>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct VerifiedCa {
    name: String,
    ca: Option<String>,
    ca_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Policy {
    name: String,
    key: String,
    #[serde(default = "all_rights")]
    rights: Vec<ServiceRight>,
}

fn all_rights() -> Vec<ServiceRight> {
    ServiceRight::ALL.to_vec()
}

pub(super) fn read(path: &Path, what: &str) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| unopened(path, what, &error))
}

fn unopened(path: &Path, what: &str, error: &io::Error) -> ConfigError {
    ConfigError::new(what, &format!("it can't be read: {error}"))
        .value(path.display().to_string().chars())
}

/// Reads a configuration; files that it names are looked up from `folder`.
pub(super) fn parse(text: &str, folder: &Path) -> Result<Config, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| unreadable(text, &error))?;
    let id_scope = file.id_scope.map(|id_scope| id_scope.parse()).transpose();
    let id_scope = id_scope.map_err(|error| ConfigError::from_parser("id-scope", &error))?;
    let enrollment_keys = file.enrollment.iter().flatten();
    let in_enrollments = enrollment_keys.filter(|(key, _)| key.ends_with("-file"));
    let named = in_enrollments.filter_map(|(_, value)| value.as_str());
    let named = named.chain(file.verified_ca.iter().filter_map(|ca| ca.ca_file.as_deref()));
    let named = named.chain(file.ca_cert_file.as_deref()).chain(file.ca_key_file.as_deref());
    let files = named.map(|file| folder.join(file)).collect();
    let connection_faults = file.connections.into_iter().map(fault::connection);
    let service_faults = file.service_api.into_iter().map(fault::read);
    let enrollments = file.enrollment.into_iter().zip(1..);
    let enrollments = enrollments.map(|(table, number)| enrollment::read(table, number, folder));
    let config = Config {
        id_scope,
        https_port: file.https_port,
        mqtt_port: file.mqtt_port,
        amqp_port: file.amqp_port,
        admin_port: file.admin_port,
        server_names: file.server_names,
        server_certificate: file.server_certificate,
        connection_faults: connection_faults.collect::<Result<_, _>>()?,
        clock_ahead: file.clock_ahead,
        nearest_hubs: file.nearest_hubs,
        linked_hubs: file.linked_hubs,
        service_faults: service_faults
            .collect::<Result<_, _>>()
            .map_err(|error: ConfigError| error.within("service-api"))?,
        limits: file.limits,
        files,
        enrollments: enrollments.collect::<Result<_, _>>()?,
        ..Config::new()
    };
    let mut config = config.bind(file.bind).admin_listen(file.admin_listen);
    for Policy { name, key, rights } in file.service_policy {
        let key = key.parse();
        let key = key.map_err(|error| {
            ConfigError::from_parser("key", &error).within(&format!("service-policy {name:?}"))
        })?;
        if config.service_policies.iter().any(|other| other.name == name) {
            return Err(name_is_taken("service-policy", &name));
        }
        config = config.service_policy(ServicePolicy::new(name, key, rights));
    }
    for VerifiedCa { name, ca, ca_file } in file.verified_ca {
        if config.verified_cas.contains_key(&name) {
            return Err(name_is_taken("verified-ca", &name));
        }
        config = config.verified_ca(
            name.clone(),
            enrollment::verified_ca(&ca, &ca_file, folder)
                .map_err(|error| error.within(&format!("verified-ca {name:?}")))?,
        );
    }
    if let Some((certificate, key)) = both(file.ca_cert_file, file.ca_key_file)? {
        let certificate_pem = contents(folder, "ca-cert-file", &certificate)?;
        let key_pem = contents(folder, "ca-key-file", &key)?;
        config = config.authority(&certificate_pem, &key_pem).map_err(|error| {
            let (field, file) = match error.field() {
                "ca-key" => ("ca-key-file", key),
                _ => ("ca-cert-file", certificate),
            };
            error.field_named(field).value(file.chars())
        })?;
    }
    config.check()?;
    Ok(config)
}

fn name_is_taken(table: &str, name: &str) -> ConfigError {
    let reason = format!("another [[{table}]] has it already; rename one");
    ConfigError::new("name", &reason).value(name.chars()).within(table)
}

/// The files of a certificate and its key: the one is of no use without the other.
fn both(
    certificate: Option<String>,
    key: Option<String>,
) -> Result<Option<(String, String)>, ConfigError> {
    let alone = |field, file: String, other: &str| {
        Err(ConfigError::new(field, &format!("it needs {other} beside it")).value(file.chars()))
    };
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (Some(certificate), None) => alone("ca-cert-file", certificate, "ca-key-file"),
        (None, Some(key)) => alone("ca-key-file", key, "ca-cert-file"),
        (None, None) => Ok(None),
    }
}

/// What is in a file that a key of the configuration names.
fn contents(folder: &Path, field: &str, file: &str) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let path = folder.join(file);
    std::fs::read(&path).map(Zeroizing::new).map_err(|error| unopened(&path, field, &error))
}

/// A number of seconds; fractions are fine.
pub(super) fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(from)?;
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        D::Error::custom(format!("\"{seconds}\" must be a number of seconds, 0 or more"))
    })
}

/// The line and its key, but never the value, which may be a secret.
fn unreadable(text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let number = before.bytes().filter(|byte| *byte == b'\n').count();
    let line = text.lines().nth(number).unwrap_or_default();
    // What stands before an equals sign may be base64 on a line of its own.
    let is_key = |key: &&str| key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'-' | b'_'));
    let header = || line.trim().trim_start_matches('[').split_once(']');
    let key = line.split_once('=').or_else(header).map(|(key, _)| key.trim());
    let key = key.filter(is_key).unwrap_or_default();
    let field = format!("line {}{}{key}", number + 1, if key.is_empty() { "" } else { ", " });
    ConfigError::new(&field, &in_plain_words(error.message()))
}

/// The parser's message, without its words for types. A key that was written where a name belongs is not repeated:
/// no name is that long.
fn in_plain_words(message: &str) -> String {
    const WORDS: [(&str, &str); 17] = [
        (
            "data did not match any variant of untagged enum Times",
            "it must be a number, 0 or more, or \"forever\"",
        ),
        (
            "data did not match any variant of untagged enum RetryAfter",
            "it must be a number of seconds, a text, a list of texts or { date-in = SECONDS }",
        ),
        (
            "data did not match any variant of untagged enum Outcome",
            "it must be \"assigned\", \"disabled\", { error-code = N, message = TEXT } or { status = WORD }",
        ),
        (
            "data did not match any variant of untagged enum RawDelivery",
            "it must be \"whole\", \"never\", \"close-before\", \"close-after\", { close-mid = BYTES } or { drip = BYTES, every-ms = MILLISECONDS }",
        ),
        (
            "data did not match any variant of untagged enum RawJson",
            "it must be a table, or a JSON object as text",
        ),
        (
            "data did not match any variant of untagged enum RawPayload",
            "it must be \"echo\", a table, or a JSON object as text",
        ),
        (
            "invalid type: map, expected a sequence",
            "it must be a list, as in [[enrollment]] or [{ .. }]",
        ),
        (
            "invalid type: unit variant, expected newtype variant",
            "it must be a table, in which the word has a value",
        ),
        (
            "invalid type: unit variant, expected string only",
            "it must be a word, or a table with one",
        ),
        ("expected a sequence", "expected a list, as in [..]"),
        ("expected a map", "expected a table, as in { .. }"),
        ("expected a boolean", "expected true or false"),
        ("expected f64", "expected a number"),
        ("expected u8", "expected a number from 0 to 255"),
        ("expected u16", "expected a number from 0 to 65535"),
        ("expected u32", "expected a number, 0 or more"),
        ("expected usize", "expected a number, 0 or more"),
    ];
    let message = match message.strip_prefix("unknown field `").and_then(|m| m.split_once('`')) {
        Some((name, rest)) if name.len() >= 24 => &format!("unknown field{rest}"),
        _ => message,
    };
    WORDS.iter().fold(message.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// Like `Value::try_into`, with an error of one line that shows what was given, unless it is a key.
fn fields<T: serde::de::DeserializeOwned>(table: Table) -> Result<T, ConfigError> {
    Value::Table(table.clone()).try_into().map_err(|error: toml::de::Error| {
        // Where it knows the key, its second line has it.
        let text = error.to_string();
        let key = text.trim().strip_suffix('`').and_then(|text| text.rsplit_once("\nin `"));
        let key = key.map(|(_, key)| key);
        let words = in_plain_words(error.message());
        let given = key.filter(|key| !key.ends_with("-key") && words.starts_with("it must be"));
        let given = given.and_then(|key| table.get(key)).map(|given| json(given.clone()));
        let given = given.map(|given| given.to_string()).unwrap_or_default();
        ConfigError::new(key.unwrap_or("keys"), &words).value(given.chars())
    })
}

/// TOML as JSON; dates become text, numbers that JSON lacks become null.
fn json(value: Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.into(),
        Value::Integer(number) => number.into(),
        Value::Float(number) => number.into(),
        Value::Boolean(flag) => flag.into(),
        Value::Datetime(date) => date.to_string().into(),
        Value::Array(values) => values.into_iter().map(json).collect(),
        Value::Table(table) => {
            serde_json::Value::Object(table.into_iter().map(|(k, v)| (k, json(v))).collect())
        }
    }
}

/// JSON as TOML, which has no null and no integers beyond 64 bits with a sign.
fn toml_value(field: &str, value: &serde_json::Value) -> Result<Value, ConfigError> {
    use serde_json::Value as Json;
    let wrong = |reason| Err(ConfigError::new(field, reason).value(value.to_string().chars()));
    Ok(match value {
        Json::Null => return wrong("it may have no null; leave it out"),
        Json::Bool(flag) => Value::Boolean(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(float)) if number.is_f64() => Value::Float(float),
            _ => return wrong("the number is too large"),
        },
        Json::String(text) => Value::String(text.clone()),
        Json::Array(values) => {
            let values = values.iter().map(|value| toml_value(field, value));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Json::Object(fields) => {
            let fields =
                fields.iter().map(|(key, value)| Ok((key.clone(), toml_value(key, value)?)));
            Value::Table(fields.collect::<Result<_, ConfigError>>()?)
        }
    })
}

#[cfg(test)]
fn keys_of(raw: impl serde::Serialize) -> Vec<String> {
    let fields = serde_json::to_value(raw).unwrap_or_default();
    fields.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests;
