//! The search can find: secrets that are given away on purpose, in every way that there is, whole or in part.

use std::time::SystemTime;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use dps_conformance::Canaries;
use libtest_mimic::{Failed, Trial};

use crate::{
    canaries::{DEVICE_KEY, EC_KEY, PROXY_PASSWORD, RSA_KEY, canaries},
    capture::{mark, show, since},
};

type Leak = (&'static str, fn(&[u8]) -> String);

/// How some bytes can get into text.
const LEAKS: [Leak; 15] = [
    ("decimal", |bytes| format!("key: {bytes:?}, more: 1")),
    ("pretty", |bytes| format!("{:#?}", Some(bytes))),
    ("hexadecimal_list", |bytes| format!("{bytes:02x?}")),
    ("hexadecimal_list_unpadded", |bytes| format!("{bytes:x?}")),
    ("hexadecimal_list_prefixed", |bytes| format!("{bytes:#04x?}")),
    ("hexadecimal", |bytes| hex(bytes, "")),
    ("hexadecimal_upper_case", |bytes| format!("payload: 0x{}", hex(bytes, "").to_uppercase())),
    ("hexadecimal_with_colons", |bytes| hex(bytes, ":")),
    ("base64", |bytes| STANDARD.encode(bytes)),
    ("base64_for_urls", |bytes| URL_SAFE_NO_PAD.encode(bytes)),
    ("base64_inside_of_other", |bytes| STANDARD.encode([b"user:".as_slice(), bytes].concat())),
    ("base64_on_lines", |bytes| {
        let text = STANDARD.encode([b"1".as_slice(), bytes].concat());
        text.as_bytes().chunks(10).map(|line| format!("{}\n", line.escape_ascii())).collect()
    }),
    ("percent_encoded", |bytes| {
        STANDARD.encode(bytes).replace('+', "%2B").replace('/', "%2f").replace('=', "%3D")
    }),
    ("escaped", |bytes| format!("Bytes(b\"{}\")", bytes.escape_ascii())),
    ("escaped_in_json", |bytes| format!("{:?}", format!("b\"{}\"", bytes.escape_ascii()))),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = LEAKS
        .into_iter()
        .map(|(name, leak)| Trial::test(format!("a_leak_is_found::{name}"), move || is_found(leak)))
        .collect();
    trials.push(Trial::test("a_leak_is_found::traced_and_logged", traced_and_logged));
    trials.push(Trial::test("a_leak_is_found::text", text));
    trials.push(Trial::test("a_leak_is_found::shortest_anywhere", shortest_anywhere));
    trials
}

fn hex(bytes: &[u8], between: &str) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(between)
}

/// Secrets of no run in particular.
fn any_canaries() -> Canaries {
    canaries(&"0ne00AABBCC".parse().unwrap(), SystemTime::now())
}

fn is_found(leak: fn(&[u8]) -> String) -> Result<(), Failed> {
    let key = STANDARD.decode(DEVICE_KEY)?;
    let lines: String = EC_KEY.lines().filter(|line| !line.starts_with('-')).collect();
    let private = STANDARD.decode(lines)?;
    let scalar = private.get(36..68).unwrap();
    let whole = [&key, scalar, PROXY_PASSWORD.as_bytes()];
    // A part from anywhere is enough.
    let parts = (0..50).map(|at| key.get(at..at + 13).unwrap());
    let canaries = any_canaries();
    for secret in whole.into_iter().chain(parts).chain([private.as_slice()]) {
        finds(&canaries, &format!("DEBUG some::target: sent {} in 3 ms", leak(secret)))?;
    }
    Ok(())
}

fn finds(canaries: &Canaries, output: &str) -> Result<(), Failed> {
    if canaries.found_in(output.as_bytes()).is_empty() {
        return Err(format!("nothing was found in {output}").into());
    }
    Ok(())
}

/// What is captured is searched: by way of each of the two facades and of a value's own `Debug`.
fn traced_and_logged() -> Result<(), Failed> {
    #[derive(Debug)]
    struct Leaky<'a> {
        #[expect(dead_code, reason = "it is shown")]
        key: &'a [u8],
    }
    // A secret of its own: the others search the same output.
    let key: Vec<u8> = (0..40_u8).map(|number| number.wrapping_mul(73) ^ 0x5a).collect();
    let mut canaries = Canaries::new();
    canaries.add("another key", &key);
    let leaks: [fn(&[u8]); 3] = [
        |key| tracing::trace!(target: "elsewhere", ?key, "sent"),
        |key| log::trace!("sent {key:?}"),
        |key| show(&Leaky { key }),
    ];
    for leak in leaks {
        let mark = mark();
        leak(&key);
        if canaries.found_in(&since(mark)).is_empty() {
            return Err("nothing was found".into());
        }
    }
    Ok(())
}

/// The shortest parts that count, at any distance from where the search looks.
fn shortest_anywhere() -> Result<(), Failed> {
    let canaries = any_canaries();
    let encoded = STANDARD.encode(PROXY_PASSWORD);
    for (secret, length) in [(PROXY_PASSWORD, 8), (encoded.trim_end_matches('='), 11)] {
        // The last character of base64 is made of other bytes too.
        for part in secret.as_bytes().windows(length).take(secret.len() - length) {
            for before in 0..9 {
                finds(&canaries, &format!("{:before$}{}", "", part.escape_ascii()))?;
            }
        }
    }
    Ok(())
}

fn text() -> Result<(), Failed> {
    let canaries = any_canaries();
    finds(&canaries, &format!("sig={DEVICE_KEY}"))?;
    finds(&canaries, RSA_KEY)?;
    finds(&canaries, EC_KEY)?;
    finds(&canaries, &format!("http://user:{PROXY_PASSWORD}@proxy"))?;
    let harmless = "INFO registered in 3 ms, [1, 2, 3, 4, 5, 6, 7, 8, 9], deadbeefdeadbeefdeadbeef";
    let found = canaries.found_in(harmless.as_bytes());
    if found.is_empty() { Ok(()) } else { Err(found.join("\n").into()) }
}
