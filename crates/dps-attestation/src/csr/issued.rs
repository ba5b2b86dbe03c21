//! What came for a request, checked.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dps_state_machine::{Error, RegistrationId};
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    sign::SigningKey,
};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{
    chain::{Chain, out_of_date},
    csr::{path, signed::Signed},
    pem,
    x509::X509Identity,
};

/// The certificates that the service issued for a [`RequestKey`](crate::RequestKey), checked and in order: the device's
/// own first, each followed by its issuer.
#[derive(Clone)]
pub struct IssuedChain {
    certificates: Vec<Vec<u8>>,
    not_before: SystemTime,
    not_after: SystemTime,
    identity: X509Identity,
}

impl IssuedChain {
    pub(super) fn verify(
        given: &[Vec<u8>],
        key: &Arc<dyn SigningKey>,
        public_key_info: &[u8],
        registration_id: &RegistrationId,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let all = path::read(given)?;
        let (leaf, issuers) = path::find(&all, public_key_info, now)?;
        let path = || std::iter::once(leaf).chain(issuers.iter().copied());
        check_name(leaf, registration_id.as_str())?;
        for one in path() {
            if let Some(reason) = out_of_date(&one.certificate, now) {
                return Err(one.wrong(&reason));
            }
        }
        check_authorities(leaf, &issuers)?;
        check_rest(leaf, &issuers, now).map_err(|error| {
            let why = match error {
                // The names were held against each other before, but not to the byte.
                webpki::Error::UnknownIssuer => {
                    "an issuer's name is spelled otherwise in the issuer's own certificate".into()
                }
                other => format!("{other:?}"),
            };
            leaf.wrong(&format!("its chain is not taken: {why}; {LOOK}"))
        })?;

        let certificates: Vec<Vec<u8>> = path().map(|one| one.der.clone()).collect();
        let mut sent = certificates.clone();
        if issuers.last().is_some_and(|last| last.certificate.is_self_signed()) {
            sent.pop();
        }
        Ok(Self {
            certificates,
            not_before: SystemTime::UNIX_EPOCH + leaf.certificate.not_before.unix_duration(),
            not_after: SystemTime::UNIX_EPOCH + leaf.certificate.not_after.unix_duration(),
            identity: X509Identity::new(Chain::parse(sent)?, Arc::clone(key))?,
        })
    }

    /// The certificates in DER, the device's own first, with the root if it came.
    pub fn certificates(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.certificates.iter().map(Vec::as_slice)
    }

    /// All of them in PEM, in this order, as [`X509Files`](crate::X509Files) and
    /// [`X509Identity::from_pem`] take them.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.certificates
            .iter()
            .map(|der| pem::write("CERTIFICATE", der).as_str().to_owned())
            .collect()
    }

    /// When the device's own certificate begins to be valid.
    #[must_use]
    pub const fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When the device's own certificate expires.
    #[must_use]
    pub const fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// What the device shows from now on, with the key that the certificate was requested for. A root is left out:
    /// whoever is shown the chain trusts its own copy of it or not at all.
    #[must_use]
    pub fn identity(&self) -> X509Identity {
        self.identity.clone()
    }
}

impl fmt::Debug for IssuedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedChain({})", self.identity.describe_chain())
    }
}

/// What to do about an authority.
pub(super) const LOOK: &str = "have the authority of the enrollment's policy looked at";

fn check_name(leaf: &Signed, registration_id: &str) -> Result<(), Error> {
    let subject = &leaf.certificate.subject;
    let count = subject.common_names().count();
    let fault = subject.common_name_fault(registration_id);
    let several = || {
        format!(
            "it has {count} common names; it must have one, the registration id, {registration_id:?}"
        )
    };
    match fault.or_else(|| (count > 1).then(several)) {
        Some(fault) => Err(leaf.wrong(&format!("{fault}; correct the enrollment's policy"))),
        None => Ok(()),
    }
}

/// What webpki leaves to others: the usage of issuers' keys, and all of the last one, which it takes as trusted.
fn check_authorities(leaf: &Signed, issuers: &[&Signed]) -> Result<(), Error> {
    if leaf.is_authority() {
        return Err(leaf.wrong(&format!("it is an authority's, and a device must be none; {LOOK}")));
    }
    let mut between = 0;
    for issuer in issuers {
        if let Some(reason) = issuer.why_not_issuer(between) {
            return Err(issuer.wrong(&format!("{reason}; {LOOK}")));
        }
        // An authority that has certified a new key of its own is no further one (RFC 5280, section 4.2.1.9).
        between += usize::from(!issuer.certificate.is_self_signed());
    }
    Ok(())
}

/// The rest of path validation (RFC 5280, section 6): name constraints, critical extensions, the purpose of the key.
fn check_rest(leaf: &Signed, issuers: &[&Signed], now: SystemTime) -> Result<(), webpki::Error> {
    let der = |one: &Signed| CertificateDer::from(one.der.clone());
    let leaf_der = der(leaf);
    let entity = EndEntityCert::try_from(&leaf_der)?;
    let Some((last, between)) = issuers.split_last() else { return Ok(()) };
    let last_der = der(last);
    let between_der: Vec<_> = between.iter().map(|one| der(one)).collect();
    // The dates were checked already, with some tolerance for the clock: it is put to where all have begun.
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let starts =
        issuers.iter().chain([&leaf]).map(|one| one.certificate.not_before.unix_duration());
    let now = UnixTime::since_unix_epoch(starts.fold(now, Ord::max));
    let anchor = [anchor_from_trusted_cert(&last_der)?];
    let usage = KeyUsage::client_auth();
    entity
        .verify_for_usage(ALL_VERIFICATION_ALGS, &anchor, &between_der, now, usage, None, None)
        .map(drop)
}
