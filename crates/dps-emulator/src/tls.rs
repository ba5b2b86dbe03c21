//! The emulator's TLS: its own CA, server certificates, and device certificates that the enrollments judge.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use dps_attestation::X509Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ring::rand::SystemRandom;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName as IssuerName, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls13_signature_with_raw_key},
    pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use crate::{config_error::ConfigError, core::clock, keys};

mod certificates;

pub(crate) use certificates::{CertificateFailure, ServerCertificates};

const DAY: Duration = Duration::from_secs(86_400);

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The server's side of TLS.
pub(crate) fn server_config(
    certificates: ServerCertificates,
) -> Result<Arc<ServerConfig>, CertificateFailure> {
    let provider = provider();
    let verifier = Arc::new(AnyClientCertificate(provider.clone()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(certificates));
    Ok(Arc::new(config))
}

/// The emulator's own authority.
pub(crate) struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Ca {
    pub(crate) fn make(now: SystemTime) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // A name of its own, so that no other CA of an emulator is taken for this one.
        let number: [u8; 4] = ring::rand::generate(&SystemRandom::new())
            .map_err(|_| rcgen::Error::RingUnspecified)?
            .expose();
        params.distinguished_name =
            named(&format!("dps-emulator CA {:08x}", u32::from_be_bytes(number)));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - DAY).into();
        // As long as a file may keep it.
        params.not_after = (now + 3650 * DAY).into();
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }
}

impl Ca {
    /// Its certificate, and what follows it.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate and its key.
    pub(crate) fn to_pem(&self) -> (String, Zeroizing<String>) {
        (self.pem.clone(), Zeroizing::new(self.issuer.key().serialize_pem()))
    }

    /// One that was made elsewhere.
    pub(crate) fn read(
        certificate: &[u8],
        key: &[u8],
        now: SystemTime,
    ) -> Result<Self, ConfigError> {
        let wrong = |reason: &str| ConfigError::new("ca-cert", reason);
        let certificates = keys::certificates("ca-cert", certificate)?;
        let der = certificates.first().ok_or_else(|| wrong("there is no certificate in it"))?;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| wrong("it can't be read"))?;
        if let Some(reason) = keys::why_no_authority(&parsed) {
            return Err(wrong(reason));
        }
        let seconds = i64::try_from(clock::unix_seconds(now)).unwrap_or(i64::MAX);
        let validity = parsed.validity();
        if validity.not_after.timestamp() < seconds {
            return Err(wrong("it has expired; give one that is valid"));
        }
        if validity.not_before.timestamp() > seconds {
            return Err(wrong("it is not valid yet; give one that is, or set the clock"));
        }
        X509Identity::from_pem(certificate, key)
            .map_err(|error| ConfigError::from_parser("ca-key", &error))?;
        let unusable = |_| {
            let reason =
                "give the key as PKCS #8, as `openssl pkcs8 -topk8 -nodes -in FILE` makes it";
            ConfigError::new("ca-key", reason)
        };
        let key = KeyPair::from_pem(&String::from_utf8_lossy(key)).map_err(unusable)?;
        let issuer = Issuer::from_ca_cert_der(der, key)
            .map_err(|error| wrong(&format!("it can't be used: {error}")))?;
        let text = String::from_utf8_lossy(certificate).into_owned();
        Ok(Self { issuer, pem: text })
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ca(..)")
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Takes any client certificate whose key the peer holds, or none: the enrollment judges it later.
#[derive(Debug)]
struct AnyClientCertificate(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[IssuerName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = public_key(certificate)?;
        let bad = rustls::Error::InvalidCertificate(CertificateError::BadSignature);
        let key = webpki::RawPublicKeyEntity::try_from(&spki).map_err(|_| bad.clone())?;
        self.0
            .signature_verification_algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == signature.scheme)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .find_map(|algorithm| {
                key.verify_signature(*algorithm, message, signature.signature()).ok()
            })
            .map(|()| HandshakeSignatureValid::assertion())
            .ok_or(bad)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        let spki = public_key(certificate)?;
        verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// The key of a certificate of any version: `openssl x509 -req` writes version 1 by default, which the
/// usual verifier refuses to read.
fn public_key(
    certificate: &CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'static>, rustls::Error> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(SubjectPublicKeyInfoDer::from(parsed.public_key().raw.to_vec()))
}
