//! `TSS2 PRIVATE KEY` files: a key that the TPM encrypted, and the key under which it stands.
//!
//! See <https://www.hansenpartnership.com/draft-bottomley-tpm2-keys.html>.

use base64::{Engine, engine::general_purpose::STANDARD};
use der::{
    Reader as _, SliceReader, Tag, TagNumber, Tagged,
    asn1::{AnyRef, ObjectIdentifier, UintRef},
};

use crate::{TpmError, frame::Reader};

const BEGIN: &str = "-----BEGIN TSS2 PRIVATE KEY-----";
const END: &str = "-----END TSS2 PRIVATE KEY-----";

/// A key that can be loaded, in TCG's list of object identifiers.
const LOADABLE_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.10.1.3");

/// What a file has.
#[derive(Clone)]
pub(crate) struct KeyFile {
    /// A hierarchy or a persistent handle.
    pub(crate) parent: u32,
    /// TPMT_PUBLIC.
    pub(crate) public: Vec<u8>,
    /// TPM2B_PRIVATE without its length.
    pub(crate) private: Vec<u8>,
    pub(crate) has_password: bool,
}

impl KeyFile {
    /// Whether the PEM text has such a key.
    pub(crate) fn is_in(text: &str) -> bool {
        text.contains(BEGIN)
    }

    pub(crate) fn from_pem(text: &str) -> Result<Self, TpmError> {
        let Some((_, body)) = text.split_once(BEGIN) else {
            return Err(unusable("there is no TSS2 PRIVATE KEY in the file"));
        };
        let Some((body, _)) = body.split_once(END) else {
            return Err(unusable("the file was cut off within the TSS2 PRIVATE KEY"));
        };
        let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let damaged = || unusable("the TSS2 PRIVATE KEY in the file is damaged");
        let der = STANDARD.decode(base64).map_err(|_| damaged())?;
        Fields::read(&der).ok_or_else(damaged)?.key()
    }
}

#[derive(Default)]
struct Fields<'a> {
    kind: Option<ObjectIdentifier>,
    empty_password: bool,
    /// A policy or a secret for its import, which only other programs know how to use.
    unknown: bool,
    parent: u32,
    public: &'a [u8],
    private: &'a [u8],
}

impl<'a> Fields<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let mut reader = SliceReader::new(der).ok()?;
        let whole: AnyRef<'a> = reader.decode().ok()?;
        if whole.tag() != Tag::Sequence || !reader.is_finished() {
            return None;
        }
        let mut reader = SliceReader::new(whole.value()).ok()?;
        let mut fields = Self { kind: Some(reader.decode().ok()?), ..Self::default() };
        loop {
            let field: AnyRef<'a> = reader.decode().ok()?;
            match field.tag() {
                Tag::ContextSpecific { number: TagNumber(0), .. } => {
                    // A BOOLEAN; tpm2-openssl writes true as 1, which DER does not allow.
                    fields.empty_password = field.value().last().is_some_and(|byte| *byte != 0);
                }
                Tag::ContextSpecific { .. } => fields.unknown = true,
                Tag::Integer => {
                    let parent = field.decode_as::<UintRef<'_>>().ok()?;
                    let bytes = parent.as_bytes();
                    let missing = 4usize.checked_sub(bytes.len())?;
                    let padded = [[0; 4].get(..missing)?, bytes].concat();
                    fields.parent = Reader(&padded).u32()?;
                    break;
                }
                _ => return None,
            }
        }
        let mut octets = || {
            let field: AnyRef<'a> = reader.decode().ok()?;
            let mut inside = Reader((field.tag() == Tag::OctetString).then(|| field.value())?);
            inside.sized().filter(|_| inside.0.is_empty())
        };
        (fields.public, fields.private) = (octets()?, octets()?);
        Some(fields)
    }

    fn key(self) -> Result<KeyFile, TpmError> {
        if self.kind != Some(LOADABLE_KEY) {
            return Err(unusable(
                "it is of a kind that has to be imported first; give a loadable key, as `openssl genpkey -provider tpm2` makes it",
            ));
        }
        if self.unknown {
            return Err(unusable("it has a policy; give a key without one"));
        }
        Ok(KeyFile {
            parent: self.parent,
            public: self.public.to_vec(),
            private: self.private.to_vec(),
            has_password: !self.empty_password,
        })
    }
}

pub(crate) fn unusable(reason: impl Into<String>) -> TpmError {
    TpmError::UnusableKey { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An EC key that `openssl genpkey -provider tpm2` of Debian's tpm2-openssl 1.1.1 made.
    const FILE: &str = include_str!("../tests/data/tpm2-openssl-p256.pem");

    fn der() -> Vec<u8> {
        let body: String = FILE.lines().filter(|line| !line.starts_with("-----")).collect();
        STANDARD.decode(body).unwrap()
    }

    fn pem(der: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    fn refusal(text: &str) -> String {
        KeyFile::from_pem(text).err().unwrap().to_string()
    }

    #[test]
    fn a_file_of_tpm2_openssl_is_read() {
        let key = KeyFile::from_pem(FILE).unwrap();
        assert_eq!((key.parent, key.has_password), (0x4000_0001, false));
        assert_eq!((key.public.len(), key.private.len()), (86, 126));
    }

    #[test]
    fn a_parent_at_a_persistent_handle_and_a_password_are_read() {
        let mut der = der();
        let parent = der.windows(6).position(|w| w == [2, 4, 0x40, 0, 0, 1]).unwrap();
        // 0x81000001 needs a zero byte in front, since DER's numbers have a sign.
        der.splice(parent..parent + 6, [2, 5, 0, 0x81, 0, 0, 1]);
        der[2] += 1;
        der[parent - 1] = 0; // the value of the BOOLEAN before it
        let key = KeyFile::from_pem(&pem(&der)).unwrap();
        assert_eq!((key.parent, key.has_password), (0x8100_0001, true));
    }

    #[test]
    fn other_kinds_of_keys_and_policies_are_named() {
        let mut importable = der();
        let kind = importable.windows(2).position(|w| w == [1, 3]).unwrap();
        importable[kind + 1] = 4;
        assert!(refusal(&pem(&importable)).contains("has to be imported first"));
        let mut with_policy = der();
        let field = with_policy.iter().position(|byte| *byte == 0xa0).unwrap();
        with_policy[field] = 0xa1;
        assert!(refusal(&pem(&with_policy)).contains("it has a policy"));
    }

    #[test]
    fn damage_is_named() {
        assert!(refusal("").contains("there is no TSS2 PRIVATE KEY"));
        assert!(refusal(BEGIN).contains("cut off"));
        assert!(refusal(&format!("{BEGIN}\n?\n{END}")).contains("damaged"));
        let der = der();
        for length in 0..der.len() {
            assert!(refusal(&pem(&der[..length])).contains("damaged"), "{length}");
        }
    }
}
