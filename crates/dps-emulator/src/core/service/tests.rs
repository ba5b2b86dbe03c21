//! The core without any transport: who may register, and what comes of it.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::*;
use crate::{
    behavior::{Behavior, Body, Delivery, Fault, Outcome, RetryAfter},
    enrollment::{
        Allocation, Attestation, EnrollmentName, GroupAttestation, Pair, Reprovisioning,
        ReturnedPayload,
    },
};
use dps_attestation::{GroupKey, SymmetricKey};

mod certificates;
mod credentials;
mod registrations;

const SCOPE: &str = "0ne00AABBCC";

/// The time of all tests: 2025-01-01.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600)
}

fn service(enrollments: impl IntoIterator<Item = Enrollment>) -> Service {
    let config = crate::Config::new().id_scope(SCOPE.parse().unwrap()).nearest_hubs(["b", "a"]);
    let instance = config.instance().unwrap();
    Service::new(instance, enrollments.into_iter().collect(), [1; 32], now()).unwrap()
}

fn key(text: &str) -> SymmetricKey {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("{text:.<16}")).parse().unwrap()
}

fn group_key(text: &str) -> GroupKey {
    key(text).expose_base64().parse().unwrap()
}

fn individual(id: &str) -> Enrollment {
    let attestation =
        Attestation::SymmetricKey(Pair { primary: key("one"), secondary: Some(key("two")) });
    Enrollment::individual(id.parse().unwrap(), attestation)
}

fn group(name: &str) -> Enrollment {
    let attestation = GroupAttestation::SymmetricKey(Pair {
        primary: group_key("g1"),
        secondary: Some(group_key("g2")),
    });
    Enrollment::group(name, attestation)
}

/// A token that holds for an hour, signed with the key.
fn token(id: &str, key: &SymmetricKey) -> String {
    let resource = format!("{SCOPE}/registrations/{id}");
    let resource = utf8_percent_encode(&resource, NON_ALPHANUMERIC);
    let expiry = clock::unix_seconds(now()) + 3600;
    let signature = STANDARD.encode(key.signature(&format!("{resource}\n{expiry}")).expose());
    let signature = utf8_percent_encode(&signature, NON_ALPHANUMERIC);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=registration")
}

/// A registration with nothing but its api-version.
fn plain() -> Registration {
    let api_version = ApiVersion::find(Some("2021-06-01")).unwrap();
    Registration { api_version, payload: None, force: false, csr: None }
}

fn body(reply: &Reply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}
