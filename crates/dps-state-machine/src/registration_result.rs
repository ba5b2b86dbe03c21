//! What a device gets: its hub, its name there, and all else the service said.

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    certificates::{ConnectionProfile, IssuedCertificates, TrustBundle},
    ids::OperationId,
    json::Json,
    printable::Printable,
    request::RegistrationRequest,
    response::ProtocolResult,
    stored,
};

/// A device's assignment. Keep it: a device need not register at each boot, only when its hub refuses it
/// (401, 403, 404) or it is to move.
///
/// It is stored by serde, in any format, and read back as it was. `assignedHub` and `deviceId` must be there; what else
/// is missing in a stored one is as in a [new](Self::new) one, and what this version doesn't know is left out. The payload
/// is stored as its text, so that no format rewrites its numbers.
///
/// ```
/// use dps_client::{RegistrationResult, serde_json};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut result = RegistrationResult::new("contoso.azure-devices.net", "pump-17");
/// result.payload = Some(r#"{"rate": 1.50}"#.parse()?);
/// let stored = serde_json::to_string(&result)?;
/// assert!(stored.starts_with(r#"{"assignedHub":"contoso.azure-devices.net","deviceId":"pump-17","#));
/// assert_eq!(serde_json::from_str::<RegistrationResult>(&stored)?, result);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct RegistrationResult {
    /// The host name of the hub, for example `contoso.azure-devices.net`.
    pub assigned_hub: String,
    /// The device's id at the hub.
    pub device_id: String,
    /// The service's handle for this registration, when it named one.
    #[serde(default)]
    pub operation_id: Option<OperationId>,
    /// How the assignment came about, when the service says so.
    #[serde(default)]
    pub substatus: Option<Substatus>,
    /// What a custom allocation webhook or the enrollment returns, to the letter; bytes that are no UTF-8 are
    /// U+FFFD here.
    #[serde(default, with = "stored::json")]
    pub payload: Option<Json>,
    /// What came of the request for a certificate.
    #[serde(default)]
    pub certificates: IssuedCertificates,
    /// The certificates that the device is to trust, when the service names them.
    #[serde(default, with = "stored::trust_bundle")]
    pub trust_bundle: Option<TrustBundle>,
    /// How the device is to connect to its hub, when the service says so.
    #[serde(default)]
    pub connection_profile: Option<ConnectionProfile>,
    /// How many times the operation's status was asked for.
    #[serde(default)]
    pub polls: u32,
    /// Which of the device's credentials the service took, counted from 0 in the order in which they were given (see
    /// [`Fallback`](crate::Fallback)).
    #[serde(default)]
    pub credential: usize,
    /// Which of several transports carried the registration, by its name (see [`Race`](crate::Race)); `None` when there was
    /// but one.
    #[serde(default)]
    pub transport: Option<String>,
    /// The whole answer as it came: fields that this type doesn't know are in it.
    #[serde(default, with = "stored::body")]
    pub body: Vec<u8>,
    /// The result metadata.
    #[serde(default)]
    pub protocol_result: ProtocolResult,
}

impl RegistrationResult {
    /// An assignment with nothing besides: for a fake transport, an application's own tests, or what another program
    /// stored. The other fields can be set.
    #[must_use]
    pub fn new(assigned_hub: impl Into<String>, device_id: impl Into<String>) -> Self {
        Self {
            assigned_hub: assigned_hub.into(),
            device_id: device_id.into(),
            operation_id: None,
            substatus: None,
            payload: None,
            certificates: IssuedCertificates::NotRequested,
            trust_bundle: None,
            connection_profile: None,
            polls: 0,
            credential: 0,
            transport: None,
            body: Vec::new(),
            protocol_result: ProtocolResult::default(),
        }
    }

    /// The result as the outcome of this request: a certificate that was asked for and did not come is
    /// [`IssuedCertificates::Missing`]. `StateMachine` does so; a driver of your own calls it.
    #[must_use]
    pub fn answering(mut self, request: &RegistrationRequest) -> Self {
        if request.requests_certificate() && self.certificates == IssuedCertificates::NotRequested {
            self.certificates = IssuedCertificates::Missing;
        }
        self
    }
}

impl fmt::Debug for RegistrationResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationResult")
            .field("assigned_hub", &Printable::brief(&self.assigned_hub))
            .field("device_id", &Printable::brief(&self.device_id))
            .field("operation_id", &self.operation_id)
            .field("substatus", &self.substatus)
            .field("payload", &self.payload)
            .field("certificates", &self.certificates)
            .field("trust_bundle", &self.trust_bundle)
            .field("connection_profile", &self.connection_profile)
            .field("polls", &self.polls)
            .field("credential", &self.credential)
            .field("transport", &self.transport)
            .field("body", &Printable::brief(&self.body))
            .field("protocol_result", &self.protocol_result)
            .finish()
    }
}

/// How an assignment came about. New words may appear.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum Substatus {
    /// `initialAssignment`
    InitialAssignment,
    /// `deviceDataMigrated`
    DeviceDataMigrated,
    /// `deviceDataReset`
    DeviceDataReset,
    /// `reprovisionedToInitialAssignment`
    ReprovisionedToInitialAssignment,
    /// A word that this version doesn't know, as the service wrote it.
    Other(String),
}

impl Substatus {
    const KNOWN: [Self; 4] = [
        Self::InitialAssignment,
        Self::DeviceDataMigrated,
        Self::DeviceDataReset,
        Self::ReprovisionedToInitialAssignment,
    ];

    /// The word as the service writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::InitialAssignment => "initialAssignment",
            Self::DeviceDataMigrated => "deviceDataMigrated",
            Self::DeviceDataReset => "deviceDataReset",
            Self::ReprovisionedToInitialAssignment => "reprovisionedToInitialAssignment",
            Self::Other(word) => word,
        }
    }
}

impl From<String> for Substatus {
    fn from(word: String) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| word.eq_ignore_ascii_case(known.as_str()));
        known.unwrap_or(Self::Other(word))
    }
}

impl From<Substatus> for String {
    fn from(substatus: Substatus) -> Self {
        substatus.as_str().to_owned()
    }
}

impl fmt::Debug for Substatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable::brief(self.as_str()).fmt(f)
    }
}

impl fmt::Display for Substatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An `operationStatus` event: one for each answer that says assigning, one for assigned.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OperationStatus {
    /// The service works on it.
    Assigning {
        /// The service's handle for this registration.
        operation_id: OperationId,
        /// When the next poll is due, counted from this event; `None` when that would be too late.
        next_poll: Option<Duration>,
        /// The answer as it came.
        body: Vec<u8>,
    },
    /// The device has its hub.
    Assigned {
        /// The service's handle for this registration, when it named one.
        operation_id: Option<OperationId>,
        /// The answer as it came.
        body: Vec<u8>,
    },
}

impl fmt::Debug for OperationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Assigning { operation_id, next_poll, body } => f
                .debug_struct("Assigning")
                .field("operation_id", operation_id)
                .field("next_poll", next_poll)
                .field("body", &Printable::brief(body))
                .finish(),
            Self::Assigned { operation_id, body } => f
                .debug_struct("Assigned")
                .field("operation_id", operation_id)
                .field("body", &Printable::brief(body))
                .finish(),
        }
    }
}
