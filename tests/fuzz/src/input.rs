//! What targets share: reading several things from one input, and looking for secrets.

use std::{borrow::Cow, collections::HashSet};

/// Ends a part. No UTF-8 text has this byte, so that seeds stay readable.
const END: u8 = 0xFE;

/// The parts of the input.
pub(crate) fn parts(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == END)
}

/// The part as text; what is no UTF-8 becomes U+FFFD.
pub(crate) fn text(part: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(part)
}

/// Something that must not be shown, not even a run of `length` bytes of it.
pub(crate) struct Secret {
    runs: HashSet<Vec<u8>>,
    length: usize,
}

impl Secret {
    pub(crate) fn new(secret: &[u8], length: usize) -> Self {
        Self { runs: secret.windows(length).map(<[u8]>::to_vec).collect(), length }
    }

    /// Whether a run of it is in there.
    pub(crate) fn is_in(&self, text: &[u8]) -> bool {
        text.windows(self.length).any(|run| self.runs.contains(run))
    }

    pub(crate) fn assert_not_in(&self, text: &str) {
        assert!(!self.is_in(text.as_bytes()), "a secret is in {text:?}");
    }
}
