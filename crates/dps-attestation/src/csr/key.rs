//! The key that a certificate is requested for.

use std::{fmt, sync::Arc, time::SystemTime};

use dps_state_machine::{CertificateRequest, ConfigurationError, Error, RegistrationId};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
};
use rustls::{SignatureAlgorithm, sign::SigningKey};
use zeroize::Zeroizing;

use crate::{
    certificate::public_key_bits,
    csr::{issued::IssuedChain, pkcs10},
    der_writer::{INTEGER_0, OCTET_STRING, SEQUENCE, value},
    file,
    outside_key::OutsideKey,
    pem,
    private_key::{self, TAKEN},
    shape::{Fields, Shape, whole},
};

/// The most characters that a common name has (X.520, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

/// The key that a certificate is requested for. It is wiped from memory when it is dropped, and never printed.
///
/// The service issues certificates to devices whose enrollment has a policy for it. The steps:
///
/// 1. Make a key on the device ([`generate`](Self::generate)), or take the one that is there
///    ([`from_pem`](Self::from_pem), [`from_signing_key`](Self::from_signing_key)).
/// 2. Make the [`request`](Self::request), and register with it, by the credential that the device was shipped with.
/// 3. [`verify`](Self::verify) what came: the order of the certificates is defined nowhere, so they are told apart by
///    keys and signatures.
/// 4. Store key and chain together: one without the other is of no use.
/// 5. Register from then on, and connect to the hub, with the [`identity`](IssuedChain::identity).
///
/// A device that was assigned without a certificate
/// ([`IssuedCertificates::Missing`](dps_state_machine::IssuedCertificates::Missing)) belongs to an enrollment without a
/// policy.
///
/// | transport | that the service takes a request for a certificate is known |
/// |---|---|
/// | MQTT, MQTT over WebSocket | from devices in the field, over MQTT |
/// | HTTP | from the contract of the REST interface |
/// | AMQP, AMQP over WebSocket | from nowhere: no contract and no sample has it |
///
/// See <https://learn.microsoft.com/azure/iot-hub/iot-hub-certificate-management-overview>.
///
/// ```no_run
/// use std::time::SystemTime;
/// use dps_client::{Client, RegistrationId, RegistrationRequest, RequestKey, X509Identity};
///
/// async fn certificate(
///     client: &Client,
///     device: RegistrationId,
/// ) -> Result<X509Identity, Box<dyn std::error::Error>> {
///     let key = RequestKey::generate()?;
///     let request = RegistrationRequest::new(device.clone()).certificate_request(key.request(&device)?);
///     let registered = client.register(request).await?;
///     let issued = key.verify(registered.certificates.chain(), &device, SystemTime::now())?;
///     let private_key = key.to_pem().ok_or("a key that was made here is here")?;
///     // Both are to be stored, readable by their owner alone, before the certificate is used.
///     println!("{} bytes of key and chain", private_key.len() + issued.to_pem().len());
///     Ok(issued.identity())
/// }
/// ```
#[derive(Clone)]
pub struct RequestKey {
    key: Arc<dyn SigningKey>,
    /// The public half with its algorithm, in DER.
    public_key_info: Vec<u8>,
    /// PKCS#8; none of a key outside of the process.
    private: Option<Zeroizing<Vec<u8>>>,
}

