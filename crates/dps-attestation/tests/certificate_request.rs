//! Requests for certificates, as openssl reads them, by keys of every kind and from every place.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
};

use dps_attestation::{CredentialError, Error, RegistrationId, RequestKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use rustls::{
    OtherError, SignatureAlgorithm, SignatureScheme,
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer},
    sign::{Signer, SigningKey},
};

fn device() -> RegistrationId {
    // The underscore is in no PrintableString.
    "pump_17:a".parse().unwrap()
}

/// What openssl writes, to both of its outputs.
fn openssl(arguments: &str, input: &[u8]) -> String {
    let mut command = Command::new("openssl");
    command.args(arguments.split(' '));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process =
        command.spawn().unwrap_or_else(|error| panic!("openssl: {error}; install openssl"));
    // It may have ended before it has read all.
    let _written = process.stdin.take().unwrap().write_all(input);
    let output = process.wait_with_output().unwrap();
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "openssl {arguments}: {text}");
    text
}

fn assert_request_of(key: &RequestKey, algorithm: &str) {
    let request = key.request(&device()).unwrap();
    let text = openssl("req -inform DER -verify -noout -text", request.der());
    assert!(text.contains("verify OK"), "{text}");
    assert!(text.contains("Subject: CN = pump_17:a\n"), "{text}");
    assert!(text.contains("Version: 1 (0x0)"), "{text}");
    assert!(text.contains(&format!("Signature Algorithm: {algorithm}\n")), "{text}");
}

/// The public half of the key that a request is for.
fn public_key(key: &RequestKey) -> String {
    openssl("req -inform DER -pubkey -noout", key.request(&device()).unwrap().der())
}

#[test]
fn a_key_made_here_makes_a_request_that_openssl_takes() {
    let key = RequestKey::generate().unwrap();
    assert_request_of(&key, "ecdsa-with-SHA256");
    assert_ne!(public_key(&key), public_key(&RequestKey::generate().unwrap()));
    assert_eq!(format!("{key:?}"), "RequestKey(***)");
}

#[test]
fn keys_of_every_kind_and_format_make_requests_and_are_written_as_pkcs8() {
    let p256 = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
    let rsa = openssl("genrsa 2048", b"");
    let sec1 = |pem: &str| openssl("ec", pem.as_bytes());
    let der = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
    let cases = [
        (sec1(&p256).into_bytes(), "ecdsa-with-SHA256"),
        (sec1(&p384).into_bytes(), "ecdsa-with-SHA384"),
        (openssl("rsa -traditional", rsa.as_bytes()).into_bytes(), "sha256WithRSAEncryption"),
        (p256.into_bytes(), "ecdsa-with-SHA256"),
        (p384.into_bytes(), "ecdsa-with-SHA384"),
        (rsa.into_bytes(), "sha256WithRSAEncryption"),
        (der, "ecdsa-with-SHA256"),
    ];
    for (given, algorithm) in cases {
        let key = RequestKey::from_pem(&given).unwrap();
        assert_request_of(&key, algorithm);
        let written = key.to_pem().unwrap();
        assert!(written.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        assert!(written.lines().all(|line| line.len() <= 64));
        assert!(openssl("pkey -check -noout", written.as_bytes()).contains("is valid"));
        let again = RequestKey::from_pem(written.as_bytes()).unwrap();
        assert_eq!(public_key(&again), public_key(&key));
        assert_eq!(again.to_pem(), Some(written));
    }
}

#[test]
fn keys_that_can_not_be_used_are_refused_by_name() {
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_pem();
    let key = KeyPair::generate().unwrap().serialize_pem();
    let public = openssl("pkey -pubout", key.as_bytes());
    let half = openssl("ec -no_public -conv_form compressed", key.as_bytes());
    let whole = openssl("ec -conv_form uncompressed", half.as_bytes());
    assert_request_of(&RequestKey::from_pem(whole.as_bytes()).unwrap(), "ecdsa-with-SHA256");
    for (given, says) in [
        (ed25519.as_str(), "it is an Ed25519 key; give an RSA key of 2048 to 4096 bits"),
        ("", "it is empty"),
        (&public, "there is no private key in it, only PUBLIC KEY"),
        (&half, "without its public half that belongs to none of the certificates; write it whole"),
        (&key.repeat(2), "there is more than one in the file"),
    ] {
        let error = RequestKey::from_pem(given.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Configuration(_)), "{error}");
        let message = error.to_string();
        assert!(message.starts_with("private key: ") && message.contains(says), "{message}");
    }
}

