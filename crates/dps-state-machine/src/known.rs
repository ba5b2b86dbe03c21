//! The secrets that a client has signed with or sent. A peer may say them back in any encoding, and no error repeats them.

use std::{
    collections::{HashSet, VecDeque, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use zeroize::Zeroizing;

use crate::secret::{MASK, View};

/// So many secrets are remembered: a token is signed for each request over HTTP, and only the last ones matter.
const MOST: usize = 16;
/// What is shorter stands in many texts by chance.
const SHORTEST: usize = 4;
/// So many bytes in a row of a key, in whatever encoding, are masked: the peer may have cut the rest off.
const PART: usize = 10;

/// The last secrets, in memory that is wiped when they are dropped.
#[derive(Default)]
pub(crate) struct Known(Mutex<VecDeque<Secret>>);

#[derive(Clone, PartialEq, Eq)]
struct Secret {
    text: Zeroizing<Vec<u8>>,
    /// Keys and signatures are random bytes, and so a part of one is told from other text.
    is_key: bool,
}

impl Known {
    pub(crate) fn add(&self, text: &[u8], is_key: bool) {
        if text.len() < SHORTEST {
            return;
        }
        let secret = Secret { text: Zeroizing::new(text.to_vec()), is_key };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What is used again counts as new.
        known.retain(|other| *other != secret);
        known.push_back(secret);
        if known.len() > MOST {
            known.pop_front();
        }
    }

    /// All encodings of what is known now; `None` when nothing is.
    pub(crate) fn encodings(&self) -> Option<Encodings> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut encodings = Encodings::default();
        known.iter().for_each(|secret| encodings.add(secret));
        (!known.is_empty()).then_some(encodings)
    }
}

/// What stands for the known secrets in a text.
#[derive(Default)]
pub(crate) struct Encodings {
    whole: Vec<Zeroizing<Vec<u8>>>,
    /// Hashes of the parts of keys.
    parts: HashSet<u64>,
    hasher: RandomState,
}

impl Encodings {
    /// The text with `***` in place of each secret; `None` when it has none.
    pub(crate) fn masked(&self, text: &[u8]) -> Option<Vec<u8>> {
        let views = View::levels(text).flat_map(|view| [view.of_digits(), view]);
        let mut ranges: Vec<Range<usize>> = views.flat_map(|view| self.ranges(&view)).collect();
        if ranges.is_empty() {
            return None;
        }
        ranges.sort_by_key(|range| range.start);
        let (mut shown, mut next) = (Vec::new(), 0);
        for Range { start, end } in ranges {
            if start > next || shown.is_empty() {
                shown.extend_from_slice(text.get(next..start).unwrap_or_default());
                shown.extend_from_slice(MASK.as_bytes());
            }
            next = next.max(end);
        }
        shown.extend_from_slice(text.get(next..).unwrap_or_default());
        Some(shown)
    }

    /// As [`masked`](Self::masked), for what can be displayed.
    pub(crate) fn masked_text(&self, text: &impl fmt::Display) -> Option<String> {
        let masked = self.masked(text.to_string().as_bytes())?;
        Some(String::from_utf8_lossy(&masked).into_owned())
    }

    fn ranges(&self, view: &View<'_>) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        for whole in &self.whole {
            ranges.extend(view.places(whole).map(|(range, _)| range));
        }
        if !self.parts.is_empty() {
            let parts = view.bytes().windows(PART).enumerate();
            let parts = parts.filter(|(_, part)| self.parts.contains(&self.hasher.hash_one(part)));
            ranges.extend(parts.map(|(at, _)| view.range(at..at + PART)));
        }
        ranges
    }

    fn add(&mut self, Secret { text, is_key }: &Secret) {
        let mut forms = vec![text.clone()];
        if *is_key {
            // A signature is sent in percent-encoding.
            let base64 = Zeroizing::new(View::new(text).bytes().to_vec());
            forms.extend(STANDARD.decode(&*base64).map(Zeroizing::new));
            forms.push(base64);
            forms.push(Zeroizing::new(STANDARD.encode(&**text).into_bytes()));
        }
        for form in &forms {
            for encoded in encoded(form) {
                if *is_key {
                    let parts = encoded.windows(PART).map(|part| self.hasher.hash_one(part));
                    self.parts.extend(parts);
                }
                if !*is_key || encoded.len() < PART {
                    self.whole.push(encoded);
                }
            }
        }
    }
}

