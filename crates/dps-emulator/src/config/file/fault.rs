//! A fault in the configuration file.

use std::time::Duration;

use serde::Deserialize;
use toml::{Table, Value};

use super::{choose, fields, in_plain_words, json, wrong};
use crate::{
    AmqpFault,
    behavior::{Body, ConnectionFault, Delivery, Fault, RetryAfter},
    config_error::ConfigError,
};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Raw {
    times: Option<Value>,
    refuse: Option<u16>,
    error_code: Option<u32>,
    message: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    with: Table,
    body: Option<Value>,
    content_type: Option<String>,
    retry_after: Option<Value>,
    deliver: Option<Value>,
    #[serde(default)]
    wrong_id: bool,
    #[serde(default)]
    twice: bool,
}

/// What goes wrong with one connection: a word, or something of one transport's own.
pub(super) fn connection(value: Value) -> Result<ConnectionFault, ConfigError> {
    const FIELD: &str = "connections";
    const WANTED: &str = "a word, { mqtt = FAULT } or { amqp = FAULT }";
    let choices = [
        ("pass", ConnectionFault::Pass),
        ("close-on-accept", ConnectionFault::CloseOnAccept),
        ("hang-on-accept", ConnectionFault::HangOnAccept),
        ("garbage-for-tls", ConnectionFault::GarbageForTls),
        ("close-after-tls", ConnectionFault::CloseAfterTls),
        ("hang-after-tls", ConnectionFault::HangAfterTls),
    ];
    let shown = value.clone();
    let table = match value {
        Value::String(word) => return choose(FIELD, &word, &choices),
        Value::Table(table) if table.len() == 1 => table,
        _ => return Err(wrong(FIELD, &shown, WANTED)),
    };
    let read = table.into_iter().find_map(|(transport, fault)| match transport.as_str() {
        "mqtt" => Some(fault.try_into().map(ConnectionFault::Mqtt)),
        "amqp" => Some(fault.try_into().map(ConnectionFault::Amqp)),
        _ => None,
    });
    match read {
        Some(Ok(ConnectionFault::Amqp(AmqpFault::Reject { condition, .. })))
            if usize::from(condition) >= AmqpFault::CONDITIONS.len() =>
        {
            Err(wrong(FIELD, &shown, "one of the conditions 0 to 5"))
        }
        Some(Ok(fault)) => Ok(fault),
        Some(Err(error)) => {
            let error = ConfigError::new(FIELD, &in_plain_words(error.message()));
            Err(error.value(json(shown).to_string().chars()))
        }
        None => Err(wrong(FIELD, &shown, WANTED)),
    }
}

pub(super) fn read(table: Table) -> Result<Fault, ConfigError> {
    let raw: Raw = fields(table)?;
    let mut fault = refusal(&raw)?;
    match &raw.times {
        None => {}
        Some(Value::String(word)) if word == "forever" => fault = fault.forever(),
        Some(value) => {
            let times = value.as_integer().and_then(|times| u32::try_from(times).ok());
            fault =
                fault.times(times.ok_or_else(|| wrong("times", value, "a number or \"forever\""))?);
        }
    }
    if let Some(status) = raw.status {
        fault = fault.status(http_status("status", status)?);
    }
    for path in raw.without {
        fault = fault.and_without(path);
    }
    for (path, value) in raw.with {
        fault = fault.and_with(path, json(value));
    }
    if let Some(value) = raw.body {
        fault = fault.body(body(&value)?);
    }
    if let Some(content_type) = raw.content_type {
        fault = fault.content_type(content_type);
    }
    if let Some(value) = raw.retry_after {
        fault = fault.retry_after(retry_after(value)?);
    }
    if let Some(value) = raw.deliver {
        fault = fault.delivery(delivery(&value)?);
    }
    if raw.wrong_id {
        fault = fault.wrong_id();
    }
    if raw.twice {
        fault = fault.twice();
    }
    Ok(fault)
}

