//! Who asks for what, and what the service says to it.

use std::collections::BTreeMap;

use fe2o3_amqp_types::{definitions::Error, primitives::SimpleValue};
use serde_amqp::Value;

use super::{
    codec::{Message, text},
    session::Context,
    write,
};
use crate::{
    behavior::{AmqpFault, InfoRetryAfter},
    events::{EventKind, Operation},
    server::Peer,
    service::{Authenticated, Credential, Registration, Reply, ServiceError, check_api_version},
};

/// Who a device says it is, and whether it is.
pub(super) struct Claim {
    pub(super) id_scope: String,
    pub(super) registration_id: String,
    pub(super) who: Result<Authenticated, ServiceError>,
}

impl Claim {
    /// Checks a credential, and records what came of it.
    pub(super) fn check(
        peer: &Peer,
        id_scope: &str,
        registration_id: &str,
        credential: Credential<'_>,
    ) -> Self {
        let now = peer.shared.now();
        let who = peer.shared.service().authenticate(now, id_scope, registration_id, credential);
        peer.shared.checked(peer.id, registration_id, credential, &who);
        let (id_scope, registration_id) = (id_scope.to_owned(), registration_id.to_owned());
        Self { id_scope, registration_id, who }
    }

    pub(super) fn is_for(&self, id_scope: &str, registration_id: &str) -> bool {
        self.id_scope.eq_ignore_ascii_case(id_scope)
            && self.registration_id.eq_ignore_ascii_case(registration_id)
    }
}

/// The device that a link is for.
#[derive(Clone)]
pub(super) struct Device {
    pub(super) registration_id: String,
    pub(super) who: Authenticated,
    pub(super) api_version: Option<String>,
    pub(super) client_version: Option<String>,
}

/// The ID scope and the registration id of a link's address: `{scope}/registrations/{id}`, with or without
/// `amqps://{host}/` before it.
pub(super) fn parse_address(address: &str) -> Option<(&str, &str)> {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?.1,
        None => address.trim_start_matches('/'),
    };
    let (id_scope, registration_id) = path.split_once("/registrations/")?;
    (!id_scope.contains('/') && !registration_id.contains('/'))
        .then_some((id_scope, registration_id))
}

/// The device that a link is for, if it may have it.
pub(super) fn claimed(
    context: &mut Context<'_>,
    address: &str,
) -> Result<(String, Authenticated), ServiceError> {
    let (id_scope, registration_id) =
        parse_address(address).ok_or_else(|| ServiceError::no_such_path(address))?;
    let known = context.claims.iter().find(|claim| claim.is_for(id_scope, registration_id));
    let who = match known {
        Some(claim) => claim.who.clone(),
        None if context.peer.certificates.is_empty() || !context.claims.is_empty() => {
            Err(ServiceError::unauthorized("the link is for another device than the credential"))
        }
        None => {
            let credential = Credential::Certificates(&context.peer.certificates);
            let claim = Claim::check(context.peer, id_scope, registration_id, credential);
            let who = claim.who.clone();
            context.claims.push(claim);
            who
        }
    };
    who.map(|who| (registration_id.to_owned(), who))
}

impl Peer {
    /// Asks the service, and records question and answer.
    pub(super) fn ask(&self, device: &Device, message: &Message) -> Reply {
        let kind = message.property("iotdps-operation-type").and_then(text);
        let operation = match kind {
            Some("iotdps-register") => Operation::Register,
            Some("iotdps-get-operationstatus") => Operation::Query,
            _ => Operation::Unknown,
        };
        let operation_id =
            message.property("iotdps-operation-id").and_then(text).map(str::to_owned);
        let force = message.property("iotdps-forceRegistration") == Some(&Value::Bool(true));
        self.shared.recorder.record(
            self.id,
            EventKind::Request {
                transport: self.transport,
                operation,
                registration_id: device.registration_id.clone(),
                operation_id: operation_id.clone(),
                api_version: device.api_version.clone(),
                force,
                headers: telling_properties(device, message),
                body_bytes: message.body.len(),
                payload: Registration::peek_payload(&message.body),
            },
        );
        let now = self.shared.now();
        let mut service = self.shared.service();
        let version = device.api_version.as_deref();
        let reply = match (check_api_version(version), operation, operation_id) {
            (Err(error), ..) => service.refuse(now, &error),
            (_, Operation::Register, _) => {
                let id = &device.registration_id;
                let version = version.unwrap_or_default();
                let registration = Registration::read(&message.body, id, version, force);
                service.register(now, &device.who, registration)
            }
            (_, Operation::Query, Some(operation_id)) => {
                service.query(now, &device.who, &operation_id)
            }
            (_, Operation::Query, None) => {
                let error = ServiceError::bad_request("The operation ID is missing");
                service.refuse(now, &error)
            }
            (_, Operation::Unknown, _) => {
                let error = ServiceError::bad_request("The operation type is missing or unknown");
                service.refuse(now, &error)
            }
        };
        drop(service);
        self.record(operation, &device.registration_id, &reply);
        reply
    }
}

