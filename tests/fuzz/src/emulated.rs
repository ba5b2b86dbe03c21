//! The emulator that targets talk to.

use std::sync::LazyLock;

use dps_emulator::{
    Config,
    fuzzing::{Fixture, Unconnected},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

/// The key of the device `pump-17`, then its second one, then the key of the group.
pub(crate) const KEYS: [&str; 3] = ["ZGV2aWNlIGtleQ==", "c2Vjb25kIGtleQ==", "Z3JvdXAga2V5"];

/// The ID scope.
pub(crate) const SCOPE: &str = "0ne00AABBCC";

const CERTIFICATE: &str = include_str!("../../../crates/dps-attestation/tests/data/p256.cert.pem");

static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::default);

static CERTIFICATES: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
    vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate")]
});

/// A fresh one.
pub(crate) fn emulator() -> Unconnected {
    let [device, second, group] = KEYS;
    let file = format!(
        r#"
        id-scope = "{SCOPE}"
        [[enrolment]]
        registration-id = "pump-17"
        symmetric-key = "{device}"
        secondary-key = "{second}"
        polls = 1
        payload = "echo"
        register = [{{ refuse = 429, retry-after = 1 }}]
        [[enrolment]]
        group = "group"
        symmetric-key = "{group}"
        [[enrolment]]
        registration-id = "pump-18"
        certificate = """{CERTIFICATE}"""
        retry-after = ["1", "x"]
        polls = 2
        [[enrolment]]
        group = "x509-group"
        ca = """{CERTIFICATE}"""
        "#
    );
    FIXTURE.emulator(Config::from_toml(&file).expect("a configuration")).expect("an emulator")
}

/// What a device with a certificate shows; the input's first byte says whether it does.
pub(crate) fn certificates(data: &[u8]) -> (&'static [CertificateDer<'static>], &[u8]) {
    let (shown, rest) = data.split_first().unwrap_or((&0, &[]));
    (if *shown == b'c' { &CERTIFICATES } else { &[] }, rest)
}
