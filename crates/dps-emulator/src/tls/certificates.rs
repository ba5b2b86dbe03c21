//! The certificates that the server shows. Hubs come and go while it runs and are served by the same ports, so each gets one when
//! somebody asks for it by its name.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::{CertifiedKey, SigningKey},
};

use super::{Ca, DAY, named, provider};
use crate::{config::ServerCertificate, core::Core, lock::lock};

/// So many certificates are remembered, and so many addresses are in one.
const MOST: usize = 100;

/// The certificates of the server, all with the loopback names and those given.
pub(crate) struct ServerCertificates {
    names: Vec<String>,
    fault: ServerCertificate,
    ca_pem: String,
    issuer: Ca,
    key: KeyPair,
    signing_key: Arc<dyn SigningKey>,
    core: Arc<Core>,
    /// By the names that each has besides.
    made: Mutex<HashMap<Vec<String>, Arc<CertifiedKey>>>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateFailure {
    #[error(transparent)]
    Certificate(#[from] rcgen::Error),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl ServerCertificates {
    /// Makes the one that has no other names, and the CA unless there is one.
    pub(crate) fn new(
        names: &[String],
        fault: ServerCertificate,
        ca: Option<Ca>,
        core: Arc<Core>,
    ) -> Result<Self, CertificateFailure> {
        let now = SystemTime::now();
        let ca = ca.map_or_else(|| Ca::make(now), Ok)?;
        let ca_pem = ca.pem().to_owned();
        let issuer = if fault == ServerCertificate::WrongCa { Ca::make(now)? } else { ca };
        let key = KeyPair::generate()?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing_key = provider().key_provider.load_private_key(der)?;
        let (names, made) = (names.to_vec(), Mutex::default());
        let all = Self { names, fault, ca_pem, issuer, key, signing_key, core, made };
        all.with(vec![])?;
        Ok(all)
    }

    /// The certificate of the CA that peers must trust.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// The names that a certificate needs besides: the hub that the client asks for or, since nobody asks for an address, those
    /// of all hubs that are one.
    fn besides(&self, asked: Option<&str>) -> Vec<String> {
        let is_own = |name| name == "localhost" || self.names.iter().any(|own| own == name);
        if self.fault == ServerCertificate::WrongName || asked.is_some_and(is_own) {
            return vec![];
        }
        let service = self.core.service();
        let mut hubs = service.hubs();
        match asked {
            Some(name) if hubs.any(|hub| hub.eq_ignore_ascii_case(name)) => vec![name.to_owned()],
            Some(_) => vec![],
            None => {
                let addresses = hubs.filter(|hub| hub.parse::<IpAddr>().is_ok());
                let addresses: BTreeSet<_> = addresses.take(MOST).map(str::to_owned).collect();
                addresses.into_iter().collect()
            }
        }
    }

    /// The certificate with these names besides, as it was made or a new one.
    fn with(&self, besides: Vec<String>) -> Result<Arc<CertifiedKey>, rcgen::Error> {
        let mut made = lock(&self.made);
        if let Some(made) = made.get(&besides) {
            return Ok(made.clone());
        }
        let names = [&self.names[..], &besides].concat();
        let params = leaf_params(&names, self.fault, SystemTime::now())?;
        let leaf = params.signed_by(&self.key, &self.issuer.issuer)?;
        let chain = vec![leaf.der().clone()];
        let certified = Arc::new(CertifiedKey::new(chain, self.signing_key.clone()));
        if made.len() >= MOST {
            made.clear();
        }
        made.insert(besides, certified.clone());
        Ok(certified)
    }
}

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let besides = self.besides(hello.server_name());
        // What is no name to a certificate is none that a client can ask for.
        self.with(besides).or_else(|_| self.with(vec![])).ok()
    }
}

impl fmt::Debug for ServerCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerCertificates(..)")
    }
}

fn leaf_params(
    names: &[String],
    certificate: ServerCertificate,
    now: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut all: Vec<String> = match certificate {
        ServerCertificate::WrongName if names.is_empty() => vec!["other.invalid".to_owned()],
        ServerCertificate::WrongName => vec![],
        _ => ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec(),
    };
    all.extend(names.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>());
    let mut params = CertificateParams::new(all)?;
    params.distinguished_name = named("dps-emulator");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let (from, until) = match certificate {
        ServerCertificate::Expired => (now - 10 * DAY, now - DAY),
        ServerCertificate::NotYetValid => (now + DAY, now + 10 * DAY),
        _ => (now - DAY, now + 364 * DAY),
    };
    params.not_before = from.into();
    params.not_after = until.into();
    Ok(params)
}