/// The properties that tell one client from another.
fn telling_properties(device: &Device, message: &Message) -> BTreeMap<String, String> {
    let shown = |value: &Value| match value {
        Value::Uuid(uuid) => format!("{uuid:?}"),
        other => text(other).map_or_else(|| format!("{other:?}"), str::to_owned),
    };
    let mut properties: BTreeMap<_, _> =
        message.application.iter().map(|(name, value)| (name.clone(), shown(value))).collect();
    let beside = [
        ("client-version", device.client_version.clone()),
        ("message-id", message.message_id.as_ref().map(shown)),
        ("correlation-id", message.correlation_id.as_ref().map(shown)),
    ];
    properties
        .extend(beside.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    properties
}

/// The condition of a refusal whose status HTTP counts.
pub(super) fn condition(status: u16) -> &'static str {
    match status {
        401 => "amqp:unauthorized-access",
        403 => "amqp:not-allowed",
        404 => "amqp:not-found",
        409 => "amqp:resource-locked",
        413 => "amqp:link:message-size-exceeded",
        429 => "com.microsoft:device-container-throttled",
        503 => "com.microsoft:server-busy",
        504 => "com.microsoft:timeout",
        500.. => "amqp:internal-error",
        _ => "amqp:invalid-field",
    }
}

/// A refusal as an error: the service's JSON is its description.
pub(super) fn rejection(reply: &Reply) -> Error {
    // Whole seconds go as a number, whatever else a script says as it is.
    let retry_after = reply.retry_after.iter().map(|value| match value.parse() {
        Ok(seconds) => Value::Int(seconds),
        Err(_) => Value::String(value.clone()),
    });
    let info = ["retry-after", "Retry-After"].into_iter().zip(retry_after);
    write::error(condition(reply.status), Some(reply.text()), info)
}

/// A rejection by its condition only.
pub(super) fn bare_rejection(place: u8, retry_after: InfoRetryAfter) -> Error {
    let condition = AmqpFault::CONDITIONS.get(usize::from(place)).unwrap_or(&"amqp:internal-error");
    let number = |seconds| Value::Int(i32::try_from(seconds).unwrap_or(i32::MAX));
    let text = |seconds: u32| Value::String(seconds.to_string());
    let info = match retry_after {
        InfoRetryAfter::Absent => None,
        InfoRetryAfter::Number(seconds) => Some(("retry-after", number(seconds))),
        InfoRetryAfter::Text(seconds) => Some(("retry-after", text(seconds))),
        InfoRetryAfter::CapitalNumber(seconds) => Some(("Retry-After", number(seconds))),
        InfoRetryAfter::CapitalText(seconds) => Some(("Retry-After", text(seconds))),
    };
    write::error(condition, None, info)
}

/// An answer's application properties.
pub(super) fn application_properties(reply: &Reply) -> Vec<(String, SimpleValue)> {
    let retry_after = reply.retry_after.iter().map(|value| match value.parse() {
        Ok(seconds) => SimpleValue::Int(seconds),
        Err(_) => SimpleValue::String(value.clone()),
    });
    ["retry-after", "Retry-After"].map(str::to_owned).into_iter().zip(retry_after).collect()
}

impl Reply {
    /// The body as text; what is none in it is replaced.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_with_and_without_a_host() {
        for (address, parsed) in [
            ("0ne1/registrations/d-1", Some(("0ne1", "d-1"))),
            ("/0ne1/registrations/d-1", Some(("0ne1", "d-1"))),
            ("amqps://dps.example/0ne1/registrations/d-1", Some(("0ne1", "d-1"))),
            ("amqps://dps.example", None),
            ("0ne1/registrations/d-1/x", None),
            ("a/0ne1/registrations/d-1", None),
            ("$cbs", None),
        ] {
            assert_eq!(parse_address(address), parsed, "{address}");
        }
    }
}
