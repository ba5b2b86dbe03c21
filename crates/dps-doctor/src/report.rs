//! All findings, and what follows from them.

use std::fmt;

use crate::{
    check::Hop,
    finding::{Finding, Status},
};

/// What an examination found, in the order in which a registration meets it.
#[derive(Clone, Debug)]
pub struct Report {
    findings: Vec<Finding>,
    is_whole: bool,
}

/// Whether a registration gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing was found.
    Healthy,
    /// A registration gets through; something is odd.
    Warnings,
    /// A registration does not get through.
    Broken,
    /// Nothing was found and not all was looked at: it was stopped before, or every check that was asked for was skipped.
    Unknown,
}

impl Verdict {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Warnings => "warnings",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Report {
    pub(crate) fn new(findings: Vec<Finding>, is_whole: bool) -> Self {
        Self { findings, is_whole }
    }

    /// Whether it came to its end, and was not stopped.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// What came of each check that was asked for, and of those that stopped one of them.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Whether a registration gets through.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let has = |status| self.findings.iter().any(|finding| finding.status == status);
        match (has(Status::Failed), has(Status::Warning), has(Status::Ok)) {
            (true, ..) => Verdict::Broken,
            _ if !self.is_whole => Verdict::Unknown,
            (false, true, _) => Verdict::Warnings,
            (false, false, true) => Verdict::Healthy,
            (false, false, false) => Verdict::Unknown,
        }
    }

    /// What a registration would end with: the first check that failed.
    #[must_use]
    pub fn failure(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.status == Status::Failed)
    }

    /// Where the way to the hub ends; `None` when it does not, as far as it was looked at.
    #[must_use]
    pub fn ends_at(&self) -> Option<Hop> {
        self.failure().map(|finding| finding.check.hop())
    }

    /// The parts of the way that were looked at or could not be, each with the worst that was found on it. A part that has
    /// nothing to look at, like a proxy where none is set, is left out.
    #[must_use]
    pub fn path(&self) -> Vec<(Hop, Status)> {
        let hops = [Hop::Device, Hop::Proxy, Hop::Network, Hop::Tls, Hop::Service, Hop::Hub];
        let broken = self.ends_at();
        let worst = |hop: Hop| {
            let statuses = || {
                self.findings.iter().filter(|f| f.check.hop() == hop).map(|finding| finding.status)
            };
            let order = [Status::Failed, Status::Warning, Status::Ok, Status::Skipped];
            let worst = order.into_iter().find(|status| statuses().any(|one| one == *status))?;
            // What lies behind the end is part of the way all the same.
            let is_there = worst != Status::Skipped
                || broken.is_some_and(|end| hop > end && hop != Hop::Proxy);
            is_there.then_some((hop, worst))
        };
        hops.into_iter().filter_map(worst).collect()
    }
}
