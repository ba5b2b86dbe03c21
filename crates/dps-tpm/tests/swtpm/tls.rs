//! TLS handshakes that a key in the TPM signs.

use std::{path::Path, process::Command, sync::Arc, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use dps_client::RequestKey;
use dps_tpm::{KeySource, Password, TpmError, TpmSigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair, SubjectPublicKeyInfo,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SignatureAlgorithm, SignatureScheme,
    SupportedProtocolVersion,
    client::ResolvesClientCert,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use crate::{handles::ECC_STORAGE, support::swtpm, swtpm::Swtpm};

/// Attributes of a key that signs what is given to it: fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, sign.
const SIGN: [u8; 4] = [0, 4, 0, 0x72];

fn p256(attributes: [u8; 4]) -> Vec<u8> {
    [&[0, 0x23, 0, 0x0b][..], &attributes, &[0, 0, 0, 0x10, 0, 0x10, 0, 3, 0, 0x10, 0, 0, 0, 0]]
        .concat()
}

fn rsa(bits: u16, scheme: &[u8]) -> Vec<u8> {
    let bits = bits.to_be_bytes();
    [&[0, 1, 0, 0x0b][..], &SIGN, &[0, 0, 0, 0x10], scheme, &bits, &[0, 0, 0, 0, 0, 0]].concat()
}

const ANY_SCHEME: [u8; 2] = [0, 0x10];

/// A key at a handle.
fn at_handle(swtpm: &Swtpm, template: &[u8]) -> Result<TpmSigningKey, TpmError> {
    swtpm.keep_primary(template, 0x8100_0002);
    let source = "tpm:0x81000002".parse().unwrap();
    TpmSigningKey::new(&swtpm.tpm(), &source, Password::default())
}

/// A file like those of tpm2-openssl, but for DER's own BOOLEAN.
fn file(private: &[u8], public: &[u8], parent: u32, password: bool) -> String {
    let element = |tag: u8, content: &[u8]| {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x82][..], &length, content].concat()
    };
    let flag = element(0xa0, &[1, 1, if password { 0 } else { 0xff }]);
    let parent = [&[0][..], &parent.to_be_bytes()].concat();
    let parent = element(2, if parent[1] < 0x80 { &parent[1..] } else { &parent });
    let kind = [6, 6, 0x67, 0x81, 5, 10, 1, 3];
    let content = [&kind[..], &flag, &parent, &element(4, public), &element(4, private)].concat();
    let body = STANDARD.encode(minimal(&element(0x30, &content)));
    format!("-----BEGIN TSS2 PRIVATE KEY-----\n{body}\n-----END TSS2 PRIVATE KEY-----\n")
}

/// DER wants the shortest form of a length: writes every length of two bytes anew where it has to.
fn minimal(der: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    let mut rest = der;
    while let Some((tag, after)) = rest.split_first() {
        let (length, content) = match after {
            [0x82, high, low, content @ ..] => {
                (usize::from(u16::from_be_bytes([*high, *low])), content)
            }
            [length, content @ ..] => (usize::from(*length), content),
            [] => panic!("cut off"),
        };
        let (content, next) = content.split_at(length);
        let content = if *tag == 0x30 || *tag == 0xa0 && content.len() > 3 {
            minimal(content)
        } else {
            content.to_vec()
        };
        written.push(*tag);
        match u16::try_from(content.len()).unwrap().to_be_bytes() {
            [0, short @ ..0x80] => written.push(short),
            [0, long] => written.extend([0x81, long]),
            [high, low] => written.extend([0x82, high, low]),
        }
        written.extend(content);
        rest = next;
    }
    written
}

fn in_file(
    swtpm: &Swtpm,
    template: &[u8],
    password: &str,
    given: &str,
) -> Result<TpmSigningKey, TpmError> {
    let parent = swtpm.make_primary(&ECC_STORAGE);
    let (private, public) = swtpm.make_key(parent, template, password.as_bytes());
    swtpm.command(0x165, &parent.to_be_bytes());
    let text = file(&private, &public, 0x4000_0001, !password.is_empty());
    assert!(KeySource::is_key_file(text.as_bytes()));
    TpmSigningKey::new(&swtpm.tpm(), &KeySource::File(text), given.parse().unwrap())
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// An authority, and a certificate for the key.
fn certified(key: TpmSigningKey) -> (CertificateDer<'static>, CertifiedKey) {
    let authority =
        CertifiedIssuer::self_signed(authority(), KeyPair::generate().unwrap()).unwrap();
    let spki = key.public_key().unwrap();
    let spki = SubjectPublicKeyInfo::from_der(&spki).unwrap();
    let leaf =
        CertificateParams::new(["device".into()]).unwrap().signed_by(&spki, &authority).unwrap();
    (authority.der().clone(), CertifiedKey::new(vec![leaf.der().clone()], Arc::new(key)))
}

/// A handshake with a server that wants the certificate, and a byte each way; what the client saw.
async fn handshake(
    key: TpmSigningKey,
    version: &'static SupportedProtocolVersion,
) -> Result<(), String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let provider = Arc::new(default_provider());
    let (authority, certified) = certified(key);
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
    let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(certified));
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
    let (served, connected) = tokio::join!(serve, connect);
    served.map_err(|error| error.to_string())?;
    connected.map(drop).map_err(|error| error.to_string())
}

