//! PEM text, as lenient as the files are that people have: text around the blocks, any line ends or none, a
//! byte-order mark, white space in the base64.

use base64::Engine;
use dps_state_machine::{ConfigurationError, Error};
use zeroize::Zeroizing;

use crate::key::BASE64;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// What stands between a BEGIN and its END.
pub(crate) struct Block {
    /// What it says that it is, for example `CERTIFICATE`.
    pub(crate) label: String,
    /// Encrypted in the old way, by a header inside the block.
    pub(crate) encrypted: bool,
    /// The content; empty when it is encrypted.
    pub(crate) der: Zeroizing<Vec<u8>>,
}

/// Whether there is a PEM block in it at all.
pub(crate) fn is_pem(file: &[u8]) -> bool {
    split_at(file, BEGIN).is_some()
}

/// All blocks, in order; `field` names the file in errors. What is between the blocks is skipped.
pub(crate) fn blocks(field: &'static str, file: &[u8]) -> Result<Vec<Block>, Error> {
    let mut blocks = Vec::new();
    let mut rest = file;
    while let Some((_, after_begin)) = split_at(rest, BEGIN) {
        let wrong = |reason: String| Err(ConfigurationError::new(field, "", &reason).into());
        let Some((label, body)) = split_at(after_begin, DASHES) else {
            return wrong("it ends within a BEGIN line; it was cut off".into());
        };
        let Some(label) = checked_label(label) else {
            return wrong("a BEGIN line in it is damaged".into());
        };
        let Some((body, after_end)) = split_at(body, END) else {
            return wrong(format!("the block {label} has no END line; it was cut off"));
        };
        if !after_end.starts_with(label.as_bytes()) {
            return wrong(format!(
                "the block {label} ends with another block's END line; is a part missing?"
            ));
        }
        rest = after_end;
        let encrypted = split_at(body, b"ENCRYPTED").is_some();
        let der = if encrypted { Zeroizing::default() } else { decode(field, &label, body)? };
        blocks.push(Block { label, encrypted, der });
    }
    Ok(blocks)
}

/// Labels end up in errors: what was part of a key before its dashes were damaged must not pass for one.
fn checked_label(label: &[u8]) -> Option<String> {
    let fits = |byte: &u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'#' | b'-' | b'_');
    let is_label = label.len() <= 40 && label.iter().all(fits);
    is_label.then(|| String::from_utf8_lossy(label).into_owned())
}

fn decode(field: &'static str, label: &str, body: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
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
    BASE64.decode_vec(&*text, &mut der).map_err(|_| {
        let reason = format!("what is in the block {label} is not base64; it was damaged");
        ConfigurationError::new(field, "", &reason)
    })?;
    Ok(der)
}

/// What comes before and after the first `needle`.
fn split_at<'a>(text: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = text.windows(needle.len()).position(|window| window == needle)?;
    let (before, found) = text.split_at_checked(at)?;
    Some((before, found.strip_prefix(needle)?))
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
            plain.replace('\n', "\n\n \t"),
            format!("\u{feff}{plain}"),
            format!("subject=CN = d\n-----\n{plain}trailing \u{fffd} garbage"),
            plain.replace("c2Vj", "Key-Id: 7\nMore: x y\n\nc2Vj"),
        ];
        for text in variants {
            assert_eq!(read(&text), found, "{text:?}");
        }
        assert_eq!(read(&format!("{plain}between\n{plain}")).len(), 2);
        assert!(read("no block here").is_empty());
    }

    #[test]
    fn an_encrypted_block_is_marked_and_not_decoded() {
        let text = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nc2Vj\n-----END RSA PRIVATE KEY-----";
        let found = blocks("private key", text.as_bytes()).unwrap();
        assert!(found[0].encrypted && found[0].der.is_empty());
    }

    #[test]
    fn damage_is_named() {
        let cases = [
            ("-----BEGIN CERT", "cut off"),
            ("-----BEGIN A--?--\nc2Vj\n-----END A-----", "a BEGIN line in it is damaged"),
            ("-----BEGIN A-----\nc2Vj", "the block A has no END line"),
            ("-----BEGIN A-----\nc2Vj\n-----END B-----", "another block's END"),
            ("-----BEGIN A-----\nc2V\n-----END A-----", "the block A is not base64"),
            ("-----BEGIN A-----\n*2Vj\n-----END A-----", "the block A is not base64"),
        ];
        for (text, says) in cases {
            let message = refusal(text);
            assert!(message.starts_with("certificate: ") && message.contains(says), "{message}");
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
