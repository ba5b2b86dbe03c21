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
        let spaceless = without_space(output);
        let lists = [
            ("as a list of decimal numbers", listed(&spaceless, 10)),
            ("as a list of hexadecimal numbers", listed(&spaceless, 16)),
            ("in hexadecimal digits", unhexed(output)),
        ];
        let mut texts = vec![("as it is", output.to_vec())];
        for (how, view) in [
            ("without white space", spaceless),
            ("percent-encoded", percent_decoded(output)),
            ("escaped", escaped),
            ("escaped twice", twice),
        ] {
            // Most output looks the same either way.
            if texts.iter().all(|(_, seen)| *seen != view) {
                texts.push((how, view));
            }
        }
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
    /// Whether four bytes with this [`digest`] are anywhere in a part.
    fours: Vec<bool>,
}

impl Windows {
    fn new(length: usize) -> Self {
        Self { length, parts: HashMap::new(), fours: vec![false; 1 << DIGEST_BITS] }
    }

    fn add(&mut self, number: usize, bytes: &[u8]) {
        for part in bytes.windows(self.length) {
            self.parts.insert(part.to_vec(), number);
        }
        for four in bytes.windows(4).filter_map(digest) {
            self.fours.get_mut(four).into_iter().for_each(|four| *four = true);
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

    /// Where parts of secrets are, and of which. Only every so many bytes are looked at that no part fits between.
    fn hits(&self, view: &[u8]) -> impl Iterator<Item = (usize, usize)> {
        let step = self.length - 3;
        let mut at = 0;
        let landmarks = std::iter::from_fn(move || {
            while let Some(four) = view.get(at..at + 4) {
                let here = at;
                at += step;
                if digest(four).and_then(|four| self.fours.get(four)) == Some(&true) {
                    return Some(here);
                }
            }
            None
        });
        landmarks.flat_map(move |here| (here + 1).saturating_sub(step)..=here).filter_map(|start| {
            let part = view.get(start..start + self.length)?;
            self.parts.get(part).map(|number| (start, *number))
        })
    }
}

/// Few places of a table are taken by the parts of all secrets.
const DIGEST_BITS: u32 = 20;

/// A place in such a table for the first four bytes.
fn digest(bytes: &[u8]) -> Option<usize> {
    let four = u32::from_le_bytes(*bytes.first_chunk()?);
    usize::try_from(four.wrapping_mul(0x9e37_79b1) >> (u32::BITS - DIGEST_BITS)).ok()
}

fn without_space(output: &[u8]) -> Vec<u8> {
    output.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
}

fn digit(byte: Option<&u8>, radix: u32) -> Option<u8> {
    char::from(*byte?).to_digit(radix).and_then(|digit| u8::try_from(digit).ok())
}

/// What stands behind the escapes that begin with `mark`. `escape` reads what follows it: a byte, and how many it
/// took; `None` when that is no escape.
fn decoded(output: &[u8], mark: u8, escape: fn(&[u8]) -> Option<(u8, usize)>) -> Vec<u8> {
    let mut plain = Vec::with_capacity(output.len());
    let mut rest = output;
    while let Some((before, [_, after @ ..])) =
        rest.iter().position(|byte| *byte == mark).and_then(|at| rest.split_at_checked(at))
    {
        let (byte, used) = escape(after).unwrap_or((mark, 0));
        plain.extend_from_slice(before);
        plain.push(byte);
        rest = after.get(used..).unwrap_or_default();
    }
    plain.extend_from_slice(rest);
    plain
}

fn percent_decoded(output: &[u8]) -> Vec<u8> {
    decoded(output, b'%', two_digits)
}

fn two_digits(after: &[u8]) -> Option<(u8, usize)> {
    Some((digit(after.first(), 16)? << 4 | digit(after.get(1), 16)?, 2))
}

/// What stands behind the escapes of Rust's and JSON's strings.
fn unescaped(output: &[u8]) -> Vec<u8> {
    decoded(output, b'\\', |after| {
        let (kind, after) = after.split_first()?;
        Some(match kind {
            b'x' => two_digits(after).map(|(byte, used)| (byte, 1 + used))?,
            b'u' => {
                // \u{1b}, or \u001b
                let braces = if after.first() == Some(&b'{') { 2 } else { 0 };
                let digits = after.iter().filter(|byte| **byte != b'{').take(4);
                let digits: Vec<u8> = digits.map_while(|byte| digit(Some(byte), 16)).collect();
                let value =
                    digits.iter().fold(0_u32, |value, digit| value << 4 | u32::from(*digit));
                (u8::try_from(value).unwrap_or(b'?'), 1 + digits.len() + braces)
            }
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            b't' => (b'\t', 1),
            b'0' => (0, 1),
            other => (*other, 1),
        })
    })
}

/// The bytes that are written as numbers with commas between them, like `[12,34]` or `[0xc,0x22]`.
fn listed(without_space: &[u8], radix: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in without_space.split(|byte| matches!(byte, b',' | b'[' | b']')) {
        let text = str::from_utf8(part).unwrap_or_default();
        // What is no number parts one list from the next.
        match u8::from_str_radix(text.trim_start_matches("0x"), radix) {
            Ok(byte) => bytes.push(byte),
            Err(_) if part.is_empty() => {}
            Err(_) => bytes.push(b'|'),
        }
    }
    bytes
}

/// The bytes that are written as pairs of hexadecimal digits, with or without colons and spaces between them.
fn unhexed(output: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut digits = Vec::new();
    for byte in output.iter().chain(b"|") {
        match digit(Some(byte), 16) {
            Some(digit) => digits.push(digit),
            None if matches!(byte, b':' | b' ' | b'-' | b'\n') => {}
            None => {
                // From either digit on, since what comes before may look like one.
                for digits in [digits.as_slice(), digits.get(1..).unwrap_or_default()] {
                    bytes.extend(
                        digits.chunks_exact(2).flat_map(|two| {
                            two.iter().copied().reduce(|high, low| high << 4 | low)
                        }),
                    );
                    bytes.push(b'|');
                }
                digits.clear();
            }
        }
    }
    bytes
}
