//! Enrollments: who may register, and what becomes of them.

use dps_attestation::{GroupKey, SymmetricKey};
use dps_state_machine::{Json, RegistrationId};
use serde::Deserialize;

use crate::{
    behavior::Behavior,
    config_error::ConfigError,
    issuance::CertificatePolicy,
    keys::{CaCertificates, Thumbprint},
    tpm::TpmStorageKey,
};

/// One device or one group of devices that the service knows.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-service>.
#[derive(Clone, Debug)]
pub struct Enrollment {
    pub(crate) name: String,
    pub(crate) members: Members,
    pub(crate) enabled: bool,
    pub(crate) hubs: Vec<String>,
    pub(crate) allocation: Allocation,
    pub(crate) device_id: Option<String>,
    pub(crate) payload: ReturnedPayload,
    pub(crate) reprovisioning: Reprovisioning,
    pub(crate) substatus: Option<String>,
    pub(crate) certificate_policy: CertificatePolicy,
    pub(crate) behavior: Behavior,
}

#[derive(Clone, Debug)]
pub(crate) enum Members {
    One(Attestation),
    Group(GroupAttestation),
}

impl Enrollment {
    /// The hub that devices get unless [`Enrollment::assign_to`] names another.
    pub const DEFAULT_HUB: &str = "emulated-hub.azure-devices.net";

    /// One device. Its registration id is also the enrollment's name.
    #[must_use]
    pub fn individual(registration_id: RegistrationId, attestation: Attestation) -> Self {
        Self::new(registration_id.to_string(), Members::One(attestation))
    }

    /// Any number of devices with one root of trust.
    #[must_use]
    pub fn group(name: impl Into<String>, attestation: GroupAttestation) -> Self {
        Self::new(name.into(), Members::Group(attestation))
    }

    fn new(name: String, members: Members) -> Self {
        Self {
            name,
            members,
            enabled: true,
            hubs: vec![Self::DEFAULT_HUB.to_owned()],
            allocation: Allocation::default(),
            device_id: None,
            payload: ReturnedPayload::default(),
            reprovisioning: Reprovisioning::default(),
            substatus: None,
            certificate_policy: CertificatePolicy::default(),
            behavior: Behavior::default(),
        }
    }

    /// The registration id of an individual enrollment, the name of a group.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has this name; case does not count.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// Checks that it can stand beside the others.
    pub(crate) fn check(&self, others: &[Self]) -> Result<(), ConfigError> {
        let wrong = |field, reason| Err(ConfigError::new(field, reason).of(&self.name));
        if self.name.is_empty() {
            return wrong("group", "it has no name; give it one");
        }
        if others.iter().any(|other| other.is_named(&self.name)) {
            let reason = "another enrollment has it already (case does not count); rename one";
            return wrong("name", reason);
        }
        if self.hubs.is_empty() || self.hubs.iter().any(String::is_empty) {
            return wrong("hub", "there is no hub to assign devices to; give a host name");
        }
        Ok(())
    }

    /// Sets the hub that devices are assigned to.
    #[must_use]
    pub fn assign_to(self, hub: impl Into<String>) -> Self {
        self.assign_to_each([hub])
    }

    /// Sets several hubs, among which the [`Allocation`] chooses.
    #[must_use]
    pub fn assign_to_each<H: Into<String>>(mut self, hubs: impl IntoIterator<Item = H>) -> Self {
        self.hubs = hubs.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how one of several hubs is chosen.
    #[must_use]
    pub fn allocation(mut self, allocation: Allocation) -> Self {
        self.allocation = allocation;
        self
    }

    /// Sets the device id; without it, it is the registration id.
    #[must_use]
    pub fn device_id(mut self, device_id: impl Into<String>) -> Self {
        self.device_id = Some(device_id.into());
        self
    }

    /// Sets the payload that an assigned device gets.
    #[must_use]
    pub fn payload(mut self, payload: ReturnedPayload) -> Self {
        self.payload = payload;
        self
    }

    /// Sets what a device that registers again gets.
    #[must_use]
    pub fn reprovisioning(mut self, reprovisioning: Reprovisioning) -> Self {
        self.reprovisioning = reprovisioning;
        self
    }

    /// Sets the substatus of every assignment, whatever the service would say.
    #[must_use]
    pub fn substatus(mut self, substatus: impl Into<String>) -> Self {
        self.substatus = Some(substatus.into());
        self
    }

    /// Disables the enrollment: a right credential is answered with the status `disabled`.
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.enabled = false;
        self
    }

