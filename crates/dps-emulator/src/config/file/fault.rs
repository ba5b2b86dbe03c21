//! A fault in the configuration file.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use toml::{Table, Value};

use super::{fields, in_plain_words, json, toml_value};
use crate::{
    behavior::{Body, ConnectionFault, Delivery, Fault, RetryAfter, Times},
    config_error::ConfigError,
};

#[derive(Default, Deserialize, Serialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
struct Raw {
    times: Option<Times>,
    refuse: Option<u16>,
    error_code: Option<u32>,
    message: Option<String>,
    status: Option<u16>,
    without: Option<Vec<String>>,
    with: Option<Table>,
    with_json: Option<String>,
    body: Option<Body>,
    content_type: Option<String>,
    retry_after: Option<RetryAfter>,
    deliver: Option<RawDelivery>,
    wrong_id: Option<bool>,
    twice: Option<bool>,
}

/// [`Delivery`] as the file has it; in events it has another form.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
enum RawDelivery {
    #[default]
    Whole,
    Never,
    CloseBefore,
    CloseMid(usize),
    CloseAfter,
    #[serde(untagged)]
    Drip {
        drip: usize,
        every_ms: u64,
    },
}

impl From<RawDelivery> for Delivery {
    fn from(raw: RawDelivery) -> Self {
        match raw {
            RawDelivery::Whole => Self::Whole,
            RawDelivery::Never => Self::Never,
            RawDelivery::CloseBefore => Self::CloseBefore,
            RawDelivery::CloseMid(bytes) => Self::CloseMid(bytes),
            RawDelivery::CloseAfter => Self::CloseAfter,
            RawDelivery::Drip { drip, every_ms } => {
                Self::Drip { bytes: drip, every: Duration::from_millis(every_ms) }
            }
        }
    }
}

impl From<Delivery> for RawDelivery {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Whole => Self::Whole,
            Delivery::Never => Self::Never,
            Delivery::CloseBefore => Self::CloseBefore,
            Delivery::CloseMid(bytes) => Self::CloseMid(bytes),
            Delivery::CloseAfter => Self::CloseAfter,
            Delivery::Drip { bytes, every } => Self::Drip {
                drip: bytes,
                every_ms: u64::try_from(every.as_millis()).unwrap_or(u64::MAX),
            },
        }
    }
}

/// What goes wrong with one connection: a word, or something of one transport's own.
pub(super) fn connection(value: Value) -> Result<ConnectionFault, ConfigError> {
    let shown = json(value.clone()).to_string();
    value.try_into().map_err(|error: toml::de::Error| {
        let words = in_plain_words(error.message());
        ConfigError::new("connections", &words).value(shown.chars())
    })
}

pub(super) fn read(table: Table) -> Result<Fault, ConfigError> {
    let raw: Raw = fields(table)?;
    let refusal = refusal(&raw)?;
    let status = raw.status.map(|status| http_status("status", status)).transpose()?;
    let with_json = raw.with_json.map(|text| object("with-json", &text)).transpose()?;
    let without = raw.without.into_iter().flatten().map(|path| (path, None));
    let with = raw.with.into_iter().flatten().map(|(path, value)| (path, Some(json(value))));
    let with_json = with_json.into_iter().flatten().map(|(path, value)| (path, Some(value)));
    Ok(Fault {
        times: raw.times.unwrap_or(refusal.times),
        status,
        edits: without.chain(with).chain(with_json).collect::<Vec<(String, Option<Json>)>>(),
        body: raw.body,
        content_type: raw.content_type,
        retry_after: raw.retry_after,
        delivery: raw.deliver.unwrap_or_default().into(),
        wrong_id: raw.wrong_id.unwrap_or_default(),
        twice: raw.twice.unwrap_or_default(),
        ..refusal
    })
}

fn object(field: &str, text: &str) -> Result<serde_json::Map<String, Json>, ConfigError> {
    serde_json::from_str(text).map_err(|error| {
        let reason = format!("it must be a JSON object as text: {error}");
        ConfigError::new(field, &reason)
    })
}

/// The table that [`read`] makes the same fault of.
pub(super) fn write(fault: &Fault) -> Table {
    let mut raw = Raw {
        times: (fault.times != Times::Count(1)).then_some(fault.times),
        refuse: fault.refuse.as_ref().map(|refusal| refusal.status),
        error_code: fault.refuse.as_ref().map(|refusal| refusal.error_code),
        message: fault.refuse.as_ref().map(|refusal| refusal.message.clone()),
        status: fault.status,
        body: fault.body.clone(),
        content_type: fault.content_type.clone(),
        retry_after: fault.retry_after.as_ref().and_then(retry_after),
        deliver: (fault.delivery != Delivery::Whole).then(|| fault.delivery.into()),
        wrong_id: fault.wrong_id.then_some(true),
        twice: fault.twice.then_some(true),
        ..Raw::default()
    };
    let mut with_json = serde_json::Map::new();
    for (path, value) in &fault.edits {
        match value.as_ref().map(|value| (value, toml_value(path, value))) {
            None => raw.without.get_or_insert_default().push(path.clone()),
            Some((_, Ok(value))) => {
                raw.with.get_or_insert_default().insert(path.clone(), value);
            }
            Some((value, Err(_))) => {
                with_json.insert(path.clone(), value.clone());
            }
        }
    }
    raw.with_json = (!with_json.is_empty()).then(|| Json::from(with_json).to_string());
    // Texts, numbers and tables: there is nothing that can fail to serialize.
    Table::try_from(raw).unwrap_or_default()
}

/// As the file has it, with the numbers that TOML has.
pub(super) fn retry_after(retry_after: &RetryAfter) -> Option<RetryAfter> {
    match retry_after {
        RetryAfter::Absent => None,
        RetryAfter::Seconds(seconds) if i64::try_from(*seconds).is_err() => {
            Some(RetryAfter::raw(seconds.to_string()))
        }
        other => Some(other.clone()),
    }
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

/// Every key that a fault may have.
#[cfg(test)]
pub(super) fn every_key() -> Vec<String> {
    super::keys_of(Raw::default())
}
