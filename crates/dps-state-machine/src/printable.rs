//! What somebody else wrote, as it can stand in a line.

use core::fmt::{self, Write as _};

/// A text that somebody else wrote, as it can stand in one line of a log or of a terminal.
///
/// What would break the line, move the cursor, change colours or turn the direction of reading is shown as an
/// escape like `\n` or `\u{1b}`. Errors show in this way whatever a peer wrote; their fields have it as it came.
#[derive(Clone, Copy, Debug)]
pub struct Printable<'a> {
    text: &'a str,
    at_most: usize,
}

impl<'a> Printable<'a> {
    /// So many characters an error shows of each text that it has from a peer.
    pub const BRIEF: usize = 1000;

    /// All of the text.
    #[must_use]
    pub fn whole(text: &'a str) -> Self {
        Self { text, at_most: usize::MAX }
    }

    /// The text up to [`Self::BRIEF`] characters, and how long it is when that is not all.
    #[must_use]
    pub fn brief(text: &'a str) -> Self {
        Self { text, at_most: Self::BRIEF }
    }
}

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.at_most;
        for c in self.text.chars() {
            let escape = is_unfit(c).then(|| c.escape_default());
            let Some(rest) = left.checked_sub(escape.as_ref().map_or(1, ExactSizeIterator::len))
            else {
                return write!(f, "... ({} bytes in all)", self.text.len());
            };
            left = rest;
            match escape {
                Some(escape) => write!(f, "{escape}")?,
                None => f.write_char(c)?,
            }
        }
        Ok(())
    }
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
            assert_eq!(Printable::whole(text).to_string(), text);
            assert_eq!(Printable::brief(text).to_string(), text);
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
    fn the_fields_keep_what_came() {
        let Error::Rejected(rejection) = errors(NASTY).remove(2) else { panic!("a refusal") };
        assert_eq!(rejection.message, NASTY);
        assert_eq!(rejection.tracking_id.as_deref(), Some(NASTY));
    }
}
