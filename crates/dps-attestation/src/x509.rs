//! X.509 identities: a certificate, its chain and its private key.

use std::{
    fmt::{self, Write},
    sync::Arc,
    time::SystemTime,
};

use dps_state_machine::{ConfigurationError, Error, RegistrationId};
use rustls::{
    SignatureAlgorithm,
    sign::{CertifiedKey, SigningKey},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    certificate::{Certificate, public_key_bits},
    chain::Chain,
    file,
    outside_key::OutsideKey,
    private_key::{self, TAKEN},
    shape::whole,
};

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
/// use dps_client::X509Identity;
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
    chain: Chain,
}

impl X509Identity {
    /// Takes the contents of two files: the certificates, the device's own first, each followed by its issuer;
    /// and the private key, as PKCS#8, PKCS#1 or SEC1. Both may be in one file: give it twice. In PEM text other
    /// blocks and what stands around them are skipped; DER is taken too, a single certificate then. A certificate that
    /// stands there twice, or that no other one was issued by at the end, is left out with a warning; an
    /// elliptic-curve key without its public half is completed from the certificate.
    ///
    /// # Errors
    /// [`Error::Configuration`] when there is no certificate or not one key, when more than ten certificates are in the
    /// chain, when the key is encrypted, of a kind that can't be used or not the first certificate's.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, Error> {
        Self::with_key(file::parse_certificates(certificates)?, &file::private_key(key)?)
    }

    /// Takes the certificates, the device's own first, and the private key, each as DER. The key's format is
    /// recognized by its content.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem).
    pub fn from_der(chain: Vec<Vec<u8>>, key: Vec<u8>) -> Result<Self, Error> {
        Self::with_key(chain, &Zeroizing::new(key))
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
        Self::new(Chain::parse(chain)?, Arc::new(OutsideKey::new(key)))
    }

    fn with_key(chain: Vec<Vec<u8>>, key: &[u8]) -> Result<Self, Error> {
        let chain = Chain::parse(chain)?;
        let public_keys = chain.certificates().map(|certificate| &*certificate.public_key);
        let key = private_key::parse(key, public_keys)?;
        Self::new(chain, key)
    }

    pub(crate) fn new(mut chain: Chain, key: Arc<dyn SigningKey>) -> Result<Self, Error> {
        let public_key = key.public_key().and_then(|info| public_key_bits(whole(info.as_ref())?));
        if let Some(public_key) = public_key
            && chain.leaf.public_key != public_key
        {
            let owner = chain.issuers.iter().position(|issuer| issuer.public_key == public_key);
            return Err(not_the_key_of(&chain.leaf, owner));
        }
        chain.leave_out_needless();
        let certified_key = Arc::new(CertifiedKey::new(chain.to_der(), key));
        Ok(Self(Arc::new(Inner { certified_key, chain })))
    }

    /// Checks what the service would refuse with little explanation: that the common name is the registration id,
    /// [without regard to case](https://learn.microsoft.com/azure/iot-dps/concepts-service#registration-id); that each certificate is followed by its issuer; and that at the time `now` none of them
    /// is expired or not valid yet (by more than five minutes, for clocks that are a little behind). The last of several
    /// is only warned of: it may be a root that the service knows by its key.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the certificate and the first thing that is wrong.
    pub fn preflight(
        &self,
        registration_id: &RegistrationId,
        now: SystemTime,
    ) -> Result<(), Error> {
        self.check_common_name(registration_id.as_str())?;
        self.check_chain(now)
    }

    pub(crate) fn check_chain(&self, now: SystemTime) -> Result<(), Error> {
        self.0.chain.check_order()?;
        self.0.chain.check_dates(now)?;
        if let Some(doubt) = self.doubtful_end(now) {
            tracing::warn!("{doubt}");
        }
        Ok(())
    }

    /// What is out of date at the end of the chain, in a few words; `None` when nothing is. Such a chain is sent, since
    /// the service need not look at its end, but it may be why the service refuses it.
    #[must_use]
    pub fn doubtful_end(&self, now: SystemTime) -> Option<String> {
        self.0.chain.doubtful_end(now)
    }

    fn check_common_name(&self, registration_id: &str) -> Result<(), Error> {
        let subject = &self.0.chain.leaf.subject;
        match subject.common_name_fault(registration_id) {
            Some(reason) => Err(wrong("certificate", &subject.to_string(), &reason)),
            None => Ok(()),
        }
    }

    /// Whether the chain ends with a certificate whose issuer the other one had.
    pub(crate) fn lacks_issuer_of(&self, other: &Self) -> bool {
        self.0.chain.lacks_issuer_of(&other.0.chain)
    }

    /// The certificates as they are sent, in DER: the device's own first.
    pub fn chain(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.certified_key.cert.iter().map(AsRef::as_ref)
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
        self.0.chain.leaf.subject.common_name()
    }

    /// Who is sent, in a few words: `CN=pump-17, issued by CN=Factory CA (2 certificates sent)`.
    #[must_use]
    pub fn describe_chain(&self) -> String {
        self.0.chain.describe()
    }

    /// The SHA-256 of the device's own certificate, in upper-case hexadecimal digits: how an individual enrollment
    /// may be shown.
    #[must_use]
    pub fn leaf_thumbprint(&self) -> String {
        let leaf = self.chain().next().unwrap_or_default();
        Sha256::digest(leaf).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        })
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
