//! The service's refusals, by their codes.

use std::borrow::Cow;

use crate::behavior::Refusal;

const CA_NOT_FOUND: &str = "CA certificate not found.";

/// Why the service refuses.
///
/// The codes are those that users of the real service report; see
/// <https://learn.microsoft.com/azure/iot-dps/how-to-troubleshoot-dps#common-error-codes>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceError {
    pub(crate) status: u16,
    pub(crate) error_code: u32,
    pub(crate) message: Cow<'static, str>,
    /// What really was wrong, for the event log: the service's message often says less.
    pub(crate) reason: Cow<'static, str>,
}

impl ServiceError {
    /// The service's own code is not published.
    pub(crate) const NO_CERTIFICATE_POLICY: Self =
        Self::fixed(400_000, "Certificate issuance is not configured for this enrollment");
    pub(crate) const NO_CREDENTIAL: Self = Self::because(
        401_000,
        "Unauthorized",
        "neither a SAS token nor a client certificate was sent",
    );
    pub(crate) const NO_TOKEN: Self =
        Self::because(401_000, "Unauthorized", "no SAS token was sent");
    pub(crate) const SCOPE_NOT_FOUND: Self = Self::fixed(404_201, "ID scope not found");
    pub(crate) const NOT_FOUND: Self = Self::fixed(404_201, "Registration not found");
    pub(crate) const NO_ENROLLMENT: Self = Self::fixed(404_201, "Enrollment not found");
    pub(crate) const ENROLLMENT_EXISTS: Self = Self::fixed(
        409_201,
        "The enrollment exists already; to update it, send its etag in If-Match",
    );
    pub(crate) const ETAG_DIFFERS: Self =
        Self::fixed(412_201, "The etag in If-Match is not that of the record; get it again");
    pub(crate) const NO_JSON: Self =
        Self::fixed(415_000, "The Content-Type must be application/json");
    pub(crate) const OPERATION_NOT_FOUND: Self = Self::fixed(404_202, "Operation not found");
    pub(crate) const METHOD_NOT_ALLOWED: Self = Self::fixed(405_000, "Method not allowed");
    pub(crate) const TIMED_OUT: Self = Self::fixed(408_000, "The request did not arrive in time");
    pub(crate) const FORBIDDEN: Self = Self::fixed(403_000, "Forbidden");
    pub(crate) const INTERNAL: Self = Self::fixed(500_000, "Internal server error");
    pub(crate) const UNAVAILABLE: Self = Self::fixed(503_000, "Service unavailable");
    pub(crate) const TOO_LARGE: Self = Self::fixed(413_001, "The request is larger than 96 KiB");

    const fn fixed(error_code: u32, message: &'static str) -> Self {
        Self::because(error_code, message, message)
    }

    /// The first three digits of the code are the status.
    const fn because(error_code: u32, message: &'static str, reason: &'static str) -> Self {
        let (message, reason) = (Cow::Borrowed(message), Cow::Borrowed(reason));
        Self { status: (error_code / 1000) as u16, error_code, message, reason }
    }

    fn new(
        error_code: u32,
        message: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Self {
        let (message, reason) = (message.into(), Cow::Owned(reason.into()));
        Self { message, reason, ..Self::fixed(error_code, "") }
    }

    fn plain(error_code: u32, message: &str) -> Self {
        Self::new(error_code, message.to_owned(), message)
    }

    pub(crate) fn bad_request(message: &str) -> Self {
        Self::plain(400_000, message)
    }

    pub(crate) fn bad_registration_id(reason: String) -> Self {
        Self::new(400_004, "Invalid registration ID", reason)
    }

    pub(crate) fn deserialization(reason: &str) -> Self {
        Self::new(400_012, format!("The request body can't be read: {reason}"), reason)
    }

    /// The hub's code for a CSR that can't be decoded; the service's own is not published.
    pub(crate) fn bad_csr(reason: &str) -> Self {
        Self::plain(400_040, &format!("The CSR can't be decoded: {reason}"))
    }

    /// A refusal of the hub.
    pub(super) fn hub(error_code: u32, message: &str) -> Self {
        Self::plain(error_code, message)
    }

    /// The hub's refusal of a request for a certificate that it had accepted.
    pub(super) fn no_certificate(reason: &str) -> Self {
        Self::plain(400_037, &format!("The certificate request can't be completed: {reason}"))
    }

    /// A right that a policy lacks; the service has no 403 for it.
    pub(crate) fn lacks_right(right: impl std::fmt::Debug) -> Self {
        let reason = format!("the policy lacks the right {right:?}");
        Self::new(401_002, format!("Unauthorized: {reason}"), reason)
    }

    pub(crate) fn unauthorized(reason: impl Into<String>) -> Self {
        Self::new(401_002, "Unauthorized", reason)
    }

    pub(crate) fn invalid_certificate(reason: impl Into<String>) -> Self {
        Self::new(401_002, "Invalid certificate", reason)
    }

    pub(crate) fn ca_not_found(reason: impl Into<String>) -> Self {
        Self::new(401_002, CA_NOT_FOUND, reason)
    }

    pub(crate) fn is_ca_not_found(&self) -> bool {
        self.message == CA_NOT_FOUND
    }

    /// `path` is what was asked for: a path, or the address of a link.
    pub(crate) fn no_such_path(path: &str) -> Self {
        const SHOWN: usize = 200;
        let shown: String = path.chars().take(SHOWN).collect();
        Self::plain(404_000, &format!("Not found: {shown:?}"))
    }
}

impl From<&Refusal> for ServiceError {
    fn from(refusal: &Refusal) -> Self {
        let Refusal { status, error_code, message } = refusal;
        Self { status: *status, ..Self::new(*error_code, message.clone(), "scripted") }
    }
}
