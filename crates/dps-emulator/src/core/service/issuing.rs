//! The issuing CA, and the requests that it takes.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SignatureAlgorithm,
};
use x509_parser::{
    certification_request::X509CertificationRequest, prelude::FromDer as _, public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ServiceError, clock, x509};

const DAY: Duration = Duration::from_secs(86_400);

/// The CA's clock and the device's need not agree to the second.
const SLACK: Duration = Duration::from_secs(300);

/// The fewest bits of an RSA key.
const RSA_BITS: usize = 2048;

/// A request for a certificate that was found right: its signature is by its own key, that key is strong enough, and
/// its common name is the device's.
///
/// Only the key and the name are taken out of it: what else it asks for, for example to be a CA, is not granted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CertificateRequest {
    common_name: String,
    key: RequestedKey,
}

/// The key of a request, to be written into a certificate as what it is.
#[derive(Clone, Debug, PartialEq)]
struct RequestedKey {
    bits: Vec<u8>,
    kind: &'static SignatureAlgorithm,
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.kind
    }
}

impl CertificateRequest {
    /// Reads a request as a body has it: base64 of DER.
    pub(crate) fn read(base64: &str, registration_id: &str) -> Result<Self, ServiceError> {
        let der = STANDARD.decode(base64).map_err(|_| {
            ServiceError::deserialization(
                "csr must be base64 of DER, in one line and without armor",
            )
        })?;
        let (rest, request) = X509CertificationRequest::from_der(&der)
            .map_err(|error| ServiceError::bad_csr(&format!("it is no PKCS#10: {error}")))?;
        if !rest.is_empty() {
            return Err(ServiceError::bad_csr("it has something behind it"));
        }
        let info = &request.certification_request_info;
        let key = RequestedKey::of(&info.subject_pki)?;
        request
            .verify_signature()
            .map_err(|_| ServiceError::bad_request("The CSR is not signed by its own key"))?;
        let names: Vec<_> = info.subject.iter_common_name().map(|name| name.as_str()).collect();
        match names[..] {
            [Ok(name)] if name.eq_ignore_ascii_case(registration_id) => {
                Ok(Self { common_name: name.to_owned(), key })
            }
            _ => Err(ServiceError::bad_request(
                "The common name of the CSR is not the registration ID",
            )),
        }
    }
}

impl RequestedKey {
    fn of(spki: &SubjectPublicKeyInfo<'_>) -> Result<Self, ServiceError> {
        let curve = spki.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
        let curve = curve.map(|curve| curve.to_id_string());
        let kind = match (spki.parsed(), curve.as_deref()) {
            (Ok(PublicKey::RSA(key)), _) if key.key_size() >= RSA_BITS => &rcgen::PKCS_RSA_SHA256,
            (Ok(PublicKey::EC(_)), Some("1.2.840.10045.3.1.7")) => &rcgen::PKCS_ECDSA_P256_SHA256,
            (Ok(PublicKey::EC(_)), Some("1.3.132.0.34")) => &rcgen::PKCS_ECDSA_P384_SHA384,
            _ => {
                return Err(ServiceError::bad_request(
                    "The key of the CSR is too weak or of an unknown kind; use P-256, P-384 or RSA of at least 2048 bits",
                ));
            }
        };
        Ok(Self { bits: spki.subject_public_key.data.to_vec(), kind })
    }
}

/// An issuing CA as the file of the state has it.
#[derive(Serialize, Deserialize)]
pub(super) struct KeptCa {
    key: String,
    chain: [String; 2],
}

/// A root and the intermediate that issues, both P-384, as the service's are.
pub(crate) struct IssuingCa {
    issuer: Issuer<'static, KeyPair>,
    /// The intermediate and the root.
    chain: [Vec<u8>; 2],
    root_pem: String,
}

