//! Finds secrets in output, however they were written into it.

use std::collections::{BTreeMap, HashMap};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};

/// So many bytes in a row of a secret are a leak.
const BYTES: usize = 8;

/// So many characters in a row of a secret's base64 are a leak: 8 bytes take 11 of them at most.
const BASE64: usize = 11;

/// Secrets that must not be seen.
#[derive(Clone)]
pub struct Canaries {
    names: Vec<String>,
    /// Every part of a secret that is a leak, as it is.
    raw: Windows,
    /// As base64, at each of the three places where it can stand within other bytes.
    base64: Windows,
}

impl Canaries {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { names: Vec::new(), raw: Windows::new(BYTES), base64: Windows::new(BASE64) }
    }

    /// Adds a secret of at least 8 bytes.
    ///
    /// # Panics
    /// When it is shorter: parts of it would be found everywhere.
    pub fn add(&mut self, name: impl Into<String>, secret: impl AsRef<[u8]>) {
        let (name, secret) = (name.into(), secret.as_ref());
        assert!(secret.len() >= BYTES, "{name} is too short");
        let number = self.names.len();
        self.names.push(name);
        self.raw.add(number, secret);
        for before in 0..3 {
            let mut shifted = vec![0; before];
            shifted.extend_from_slice(secret);
            for engine in [&STANDARD, &URL_SAFE] {
                let text = engine.encode(&shifted);
                // The first and the last characters are made of other bytes too.
                let first = (before * 8).div_ceil(6);
                let last = (shifted.len() * 8) / 6;
                self.base64.add(number, text.as_bytes().get(first..last).unwrap_or_default());
            }
        }
    }

    /// The secrets that are in the output, each with the way in which it is written, and what stands before it.
    #[must_use]
    pub fn found_in(&self, output: &[u8]) -> Vec<String> {
        let escaped = unescaped(output);
        let twice = unescaped(&escaped);
        let mut texts = vec![("as it is", output.to_vec())];
        for (how, view) in [
            ("without white space", without_space(output)),
            ("percent-encoded", percent_decoded(output)),
            ("escaped", escaped),
            ("escaped twice", twice),
        ] {
            // Most output looks the same either way.
            if texts.iter().all(|(_, seen)| *seen != view) {
                texts.push((how, view));
            }
        }
        let lists = [
            ("as a list of decimal numbers", listed(output, 10)),
            ("as a list of hexadecimal numbers", listed(output, 16)),
            ("in hexadecimal digits", unhexed(output)),
        ];
        let mut found = Vec::new();
        let mut look = |windows: &Windows, how: &str, view: &[u8]| {
            for (number, at) in windows.found_in(view) {
                let name = self.names.get(number).map_or("", String::as_str);
                let before = view.get(at.saturating_sub(200)..at).unwrap_or_default();
                let before = String::from_utf8_lossy(before);
                found.push(format!("{name}, {how}, after {before:?}"));
            }
        };
        for (how, view) in texts.iter().chain(&lists) {
            look(&self.raw, how, view);
        }
        for (how, view) in &texts {
            look(&self.base64, &format!("in base64, {how}"), view);
        }
        found
    }

    /// The secrets of which 16 bytes in a row are in some memory, as they are. What a register held, 8 bytes at
    /// most, may be left on a stack by anything that is computed.
    #[must_use]
    pub fn found_bare_in(&self, memory: &[u8]) -> Vec<&str> {
        let goes_on = |at: usize| {
            let next = memory.get(at + BYTES..at + 2 * BYTES);
            next.is_some_and(|part| self.raw.parts.contains_key(part))
        };
        let mut found: Vec<usize> = self
            .raw
            .hits(memory)
            .filter(|(at, _)| goes_on(*at))
            .map(|(_, number)| number)
            .collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().filter_map(|number| self.names.get(number)).map(String::as_str).collect()
    }

    /// # Panics
    /// When a secret is in the output.
    pub fn assert_absent(&self, what: &str, output: &[u8]) {
        let found = self.found_in(output);
        assert!(found.is_empty(), "{what} gives secrets away:\n{}", found.join("\n"));
    }
}

impl Default for Canaries {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Canaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.names).finish()
    }
}

/// All parts of secrets that have one length, and whose they are.
#[derive(Clone)]
struct Windows {
    length: usize,
    parts: HashMap<Vec<u8>, usize>,
    /// Whether any part starts with these two bytes.
    starts: Vec<bool>,
}

