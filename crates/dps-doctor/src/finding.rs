//! What came of the checks.

use std::{fmt, time::Duration};

use dps_client::{Error, ErrorKind, Printable, internal::masked};
use tokio::time::Instant;

use crate::{
    check::{CHECKS, Check, Selection},
    subject::{Limits, Subject, in_words},
};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Nothing is wrong.
    Ok,
    /// Something is odd that does not stop a registration, or stops another transport than the chosen one.
    Warning,
    /// A registration ends here.
    Failed,
    /// It was not looked at: something else failed before, or there is nothing to look at.
    Skipped,
}

impl Status {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of one check. No secret is in it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// The check.
    pub check: &'static Check,
    /// How it ended.
    pub status: Status,
    /// What was seen; for a check that was skipped, why.
    pub seen: String,
    /// What to do next, with the flag of the command `dps` where one does it.
    pub advice: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
    /// For one that failed: the kind of error that a registration would end with.
    pub kind: Option<ErrorKind>,
    /// For one that failed: whether the same registration can succeed later.
    pub is_retryable: bool,
}

/// How an examination ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Whole,
    OutOfTime,
    Stopped,
}

/// The findings while they are made.
pub(crate) struct Chart<'a> {
    selection: &'a Selection,
    limits: Limits,
    /// Where any transport would do, one that is silent is given up, and the registration has no timeout.
    any_transport: bool,
    findings: Vec<Finding>,
    since: Instant,
    /// How long the next finding took, if that is not the time since the one before.
    took: Option<Duration>,
}

impl<'a> Chart<'a> {
    pub(crate) fn new(selection: &'a Selection, subject: &Subject) -> Self {
        Self {
            selection,
            limits: subject.limits,
            any_transport: subject.any_transport,
            findings: Vec::new(),
            since: Instant::now(),
            took: None,
        }
    }

    pub(crate) fn ok(&mut self, check: &'static Check, seen: impl fmt::Display) {
        self.note(check, Status::Ok, &seen, None, None);
    }

    pub(crate) fn warn(&mut self, check: &'static Check, seen: impl fmt::Display, advice: &str) {
        self.note(check, Status::Warning, &seen, Some(advice), None);
    }

    pub(crate) fn skip(&mut self, check: &'static Check, reason: &str) {
        self.note(check, Status::Skipped, &reason, None, None);
    }

    pub(crate) fn fail(
        &mut self,
        check: &'static Check,
        kind: ErrorKind,
        seen: impl fmt::Display,
        advice: &str,
    ) {
        self.note(check, Status::Failed, &seen, Some(advice), Some((kind, false)));
    }

    /// Fails because nothing came within the time for a step.
    pub(crate) fn silent(&mut self, check: &'static Check, what: impl fmt::Display, advice: &str) {
        let seen = format!("no {what} within {}", in_words(self.limits.step));
        let kind = if self.any_transport { ErrorKind::Connection } else { ErrorKind::Timeout };
        self.note(check, Status::Failed, &seen, Some(advice), Some((kind, true)));
    }

    /// Fails with an error's words. Its hint is the advice, and then what is given here.
    pub(crate) fn fail_by(&mut self, check: &'static Check, error: &Error, advice: Option<&str>) {
        let advice = match (error.hint(), advice) {
            (Some(hint), Some(more)) => Some(format!("{hint}; {more}")),
            (hint, more) => hint.or(more.map(str::to_owned)),
        };
        // A peer that is silent is a timeout for a registration, which has a longer time for it.
        let elapsed = self.took.unwrap_or_else(|| self.since.elapsed());
        let is_silent = matches!(error, Error::Connection(_)) && elapsed >= self.limits.step;
        let is_silent = is_silent && !self.any_transport;
        let kind = if is_silent { ErrorKind::Timeout } else { error.kind() };
        let kind = Some((kind, error.is_retryable()));
        self.note(check, Status::Failed, error, advice.as_deref(), kind);
    }

    /// Fails by a refusal for now.
    pub(crate) fn fail_later(&mut self, check: &'static Check, seen: &str, advice: &str) {
        self.note(check, Status::Failed, &seen, Some(advice), Some((ErrorKind::Rejected, true)));
    }

    /// How long the next finding took, for what was looked at beside others.
    pub(crate) fn took(&mut self, elapsed: Duration) -> &mut Self {
        self.took = Some(elapsed);
        self
    }

    fn note(
        &mut self,
        check: &'static Check,
        status: Status,
        seen: &dyn fmt::Display,
        advice: Option<&str>,
        kind: Option<(ErrorKind, bool)>,
    ) {
        // A peer may have written it, and a secret may have been given in the wrong place.
        let plain = |text: &str| Printable::whole(masked(text).as_ref()).to_string();
        let elapsed = self.took.take().unwrap_or_else(|| self.since.elapsed());
        self.since = Instant::now();
        self.findings.push(Finding {
            check,
            status,
            seen: plain(&seen.to_string()),
            advice: advice.map(plain),
            elapsed,
            kind: kind.map(|(kind, _)| kind),
            is_retryable: kind.is_some_and(|(_, is_retryable)| is_retryable),
        });
    }

    /// In the order of the table. What was not come to was stopped by the first check before it that failed; out of time,
    /// that is the first of these.
    pub(crate) fn finish(mut self, end: End) -> Vec<Finding> {
        let mut is_waited_for = CHECKS.iter().copied().filter(|check| {
            self.selection.has(check) && self.findings.iter().all(|finding| finding.check != *check)
        });
        if let Some(check) = is_waited_for.next().filter(|_| end == End::OutOfTime) {
            let seen = format!("all checks have {}, and that is over", in_words(self.limits.total));
            self.fail(check, ErrorKind::Timeout, seen, "--timeout SECONDS allows more");
        }
        let mut stopped_by: Option<&'static Check> = None;
        let mut all = Vec::new();
        for check in CHECKS.iter().copied() {
            let found = self.findings.iter().position(|finding| finding.check == check);
            let finding = match found {
                Some(place) => self.findings.swap_remove(place),
                None => Finding {
                    check,
                    status: Status::Skipped,
                    seen: match stopped_by {
                        Some(stopped_by) => format!("{} failed", stopped_by.id),
                        None if end == End::Stopped => "it was not come to".to_owned(),
                        None => "there is nothing to look at".to_owned(),
                    },
                    advice: None,
                    elapsed: Duration::ZERO,
                    kind: None,
                    is_retryable: false,
                },
            };
            if finding.status == Status::Failed {
                stopped_by = stopped_by.or(Some(check));
            }
            // What was not asked for counts where it stops what was.
            if self.selection.has(check) || finding.status == Status::Failed {
                all.push(finding);
            }
        }
        all
    }
}
