//! What the service does for a TPM: it encrypts a key so that only the TPM with this endorsement key and this storage
//! root key can take it in. Made in software, by TPM 2.0 Library, Part 1, credential protection and duplication; the order
//! and the sizes are the service's.

use std::{fmt, str::FromStr};

use aes::{
    Aes128,
    cipher::{Array, BlockCipherEncrypt, KeyInit},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use crypto_bigint::{
    Odd, U64, U2048,
    modular::{FixedMontyForm, FixedMontyParams},
};
use ring::{
    digest, hmac,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

/// The labels of the two seeds; the zero byte at the end belongs to them.
const IDENTITY: &[u8] = b"IDENTITY\0";
const DUPLICATE: &[u8] = b"DUPLICATE\0";

/// Of a modulus of 2048 bits, in bytes.
const MODULUS: usize = 256;

/// Of an HMAC-SHA256 key with the attributes sign, noDA and userWithAuth, in front of its `unique`: TPMT_PUBLIC.
const HMAC_KEY: [u8; 14] = [0, 8, 0, 0x0b, 0, 4, 4, 0x40, 0, 0, 0, 5, 0, 0x0b];

/// An RSA 2048 storage key of a TPM: an endorsement key or a storage root key.
///
/// It parses from what a device sends and an enrollment has: the marshaled `TPM2B_PUBLIC` in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct TpmStorageKey {
    /// TPMT_PUBLIC.
    public: Vec<u8>,
    modulus: Box<Odd<U2048>>,
    exponent: u32,
}

/// A text that is no storage key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TpmKeyError {
    /// It is not base64.
    #[error("it is not base64")]
    NotBase64,
    /// It is no `TPM2B_PUBLIC`, or was cut off.
    #[error("it is no public key of a TPM (TPM2B_PUBLIC), or was cut off")]
    NotPublic,
    /// Another kind of key.
    #[error(
        "it is no RSA 2048 storage key with SHA-256 and AES-128-CFB; other kinds are not taken"
    )]
    OtherKind,
}

impl TpmStorageKey {
    /// Reads a marshaled `TPM2B_PUBLIC`.
    ///
    /// # Errors
    /// [`TpmKeyError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TpmKeyError> {
        let public = whole(bytes).ok_or(TpmKeyError::NotPublic)?;
        Self::read(public).ok_or(TpmKeyError::OtherKind)
    }

    fn read(public: &[u8]) -> Option<Self> {
        // RSA, SHA-256; the attributes; the policy.
        let rest = public.strip_prefix(&[0, 1, 0, 0x0b])?.get(4..)?;
        let (policy, rest) =
            rest.split_first_chunk().map(|(n, rest)| (u16::from_be_bytes(*n), rest))?;
        // AES, 128 bits, CFB; no scheme; 2048 bits.
        let rest = rest.get(policy.into()..)?;
        let rest = rest.strip_prefix(&[0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 8, 0])?;
        let (exponent, rest) = rest.split_first_chunk()?;
        let exponent = match u32::from_be_bytes(*exponent) {
            0 => 65537,
            other => other,
        };
        let modulus = rest.strip_prefix(&[1, 0]).filter(|modulus| modulus.len() == MODULUS)?;
        let modulus = Odd::new(U2048::from_be_slice(modulus)).into_option()?;
        Some(Self { public: public.to_vec(), modulus: Box::new(modulus), exponent })
    }

    /// The marshaled `TPM2B_PUBLIC`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        sized(&self.public)
    }

    /// The name of the key: its hash algorithm, then the hash of its TPMT_PUBLIC.
    fn name(&self) -> Vec<u8> {
        name(&self.public)
    }

    /// RSA-OAEP with SHA-256 (RFC 8017, 7.1.1).
    fn encrypt(&self, message: &[u8; 32], label: &[u8], seed: &[u8; 32]) -> Vec<u8> {
        let mut block = Zeroizing::new(sha256(&[label]));
        block.resize(MODULUS - 32 - 1 - 32 - 1, 0);
        block.push(1);
        block.extend(message);
        mask(&mut block, seed);
        let mut masked_seed = *seed;
        mask(&mut masked_seed, &block);
        let encoded = Zeroizing::new([&[0], &masked_seed[..], &block[..]].concat());
        let parameters = FixedMontyParams::new_vartime(*self.modulus);
        let number = FixedMontyForm::new(&U2048::from_be_slice(&encoded), &parameters);
        let power = number.pow_vartime(&U64::from_u64(self.exponent.into()));
        power.retrieve().to_be_bytes().as_ref().to_vec()
    }
}

impl FromStr for TpmStorageKey {
    type Err = TpmKeyError;

    fn from_str(text: &str) -> Result<Self, TpmKeyError> {
        Self::from_bytes(&STANDARD.decode(text.trim()).map_err(|_| TpmKeyError::NotBase64)?)
    }
}

impl fmt::Display for TpmStorageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.to_bytes()))
    }
}

impl fmt::Debug for TpmStorageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TpmStorageKey({self})")
    }
}

