//! Devices with their keys and certificates, made on the spot.

use std::sync::Arc;

use dps_client::X509Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SubjectPublicKeyInfo, date_time_ymd,
};
use rustls::{
    pki_types::{CertificateDer, pem::PemObject},
    sign::SigningKey,
};

/// A certificate authority.
#[derive(Debug)]
pub struct Authority {
    /// Its certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that vouches for itself.
    #[must_use]
    pub fn root(name: &str) -> Self {
        let key = key();
        let params = Self::params(name);
        let certificate = params.self_signed(&key).expect("a root certificate");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// One that this one vouches for.
    #[must_use]
    pub fn intermediate(&self, name: &str) -> Self {
        let key = key();
        let params = Self::params(name);
        let certificate = params.signed_by(&key, &self.issuer).expect("an intermediate");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// A device's certificate, valid for decades.
    #[must_use]
    pub fn device(&self, common_name: &str) -> Device {
        self.issue(named(common_name))
    }

    /// A device's certificate that expired years ago.
    #[must_use]
    pub fn expired_device(&self, common_name: &str) -> Device {
        let mut params = named(common_name);
        params.not_before = date_time_ymd(2015, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        self.issue(params)
    }

    /// A device whose key is outside of the process, with this authority's certificate in its chain.
    #[must_use]
    pub fn identity(&self, common_name: &str, key: Arc<dyn SigningKey>) -> X509Identity {
        let public = key.public_key().expect("a public key");
        let public = SubjectPublicKeyInfo::from_der(&public).expect("a public key");
        let params = named(common_name);
        let leaf = params.signed_by(&public, &self.issuer).expect("a device's certificate");
        let own = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("a certificate");
        let chain = vec![leaf.der().to_vec(), own.to_vec()];
        X509Identity::from_signing_key(chain, key).expect("a usable identity")
    }

    fn issue(&self, params: CertificateParams) -> Device {
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a device's certificate");
        Device { certificate: certificate.pem(), chain: String::new(), key: key.serialize_pem() }
    }
}

/// A device's certificate with its key.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its own certificate.
    pub certificate: String,
    /// The certificates that go with it.
    pub chain: String,
    key: String,
}

impl Device {
    /// Sends these authorities' certificates along.
    #[must_use]
    pub fn with_chain<'a>(mut self, authorities: impl IntoIterator<Item = &'a Authority>) -> Self {
        self.chain = authorities.into_iter().map(|authority| authority.pem.as_str()).collect();
        self
    }

    /// What a client takes.
    #[must_use]
    pub fn identity(&self) -> X509Identity {
        X509Identity::from_pem(self.chain_pem().as_bytes(), self.key.as_bytes())
            .expect("a usable identity")
    }

    /// Its certificate and those that go with it, as a file has them.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        format!("{}{}", self.certificate, self.chain)
    }

    /// Its key, as a file has it.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}
