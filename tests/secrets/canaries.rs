//! Secrets of known value, and the devices that have them.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::{
    Attestation, GroupKey, IdScope, RegistrationId, SasToken, SymmetricKeyFile, Transport,
    X509Files, X509Identity,
};
use dps_conformance::{Canaries, DEVICE};
use dps_emulator::{CaCertificates, Enrollment, GroupAttestation};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};

pub(crate) const DEVICE_KEY: &str =
    "/FFYLcHGXw8lM9mLOBuQr+6nFx+LGfF4ZPQ6pNHPvdbJGIaemUAcqMr9cYkH2O+ZX2Dx5VfQEUCEPtt5rVOWgA==";
pub(crate) const GROUP_KEY: &str =
    "qs5f351rCc5yFv4kcjAeqg/J7Xhn+GV/zauFnIsLoqm1baXpTLjDFjDRKqBBPatgptaiL30MYpMdLopu3Tg9xg==";
pub(crate) const PROXY_PASSWORD: &str = "kT7vQ2mKw9Lz4Rb8nXeH";
/// On P-256. Its secret is the 32 bytes after the first 36.
pub(crate) const EC_KEY: &str =
    include_str!("../../crates/dps-attestation/tests/data/p256.pkcs8.pem");
/// Of 2048 bits.
pub(crate) const RSA_KEY: &str =
    include_str!("../../crates/dps-attestation/tests/data/rsa2048.pkcs8.pem");

/// How long tokens are valid.
pub(crate) const LIFETIME: Duration = Duration::from_secs(3600);

/// What a device has to prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Key,
    KeyFile,
    GroupKey,
    EcKey,
    RsaKey,
    KeyAndCertificateFiles,
}

impl Identity {
    pub(crate) const ALL: [Self; 6] = [
        Self::Key,
        Self::KeyFile,
        Self::GroupKey,
        Self::EcKey,
        Self::RsaKey,
        Self::KeyAndCertificateFiles,
    ];

    /// The device's credential.
    pub(crate) fn attestation(self, factory: &Factory, transport: Transport) -> Attestation {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("secrets-{self:?}-{transport}"));
        fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, content: &str| {
            fs::write(folder.join(name), content).unwrap();
            folder.join(name)
        };
        let identity = |key: &str| {
            X509Identity::from_pem(factory.certificate(key).as_bytes(), key.as_bytes()).unwrap()
        };
        match self {
            Self::Key => DEVICE_KEY.parse::<dps_client::SymmetricKey>().unwrap().into(),
            Self::KeyFile => SymmetricKeyFile::open(file("key", DEVICE_KEY)).unwrap().into(),
            Self::GroupKey => GROUP_KEY.parse::<GroupKey>().unwrap().derive(&device()).into(),
            Self::EcKey => identity(EC_KEY).into(),
            Self::RsaKey => identity(RSA_KEY).into(),
            Self::KeyAndCertificateFiles => {
                let certificate = file("certificate.pem", &factory.certificate(EC_KEY));
                X509Files::open(certificate, file("key.pem", EC_KEY)).unwrap().into()
            }
        }
    }

    /// What the service knows the device by.
    pub(crate) fn enrollment(self, factory: &Factory) -> Enrollment {
        match self {
            Self::Key | Self::KeyFile => {
                let attestation =
                    dps_emulator::Attestation::symmetric_key(DEVICE_KEY.parse().unwrap());
                Enrollment::individual(device(), attestation)
            }
            Self::GroupKey => Enrollment::group(
                DEVICE,
                GroupAttestation::symmetric_key(GROUP_KEY.parse().unwrap()),
            ),
            Self::EcKey | Self::RsaKey | Self::KeyAndCertificateFiles => {
                let ca = CaCertificates::from_pem(&factory.ca).unwrap();
                Enrollment::group(DEVICE, GroupAttestation::x509(ca))
            }
        }
    }
}

/// Issues certificates for the keys.
pub(crate) struct Factory {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Factory {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = named("Factory");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { ca: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn certificate(&self, key: &str) -> String {
        let key = KeyPair::from_pem(key).unwrap();
        named(DEVICE).signed_by(&key, &self.issuer).unwrap().pem()
    }
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

pub(crate) fn device() -> RegistrationId {
    DEVICE.parse().unwrap()
}

/// All of the secrets; of the tokens those that were signed since then.
pub(crate) fn canaries(id_scope: &IdScope, started: SystemTime) -> Canaries {
    let mut canaries = Canaries::new();
    let mut text = |name: &str, base64: &str| {
        canaries.add(format!("the {name}"), STANDARD.decode(base64).unwrap());
        canaries.add(format!("the {name}'s text"), base64);
    };
    let derived = GROUP_KEY.parse::<GroupKey>().unwrap().derive(&device());
    let own = DEVICE_KEY.parse().unwrap();
    text("device key", DEVICE_KEY);
    text("group key", GROUP_KEY);
    text("derived key", &derived.expose_base64());
    for key in [&own, &derived] {
        let signed_last = SystemTime::now() + Duration::from_secs(1);
        let mut signed = started - Duration::from_secs(1);
        while signed <= signed_last {
            let token = SasToken::sign(key, id_scope, &device(), signed + LIFETIME);
            let (_, rest) = token.expose().split_once("sig=").unwrap();
            let (signature, _) = rest.split_once('&').unwrap();
            let base64 = signature.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
            text("signature of a token", &base64);
            signed += Duration::from_secs(1);
        }
    }
    for (name, secret) in private_parts() {
        canaries.add(name, secret);
    }
    canaries.add("the proxy's password", PROXY_PASSWORD);
    canaries
}

/// What of the private keys is in no certificate.
fn private_parts() -> Vec<(String, Vec<u8>)> {
    let ec = der(EC_KEY);
    let mut parts = vec![("the EC key's scalar".to_owned(), ec.get(36..68).unwrap().to_vec())];
    // PKCS#8 holds PKCS#1: after the modulus and the exponent all is secret.
    let rsa = der(RSA_KEY);
    let integers = integers(rsa.get(26..).unwrap());
    assert_eq!(integers.len(), 9, "version, modulus, exponents, primes, and what comes of them");
    for (name, integer) in ["d", "p", "q", "dp", "dq", "qinv"].iter().zip(integers.iter().skip(3)) {
        parts.push((format!("the RSA key's {name}"), integer.clone()));
    }
    parts
}

fn der(pem: &str) -> Vec<u8> {
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(base64).unwrap()
}

/// The integers in a sequence of them, in DER.
fn integers(sequence: &[u8]) -> Vec<Vec<u8>> {
    fn value(der: &[u8]) -> Option<(&[u8], &[u8])> {
        let (length, rest) = match der.get(1..)? {
            [0x82, high, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
            [0x81, length, rest @ ..] | [length, rest @ ..] => (usize::from(*length), rest),
            [] => return None,
        };
        rest.split_at_checked(length)
    }
    let (mut inside, _) = value(sequence).unwrap();
    let mut integers = Vec::new();
    while let Some((integer, rest)) = value(inside) {
        integers.push(integer.to_vec());
        inside = rest;
    }
    integers
}
