//! Who may use the service API: shared access policies, their rights and their tokens.

use std::{collections::BTreeSet, time::SystemTime};

use dps_attestation::SymmetricKey;
use serde::Deserialize;

use crate::core::{
    clock,
    service::{SasToken, ServiceError},
};

/// A shared access policy: by its key a tool signs the tokens that it shows to the service API.
///
/// See <https://learn.microsoft.com/azure/iot-dps/how-to-control-access>.
#[must_use]
#[derive(Clone, Debug)]
pub struct ServicePolicy {
    pub(crate) name: String,
    pub(crate) key: SymmetricKey,
    pub(crate) rights: BTreeSet<ServiceRight>,
}

/// What a policy allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[non_exhaustive]
pub enum ServiceRight {
    /// To read and query enrollments.
    EnrollmentRead,
    /// To make, change and delete enrollments.
    EnrollmentWrite,
    /// To read and query the states of registrations.
    RegistrationStatusRead,
    /// To delete the states of registrations.
    RegistrationStatusWrite,
    /// To change the service itself, for which the emulator has no calls.
    ServiceConfig,
}

impl ServicePolicy {
    /// The policy that every instance of the service has, with all rights.
    pub const OWNER: &str = "provisioningserviceowner";

    /// A policy with some rights.
    pub fn new(
        name: impl Into<String>,
        key: SymmetricKey,
        rights: impl IntoIterator<Item = ServiceRight>,
    ) -> Self {
        Self { name: name.into(), key, rights: rights.into_iter().collect() }
    }

    /// A policy with all rights.
    pub fn with_all_rights(name: impl Into<String>, key: SymmetricKey) -> Self {
        Self::new(name, key, ServiceRight::ALL)
    }

    pub(crate) fn is_owner(&self) -> bool {
        self.name == Self::OWNER
    }
}

impl ServiceRight {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::EnrollmentRead,
        Self::EnrollmentWrite,
        Self::RegistrationStatusRead,
        Self::RegistrationStatusWrite,
        Self::ServiceConfig,
    ];
}

/// The policy whose key signed the token, if it is for this host and still holds.
pub(super) fn authenticate<'a>(
    policies: &'a [ServicePolicy],
    now: SystemTime,
    host: &str,
    token: Option<&str>,
) -> Result<&'a ServicePolicy, ServiceError> {
    let token = token.ok_or(ServiceError::NO_TOKEN)?;
    let token = SasToken::parse(token).map_err(ServiceError::unauthorized)?;
    token.check_for_host(host, clock::unix_seconds(now)).map_err(ServiceError::unauthorized)?;
    let named = policies.iter().find(|policy| token.is_by_policy(&policy.name));
    // The name is not repeated: a secret may stand in its place.
    let policy = named.ok_or_else(|| {
        ServiceError::unauthorized("the token's skn names no policy of this service")
    })?;
    match token.is_signed_with(&policy.key) {
        true => Ok(policy),
        false => Err(ServiceError::unauthorized("the token is not signed with the policy's key")),
    }
}
