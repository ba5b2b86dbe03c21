//! The emulator that targets connect to.

use std::{sync::LazyLock, time::Duration};

use dps_emulator::{Config, Transport, fuzzing::Unconnected};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use crate::stream::{self, Scripted};

/// The key of the device `pump-17`, then its second one, then the key of the group.
pub(crate) const KEYS: [&str; 3] =
    ["dGhlIGRldmljZSdzIGtleQ==", "dGhlIHNlY29uZCBrZXkgb2YgaXQ=", "dGhlIGtleSBvZiB0aGUgZ3JvdXA="];

/// The ID scope.
pub(crate) const SCOPE: &str = "0ne00AABBCC";

const CERTIFICATE: &str = include_str!("../../../crates/dps-attestation/tests/data/p256.cert.pem");

static CERTIFICATES: LazyLock<Vec<CertificateDer<'static>>> = LazyLock::new(|| {
    vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("a certificate")]
});

/// A fresh one.
pub(crate) fn emulator() -> Unconnected {
    let [device, second, group] = KEYS;
    let file = format!(
        r#"
        id-scope = "{SCOPE}"
        [[enrollment]]
        registration-id = "pump-17"
        symmetric-key = "{device}"
        secondary-key = "{second}"
        polls = 1
        payload = "echo"
        register = [{{ refuse = 429, retry-after = 1 }}]
        [[enrollment]]
        group = "group"
        symmetric-key = "{group}"
        [[enrollment]]
        registration-id = "pump-18"
        certificate = """{CERTIFICATE}"""
        retry-after = ["1", "x"]
        polls = 2
        [[enrollment]]
        group = "x509-group"
        ca = """{CERTIFICATE}"""
        "#
    );
    Unconnected::new(Config::from_toml(&file).expect("a configuration")).expect("an emulator")
}

/// Has a fresh one serve the input in the protocol of a port until it closes the connection of the silent peer, and
/// returns what it wrote. The first byte: `c` for a device with a certificate. The second: see [`Scripted`].
pub(crate) fn served(data: &[u8], transport: Transport) -> Vec<u8> {
    let (shown, data) = data.split_first().unwrap_or((&0, &[]));
    let certificates: &[_] = if *shown == b'c' { &CERTIFICATES } else { &[] };
    let (stream, written) = Scripted::new(data);
    let emulator = emulator();
    let serving = emulator.serve(transport, stream, certificates);
    let reason = stream::run(Duration::from_secs(48 * 3600), serving);
    assert!(!reason.expect("the connection of a silent peer is closed").is_empty());
    let mut written = written.lock().expect("no holder of the lock panics");
    std::mem::take(&mut written)
}
