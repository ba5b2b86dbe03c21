//! SAS tokens before the emulator's judge: nothing but the right one proves anything.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use dps_attestation::{
    GroupKey, RegistrationId, SasToken, SymmetricKey,
    fuzzing::{signature, verify_signature},
};
use dps_emulator::fuzzing::Unconnected;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::{
    emulated::{KEYS, SCOPE, emulator},
    input::{parts, text},
};

static EMULATOR: LazyLock<Unconnected> = LazyLock::new(emulator);

const NOW: u64 = 1_700_000_000;

/// Parts: who signs (`1` and `2`, the device's keys; `g`, the group's for the claimed id; else a key that nobody knows), the
/// resource and the expiry that are signed, what stands before them in the token, and after; the ID scope and the
/// registration id that are claimed.
pub fn run(data: &[u8]) {
    let mut parts = parts(data);
    let mut next = || text(parts.next().unwrap_or_default());
    let (signer, resource, expiry) = (next(), next(), next());
    let (before, after, scope, id) = (next(), next(), next(), next());
    let key = match (&*signer, id.parse()) {
        ("1", _) => KEYS[0].parse().expect("a key"),
        ("2", _) => KEYS[1].parse().expect("a key"),
        ("g", Ok(id)) => group_key(&id),
        _ => SymmetricKey::from_bytes(b"a key that nobody enrolled").expect("a key"),
    };
    let signed = signature(&key, &resource, &expiry);
    let signed = utf8_percent_encode(&signed, NON_ALPHANUMERIC);
    let token = format!("{before}sr={resource}&sig={signed}&se={expiry}{after}");
    judge(&token, &scope, &id);
    // And as it came, without a signature of ours.
    judge(&text(data), SCOPE, "pump-17");

    // What our own client signs, the emulator takes, as long as it holds.
    if let (Ok(scope), Ok(id)) = (SCOPE.parse(), id.parse()) {
        let key = if id == "pump-17".parse().expect("an id") {
            KEYS[0].parse().expect("a key")
        } else {
            group_key(&id)
        };
        let seconds = expiry.parse::<u32>().unwrap_or(1);
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        let token = SasToken::sign(&key, &scope, &id, until);
        let taken = judge(token.expose(), SCOPE, id.as_str());
        let is_x509 = id.as_str().eq_ignore_ascii_case("pump-18");
        let is_other_case = id.as_str() != "pump-17" && id.as_str().eq_ignore_ascii_case("pump-17");
        assert!(is_other_case || taken == (u64::from(seconds) > NOW && !is_x509), "{id}");
    }
}

fn group_key(id: &RegistrationId) -> SymmetricKey {
    KEYS[2].parse::<GroupKey>().expect("a key").derive(id)
}

/// Whether the emulator takes it; then a second reader must find it right too.
fn judge(token: &str, scope: &str, id: &str) -> bool {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
    match EMULATOR.authenticate(now, scope, id, token) {
        Ok(enrollment) => {
            assert!(scope.eq_ignore_ascii_case(SCOPE));
            is_right(token, id, &enrollment).expect(token);
            true
        }
        Err((code, reason)) => {
            assert!(matches!(code / 1000, 400 | 401 | 404) && !reason.is_empty(), "{code}");
            false
        }
    }
}

fn is_right(token: &str, id: &str, enrollment: &str) -> Option<()> {
    let (scheme, fields) = token.split_once(' ')?;
    let fields: Vec<_> = fields.trim().split('&').filter_map(|f| f.split_once('=')).collect();
    let only = |name: &str| {
        let mut values = fields.iter().filter(|(key, _)| *key == name).map(|(_, value)| *value);
        values.next().filter(|_| values.next().is_none())
    };
    let (resource, expiry) = (only("sr")?, only("se")?);
    let decoded = |text| percent_decode_str(text).decode_utf8();
    let wanted = format!("{SCOPE}/registrations/{id}");
    let sig = decoded(only("sig")?).ok()?;
    let keys: &[SymmetricKey] = &match enrollment {
        "group" => vec![group_key(&id.parse().ok()?)],
        _ => vec![KEYS[0].parse().ok()?, KEYS[1].parse().ok()?],
    };
    let right = scheme.eq_ignore_ascii_case("SharedAccessSignature")
        && decoded(resource).ok()?.eq_ignore_ascii_case(&wanted)
        && expiry.parse::<u64>().ok()? > NOW
        && (enrollment == "group" || enrollment.eq_ignore_ascii_case(id))
        && fields.iter().all(|(key, value)| *key != "skn" || ["", "registration"].contains(value))
        && keys.iter().any(|key| verify_signature(key, resource, expiry, &padded(&sig)));
    right.then_some(())
}

/// The emulator reads signatures without their padding, the client's library only with it.
fn padded(sig: &str) -> String {
    let bare = sig.trim_end_matches('=');
    format!("{bare}{}", "=".repeat((4 - bare.len() % 4) % 4))
}
