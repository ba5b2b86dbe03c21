//! Enrollments: who may register, and what becomes of them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use dps_attestation::{GroupKey, SymmetricKey};
use dps_state_machine::{Json, RegistrationId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    behavior::Behavior,
    config_error::ConfigError,
    hub::{self, HubRefusal},
    issuance::{CertificatePolicy, PolicyNames},
    keys::{CaCertificates, DeviceCertificate, Thumbprint},
    tpm::TpmStorageKey,
};

/// One device or one group of devices that the service knows.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-service>.
#[must_use]
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
    pub(crate) initial_twin: Option<Json>,
    pub(crate) iot_edge: bool,
    pub(crate) device_information: Option<Json>,
    pub(crate) certificate_policy: CertificatePolicy,
    pub(crate) policy_names: PolicyNames,
    pub(crate) update: Option<Json>,
    pub(crate) hub_refusal: Option<HubRefusal>,
    pub(crate) behavior: Behavior,
}

#[derive(Clone, Debug)]
pub(crate) enum Members {
    One(Attestation),
    Group(GroupAttestation),
}

impl Enrollment {
    /// The hub that devices get unless [`Enrollment::assign_to`] names another. A name under `localhost` never leaves
    /// the machine (<https://www.rfc-editor.org/rfc/rfc6761#section-6.3>).
    pub const DEFAULT_HUB: &str = "hub.localhost";

    /// One device. Its registration id is also the enrollment's name.
    pub fn individual(registration_id: RegistrationId, attestation: Attestation) -> Self {
        Self::new(registration_id.to_string(), Members::One(attestation))
    }

    /// Any number of devices with one root of trust.
    pub fn group(name: impl Into<String>, attestation: GroupAttestation) -> Self {
        Self::new(name.into(), Members::Group(attestation))
    }

