//! What tools and people do to PEM text, recognized by what is left of it. Nothing of the text itself is ever repeated: it may
//! be a key's.

use base64::Engine;
use zeroize::Zeroizing;

use crate::key::BASE64;

/// How the lines around a block are written.
pub(crate) const LINES: &str = "the lines around a block read -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----, or PRIVATE KEY";

/// What a file is that has no block in it; `None` for what was never PEM.
pub(crate) fn of_file(file: &[u8]) -> Option<&'static str> {
    if let Some(advice) = of_utf16(file) {
        return Some(advice);
    }
    of_line(file).or_else(|| of_bare_base64(file))
}

/// What a BEGIN or END line of a certificate or key has become, if there is one that is none any more.
pub(crate) fn of_line(text: &[u8]) -> Option<&'static str> {
    // What a damaged line may have more of, or less of, is left out.
    let characters = || text.utf8_chunks().flat_map(|chunk| chunk.valid().chars());
    let mut bare = Zeroizing::new(String::with_capacity(text.len()));
    bare.extend(characters().filter_map(|c| match c {
        c if is_dash(c) => Some('-'),
        c if c.is_ascii_alphanumeric() => Some(c.to_ascii_uppercase()),
        _ => None,
    }));
    let has_line = bare.match_indices('-').any(|(at, _)| {
        let after = bare.get(at + 1..).unwrap_or_default();
        let label = after.strip_prefix("BEGIN").or_else(|| after.strip_prefix("END"));
        let label = label.and_then(|label| label.split_once('-')).map(|(label, _)| label);
        label.is_some_and(|label| {
            label.len() <= 40 && (label.ends_with("CERTIFICATE") || label.ends_with("PRIVATEKEY"))
        })
    });
    if !has_line {
        return None;
    }
    Some(if characters().any(|c| c != '-' && is_dash(c)) {
        "there is a BEGIN or END line with typographic dashes, as word processors make them; write five hyphens (-----) in their place"
    } else {
        "there is a damaged BEGIN or END line; it has five hyphens (-----) before and after, one space between the words, and capital letters"
    })
}

/// Why what stands between a BEGIN and its END can't be read.
pub(crate) fn of_base64(body: &[u8]) -> &'static str {
    let has = |part: &[u8]| body.windows(part.len()).any(|window| window == part);
    if has(br"\n") || has(br"\r") {
        return "it has the letters \\n where its lines should end; `printf '%b' \"$(cat IN)\" > OUT` makes line ends of them";
    }
    if has(b"\"") || has(b"'") {
        return "there are quotes in it; take those away";
    }
    if !body.is_ascii() {
        return "it has characters in it that are not ASCII; copy it anew, as plain text";
    }
    "it was damaged; copy it anew"
}

/// Base64 without the lines around it, or with all of it in base64 once more.
fn of_bare_base64(file: &[u8]) -> Option<&'static str> {
    let mut text = Zeroizing::new(Vec::with_capacity(file.len()));
    text.extend(file.iter().filter(|byte| !byte.is_ascii_whitespace()));
    // The whole need not be right to see what it begins with.
    let start = text.get(..16)?;
    let mut start = BASE64.decode(start).map(Zeroizing::new).ok()?;
    if start.starts_with(b"-----BEGIN ") {
        return Some("it is PEM text in base64 once more; decode it with `base64 -d IN > OUT`");
    }
    start.truncate(2);
    // A DER sequence with a length of two bytes, as certificates and RSA keys start.
    (*start == [0x30, 0x82])
        .then_some("it is base64 without the lines around it; put -----BEGIN CERTIFICATE----- before it and -----END CERTIFICATE----- after it, or PRIVATE KEY for a key")
}

/// With a byte-order mark, or by the zeros between its letters.
fn of_utf16(file: &[u8]) -> Option<&'static str> {
    match file {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            Some("it is UTF-16 text; save it as UTF-8, with `iconv -f UTF-16 -t UTF-8 IN > OUT`")
        }
        [0, b'-', 0, b'-', ..] => {
            Some("it is UTF-16 text; save it as UTF-8, with `iconv -f UTF-16BE -t UTF-8 IN > OUT`")
        }
        [b'-', 0, b'-', 0, ..] => {
            Some("it is UTF-16 text; save it as UTF-8, with `iconv -f UTF-16LE -t UTF-8 IN > OUT`")
        }
        _ => None,
    }
}

/// A hyphen, or what takes its place in typography.
fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}')
}
