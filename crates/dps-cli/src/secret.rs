//! Secrets that were given in the wrong place. People paste a key where an id belongs, and messages end up in logs: so
//! no message repeats what looks like a secret.

use std::{borrow::Cow, ops::Range};

/// What stands in place of a secret.
const MASK: &str = "***";
/// So many characters of base64 are 16 bytes or more.
const SHORTEST: usize = 22;
/// What a text that holds a secret begins with, and what kind of a text it is then. The secret ends where the text does:
/// at a space, a quote or a semicolon.
const MARKS: [(&str, &str); 5] = [
    ("sharedaccesskey=", "a connection string"),
    ("sig=", "a SAS token"),
    ("sig%3d", "a SAS token"),
    ("sharedaccesssignature=", "a connection string"),
    ("accountkey=", "a connection string"),
];
const PEM: &str = "-----begin ";
const PEM_END: &str = "-----end ";

/// What kind of a secret the text holds, in words; `None` when it looks like none.
pub(crate) fn kind(text: &str) -> Option<&'static str> {
    find(text).map(|(_, what)| what)
}

/// The text with `***` in place of each secret.
pub(crate) fn masked(text: &str) -> Cow<'_, str> {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((Range { start, end }, _)) = find(rest) {
        shown.push_str(rest.get(..start).unwrap_or_default());
        shown.push_str(MASK);
        rest = rest.get(end..).unwrap_or_default();
    }
    if shown.is_empty() && rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    Cow::Owned(shown + rest)
}

/// The first secret: where it stands, and what it is.
fn find(text: &str) -> Option<(Range<usize>, &'static str)> {
    let lower = text.to_ascii_lowercase();
    let marked = MARKS.into_iter().filter_map(|(mark, what)| {
        let start = lower.match_indices(mark).map(|(at, _)| at + mark.len()).find(|start| {
            let masked = text.get(*start..).is_some_and(|rest| rest.starts_with(MASK));
            !masked && end_of_value(text, *start) > *start
        })?;
        Some((start..end_of_value(text, start), what))
    });
    let pem = lower.find(PEM).map(|start| {
        let after_end = lower.get(start..).and_then(|rest| rest.rfind(PEM_END));
        let end = after_end.map_or(text.len(), |at| start + at + PEM_END.len());
        (start..end, "PEM text")
    });
    let password = password(text).map(|range| (range, "a URL with a password"));
    let key = base64(text).map(|range| (range, "a key in base64"));
    // Of two that begin at the same place the more telling one comes first.
    marked.chain(pem).chain(password).chain(key).min_by_key(|(range, _)| range.start)
}

fn end_of_value(text: &str, start: usize) -> usize {
    let ends = |c: char| c.is_whitespace() || matches!(c, ';' | '"' | '\'' | '`' | ',');
    text.get(start..).and_then(|rest| rest.find(ends)).map_or(text.len(), |at| start + at)
}

/// What stands between `://USER:` and `@`.
fn password(text: &str) -> Option<Range<usize>> {
    text.match_indices("://").find_map(|(at, found)| {
        let start = at + found.len();
        let authority = text.get(start..end_of_value(text, start))?;
        let (user_info, _) = authority.rsplit_once('@')?;
        let colon = user_info.find(':')?;
        let range = start + colon + 1..start + user_info.len();
        (text.get(range.clone()) != Some(MASK) && !range.is_empty()).then_some(range)
    })
}

/// The first run of base64 that is random enough to be a key, and no path and no word.
fn base64(text: &str) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut start = 0;
    while start < bytes.len() {
        let run = bytes.get(start..).unwrap_or_default();
        let length = run.iter().take_while(|byte| is_base64(**byte)).count();
        let padding = run.iter().skip(length).take_while(|byte| **byte == b'=').count();
        let after = run.get(length + padding).copied();
        // `name=value` is no padding.
        let is_padded = padding > 0 && !after.is_some_and(|byte| byte.is_ascii_alphanumeric());
        if let Some(letters) = run.get(..length)
            && is_key(letters, is_padded)
        {
            return Some(start..start + length + if is_padded { padding } else { 0 });
        }
        start += length.max(1);
    }
    None
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Capitals, small letters and digits alternate far more often in what is random than in words, even in words that are
/// written together like `MyDevice`; those rarely hold digits. What is padded as base64 is need not be as random.
fn is_key(letters: &[u8], is_padded: bool) -> bool {
    let (mut pairs, mut changes) = (0_usize, 0_usize);
    for pair in letters.windows(2) {
        let [Some(first), Some(second)] = [pair.first(), pair.last()].map(|b| class(*b?)) else {
            continue;
        };
        pairs += 1;
        changes += usize::from(first != second);
    }
    let has = |wanted| letters.iter().any(|byte| class(*byte) == Some(wanted));
    let percent = match (is_padded, has(Class::Digit)) {
        (true, _) => 20,
        (false, true) => 37,
        (false, false) => 50,
    };
    letters.len() >= SHORTEST
        && has(Class::Capital)
        && has(Class::Small)
        && changes * 100 >= pairs * percent
}

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Capital,
    Small,
    Digit,
}