    pub(crate) fn new(name: String, members: Members) -> Self {
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
            initial_twin: None,
            iot_edge: false,
            device_information: None,
            certificate_policy: CertificatePolicy::default(),
            policy_names: PolicyNames::default(),
            update: None,
            hub_refusal: None,
            behavior: Behavior::default(),
        }
    }

    /// The registration id of an individual enrollment, the name of a group.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is for any number of devices. Groups and individual enrollments are two name spaces: a group and a
    /// device may have the same name.
    #[must_use]
    pub fn is_group(&self) -> bool {
        matches!(self.members, Members::Group(_))
    }

    /// The endorsement key of the device's TPM, where that is how it is known.
    pub(crate) fn tpm(&self) -> Option<&TpmStorageKey> {
        match &self.members {
            Members::One(Attestation::Tpm { endorsement_key, .. }) => Some(endorsement_key),
            _ => None,
        }
    }

    /// Checks that it can be used where there are these CAs to refer to.
    pub(crate) fn check(&self, cas: &BTreeMap<String, CaCertificates>) -> Result<(), ConfigError> {
        let wrong = |field, reason| Err(ConfigError::new(field, reason).of(&self.name));
        if self.name.is_empty() {
            return wrong("group", "it has no name; give it one");
        }
        if self.hubs.is_empty() {
            return wrong("hub", "there is no hub to assign devices to; give a host name");
        }
        let not_a = |field, given: &str, reason| {
            ConfigError::new(field, reason).value(given.chars()).of(&self.name)
        };
        for hub in &self.hubs {
            hub::check_hub(hub).map_err(|reason| not_a("hub", hub, reason))?;
        }
        if let Some(id) = &self.device_id {
            hub::check_device_id(id).map_err(|reason| not_a("device-id", id, reason))?;
        }
        if self.initial_twin.as_ref().is_some_and(|twin| !is_twin(twin)) {
            let reason =
                "it must have tags, properties.desired or both, and each must be an object";
            return wrong("initial-twin", reason);
        }
        if self.device_information.as_ref().is_some_and(|information| !information.is_object()) {
            return wrong("device-information", "it must be an object");
        }
        if let Allocation::Custom { webhook, .. } = &self.allocation
            && !is_webhook(webhook)
        {
            return wrong("allocation", &format!("webhook: {WEBHOOK_URL}"));
        }
        if let Members::Group(GroupAttestation::CaReferences(names)) = &self.members
            && let Some(unknown) = names.iter().find(|name| !cas.contains_key(*name))
        {
            let reason = "no verified CA has this name; give one of [[verified-ca]]";
            let error = ConfigError::new("ca-reference", reason).value(unknown.chars());
            return Err(error.of(&self.name));
        }
        Ok(())
    }

    /// Checks all of a configuration, which must not have one name twice.
    pub(crate) fn check_all(
        enrollments: &[Self],
        cas: &BTreeMap<String, CaCertificates>,
    ) -> Result<(), ConfigError> {
        let mut names = HashSet::new();
        for enrollment in enrollments {
            if !names.insert((enrollment.is_group(), enrollment.name.to_ascii_lowercase())) {
                return Err(enrollment.name_is_taken());
            }
            enrollment.check(cas)?;
        }
        Ok(())
    }

    pub(crate) fn name_is_taken(&self) -> ConfigError {
        let reason = "another enrollment has it already (case does not count); rename one";
        ConfigError::new("name", reason).of(&self.name)
    }

    /// Sets the hub that devices are assigned to.
    pub fn assign_to(self, hub: impl Into<String>) -> Self {
        self.assign_to_each([hub])
    }

    /// Sets several hubs, among which the [`Allocation`] chooses.
    pub fn assign_to_each<H: Into<String>>(mut self, hubs: impl IntoIterator<Item = H>) -> Self {
        self.hubs = hubs.into_iter().map(Into::into).collect();
        self
    }

    /// Sets how one of several hubs is chosen.
    pub fn allocation(mut self, allocation: Allocation) -> Self {
        self.allocation = allocation;
        self
    }

    /// Sets the device id; without it, it is the registration id.
    pub fn device_id(mut self, device_id: impl Into<String>) -> Self {
        self.device_id = Some(device_id.into());
        self
    }

    /// Sets the payload that an assigned device gets.
    pub fn payload(mut self, payload: ReturnedPayload) -> Self {
        self.payload = payload;
        self
    }

    /// Sets what a device that registers again gets.
    pub fn reprovisioning(mut self, reprovisioning: Reprovisioning) -> Self {
        self.reprovisioning = reprovisioning;
        self
    }

    /// Sets the substatus of every assignment, whatever the service would say.
    pub fn substatus(mut self, substatus: impl Into<String>) -> Self {
        self.substatus = Some(substatus.into());
        self
    }

    /// Sets the twin that a device begins with at its hub: an object with `tags`, `properties.desired` or both.
    /// See <https://learn.microsoft.com/rest/api/iot-dps/service/individual-enrollment/create-or-update#initialtwin>.
    pub fn initial_twin(mut self, twin: Json) -> Self {
        self.initial_twin = Some(twin);
        self
    }

    /// Sets whether its devices are IoT Edge devices, which is one of their capabilities at the hub.
    pub fn iot_edge(mut self, iot_edge: bool) -> Self {
        self.iot_edge = iot_edge;
        self
    }

    /// Sets what the operator notes about the device: an object, `optionalDeviceInformation` in the service API.
    pub fn device_information(mut self, information: Json) -> Self {
        self.device_information = Some(information);
        self
    }

    /// Disables the enrollment: a right credential is answered with the status `disabled`.
    pub fn disabled(mut self) -> Self {
        self.enabled = false;
        self
    }

    /// Sets what becomes of its devices' requests for certificates. Without it they are refused.
    pub fn certificate_policy(mut self, policy: CertificatePolicy) -> Self {
        self.certificate_policy = policy;
        self
    }

    /// Sets the update of their software that its devices are offered, an object with `workflowId`, `updateManifest`,
    /// `updateManifestSignature` and `fileUrls`: the `updateMetadata` of the answer, to the letter. Without it there is
    /// none. A device that has reported how it went is not offered it again.
    pub fn update(mut self, update: Json) -> Self {
        self.update = Some(update);
        self
    }

    /// Has the hub refuse its devices, whatever is right about their credential.
    pub fn hub_refusal(mut self, refusal: HubRefusal) -> Self {
        self.hub_refusal = Some(refusal);
        self
    }

    /// Sets how the service behaves toward its devices.
    pub fn behavior(mut self, behavior: Behavior) -> Self {
        self.behavior = behavior;
        self
    }
}

/// What a device or a group is known by, and another that is as good: either can be replaced while devices use the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair<T> {
    /// The primary one.
    pub primary: T,
    /// The secondary one.
    pub secondary: Option<T>,
}

impl<T> Pair<T> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.primary).chain(&self.secondary)
    }

    pub(crate) fn map<U>(&self, mut of: impl FnMut(&T) -> U) -> Pair<U> {
        Pair { primary: of(&self.primary), secondary: self.secondary.as_ref().map(of) }
    }
}

impl<T> From<T> for Pair<T> {
    fn from(primary: T) -> Self {
        Self { primary, secondary: None }
    }
}

/// How the service knows one device.
#[must_use]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Attestation {
    /// By a SAS token signed with either key.
    SymmetricKey(Pair<SymmetricKey>),
    /// By its TLS client certificate, with either thumbprint, whoever issued it.
    X509(Pair<DeviceCertificate>),
    /// By its TPM, which alone can take in the key of a challenge. Over HTTP and AMQP.
    Tpm {
        /// The endorsement key.
        endorsement_key: TpmStorageKey,
        /// The storage root key that the record has. A device sends its own with each registration.
        storage_root_key: Option<TpmStorageKey>,
    },
}

impl Attestation {
    /// By a SAS token signed with this key.
    pub fn symmetric_key(primary: SymmetricKey) -> Self {
        Self::SymmetricKey(primary.into())
    }

