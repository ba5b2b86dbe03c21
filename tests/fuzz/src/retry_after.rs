//! The parser of retry-after: any values at any time.

use std::time::{Duration, SystemTime};

use dps_state_machine::retry_after::parse;

use crate::input::{parts, text};

/// Parts: the time in seconds since 1970, then the values.
pub fn run(data: &[u8]) {
    let mut parts = parts(data);
    let seconds: u32 = text(parts.next().unwrap_or_default()).trim().parse().unwrap_or(0);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
    let values: Vec<_> = parts.map(text).collect();
    let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();

    let all = parse(values.iter().copied(), now);
    let each: Vec<_> = values.iter().map(|value| parse([*value], now)).collect();
    assert_eq!(all, each.iter().copied().flatten().max(), "the largest of them holds");
    let later = parse(values.iter().copied(), now + Duration::from_secs(1));
    assert_eq!(all.is_some(), later.is_some(), "time changes no junk into a value");
    assert!(later <= all, "the wait for a date does not grow");

    for (value, wait) in values.iter().zip(each) {
        let joined = value.split(',').filter_map(|one| parse([one], now)).max();
        let value = value.trim();
        if value.contains(',') && joined.is_some() {
            assert!(wait.is_some(), "{value:?} has a value");
            continue;
        }
        let digits = value.strip_prefix('+').unwrap_or(value);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            let seconds = digits.parse().unwrap_or(u64::MAX);
            assert_eq!(wait, Some(Duration::from_secs(seconds)), "{value:?}");
        } else if wait.is_some() {
            assert!(value.ends_with("GMT") || value.contains(':'), "{value:?} is no date");
        }
        assert!(!(value.starts_with('-') && wait.is_some()), "{value:?} is negative");
    }
}
