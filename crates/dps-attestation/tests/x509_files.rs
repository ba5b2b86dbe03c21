//! Whatever people have in their files: every key format, every wrong file, each taken or refused by name.
//!
//! `data/make.sh` made the files, all throwaway.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

use std::{sync::Arc, time::SystemTime};

use dps_attestation::X509Identity;
use proptest::prelude::*;
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::PrivateKeyDer,
    sign::{Signer, SigningKey},
};

/// Reads a file of `data` at compile time.
macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("data/", $name)).as_slice()
    };
}

const RSA_CERT: &[u8] = data!("rsa2048.cert.pem");
const RSA_KEY: &[u8] = data!("rsa2048.pkcs8.pem");
const P256_CERT: &[u8] = data!("p256.cert.pem");
const P256_KEY: &[u8] = data!("p256.pkcs8.pem");
const SCHEMES: [SignatureScheme; 3] = [
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
];

fn refusal(certificates: &[u8], key: &[u8]) -> String {
    match X509Identity::from_pem(certificates, key) {
        Ok(identity) => panic!("taken: {identity:?}"),
        Err(error) => {
            assert_eq!(error.kind(), dps_state_machine::ErrorKind::Configuration);
            error.to_string()
        }
    }
}

/// The content of the first block of a PEM file.
fn der(pem: &[u8]) -> Vec<u8> {
    use base64::Engine;
    let text = std::str::from_utf8(pem).unwrap();
    let base64: String = text
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN "))
        .skip(1)
        .take_while(|line| !line.starts_with("-----END "))
        .collect();
    base64::engine::general_purpose::STANDARD.decode(base64).unwrap()
}

#[test]
fn every_key_format_is_taken() {
    let cases = [
        ("rsa-device", RSA_CERT, RSA_KEY),
        ("rsa-device", RSA_CERT, data!("rsa2048.pkcs1.pem")),
        ("rsa-device", data!("rsa4096.cert.pem"), data!("rsa4096.pkcs1.pem")),
        ("ec-device", P256_CERT, P256_KEY),
        ("ec-device", P256_CERT, data!("p256.sec1.pem")),
        ("ec-device", data!("p384.cert.pem"), data!("p384.pkcs8.pem")),
        ("ec-device", data!("p384.cert.pem"), data!("p384.sec1.pem")),
        ("ec-device", data!("p256.version1-cert.pem"), data!("p256.sec1.pem")),
    ];
    for (index, (name, certificate, key)) in cases.into_iter().enumerate() {
        let identity = X509Identity::from_pem(certificate, key)
            .unwrap_or_else(|error| panic!("case {index}: {error}"));
        assert_eq!(identity.common_name(), Some(name), "case {index}");
        let signer = identity.certified_key().key.choose_scheme(&SCHEMES).unwrap();
        assert!(!signer.sign(b"a handshake").unwrap().is_empty(), "case {index}");
        identity.preflight(&name.parse().unwrap(), SystemTime::now()).unwrap();
    }
}

#[test]
fn der_is_taken_in_files_and_as_bytes() {
    for (certificate, key) in [
        (RSA_CERT, RSA_KEY),
        (RSA_CERT, data!("rsa2048.pkcs1.pem")),
        (P256_CERT, P256_KEY),
        (data!("p384.cert.pem"), data!("p384.pkcs8.pem")),
    ] {
        let (certificate, key) = (der(certificate), der(key));
        X509Identity::from_pem(&certificate, &key).unwrap();
        let identity = X509Identity::from_der(vec![certificate.clone()], key).unwrap();
        assert_eq!(identity.chain().len(), 1);
        assert!(identity.chain().eq([&*certificate]));
    }
}

#[test]
fn a_format_under_another_formats_label_is_taken() {
    let relabeled =
        String::from_utf8(RSA_KEY.to_vec()).unwrap().replace("PRIVATE KEY", "RSA PRIVATE KEY");
    X509Identity::from_pem(RSA_CERT, relabeled.as_bytes()).unwrap();
}

