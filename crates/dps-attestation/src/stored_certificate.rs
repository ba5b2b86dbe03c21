//! What a folder holds: a certificate with its chain and key, their dates, and when it is to be renewed.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use dps_state_machine::{ConfigurationError, Error, RegistrationId};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    certificate::Certificate,
    file::{check_certificate, parse_certificates},
    x509::X509Identity,
};

/// Of what is left of the life after two thirds, this part is where the devices of a fleet spread.
const SPREAD: f64 = 0.1;

/// A certificate chain with its key, as a [`CertificateFolder`](crate::CertificateFolder) holds it. The key is wiped
/// from memory when this is dropped, and never printed.
pub struct StoredCertificate {
    chain_pem: Vec<u8>,
    key_pem: Option<Zeroizing<Vec<u8>>>,
    /// The device's own, and its issuers.
    leaf: CertificateSummary,
    issuers: Vec<CertificateSummary>,
    digest: [u8; 32],
}

/// Who a certificate is for, by whom it was issued, and how long it is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateSummary {
    /// The common name behind `CN=`, or else all of the name.
    pub subject: String,
    /// The common name of the subject, which is the registration id in a device's certificate.
    pub common_name: Option<String>,
    /// As the subject: the name of who issued it.
    pub issuer: String,
    /// The moment from which on it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
}

impl StoredCertificate {
    pub(crate) fn parse(
        chain_pem: &[u8],
        key_pem: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Self, Error> {
        let mut chain = parse_certificates(chain_pem)?.into_iter();
        // Without a certificate this reads nothing, and the error says so.
        let leaf = chain.next().unwrap_or_default();
        let summary = |der: &[u8]| check_certificate("it", der).map(CertificateSummary::from);
        Ok(Self {
            chain_pem: chain_pem.to_vec(),
            key_pem,
            leaf: summary(&leaf)?,
            issuers: chain.map(|der| summary(&der)).collect::<Result<_, _>>()?,
            digest: Sha256::digest(&leaf).into(),
        })
    }

    /// The chain in PEM, the device's certificate first.
    #[must_use]
    pub fn chain_pem(&self) -> &[u8] {
        &self.chain_pem
    }

    /// The private key in PEM; `None` when it is elsewhere, as in a TPM.
    #[must_use]
    pub fn key_pem(&self) -> Option<&[u8]> {
        self.key_pem.as_ref().map(|key| &***key)
    }

    /// The device's own certificate.
    #[must_use]
    pub fn leaf(&self) -> &CertificateSummary {
        &self.leaf
    }

    /// Whether it was issued for this device: its common name is the registration id, without regard to case.
    #[must_use]
    pub fn is_of(&self, registration_id: &RegistrationId) -> bool {
        let name = self.leaf.common_name.as_deref();
        name.is_some_and(|name| name.eq_ignore_ascii_case(registration_id.as_str()))
    }

    /// The certificates behind the device's own, in order.
    #[must_use]
    pub fn issuers(&self) -> &[CertificateSummary] {
        &self.issuers
    }

    /// The certificate with its chain and key, ready for a connection.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the key is not stored here, and as [`X509Identity::from_pem`].
    pub fn identity(&self) -> Result<X509Identity, Error> {
        let Some(key) = &self.key_pem else {
            let reason = "it is not stored beside the certificate; say where it is";
            return Err(ConfigurationError::new("private key", "", reason).into());
        };
        X509Identity::from_pem(&self.chain_pem, key)
    }

    /// How much of its life the device's certificate has behind it: 0 at its beginning, 1 at its end, less before and
    /// more after.
    #[must_use]
    pub fn life_used(&self, now: SystemTime) -> f64 {
        let CertificateSummary { not_before, not_after, .. } = &self.leaf;
        let life = not_after.duration_since(*not_before).unwrap_or_default().as_secs_f64();
        let used = match now.duration_since(*not_before) {
            Ok(used) => used.as_secs_f64(),
            Err(ahead) => -ahead.duration().as_secs_f64(),
        };
        if life == 0.0 { 1.0 } else { used / life }
    }

    /// When it is to be renewed: at `fraction` of its life (from 0 to 1; what is outside counts as the nearer end).
    /// `None` stands for two thirds and a little more, up to a tenth of what is left then: how much more comes from the
    /// certificate, so that it stays the same for this one and differs within a fleet whose certificates were issued at
    /// one moment.
    #[must_use]
    pub fn renewal_due(&self, fraction: Option<f64>) -> SystemTime {
        let fraction = fraction.unwrap_or_else(|| {
            let two_thirds = 2.0 / 3.0;
            two_thirds + (1.0 - two_thirds) * SPREAD * self.lot()
        });
        let CertificateSummary { not_before, not_after, .. } = &self.leaf;
        let life = not_after.duration_since(*not_before).unwrap_or_default();
        // A fraction that is no number counts as 0.
        let fraction = if fraction > 0.0 { fraction.min(1.0) } else { 0.0 };
        not_before.checked_add(life.mul_f64(fraction)).unwrap_or(*not_after)
    }

    /// How long to wait until the next try to renew it, when one failed at the time `now`: a tenth of what is left of
    /// its life, at least a minute and at most six hours, but no less than `at_least`, as the service may have asked
    /// for; and up to half as much again. How much again comes from the certificate and the second.
    #[must_use]
    pub fn next_try_after(&self, now: SystemTime, at_least: Duration) -> Duration {
        const SHORTEST: Duration = Duration::from_secs(60);
        const LONGEST: Duration = Duration::from_secs(6 * 3600);
        let left = self.leaf.not_after.duration_since(now).unwrap_or_default();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut digest = Sha256::new();
        digest.update(self.digest);
        digest.update(second.to_be_bytes());
        let wait = (left / 10).clamp(SHORTEST, LONGEST).max(at_least);
        wait.saturating_add((wait / 2).mul_f64(lot(&digest.finalize())))
    }

    /// The certificate's own lot.
    fn lot(&self) -> f64 {
        lot(&self.digest)
    }
}

/// A number from 0 up to 1 that a digest gives.
fn lot(digest: &[u8]) -> f64 {
    let bytes = digest.iter().take(4);
    let number = bytes.fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    f64::from(number) / (f64::from(u32::MAX) + 1.0)
}

impl From<Certificate> for CertificateSummary {
    fn from(certificate: Certificate) -> Self {
        let Certificate { subject, issuer, not_before, not_after, .. } = certificate;
        let at = |date: der::DateTime| SystemTime::UNIX_EPOCH + date.unix_duration();
        Self {
            subject: subject.to_string(),
            common_name: subject.common_name().map(ToOwned::to_owned),
            issuer: issuer.to_string(),
            not_before: at(not_before),
            not_after: at(not_after),
        }
    }
}

impl fmt::Debug for StoredCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (leaf, count) = (&self.leaf.subject, self.issuers.len() + 1);
        let key = if self.key_pem.is_some() { "private key ***" } else { "no private key" };
        write!(f, "StoredCertificate({leaf}, {count} certificates, {key})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    const DAY: u64 = 86_400;

    /// Valid for 90 days from the first of January 2027 on.
    fn stored(common_name: &str) -> StoredCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = date_time_ymd(2027, 1, 1);
        params.not_after = date_time_ymd(2027, 4, 1);
        let key = KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        let key = Zeroizing::new(key.serialize_pem().into_bytes());
        StoredCertificate::parse(chain.as_bytes(), Some(key)).unwrap()
    }

