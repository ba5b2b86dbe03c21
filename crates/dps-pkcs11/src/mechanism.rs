//! How a token is asked for the signatures of TLS.

use cryptoki::{
    mechanism::{
        Mechanism, MechanismType,
        rsa::{PkcsMgfType, PkcsPssParams},
    },
    types::Ulong,
};
use dps_attestation::internal::RSA;
use ring::digest::{SHA256, SHA384, SHA512, digest};
use rustls::SignatureScheme;

use crate::object::Kind;

impl Kind {
    pub(crate) fn schemes(self) -> &'static [SignatureScheme] {
        match self {
            Self::Rsa => RSA,
            Self::P256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
            Self::P384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
        }
    }
}

/// One way to make a signature.
pub(crate) struct Way {
    pub(crate) mechanism: Mechanism<'static>,
    input: Input,
    hash: Hash,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    /// The token hashes.
    Message,
    Digest,
    /// The hash with its name before it (RFC 8017, section 9.2).
    DigestInfo,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Way {
    /// The first one of the scheme that the token and the key allow. `in_parts` asks for one that takes the message in
    /// parts, which those without a hash do not.
    pub(crate) fn find(
        scheme: SignatureScheme,
        allowed: impl Fn(MechanismType) -> bool,
        in_parts: bool,
    ) -> Option<Self> {
        let (hash, mechanisms) = ways(scheme)?;
        mechanisms.into_iter().map(|(mechanism, input)| Self { mechanism, input, hash }).find(
            |way| {
                allowed(way.mechanism.mechanism_type())
                    && (!in_parts || way.input == Input::Message)
            },
        )
    }

    /// What the token is given.
    pub(crate) fn input(&self, message: &[u8]) -> Vec<u8> {
        match self.input {
            Input::Message => message.to_vec(),
            Input::Digest => self.hash.of(message),
            Input::DigestInfo => self.hash.info(message),
        }
    }
}

/// The mechanisms for a scheme. Most tokens have both; some have only one.
fn ways(scheme: SignatureScheme) -> Option<(Hash, [(Mechanism<'static>, Input); 2])> {
    use SignatureScheme as S;
    let hash = match scheme {
        S::RSA_PSS_SHA256 | S::RSA_PKCS1_SHA256 | S::ECDSA_NISTP256_SHA256 => Hash::Sha256,
        S::RSA_PSS_SHA384 | S::RSA_PKCS1_SHA384 | S::ECDSA_NISTP384_SHA384 => Hash::Sha384,
        S::RSA_PSS_SHA512 | S::RSA_PKCS1_SHA512 => Hash::Sha512,
        _ => return None,
    };
    let mechanisms = match scheme {
        S::RSA_PSS_SHA256 | S::RSA_PSS_SHA384 | S::RSA_PSS_SHA512 => {
            let pss = hash.pss();
            let hashing = match hash {
                Hash::Sha256 => Mechanism::Sha256RsaPkcsPss(pss),
                Hash::Sha384 => Mechanism::Sha384RsaPkcsPss(pss),
                Hash::Sha512 => Mechanism::Sha512RsaPkcsPss(pss),
            };
            [(hashing, Input::Message), (Mechanism::RsaPkcsPss(pss), Input::Digest)]
        }
        S::RSA_PKCS1_SHA256 | S::RSA_PKCS1_SHA384 | S::RSA_PKCS1_SHA512 => {
            let hashing = match hash {
                Hash::Sha256 => Mechanism::Sha256RsaPkcs,
                Hash::Sha384 => Mechanism::Sha384RsaPkcs,
                Hash::Sha512 => Mechanism::Sha512RsaPkcs,
            };
            [(hashing, Input::Message), (Mechanism::RsaPkcs, Input::DigestInfo)]
        }
        S::ECDSA_NISTP256_SHA256 => {
            [(Mechanism::Ecdsa, Input::Digest), (Mechanism::EcdsaSha256, Input::Message)]
        }
        _ => [(Mechanism::Ecdsa, Input::Digest), (Mechanism::EcdsaSha384, Input::Message)],
    };
    Some((hash, mechanisms))
}

impl Hash {
    fn of(self, message: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha256 => &SHA256,
            Self::Sha384 => &SHA384,
            Self::Sha512 => &SHA512,
        };
        digest(algorithm, message).as_ref().to_vec()
    }

    fn info(self, message: &[u8]) -> Vec<u8> {
        let (length, number) = match self {
            Self::Sha256 => (32, 1),
            Self::Sha384 => (48, 2),
            Self::Sha512 => (64, 3),
        };
        // SEQUENCE { SEQUENCE { id-sha2-number, NULL }, OCTET STRING }.
        let head = [
            0x30,
            length + 17,
            0x30,
            13,
            6,
            9,
            0x60,
            0x86,
            0x48,
            1,
            0x65,
            3,
            4,
            2,
            number,
            5,
            0,
            4,
            length,
        ];
        [&head[..], &self.of(message)].concat()
    }

    /// The salt is as long as the hash (RFC 8446, section 4.2.3).
    fn pss(self) -> PkcsPssParams {
        let (hash_alg, mgf, length) = match self {
            Self::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
            Self::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
            Self::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
        };
        PkcsPssParams { hash_alg, mgf, s_len: Ulong::new(length) }
    }
}
