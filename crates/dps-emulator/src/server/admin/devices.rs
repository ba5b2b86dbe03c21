//! `/devices`: what the service knows of devices that have registered.

use serde_json::json;

use super::{
    Admin, Call,
    answer::{self, Answer, Problem},
};

pub(super) fn list(admin: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    Ok(answer::json(&json!({ "devices": admin.shared.core.service().known_devices() })))
}

pub(super) fn get(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let known = admin.shared.core.service().known_device(&call.name);
    known.map(|device| answer::json(&device)).ok_or_else(|| unknown(&call.name))
}

pub(super) fn forget_all(admin: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    admin.shared.core.service().forget_devices();
    Ok(answer::done())
}

pub(super) fn forget(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let was_known = admin.shared.core.service().forget_device(&call.name);
    if was_known { Ok(answer::done()) } else { Err(unknown(&call.name)) }
}

fn unknown(id: &str) -> Problem {
    Problem::not_found("id", id, "no device with this registration id has registered")
}
