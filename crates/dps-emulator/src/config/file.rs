//! The configuration file.

use std::path::Path;

use super::{Config, ConfigError};

pub(super) fn read(path: &Path, what: &str) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        ConfigError::new(what, &format!("it can't be read: {error}"))
            .value(path.display().to_string().chars())
    })
}

pub(super) fn parse(_: &str, _: &Path) -> Result<Config, ConfigError> {
    Ok(Config::new())
}
