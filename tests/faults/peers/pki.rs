//! The server certificates of the man in the middle, good and bad.

use std::sync::Arc;

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SerialNumber, date_time_ymd,
};
use rustls::{
    CipherSuite, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsAcceptor;

/// What is wrong with the server's side of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Credentials {
    Valid,
    Expired,
    /// As a device whose clock is a day behind sees a fresh certificate.
    FromTomorrow,
    WrongHost,
    UnknownAuthority,
    /// The one suite on offer needs an RSA key, and the server has none.
    NoCommonCipher,
}

/// Whom clients trust, and an acceptor for each kind of server.
pub(crate) struct Pki {
    pub(crate) roots_pem: String,
    acceptors: Vec<(Credentials, TlsAcceptor)>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let (authority, roots_pem) = authority();
        let (foreign, _) = authority_named("Somebody else");
        let acceptors = [
            Credentials::Valid,
            Credentials::Expired,
            Credentials::FromTomorrow,
            Credentials::WrongHost,
            Credentials::UnknownAuthority,
            Credentials::NoCommonCipher,
        ]
        .map(|kind| {
            let issuer = if kind == Credentials::UnknownAuthority { &foreign } else { &authority };
            (kind, TlsAcceptor::from(Arc::new(server(kind, issuer))))
        });
        Self { roots_pem, acceptors: acceptors.into() }
    }

    pub(crate) fn acceptor(&self, kind: Credentials) -> TlsAcceptor {
        let found = self.acceptors.iter().find(|(other, _)| *other == kind);
        found.map(|(_, acceptor)| acceptor.clone()).expect("an acceptor of each kind")
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    authority_named("The middle's CA")
}

fn authority_named(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("a CA certificate").pem();
    (Issuer::new(params, key), pem)
}

fn server(kind: Credentials, issuer: &Issuer<'_, KeyPair>) -> ServerConfig {
    let name = if kind == Credentials::WrongHost { "other.example" } else { "127.0.0.1" };
    let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(SerialNumber::from(kind as u64 + 1));
    let (from, until) = match kind {
        Credentials::Expired => (2015, 2020),
        Credentials::FromTomorrow => (2990, 3000),
        _ => (2015, 3000),
    };
    (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
    let key = KeyPair::generate().expect("a key");
    let leaf = params.signed_by(&key, issuer).expect("a server certificate");
    let (provider, versions) = match kind {
        Credentials::NoCommonCipher => (rsa_only(), vec![&TLS12]),
        _ => (ring::default_provider(), vec![&TLS13, &TLS12]),
    };
    ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .expect("versions that the provider knows")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("a key that fits the certificate")
}

fn rsa_only() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider
        .cipher_suites
        .retain(|suite| suite.suite() == CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256);
    provider
}
