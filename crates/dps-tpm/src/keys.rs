//! The endorsement key and the storage root key: made when they are missing, checked when they are there.

use dps_attestation::TpmKeys;
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
        Ok(TpmKeys::from_bytes(with_length(&endorsement), with_length(&storage)))
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
