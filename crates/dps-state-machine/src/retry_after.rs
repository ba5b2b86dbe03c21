//! The one parser of retry-after, for every transport.

use core::time::Duration;
use std::time::SystemTime;

/// What the service's `retry-after` values mean, all of them taken together.
///
/// Whole seconds, or an HTTP date counted from `now` (a date in the past is zero). Absent, negative or junk is
/// `None`: the default interval applies. Too large to represent saturates. Of several values the largest holds, and
/// so it does of several that a proxy joined with commas.
/// See <https://www.rfc-editor.org/rfc/rfc9110#field.retry-after>.
pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>, now: SystemTime) -> Option<Duration> {
    values.into_iter().filter_map(|value| parse_joined(value, now)).max()
}

/// A date has a comma of its own: so first as one, then as several.
fn parse_joined(value: &str, now: SystemTime) -> Option<Duration> {
    let several = || value.split(',').filter_map(|one| parse_one(one.trim(), now)).max();
    parse_one(value.trim(), now).or_else(several)
}

fn parse_one(value: &str, now: SystemTime) -> Option<Duration> {
    let digits = value.strip_prefix('+').unwrap_or(value);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(digits.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading_for_all_that_services_send() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let secs = |n| Some(Duration::from_secs(n));
        let cases: &[(&[&str], Option<Duration>)] = &[
            (&[], None),
            (&["0"], secs(0)),
            (&["1"], secs(1)),
            (&[" 60 "], secs(60)),
            (&["600"], secs(600)),
            (&["+5"], secs(5)),
            (&["007"], secs(7)),
            (&["-1"], None),
            (&["1.5"], None),
            (&[""], None),
            (&["soon"], None),
            (&["5, 7"], secs(7)),
            (&["7,5"], secs(7)),
            (&["soon, 4,"], secs(4)),
            (&["-9, 0"], secs(0)),
            (&[", "], None),
            (&["Sun Nov  6 08:49:47 1994, 3"], secs(10)),
            (&["1, 2", "3"], secs(3)),
            (&["18446744073709551615"], secs(u64::MAX)),
            (&["99999999999999999999999"], secs(u64::MAX)),
            (&["3", "7"], secs(7)),
            (&["junk", "4"], secs(4)),
            (&["Sun, 06 Nov 1994 08:49:47 GMT"], secs(10)),
            (&["Sunday, 06-Nov-94 08:49:47 GMT"], secs(10)),
            (&["Sun Nov  6 08:49:47 1994"], secs(10)),
            (&["Sun, 06 Nov 1994 08:49:00 GMT"], secs(0)),
            (&["Sun, 06 Nov 1994 25:99:00 GMT"], None),
        ];
        for (values, expected) in cases {
            assert_eq!(parse(values.iter().copied(), now), *expected, "{values:?}");
        }
    }
}
