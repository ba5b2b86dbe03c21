//! The configuration file.

use std::{io, net::IpAddr, path::Path, time::Duration};

use serde::Deserialize;
use toml::{Table, Value};

use super::{Config, Limits, ServerCertificate};
use crate::config_error::ConfigError;

mod enrollment;
mod fault;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct File {
    id_scope: Option<String>,
    https_port: Option<u16>,
    mqtt_port: Option<u16>,
    amqp_port: Option<u16>,
    admin_port: Option<u16>,
    bind: Option<Vec<IpAddr>>,
    #[serde(default)]
    server_names: Vec<String>,
    server_certificate: Option<String>,
    #[serde(default)]
    connections: Vec<Value>,
    clock_ahead: Option<f64>,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    enrollment: Vec<Table>,
}

/// Times are in seconds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RawLimits {
    max_connections: Option<usize>,
    handshake_timeout: Option<f64>,
    idle_timeout: Option<f64>,
    body_timeout: Option<f64>,
    max_head_bytes: Option<usize>,
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
    let mut config = Config::new().server_names(file.server_names);
    if let Some(id_scope) = file.id_scope {
        let parsed = id_scope.parse();
        let parsed = parsed.map_err(|error| ConfigError::from_parser("id-scope", &error))?;
        config = config.id_scope(parsed);
    }
    if let Some(port) = file.https_port {
        config = config.https_port(port);
    }
    if let Some(port) = file.mqtt_port {
        config = config.mqtt_port(port);
    }
    if let Some(port) = file.amqp_port {
        config = config.amqp_port(port);
    }
    if let Some(port) = file.admin_port {
        config = config.admin_port(port);
    }
    if let Some(addresses) = file.bind {
        config = config.bind(addresses);
    }
    if let Some(given) = file.server_certificate {
        let choices = [
            ("valid", ServerCertificate::Valid),
            ("expired", ServerCertificate::Expired),
            ("not-yet-valid", ServerCertificate::NotYetValid),
            ("wrong-name", ServerCertificate::WrongName),
            ("wrong-ca", ServerCertificate::WrongCa),
        ];
        config = config.server_certificate(choose("server-certificate", &given, &choices)?);
    }
    let faults = file.connections.into_iter().map(fault::connection);
    config = config.connection_faults(faults.collect::<Result<Vec<_>, _>>()?);
    if let Some(seconds) = file.clock_ahead {
        config = config.clock_ahead(duration("clock-ahead", seconds)?);
    }
    config = config.limits(limits(file.limits)?);
    for (index, table) in file.enrollment.into_iter().enumerate() {
        config = config.enrollment(enrollment::read(table, index, folder)?);
    }
    config.check()?;
    Ok(config)
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
    const WORDS: [(&str, &str); 9] = [
        (
            "invalid type: map, expected a sequence",
            "it must be a list, as in [[enrollment]] or [{ .. }]",
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

fn limits(raw: RawLimits) -> Result<Limits, ConfigError> {
    let Limits { max_connections, max_head_bytes, handshake_timeout, idle_timeout, body_timeout } =
        Limits::default();
    let or = |given: Option<f64>, field: &str, default: Duration| {
        given.map_or(Ok(default), |seconds| duration(field, seconds))
    };
    Ok(Limits {
        max_connections: raw.max_connections.unwrap_or(max_connections),
        max_head_bytes: raw.max_head_bytes.unwrap_or(max_head_bytes),
        handshake_timeout: or(raw.handshake_timeout, "handshake-timeout", handshake_timeout)?,
        idle_timeout: or(raw.idle_timeout, "idle-timeout", idle_timeout)?,
        body_timeout: or(raw.body_timeout, "body-timeout", body_timeout)?,
    })
}

fn duration(field: &str, seconds: f64) -> Result<Duration, ConfigError> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        ConfigError::new(field, "it must be a number of seconds, 0 or more")
            .value(seconds.to_string().chars())
    })
}

/// One of a few words.
fn choose<T: Copy>(field: &str, given: &str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
    choices.iter().find(|(word, _)| *word == given).map(|(_, choice)| *choice).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        ConfigError::new(field, &format!("it must be one of {}", words.join(", ")))
            .value(given.chars())
    })
}

/// A value that should have been another one.
fn wrong(field: &str, value: &Value, wanted: &str) -> ConfigError {
    ConfigError::new(field, &format!("it must be {wanted}"))
        .value(json(value.clone()).to_string().chars())
}

/// Like `Value::try_into`, with an error of one line.
fn fields<T: serde::de::DeserializeOwned>(table: Table) -> Result<T, ConfigError> {
    Value::Table(table).try_into().map_err(|error: toml::de::Error| {
        // Where it knows the key, its second line has it.
        let text = error.to_string();
        let key = text.trim().strip_suffix('`').and_then(|text| text.rsplit_once("\nin `"));
        ConfigError::new(key.map_or("keys", |(_, key)| key), &in_plain_words(error.message()))
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

#[cfg(test)]
mod tests;