/// Encrypts a key of at most 64 bytes for the TPM with these two keys, as the service does: an authentication key, which
/// the TPM turns into an HMAC-SHA256 key. `data` goes beside it, for programs on Windows.
///
/// # Errors
/// When the system gives no random bytes.
pub fn wrap_key(
    endorsement: &TpmStorageKey,
    storage: &TpmStorageKey,
    key: &[u8],
    data: &[u8],
) -> Result<Vec<u8>, NoRandomness> {
    let inner_key = random::<16>()?;

    // TPM2_MakeCredential for the storage root key's name, to the endorsement key.
    let seed = random::<32>()?;
    let credential = protect(&seed, &sized(&*inner_key), &storage.name());
    let encrypted_seed = endorsement.encrypt(&seed, IDENTITY, &*random()?);
    let mut whole = [sized(&credential), sized(&encrypted_seed)].concat();

    // TPM2_Duplicate of an HMAC key to the storage root key, with an inner and an outer wrapper.
    let obfuscation = random::<32>()?;
    let public = [&HMAC_KEY[..], &sized(&sha256(&[&*obfuscation, key]))].concat();
    let sensitive = [&[0, 8][..], &sized(&[]), &sized(&*obfuscation), &sized(key)].concat();
    let sensitive = Zeroizing::new(sized(&Zeroizing::new(sensitive)));
    let integrity = sized(&sha256(&[&sensitive, &name(&public)]));
    let inner = cfb(&inner_key, &Zeroizing::new([&integrity[..], &sensitive].concat()));
    let seed = random::<32>()?;
    let duplicate = protect(&seed, &inner, &name(&public));
    let encrypted_seed = storage.encrypt(&seed, DUPLICATE, &*random()?);
    for part in [duplicate, encrypted_seed, public, cfb(&inner_key, data)] {
        whole.extend(sized(&part));
    }
    Ok(whole)
}

/// The system gives no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(&mut *bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// The outer wrapper that credentials and duplicates share: the HMAC with its length, then what it is of.
fn protect(seed: &[u8; 32], data: &[u8], name: &[u8]) -> Vec<u8> {
    let key = kdf_a(seed, b"STORAGE", name, 128);
    let secret = cfb(key.first_chunk().unwrap_or(&[0; 16]), data);
    let key = kdf_a(seed, b"INTEGRITY", &[], 256);
    [sized(&hmac_sha256(&key, &[&secret, name])), secret].concat()
}

/// KDFa for at most 256 bits: one round of SP 800-108 in counter mode.
fn kdf_a(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> Zeroizing<Vec<u8>> {
    let counter = 1u32.to_be_bytes();
    hmac_sha256(key, &[&counter, label, &[0], context, &bits.to_be_bytes()])
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    parts.iter().for_each(|part| context.update(part));
    Zeroizing::new(context.sign().as_ref().to_vec())
}

fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

/// MGF1 with SHA-256 (RFC 8017, B.2.1), laid over the bytes.
fn mask(bytes: &mut [u8], seed: &[u8]) {
    for (counter, chunk) in (0u32..).zip(bytes.chunks_mut(32)) {
        let mask = sha256(&[seed, &counter.to_be_bytes()]);
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// AES-128-CFB with a zero IV.
fn cfb(key: &[u8; 16], data: &[u8]) -> Vec<u8> {
    let cipher = Aes128::new(&Array::from(*key));
    let mut block = Array::from([0; 16]);
    let mut encrypted = Vec::with_capacity(data.len());
    for chunk in data.chunks(16) {
        cipher.encrypt_block(&mut block);
        block.iter_mut().zip(chunk).for_each(|(byte, plain)| *byte ^= plain);
        encrypted.extend(block.iter().take(chunk.len()));
    }
    encrypted
}

fn name(public: &[u8]) -> Vec<u8> {
    [&[0, 0x0b][..], &sha256(&[public])].concat()
}

/// A TPM2B: a length of two bytes, then the bytes. Everything here has less than 64 KB.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

/// What is in a TPM2B that is nothing more.
fn whole(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    (rest.len() == usize::from(u16::from_be_bytes(*length))).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An endorsement key by the TCG's template L-1 with a modulus of ones.
    fn key(modulus: &[u8]) -> Vec<u8> {
        let policy = [0x83; 32];
        let head = [0, 1, 0, 0x0b, 0, 3, 0, 0xb2];
        let parameters = [0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 8, 0, 0, 0, 0, 0];
        sized(&[&head[..], &sized(&policy), &parameters, &sized(modulus)].concat())
    }

    #[test]
    fn a_storage_key_reads_as_it_prints() {
        let bytes = key(&[0xff; 256]);
        assert_eq!(bytes.len(), 316);
        let key = TpmStorageKey::from_bytes(&bytes).unwrap();
        assert!(key.to_string().starts_with("AToAAQAL"), "{key}");
        assert_eq!(key.to_string().parse(), Ok(key.clone()));
        assert_eq!(key.to_bytes(), bytes);
    }

    #[test]
    fn what_is_no_storage_key_is_refused_by_kind() {
        let whole = key(&[0xff; 256]);
        for length in 0..whole.len() {
            let cut = TpmStorageKey::from_bytes(&whole[..length]);
            assert_eq!(cut, Err(TpmKeyError::NotPublic), "{length}");
        }
        assert_eq!("?".parse::<TpmStorageKey>(), Err(TpmKeyError::NotBase64));
        let ecc = sized(&[0, 0x23, 0, 0x0b, 0, 3, 4, 0x72]);
        for other in [key(&[0xff; 128]), key(&[0xfe; 256]), ecc] {
            assert_eq!(TpmStorageKey::from_bytes(&other), Err(TpmKeyError::OtherKind));
        }
    }

    /// The sizes were captured from the service. That TPMs take it in is shown in dps-tpm's tests.
    #[test]
    fn a_wrapped_key_has_the_parts_of_the_service() {
        let storage = TpmStorageKey::from_bytes(&key(&[0xff; 256])).unwrap();
        let wrapped = wrap_key(&storage, &storage, &[7; 32], &[0; 108]).unwrap();
        let (mut rest, mut sizes) = (&wrapped[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk() {
            let length = usize::from(u16::from_be_bytes(*length));
            sizes.push(length);
            rest = &after[length..];
        }
        assert_eq!(sizes, [52, 256, 142, 256, 48, 108]);
        assert_ne!(wrapped, wrap_key(&storage, &storage, &[7; 32], &[0; 108]).unwrap());
    }
}
