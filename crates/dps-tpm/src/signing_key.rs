//! A private key in the TPM that signs TLS handshakes.

use std::{fmt, str::FromStr, sync::Arc};

use dps_attestation::internal::{RSA, positive_numbers};
use dps_state_machine::{ConfigurationError, CredentialError, Error};
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::{SubjectPublicKeyInfoDer, alg_id},
    sign::{Signer, SigningKey, public_key_to_spki},
};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tpm2_protocol::TpmUnmarshal;
use tpm2_protocol::data::{
    TpmAlgId, TpmCc, TpmEccCurve, TpmRh, TpmaObject, TpmsSchemeHash, TpmtPublic, TpmtSigScheme,
    TpmtSignature, TpmuAsymScheme, TpmuPublicId, TpmuPublicParms, TpmuSigScheme, TpmuSignature,
};

use crate::{
    Password, Tpm, TpmError,
    config::check_handle,
    frame::Command,
    keys::OWNER,
    session::{Session, name_password},
    template,
    tss2::{KeyFile, unusable},
};

/// Where the private key is.
#[derive(Clone)]
#[non_exhaustive]
pub enum KeySource {
    /// At a persistent handle of the TPM. As text: `tpm:0x81000002`.
    Handle(u32),
    /// In a file that begins `-----BEGIN TSS2 PRIVATE KEY-----`: its text. Only the TPM that made it can use it.
    File(String),
}

/// What stands in front of a handle.
const HANDLE: &str = "tpm:";

impl KeySource {
    /// Whether the content of a file is a key for a TPM.
    #[must_use]
    pub fn is_key_file(content: &[u8]) -> bool {
        str::from_utf8(content).is_ok_and(KeyFile::is_in)
    }
}

impl FromStr for KeySource {
    type Err = Error;

    /// Reads `tpm:` and a persistent handle, in hexadecimal digits behind `0x`.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it is something else.
    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.strip_prefix(HANDLE).and_then(|handle| handle.strip_prefix("0x"));
        let Some(handle) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) else {
            let reason = "give a persistent handle, for example tpm:0x81000002";
            return Err(ConfigurationError::new("TPM key", text, reason).into());
        };
        check_handle("TPM key", handle)?;
        Ok(Self::Handle(handle))
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handle(handle) => write!(f, "Handle({handle:#010x})"),
            Self::File(_) => f.write_str("File(..)"),
        }
    }
}

/// A private key that never leaves the TPM: RSA of 2048 to 4096 bits, or on the curve P-256. Give it to
/// `X509Identity` with its certificate.
///
/// Signing blocks its thread for as long as the TPM takes, since rustls signs within the handshake: about 6 ms with a
/// software TPM; a hardware TPM takes some 100 ms with RSA. In a program that does much at once on one thread, give the
/// client a thread of its own.
///
/// A key file whose parent is a hierarchy costs a further key to be made for each signature; with a persistent parent
/// (`tpm2_evictcontrol`, and `-pkeyopt parent:0x81000001` for OpenSSL) it does not.
///
/// RSA signs TLS 1.3 with PSS, whose salt must be as long as the hash. TPMs since revision 1.16 of the TPM 2.0 Library
/// do that; an older one, which takes the longest salt, is refused by the server.
#[derive(Clone)]
pub struct TpmSigningKey(Arc<Inner>);

struct Inner {
    tpm: Tpm,
    location: Location,
    password: Password,
    kind: Kind,
    spki: SubjectPublicKeyInfoDer<'static>,
}

#[derive(Clone)]
enum Location {
    Handle(u32),
    File(KeyFile),
}

