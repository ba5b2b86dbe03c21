//! PEM text, as lenient as the files are that people have: text around the blocks, any line ends or none, a
//! byte-order mark, white space in the base64, blocks that are joined without a line end. But nothing that may have been
//! a block is skipped in silence.

use base64::Engine;
use dps_state_machine::{ConfigurationError, Error};
use zeroize::Zeroizing;

use crate::{damage, key::BASE64};

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// What stands between a BEGIN and its END.
pub(crate) struct Block {
    /// Its place in the file, from 1.
    pub(crate) number: usize,
    /// What it says that it is, for example `CERTIFICATE`.
    pub(crate) label: String,
    /// Encrypted in the old way, by a header inside the block.
    pub(crate) encrypted: bool,
    /// The content; empty when it is encrypted.
    pub(crate) der: Zeroizing<Vec<u8>>,
}

impl Block {
    /// How errors name it: `block 2 (CERTIFICATE)`.
    pub(crate) fn name(&self) -> String {
        name(self.number, &self.label)
    }
}

fn name(number: usize, label: &str) -> String {
    format!("block {number} ({label})")
}

/// Whether there is a PEM block in it at all.
pub(crate) fn is_pem(file: &[u8]) -> bool {
    split_at(file, BEGIN).is_some()
}

/// All blocks, in order; `field` names the file in errors. What is between the blocks is skipped unless it is what a
/// damaged block leaves.
pub(crate) fn blocks(field: &'static str, file: &[u8]) -> Result<Vec<Block>, Error> {
    let wrong = |reason: String| Error::from(ConfigurationError::new(field, "", &reason));
    let mut blocks = Vec::new();
    let mut rest = file;
    let mut number = 1;
    while let Some((between, after_begin)) = split_at(rest, BEGIN) {
        ensure_no_block(between, number).map_err(wrong)?;
        let Some((label, body)) = split_at(after_begin, DASHES) else {
            return Err(wrong(format!(
                "it ends within the BEGIN line of block {number}; it was cut off"
            )));
        };
        let Some(label) = checked_label(label) else {
            return Err(wrong(format!(
                "the BEGIN line of block {number} is damaged; {}",
                damage::LINES
            )));
        };
        let cut_off = || wrong(format!("{} has no END line; it was cut off", name(number, &label)));
        let (body, after_end) = split_at(body, END).ok_or_else(cut_off)?;
        if split_at(body, BEGIN).is_some() {
            return Err(cut_off());
        }
        rest = after_label(after_end, &label).ok_or_else(|| {
            let name = name(number, &label);
            wrong(format!("{name} ends with another block's END line; is a part missing?"))
        })?;
        let encrypted = split_at(body, b"ENCRYPTED").is_some();
        let der = if encrypted {
            Zeroizing::default()
        } else {
            decode(body).ok_or_else(|| {
                wrong(format!(
                    "{} is not base64: {}",
                    name(number, &label),
                    damage::of_base64(body)
                ))
            })?
        };
        blocks.push(Block { number, label, encrypted, der });
        number += 1;
    }
    ensure_no_block(rest, number).map_err(wrong)?;
    let cut_off =
        |length| BEGIN.get(..length).is_some_and(|start| rest.trim_ascii_end().ends_with(start));
    if (DASHES.len() + 1..BEGIN.len()).any(cut_off) {
        return Err(wrong(format!(
            "it ends within the BEGIN line of block {number}; it was cut off"
        )));
    }
    Ok(blocks)
}

/// Checks that the text between two blocks is not what is left of another one.
fn ensure_no_block(between: &[u8], number: usize) -> Result<(), String> {
    match damage::of_line(between) {
        Some(damage) => Err(format!("at block {number}, {damage}")),
        None => Ok(()),
    }
}

/// Labels end up in errors: what was part of a key before its dashes were damaged must not pass for one.
fn checked_label(label: &[u8]) -> Option<String> {
    let fits = |byte: &u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'#' | b'-' | b'_');
    let is_label = label.len() <= 40 && label.iter().all(fits);
    is_label.then(|| String::from_utf8_lossy(label).into_owned())
}

/// What follows the label of an END line, if it is this one and not a longer one.
fn after_label<'a>(after_end: &'a [u8], label: &str) -> Option<&'a [u8]> {
    let rest = after_end.strip_prefix(label.as_bytes())?;
    let goes_on = match rest {
        [b' ', next, ..] | [next, ..] => next.is_ascii_alphanumeric(),
        [] => false,
    };
    (!goes_on).then_some(rest)
}

fn decode(body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // Headers like `Key-Id: 7` may come first (RFC 1421); a colon is no base64.
    let base64 = body
        .split(|byte| matches!(byte, b'\r' | b'\n'))
        .filter(|line| !line.contains(&b':'))
        .flatten()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace());
    // Room for all at once: growing would leave pieces of a key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(body.len()));
    text.extend(base64);
    let mut der = Zeroizing::new(Vec::new());
    BASE64.decode_vec(&*text, &mut der).ok()?;
    Some(der)
}

