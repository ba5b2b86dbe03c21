//! `/clock`: the service's clock, which devices meet in tokens, certificates and times.

use serde_json::{Number, Value, json};

use super::{
    Admin, Call,
    answer::{self, Answer, Problem},
};
use crate::core::clock::{self, ClockSetting};

pub(super) fn get(admin: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    let reading = admin.shared.core.clock().read();
    Ok(answer::json(&json!({
        "now": clock::rfc3339(reading.now),
        "ahead": number(reading.ahead),
        "frozen": reading.frozen,
    })))
}

/// One of `ahead`, `at` and `advance`, and whether it stands still.
pub(super) fn put(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let body = call.object()?;
    let mut settings = Vec::new();
    for (field, value) in &body {
        let wrong = |message| Problem::bad(field, &value.to_string(), message);
        let seconds = || value.as_f64().ok_or_else(|| wrong("give a number of seconds"));
        let setting = match field.as_str() {
            "ahead" => ClockSetting::Ahead(seconds()?),
            "advance" => ClockSetting::Advance(seconds()?),
            "at" => {
                let time = value.as_str().and_then(clock::read_rfc3339);
                let message =
                    "give a time from 1970 on, as RFC 3339 has it, like 2030-01-31T12:00:00Z";
                ClockSetting::At(time.ok_or_else(|| wrong(message))?)
            }
            "frozen" => {
                ClockSetting::Frozen(value.as_bool().ok_or_else(|| wrong("give true or false"))?)
            }
            _ => return Err(wrong("it is not known here; ahead, at, advance and frozen are")),
        };
        settings.push((field.as_str(), setting));
    }
    let moved = settings.iter().filter(|(_, s)| !matches!(s, ClockSetting::Frozen(_)));
    if settings.is_empty() || moved.count() > 1 {
        let message = "give one of ahead, at and advance, or frozen, or one of them with frozen";
        return Err(Problem::bad("body", "", message));
    }
    // A clock that goes on, goes on from what it was set to.
    settings.sort_by_key(|(_, setting)| matches!(setting, ClockSetting::Frozen(_)));
    admin.shared.core.clock().set_each(&settings)?;
    get(admin, call)
}

/// Whole seconds without a fraction.
fn number(seconds: f64) -> Value {
    let text = seconds.to_string();
    text.parse::<Number>().map_or(Value::Null, Value::Number)
}