impl IssuingCa {
    pub(crate) fn make(now: SystemTime) -> Result<Self, rcgen::Error> {
        let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384);
        let (root_key, issuing_key) = (key()?, key()?);
        let root_params = ca("dps-emulator issuing root", BasicConstraints::Constrained(1), now);
        let root = root_params.self_signed(&root_key)?;
        let root_issuer = Issuer::new(root_params, root_key);
        let params = ca("dps-emulator issuing CA", BasicConstraints::Constrained(0), now);
        let issuing = params.signed_by(&issuing_key, &root_issuer)?;
        Ok(Self {
            issuer: Issuer::new(params, issuing_key),
            chain: [issuing.der().to_vec(), root.der().to_vec()],
            root_pem: root.pem(),
        })
    }

    /// What [`IssuingCa::from_kept`] makes it from again: its key and its chain. **It is a secret.**
    pub(super) fn to_kept(&self) -> KeptCa {
        KeptCa {
            key: self.issuer.key().serialize_pem(),
            chain: self.chain.each_ref().map(|der| STANDARD.encode(der)),
        }
    }

    /// `None` when it is damaged.
    pub(super) fn from_kept(KeptCa { key, chain }: &KeptCa) -> Option<Self> {
        let key = KeyPair::from_pem(key).ok()?;
        let [issuing, root] = chain.each_ref().map(|der| STANDARD.decode(der).ok());
        let (issuing, root) = (issuing?, root?);
        let root_pem = pem(&STANDARD.encode(&root));
        let issuer = Issuer::from_ca_cert_der(&issuing.as_slice().into(), key).ok()?;
        Some(Self { issuer, chain: [issuing, root], root_pem })
    }

    pub(crate) fn root_pem(&self) -> &str {
        &self.root_pem
    }

    pub(super) fn root(&self) -> CertificateDer<'static> {
        let [_, root] = &self.chain;
        root.clone().into()
    }

    /// The root as the api-version 2021-11-01-preview hands it out.
    pub(super) fn trust_bundle(&self, now: SystemTime, etag: &str) -> Value {
        let [_, root] = &self.chain;
        let described = x509::describe(&CertificateDer::from_slice(root), None);
        let now = clock::rfc3339(now);
        json!({
            "certificates": [{
                "certificate": self.root_pem,
                "metadata": described.get("certificateInfo"),
            }],
            "id": "dps-emulator",
            "createdDateTime": now,
            "lastModifiedDateTime": now,
            "etag": etag,
        })
    }

    /// The chain for a request as an answer has it: leaf, intermediate, root, each as base64 of DER.
    pub(crate) fn issue(
        &self,
        request: &CertificateRequest,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Vec<String>, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&request.common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - SLACK).into();
        params.not_after = (now + lifetime).into();
        let leaf = params.signed_by(&request.key, &self.issuer)?;
        let chain =
            std::iter::once(leaf.der().as_ref()).chain(self.chain.iter().map(Vec::as_slice));
        Ok(chain.map(|der| STANDARD.encode(der)).collect())
    }
}

/// A certificate as PEM, from base64 of its DER.
pub(super) fn pem(base64: &str) -> String {
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for (place, character) in base64.char_indices() {
        if place > 0 && place.is_multiple_of(64) {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem + "\n-----END CERTIFICATE-----\n"
}

fn ca(name: &str, constraints: BasicConstraints, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - DAY).into();
    params.not_after = (now + 3650 * DAY).into();
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::X509Certificate;

    const ID: &str = "dev-1";

    fn request(key: &KeyPair, params: CertificateParams) -> Vec<u8> {
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn for_device(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params
    }

    fn read(der: &[u8]) -> Result<CertificateRequest, (u32, String)> {
        let read = CertificateRequest::read(&STANDARD.encode(der), ID);
        read.map_err(|error| (error.error_code, error.message.into_owned()))
    }

    #[test]
    fn a_ca_that_is_asked_for_is_not_granted_and_the_key_stays_what_it_is() {
        let now = SystemTime::now();
        let issuing = IssuingCa::make(now).unwrap();
        for kind in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384] {
            let key = KeyPair::generate_for(kind).unwrap();
            let mut greedy = for_device(ID);
            greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            greedy.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let taken = read(&request(&key, greedy)).unwrap();
            let chain = issuing.issue(&taken, DAY, now).unwrap();
            let leaf = STANDARD.decode(&chain[0]).unwrap();
            let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
            assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
            assert!(!leaf.is_ca());
            let usage = leaf.key_usage().unwrap().unwrap().value;
            assert!(usage.digital_signature() && !usage.key_cert_sign());
            let issuer = STANDARD.decode(&chain[1]).unwrap();
            let (_, issuer) = X509Certificate::from_der(&issuer).unwrap();
            leaf.verify_signature(Some(issuer.public_key())).unwrap();
            let root = STANDARD.decode(&chain[2]).unwrap();
            let (_, root) = X509Certificate::from_der(&root).unwrap();
            issuer.verify_signature(Some(root.public_key())).unwrap();
        }
    }

    #[test]
    fn each_flaw_of_a_request_is_refused_by_its_name() {
        let key = KeyPair::generate().unwrap();
        let good = request(&key, for_device(ID));
        assert!(read(&good).is_ok());
        let mut forged = good.clone();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        let odd = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut twice = for_device(ID);
        twice.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "dev-2");
        for (der, code, says) in [
            (request(&key, for_device("dev-2")), 400_000, "common name"),
            (request(&key, CertificateParams::default()), 400_000, "common name"),
            (request(&key, twice), 400_000, "common name"),
            (forged, 400_000, "signed"),
            (request(&odd, for_device(ID)), 400_000, "weak"),
            ([&good[..], &[0]].concat(), 400_040, "behind"),
            (good[..good.len() - 1].to_vec(), 400_040, "PKCS#10"),
            (vec![], 400_040, "PKCS#10"),
        ] {
            let (seen, message) = read(&der).unwrap_err();
            assert!(seen == code && message.contains(says), "{seen} {message}, not {code} {says}");
        }
        let pem = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----";
        assert_eq!(CertificateRequest::read(pem, ID).unwrap_err().error_code, 400_012);
    }
}
