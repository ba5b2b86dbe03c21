//! The api-versions of the device API, and what each of them has. See docs/emulator/fidelity.md for the sources.

use dps_state_machine::Json;

use super::{ServiceError, registrations::Fields};
use crate::core::events::Operation;

/// One api-version.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ApiVersion {
    pub(crate) name: &'static str,
    /// The field by which a payload for the allocation comes, and the one that it returns goes.
    pub(super) payload: Option<&'static str>,
    /// Whether an assigned device gets a substatus.
    pub(super) substatus: bool,
    pub(super) certificates: Certificates,
    /// Whether an assigned device gets the profile of its connection to the hub.
    pub(super) connection_profile: bool,
    pub(super) updates: Option<Updates>,
}

/// How a device asks for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certificates {
    /// Not at all.
    None,
    /// By `clientCertificateCsr`; the answers are `issuedClientCertificate` and `trustBundle`.
    Pem,
    /// By `csr`; the answer is `issuedCertificateChain`.
    Der,
}

/// How a device asks for updates of its software: an operation's last parts of the path, and fields of the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Updates {
    onboarding: &'static str,
    software: &'static str,
    report: &'static str,
    pub(super) service_etag: &'static str,
    pub(super) agent_etag: &'static str,
}

impl Certificates {
    /// The field of the request.
    pub(super) fn field(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Pem => Some("clientCertificateCsr"),
            Self::Der => Some("csr"),
        }
    }
}

const OLDEST: ApiVersion = ApiVersion {
    name: "2017-11-15",
    payload: None,
    substatus: false,
    certificates: Certificates::None,
    connection_profile: false,
    updates: None,
};

/// A guess: the SDK for C# sent `data` before 2019-03-31, with which of these is not known; that the answer has the
/// same name, and that the substatus came then, is not published.
const WITH_DATA: ApiVersion = ApiVersion { payload: Some("data"), substatus: true, ..OLDEST };
const WITH_PAYLOAD: ApiVersion = ApiVersion { payload: Some("payload"), ..WITH_DATA };
const WITH_CSR: ApiVersion = ApiVersion { certificates: Certificates::Der, ..WITH_PAYLOAD };

/// All that are served.
const API_VERSIONS: [ApiVersion; 12] = [
    OLDEST,
    ApiVersion { name: "2018-09-01-preview", ..WITH_DATA },
    ApiVersion { name: "2018-11-01", ..WITH_DATA },
    ApiVersion { name: "2019-01-15", ..WITH_DATA },
    ApiVersion { name: "2019-03-31", ..WITH_PAYLOAD },
    ApiVersion { name: "2021-06-01", ..WITH_PAYLOAD },
    ApiVersion { name: "2021-10-01", ..WITH_PAYLOAD },
    ApiVersion { name: "2021-11-01-preview", certificates: Certificates::Pem, ..WITH_PAYLOAD },
    ApiVersion { name: "2025-07-01-preview", ..WITH_CSR },
    ApiVersion { name: "2026-11-01", ..WITH_CSR },
    ApiVersion {
        name: "2026-11-02-preview",
        connection_profile: true,
        updates: Some(Updates {
            onboarding: "requestOnboardingUpdates",
            software: "requestSoftwareUpdates",
            report: "reportUpdateStatus",
            service_etag: "serviceConfigEtag",
            agent_etag: "agentInfoEtag",
        }),
        ..WITH_CSR
    },
    // A draft.
    ApiVersion {
        name: "2026-11-15-preview",
        connection_profile: true,
        updates: Some(Updates {
            onboarding: "onboarding/getDeviceUpdate",
            software: "getDeviceUpdate",
            report: "reportDeviceUpdateStatus",
            service_etag: "serviceConfigETag",
            agent_etag: "agentInfoETag",
        }),
        ..WITH_CSR
    },
];

impl ApiVersion {
    /// The names of all that are served.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        API_VERSIONS.iter().map(|version| version.name)
    }

    /// The api-version, if it was given and is served.
    pub(crate) fn find(name: Option<&str>) -> Result<&'static Self, ServiceError> {
        let name = name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| ServiceError::bad_request("The api-version is missing"))?;
        API_VERSIONS.iter().find(|version| version.name == name).ok_or_else(|| {
            ServiceError::bad_request(&format!("The api-version {name:?} is not supported"))
        })
    }

    /// The state of a registration, and the certificate that was issued with it, by the fields that this one has.
    pub(super) fn shape(&self, state: &Json, issued: &Fields) -> Fields {
        let mut state: Fields = state.read().unwrap_or_default();
        state.extend(issued.clone());
        state.retain(|field, _| match field.as_str() {
            "substatus" => self.substatus,
            "connectionProfile" => self.connection_profile,
            "issuedCertificateChain" => self.certificates == Certificates::Der,
            "issuedClientCertificate" | "trustBundle" => self.certificates == Certificates::Pem,
            _ => true,
        });
        let payload = state.remove("payload");
        state.extend(self.payload.map(str::to_owned).zip(payload));
        state
    }

    /// What a POST to this path under a registration asks for.
    pub(crate) fn update(&self, path: &str) -> Option<Operation> {
        let updates = self.updates.as_ref()?;
        let operations = [
            (updates.onboarding, Operation::OnboardingUpdate),
            (updates.software, Operation::SoftwareUpdate),
            (updates.report, Operation::UpdateStatus),
        ];
        operations.into_iter().find(|(name, _)| *name == path).map(|(_, operation)| operation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_version_must_be_given_and_known() {
        for version in &API_VERSIONS {
            assert_eq!(ApiVersion::find(Some(version.name)), Ok(version));
        }
        for name in [None, Some(""), Some("2020-01-01"), Some("2021-06-01 ")] {
            assert_eq!(ApiVersion::find(name).unwrap_err().status, 400, "{name:?}");
        }
    }

    #[test]
    fn each_has_its_own_names_for_updates() {
        let update = |version, path| ApiVersion::find(Some(version)).unwrap().update(path);
        let onboarding = Some(Operation::OnboardingUpdate);
        assert_eq!(update("2026-11-02-preview", "requestOnboardingUpdates"), onboarding);
        assert_eq!(update("2026-11-15-preview", "onboarding/getDeviceUpdate"), onboarding);
        assert_eq!(update("2026-11-15-preview", "requestOnboardingUpdates"), None);
        assert_eq!(update("2026-11-01", "requestOnboardingUpdates"), None);
    }
}
