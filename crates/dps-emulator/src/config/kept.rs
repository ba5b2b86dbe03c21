//! What a configuration takes from the file of the state where it is not set itself, and what of it is kept there.

use std::time::SystemTime;

use dps_attestation::SymmetricKey;

use super::{ANY_DEVICE, Config, Secret};
use crate::{
    config_error::ConfigError,
    core::{RecordKind, ServicePolicy},
    state::StateFile,
    tls::Ca,
};

impl Config {
    /// Opens the file of the state, if there is to be one. Keys and the authority that are set are kept in it; those that are
    /// not are taken from it, or made and kept.
    pub(crate) fn take_kept(&mut self) -> Result<Option<StateFile>, ConfigError> {
        let Some(place) = self.state.take() else { return Ok(None) };
        let file = StateFile::open(&place)?;
        self.take_seed(&file)?;
        self.take_authority(&file)?;
        self.take_service_key(&file)?;
        self.take_group(&file)?;
        Ok(Some(file))
    }

    fn take_seed(&mut self, file: &StateFile) -> Result<(), ConfigError> {
        if let Some(kept) = file.seed()? {
            self.is_seed_set_aside = self.seed.as_ref().is_some_and(|given| *given.0 != *kept);
            self.seed = Some(Secret(kept));
        } else {
            let seed = match &self.seed {
                Some(given) => given.0.clone(),
                None => self.secret("seed")?,
            };
            file.keep_seed(&seed)?;
            self.seed = Some(Secret(seed));
        }
        Ok(())
    }

    fn take_authority(&mut self, file: &StateFile) -> Result<(), ConfigError> {
        let now = SystemTime::now();
        let ca = match (self.ca.take(), file.setting("authority")?, file.setting("authority-key")?)
        {
            (Some(given), ..) => given,
            (None, Some(certificate), Some(key)) => {
                let read = Ca::read(certificate.as_bytes(), key.as_bytes(), now);
                read.map_err(|error| {
                    file.unfit("its authority", error.reason(), "give another, with its key")
                })?
            }
            (None, ..) => Ca::make(now)
                .map_err(|error| ConfigError::new("server-certificate", &error.to_string()))?,
        };
        let (certificate, key) = ca.to_pem();
        file.keep("authority", &certificate)?;
        file.keep("authority-key", &key)?;
        self.ca = Some(ca);
        Ok(())
    }

    fn take_service_key(&mut self, file: &StateFile) -> Result<(), ConfigError> {
        if !self.service_policies.iter().any(ServicePolicy::is_owner)
            && let Some(kept) = file.setting("service-key")?
        {
            let key: Result<SymmetricKey, _> = kept.parse();
            let key = key.map_err(|_| file.damaged("the key of the service API", "it is none"))?;
            let owner = ServicePolicy::with_all_rights(ServicePolicy::OWNER, key);
            self.service_policies.push(owner);
        }
        let owner = self.owner()?;
        file.keep("service-key", &owner.key.expose_base64())
    }

    /// The group for any device is the one that was set last, unless it is set now.
    fn take_group(&mut self, file: &StateFile) -> Result<(), ConfigError> {
        if !self.is_group_key_fresh {
            return Ok(());
        }
        let group = match file.configured(RecordKind::Group, ANY_DEVICE)? {
            Some(kept) => kept,
            None => self.any_device(None)?,
        };
        let is_it = |it: &&mut crate::Enrollment| it.is_group() && it.name() == ANY_DEVICE;
        if let Some(made) = self.enrollments.iter_mut().find(is_it) {
            *made = group;
        }
        Ok(())
    }
}
