//! `/enrollments`: the enrollments, as JSON with the keys of the configuration file. Their keys are in it: whoever may
//! use the admin port may make enrollments too.

use http::StatusCode;
use serde_json::json;

use super::{
    Admin, Call,
    answer::{self, Answer, Problem},
    query::Query,
};
use crate::enrollment::{Enrollment, EnrollmentName};

/// What says how the service behaves toward the devices of an enrollment.
const BEHAVIOR: [&str; 5] = ["polls", "retry-after", "outcome", "register", "query"];

pub(super) fn list(admin: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    let service = admin.shared.core.service();
    let all: Vec<_> = service.enrollments().map(Enrollment::to_json).collect();
    Ok(answer::json(&json!({ "enrollments": all })))
}

pub(super) fn get(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let service = admin.shared.core.service();
    let found = service.enrollment_named(name(call)?).map_err(Problem::unknown)?;
    Ok(answer::json(&found.to_json()))
}

/// Adds one whose name is not taken.
pub(super) fn add(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let enrollment = read(call)?;
    let (now, made) = (admin.now(), answer::json(&enrollment.to_json()));
    let mut service = admin.shared.core.service();
    let taken = service.enrollment_named(own_name(&enrollment)).is_ok();
    if taken {
        let message =
            "an enrollment of this kind has the name (case does not count); PUT replaces it";
        return Err(Problem::new(StatusCode::CONFLICT, "name", enrollment.name(), message));
    }
    service.add(now, enrollment)?;
    Ok(created(made))
}

/// Adds one, or puts it into the place of the one with its name.
pub(super) fn put(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let enrollment = read(call)?;
    if !enrollment.name().eq_ignore_ascii_case(&call.name) {
        let message = "the body has another name than the path; give the same";
        return Err(Problem::bad("name", enrollment.name(), message));
    }
    let (now, made) = (admin.now(), answer::json(&enrollment.to_json()));
    let former = admin.shared.core.service().put(now, enrollment)?;
    Ok(if former.is_some() { made } else { created(made) })
}

pub(super) fn remove(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    admin.shared.core.service().remove(name(call)?).map_err(Problem::unknown)?;
    Ok(answer::done())
}

/// Sets the whole behavior; keys that are not given are as without them. Each device starts at the beginning of the
/// scripts.
pub(super) fn put_behavior(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let (name, given, now) = (name(call)?, call.object()?, admin.now());
    if let Some((unknown, value)) = given.iter().find(|(key, _)| !BEHAVIOR.contains(&&***key)) {
        let message = format!("it is no part of the behavior; these are: {}", BEHAVIOR.join(", "));
        return Err(Problem::bad(unknown, &value.to_string(), &message));
    }
    let mut service = admin.shared.core.service();
    let mut fields = service.enrollment_named(name).map_err(Problem::unknown)?.to_json();
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|key, _| !BEHAVIOR.contains(&&**key));
        fields.extend(given);
    }
    let changed = Enrollment::from_json(&fields)?;
    service.set_behavior(now, name, changed.behavior)?;
    Ok(answer::json(&fields))
}

fn read(call: &Call<'_>) -> Result<Enrollment, Problem> {
    Ok(Enrollment::from_json(&call.object()?.into())?)
}

/// The enrollment that the path names. Without `kind` it is the individual one, or else the group.
fn name<'a>(call: &'a Call<'_>) -> Result<EnrollmentName<'a>, Problem> {
    let query = Query::read(call.head.uri.query(), &["kind"])?;
    match query.get("kind") {
        None => Ok(EnrollmentName::Any(&call.name)),
        Some("individual") => Ok(EnrollmentName::Individual(&call.name)),
        Some("group") => Ok(EnrollmentName::Group(&call.name)),
        Some(other) => Err(Problem::bad("kind", other, "give individual or group")),
    }
}

fn own_name(enrollment: &Enrollment) -> EnrollmentName<'_> {
    match enrollment.is_group() {
        true => EnrollmentName::Group(enrollment.name()),
        false => EnrollmentName::Individual(enrollment.name()),
    }
}

fn created(mut answer: Answer) -> Answer {
    *answer.status_mut() = StatusCode::CREATED;
    answer
}
