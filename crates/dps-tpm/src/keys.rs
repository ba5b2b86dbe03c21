//! The endorsement key and the storage root key: made when they are missing, checked when they are there.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use dps_state_machine::RegistrationId;
use sha2::{Digest, Sha256};
use tpm2_protocol::{
    TpmResult,
    data::{TpmCc, TpmRcBase, TpmRh, TpmtPublic},
};

use crate::{
    TpmConfig, TpmError,
    frame::Command,
    session::{Session, name_password},
    template,
};

/// What the service knows a TPM by: the public halves of its endorsement key and its storage root key.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-tpm-attestation>.
#[derive(Clone, PartialEq, Eq)]
pub struct TpmKeys {
    /// TPM2B_PUBLIC, its length in front.
    endorsement: Vec<u8>,
    storage: Vec<u8>,
}

impl TpmKeys {
    /// The endorsement key as an enrollment has it: the marshaled `TPM2B_PUBLIC` in base64.
    #[must_use]
    pub fn endorsement_key(&self) -> String {
        STANDARD.encode(&self.endorsement)
    }

    /// The storage root key in the same form.
    #[must_use]
    pub fn storage_root_key(&self) -> String {
        STANDARD.encode(&self.storage)
    }

    /// The endorsement key's bytes: a marshaled `TPM2B_PUBLIC`.
    #[must_use]
    pub fn endorsement_key_bytes(&self) -> &[u8] {
        &self.endorsement
    }

    /// The storage root key's bytes: a marshaled `TPM2B_PUBLIC`.
    #[must_use]
    pub fn storage_root_key_bytes(&self) -> &[u8] {
        &self.storage
    }

    /// The registration id that Microsoft's SDKs make of an endorsement key when none is given: the SHA-256 of its
    /// bytes in base32, 52 lower-case characters.
    ///
    /// # Errors
    /// None that is known: the text is a registration id always.
    pub fn registration_id(&self) -> Result<RegistrationId, dps_state_machine::Error> {
        base32(&Sha256::digest(&self.endorsement)).parse()
    }
}

/// It shows how the keys begin; they are no secret, but long.
impl fmt::Debug for TpmKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TpmKeys")
            .field("registration_id", &base32(&Sha256::digest(&self.endorsement)))
            .finish_non_exhaustive()
    }
}

/// RFC 4648 in lower case without padding.
fn base32(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let bits: Vec<u8> = bits.collect();
    bits.chunks(5)
        .map(|five| (0..5).fold(0, |sum, at| sum << 1 | five.get(at).copied().unwrap_or(0)))
        .filter_map(|five: u8| ALPHABET.get(usize::from(five)).map(|letter| char::from(*letter)))
        .collect()
}

/// One of the two keys.
struct Primary {
    handle: u32,
    hierarchy: TpmRh,
    /// For messages.
    hierarchy_name: &'static str,
    expected: &'static str,
    template: TpmResult<TpmtPublic>,
}

pub(crate) const OWNER: &str = "owner hierarchy";
pub(crate) const ENDORSEMENT: &str = "endorsement hierarchy";

fn endorsement(config: &TpmConfig) -> Primary {
    Primary {
        handle: config.endorsement_handle,
        hierarchy: TpmRh::Endorsement,
        hierarchy_name: ENDORSEMENT,
        expected: "the endorsement key, an RSA key of 2048 bits by the TCG's template L-1",
        template: template::endorsement_key(),
    }
}

fn storage(config: &TpmConfig) -> Primary {
    Primary {
        handle: config.storage_handle,
        hierarchy: TpmRh::Owner,
        hierarchy_name: OWNER,
        expected: "the storage root key, an RSA key of 2048 bits by the TCG's template",
        template: template::storage_root_key(),
    }
}

impl Session<'_> {
    /// The two keys. Nothing is made before what is there has been checked.
    pub(crate) fn keys(&mut self) -> Result<TpmKeys, TpmError> {
        let (endorsement, storage) = (endorsement(self.config), storage(self.config));
        let found = [self.find(&endorsement)?, self.find(&storage)?];
        let [endorsement_found, storage_found] = found;
        let endorsement = match endorsement_found {
            Some(public) => public,
            None => self.make(endorsement)?,
        };
        let storage = match storage_found {
            Some(public) => public,
            None => self.make(storage)?,
        };
        Ok(TpmKeys { endorsement: with_length(&endorsement), storage: with_length(&storage) })
    }

    /// What is kept at the key's handle, as TPMT_PUBLIC, if it is the key.
    fn find(&mut self, key: &Primary) -> Result<Option<Vec<u8>>, TpmError> {
        let Some(public) = self.read_public(key.handle)? else { return Ok(None) };
        let difference = match &key.template {
            Ok(template) => template::difference(&public, template),
            Err(_) => None,
        };
        match difference {
            None => Ok(Some(public)),
            Some(found) => {
                let (handle, expected) = (key.handle, key.expected);
                Err(TpmError::WrongKey { handle, expected, found })
            }
        }
    }

    fn make(&mut self, key: Primary) -> Result<Vec<u8>, TpmError> {
        let password = match key.hierarchy {
            TpmRh::Endorsement => &self.config.endorsement_password,
            _ => &self.config.owner_password,
        };
        let template = key.template;
        let command = template.and_then(|template| {
            Command::create_primary(key.hierarchy, password.bytes(), &template)
        });
        let (object, answer) = self.load(command).map_err(name_password(key.hierarchy_name))?;
        let public = answer.parameters(1).and_then(|mut reader| reader.sized().map(<[u8]>::to_vec));
        let public = self.read(TpmCc::CreatePrimary, public)?;
        self.persist(object, key.handle)?;
        Ok(public)
    }

    /// Keeps a loaded key at a persistent handle, at which there is nothing.
    pub(crate) fn persist(&mut self, object: u32, handle: u32) -> Result<(), TpmError> {
        let password = self.config.owner_password.bytes();
        let command = Command::evict_control(password, object, handle);
        self.send(command).map(drop).map_err(name_password(OWNER))
    }

    /// The TPMT_PUBLIC of the key at a handle; `None` when nothing is there.
    pub(crate) fn read_public(&mut self, handle: u32) -> Result<Option<Vec<u8>>, TpmError> {
        match self.send(Command::read_public(handle)) {
            Ok(answer) => {
                let public = answer.parameters(0).and_then(|mut reader| reader.sized());
                self.read(TpmCc::ReadPublic, public.map(|public| Some(public.to_vec())))
            }
            Err(error) => match error.code() {
                Some(code) if code.is(TpmRcBase::Handle) => Ok(None),
                _ => Err(error),
            },
        }
    }
}

fn with_length(public: &[u8]) -> Vec<u8> {
    let length = u16::try_from(public.len()).unwrap_or_default();
    [&length.to_be_bytes(), public].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_as_in_rfc_4648() {
        for (text, expected) in [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ] {
            assert_eq!(base32(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_registration_id_has_52_characters() {
        let keys = TpmKeys { endorsement: vec![7; 316], storage: Vec::new() };
        assert_eq!(keys.registration_id().unwrap().as_str().len(), 52);
    }
}
