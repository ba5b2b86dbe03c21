//! Authorities and what they issue, good unless changed.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

/// What a server presents, to a client that asks for `host` and trusts `roots`.
pub(crate) struct Presented {
    pub(crate) host: &'static str,
    /// The server's own certificate first.
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: Vec<Vec<u8>>,
}

impl Presented {
    /// A leaf directly under a root.
    pub(crate) fn new(server: Issued, root: &Authority) -> Self {
        Self::through(server, [], root)
    }

    /// A leaf under intermediates, which are sent in this order.
    pub(crate) fn through<'a>(
        server: Issued,
        intermediates: impl IntoIterator<Item = &'a Authority>,
        root: &Authority,
    ) -> Self {
        let mut chain = vec![server.der];
        chain.extend(intermediates.into_iter().map(|authority| authority.der.clone()));
        Self { host: "localhost", chain, key: der_of(&server.key), roots: vec![root.der.clone()] }
    }

    /// As the client knows the server by this name or address.
    pub(crate) fn to(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    /// The server's own certificate, changed.
    pub(crate) fn leaf(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(self.chain.first_mut().unwrap());
        self
    }

    /// One of those that `data/make.sh` has made.
    pub(crate) fn fixture(certificate: &str, authority: &str) -> Self {
        let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec();
        let key = include_str!("data/server.key.pem");
        Self {
            host: "localhost",
            chain: vec![der(certificate)],
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            roots: vec![der(authority)],
        }
    }
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) der: Vec<u8>,
    pub(crate) key: KeyPair,
}

impl Issued {
    /// One that nobody vouches for.
    pub(crate) fn self_signed() -> Self {
        let key = KeyPair::generate().unwrap();
        let der = server_params().self_signed(&key).unwrap().der().to_vec();
        Self { der, key }
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    pub(crate) der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// One that vouches for itself.
    pub(crate) fn root(name: &str) -> Self {
        Self::root_with(name, |_| ())
    }

    pub(crate) fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(name);
        change(&mut params);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// One that this one vouches for.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, |_| ())
    }

    pub(crate) fn intermediate_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params(name);
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// A server's certificate for localhost and 127.0.0.1.
    pub(crate) fn server(&self) -> Issued {
        self.server_with(|_| ())
    }

    pub(crate) fn server_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Issued {
        self.server_with_key(KeyPair::generate().unwrap(), change)
    }

    pub(crate) fn server_with_key(
        &self,
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = server_params();
        change(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Issued { der, key }
    }
}

pub(crate) fn der_of(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

pub(crate) fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub(crate) fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server_params() -> CertificateParams {
    let mut params = named("localhost");
    params.subject_alt_names = vec![dns("localhost"), ip("127.0.0.1")];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}
