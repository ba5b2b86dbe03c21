//! Symmetric keys as people paste them. The emulator reads them by the same types.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_attestation::{GroupKey, SymmetricKey};

use crate::input::{parts, text};

/// Parts: a key's text, a registration id.
pub fn run(data: &[u8]) {
    let mut parts = parts(data);
    let key = text(parts.next().unwrap_or_default());
    let id = text(parts.next().unwrap_or(b"pump-17"));

    let device = key.parse::<SymmetricKey>();
    let group = key.parse::<GroupKey>();
    assert_eq!(device.is_ok(), group.is_ok(), "both are base64");
    match (&device, &group) {
        (Ok(device), Ok(group)) => {
            let shown = device.expose_base64();
            assert_eq!(*shown, *group.expose_base64());
            assert!(!STANDARD.decode(shown.as_bytes()).expect("it is base64").is_empty());
            let again: SymmetricKey = shown.parse().expect("what it shows, it reads");
            assert_eq!(*again.expose_base64(), *shown);
            assert_eq!(format!("{device:?} {group:?}"), "SymmetricKey(***) GroupKey(***)");
            if let Ok(id) = id.parse() {
                let derived = STANDARD.decode(group.derive(&id).expose_base64().as_bytes());
                assert_eq!(derived.expect("it is base64").len(), 32);
            }
        }
        (device, _) => {
            let error = device.as_ref().expect_err("it is no key").to_string();
            assert!(error.starts_with("symmetric key: "), "{error}");
            check_quiet(&key, &error);
        }
    }
}

/// Nothing of a key is in the error, not even of a broken one.
fn check_quiet(key: &str, error: &str) {
    // Words of the error's own are no leak.
    const LONGEST_WORD: usize = 24;
    for window in key.as_bytes().windows(LONGEST_WORD) {
        let spoken = window.iter().any(|byte| matches!(byte, b' ' | b'=' | b'-' | b';'));
        let leaked = error.as_bytes().windows(LONGEST_WORD).any(|part| part == window);
        assert!(spoken || !leaked, "{error:?} repeats {key:?}");
    }
}