#[test]
fn rustls_gets_chain_and_key_without_parsing_them_again() {
    let identity = X509Identity::from_pem(P256_CERT, P256_KEY).unwrap();
    let certified = identity.certified_key();
    certified.keys_match().unwrap();
    assert_eq!(certified.key.algorithm(), SignatureAlgorithm::ECDSA);
    assert!(certified.cert.iter().map(|der| der.as_ref()).eq(identity.chain()));
}

#[test]
fn one_file_may_hold_it_all_among_other_things() {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    // SEC1 with its EC PARAMETERS block, a request, a second certificate behind, words around.
    let all = format!(
        "\u{feff}Bag Attributes\n    friendlyName: device\nsubject=CN = ec-device\n{}{}-----BEGIN NOTE-----\nc2Vj\n-----END NOTE-----\n{}{}\ntrailing garbage \u{fffd}\n",
        text(data!("p256.sec1.pem")),
        text(P256_CERT),
        text(data!("rsa2048.csr.pem")),
        text(RSA_CERT),
    );
    for all in [all.clone(), all.replace('\n', "\r\n"), all.replace('\n', "\r")] {
        let identity = X509Identity::from_pem(all.as_bytes(), all.as_bytes()).unwrap();
        assert_eq!(identity.common_name(), Some("ec-device"));
        // Nobody needs the other certificate.
        assert_eq!(identity.chain().len(), 1);
    }
}

#[test]
fn an_encrypted_key_is_refused_by_name() {
    let files = [
        data!("rsa2048.encrypted-pkcs8.pem").to_vec(),
        data!("rsa2048.encrypted-pkcs1.pem").to_vec(),
        der(data!("rsa2048.encrypted-pkcs8.pem")),
    ];
    for key in files {
        let message = refusal(RSA_CERT, &key);
        assert!(message.starts_with("private key: it is encrypted"), "{message}");
        assert!(message.contains("openssl pkey"), "{message}");
    }
}

#[test]
fn a_kind_of_key_that_cannot_be_used_is_named() {
    let cases = [
        (data!("rsa1024.pkcs8.pem"), "an RSA key of 1024 bits; give"),
        (data!("rsa2048-exponent3.pkcs8.pem"), "public exponent is less than 65537"),
        (data!("p521.sec1.pem"), "P-521; give an RSA key of 2048 to 4096 bits"),
        (data!("p521.pkcs8.pem"), "P-521"),
        (data!("secp256k1.sec1.pem"), "secp256k1"),
        (data!("secp256k1.pkcs8.pem"), "secp256k1"),
        (data!("ed25519.pkcs8.pem"), "an Ed25519 key"),
        (data!("dsa.pkcs8.pem"), "a DSA key"),
        (data!("rsa-pss.pkcs8.pem"), "an RSA-PSS-only key"),
        (data!("p256-explicit.sec1.pem"), "written out instead of named"),
    ];
    for (key, says) in cases {
        let message = refusal(P256_CERT, key);
        assert!(message.starts_with("private key: it") && message.contains(says), "{message}");
    }
}

#[test]
fn a_key_without_its_public_half_or_with_a_compressed_one_is_completed_from_the_certificate() {
    for key in [
        data!("p256-no-public.sec1.pem"),
        data!("p256-no-public.pkcs8.pem"),
        data!("p256-compressed.sec1.pem"),
        data!("p256-compressed.pkcs8.pem"),
    ] {
        for key in [key.to_vec(), der_of_key(key)] {
            let identity = X509Identity::from_pem(P256_CERT, &key).unwrap();
            let signer = identity.certified_key().key.choose_scheme(&SCHEMES).unwrap();
            assert!(!signer.sign(b"a handshake").unwrap().is_empty());
            // In a chain of others the right one is found.
            let message = refusal(&[RSA_CERT, P256_CERT].concat(), &key);
            assert!(message.contains("the private key belongs to number 2"), "{message}");
            let message = refusal(data!("p384.cert.pem"), &key);
            assert!(message.contains("without its public half that belongs to none"), "{message}");
        }
    }
    let p384 = data!("p384-no-public.sec1.pem");
    X509Identity::from_pem(data!("p384.cert.pem"), p384).unwrap();
}

