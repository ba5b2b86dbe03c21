//! X.509 identities: a certificate, its chain and its private key.

use std::{
    fmt::{self, Write},
    sync::Arc,
    time::{Duration, SystemTime},
};

use der::DateTime;
use dps_state_machine::{ConfigurationError, Error, RegistrationId};
use rustls::{
    SignatureAlgorithm,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::{CertifiedKey, SigningKey},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    certificate::{Certificate, public_key_bits},
    file,
    outside_key::OutsideKey,
    private_key::{PrivateKey, TAKEN},
    shape::whole,
};

/// How far a device's clock may be behind: new certificates meet clocks that were not set to the second.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);

/// The most certificates that a chain may have, the device's own among them. Those of devices have two to four; peers
/// break off handshakes that bring many.
const MAX_CHAIN: usize = 10;

/// What a device shows in the TLS handshake: its certificate, the chain up to what the enrollment knows, and the
/// private key. Cheap to clone; the key is wiped from memory with the last clone and never printed.
///
/// The service takes RSA keys of 2048 to 4096 bits and elliptic-curve keys on P-256 and P-384. An enrollment group
/// needs every certificate between the device's and the one that is uploaded there: send them all. A certificate
/// without a chain is taken; the service then refuses it unless it knows it or its issuer.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-x509-attestation>.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use dps_attestation::X509Identity;
/// let identity = X509Identity::from_pem(&std::fs::read("chain.pem")?, &std::fs::read("key.pem")?)?;
/// identity.preflight(&"pump-17".parse()?, std::time::SystemTime::now())?;
/// println!("{}", identity.describe_chain());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct X509Identity(Arc<Inner>);

struct Inner {
    certified_key: Arc<CertifiedKey>,
    /// `None` when it is outside of the process.
    key: Option<Zeroizing<PrivateKeyDer<'static>>>,
    leaf: Certificate,
    /// What comes after the leaf, in the order given.
    issuers: Vec<Certificate>,
}