/// What comes before and after the first `needle`.
fn split_at<'a>(text: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(needle.len()).position(|window| window == needle)?;
    let (before, found) = text.split_at_checked(at)?;
    Some((before, found.strip_prefix(needle)?))
}

/// Writes a block as files have it, with lines of 64 characters (RFC 7468). It may hold a key, so it is wiped.
#[cfg(feature = "csr")]
pub(crate) fn write(label: &str, der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(BASE64.encode(der));
    // Room for all at once: growing would leave pieces of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(
        base64.len() + base64.len() / 64 + 2 * label.len() + 40,
    ));
    text.extend(["-----BEGIN ", label, "-----\n"]);
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at_checked(64).unwrap_or((rest, ""));
        text.extend([line, "\n"]);
        rest = more;
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, Vec<u8>)> {
        blocks("certificate", text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|block| (block.label, block.der.to_vec()))
            .collect()
    }

    fn refusal(text: &str) -> String {
        blocks("certificate", text.as_bytes()).err().unwrap().to_string()
    }

    #[test]
    fn whatever_is_around_the_lines_the_blocks_are_found() {
        let plain = "-----BEGIN A B-----\nc2Vj\ncmV0\n-----END A B-----\n";
        let found = vec![("A B".to_string(), b"secret".to_vec())];
        let variants = [
            plain.to_string(),
            plain.trim_end().to_string(),
            plain.replace('\n', "\r\n"),
            plain.replace('\n', "\r"),
            plain.replace('\n', " "),
            plain.replace('\n', ""),
            plain.replace('\n', "\n\n \t"),
            format!("\u{feff}{plain}"),
            format!("\"{}\"", plain.trim_end()),
            format!("subject=CN = d\n-----\n{plain}trailing \u{fffd} garbage"),
            format!("---\nServer certificate\n{plain}--- END of the chain ---"),
            plain.replace("c2Vj", "Key-Id: 7\nMore: x y\n\nc2Vj"),
        ];
        for text in variants {
            assert_eq!(read(&text), found, "{text:?}");
        }
        for two in [format!("{plain}between\n{plain}"), plain.trim_end().repeat(2)] {
            assert_eq!(read(&two).len(), 2, "{two:?}");
        }
        assert!(read("no block here").is_empty());
    }

    #[test]
    fn an_encrypted_block_is_marked_and_not_decoded() {
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nc2Vj\n-----END RSA PRIVATE KEY-----";
        let found = blocks("private key", text.as_bytes()).unwrap();
        assert!(found[0].encrypted && found[0].der.is_empty());
    }

    #[test]
    fn damage_is_named_with_the_number_of_the_block() {
        let whole = "-----BEGIN A-----\nc2Vj\n-----END A-----\n";
        let cases = [
            ("-----BE", "it ends within the BEGIN line of block #; it was cut off"),
            ("-----BEGIN CERT", "it ends within the BEGIN line of block #; it was cut off"),
            ("-----BEGIN A--?--\nc2Vj\n-----END A-----", "the BEGIN line of block # is damaged"),
            ("-----BEGIN A-----\nc2Vj", "block # (A) has no END line"),
            (
                "-----BEGIN A-----\nc2Vj\n-----BEGIN A-----\nc2Vj\n-----END A-----",
                "block # (A) has no END line",
            ),
            (
                "-----BEGIN A-----\nc2Vj\n-----END B-----",
                "block # (A) ends with another block's END",
            ),
            ("-----BEGIN A-----\nc2Vj\n-----END A REQUEST-----", "block # (A) ends with another"),
            ("-----BEGIN A-----\nc2V\n-----END A-----", "block # (A) is not base64"),
            ("-----BEGIN A-----\n*2Vj\n-----END A-----", "block # (A) is not base64"),
            (
                "---BEGIN CERTIFICATE-----\nc2Vj\n-----END CERTIFICATE-----\n-----BEGIN ",
                "at block #, there is a damaged BEGIN or END line",
            ),
            (
                "---BEGIN CERTIFICATE---\nc2Vj\n---END CERTIFICATE---",
                "at block #, there is a damaged BEGIN or END line",
            ),
        ];
        for (text, says) in cases {
            for (before, number) in [("", "1"), (whole, "2")] {
                let message = refusal(&format!("{before}{text}"));
                let says = says.replace('#', number);
                assert!(message.starts_with("certificate: "), "{message}");
                assert!(message.contains(&says), "{text:?}: {message}, not {says}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            parts in prop::collection::vec(
                prop_oneof![
                    Just(BEGIN.to_vec()), Just(END.to_vec()), Just(DASHES.to_vec()), Just(b"A".to_vec()),
                    prop::collection::vec(any::<u8>(), 0..8),
                ],
                0..12,
            )
        ) {
            let text = parts.concat();
            if let Ok(found) = blocks("certificate", &text) {
                prop_assert!(found.is_empty() || is_pem(&text));
            }
        }
    }
}
