//! Secrets in the wrong place: in what a peer says back, or where somebody pasted them. They are told by their form,
//! however the text around them is encoded.

use alloc::{borrow::Cow, string::String, vec::Vec};
use core::ops::Range;

use zeroize::Zeroizing;

/// What stands in place of a secret.
pub(crate) const MASK: &str = "***";
/// The kind of a text with the signature of a SAS token.
pub(crate) const TOKEN: &str = "a SAS token";
/// So many characters of base64 are 16 bytes or more.
const SHORTEST: usize = 22;
/// So many characters of base64 have each line of a file of it, at least, but the last.
const LINE: usize = 64;
/// Names whose values are secrets, and what kind of a text has them.
const NAMES: [(&[u8], &str); 6] = [
    (b"sharedaccesskey", "a connection string"),
    (b"sig", TOKEN),
    (b"sharedaccesssignature", "a connection string"),
    (b"accountkey", "a connection string"),
    (b"password", "a password"),
    (PIN, "a PKCS#11 URI with a PIN"),
];
/// Its value may have every character in it.
const PIN: &[u8] = b"pin-value";
/// What stands between a name and its value.
const EQUALS: [&[u8]; 2] = [b"=", b"\":\""];
const PEM: &[u8] = b"-----begin";
const PEM_END: &[u8] = b"-----end ";
/// How the labels of PEM begin whose content anybody may see.
const PUBLIC: [&[u8]; 3] = [b"certificate", b"public key", b"x509"];
/// The kind of a text with a user and a password.
const USER_AND_PASSWORD: &str = "a URL with a password";
/// What messages of ours have where a password belongs.
const PLACEHOLDER: &str = "PASSWORD";
/// What a colon and an `@` follow that stand around no password.
const OTHERS: [&[u8]; 2] = [b"mailto", b"pkcs11"];
/// A user and a password in a URL have at most so many bytes together.
const USER_INFO: usize = 512;
/// Texts are encoded at most so often, one encoding in another.
const ENCODINGS: usize = 3;
/// So many bytes an entity of HTML has at most, the `;` among them.
const LONGEST_ENTITY: usize = 10;

/// A part of a text that is a secret, and what kind of a text has it.
pub(crate) type Secret = (Range<usize>, &'static str);

/// What kind of a secret a value holds, in words; `None` when it looks like none.
#[must_use]
pub fn kind(value: &str) -> Option<&'static str> {
    let found = find(value.as_bytes()).first().map(|(_, what)| *what);
    found.or_else(|| has_password(value).then_some(USER_AND_PASSWORD))
}

