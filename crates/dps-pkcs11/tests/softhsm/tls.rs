//! TLS handshakes that a key in a token signs.

use std::sync::Arc;

use cryptoki::object::Attribute;
use dps_client::X509Identity;
use dps_pkcs11::Pkcs11Key;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SubjectPublicKeyInfo,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::ResolvesClientCert,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
    sign::{SigningKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use crate::support::{Kind, SoftHsm, in_own_process};

/// An authority, and an identity with a certificate for the key.
pub(crate) fn certified(key: Pkcs11Key) -> (CertificateDer<'static>, X509Identity) {
    let (authority, leaf) = certificate(&key);
    (authority, X509Identity::from_signing_key(vec![leaf.to_vec()], Arc::new(key)).unwrap())
}

fn certificate(key: &Pkcs11Key) -> (CertificateDer<'static>, CertificateDer<'static>) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let spki = SubjectPublicKeyInfo::from_der(&key.public_key().unwrap()).unwrap();
    let leaf =
        CertificateParams::new(["device".into()]).unwrap().signed_by(&spki, &authority).unwrap();
    (authority.der().clone(), leaf.der().clone())
}

/// A handshake with a server that wants the certificate, and a byte each way; what went wrong first.
pub(crate) fn handshake(
    (authority, identity): (CertificateDer<'static>, X509Identity),
    version: &'static SupportedProtocolVersion,
) -> Result<(), std::io::Error> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let provider = Arc::new(default_provider());
    let own = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![own.cert.der().clone()],
            PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()).into(),
        )
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let resolver: Arc<dyn ResolvesClientCert> =
        Arc::new(SingleCertAndKey::from(identity.certified_key()));
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(resolver);
    let (near, far) = tokio::io::duplex(1 << 16);
    let serve = async move {
        let mut stream = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(far).await?;
        stream.write_all(b"!").await?;
        stream.flush().await
    };
    let connect = async move {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let mut stream = connector.connect("localhost".try_into().unwrap(), near).await?;
        stream.read_u8().await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (served, connected) = runtime.block_on(async { tokio::join!(serve, connect) });
    // When the client can't sign, the server sees no more than the end.
    connected?;
    served
}

fn both_versions(hsm: &SoftHsm, kind: Kind) {
    hsm.make(kind, "key", 1);
    let key = hsm.open("pkcs11:token=dps;object=key?pin-value=1234").unwrap();
    for version in [&TLS12, &TLS13] {
        handshake(certified(key.clone()), version).unwrap();
    }
}

#[test]
fn rsa_in_tls_1_2_and_1_3() {
    in_own_process("tls::rsa_in_tls_1_2_and_1_3", |hsm| both_versions(hsm, Kind::Rsa(2048)));
}

#[test]
fn p256_in_tls_1_2_and_1_3() {
    in_own_process("tls::p256_in_tls_1_2_and_1_3", |hsm| both_versions(hsm, Kind::P256));
}

#[test]
fn p384_in_tls_1_2_and_1_3() {
    in_own_process("tls::p384_in_tls_1_2_and_1_3", |hsm| both_versions(hsm, Kind::P384));
}

/// Whether the signatures are those that a verifier takes.
fn assert_verifies(key: &Pkcs11Key, schemes: &[SignatureScheme]) {
    let (_, leaf) = certificate(key);
    let leaf = webpki::EndEntityCert::try_from(&leaf).unwrap();
    let algorithms = default_provider().signature_verification_algorithms;
    for scheme in schemes {
        let signature = key.choose_scheme(&[*scheme]).unwrap().sign(b"message").unwrap();
        let (_, of_the_scheme) =
            algorithms.mapping.iter().find(|(known, _)| known == scheme).unwrap();
        leaf.verify_signature(of_the_scheme[0], b"message", &signature).unwrap();
    }
}

