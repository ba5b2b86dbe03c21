//! What to do about an error.

use alloc::{format, string::String};

use super::{Error, RejectionCause, RejectionError, Stage, timeout::Seconds};
use crate::{
    body::{self, Object},
    progress::PeerActivity,
    service_error::{self, refuses_credential},
};

/// In a sentence. What the transport said comes first: it knows more.
pub(super) fn of(error: &Error) -> Option<String> {
    match error {
        Error::Credential(e) => e.hint.clone(),
        Error::Rejected(e) => match (&e.hint, of_rejection(e)) {
            // What a transport knows of a credential does not say whether it was the right one.
            (Some(hint), Some(general)) if status_of(e) == 401 => Some(format!("{general}; {hint}")),
            (Some(hint), _) => Some(hint.clone()),
            (None, general) => general.map(Into::into),
        },
        Error::Connection(e) => e.hint.clone(),
        Error::Timeout(e) => Some(match e.retry_after {
            Some(wait) if e.asked_by_service => {
                format!("register again after {} s, or allow more time", Seconds::rounded_up(wait))
            }
            None if e.stage == Stage::Sign => {
                "check what signs for the device, or allow more time".into()
            }
            Some(_) => "allow more time for the whole registration, or poll sooner".into(),
            None => match e.activity {
                None => "check the network path to the service, or allow more time".into(),
                Some(PeerActivity::UnmatchedAnswers(_)) => {
                    "check that the endpoint is a provisioning service, and that nothing on the way changes its answers"
                        .into()
                }
                Some(_) => "the network path works; allow more time, or try again later".into(),
            },
        }),
        // A proxy's page is no JSON object; what is one comes from a service.
        Error::Protocol(e) if Object::read(&body::text(&e.body)).is_err() => {
            Some("check that the endpoint is a provisioning service and not a proxy's page".into())
        }
        Error::Protocol(_)
        | Error::Configuration(_)
        | Error::Cancelled
        | Error::InvalidOperation => None,
    }
}

/// Of a registration that has failed the answer itself was a success: the error code says what it would have been. An
/// error within a message that refuses the credential counts for more than the error around it.
fn status_of(rejection: &RejectionError) -> u16 {
    if refuses_credential(rejection.status, &rejection.body) {
        return 401;
    }
    match rejection.error_code {
        Some(code) if rejection.cause == RejectionCause::Failed => service_error::status_of(code),
        _ => rejection.status,
    }
}

fn of_rejection(rejection: &RejectionError) -> Option<&'static str> {
    if rejection.cause == RejectionCause::Disabled {
        return Some("enable the device's enrollment at the service");
    }
    Some(match (rejection.error_code, status_of(rejection)) {
        (Some(409_203), _) => {
            "another registration of the same device is under way; wait and try again"
        }
        (Some(400_004), _) => "check the registration id's characters and case",
        (_, 401) => {
            "check the ID scope, the registration id and that the credential belongs to this enrollment"
        }
        // The service says its code; a web server that knows nothing of it says the status alone.
        (None, 404) if rejection.tracking_id.is_none() => {
            "check that the endpoint is a provisioning service and not another web server, and then the ID scope and that an enrollment exists for this registration id"
        }
        (_, 404) => "check the ID scope and that an enrollment exists for this registration id",
        (_, 429) => "the service is throttling; spread the fleet's registrations over time",
        (_, 500..=599) => "the service is in trouble; try again later",
        _ => return None,
    })
}
