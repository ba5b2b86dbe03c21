//! `/connections`: what goes wrong with the next connections, one fault for each, as the configuration file has it.

use serde::Deserialize as _;
use serde_json::json;

use super::{
    Admin, Call,
    answer::{self, Answer, Problem},
};
use crate::behavior::ConnectionFault;

pub(super) fn get(admin: &Admin, _: &Call<'_>) -> Result<Answer, Problem> {
    Ok(answer::json(&json!({ "connections": admin.shared.scripted_connections() })))
}

/// Takes the place of what is left.
pub(super) fn put(admin: &Admin, call: &Call<'_>) -> Result<Answer, Problem> {
    let mut body = call.object()?;
    let list = body.remove("connections");
    if let Some((unknown, value)) = body.iter().next() {
        return Err(Problem::bad(
            unknown,
            &value.to_string(),
            "it is not known here; connections is",
        ));
    }
    let Some(list) = list.as_ref().and_then(|list| list.as_array()) else {
        let value = list.map(|list| list.to_string()).unwrap_or_default();
        return Err(Problem::bad(
            "connections",
            &value,
            "give a list of faults, like [\"close-on-accept\"]",
        ));
    };
    let faults = list.iter().map(|fault| {
        ConnectionFault::deserialize(fault)
            .map_err(|error| Problem::bad("connections", &fault.to_string(), &error.to_string()))
    });
    admin.shared.script_connections(faults.collect::<Result<Vec<_>, _>>()?);
    get(admin, call)
}
