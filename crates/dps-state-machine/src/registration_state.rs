//! What the service keeps of a device's registration: the answer to a status lookup.

use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use crate::{
    answer,
    body::{self, Object},
    error::{Error, ProtocolError, Stage},
    json::Json,
    printable::Printable,
    progress::Progress,
    registration_result::Substatus,
    response::{ProtocolResult, Response},
};

/// What the service keeps of a device's registration. To ask for it registers nothing.
///
/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/device-registration-status-lookup>.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrationState {
    /// How far the registration is.
    pub status: RegistrationStatus,
    /// The host name of the hub, once there is one.
    pub assigned_hub: Option<String>,
    /// The device's id at the hub.
    pub device_id: Option<String>,
    /// How the assignment came about, when the service says so.
    pub substatus: Option<Substatus>,
    /// What a custom allocation webhook or the enrollment returned, to the letter.
    pub payload: Option<Json>,
    /// The service's error code of a registration that failed.
    pub error_code: Option<u32>,
    /// What the service says of a registration that failed.
    pub error_message: Option<String>,
    /// When the device registered first, as the service writes it: RFC 3339.
    pub created: Option<String>,
    /// When this was changed last.
    pub last_updated: Option<String>,
    /// The whole answer as it came.
    pub body: Vec<u8>,
    /// The result metadata.
    pub protocol_result: ProtocolResult,
}

/// How far a registration is. New words may appear.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RegistrationStatus {
    /// `unassigned`
    Unassigned,
    /// `assigning`
    Assigning,
    /// `assigned`
    Assigned,
    /// `failed`
    Failed,
    /// `disabled`
    Disabled,
    /// A word that this version doesn't know, as the service wrote it.
    Other(String),
}

impl RegistrationStatus {
    const KNOWN: [Self; 5] =
        [Self::Unassigned, Self::Assigning, Self::Assigned, Self::Failed, Self::Disabled];

    /// The word as the service writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Unassigned => "unassigned",
            Self::Assigning => "assigning",
            Self::Assigned => "assigned",
            Self::Failed => "failed",
            Self::Disabled => "disabled",
            Self::Other(word) => word,
        }
    }

    fn read(word: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| word.eq_ignore_ascii_case(known.as_str()));
        known.unwrap_or_else(|| Self::Other(word.to_owned()))
    }
}

impl fmt::Display for RegistrationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable::brief(self.as_str()).fmt(f)
    }
}

impl RegistrationState {
    /// Reads the answer to a status lookup. The progress is that of the lookup: it knows which secrets no error may repeat.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the service refuses to tell: with status 404 it keeps nothing of the device.
    /// [`Error::Protocol`] when the answer makes no sense.
    pub fn read(response: Response, progress: &Progress) -> Result<Self, Error> {
        Self::parse(response).map_err(|error| progress.without_secrets(error))
    }

    fn parse(response: Response) -> Result<Self, Error> {
        if !(200..300).contains(&response.status) {
            return Err(answer::refused(response, Stage::Query));
        }
        let text = body::text(&response.body).into_owned();
        let wrong = |reason: String| {
            let mut error = ProtocolError::unreadable(Stage::Query, reason);
            error.status = Some(response.status);
            error.body.clone_from(&response.body);
            error.protocol_result = response.protocol_result.clone();
            Error::from(error)
        };
        let state = Object::read(&text)
            .map_err(|error| wrong(format!("it is not the JSON expected: {error}")))?;
        let status = state.exact_text("status").map_err(&wrong)?;
        let status = status.ok_or_else(|| wrong("it has no status".to_string()))?;
        Ok(Self {
            status: RegistrationStatus::read(&status),
            assigned_hub: state.text("assignedHub").filter(|hub| !hub.is_empty()),
            device_id: state.text("deviceId").filter(|id| !id.is_empty()),
            substatus: state.text("substatus").map(Substatus::from),
            payload: state.get("payload").map(Json::from),
            error_code: state.code("errorCode").filter(|code| *code != 0),
            error_message: state.text("errorMessage").filter(|message| !message.is_empty()),
            created: state.text("createdDateTimeUtc"),
            last_updated: state.text("lastUpdatedDateTimeUtc"),
            protocol_result: response.protocol_result,
            body: response.body,
        })
    }
}

impl fmt::Debug for RegistrationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrationState")
            .field("status", &self.status)
            .field("assigned_hub", &self.assigned_hub.as_ref().map(Printable::brief))
            .field("device_id", &self.device_id.as_ref().map(Printable::brief))
            .field("substatus", &self.substatus)
            .field("error_code", &self.error_code)
            .field("body", &Printable::brief(&self.body))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Result<RegistrationState, Error> {
        RegistrationState::read(Response::new(status, body), &Progress::default())
    }

    #[test]
    fn a_state_is_read_whatever_is_odd_or_missing_in_it_but_its_status() {
        let whole = r#"{"registrationId":"d","createdDateTimeUtc":"2026-01-02T03:04:05Z","assignedHub":"h",
            "deviceId":"d","status":"Assigned","substatus":"initialAssignment","payload":{"a": 1.50},"errorCode":0}"#;
        let state = read(200, whole).unwrap();
        assert_eq!(state.status, RegistrationStatus::Assigned);
        assert_eq!(
            (state.assigned_hub.as_deref(), state.device_id.as_deref()),
            (Some("h"), Some("d"))
        );
        assert_eq!((state.substatus, state.error_code), (Some(Substatus::InitialAssignment), None));
        assert_eq!(state.payload.unwrap().get(), r#"{"a": 1.50}"#);
        assert_eq!(state.created.as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(state.body, whole.as_bytes());
        let failed =
            read(200, r#"{"status":"failed","errorCode":400209,"errorMessage":"no"}"#).unwrap();
        assert_eq!((failed.status, failed.error_code), (RegistrationStatus::Failed, Some(400_209)));
        let new = read(200, r#"{"status":"resting","assignedHub":5,"payload":null}"#).unwrap();
        assert_eq!((new.status.as_str(), new.assigned_hub), ("resting", None));
    }

    #[test]
    fn what_is_no_state_is_a_refusal_or_a_protocol_error() {
        for body in ["", "[]", "<html>", "{}", r#"{"status":5}"#, "null"] {
            let Error::Protocol(error) = read(200, body).unwrap_err() else { panic!("{body}") };
            assert_eq!((error.stage, error.body.as_slice()), (Stage::Query, body.as_bytes()));
        }
        for (status, retryable) in [(404, false), (401, false), (429, true), (503, true)] {
            let error = read(status, r#"{"errorCode":1,"trackingId":"t"}"#).unwrap_err();
            assert_eq!((error.status(), error.is_retryable()), (Some(status), retryable));
            assert_eq!(error.tracking_id(), Some("t"));
        }
    }
}