    /// Sets what becomes of its devices' requests for certificates. Without it they are refused.
    #[must_use]
    pub fn certificate_policy(mut self, policy: CertificatePolicy) -> Self {
        self.certificate_policy = policy;
        self
    }

    /// Sets how the service behaves toward its devices.
    #[must_use]
    pub fn behavior(mut self, behavior: Behavior) -> Self {
        self.behavior = behavior;
        self
    }
}

/// How the service knows one device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Attestation {
    /// By a SAS token signed with either key.
    SymmetricKey {
        /// The primary key.
        primary: SymmetricKey,
        /// The secondary key.
        secondary: Option<SymmetricKey>,
    },
    /// By its TLS client certificate, with either thumbprint, whoever issued it.
    X509 {
        /// The primary certificate.
        primary: Thumbprint,
        /// The secondary certificate.
        secondary: Option<Thumbprint>,
    },
    /// By its TPM, which alone can take in the key of a challenge. Over HTTP and AMQP.
    Tpm {
        /// The endorsement key.
        endorsement_key: TpmStorageKey,
    },
}

impl Attestation {
    /// By a SAS token signed with this key.
    #[must_use]
    pub fn symmetric_key(primary: SymmetricKey) -> Self {
        Self::SymmetricKey { primary, secondary: None }
    }

    /// By the TPM with this endorsement key.
    #[must_use]
    pub fn tpm(endorsement_key: TpmStorageKey) -> Self {
        Self::Tpm { endorsement_key }
    }

    /// By the TLS client certificate with this thumbprint.
    #[must_use]
    pub fn thumbprint(primary: Thumbprint) -> Self {
        Self::X509 { primary, secondary: None }
    }
}

/// How the service knows the devices of a group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GroupAttestation {
    /// By a SAS token signed with the key derived from either group key and the registration id.
    SymmetricKey {
        /// The primary group key.
        primary: GroupKey,
        /// The secondary group key.
        secondary: Option<GroupKey>,
    },
    /// By a TLS client certificate whose chain leads to one of these and whose common name is the registration
    /// id.
    X509(CaCertificates),
}

impl GroupAttestation {
    /// By a SAS token signed with the key derived from this one.
    #[must_use]
    pub fn symmetric_key(primary: GroupKey) -> Self {
        Self::SymmetricKey { primary, secondary: None }
    }
}

/// The payload that an assigned device gets, as from a custom allocation.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum ReturnedPayload {
    /// None.
    #[default]
    None,
    /// The one that it sent, if any, to the letter.
    Echo,
    /// This one, to the letter.
    Fixed(Json),
}

/// Which of an enrollment's hubs a device gets.
///
/// See <https://learn.microsoft.com/azure/iot-dps/how-to-use-allocation-policies>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Allocation {
    /// Each new device gets the next hub, around and around, and the same one when it registers again.
    #[default]
    Evenly,
    /// Every device gets the first hub.
    Static,
    /// Each run of the allocation for a device takes the next hub. So a device that registers again moves, unless
    /// [`Reprovisioning::Never`] keeps it.
    EachRun,
}

/// What a device that is assigned already gets when it registers again.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-device-reprovision>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reprovisioning {
    /// The allocation runs again; a device that moves takes its data along: `deviceDataMigrated`.
    #[default]
    MigrateData,
    /// The allocation runs again; a device that moves starts anew: `deviceDataReset`.
    ResetData,
    /// It stays where it is, unless it forces its registration.
    Never,
}
