//! What a device keeps: the hub that it was assigned to, and as whom it had asked.

use std::time::SystemTime;

use dps_client::{
    Attestation, Config, Endpoint, IdScope, RegistrationId, RegistrationRequest,
    RegistrationResult, Transport,
};
use serde::{Deserialize, Serialize};

use crate::{policy::HubHistory, wait::Wait};

/// Which device of which instance of the service, and where that is. An assignment holds for one identity only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The instance of the service.
    #[serde(with = "text")]
    pub id_scope: IdScope,
    /// The device's name at the service.
    #[serde(with = "text")]
    pub registration_id: RegistrationId,
    /// The service.
    #[serde(with = "text")]
    pub endpoint: Endpoint,
}

impl Identity {
    /// The one that a client of this configuration registers by this request.
    #[must_use]
    pub fn of(config: &Config, request: &RegistrationRequest) -> Self {
        Self {
            id_scope: config.id_scope.clone(),
            registration_id: request.registration_id().clone(),
            endpoint: config.endpoint.clone(),
        }
    }
}

/// A registration result as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Assignment {
    /// Who was assigned.
    #[serde(flatten)]
    pub identity: Identity,
    /// What came of it.
    pub result: RegistrationResult,
    /// When it came, to the second, by this machine's clock.
    #[serde(with = "seconds")]
    pub stored_at: SystemTime,
    /// The transport that it came over; `None` when that was not said, or when this version doesn't know it.
    #[serde(with = "transport")]
    pub transport: Option<Transport>,
    /// The [fingerprint](Attestation::fingerprint) of the credential that the service took, if it is known which ones there
    /// were: see [`Provisioner::credentials`](crate::Provisioner::credentials).
    #[serde(default)]
    pub credential: Option<String>,
}

impl Assignment {
    /// Which of these credentials the service took, counted from 0: the one with its fingerprint, or where none is stored
    /// the one with its number then. `None` when it is not among them.
    #[must_use]
    pub fn credential_among(&self, credentials: &[Attestation]) -> Option<usize> {
        match &self.credential {
            None => Some(self.result.credential).filter(|number| *number < credentials.len()),
            taken => credentials.iter().position(|one| one.fingerprint() == *taken),
        }
    }
}

/// All that a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) assignment: Assignment,
    #[serde(default)]
    pub(crate) hub: HubHistory,
    /// How long the registration waits that the hub gave cause for. Nothing but that registration, or a hub that lets
    /// the device in, ends it.
    #[serde(default)]
    pub(crate) register_wait: Option<Wait>,
    /// How long no other certificate is asked for, after a registration that brought none.
    #[serde(default)]
    pub(crate) certificate_wait: Option<Wait>,
}

/// What has a text of its own.
mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        from: D,
    ) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

mod transport {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        transport: &Option<Transport>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        transport.map(Transport::as_str).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Transport>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.and_then(|name| name.parse().ok()))
    }
}

/// Seconds since 1970; a clock that is before that counts as there.
pub(crate) mod seconds {
    use super::*;
    use serde::{Deserializer, Serializer};
    use std::time::Duration;

    pub(crate) fn of(time: SystemTime) -> u64 {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    pub(crate) fn time(seconds: u64) -> SystemTime {
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        of(*time).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        u64::deserialize(from).map(time)
    }
}

pub(crate) mod optional_seconds {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(seconds::of).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(seconds::time))
    }
}
