//! Symmetric keys as people paste them, for the device and for the emulator.

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
    let emulated = key.parse::<dps_emulator::SymmetricKey>();
    assert_eq!(device.is_ok(), group.is_ok(), "both are base64");
    match (&device, &group) {
        (Ok(device), Ok(group)) => {
            let shown = device.expose_base64();
            assert_eq!(*shown, *group.expose_base64());
            assert!(!STANDARD.decode(shown.as_bytes()).expect("it is base64").is_empty());
            let again: SymmetricKey = shown.parse().expect("what it shows, it reads");
            assert_eq!(*again.expose_base64(), *shown);
            assert_eq!(format!("{device:?} {group:?}"), "SymmetricKey(***) GroupKey(***)");
            // The service takes what its devices take.
            let emulated = emulated.expect("the emulator reads what a device reads");
            assert_eq!(*emulated.to_base64(), *shown);
            if let Ok(id) = id.parse() {
                let derived = group.derive(&id);
                assert_eq!(*derived.expose_base64(), *emulated.derive(&id).to_base64());
            }
        }
        (device, _) => {
            let error = device.as_ref().expect_err("it is no key").to_string();
            assert!(error.starts_with("symmetric key: "), "{error}");
            check_quiet(&key, &error);
            if let Err(error) = emulated {
                check_quiet(&key, &error.to_string());
            }
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