impl X509Identity {
    /// Takes the contents of two files: the certificates, the device's own first, each followed by its issuer;
    /// and the private key, as PKCS#8, PKCS#1 or SEC1. Both may be in one file: give it twice. In PEM text other
    /// blocks and what stands around them are skipped; DER is taken too, a single certificate then.
    ///
    /// # Errors
    /// [`Error::Configuration`] when there is no certificate or not one key, when a certificate stands twice in the
    /// chain or more than ten are in it, when the key is encrypted, of a kind that can't be used or not the first
    /// certificate's.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = file::parse_certificates(certificates)?;
        Self::with_key(chain, PrivateKey::parse(&file::private_key(key)?)?)
    }

    /// Takes the certificates, the device's own first, and the private key, each as DER. The key's format is told
    /// by its content.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem).
    pub fn from_der(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, Error> {
        Self::with_key(chain, PrivateKey::parse(&Zeroizing::new(key))?)
    }

    /// Takes the certificates as DER, the device's own first, and a private key that need not be in this process: it may
    /// be in a TPM, a token or an HSM. [`parse_certificates`](crate::parse_certificates) reads a file's certificates.
    ///
    /// The key signs in each TLS handshake, on the thread of the runtime that makes the connection: the time-outs of the
    /// connection and of the request can't break in meanwhile. That is fine for a TPM, which takes some milliseconds;
    /// what may take longer belongs on a runtime of its own.
    ///
    /// A key that does not sign is an [`Error::Credential`] with its words: the text of a [`rustls::Error::General`], or
    /// a [`CredentialError`](crate::CredentialError) within a [`rustls::Error::Other`], which can also say that trying
    /// again helps.
    ///
    /// # Errors
    /// [`Error::Configuration`] for what [`from_pem`](Self::from_pem) finds wrong with the certificates; when the key is
    /// an Ed25519 key; when [`SigningKey::public_key`] says that it is another certificate's. A key without a public
    /// half is taken, and the service finds out.
    pub fn from_signing_key(chain: Vec<Vec<u8>>, key: Arc<dyn SigningKey>) -> Result<Self, Error> {
        if key.algorithm() == SignatureAlgorithm::ED25519 {
            return Err(wrong("private key", "", &format!("it is an Ed25519 key; {TAKEN}")));
        }
        let key: Arc<dyn SigningKey> = Arc::new(OutsideKey::new(key));
        let public_key = key.public_key().and_then(|info| public_key_bits(whole(info.as_ref())?));
        Self::new(chain, public_key, key, None)
    }

    fn with_key(chain: Vec<Vec<u8>>, key: PrivateKey) -> Result<Self, Error> {
        let PrivateKey { der, signing } = key;
        let public_key = signing
            .public_key()
            .and_then(|info| public_key_bits(whole(info.as_ref())?))
            .ok_or_else(|| wrong("private key", "", "it does not say its public half"))?;
        Self::new(chain, Some(public_key), signing, Some(der))
    }

    fn new(
        chain: Vec<Vec<u8>>,
        public_key: Option<Vec<u8>>,
        signing: Arc<dyn SigningKey>,
        key: Option<Zeroizing<PrivateKeyDer<'static>>>,
    ) -> Result<Self, Error> {
        let mut certificates = Vec::with_capacity(chain.len().min(MAX_CHAIN));
        for (index, der) in chain.iter().enumerate() {
            let number = index + 1;
            let which = match index {
                0 => "it".to_owned(),
                _ => format!("number {number} of the chain"),
            };
            let certificate = file::check_certificate(&which, der)?;
            let subject = certificate.subject.to_string();
            if let Some(earlier) = chain.iter().take(index).position(|earlier| earlier == der) {
                let earlier = earlier + 1;
                let reason = format!(
                    "it stands twice in the chain, as number {earlier} and {number}; leave it in once"
                );
                return Err(wrong("certificate", &subject, &reason));
            }
            if number > MAX_CHAIN {
                let reason = format!(
                    "it is number {number} of the chain, which may have {MAX_CHAIN}; leave only those between the device's and the one that the enrollment knows"
                );
                return Err(wrong("certificate", &subject, &reason));
            }
            certificates.push(certificate);
        }
        let mut certificates = certificates.into_iter();
        let Some(leaf) = certificates.next() else {
            return Err(wrong("certificate", "", "there is none; give the device's certificate"));
        };
        let issuers: Vec<_> = certificates.collect();

        if let Some(public_key) = public_key
            && leaf.public_key != public_key
        {
            let owner = issuers.iter().position(|issuer| issuer.public_key == public_key);
            return Err(not_the_key_of(&leaf, owner));
        }

        let chain = chain.into_iter().map(CertificateDer::from).collect();
        let certified_key = Arc::new(CertifiedKey::new(chain, signing));
        Ok(Self(Arc::new(Inner { certified_key, key, leaf, issuers })))
    }

    /// Checks what the service would refuse with little explanation: that the common name is the registration id,
    /// letter by letter; that each certificate is followed by its issuer; and that at the time `now` none of them
    /// is expired or not valid yet (by more than five minutes, for clocks that are a little behind).
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the certificate and the first thing that is wrong.
    pub fn preflight(
        &self,
        registration_id: &RegistrationId,
        now: SystemTime,
    ) -> Result<(), Error> {
        self.check_common_name(registration_id.as_str())?;
        self.check_order()?;
        self.check_dates(now)
    }

    fn check_common_name(&self, registration_id: &str) -> Result<(), Error> {
        let subject = &self.0.leaf.subject;
        let reason = match subject.common_name() {
            Some(name) if name == registration_id => return Ok(()),
            Some(name) if name.eq_ignore_ascii_case(registration_id) => format!(
                "its common name and the registration id {registration_id:?} differ in case; they must be the same, letter by letter"
            ),
            Some(_) => {
                format!("its common name must be the registration id, which is {registration_id:?}")
            }
            None => format!(
                "it has no common name; that must be the registration id, {registration_id:?}"
            ),
        };
        Err(wrong("certificate", &subject.to_string(), &reason))
    }

    pub(crate) fn check_order(&self) -> Result<(), Error> {
        for (certificate, (next, number)) in
            self.certificates().zip(self.0.issuers.iter().zip(2usize..))
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
            return Err(wrong("certificate", &next.to_string(), &reason));
        }
        Ok(())
    }

    pub(crate) fn check_dates(&self, now: SystemTime) -> Result<(), Error> {
        self.certificates().try_for_each(|certificate| check_dates(certificate, now))
    }

    /// Whether the chain ends with a certificate whose issuer the other one had.
    pub(crate) fn lacks_issuer_of(&self, other: &Self) -> bool {
        self.certificates().last().is_some_and(|last| {
            let is_issuer = |next: &Certificate| last.issuer.is(&next.subject);
            !is_issuer(last) && other.0.issuers.iter().any(is_issuer)
        })
    }

    /// The certificates as they are sent: the device's own first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.certified_key.cert
    }

    /// A copy of the private key, for a TLS stack that wants its bytes; `None` when the key is outside of the process.
    /// The copy is the caller's to wipe; [`certified_key`](Self::certified_key) needs none.
    #[must_use]
    pub fn private_key(&self) -> Option<PrivateKeyDer<'static>> {
        self.0.key.as_ref().map(|key| key.clone_key())
    }

    /// Chain and key ready for rustls: wrap it in [`rustls::sign::SingleCertAndKey`] and give that to
    /// [`with_client_cert_resolver`](rustls::ConfigBuilder::with_client_cert_resolver). The key is neither copied
    /// nor parsed again.
    #[must_use]
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.certified_key)
    }

    /// The common name of the device's own certificate: what the service takes for its registration id.
    #[must_use]
    pub fn common_name(&self) -> Option<&str> {
        self.0.leaf.subject.common_name()
    }

    /// Who is sent, in a few words: `CN=pump-17, issued by CN=Factory CA (2 certificates sent)`.
    #[must_use]
    pub fn describe_chain(&self) -> String {
        let mut text = self.0.leaf.subject.to_string();
        for certificate in self.certificates() {
            if certificate.issuer.is(&certificate.subject) {
                text.push_str(", self-signed");
            } else {
                // Writing to a String does not fail.
                let _ = write!(text, ", issued by {}", certificate.issuer);
            }
        }
        match self.chain().len() {
            1 => text.push_str(" (1 certificate sent)"),
            count => {
                let _ = write!(text, " ({count} certificates sent)");
            }
        }
        text
    }

    /// The SHA-256 of the device's own certificate, in upper-case hexadecimal digits: how an individual enrollment
    /// may be shown.
    #[must_use]
    pub fn leaf_thumbprint(&self) -> String {
        let leaf = self.chain().first().map(AsRef::as_ref).unwrap_or_default();
        Sha256::digest(leaf).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        })
    }

    fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.0.leaf).chain(&self.0.issuers)
    }
}