impl Windows {
    fn new(length: usize) -> Self {
        Self { length, parts: HashMap::new(), starts: vec![false; 1 << 16] }
    }

    fn add(&mut self, number: usize, bytes: &[u8]) {
        for part in bytes.windows(self.length) {
            if let Some(start) = start_of(part).and_then(|start| self.starts.get_mut(start)) {
                *start = true;
            }
            self.parts.insert(part.to_vec(), number);
        }
    }

    /// Which secrets are there, and where first.
    fn found_in(&self, view: &[u8]) -> BTreeMap<usize, usize> {
        let mut found = BTreeMap::new();
        for (at, number) in self.hits(view) {
            found.entry(number).or_insert(at);
        }
        found
    }

    /// Where parts of secrets are, and of which.
    fn hits(&self, view: &[u8]) -> impl Iterator<Item = (usize, usize)> {
        view.windows(self.length).enumerate().filter_map(|(at, part)| {
            let starts = start_of(part).and_then(|start| self.starts.get(start)) == Some(&true);
            let number = if starts { self.parts.get(part) } else { None };
            number.map(|number| (at, *number))
        })
    }
}

fn start_of(part: &[u8]) -> Option<usize> {
    match part {
        [first, second, ..] => Some(usize::from(*first) << 8 | usize::from(*second)),
        _ => None,
    }
}

fn without_space(output: &[u8]) -> Vec<u8> {
    output.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
}

fn digit(byte: Option<&u8>, radix: u32) -> Option<u8> {
    char::from(*byte?).to_digit(radix).and_then(|digit| u8::try_from(digit).ok())
}

fn percent_decoded(output: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(output.len());
    let mut rest = output;
    while let Some((first, after)) = rest.split_first() {
        match (first, digit(after.first(), 16), digit(after.get(1), 16)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

/// What stands behind the escapes of Rust's and JSON's strings.
fn unescaped(output: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(output.len());
    let mut rest = output;
    while let Some((first, after)) = rest.split_first() {
        let (byte, used) = match (first, after.first()) {
            (b'\\', Some(b'x')) => match (digit(after.get(1), 16), digit(after.get(2), 16)) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (*first, 1),
            },
            (b'\\', Some(b'u')) => {
                // \u{1b}, or \u001b
                let digits: Vec<u8> = after
                    .iter()
                    .skip(1)
                    .filter(|byte| **byte != b'{')
                    .take(4)
                    .map_while(|byte| digit(Some(byte), 16))
                    .collect();
                let value =
                    digits.iter().fold(0_u32, |value, digit| value << 4 | u32::from(*digit));
                let braces = if after.get(1) == Some(&b'{') { 2 } else { 0 };
                (u8::try_from(value).unwrap_or(b'?'), 2 + digits.len() + braces)
            }
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'0')) => (0, 2),
            (b'\\', Some(other)) => (*other, 2),
            _ => (*first, 1),
        };
        plain.push(byte);
        rest = rest.get(used..).unwrap_or_default();
    }
    plain
}

/// The bytes that are written as numbers with commas between them, like `[12, 34]` or `[0xc, 0x22]`, on one line or
/// several.
fn listed(output: &[u8], radix: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in without_space(output).split(|byte| matches!(byte, b',' | b'[' | b']')) {
        let text = str::from_utf8(part).unwrap_or_default();
        // What is no number parts one list from the next.
        match u8::from_str_radix(text.trim_start_matches("0x"), radix) {
            Ok(byte) => bytes.push(byte),
            Err(_) if part.is_empty() => {}
            Err(_) => bytes.extend_from_slice(b"|"),
        }
    }
    bytes
}

/// The bytes that are written as pairs of hexadecimal digits, with or without colons and spaces between them.
fn unhexed(output: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    // From either digit on, since what comes before may look like one.
    for skipped in 0..2 {
        let mut digits = Vec::new();
        let mut flush = |digits: &mut Vec<u8>| {
            for pair in digits.get(skipped..).unwrap_or_default().chunks_exact(2) {
                bytes.push(pair.iter().fold(0, |byte, digit| byte << 4 | digit));
            }
            bytes.push(b'|');
            digits.clear();
        };
        for byte in output {
            match digit(Some(byte), 16) {
                Some(digit) => digits.push(digit),
                None if matches!(byte, b':' | b' ' | b'-' | b'\n') => {}
                None => flush(&mut digits),
            }
        }
        flush(&mut digits);
    }
    bytes
}
