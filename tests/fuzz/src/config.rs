//! The emulator's configuration file.

use std::sync::LazyLock;

use dps_emulator::Config;
use toml::{Table, Value};

use crate::input::{Secret, text};

/// Stands in the file wherever the input has the byte 0xFE.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::new(KEY.as_bytes(), 12));

/// The whole input is the file.
pub fn run(data: &[u8]) {
    // The engine learns our key, and writes it to where nobody hides it. And it must not read the disk.
    if SECRET.is_in(data) || data.windows(5).any(|part| part == b"-file") || data.contains(&b'\\') {
        return;
    }
    let pieces: Vec<_> = data.split(|byte| *byte == 0xFE).map(text).collect();
    let file = pieces.join(KEY);
    let Err(error) = Config::from_toml(&file) else { return };
    let shown = format!("{error} {error:?}");
    assert!(!error.to_string().is_empty());
    // A file that is no TOML hides all that could be a key. In one that is, a key stands where it belongs.
    if file.parse::<Table>().is_err() || file.parse().is_ok_and(|table| !is_misplaced(&table)) {
        SECRET.assert_not_in(&shown);
    }
}

fn is_misplaced(table: &Table) -> bool {
    table.iter().any(|(name, value)| {
        let is_key = matches!(name.as_str(), "symmetric-key" | "secondary-key");
        SECRET.is_in(name.as_bytes()) || !(is_key && value.is_str()) && is_in_value(value)
    })
}

fn is_in_value(value: &Value) -> bool {
    match value {
        Value::String(text) => SECRET.is_in(text.as_bytes()),
        Value::Array(values) => values.iter().any(is_in_value),
        Value::Table(table) => is_misplaced(table),
        _ => false,
    }
}