/// The content of the block with the key.
fn der_of_key(pem: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(pem).unwrap();
    let (_, key) = text.split_once("-----END EC PARAMETERS-----").unwrap_or(("", text));
    der(key.as_bytes())
}

#[test]
fn the_key_of_another_certificate_is_refused() {
    for (certificate, key) in [
        (RSA_CERT, data!("rsa4096.pkcs1.pem")),
        (P256_CERT, RSA_KEY),
        (data!("p384.cert.pem"), P256_KEY),
    ] {
        let message = refusal(certificate, key);
        assert!(
            message.starts_with("private key: it is not the key of the certificate CN="),
            "{message}"
        );
    }
}

#[test]
fn a_wrong_file_for_the_certificate_is_named_for_what_it_is() {
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(RSA_CERT.iter().flat_map(|b| [*b, 0])).collect();
    let cut_off = &RSA_CERT[..RSA_CERT.len() / 2];
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "it is empty"),
        (b" \r\n".to_vec(), "it is empty"),
        (b"hello".to_vec(), "neither PEM text nor DER"),
        (utf16, "UTF-16"),
        (cut_off.to_vec(), "no END line; it was cut off"),
        (RSA_KEY.to_vec(), "only PRIVATE KEY; was the key's file given"),
        (data!("p256.sec1.pem").to_vec(), "only EC PARAMETERS, EC PRIVATE KEY; was the key's file"),
        (data!("rsa2048.csr.pem").to_vec(), "a request is no certificate yet"),
        (data!("rsa2048.trusted-cert.pem").to_vec(), "openssl x509"),
        (data!("rsa2048.p7b.pem").to_vec(), "openssl pkcs7"),
        (data!("rsa2048.public.pem").to_vec(), "only PUBLIC KEY"),
        (data!("rsa2048.p12").to_vec(), "a PKCS#12 bundle"),
        (der(RSA_KEY), "a private key; were the two files swapped?"),
        (der(data!("rsa2048.pkcs1.pem")), "a private key; were the two files swapped?"),
        (der(data!("rsa2048.csr.pem")), "a certificate request"),
        (der(data!("rsa2048.p7b.pem")), "a PKCS#7 bundle"),
        (der(data!("rsa2048.public.pem")), "a public key"),
        (b"0 is how DER starts".to_vec(), "damaged, or no certificate at all"),
        ([der(RSA_CERT), b"\n".to_vec()].concat(), "damaged, or no certificate at all"),
    ];
    for (file, says) in cases {
        let message = refusal(&file, RSA_KEY);
        assert!(message.starts_with("certificate: ") && message.contains(says), "{message}");
    }
}

#[test]
fn a_wrong_file_for_the_key_is_named_for_what_it_is() {
    let two = [RSA_KEY, P256_KEY].concat();
    let openssh = b"-----BEGIN OPENSSH PRIVATE KEY-----\nc2Vj\n-----END OPENSSH PRIVATE KEY-----\n";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "it is empty"),
        (b"c2VjcmV0".to_vec(), "neither PEM text nor DER"),
        (RSA_CERT.to_vec(), "only CERTIFICATE; was the certificate's file given"),
        (data!("rsa2048.public.pem").to_vec(), "only PUBLIC KEY; give the private key"),
        (two, "more than one"),
        (openssh.to_vec(), "rewrite a copy of it with `ssh-keygen -p -m PEM"),
        (data!("rsa2048.p12").to_vec(), "openssl pkcs12 -in IN -nocerts"),
        (der(RSA_CERT), "were the two files swapped?"),
        (der(data!("rsa2048.public.pem")), "a public key"),
        (b"0 is how DER starts".to_vec(), "or damaged"),
    ];
    for (file, says) in cases {
        let message = refusal(RSA_CERT, &file);
        assert!(message.starts_with("private key: ") && message.contains(says), "{message}");
    }
}