impl fmt::Debug for X509Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X509Identity({}, private key ***)", self.describe_chain())
    }
}

fn wrong(field: &'static str, value: &str, reason: &str) -> Error {
    ConfigurationError::new(field, value, reason).into()
}

/// `owner` is the place after the leaf of the certificate that the key does belong to.
fn not_the_key_of(leaf: &Certificate, owner: Option<usize>) -> Error {
    let subject = &leaf.subject;
    match owner {
        Some(index) => wrong(
            "certificate",
            &subject.to_string(),
            &format!(
                "the leaf must come first, and the private key belongs to number {} of the chain; put that one first, each followed by its issuer",
                index + 2
            ),
        ),
        None => wrong(
            "private key",
            "",
            &format!(
                "it is not the key of the certificate {subject}; give the two that belong together"
            ),
        ),
    }
}

fn check_dates(certificate: &Certificate, now: SystemTime) -> Result<(), Error> {
    let Certificate { subject, not_before, not_after, .. } = certificate;
    // A clock before 1970 or past 9999 is as wrong at those bounds.
    let at = |time: SystemTime| match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => DateTime::from_unix_duration(since).unwrap_or(DateTime::INFINITY),
        Err(_) => DateTime::from_unix_duration(Duration::ZERO).unwrap_or(DateTime::INFINITY),
    };
    let now_latest = at(now.checked_add(CLOCK_TOLERANCE).unwrap_or(now));
    let now = at(now);
    let reason = if now_latest < *not_before {
        format!(
            "it is not yet valid: it starts at {not_before}, and the device's clock says {now}; set the clock"
        )
    } else if now > *not_after {
        format!(
            "it expired at {not_after}, and the device's clock says {now}; renew it, or set the clock if that is wrong"
        )
    } else {
        return Ok(());
    };
    Err(wrong("certificate", &subject.to_string(), &reason))
}
