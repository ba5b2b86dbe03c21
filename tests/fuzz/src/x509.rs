//! Certificates and private keys as people have them in files.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_attestation::X509Identity;
use dps_state_machine::{Error, ErrorKind};

use crate::input::{Secret, parts};

/// The private keys of the seeds: the PEM text, line by line, and the DER.
static SECRETS: LazyLock<Vec<Secret>> = LazyLock::new(|| {
    let files = [
        include_str!("../../../crates/dps-attestation/tests/data/p256.pkcs8.pem"),
        include_str!("../../../crates/dps-attestation/tests/data/p256.sec1.pem"),
        include_str!("../../../crates/dps-attestation/tests/data/rsa2048.pkcs8.pem"),
        include_str!("../../../crates/dps-attestation/tests/data/rsa2048.pkcs1.pem"),
    ];
    let secrets = files.iter().flat_map(|file| {
        let (_, key) = file.split_once("PRIVATE KEY-----\n").expect("a key");
        let text: String = key.lines().take_while(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(&text).expect("base64");
        [Secret::new(text.as_bytes(), 16), Secret::new(&der, 16)]
    });
    secrets.collect()
});

/// Parts: the certificates' file, the key's file; then certificates as DER.
pub fn run(data: &[u8]) {
    let mut parts = parts(data);
    let (certificates, key) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    check(X509Identity::from_pem(certificates, key));
    // Both in one file, or the wrong way round.
    check(X509Identity::from_pem(data, data));
    check(X509Identity::from_pem(key, certificates));
    let mut chain: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    chain.insert(0, certificates.to_vec());
    check(X509Identity::from_der(chain, key.to_vec()));
}

fn check(identity: Result<X509Identity, Error>) {
    let mut shown = format!("{identity:?}");
    match identity {
        Ok(identity) => {
            assert!(identity.chain().len() > 0);
            assert_eq!(identity.leaf_thumbprint().len(), 64);
            assert!(!identity.describe_chain().chars().any(char::is_control));
            let id = identity.common_name().and_then(|name| name.parse().ok());
            let id = id.unwrap_or_else(|| "pump-17".parse().expect("an id"));
            for seconds in [0, 1_800_000_000, u64::from(u32::MAX) * 200] {
                let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
                if let Err(error) = identity.preflight(&id, now) {
                    assert_eq!(error.kind(), ErrorKind::Configuration, "{seconds:?}");
                    shown.push_str(&error.to_string());
                }
            }
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = error.to_string();
            assert!(text.starts_with("certificate") || text.starts_with("private key"), "{text}");
            shown.push_str(&text);
        }
    }
    SECRETS.iter().for_each(|secret| secret.assert_not_in(&shown));
}