enum Kind {
    /// With the schemes that the key allows.
    Rsa(&'static [SignatureScheme]),
    P256,
}

const TAKEN: &str =
    "give an RSA key of 2048 to 4096 bits or one on P-256 that may sign what is given to it";

impl TpmSigningKey {
    /// Reads the public half of the key. A key file's is in the file; for a handle the TPM is asked, and the thread
    /// blocked until it answers.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::UnusableKey`] when it is of a kind that TLS or the service does not take,
    /// [`TpmError::NoKey`] when nothing is at the handle.
    pub fn new(tpm: &Tpm, source: &KeySource, password: Password) -> Result<Self, TpmError> {
        let (location, public) = match source {
            KeySource::File(text) => {
                let file = KeyFile::from_pem(text)?;
                if file.has_password && password.bytes().is_empty() {
                    return Err(TpmError::Password { hierarchy: KEY });
                }
                let public = file.public.clone();
                (Location::File(file), public)
            }
            KeySource::Handle(handle) => {
                let handle = *handle;
                let public = tpm.run_blocking(move |session| session.read_public(handle))?;
                (Location::Handle(handle), public.ok_or(TpmError::NoKey { handle })?)
            }
        };
        let public =
            template::read(&public).ok_or_else(|| unusable("its public half is damaged"))?;
        let (kind, spki) = examine(&public)?;
        Ok(Self(Arc::new(Inner { tpm: tpm.clone(), location, password, kind, spki })))
    }
}

const KEY: &str = "key";

/// What the key can do, and its public half.
fn examine(key: &TpmtPublic) -> Result<(Kind, SubjectPublicKeyInfoDer<'static>), TpmError> {
    let has = |attribute| key.object_attributes.contains(attribute);
    let what = template::kind(key);
    if !has(TpmaObject::SIGN_ENCRYPT) || has(TpmaObject::RESTRICTED) {
        let reason = format!("it is {what} that may not sign a TLS handshake; {TAKEN}");
        return Err(unusable(reason));
    }
    if !has(TpmaObject::USER_WITH_AUTH) {
        return Err(unusable(format!("it is {what} that only a policy opens; {TAKEN}")));
    }
    let no = || unusable(format!("it is {what}; {TAKEN}"));
    match (&key.parameters, &key.unique) {
        (TpmuPublicParms::Rsa(rsa), TpmuPublicId::Rsa(modulus))
            if (2048..=4096).contains(&rsa.key_bits.value()) =>
        {
            let exponent = match rsa.exponent.value() {
                0 => 65537_u32,
                other => other,
            };
            let public = [modulus, &exponent.to_be_bytes()[..]];
            let spki = public_key_to_spki(&alg_id::RSA_ENCRYPTION, positive_numbers(public));
            let kind = Kind::Rsa(allowed(&rsa.scheme.scheme, &rsa.scheme.details).ok_or_else(no)?);
            Ok((kind, spki))
        }
        (TpmuPublicParms::Ecc(ecc), TpmuPublicId::Ecc(point))
            if ecc.curve_id == TpmEccCurve::NistP256
                && matches!(ecc.scheme.scheme, TpmAlgId::Null | TpmAlgId::Ecdsa)
                && is_sha256_or_free(&ecc.scheme.details) =>
        {
            let (x, y) = (padded(&point.x).ok_or_else(no)?, padded(&point.y).ok_or_else(no)?);
            let uncompressed = [&[4], &x[..], &y].concat();
            Ok((Kind::P256, public_key_to_spki(&alg_id::ECDSA_P256, uncompressed)))
        }
        _ => Err(no()),
    }
}

fn is_sha256_or_free(details: &TpmuAsymScheme) -> bool {
    match details {
        TpmuAsymScheme::Hash(scheme) => scheme.hash_alg == TpmAlgId::Sha256,
        TpmuAsymScheme::Null => true,
    }
}

/// The schemes that an RSA key's own one leaves.
fn allowed(scheme: &TpmAlgId, details: &TpmuAsymScheme) -> Option<&'static [SignatureScheme]> {
    use TpmAlgId::{Sha256, Sha384, Sha512};
    let hash = match details {
        TpmuAsymScheme::Hash(scheme) => Some(scheme.hash_alg),
        TpmuAsymScheme::Null => None,
    };
    match (scheme, hash) {
        (TpmAlgId::Null, None) => Some(RSA),
        (TpmAlgId::Rsapss, Some(Sha256)) => RSA.get(0..1),
        (TpmAlgId::Rsapss, Some(Sha384)) => RSA.get(1..2),
        (TpmAlgId::Rsapss, Some(Sha512)) => RSA.get(2..3),
        (TpmAlgId::Rsassa, Some(Sha256)) => RSA.get(3..4),
        (TpmAlgId::Rsassa, Some(Sha384)) => RSA.get(4..5),
        (TpmAlgId::Rsassa, Some(Sha512)) => RSA.get(5..6),
        _ => None,
    }
}

/// A coordinate at its full length: TPMs leave out zeros in front.
fn padded(number: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let start = bytes.len().checked_sub(number.len())?;
    bytes.get_mut(start..)?.copy_from_slice(number);
    Some(bytes)
}

impl SigningKey for TpmSigningKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let schemes = match self.0.kind {
            Kind::Rsa(schemes) => schemes,
            Kind::P256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
        };
        let scheme = *schemes.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(HandshakeSigner { key: self.clone(), scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.0.spki.clone())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.kind {
            Kind::Rsa(_) => SignatureAlgorithm::RSA,
            Kind::P256 => SignatureAlgorithm::ECDSA,
        }
    }
}

impl fmt::Debug for TpmSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmSigningKey")
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct HandshakeSigner {
    key: TpmSigningKey,
    scheme: SignatureScheme,
}