#[test]
fn a_registration_id_that_does_not_fit_a_common_name_is_warned_of_and_not_cut() {
    for (length, fits) in [(1, true), (64, true), (65, false), (127, false), (128, false)] {
        let id: RegistrationId = "a".repeat(length).parse().unwrap();
        let doubt = RequestKey::doubtful_name(&id);
        assert_eq!(doubt.is_none(), fits, "{doubt:?}");
        assert!(doubt.is_none_or(|doubt| doubt.contains(&format!("{length} characters"))));
        let request = RequestKey::generate().unwrap().request(&id).unwrap();
        let text = openssl("req -inform DER -verify -noout -subject", request.der());
        assert!(text.contains(&format!("subject=CN = {id}\n")), "{text}");
    }
}

/// A key outside of the process, which signs or doesn't.
#[derive(Debug)]
struct Outside {
    inner: Arc<dyn SigningKey>,
    shows_public_half: bool,
    schemes: &'static [SignatureScheme],
    failure: Option<rustls::Error>,
}

impl Outside {
    fn new(key: &KeyPair) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let inner = any_supported_type(&key).unwrap();
        let schemes = &[SignatureScheme::ECDSA_NISTP256_SHA256];
        Self { inner, shows_public_half: true, schemes, failure: None }
    }
}

impl SigningKey for Outside {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.schemes.iter().find(|scheme| offered.contains(scheme))?;
        let inner = self.inner.choose_scheme(&[*scheme])?;
        Some(Box::new(OutsideSigner { inner, failure: self.failure.clone() }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.inner.public_key().filter(|_| self.shows_public_half)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.inner.algorithm()
    }
}

#[derive(Debug)]
struct OutsideSigner {
    inner: Box<dyn Signer>,
    failure: Option<rustls::Error>,
}

impl Signer for OutsideSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.failure.clone().map_or_else(|| self.inner.sign(message), Err)
    }

    fn scheme(&self) -> SignatureScheme {
        self.inner.scheme()
    }
}

#[test]
fn a_key_outside_of_the_process_signs_a_request_and_is_never_written() {
    let pair = KeyPair::generate().unwrap();
    let key = RequestKey::from_signing_key(Arc::new(Outside::new(&pair))).unwrap();
    assert_request_of(&key, "ecdsa-with-SHA256");
    assert_eq!(key.to_pem(), None);
    let same = RequestKey::from_pem(pair.serialize_pem().as_bytes()).unwrap();
    assert_eq!(public_key(&key), public_key(&same));
}

#[test]
fn a_key_outside_of_the_process_that_can_not_be_used_is_refused_by_name() {
    let pair = KeyPair::generate().unwrap();
    let hidden = Outside { shows_public_half: false, ..Outside::new(&pair) };
    let error = RequestKey::from_signing_key(Arc::new(hidden)).unwrap_err().to_string();
    assert!(error.starts_with("private key: its public half can't be read"), "{error}");

    let ed25519 = Outside::new(&KeyPair::generate_for(&PKCS_ED25519).unwrap());
    let error = RequestKey::from_signing_key(Arc::new(ed25519)).unwrap_err().to_string();
    assert!(error.starts_with("private key: it is an Ed25519 key"), "{error}");

    let other = Outside { schemes: &[SignatureScheme::RSA_PSS_SHA256], ..Outside::new(&pair) };
    let key = RequestKey::from_signing_key(Arc::new(other)).unwrap();
    let error = key.request(&device()).unwrap_err().to_string();
    assert!(error.starts_with("private key: it signs a certificate request by no"), "{error}");
}

#[test]
fn a_key_outside_of_the_process_that_does_not_sign_says_why_in_its_own_words() {
    let pair = KeyPair::generate().unwrap();
    let locked = CredentialError::new("the PIN is locked").hint("unlock it");
    for (failure, hint) in [
        (rustls::Error::General("the PIN is locked".into()), None),
        (rustls::Error::Other(OtherError(Arc::new(locked))), Some("unlock it")),
    ] {
        let outside = Outside { failure: Some(failure), ..Outside::new(&pair) };
        let key = RequestKey::from_signing_key(Arc::new(outside)).unwrap();
        let error = key.request(&device()).unwrap_err();
        assert!(matches!(error, Error::Credential(_)) && !error.is_retryable(), "{error:?}");
        assert!(error.to_string().contains("the PIN is locked"), "{error}");
        if let Some(hint) = hint {
            assert_eq!(error.hint().as_deref(), Some(hint));
        }
    }
}