async fn both_versions(key: TpmSigningKey) {
    for version in [&TLS12, &TLS13] {
        assert_eq!(handshake(key.clone(), version).await, Ok(()), "{version:?}");
    }
}

#[tokio::test]
async fn p256_at_a_handle() {
    let swtpm = swtpm!();
    let key = at_handle(&swtpm, &p256(SIGN)).unwrap();
    assert_eq!(key.algorithm(), SignatureAlgorithm::ECDSA);
    both_versions(key).await;
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}

#[tokio::test]
async fn rsa_at_a_handle() {
    let swtpm = swtpm!();
    let key = at_handle(&swtpm, &rsa(2048, &ANY_SCHEME)).unwrap();
    assert_eq!(key.algorithm(), SignatureAlgorithm::RSA);
    both_versions(key).await;
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}

#[tokio::test]
async fn p256_in_a_file() {
    let swtpm = swtpm!();
    both_versions(in_file(&swtpm, &p256(SIGN), "", "").unwrap()).await;
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}

#[tokio::test]
async fn rsa_in_a_file() {
    let swtpm = swtpm!();
    both_versions(in_file(&swtpm, &rsa(2048, &ANY_SCHEME), "", "").unwrap()).await;
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}

/// The key signs the request, and the certificate that comes for it is found by its public half.
#[tokio::test]
async fn a_certificate_is_requested_for_a_key_in_the_tpm() {
    let swtpm = swtpm!();
    let device = "pump-17".parse().unwrap();
    let authority =
        CertifiedIssuer::self_signed(authority(), KeyPair::generate().unwrap()).unwrap();
    let templates = [
        p256(SIGN),
        rsa(2048, &ANY_SCHEME),
        rsa(2048, &[0, 0x14, 0, 0x0b]),
        rsa(2048, &[0, 0x14, 0, 0x0c]),
    ];
    for (handle, template) in (0x8100_0010u32..).zip(templates) {
        swtpm.keep_primary(&template, handle);
        let source = format!("tpm:{handle:#x}").parse().unwrap();
        let key = TpmSigningKey::new(&swtpm.tpm(), &source, Password::default()).unwrap();
        let key = RequestKey::from_signing_key(Arc::new(key)).unwrap();
        assert_eq!(key.to_pem(), None);
        let request = key.request(&device).unwrap();
        // It verifies the signature.
        let request = CertificateSigningRequestParams::from_der(&request.der().into()).unwrap();
        let leaf = request.signed_by(&authority).unwrap().der().to_vec();
        let given = [authority.der().to_vec(), leaf.clone()];
        let issued = key.verify(&given, &device, SystemTime::now()).unwrap();
        assert!(issued.identity().chain().eq([&leaf]));
    }
    // A key that may sign by no scheme of requests.
    let pss = at_handle(&swtpm, &rsa(2048, &[0, 0x16, 0, 0x0b])).unwrap();
    let key = RequestKey::from_signing_key(Arc::new(pss)).unwrap();
    let message = key.request(&device).unwrap_err().to_string();
    assert!(message.contains("it signs a certificate request by no algorithm"), "{message}");
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}

#[tokio::test]
async fn a_file_whose_parent_is_at_a_handle() {
    let swtpm = swtpm!();
    swtpm.keep_primary(&ECC_STORAGE, 0x8100_0005);
    let (private, public) = swtpm.make_key(0x8100_0005, &p256(SIGN), b"");
    let source = KeySource::File(file(&private, &public, 0x8100_0005, false));
    both_versions(TpmSigningKey::new(&swtpm.tpm(), &source, Password::default()).unwrap()).await;
}

#[tokio::test]
async fn a_key_with_a_password_wants_it() {
    let swtpm = swtpm!();
    let error = in_file(&swtpm, &p256(SIGN), "secret", "").unwrap_err();
    assert_eq!(error.to_string(), "the password of the key is wrong or missing");
    both_versions(in_file(&swtpm, &p256(SIGN), "secret", "secret").unwrap()).await;
    let wrong = in_file(&swtpm, &p256(SIGN), "secret", "wrong").unwrap();
    let message = handshake(wrong, &TLS13).await.unwrap_err();
    assert!(message.contains("eof") || message.contains("password of the key"), "{message}");
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}

#[tokio::test]
async fn an_rsa_key_with_a_scheme_of_its_own_offers_only_that() {
    let swtpm = swtpm!();
    let key = at_handle(&swtpm, &rsa(2048, &[0, 0x14, 0, 0x0b])).unwrap();
    let offered = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
    let signer = key.choose_scheme(&offered).unwrap();
    assert_eq!(signer.scheme(), SignatureScheme::RSA_PKCS1_SHA256);
    assert!(key.choose_scheme(&offered[..1]).is_none());
    assert_eq!(handshake(key, &TLS12).await, Ok(()));
}