/// Whether a value as a whole is a URL with a password, with or without its scheme. The password may have spaces in it,
/// which end it within a longer text.
fn has_password(value: &str) -> bool {
    let is_around = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`');
    let value = value.trim_matches(is_around);
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let user_info = rest.rsplit_once('@').and_then(|(user_info, _)| user_info.split_once(':'));
    user_info.is_some_and(|(user, password)| {
        let is_user = !user.is_empty()
            && !user.starts_with(['/', '.'])
            && !user.contains(|c| is_around(c) || matches!(c, '{' | '<'));
        is_user && !is_scheme_of_another(user.as_bytes()) && !is_no_password(password.as_bytes())
    })
}

/// The text with `***` in place of each secret.
#[must_use]
pub fn masked(text: &str) -> Cow<'_, str> {
    masked_but(text, &[], "")
}

/// As [`masked`], with what is known to be secret beside what looks like it; a name that is known to be none stays.
#[must_use]
pub fn masked_but<'a>(text: &'a str, known: &[String], name: &str) -> Cow<'a, str> {
    let view = View::new(text.as_bytes());
    let mut secrets = found(&view);
    let is_name = |range: &Range<usize>| name.contains(text.get(range.clone()).unwrap_or_default());
    secrets.retain(|(range, _)| name.is_empty() || !is_name(range));
    if !known.is_empty() {
        secrets.extend(known.iter().flat_map(|known| view.places(known.as_bytes())));
        secrets.sort_by_key(|(range, _)| range.start);
    }
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    let (mut shown, mut next) = (String::new(), 0);
    for (Range { start, end }, _) in secrets {
        if start >= next {
            shown.push_str(text.get(next..start).unwrap_or_default());
            shown.push_str(MASK);
        }
        next = next.max(end);
    }
    shown.push_str(text.get(next..).unwrap_or_default());
    Cow::Owned(shown)
}

/// All secrets in the text, the first one first. The time that it takes grows as the text does.
pub(crate) fn find(text: &[u8]) -> Vec<Secret> {
    found(&View::new(text))
}

fn found(view: &View<'_>) -> Vec<Secret> {
    let bytes = view.bytes();
    let mut secrets = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let (word, after) = rest.split_at(rest.iter().take_while(|byte| is_base64(byte)).count());
        let secret = match word {
            [] => password(bytes.get(..at).unwrap_or_default(), rest),
            _ => named(word, after).or_else(|| pem(word, rest)).or_else(|| key(word, rest)),
        };
        at += match secret {
            Some((Range { start, end }, what)) => {
                secrets.push((view.range(at + start..at + end), what));
                end
            }
            None => word.len().max(1),
        };
    }
    secrets
}

/// A text without the encodings of URLs, of HTML, of JSON and of Rust's texts, and where each byte stood. What was decoded
/// is wiped when it is dropped: the text may be a secret itself.
pub(crate) enum View<'a> {
    /// There was nothing to decode.
    Whole(&'a [u8]),
    Decoded {
        bytes: Zeroizing<Vec<u8>>,
        at: Vec<usize>,
    },
}

impl<'a> View<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self::levels(text).last().unwrap_or(Self::Whole(text))
    }

    /// The text as it is, then with one encoding less each time.
    pub(crate) fn levels(text: &'a [u8]) -> impl Iterator<Item = Self> {
        let is_encoded =
            |view: &Self| view.bytes().iter().any(|byte| matches!(byte, b'%' | b'\\' | b'&'));
        core::iter::successors(Some(Self::Whole(text)), move |view| {
            is_encoded(view).then(|| view.decoded())
        })
        .take(ENCODINGS + 1)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Decoded { bytes, .. } => bytes,
        }
    }

    fn decoded(&self) -> Self {
        self.replaced(|rest| {
            let (byte, used) = unescaped(rest)?;
            Some((Some(byte), used))
        })
    }

    /// The digits of hexadecimal in small letters, without what tools write between them; a space for anything else.
    #[cfg(feature = "std")]
    pub(crate) fn of_digits(&self) -> Self {
        self.replaced(|rest| match rest {
            [b'0', b'x' | b'X', ..] => Some((None, 2)),
            [b':' | b'-' | b' ' | b',', ..] => Some((None, 1)),
            [digit, ..] if digit.is_ascii_hexdigit() => Some((Some(digit.to_ascii_lowercase()), 1)),
            _ => Some((Some(b' '), 1)),
        })
    }

    /// Puts a byte or nothing in the place of so many at the beginning of the rest; without either the first stays.
    fn replaced(&self, replace: impl Fn(&[u8]) -> Option<(Option<u8>, usize)>) -> Self {
        let text = self.bytes();
        // A vector that grows leaves what it had in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
        let mut at = Vec::with_capacity(text.len() + 1);
        let mut next = 0;
        while let Some(rest) = text.get(next..)
            && let Some(first) = rest.first()
        {
            let (byte, used) = replace(rest).unwrap_or((Some(*first), 1));
            if let Some(byte) = byte {
                at.push(self.place(next));
                bytes.push(byte);
            }
            next += used;
        }
        at.push(self.place(text.len()));
        Self::Decoded { bytes, at }
    }

    /// Where this part stands in the text.
    pub(crate) fn range(&self, part: Range<usize>) -> Range<usize> {
        self.place(part.start)..self.place(part.end)
    }

    /// Where this byte stands in the text, or the end of the text.
    fn place(&self, place: usize) -> usize {
        match self {
            Self::Whole(bytes) => place.min(bytes.len()),
            Self::Decoded { at, .. } => at.get(place).or(at.last()).copied().unwrap_or_default(),
        }
    }

    pub(crate) fn places(&self, known: &[u8]) -> impl Iterator<Item = Secret> {
        let places = self.bytes().windows(known.len().max(1)).enumerate();
        // The first byte alone tells most of them apart.
        let is_known = move |window: &[u8]| window.first() == known.first() && window == known;
        let places = places.filter(move |(_, window)| is_known(window)).map(|(at, _)| at);
        places.map(move |at| (self.range(at..at + known.len()), "a secret"))
    }
}

/// The byte that an escape stands for, and how many bytes the escape has.
fn unescaped(text: &[u8]) -> Option<(u8, usize)> {
    let hex = |digits: &[u8]| u8::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok();
    match text {
        [b'%', digits @ ..] => Some((hex(digits.get(..2)?)?, 3)),
        [b'\\', b'u', b'0', b'0', digits @ ..] => Some((hex(digits.get(..2)?)?, 6)),
        [b'\\', b'x', digits @ ..] => Some((hex(digits.get(..2)?)?, 4)),
        [b'\\', b'n' | b'r', ..] => Some((b'\n', 2)),
        [b'\\', escaped @ (b'/' | b'"' | b'\\'), ..] => Some((*escaped, 2)),
        [b'&', entity @ ..] => {
            let length = entity.iter().take(LONGEST_ENTITY).position(|byte| *byte == b';')?;
            Some((html(entity.get(..length)?)?, length + 2))
        }
        _ => None,
    }
}

/// The byte that an entity of HTML stands for, without the `&` and the `;` around it.
fn html(entity: &[u8]) -> Option<u8> {
    let number = |digits, radix| u8::from_str_radix(core::str::from_utf8(digits).ok()?, radix).ok();
    match entity {
        b"amp" => Some(b'&'),
        b"quot" => Some(b'"'),
        b"apos" => Some(b'\''),
        b"lt" => Some(b'<'),
        b"gt" => Some(b'>'),
        b"equals" => Some(b'='),
        b"plus" => Some(b'+'),
        b"sol" => Some(b'/'),
        [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
        [b'#', digits @ ..] => number(digits, 10),
        _ => None,
    }
}

fn strip<'a>(text: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (first, rest) = text.split_at_checked(start.len())?;
    first.eq_ignore_ascii_case(start).then_some(rest)
}

fn ends_with(word: &[u8], end: &[u8]) -> bool {
    let tail = word.len().checked_sub(end.len()).and_then(|at| word.get(at..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(end))
}

/// The value behind a word that ends with a name, up to where the text ends that has it.
fn named(word: &[u8], after: &[u8]) -> Option<Secret> {
    let value = EQUALS.into_iter().find_map(|equals| strip(after, equals))?;
    let (name, what) = NAMES.into_iter().find(|(name, _)| ends_with(word, name))?;
    let start = word.len() + after.len() - value.len();
    if value.starts_with(MASK.as_bytes()) {
        return None;
    }
    let length = match pem(PEM, value) {
        Some((range, _)) => range.end,
        None if name == PIN => length_of_line(value),
        None => length_of_value(value),
    };
    (length > 0).then_some((start..start + length, what))
}

fn length_of_line(value: &[u8]) -> usize {
    let ends = |byte: &u8| matches!(byte, b'"' | b'\n' | b'\r');
    value.iter().position(ends).unwrap_or(value.len())
}

fn length_of_value(value: &[u8]) -> usize {
    let ends = |byte: &u8| {
        byte.is_ascii_whitespace()
            || matches!(byte, b';' | b'"' | b'\'' | b'`' | b',' | b'<' | b'>')
    };
    value.iter().position(ends).unwrap_or(value.len())
}