#[test]
fn a_signing_key_is_checked_as_far_as_it_tells_its_public_half() {
    let key_of = |certificate, key| {
        X509Identity::from_pem(certificate, key).unwrap().certified_key().key.clone()
    };
    let chain = || vec![der(P256_CERT)];
    let identity = X509Identity::from_signing_key(chain(), key_of(P256_CERT, P256_KEY)).unwrap();
    assert_eq!(identity.common_name(), Some("ec-device"));
    assert!(identity.certified_key().key.choose_scheme(&SCHEMES).is_some());
    assert!(format!("{:?}", identity.certified_key().key).ends_with("(***)"));

    let another = key_of(RSA_CERT, RSA_KEY);
    let error = X509Identity::from_signing_key(chain(), another.clone()).unwrap_err().to_string();
    assert_eq!(
        error,
        "private key: it is not the key of the certificate CN=ec-device; give the two that belong together"
    );
    // A key that keeps its public half to itself is for the service to judge.
    X509Identity::from_signing_key(chain(), Arc::new(WithoutPublicHalf(another))).unwrap();

    let ed25519 = PrivateKeyDer::try_from(der(data!("ed25519.pkcs8.pem"))).unwrap();
    let ed25519 = rustls::crypto::ring::sign::any_supported_type(&ed25519).unwrap();
    let error = X509Identity::from_signing_key(chain(), ed25519).unwrap_err().to_string();
    assert!(error.starts_with("private key: it is an Ed25519 key; give an RSA key"), "{error}");
    assert!(X509Identity::from_signing_key(vec![], key_of(P256_CERT, P256_KEY)).is_err());
}

#[derive(Debug)]
struct WithoutPublicHalf(Arc<dyn SigningKey>);

impl SigningKey for WithoutPublicHalf {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.0.choose_scheme(offered)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[test]
fn the_number_of_a_damaged_certificate_is_said() {
    let chain = vec![der(RSA_CERT), b"junk".to_vec()];
    let message = X509Identity::from_der(chain, der(RSA_KEY)).unwrap_err().to_string();
    assert_eq!(message, "certificate: number 2 of the chain is damaged, or no certificate at all");
    let message = X509Identity::from_der(vec![], der(RSA_KEY)).unwrap_err().to_string();
    assert!(message.contains("there is none"), "{message}");
}

/// `openssl x509 -in p256.cert.pem -noout -fingerprint -sha256`, without the colons.
#[test]
fn the_thumbprint_is_as_openssl_counts_it() {
    let identity = X509Identity::from_pem(P256_CERT, P256_KEY).unwrap();
    assert_eq!(
        identity.leaf_thumbprint(),
        "E8FE6EDC99BE473434669B819C6F115C4F52D476E8F0676B2F938B0A8C5117DB"
    );
}

#[test]
fn an_identity_prints_its_names_and_no_key() {
    let identity = X509Identity::from_pem(P256_CERT, P256_KEY).unwrap();
    assert_eq!(
        format!("{identity:?}"),
        "X509Identity(CN=ec-device, self-signed (1 certificate sent), private key ***)"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing panics, and no error lets a piece of the key out.
    #[test]
    fn damaged_files_are_refused_or_taken(
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        which in 0..4usize,
    ) {
        let mut files = [P256_CERT.to_vec(), P256_KEY.to_vec(), der(P256_CERT), der(P256_KEY)];
        let file = &mut files[which];
        *place.get_mut(file) = byte;
        let [pem_cert, pem_key, der_cert, der_key] = files;
        for result in [
            X509Identity::from_pem(&pem_cert, &pem_key),
            X509Identity::from_der(vec![der_cert], der_key),
        ] {
            let message = result.err().map(|error| error.to_string()).unwrap_or_default();
            let leaked = std::str::from_utf8(P256_KEY)
                .unwrap()
                .lines()
                .filter(|line| !line.starts_with("-----"))
                .flat_map(|line| line.as_bytes().windows(8))
                .any(|piece| message.as_bytes().windows(8).any(|text| text == piece));
            prop_assert!(!leaked && message.len() < 400 && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(X509Identity::from_pem(&bytes, P256_KEY).is_err());
        prop_assert!(X509Identity::from_pem(P256_CERT, &bytes).is_err());
        prop_assert!(X509Identity::from_der(vec![bytes.clone()], bytes).is_err());
    }
}
