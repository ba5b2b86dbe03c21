//! The bounds of a registration.

use core::time::Duration;

/// How long to wait for what. Every value has a default that suits the real service; assign those that are to differ.
///
/// ```
/// # use std::time::Duration;
/// use dps_client::Settings;
/// let mut settings = Settings::default();
/// settings.registration_timeout = Duration::from_secs(120);
/// ```
///
/// All times are real time, and 0 is a time like any other: a bound of 0 is over at once. [`Duration::MAX`] never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Settings {
    /// The time for one request, the connection it may need included. Default 30 s.
    pub request_timeout: Duration,
    /// The time for the whole registration. Default 60 s.
    pub registration_timeout: Duration,
    /// The wait between polls when the service names none, and the first back-off. Default 2 s.
    pub poll_interval: Duration,
    /// The shortest wait between two requests, whatever the service says. Default 2 s: the service allows five
    /// polls in ten seconds and throttles faster ones. Lower it only against a test server.
    pub poll_floor: Duration,
    /// The longest back-off when the service throttles without naming a time. Default 30 s.
    pub max_backoff: Duration,
    /// The time for ending the session. Default 500 ms.
    pub end_session_timeout: Duration,
    /// How much is added at most, in percent and at random, to a wait after the service throttled or failed (429, 5xx,
    /// error code 409203), so that a fleet that it turned away at once does not come back at once. Any other wait is as
    /// long as was asked for. Default and maximum 20; 0 adds nothing.
    pub jitter_percent: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            registration_timeout: Duration::from_secs(60),
            poll_interval: Duration::from_secs(2),
            poll_floor: Duration::from_secs(2),
            max_backoff: Duration::from_secs(30),
            end_session_timeout: Duration::from_millis(500),
            jitter_percent: 20,
        }
    }
}