/// From a word that ends with the begin of PEM to the last end of it, or else to the end of the text, which quotes may
/// end. What is public is no secret.
fn pem(word: &[u8], text: &[u8]) -> Option<Secret> {
    let start = word.len().checked_sub(PEM.len())?;
    let body = text.get(start..).and_then(|text| strip(text, PEM)).and_then(|t| strip(t, b" "))?;
    if PUBLIC.into_iter().any(|public| strip(body, public).is_some()) {
        return None;
    }
    let quote = body.iter().position(|byte| *byte == b'"').unwrap_or(body.len());
    let mut ends = (0..quote).rev().filter_map(|at| strip(body.get(at..quote)?, PEM_END));
    let end = text.len() - body.len() + quote - ends.next().map_or(0, <[u8]>::len);
    Some((start..end, "PEM text"))
}

/// What stands between `USER:` and `@`, and between `://USER:` and `@`.
fn password(before: &[u8], text: &[u8]) -> Option<Secret> {
    let (skipped, rest) = match strip(text, b"://") {
        Some(rest) => (3, rest),
        None => (0, strip(text, b":").filter(|_| follows_user(before)).map(|_| text)?),
    };
    let rest = rest.get(..USER_INFO).unwrap_or(rest);
    let authority = rest.get(..length_of_value(rest))?;
    let colon = authority.iter().position(|byte| *byte == b':')?;
    let last_at = |text: &[u8]| text.iter().rposition(|byte| *byte == b'@');
    let at = match last_at(authority) {
        // A password with a space in it, unless that is a port.
        None if skipped > 0 && !authority.get(colon + 1)?.is_ascii_digit() => {
            last_at(rest.get(..length_of_line(rest))?)?
        }
        at => at?,
    };
    let secret = rest.get(colon + 1..at).filter(|secret| !is_no_password(secret))?;
    let start = skipped + colon + 1;
    Some((start..start + secret.len(), USER_AND_PASSWORD))
}