fn class(byte: u8) -> Option<Class> {
    match byte {
        b'A'..=b'Z' => Some(Class::Capital),
        b'a'..=b'z' => Some(Class::Small),
        b'0'..=b'9' => Some(Class::Digit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
    };

    fn random(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .take(length)
        .collect()
    }

    #[test]
    fn keys_of_every_length_are_masked_in_every_alphabet() {
        let mut missed = 0;
        for seed in 1..200 {
            for length in [32, 33, 48, 64, 100] {
                let bytes = random(seed, length);
                for text in [STANDARD.encode(&bytes), URL_SAFE.encode(&bytes)] {
                    if text.ends_with('=') {
                        assert!(!masked(&format!("x {text:?} y")).contains(&text), "{text}");
                        let whole = masked(&text);
                        assert_eq!(whole, MASK, "{text}");
                    }
                }
                for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
                    missed += usize::from(kind(&text).is_none());
                }
            }
        }
        // Without the padding chance decides, and rarely for a word.
        assert!(missed <= 10, "{missed} of 1990");
    }

    #[test]
    fn every_kind_is_recognized_and_masked() {
        let key = STANDARD.encode(random(7, 32));
        for (text, what, shown) in [
            (
                format!("HostName=h;SharedAccessKeyName=owner;SharedAccessKey={key}"),
                "a connection string",
                "HostName=h;SharedAccessKeyName=owner;SharedAccessKey=***".to_owned(),
            ),
            (
                "SharedAccessSignature sr=a%2Fb&sig=Ab%3D&se=1&skn=r".to_owned(),
                "a SAS token",
                "SharedAccessSignature sr=a%2Fb&sig=***".to_owned(),
            ),
            ("sr=a&sig=Ab%3D&se=1".to_owned(), "a SAS token", "sr=a&sig=***".to_owned()),
            (
                "http://me:secret@proxy:1 is".to_owned(),
                "a URL with a password",
                "http://me:***@proxy:1 is".to_owned(),
            ),
            (format!("'{key}'"), "a key in base64", "'***'".to_owned()),
            (
                "a -----BEGIN PRIVATE KEY-----\\nMIG\\n-----END PRIVATE KEY----- b".to_owned(),
                "PEM text",
                "a ***PRIVATE KEY----- b".to_owned(),
            ),
        ] {
            assert_eq!(
                (kind(&text), masked(&text).as_ref()),
                (Some(what), shown.as_str()),
                "{text:?}"
            );
            assert_eq!(masked(&shown), shown, "once is enough");
        }
    }

    #[test]
    fn words_paths_and_ids_stay() {
        for text in [
            "",
            "--symmetric-key-file",
            "--a-very-long-name-of-an-option=",
            "/home/user/devices/pump-17/Keys/DeviceKey2024.key",
            "/Users/Peter/Documents/Provisioning/Keys2024/DeviceKey",
            "/var/folders/zz/zyxvpxvq6csfxvn_n0000000000000/T/tmp.AbC123",
            "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6",
            "4.550cb20c3349a409.390d2957-7b58-4701-b4f9-7fe848348f4a",
            "9C4A1B2D9C4A1B2D9C4A1B2D9C4A1B2D9C4A1B2D",
            "0ne00AABBCC",
            "MyVeryLongDeviceNameForTheNorthernFactory",
            "global.azure-devices-provisioning.net",
            "SharedAccessKeyName=registration",
            "http://me:***@proxy:1",
            "https://me@host:443/path",
            "sig=*** and SharedAccessKey=***",
            "größe 表 🙂",
        ] {
            assert_eq!(masked(text), text, "{text:?}");
        }
    }
}