const PSS: [SignatureScheme; 3] = [
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];
const PKCS1: [SignatureScheme; 3] = [
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

#[test]
fn every_rsa_scheme_verifies_whoever_hashes() {
    in_own_process("tls::every_rsa_scheme_verifies_whoever_hashes", |hsm| {
        hsm.make(Kind::Rsa(2048), "key", 1);
        let uri = format!("pkcs11:object=key?pin-value=1234&{}", hsm.faulty());
        for mechanisms in ["40 41 42 43 44 45", "1 d"] {
            hsm.set("mechanisms", mechanisms);
            assert_verifies(&hsm.open(&uri).unwrap(), &[PSS, PKCS1].concat());
        }
        // CKM_RSA_PKCS alone: no TLS 1.3.
        hsm.set("mechanisms", "1");
        let key = hsm.open(&uri).unwrap();
        assert!(key.choose_scheme(&PSS).is_none());
        assert_verifies(&key, &PKCS1);
    });
}

/// Numbers in a signature begin with a zero byte now and then, and with a set bit half of the time.
#[test]
fn a_hundred_ecdsa_signatures_verify() {
    in_own_process("tls::a_hundred_ecdsa_signatures_verify", |hsm| {
        hsm.make(Kind::P256, "key", 1);
        let key = hsm.open("pkcs11:object=key?pin-value=1234").unwrap();
        assert_verifies(&key, &[SignatureScheme::ECDSA_NISTP256_SHA256; 100]);
        assert!(key.choose_scheme(&[SignatureScheme::ECDSA_NISTP384_SHA384]).is_none());
    });
}

#[test]
fn a_key_without_a_public_object_signs() {
    in_own_process("tls::a_key_without_a_public_object_signs", |hsm| {
        hsm.make(Kind::P256, "key", 1);
        let (authority, identity) =
            certified(hsm.open("pkcs11:object=key?pin-value=1234").unwrap());
        let session = hsm.session();
        for public in session.find_objects(&[Attribute::Verify(true)]).unwrap() {
            session.destroy_object(public).unwrap();
        }
        let key = hsm.open("pkcs11:object=key?pin-value=1234").unwrap();
        let chain = identity.chain().map(<[u8]>::to_vec).collect();
        let identity = X509Identity::from_signing_key(chain, Arc::new(key)).unwrap();
        handshake((authority, identity), &TLS13).unwrap();
    });
}

#[test]
fn the_key_of_another_certificate_is_refused() {
    in_own_process("tls::the_key_of_another_certificate_is_refused", |hsm| {
        hsm.make(Kind::P256, "one", 1);
        hsm.make(Kind::P256, "other", 2);
        let (_, identity) = certified(hsm.open("pkcs11:object=one?pin-value=1234").unwrap());
        let chain = identity.chain().map(<[u8]>::to_vec).collect();
        let other = hsm.open("pkcs11:object=other?pin-value=1234").unwrap();
        let error = X509Identity::from_signing_key(chain, Arc::new(other)).unwrap_err();
        assert!(error.to_string().contains("it is not the key of the certificate"), "{error}");
    });
}

#[test]
fn a_key_that_wants_the_pin_for_each_signature_gets_it() {
    in_own_process("tls::a_key_that_wants_the_pin_for_each_signature_gets_it", |hsm| {
        let always = [Attribute::AlwaysAuthenticate(true)];
        hsm.make_with(Kind::Rsa(2048), "rsa", 1, &always);
        hsm.make_with(Kind::P256, "p256", 2, &always);
        let key = hsm.open("pkcs11:object=rsa?pin-value=1234").unwrap();
        for version in [&TLS12, &TLS13] {
            handshake(certified(key.clone()), version).unwrap();
        }
        // SoftHSM has no mechanism for it that takes a message in parts.
        let error = hsm.open("pkcs11:object=p256?pin-value=1234").unwrap_err();
        assert!(error.to_string().contains("it wants the PIN for each signature"), "{error}");
    });
}
