//! Fresh ids and keys from one seed, so that the core needs no source of randomness.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest;
use zeroize::Zeroizing;

/// An endless supply of GUIDs and keys.
pub(crate) struct Guids {
    seed: [u8; 32],
    count: u64,
}

impl Guids {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, count: 0 }
    }

    /// A random-looking GUID, as the service's tracking ids are.
    pub(crate) fn next(&mut self) -> String {
        let [a, b] = self.words();
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 48 & 0x3fff | 0x8000,
            b & 0xffff_ffff_ffff
        )
    }

    /// An operation id: a number, a word and a GUID.
    pub(crate) fn next_operation(&mut self) -> String {
        let [word, _] = self.words();
        format!("4.{word:016x}.{}", self.next())
    }

    /// An etag: a quoted GUID in base64.
    pub(crate) fn next_etag(&mut self) -> String {
        STANDARD.encode(self.next_record_etag())
    }

    /// The etag of a record: a GUID in quotes, which belong to it.
    pub(crate) fn next_record_etag(&mut self) -> String {
        format!("{:?}", self.next())
    }

    /// A key: whoever does not know the seed can't tell it from what else came of it.
    pub(crate) fn next_key(&mut self) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(self.digest().as_ref());
        key
    }

    fn words(&mut self) -> [u64; 2] {
        let digest = self.digest();
        let mut bytes = digest.as_ref().iter();
        [(); 2].map(|()| bytes.by_ref().take(8).fold(0, |word, b| word << 8 | u64::from(*b)))
    }

    fn digest(&mut self) -> digest::Digest {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.seed);
        context.update(&self.count.to_be_bytes());
        self.count = self.count.wrapping_add(1);
        context.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guids_have_the_form_of_version_4_and_differ() {
        let mut guids = Guids::new([7; 32]);
        let (first, second) = (guids.next(), guids.next());
        assert_ne!(first, second);
        for guid in [first, second] {
            let parts: Vec<_> = guid.split('-').collect();
            assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
            assert!(
                parts[2].starts_with('4') && parts[3].starts_with(['8', '9', 'a', 'b']),
                "{guid}"
            );
        }
        assert!(guids.next_operation().starts_with("4."));
        assert_ne!(guids.next_etag(), guids.next_etag());
    }
}
