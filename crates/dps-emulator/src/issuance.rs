//! Whether an enrollment issues certificates.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What an enrollment does with a device's request for a certificate.
///
/// The real service names a policy at the enrollment: `namespaceName`, `certificateAuthorityName` and
/// `certificatePolicyName`.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificatePolicy {
    /// The enrollment has no policy: such a registration is refused with 400000.
    #[default]
    Refuse,
    /// The enrollment has no policy, and the device is assigned without a certificate, as users of the real service
    /// report.
    Ignore,
    /// The emulator's issuing CA issues one.
    Issue {
        /// How long it is valid from the moment it is issued. The real service takes 1 to 90 days.
        lifetime: Duration,
    },
}

impl CertificatePolicy {
    /// How many days a certificate is valid unless something else is said.
    pub(crate) const DEFAULT_DAYS: u16 = 30;

    /// Certificates that are valid for this many days.
    pub const fn issue_for_days(days: u16) -> Self {
        Self::Issue { lifetime: Duration::from_secs(days as u64 * 86_400) }
    }
}

/// The names by which a record of the service says that certificates are issued, and how. All of them mean the emulator's
/// issuing CA.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PolicyNames {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) credential_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_policy: Option<String>,
}