    fn day(number: f64) -> SystemTime {
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(20_819 * DAY);
        begin + Duration::from_secs_f64(number * DAY as f64)
    }

    #[test]
    fn it_tells_names_dates_and_how_much_of_the_life_is_over() {
        let stored = stored("pump-17");
        let only = stored.leaf();
        assert_eq!(stored.issuers(), []);
        assert_eq!((&*only.subject, &*only.issuer), ("CN=pump-17", "CN=pump-17"));
        assert_eq!((only.not_before, only.not_after), (day(0.0), day(90.0)));
        assert_eq!(only.common_name.as_deref(), Some("pump-17"));
        assert_eq!(stored.identity().unwrap().common_name(), Some("pump-17"));
        for (at, used) in [(0.0, 0.0), (45.0, 0.5), (90.0, 1.0), (135.0, 1.5)] {
            assert_eq!(stored.life_used(day(at)), used, "day {at}");
        }
        assert_eq!(stored.life_used(day(0.0) - Duration::from_secs(9 * DAY)), -0.1);
        let shown = format!("{stored:?}");
        assert_eq!(shown, "StoredCertificate(CN=pump-17, 1 certificates, private key ***)");
    }

    #[test]
    fn it_is_due_at_a_given_fraction_exactly() {
        let stored = stored("pump-17");
        for (fraction, due) in
            [(0.0, 0.0), (0.5, 45.0), (1.0, 90.0), (7.0, 90.0), (-1.0, 0.0), (f64::NAN, 0.0)]
        {
            assert_eq!(stored.renewal_due(Some(fraction)), day(due), "{fraction}");
        }
    }

    #[test]
    fn a_fleet_spreads_between_60_and_63_of_90_days() {
        let fleet: Vec<_> = (0..64).map(|number| stored(&format!("pump-{number}"))).collect();
        let mut due: Vec<_> = fleet.iter().map(|one| one.renewal_due(None)).collect();
        let again: Vec<_> = fleet.iter().map(|one| one.renewal_due(None)).collect();
        assert_eq!(due, again, "the same for the same certificate");
        due.sort();
        assert!(due.iter().all(|due| (day(60.0)..day(63.0)).contains(due)), "{due:?}");
        let halves = [0..32, 32..64].map(|half| due[half].to_vec());
        assert!(halves[0][16] < halves[1][16], "{due:?}");
        due.dedup();
        assert!(due.len() > 60, "{} moments", due.len());
    }

    #[test]
    fn after_a_failure_the_next_try_waits_a_tenth_of_what_is_left_within_bounds() {
        let stored = stored("pump-17");
        let minutes =
            |from: u64, to: u64| Duration::from_secs(from * 60)..=Duration::from_secs(to * 60);
        for (at, within) in [
            (60.0, minutes(6 * 60, 9 * 60)),
            (89.0, minutes(144, 216)),
            (89.999, minutes(1, 2)),
            (91.0, minutes(1, 2)),
        ] {
            let wait = stored.next_try_after(day(at), Duration::ZERO);
            assert!(within.contains(&wait), "day {at}: {wait:?}");
            let wait = stored.next_try_after(day(at), Duration::from_secs(8 * 3600));
            assert!(minutes(8 * 60, 12 * 60).contains(&wait), "day {at}: {wait:?}");
            assert!(stored.next_try_after(day(at), Duration::MAX) == Duration::MAX);
        }
    }
}