fn follows_user(before: &[u8]) -> bool {
    let is_user = |byte: &u8| length_of_value(core::slice::from_ref(byte)) > 0;
    before.last().is_some_and(is_user) && !is_scheme_of_another(before)
}

fn is_scheme_of_another(before: &[u8]) -> bool {
    OTHERS.into_iter().any(|scheme| ends_with(before, scheme))
}

fn is_no_password(password: &[u8]) -> bool {
    password.is_empty() || password.ends_with(MASK.as_bytes()) || password == PLACEHOLDER.as_bytes()
}

/// A run of base64 that is random enough to be a key, and no path and no word, with the lines of base64 that follow it.
fn key(word: &[u8], text: &[u8]) -> Option<Secret> {
    let run = |text: &[u8]| text.iter().take_while(|byte| is_base64(byte)).count();
    let padding = |rest: &[u8]| rest.iter().take_while(|byte| **byte == b'=').count();
    let letters = word.len();
    let pads = padding(text.get(letters..)?);
    // `name=value` is no padding.
    let is_padded = pads > 0 && !text.get(letters + pads).is_some_and(u8::is_ascii_alphanumeric);
    if letters < SHORTEST || !is_key(word, is_padded) {
        return None;
    }
    let mut end = if is_padded { letters + pads } else { letters };
    if letters >= LINE {
        while let Some(rest) = text.get(end..) {
            let breaks = rest.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            let line = run(rest.get(breaks..).unwrap_or_default());
            if breaks == 0 || line == 0 {
                break;
            }
            end += breaks + line + padding(rest.get(breaks + line..).unwrap_or_default());
        }
    }
    Some((0..end, "a key in base64"))
}