impl RequestKey {
    /// Makes a key on P-256, from the system's randomness.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        let key =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(|_| wrong("the system has no random numbers to give"))?;
        Self::from_der(key.as_ref())
    }

    /// Takes the contents of a file that has a private key: PKCS#8, PKCS#1 or SEC1, in PEM or DER, on P-256 or P-384,
    /// or RSA of 2048 to 4096 bits.
    ///
    /// # Errors
    /// [`Error::Configuration`] when there is not one key, when it is encrypted or of another kind, and for an
    /// elliptic-curve key without its public half: no certificate is there to complete it.
    pub fn from_pem(key: &[u8]) -> Result<Self, Error> {
        Self::from_der(&file::private_key(key)?)
    }

    fn from_der(der: &[u8]) -> Result<Self, Error> {
        let key = Self::new(private_key::parse(der, std::iter::empty())?)?;
        let private = match Shape::of(der) {
            Some(Shape::Pkcs8) => Zeroizing::new(der.to_vec()),
            _ => {
                // The public half names the algorithm as the private one has to.
                let algorithm =
                    whole(&key.public_key_info).and_then(|info| Fields::of(info).next());
                let algorithm = algorithm.ok_or_else(|| wrong(NO_PUBLIC_HALF))?;
                let algorithm = value(SEQUENCE, &[algorithm.value()]);
                value(SEQUENCE, &[INTEGER_0, &algorithm, &value(OCTET_STRING, &[der])])
            }
        };
        Ok(Self { private: Some(private), ..key })
    }

    /// Takes a key that need not be in this process: it may be in a TPM, a token or an HSM. It signs the request, on the
    /// thread of the caller, and later each TLS handshake: see
    /// [`X509Identity::from_signing_key`](crate::X509Identity::from_signing_key).
    ///
    /// # Errors
    /// [`Error::Configuration`] when [`SigningKey::public_key`] gives none, and for an Ed25519 key.
    pub fn from_signing_key(key: Arc<dyn SigningKey>) -> Result<Self, Error> {
        Self::new(Arc::new(OutsideKey::new(key)))
    }

    fn new(key: Arc<dyn SigningKey>) -> Result<Self, Error> {
        if key.algorithm() == SignatureAlgorithm::ED25519 {
            return Err(wrong(&format!("it is an Ed25519 key; {TAKEN}")));
        }
        let info = key.public_key().filter(|info| {
            whole(info.as_ref()).is_some_and(|info| public_key_bits(info).is_some())
        });
        let public_key_info = info.ok_or_else(|| wrong(NO_PUBLIC_HALF))?.as_ref().to_vec();
        Ok(Self { key, public_key_info, private: None })
    }

    /// The private key as PKCS#8 in PEM, for a file that its owner alone can read. `None` for a key that is outside of
    /// the process. This gives the secret away: keep it out of logs.
    #[must_use]
    pub fn to_pem(&self) -> Option<Zeroizing<String>> {
        self.private.as_deref().map(|der| pem::write("PRIVATE KEY", der))
    }

    /// Makes a request for a certificate whose common name is the registration id, and signs it. A registration id of
    /// more than 64 characters is warned of, as in [`doubtful_name`](Self::doubtful_name), and not cut.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the key signs by no algorithm that the service takes. [`Error::Credential`], with
    /// its words, when a key outside of the process does not sign.
    pub fn request(&self, registration_id: &RegistrationId) -> Result<CertificateRequest, Error> {
        if let Some(doubt) = Self::doubtful_name(registration_id) {
            tracing::warn!("{doubt}");
        }
        pkcs10::request(&*self.key, &self.public_key_info, registration_id.as_str())
    }

    /// Why an authority may refuse the request of this device, in a few words; `None` when nothing is known. A common
    /// name has at most 64 characters (X.520), a registration id 128.
    #[must_use]
    pub fn doubtful_name(registration_id: &RegistrationId) -> Option<String> {
        let length = registration_id.as_str().len();
        (length > MAX_COMMON_NAME).then(|| {
            format!("the registration id has {length} characters, and a certificate's common name holds {MAX_COMMON_NAME}: the authority may refuse the request; enroll the device by a shorter one")
        })
    }

    /// Checks the certificates that came for a request of this key, and puts them in order.
    ///
    /// They may come in any order. The leaf is the one with this key; its issuer is the certificate with the
    /// issuer's name by whose key its signature verifies, and so on. The leaf's one common name must be the registration
    /// id, [without regard to case](https://learn.microsoft.com/azure/iot-dps/concepts-service#registration-id). None
    /// may be expired or not valid yet at the time `now` (by more than five minutes, for clocks that are a little
    /// behind). Issuers must be authorities that may issue, and the leaf fit for TLS as a client. What stands there twice
    /// or has issued nothing is left out with a warning.
    ///
    /// Whether to trust the authority at the end is not asked: the answer came over a connection to the service.
    ///
    /// A leaf that comes alone, as by the api-version `2021-11-01-preview`, passes by its key, name and dates: there
    /// is nothing that its signature could be checked with.
    ///
    /// # Errors
    /// [`Error::Configuration`] with the field `issued certificate` that names the certificate, what is wrong and what
    /// to do; also when none or more than ten came, and when two have this key.
    pub fn verify(
        &self,
        certificates: &[Vec<u8>],
        registration_id: &RegistrationId,
        now: SystemTime,
    ) -> Result<IssuedChain, Error> {
        IssuedChain::verify(certificates, &self.key, &self.public_key_info, registration_id, now)
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestKey(***)")
    }
}

const NO_PUBLIC_HALF: &str = "its public half can't be read, and a certificate is requested for that; give a key that shows it";

fn wrong(reason: &str) -> Error {
    ConfigurationError::new("private key", "", reason).into()
}