#[tokio::test]
async fn every_rsa_scheme_verifies() {
    let swtpm = swtpm!();
    let key = at_handle(&swtpm, &rsa(2048, &ANY_SCHEME)).unwrap();
    let (_, certified) = certified(key.clone());
    let certificate = &certified.cert[0];
    for scheme in [
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA512,
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RSA_PKCS1_SHA512,
    ] {
        let signature = key.choose_scheme(&[scheme]).unwrap().sign(b"message").unwrap();
        let algorithms = default_provider().signature_verification_algorithms;
        let (_, of_the_scheme) =
            algorithms.mapping.iter().find(|(known, _)| *known == scheme).unwrap();
        let leaf = webpki::EndEntityCert::try_from(certificate).unwrap();
        leaf.verify_signature(of_the_scheme[0], b"message", &signature).unwrap();
    }
}

#[tokio::test]
async fn keys_that_can_not_sign_handshakes_are_refused_by_name() {
    let swtpm = swtpm!();
    let cases = [
        (ECC_STORAGE.to_vec(), "an ECC key on P-256 that may not sign a TLS handshake"),
        // Restricted, as attestation keys are, with a scheme, which they need.
        (
            [
                &[0, 0x23, 0, 0x0b, 0, 5, 0, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10]
                    [..],
                &[0; 4],
            ]
            .concat(),
            "an ECC key on P-256 that may not sign a TLS handshake",
        ),
        // P-384.
        (
            [&[0, 0x23, 0, 0x0b][..], &SIGN, &[0, 0, 0, 0x10, 0, 0x10, 0, 4, 0, 0x10, 0, 0, 0, 0]]
                .concat(),
            "give an RSA key",
        ),
    ];
    for (handle, (template, says)) in (0x8100_0010u32..).zip(cases) {
        swtpm.keep_primary(&template, handle);
        let source = format!("tpm:{handle:#x}").parse().unwrap();
        let error = TpmSigningKey::new(&swtpm.tpm(), &source, Password::default()).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
    let source = "tpm:0x81000077".parse().unwrap();
    let error = TpmSigningKey::new(&swtpm.tpm(), &source, Password::default()).unwrap_err();
    assert_eq!(error.to_string(), "at 0x81000077 there is no key");
}

#[tokio::test]
async fn a_file_of_another_tpm_is_refused_when_it_signs() {
    let (swtpm, other) = (swtpm!(), swtpm!());
    let parent = other.make_primary(&ECC_STORAGE);
    let (private, public) = other.make_key(parent, &p256(SIGN), b"");
    let source = KeySource::File(file(&private, &public, 0x4000_0001, false));
    let key = TpmSigningKey::new(&swtpm.tpm(), &source, Password::default()).unwrap();
    let signer = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
    let message = signer.sign(b"message").unwrap_err().to_string();
    assert!(message.contains("was it made by another TPM"), "{message}");
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}

/// What `openssl genpkey` with the provider tpm2 makes; the second client needs a control channel.
fn openssl(swtpm: &Swtpm, folder: &Path, arguments: &[&str]) -> Option<String> {
    let path = folder.join("key.pem");
    let status = Command::new("openssl")
        .args(["genpkey", "-provider", "tpm2", "-provider", "default", "-out"])
        .arg(&path)
        .args(arguments)
        .env("TPM2OPENSSL_TCTI", format!("cmd:socat - UNIX-CONNECT:{}", swtpm.socket().display()))
        .output();
    match status {
        Ok(output) if output.status.success() => Some(std::fs::read_to_string(path).unwrap()),
        other => {
            let why = format!(
                "openssl with the provider tpm2: {other:?}; install the Debian packages tpm2-openssl, libtss2-tcti-cmd0 and socat"
            );
            assert!(std::env::var("CI").is_err(), "{why}");
            eprintln!("SKIPPED: {why}");
            None
        }
    }
}

#[tokio::test]
async fn files_that_tpm2_openssl_made() {
    let swtpm = swtpm!();
    let folder = swtpm.socket().with_file_name("openssl");
    std::fs::create_dir(&folder).unwrap();
    for arguments in [
        ["-algorithm", "EC", "-pkeyopt", "group:P-256"],
        ["-algorithm", "RSA", "-pkeyopt", "bits:2048"],
    ] {
        let Some(text) = openssl(&swtpm, &folder, &arguments) else { return };
        // The provider leaves its keys in a TPM without a resource manager.
        for handle in swtpm.in_memory() {
            swtpm.command(0x165, &handle.to_be_bytes());
        }
        let source = KeySource::File(text);
        both_versions(TpmSigningKey::new(&swtpm.tpm(), &source, Password::default()).unwrap())
            .await;
    }
}