fn is_base64(byte: &u8) -> bool {
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
    has(Class::Capital) && has(Class::Small) && changes * 100 >= pairs * percent
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
    use alloc::{borrow::ToOwned as _, format, string::ToString as _};

    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
    };

    use super::*;

    fn random(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        core::iter::repeat_with(|| {
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
            (
                "use me:s3cr:t/@x@proxy:1 here".to_owned(),
                "a URL with a password",
                "use me:***@proxy:1 here".to_owned(),
            ),
            (
                "\"http://me:my secret@proxy:1\" is".to_owned(),
                "a URL with a password",
                "\"http://me:***@proxy:1\" is".to_owned(),
            ),
            (
                "\"http:/me:secret@proxy:1\"".to_owned(),
                "a URL with a password",
                "\"http:***@proxy:1\"".to_owned(),
            ),
            (
                "in \"pkcs11:token=a?pin-value=1%20;'2\" is".to_owned(),
                "a PKCS#11 URI with a PIN",
                "in \"pkcs11:token=a?pin-value=***\" is".to_owned(),
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
    fn a_secret_is_masked_however_the_text_is_encoded() {
        let percent = |text: &str| {
            let escaped = text.bytes().map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            });
            escaped.collect::<String>()
        };
        for seed in 1..100 {
            let key = STANDARD.encode(random(seed, 32));
            let token = format!("SharedAccessSignature sr=a%2Fb&sig={}&se=1", percent(&key));
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n");
            let bare = STANDARD.encode(random(seed, 121));
            let lines = format!("{}\n{}\n{}", &bare[..64], &bare[64..128], &bare[128..]);
            let url = format!("http://me:{seed}-pass@proxy:1");
            for (secret, text) in
                [(&*key, &*key), (&key, &token), (&key, &pem), (&bare, &lines), ("-pass", &url)]
            {
                for text in [
                    text.to_owned(),
                    percent(text),
                    percent(&percent(text)),
                    serde_json::to_string(text).unwrap(),
                    serde_json::to_string(&serde_json::to_string(text).unwrap()).unwrap(),
                    text.replace('/', "\\/").replace('=', "\\u003d"),
                    text.replace('/', "&#47;").replace('=', "&#x3D;").replace('+', "&plus;"),
                    format!("{text:?}"),
                    STANDARD.encode(format!("user:{text}")),
                ] {
                    let shown = format!("before {text}, after");
                    let shown = masked(&shown);
                    let encoded = secret.as_bytes().windows(8).map(|part| {
                        let part = core::str::from_utf8(part).unwrap();
                        [part.to_owned(), percent(part), percent(&percent(part))]
                    });
                    for part in encoded.flatten() {
                        assert!(!shown.contains(&part), "{text}: {shown}");
                    }
                    assert!(shown.contains(MASK), "{text}: {shown}");
                    assert!(shown.starts_with("before ") && shown.ends_with(" after"), "{shown}");
                }
            }
        }
    }

    #[test]
    fn what_is_known_to_be_secret_is_masked_and_a_known_name_is_not() {
        let known = ["p4ss word".to_owned(), "aa".to_owned()];
        assert_eq!(masked_but("xp4ss%20word baa", &known, ""), "x*** b***");
        let name = STANDARD.encode(random(3, 32));
        let text = format!("{name} {}", STANDARD.encode(random(4, 32)));
        assert_eq!(masked_but(&text, &[], &name), format!("{name} ***"));
    }

    #[test]
    fn a_value_with_a_password_is_known_whatever_the_password_has_in_it() {
        for value in [
            "http://me:my secret@proxy:1",
            "me:my secret@proxy",
            " \"me:my;secret@proxy:1\" # office",
            "http//me:my,secret@proxy",
            "http:\\\\me:my secret@proxy",
        ] {
            assert_eq!(kind(value), Some(USER_AND_PASSWORD), "{value:?}");
        }
        for value in [
            "http://me@proxy:1",
            "http://***@proxy:1",
            "{\"a\": \"me@x\"}",
            "/a b:c d@e",
            "at 1:2 me@x",
        ] {
            assert_eq!(kind(value), None, "{value:?}");
        }
    }

    #[test]
    fn the_time_grows_as_the_text_does() {
        for part in [
            "a:",
            "a:b@",
            "sig=***",
            "sig=",
            "://",
            "-----BEGIN ",
            "%25",
            "&#37;",
            "\\\\",
            "Aa1",
            "\n",
            "password=a ",
        ] {
            let text = part.repeat((1 << 18) / part.len());
            assert!(masked(&text).len() <= 2 * text.len(), "{part}");
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
            "me:***@proxy:1",
            "http://USER:PASSWORD@HOST:PORT",
            "https://me@host:443/path",
            "http://proxy:3128 is asked, me@host: no",
            "mailto:me@host.example",
            "pkcs11:token=me@host;object=key",
            "at 12:30, me@host: no",
            "sig=*** and SharedAccessKey=***",
            "größe 表 🙂",
        ] {
            assert_eq!(masked(text), text, "{text:?}");
        }
    }
}