impl Signer for HandshakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.key.sign(self.scheme, message).map_err(|error| {
            // The transport takes it out again, with its hint and whether to try again.
            let error = CredentialError::from(error);
            rustls::Error::Other(rustls::OtherError(Arc::new(error)))
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl TpmSigningKey {
    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, TpmError> {
        let (scheme, digest) = prepare(scheme, message)
            .ok_or_else(|| unusable(format!("it does not sign with {scheme:?}")))?;
        let key = Arc::clone(&self.0);
        self.0.tpm.run_blocking(move |session| {
            session.sign_digest(&key.location, &key.password, &digest, &scheme)
        })
    }
}

/// What the TPM is asked to sign, and how.
fn prepare(scheme: SignatureScheme, message: &[u8]) -> Option<(TpmtSigScheme, Vec<u8>)> {
    use SignatureScheme as S;
    let algorithm = match scheme {
        S::RSA_PSS_SHA256 | S::RSA_PSS_SHA384 | S::RSA_PSS_SHA512 => TpmAlgId::Rsapss,
        S::RSA_PKCS1_SHA256 | S::RSA_PKCS1_SHA384 | S::RSA_PKCS1_SHA512 => TpmAlgId::Rsassa,
        S::ECDSA_NISTP256_SHA256 => TpmAlgId::Ecdsa,
        _ => return None,
    };
    let (hash_alg, digest) = match scheme {
        S::RSA_PSS_SHA384 | S::RSA_PKCS1_SHA384 => {
            (TpmAlgId::Sha384, Sha384::digest(message).to_vec())
        }
        S::RSA_PSS_SHA512 | S::RSA_PKCS1_SHA512 => {
            (TpmAlgId::Sha512, Sha512::digest(message).to_vec())
        }
        _ => (TpmAlgId::Sha256, Sha256::digest(message).to_vec()),
    };
    let details = TpmuSigScheme::Hash(TpmsSchemeHash { hash_alg });
    Some((TpmtSigScheme { scheme: algorithm, details }, digest))
}

impl Session<'_> {
    fn sign_digest(
        &mut self,
        location: &Location,
        password: &Password,
        digest: &[u8],
        scheme: &TpmtSigScheme,
    ) -> Result<Vec<u8>, TpmError> {
        let key = match location {
            Location::Handle(handle) => *handle,
            Location::File(file) => self.load_file(file)?,
        };
        let command = Command::sign(key, password.bytes(), digest, scheme);
        let answer = self.send(command).map_err(name_password(KEY))?;
        let signature =
            answer.parameters(0).and_then(|reader| match TpmtSignature::unmarshal(reader.0) {
                Ok((signature, [])) => bytes_of(&signature),
                _ => None,
            });
        self.read(TpmCc::Sign, signature)
    }

    fn load_file(&mut self, file: &KeyFile) -> Result<u32, TpmError> {
        let hierarchy = [TpmRh::Owner, TpmRh::Endorsement, TpmRh::Null];
        let parent = match hierarchy.into_iter().find(|hierarchy| hierarchy.value() == file.parent)
        {
            None => file.parent,
            Some(hierarchy) => self.key_file_parent(hierarchy)?,
        };
        let (key, _) = self.load(Command::load(parent, &file.private, &file.public)).map_err(|error| {
            match error {
                TpmError::Refused { command, code } => unusable(format!(
                    "the TPM can't load it ({command}: {code}); was it made by another TPM, or was this one cleared?"
                )),
                _ => error,
            }
        })?;
        Ok(key)
    }

    fn key_file_parent(&mut self, hierarchy: TpmRh) -> Result<u32, TpmError> {
        let (password, name) = match hierarchy {
            TpmRh::Owner => (self.config.owner_password.bytes(), OWNER),
            TpmRh::Endorsement => {
                (self.config.endorsement_password.bytes(), crate::keys::ENDORSEMENT)
            }
            _ => (&[][..], "null hierarchy"),
        };
        let parent = template::key_file_parent();
        let command = Command::create_primary(hierarchy, password, &parent);
        Ok(self.load(command).map_err(name_password(name))?.0)
    }
}

/// A signature as TLS has it.
fn bytes_of(signature: &TpmtSignature) -> Option<Vec<u8>> {
    match &signature.signature {
        TpmuSignature::Rsassa(rsa) | TpmuSignature::Rsapss(rsa) => Some(rsa.sig.to_vec()),
        TpmuSignature::Ecdsa(ecdsa) => {
            Some(positive_numbers([&ecdsa.signature_r, &ecdsa.signature_s]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_persistent_handle_of_the_owner() {
        let source = "tpm:0x81000002".parse::<KeySource>().unwrap();
        assert!(matches!(source, KeySource::Handle(0x8100_0002)));
        for wrong in [
            "",
            "tpm:",
            "0x81000002",
            "tpm:81000002",
            "tpm:0x",
            "tpm:0x80000000",
            "tpm:0x1810000020",
        ] {
            let message = wrong.parse::<KeySource>().unwrap_err().to_string();
            assert!(message.starts_with("TPM key"), "{wrong}: {message}");
        }
    }

    #[test]
    fn coordinates_get_their_zeros_back() {
        assert_eq!(padded(&[7]).unwrap()[30..], [0, 7]);
        assert!(padded(&[7; 33]).is_none());
    }
}
