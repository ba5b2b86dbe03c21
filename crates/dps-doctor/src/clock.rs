//! This machine's clock, before anybody is asked for the time.

use std::time::{Duration, SystemTime};

use dps_client::ErrorKind;

use crate::{
    check::{RELEASE, YEAR},
    finding::Chart,
    subject::Subject,
};

/// When this program was written, in seconds since 1970: 1 November 2026. No clock that is right says an earlier time.
const WRITTEN: u64 = 1_793_491_200;

const SET: &str = "set the clock: certificates and tokens hold only by the right time";

pub(crate) fn examine(subject: &Subject, chart: &mut Chart<'_>) {
    let now = (subject.clock)();
    let Ok(since) = now.duration_since(SystemTime::UNIX_EPOCH) else {
        return chart.fail(
            &YEAR,
            ErrorKind::Configuration,
            "it is before 1970 by this machine's clock",
            SET,
        );
    };
    chart.ok(&YEAR, date(now));
    if since < Duration::from_secs(WRITTEN) {
        let seen =
            format!("{} by this machine's clock, and this program was written later", date(now));
        return chart.fail(&RELEASE, ErrorKind::Configuration, seen, SET);
    }
    chart.ok(&RELEASE, date(now));
}

/// As HTTP writes dates.
pub(crate) fn date(time: SystemTime) -> String {
    httpdate::fmt_http_date(time.max(SystemTime::UNIX_EPOCH))
}

/// How far two times are apart, roughly.
pub(crate) fn apart(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}
