//! The time of day.

use std::time::SystemTime;

use der::DateTime;

/// UTC to the second, as RFC 3339 has it: `2024-02-29T12:00:00Z`. `None` before 1970 and after 9999.
pub(crate) fn rfc3339(time: SystemTime) -> Option<String> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    DateTime::from_unix_duration(since).ok().map(|time| time.to_string())
}