    /// By the TPM with this endorsement key.
    pub fn tpm(endorsement_key: TpmStorageKey) -> Self {
        Self::Tpm { endorsement_key, storage_root_key: None }
    }

    /// By this TLS client certificate.
    pub fn certificate(primary: DeviceCertificate) -> Self {
        Self::X509(primary.into())
    }

    /// By the TLS client certificate with this thumbprint.
    pub fn thumbprint(primary: Thumbprint) -> Self {
        Self::certificate(primary.into())
    }
}

/// How the service knows the devices of a group.
#[must_use]
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GroupAttestation {
    /// By a SAS token signed with the key derived from either group key and the registration id.
    SymmetricKey(Pair<GroupKey>),
    /// By a TLS client certificate whose chain leads to one of these and whose common name is the registration id.
    X509(Pair<CaCertificates>),
    /// As [`GroupAttestation::X509`], by the names of CAs that the service knows:
    /// [`Config::verified_ca`](crate::Config::verified_ca).
    CaReferences(Pair<String>),
}

impl GroupAttestation {
    /// By a SAS token signed with the key derived from this one.
    pub fn symmetric_key(primary: GroupKey) -> Self {
        Self::SymmetricKey(primary.into())
    }

    /// By a TLS client certificate whose chain leads to one of these.
    pub fn x509(primary: CaCertificates) -> Self {
        Self::X509(primary.into())
    }

    /// By a TLS client certificate whose chain leads to the CA of this name.
    pub fn ca_reference(name: impl Into<String>) -> Self {
        Self::CaReferences(name.into().into())
    }

    /// All the CA certificates that a chain may lead to; none for a group of another kind.
    pub(crate) fn cas<'a>(
        &'a self,
        named: &'a BTreeMap<String, CaCertificates>,
    ) -> Cow<'a, CaCertificates> {
        let cas: Vec<_> = match self {
            Self::SymmetricKey(_) => vec![],
            Self::X509(cas) => cas.iter().collect(),
            Self::CaReferences(names) => names.iter().filter_map(|name| named.get(name)).collect(),
        };
        match cas.as_slice() {
            [only] => Cow::Borrowed(only),
            all => Cow::Owned(CaCertificates(all.iter().flat_map(|ca| ca.0.clone()).collect())),
        }
    }
}

/// Which enrollment is meant. Individual enrollments and groups are two name spaces, as in the service; case does not
/// count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EnrollmentName<'a> {
    /// The individual enrollment of this name; without one, the group. A text is taken for this.
    Any(&'a str),
    /// The individual enrollment of this name.
    Individual(&'a str),
    /// The group of this name.
    Group(&'a str),
}

impl<'a> From<&'a str> for EnrollmentName<'a> {
    fn from(name: &'a str) -> Self {
        Self::Any(name)
    }
}

impl<'a> From<&'a String> for EnrollmentName<'a> {
    fn from(name: &'a String) -> Self {
        Self::Any(name)
    }
}

/// What [`is_webhook`] wants.
pub(crate) const WEBHOOK_URL: &str =
    "give an http:// or https:// URL without a user name; a port is at most 65535";

/// Whether it is a URL that can be posted to. It is not shown where it is wrong: it may have a code in it.
pub(crate) fn is_webhook(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return false;
    };
    let host = authority.host();
    let port = authority.port().map(|port| format!(":{port}")).unwrap_or_default();
    // A user name, and a port that is none, would be beside these.
    !host.is_empty() && authority.as_str() == format!("{host}{port}")
}

/// Whether it is a twin as the service takes it: objects where there must be some, and nothing else.
fn is_twin(twin: &Json) -> bool {
    let Ok(Value::Object(twin)) = twin.read() else { return false };
    twin.iter().all(|(name, value)| match (name.as_str(), value) {
        ("tags", Value::Object(_)) => true,
        ("properties", Value::Object(properties)) => {
            properties.iter().all(|(name, value)| name == "desired" && value.is_object())
        }
        _ => false,
    })
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Allocation {
    /// Each new device gets the next hub, around and around, and the same one when it registers again: the devices of a
    /// group in their turn, those of all individual enrollments in theirs.
    #[default]
    Evenly,
    /// Every device gets the first hub.
    Static,
    /// Each run of the allocation for a device takes the next hub. So a device that registers again moves, unless
    /// [`Reprovisioning::Never`] keeps it.
    EachRun,
    /// Every device gets the nearest hub, which [`Config::nearest_hubs`](crate::Config::nearest_hubs) tells; without a
    /// word of it there, the first hub.
    GeoLatency,
    /// A webhook is asked. See <https://learn.microsoft.com/azure/iot-dps/concepts-custom-allocation>.
    Custom {
        /// The URL that the emulator posts to.
        webhook: String,
        /// The api-version that the webhook is told.
        api_version: String,
    },
}

/// What a device that is assigned already gets when it registers again.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-device-reprovision>.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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