/// The bytes as they are, as what is left of them in a text, in hexadecimal, and in base64, wherever they stand in it.
fn encoded(bytes: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut texts = vec![
        bytes.to_vec(),
        String::from_utf8_lossy(bytes).into_owned().into_bytes(),
        STANDARD.encode(bytes).into_bytes(),
    ];
    let digit = |nibble: u8| b"0123456789abcdef".get(usize::from(nibble)).copied();
    let mut hex = Vec::with_capacity(2 * bytes.len());
    hex.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).flatten());
    texts.push(hex);
    for before in 0..3 {
        let mut shifted = Zeroizing::new(Vec::with_capacity(before + bytes.len()));
        shifted.resize(before, 0);
        shifted.extend_from_slice(bytes);
        let text = Zeroizing::new(STANDARD_NO_PAD.encode(&*shifted));
        // The first and the last characters are made of other bytes too.
        let (first, last) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
        texts.push(text.as_bytes().get(first..last).unwrap_or_default().to_vec());
    }
    let mut texts: Vec<_> = texts.into_iter().map(Zeroizing::new).collect();
    let url_safe = |text: &Zeroizing<Vec<u8>>| {
        let url_safe = text.iter().map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        });
        Zeroizing::new(url_safe.collect::<Vec<_>>())
    };
    texts.extend(texts.iter().map(url_safe).collect::<Vec<_>>());
    texts.sort_unstable_by(|one, other| one.as_slice().cmp(other));
    texts.dedup();
    texts.retain(|text| text.len() >= SHORTEST);
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &[u8], is_key: bool) -> Encodings {
        let known = Known::default();
        known.add(text, is_key);
        known.encodings().unwrap()
    }

    fn shown(encodings: &Encodings, text: &str) -> String {
        encodings.masked_text(&text).unwrap_or_else(|| text.to_owned())
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first letter small and the second one great, as no tool writes them, and something in between.
    fn separated(bytes: &[u8], between: &str) -> String {
        let digits = bytes.iter().map(|byte| format!("{:x}{:X}", byte >> 4, byte & 15));
        digits.collect::<Vec<_>>().join(between)
    }

    fn entities(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("&#{byte};")).collect()
    }

    fn percent(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
    }

    #[test]
    fn each_encoding_of_a_password_is_masked_and_the_text_around_it_stays() {
        let password = "p%41ss/wörd+";
        let encodings = known(password.as_bytes(), false);
        let bytes = password.as_bytes();
        for text in [
            password.to_owned(),
            percent(bytes),
            percent(percent(bytes).as_bytes()),
            hex(bytes),
            hex(bytes).to_uppercase(),
            separated(bytes, ":"),
            separated(bytes, ", 0x"),
            entities(bytes),
            STANDARD.encode(bytes),
            STANDARD.encode(bytes).replace('+', "-").replace('/', "_"),
            serde_json::to_string(password).unwrap().trim_matches('"').to_owned(),
        ] {
            assert_eq!(shown(&encodings, &format!("no {text}.")), "no ***.", "{text}");
        }
        for user in ["u", "us", "user"] {
            let basic = STANDARD.encode(format!("{user}:{password}"));
            let shown = shown(&encodings, &basic);
            assert!(shown.contains(MASK) && shown.len() < 14, "{shown}");
        }
        assert_eq!(shown(&encodings, "p%41ss/"), "p%41ss/", "a part of a password is any word");
    }

    #[test]
    fn each_encoding_and_each_part_of_a_key_is_masked() {
        let bytes: Vec<u8> = (0..32).map(|i: u8| i.wrapping_mul(77).wrapping_add(201)).collect();
        let base64 = STANDARD.encode(&bytes);
        let sent = base64.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
        let both = [known(sent.as_bytes(), true), known(&bytes, true)];
        let texts = [
            sent.clone(),
            base64.clone(),
            hex(&bytes),
            hex(&bytes).to_uppercase(),
            separated(&bytes, "-"),
            entities(base64.as_bytes()),
            hex(base64.as_bytes()),
            percent(&bytes),
            percent(base64.as_bytes()),
            STANDARD.encode(&base64),
            STANDARD.encode(&sent),
        ];
        // Whoever is told of the bytes does not know how a token writes them within more base64.
        let (_, of_bytes) = texts.split_last().unwrap();
        let all = texts.iter().map(|text| (&both[0], text));
        for (encodings, text) in all.chain(of_bytes.iter().map(|text| (&both[1], text))) {
            assert_eq!(shown(encodings, &format!("no {text}.")), "no ***.", "{text}");
            let part = text.get(12..text.len() * 3 / 4).unwrap();
            let shown = shown(encodings, part);
            assert!(shown.contains(MASK) && shown.len() < 12, "{part}: {shown}");
        }
        for encodings in both {
            assert!(encodings.masked(&bytes).is_some_and(|shown| shown == MASK.as_bytes()));
        }
    }

    #[test]
    fn short_secrets_mask_nothing_and_the_last_ones_are_remembered() {
        let known = Known::default();
        known.add(b"abc", false);
        assert!(known.encodings().is_none());
        known.add(b"password-0", false);
        for number in 0..2 * MOST {
            known.add(b"the same", false);
            known.add(format!("password-{number}").as_bytes(), false);
        }
        let encodings = known.encodings().unwrap();
        assert_eq!(
            shown(&encodings, "abc the same password-0 password-31"),
            "abc *** password-0 ***"
        );
    }
}
