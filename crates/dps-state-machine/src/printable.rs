//! What somebody else wrote, as it can stand in a line.

use core::{
    fmt::{self, Write as _},
    ops::Range,
};

use crate::secret::{self, MASK, TOKEN};

/// A text that somebody else wrote, as it can stand in one line of a log or of a terminal.
///
/// What would break the line, move the cursor, change colors or turn the direction of reading is shown as an
/// escape like `\n` or `\u{1b}`; bytes that are no UTF-8 as U+FFFD. The signature of a SAS token, which a peer may
/// repeat to us, is shown as `***`, and nothing of what follows it up to a space or a quote; [`Self::brief`] shows so
/// whatever has the form of a secret, like a key in base64, however it is encoded. Errors show in this way whatever a
/// peer wrote, as `Debug` too; their fields have it as it came.
///
/// As `Debug` it is the same between quotes.
#[derive(Clone, Copy)]
pub struct Printable<'a> {
    text: &'a [u8],
    at_most: usize,
}

impl<'a> Printable<'a> {
    /// So many characters an error shows of each text that it has from a peer.
    pub const BRIEF: usize = 1000;

    /// All of the text.
    #[must_use]
    pub fn whole(text: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { text: text.as_ref(), at_most: usize::MAX }
    }

    /// The text up to [`Self::BRIEF`] characters, and how long it is when that is not all.
    #[must_use]
    pub fn brief(text: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { at_most: Self::BRIEF, ..Self::whole(text) }
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, is_brief) = (self.text, self.at_most != usize::MAX);
        let text = if is_brief { begin(text) } else { text };
        let mut left = self.at_most;
        let mut next = 0;
        // All of a text may be shown to whom it belongs: only tokens are hidden in it.
        let secrets = secret::find(text).into_iter().filter(|(_, what)| is_brief || *what == TOKEN);
        let ranges = secrets.map(|(range, _)| (range, MASK)).chain([(text.len()..text.len(), "")]);
        for (Range { start, end }, mask) in ranges {
            let open = text.get(next..start).unwrap_or_default();
            next = end;
            for c in lossy(open).chain(mask.chars()) {
                let escape = is_unfit(c).then(|| c.escape_default());
                let length = escape.as_ref().map_or(1, ExactSizeIterator::len);
                let Some(room) = left.checked_sub(length) else {
                    return write!(f, "... ({} bytes in all)", self.text.len());
                };
                left = room;
                match escape {
                    Some(escape) => write!(f, "{escape}")?,
                    None => f.write_char(c)?,
                }
            }
        }
        if text.len() < self.text.len() {
            return write!(f, "... ({} bytes in all)", self.text.len());
        }
        Ok(())
    }
}

/// As much of a text as is looked at when little of it is shown: more than that, since secrets are hidden.
fn begin(text: &[u8]) -> &[u8] {
    const MOST: usize = 64 * 1024;
    const SHORTEST_KEY: usize = 22;
    let Some(begin) = text.get(..MOST).filter(|begin| begin.len() < text.len()) else {
        return text;
    };
    // A part of a secret may be too short to be known for one.
    let word = begin.iter().rev().take_while(|byte| byte.is_ascii_graphic()).count();
    let cut = if word < SHORTEST_KEY { MOST - word } else { MOST };
    text.get(..cut).unwrap_or_default()
}

impl fmt::Debug for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn lossy(text: &[u8]) -> impl Iterator<Item = char> {
    text.utf8_chunks().flat_map(|chunk| {
        let odd = (!chunk.invalid().is_empty()).then_some(char::REPLACEMENT_CHARACTER);
        chunk.valid().chars().chain(odd)
    })
}

