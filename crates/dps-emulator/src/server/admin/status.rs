//! How the emulator is, what a device must know of it, and the way back to its start.

use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use super::{
    Admin, Call,
    answer::{self, Answer, Problem},
};

/// What does not change while it runs, without secrets.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Facts {
    pub(crate) ready: bool,
    pub(crate) id_scope: String,
    pub(crate) https_port: u16,
    pub(crate) mqtt_port: u16,
    pub(crate) amqp_port: u16,
    pub(crate) admin_port: u16,
    pub(crate) version: &'static str,
    /// Tells one run of an emulator from another on the same port.
    pub(crate) started_at: String,
    #[serde(skip)]
    pub(crate) ca_pem: String,
}

pub(super) fn health(admin: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    let log = admin.shared.core.log();
    Ok(answer::json(
        &json!({ "status": "ok", "events": log.len(), "droppedEvents": log.dropped() }),
    ))
}

/// The ports for devices are open before this one, and close after it.
pub(super) fn ready(_: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    Ok(answer::json(&json!({ "ready": true })))
}

pub(super) fn info(admin: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    Ok(answer::json(&admin.facts))
}

pub(super) fn ca(admin: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    Ok(pem(admin.facts.ca_pem.clone()))
}

pub(super) fn issuing_ca(admin: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    let now = admin.now();
    let mut service = admin.shared.core.service();
    let root = service.issuing_ca(now).map(|ca| ca.root_pem().to_owned());
    let failed = || {
        let message = "the system has no randomness to make the issuing CA from";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "issuing-ca", "", message)
    };
    root.map(pem).ok_or_else(failed)
}

pub(super) fn openapi(_: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    Ok(answer::whole("application/json", super::OPENAPI))
}

pub(super) fn reset(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    if !call.body.trim_ascii().is_empty() && !call.object()?.is_empty() {
        return Err(Problem::bad("body", "", "it must be empty, or an empty JSON object"));
    }
    admin.shared.reset()?;
    Ok(answer::done())
}

fn pem(text: String) -> Answer {
    answer::whole("application/x-pem-file", text)
}
