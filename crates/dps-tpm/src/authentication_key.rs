//! What the service sends: a key that only this TPM can take in.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use tpm2_protocol::data::{TpmAlgId, TpmaObject, TpmtPublic};

use crate::{TpmError, frame::Reader, template};

/// A key that the service made and encrypted for one TPM: of the challenge, or for the assigned hub.
///
/// It parses from base64, as the service sends it. All of it is read before the TPM is asked anything. It is of no use
/// without the TPM, and so it is no secret; it is long, and therefore not printed.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-tpm-attestation#detailed-attestation-process>.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthenticationKey {
    /// TPM2B_ID_OBJECT without its length: the inner key, encrypted.
    pub(crate) credential: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET without its length, for the endorsement key.
    pub(crate) secret: Vec<u8>,
    /// TPM2B_PRIVATE without its length: the key, encrypted twice.
    pub(crate) duplicate: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET without its length, for the storage root key.
    pub(crate) seed: Vec<u8>,
    /// TPMT_PUBLIC of the key.
    pub(crate) public: Vec<u8>,
}

/// The most that a TPM takes of each (TPM 2.0 Library, Part 2, for RSA keys up to 4096 bits).
const CREDENTIAL: usize = 132;
const SECRET: usize = 512;
const DUPLICATE: usize = 1408;
const PUBLIC: usize = 512;

impl AuthenticationKey {
    /// Reads the bytes, as they are after base64 was decoded. What follows the parts that are known is ignored.
    ///
    /// # Errors
    /// [`TpmError::DamagedKey`] that says which part is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader(bytes);
        let mut part = |most: usize, damaged: &'static str| {
            let part = reader.sized().filter(|part| (1..=most).contains(&part.len()));
            part.map(<[u8]>::to_vec).ok_or_else(|| wrong(damaged))
        };
        let key = Self {
            credential: part(CREDENTIAL, "the encrypted credential")?,
            secret: part(SECRET, "the secret for the endorsement key")?,
            duplicate: part(DUPLICATE, "the encrypted key")?,
            seed: part(SECRET, "the seed for the storage root key")?,
            public: part(PUBLIC, "the public part of the key")?,
        };
        // For programs on Windows; nobody else reads it.
        if !reader.0.is_empty() && reader.sized().is_none() {
            return Err(wrong("what follows the key is cut off"));
        }
        match template::read(&key.public) {
            Some(public) if is_hmac_key(&public) => Ok(key),
            Some(_) => Err(wrong("it is no HMAC key")),
            None => Err(wrong("the public part of the key")),
        }
    }
}

fn is_hmac_key(public: &TpmtPublic) -> bool {
    public.object_type == TpmAlgId::KeyedHash
        && public.object_attributes.contains(TpmaObject::SIGN_ENCRYPT)
        && public.object_attributes.contains(TpmaObject::USER_WITH_AUTH)
}

fn wrong(reason: &'static str) -> TpmError {
    TpmError::DamagedKey { reason }
}

impl FromStr for AuthenticationKey {
    type Err = TpmError;

    fn from_str(text: &str) -> Result<Self, TpmError> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| wrong("it is not base64"))?;
        Self::from_bytes(&bytes)
    }
}

impl fmt::Debug for AuthenticationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticationKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HMAC_KEY: [u8; 16] = [0, 8, 0, 11, 0, 4, 4, 0x40, 0, 0, 0, 5, 0, 11, 0, 32];

    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn with_public(public: &[u8]) -> Vec<u8> {
        [sized(&[1; 52]), sized(&[2; 256]), sized(&[3; 142]), sized(&[4; 256]), sized(public)]
            .concat()
    }

    fn whole() -> Vec<u8> {
        with_public(&[&HMAC_KEY[..], &[5; 32]].concat())
    }

    #[test]
    fn the_five_parts_are_found_and_what_follows_is_ignored() {
        let key = AuthenticationKey::from_bytes(&whole()).unwrap();
        assert_eq!((key.credential, key.seed), (vec![1; 52], vec![4; 256]));
        for rest in [sized(&[6; 154]), sized(&[]), [sized(&[6; 108]), vec![7; 9]].concat()] {
            let bytes = [whole(), rest].concat();
            assert!(AuthenticationKey::from_bytes(&bytes).is_ok());
            let text = format!("  {}\n", STANDARD.encode(bytes));
            assert!(text.parse::<AuthenticationKey>().is_ok());
        }
    }

    #[test]
    fn a_key_that_is_cut_off_anywhere_is_damaged() {
        let bytes = [whole(), sized(&[6; 10])].concat();
        for length in (0..bytes.len()).filter(|length| *length != whole().len()) {
            let error = AuthenticationKey::from_bytes(&bytes[..length]).unwrap_err();
            assert!(matches!(error, TpmError::DamagedKey { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn parts_that_no_tpm_takes_and_other_kinds_of_keys_are_refused() {
        let cases = [
            (sized(&[1; 133]), "the encrypted credential"),
            ([sized(&[1; 52]), sized(&[])].concat(), "the secret for the endorsement key"),
            (with_public(&[1, 2, 3]), "the public part of the key"),
            (
                with_public(&template::write(&template::key_file_parent()).unwrap()),
                "it is no HMAC key",
            ),
        ];
        for (bytes, reason) in cases {
            let error = AuthenticationKey::from_bytes(&bytes).unwrap_err();
            assert!(error.to_string().ends_with(reason), "{error}");
        }
        let error = "no base64!".parse::<AuthenticationKey>().unwrap_err();
        assert!(error.to_string().ends_with("it is not base64"), "{error}");
    }

    #[test]
    fn it_is_not_printed() {
        let key = AuthenticationKey::from_bytes(&whole()).unwrap();
        assert_eq!(format!("{key:?}"), "AuthenticationKey { .. }");
    }
}