/// Control characters, separators of lines and paragraphs, and what turns the direction of reading
/// (<https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>).
fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConfigurationError, ConnectionError, Error, ProtocolError, Response, Stage};
    use alloc::{
        string::{String, ToString},
        vec::Vec,
    };

    const NASTY: &str =
        "a\r\nb\t\u{1b}[31m \0 \u{7f} \u{9b}2J \u{2028} \u{202e}txt.exe\u{2066} \u{200f}\u{61c}";

    #[test]
    fn what_is_fit_to_print_stays_as_it_is() {
        for text in ["", "not authorized", "größe \"é\" \\ 表 🙂 \u{e01}\u{e34}"] {
            assert_eq!(Printable::whole(text).to_string(), text, "{text:?}");
            assert_eq!(Printable::brief(text).to_string(), text, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_is_escaped() {
        let shown = Printable::whole(NASTY).to_string();
        assert!(!shown.chars().any(is_unfit), "{shown:?}");
        assert!(shown.starts_with("a\\r\\nb\\t\\u{1b}[31m \\u{0} \\u{7f} \\u{9b}2J"), "{shown}");
        assert!(shown.ends_with("\\u{202e}txt.exe\\u{2066} \\u{200f}\\u{61c}"), "{shown}");
    }

    #[test]
    fn the_bound_counts_what_is_shown() {
        let fits = "é".repeat(Printable::BRIEF);
        assert_eq!(Printable::brief(&fits).to_string(), fits);
        let longer = fits.clone() + "é";
        assert_eq!(Printable::brief(&longer).to_string(), fits + "... (2002 bytes in all)");
        assert_eq!(Printable::whole(&longer).to_string(), longer);
        let escapes = Printable::brief(&"\u{1b}".repeat(5000)).to_string();
        assert_eq!(escapes, "\\u{1b}".repeat(166) + "... (5000 bytes in all)");
    }

    /// One of each kind that a peer's words get into.
    fn errors(words: &str) -> Vec<Error> {
        let refused = Response::refusal(401, words).hint(Some(words.into()));
        let body = alloc::format!(
            "{{\"errorCode\":400001,\"message\":{words:?},\"trackingId\":{words:?}}}"
        );
        let spoken = serde_json::json!({ "message": words, "trackingId": words }).to_string();
        let unknown = serde_json::json!({ "status": words, "operationId": "o" }).to_string();
        [refused, Response::new(400, body), Response::new(400, spoken), Response::new(200, unknown)]
            .into_iter()
            .map(|response| match crate::answer::judge(response, Stage::Register, None) {
                crate::answer::Verdict::Failed(error) => error,
                _ => panic!("an error"),
            })
            .chain([
                ConnectionError::lost(Stage::Register, words).hint(words).into(),
                ProtocolError::unreadable(Stage::Query, words).into(),
                ConfigurationError::new("field", words, words).into(),
            ])
            .collect()
    }

    #[test]
    fn no_error_breaks_a_line_or_fills_a_log() {
        let long = "\u{1b}x".repeat(1 << 19);
        for words in [NASTY, &long] {
            for error in errors(words) {
                let shown: [String; 2] = [error.to_string(), error.hint().unwrap_or_default()];
                for text in shown {
                    assert!(!text.chars().any(is_unfit), "{text:?}");
                    assert!(text.chars().count() < 3 * Printable::BRIEF, "{}", text.len());
                }
            }
        }
    }

    #[test]
    fn the_signature_of_a_token_is_not_shown_however_it_is_written() {
        for (text, shown) in [
            ("sr=a&sig=Ab%2Fc%3D&se=1&skn=r no", "sr=a&sig=*** no"),
            ("sr%3Da%26sig%3DAb%252Fc%26se%3D1", "sr%3Da%26sig%3D***"),
            ("%2526SIG%253dAb", "%2526SIG%253d***"),
            (
                r#"{"token":"sig\u003dAb/c=\u0026se","id":"t"}"#,
                r#"{"token":"sig\u003d***","id":"t"}"#,
            ),
            (r#"{"sig":"Ab"}"#, r#"{"sig":"***"}"#),
            ("<b>sig=Ab</b> 'sig=Cd' sig=", "<b>sig=***</b> 'sig=***' sig="),
            ("signature sig: sigh", "signature sig: sigh"),
        ] {
            assert_eq!(Printable::whole(text).to_string(), shown, "{text:?}");
            assert_eq!(
                alloc::format!("{:?}", Printable::brief(text)),
                alloc::format!("\"{shown}\""),
                "{text:?}"
            );
        }
        let long = "x".repeat(Printable::BRIEF - 5) + "sig=secret";
        assert!(!Printable::brief(&long).to_string().contains("se"), "cut in the mask");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        assert_eq!(Printable::whole(b"gr\xf6\xdfe\x80").to_string(), "gr\u{fffd}\u{fffd}e\u{fffd}");
    }

    #[test]
    fn no_debug_shows_a_token_or_fills_a_log() {
        let echo = "SharedAccessSignature sr=a&sig=SECRET&se=1 ".repeat(50);
        for error in errors(&echo) {
            for text in [alloc::format!("{error:?}"), alloc::format!("{error:#x?}")] {
                let shown = !matches!(error, Error::Configuration(_));
                assert!(!(shown && text.contains("SECRET")), "{text}");
                assert!(text.len() < 6 * Printable::BRIEF, "{}", text.len());
            }
        }
        let response = Response::new(200, echo.as_str())
            .protocol_result([("authorization", echo.as_str())].into_iter().collect())
            .hint(Some(echo.clone()));
        let shown = alloc::format!("{response:?}");
        assert!(shown.contains("sig=***") && !shown.contains("SECRET"), "{shown}");
        let id = crate::OperationId::new(echo).unwrap();
        assert!(!alloc::format!("{id:?}").contains("SECRET"));
    }

    #[test]
    fn the_fields_keep_what_came() {
        let Error::Rejected(rejection) = errors(NASTY).remove(2) else { panic!("a refusal") };
        assert_eq!(rejection.message, NASTY);
        assert_eq!(rejection.tracking_id.as_deref(), Some(NASTY));
    }
}
