//! A device's certificates in the order in which they are sent: its own first, each followed by its issuer.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use der::DateTime;
use dps_state_machine::{ConfigurationError, Error};
use rustls::pki_types::CertificateDer;

use crate::{certificate::Certificate, file::check_certificate};

/// How far a device's clock may be behind: new certificates meet clocks that were not set to the second.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// The most certificates that a chain may have, the device's own among them. Those of devices have two to four; peers
/// break off handshakes that bring many.
pub(crate) const MAX_CHAIN: usize = 10;

pub(crate) struct Chain {
    pub(crate) leaf: Certificate,
    /// What comes after the leaf, in the order given.
    pub(crate) issuers: Vec<Certificate>,
    /// All of them as DER.
    sent: Vec<Vec<u8>>,
}

impl Chain {
    /// Reads the certificates. One that stands there a second time is left out with a warning.
    pub(crate) fn parse(given: Vec<Vec<u8>>) -> Result<Self, Error> {
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let mut certificates: Vec<Certificate> = Vec::new();
        let mut repeated = 0;
        for (der, number) in given.into_iter().zip(1..) {
            let which = match number {
                1 => "it".to_owned(),
                _ => format!("number {number} of the chain"),
            };
            let certificate = check_certificate(&which, &der)?;
            if sent.contains(&der) {
                repeated += 1;
                continue;
            }
            if sent.len() == MAX_CHAIN {
                let reason = format!(
                    "it is number {number} of the chain, which may have {MAX_CHAIN}; leave only those between the device's and the one that the enrollment knows"
                );
                return Err(wrong(&certificate.subject.to_string(), &reason));
            }
            sent.push(der);
            certificates.push(certificate);
        }
        if repeated > 0 {
            tracing::warn!(repeated, "left certificates out that stand in the chain already");
        }
        let mut certificates = certificates.into_iter();
        let Some(leaf) = certificates.next() else {
            return Err(wrong("", "there is none; give the device's certificate"));
        };
        Ok(Self { leaf, issuers: certificates.collect(), sent })
    }

    /// Leaves out, with a warning, what comes after a gap in the chain and is no issuer of what comes before. A gap right
    /// behind a leaf that is not its own issuer is rather a certificate that is missing.
    pub(crate) fn leave_out_needless(&mut self) {
        let mut pairs = self.certificates().zip(&self.issuers);
        let gap = pairs.position(|(before, next)| !before.issuer.is(&next.subject));
        drop(pairs);
        let Some(gap) = gap else { return };
        let Some((issuers, rest)) = self.issuers.split_at_checked(gap) else { return };
        let chain = || std::iter::once(&self.leaf).chain(issuers);
        let is_needed = |other: &Certificate| chain().any(|one| one.issuer.is(&other.subject));
        let is_missing_one = gap == 0 && !self.leaf.is_self_signed();
        if is_missing_one || rest.iter().any(is_needed) {
            return;
        }
        for certificate in rest {
            let certificate = certificate.subject.to_string();
            tracing::warn!(certificate, "left a certificate out that no other one was issued by");
        }
        self.issuers.truncate(gap);
        self.sent.truncate(gap + 1);
    }

    /// All of them as TLS sends them.
    pub(crate) fn to_der(&self) -> Vec<CertificateDer<'static>> {
        self.sent.iter().cloned().map(CertificateDer::from).collect()
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.leaf).chain(&self.issuers)
    }

    /// Checks that each certificate is followed by its issuer.
    pub(crate) fn check_order(&self) -> Result<(), Error> {
        for (certificate, (next, number)) in
            self.certificates().zip(self.issuers.iter().zip(2usize..))
        {
            if certificate.issuer.is(&next.subject) {
                continue;
            }
            let Certificate { subject, issuer, .. } = certificate;
            let next = &next.subject;
            let elsewhere = if self.certificates().any(|other| issuer.is(&other.subject)) {
                "put them in order, the device's first, each followed by its issuer"
            } else {
                "add the certificate that is missing between them, or remove this one"
            };
            let reason = format!(
                "it is number {number} of the chain but not the issuer of the one before, {subject}, which was issued by {issuer}; {elsewhere}"
            );
            return Err(wrong(&next.to_string(), &reason));
        }
        Ok(())
    }

    /// Checks that no certificate is expired or not valid yet. The last issuer is let through: the service need not look
    /// at it, as at a root, or at a certificate that a new root has from an old one.
    pub(crate) fn check_dates(&self, now: SystemTime) -> Result<(), Error> {
        let judged = self.issuers.len().max(1);
        let mut certificates = self.certificates().take(judged);
        certificates.try_for_each(|certificate| match out_of_date(certificate, now) {
            // A clock is set, and a file is replaced.
            Some(reason) => {
                let subject = certificate.subject.to_string();
                Err(ConfigurationError::new("certificate", subject, &reason).for_now().into())
            }
            None => Ok(()),
        })
    }

    /// What is out of date at the end of the chain, though it is sent.
    pub(crate) fn doubtful_end(&self, now: SystemTime) -> Option<String> {
        let last = self.issuers.last()?;
        out_of_date(last, now)
            .map(|reason| format!("its last certificate, {}: {reason}", last.subject))
    }

    /// Whether the chain ends with a certificate whose issuer the other one had.
    pub(crate) fn lacks_issuer_of(&self, other: &Self) -> bool {
        self.certificates().last().is_some_and(|last| {
            let is_issuer = |next: &Certificate| last.issuer.is(&next.subject);
            !is_issuer(last) && other.issuers.iter().any(is_issuer)
        })
    }

    /// In a few words: `CN=pump-17, issued by CN=Factory CA (2 certificates sent)`.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.leaf.subject.to_string();
        for certificate in self.certificates() {
            if certificate.is_self_signed() {
                text.push_str(", self-signed");
            } else {
                // Writing to a String does not fail.
                let _ = write!(text, ", issued by {}", certificate.issuer);
            }
        }
        match self.issuers.len() + 1 {
            1 => text.push_str(" (1 certificate sent)"),
            count => {
                let _ = write!(text, " ({count} certificates sent)");
            }
        }
        text
    }
}

/// What is wrong with its dates, for a device's clock, and what to do.
pub(crate) fn out_of_date(certificate: &Certificate, now: SystemTime) -> Option<String> {
    let Certificate { not_before, not_after, .. } = certificate;
    // A clock before 1970 or past 9999 is as wrong at those bounds.
    let at = |time: SystemTime| match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => DateTime::from_unix_duration(since).unwrap_or(DateTime::INFINITY),
        Err(_) => DateTime::from_unix_duration(Duration::ZERO).unwrap_or(DateTime::INFINITY),
    };
    let now_latest = at(now.checked_add(CLOCK_TOLERANCE).unwrap_or(now));
    let now = at(now);
    if now_latest < *not_before {
        Some(format!(
            "it is not yet valid: it starts at {not_before}, and the device's clock says {now}; set the clock"
        ))
    } else if now > *not_after {
        Some(format!(
            "it expired at {not_after}, and the device's clock says {now}; renew it, or set the clock if that is wrong"
        ))
    } else {
        None
    }
}

fn wrong(value: &str, reason: &str) -> Error {
    ConfigurationError::new("certificate", value, reason).into()
}
