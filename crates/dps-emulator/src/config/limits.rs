//! What no peer may exceed.

use std::time::Duration;

use serde::Deserialize;

use super::file::seconds;
use crate::config_error::ConfigError;

/// The bounds that keep a hostile or forgotten peer from using the emulator up.
///
/// ```
/// let mut limits = dps_emulator::Limits::default();
/// limits.max_connections = 100;
/// let service = dps_emulator::Emulator::builder().limits(limits);
/// # assert!(service.check().is_ok());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub struct Limits {
    /// How many connections are open at once. When there are more, each that has shown no valid credential for a
    /// second (or a tenth of [`Limits::handshake_timeout`], if that is less) makes room for one that waits; when all
    /// have shown one, those that come are closed on arrival. An idle one takes 14 to 26 KiB. Default 16384.
    pub max_connections: usize,
    /// The time for the TLS handshake. Default 10 s.
    #[serde(deserialize_with = "seconds")]
    pub handshake_timeout: Duration,
    /// The time for a request to begin and for its head to arrive, and for which a peer may leave an answer
    /// unread. Default 60 s.
    #[serde(deserialize_with = "seconds")]
    pub idle_timeout: Duration,
    /// The time for a request's body to arrive. Default 30 s.
    #[serde(deserialize_with = "seconds")]
    pub body_timeout: Duration,
    /// The largest request head, in bytes. Default and least 8192.
    pub max_head_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 16 * 1024,
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            max_head_bytes: 8192,
        }
    }
}

impl Limits {
    /// Checks that each lets something through.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        const LONGEST: Duration = Duration::from_secs(365 * 86_400);
        if self.max_connections == 0 {
            let reason = "it must be more than 0, or nobody can connect";
            return Err(ConfigError::new("max-connections", reason).value("0".chars()));
        }
        let times = [
            ("handshake-timeout", self.handshake_timeout),
            ("idle-timeout", self.idle_timeout),
            ("body-timeout", self.body_timeout),
        ];
        match times.into_iter().find(|(_, time)| time.is_zero() || *time > LONGEST) {
            Some((field, time)) => {
                let reason = "it must be more than 0 seconds, and 31536000 (a year) at most";
                Err(ConfigError::new(field, reason).value(time.as_secs_f64().to_string().chars()))
            }
            None => Ok(()),
        }
    }
}
