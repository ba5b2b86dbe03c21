//! A fault in the configuration file.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::{fields, in_plain_words, json};
use crate::{
    behavior::{Body, ConnectionFault, Delivery, Fault, RetryAfter, Times},
    config_error::ConfigError,
};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Raw {
    times: Option<Times>,
    refuse: Option<u16>,
    error_code: Option<u32>,
    message: Option<String>,
    status: Option<u16>,
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    with: Table,
    body: Option<Body>,
    content_type: Option<String>,
    retry_after: Option<RetryAfter>,
    #[serde(default)]
    deliver: RawDelivery,
    #[serde(default)]
    wrong_id: bool,
    #[serde(default)]
    twice: bool,
}

/// [`Delivery`] as the file has it; in events it has another form.
#[derive(Default, Deserialize)]
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
    let without = raw.without.into_iter().map(|path| (path, None));
    let with = raw.with.into_iter().map(|(path, value)| (path, Some(json(value))));
    Ok(Fault {
        times: raw.times.unwrap_or(refusal.times),
        status,
        edits: without.chain(with).collect::<Vec<(String, Option<Json>)>>(),
        body: raw.body,
        content_type: raw.content_type,
        retry_after: raw.retry_after,
        delivery: raw.deliver.into(),
        wrong_id: raw.wrong_id,
        twice: raw.twice,
        ..refusal
    })
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