fn refusal(raw: &Raw) -> Result<Fault, ConfigError> {
    let mut fault = match (raw.refuse, raw.error_code) {
        (None, None) if raw.message.is_some() => {
            return Err(ConfigError::new("message", "it needs refuse or error-code beside it"));
        }
        (None, None) => return Ok(Fault::none()),
        (Some(status), _) => Fault::refuse(http_status("refuse", status)?),
        (None, Some(code)) => Fault::error(code, "Refused"),
    };
    if let Some(refusal) = &mut fault.refuse {
        refusal.error_code = raw.error_code.unwrap_or(refusal.error_code);
        if let Some(message) = &raw.message {
            refusal.message.clone_from(message);
        }
        if raw.refuse.is_none() && http_status("error-code", refusal.status).is_err() {
            let reason = "its HTTP status, a thousandth of it, must be between 200 and 999";
            let code = refusal.error_code.to_string();
            return Err(ConfigError::new("error-code", reason).value(code.chars()));
        }
    }
    Ok(fault)
}

fn http_status(field: &str, status: u16) -> Result<u16, ConfigError> {
    if (200..=999).contains(&status) {
        return Ok(status);
    }
    Err(ConfigError::new(field, "its HTTP status must be between 200 and 999")
        .value(status.to_string().chars()))
}

pub(super) fn retry_after(value: Value) -> Result<RetryAfter, ConfigError> {
    const WANTED: &str = "a number of seconds, a text, a list of texts or { date-in = SECONDS }";
    let seconds = |value: &Value| value.as_integer().and_then(|number| u64::try_from(number).ok());
    let read = match &value {
        Value::Integer(_) => seconds(&value).map(RetryAfter::Seconds),
        Value::String(text) => Some(RetryAfter::raw(text.clone())),
        Value::Array(values) => {
            let texts: Option<Vec<_>> =
                values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
            texts.map(RetryAfter::Raw)
        }
        Value::Table(table) if table.len() == 1 => {
            table.get("date-in").and_then(seconds).map(RetryAfter::DateIn)
        }
        _ => None,
    };
    read.ok_or_else(|| wrong("retry-after", &value, WANTED))
}

fn body(value: &Value) -> Result<Body, ConfigError> {
    const WANTED: &str = "\"empty\", \"garbage\", \"html\", { text = TEXT }, { cut = BYTES } or { oversized = BYTES }, \
                          67108864 at most";
    let fits = |bytes: &usize| *bytes <= Body::MAX_OVERSIZED;
    let read = match value {
        Value::String(word) => match word.as_str() {
            "empty" => Some(Body::Empty),
            "garbage" => Some(Body::Garbage),
            "html" => Some(Body::Html),
            _ => None,
        },
        Value::Table(table) if table.len() == 1 => {
            let text = table.get("text").and_then(Value::as_str);
            text.map(|text| Body::Text(text.to_owned()))
                .or_else(|| bytes(table.get("cut")).map(Body::Cut))
                .or_else(|| bytes(table.get("oversized")).filter(fits).map(Body::Oversized))
        }
        _ => None,
    };
    read.ok_or_else(|| wrong("body", value, WANTED))
}

fn delivery(value: &Value) -> Result<Delivery, ConfigError> {
    const WANTED: &str = "\"whole\", \"never\", \"close-before\", \"close-after\", { close-mid = BYTES } \
                          or { drip = BYTES, every-ms = MILLISECONDS }";
    let read = match value {
        Value::String(word) => match word.as_str() {
            "whole" => Some(Delivery::Whole),
            "never" => Some(Delivery::Never),
            "close-before" => Some(Delivery::CloseBefore),
            "close-after" => Some(Delivery::CloseAfter),
            _ => None,
        },
        Value::Table(table) if table.len() == 1 => {
            bytes(table.get("close-mid")).map(Delivery::CloseMid)
        }
        Value::Table(table) if table.len() == 2 => {
            bytes(table.get("drip")).zip(bytes(table.get("every-ms"))).map(|(bytes, millis)| {
                let millis = u64::try_from(millis).unwrap_or(u64::MAX);
                Delivery::Drip { bytes, every: Duration::from_millis(millis) }
            })
        }
        _ => None,
    };
    read.ok_or_else(|| wrong("deliver", value, WANTED))
}

fn bytes(value: Option<&Value>) -> Option<usize> {
    value?.as_integer().and_then(|count| usize::try_from(count).ok())
}
