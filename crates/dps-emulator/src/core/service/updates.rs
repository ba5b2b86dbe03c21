//! The three calls by which a device asks for updates of its software. The real service hands them on to a service of
//! its own; here the enrollment has the one update that there is.
//! See <https://github.com/Azure/azure-rest-api-specs/pull/44617>.

use std::{collections::BTreeMap, time::SystemTime};

use dps_state_machine::Json;
use serde_json::{Value, json};

use super::{
    ApiVersion, Authenticated, Reply, Service, ServiceError, registration::check_object, to_json,
};
use crate::core::events::Operation;

impl Service {
    /// Hands out the enrollment's update, until the device reports that it is done with it; or takes such a report.
    pub(crate) fn update(
        &mut self,
        now: SystemTime,
        who: &Authenticated,
        operation: Operation,
        api_version: &ApiVersion,
        body: &[u8],
    ) -> Reply {
        let request = match read(body) {
            Ok(request) => request,
            Err(error) => return self.refuse(now, &error),
        };
        let Some(updates) = &api_version.updates else {
            let error = ServiceError::no_such_path(&format!("updates in {}", api_version.name));
            return self.refuse(now, &error);
        };
        let update = self.enrollment(&who.enrollment).and_then(|it| it.update.clone());
        let device = self.device(who);
        let mut answer = BTreeMap::new();
        if operation == Operation::UpdateStatus {
            device.updated |= update.is_some_and(|update| is_over(&request, &update));
        } else {
            let etag: Json = json!("\"1\"").into();
            answer.insert(updates.service_etag, etag.clone());
            answer.insert(updates.agent_etag, etag);
            answer.extend(update.filter(|_| !device.updated).map(|it| ("updateMetadata", it)));
        }
        self.devices.bound(who.registration_id.as_str());
        Reply::ok(200, &to_json(&answer)).tracked(self.guids.next())
    }
}

fn read(body: &[u8]) -> Result<Value, ServiceError> {
    if !check_object(body)? {
        return Ok(Value::Null);
    }
    let read = serde_json::from_slice(body);
    read.map_err(|error| ServiceError::deserialization(&error.to_string()))
}

/// Whether a report says that this update has come to an end, good or bad.
fn is_over(report: &Value, update: &Json) -> bool {
    let Ok(update) = serde_json::from_str::<Value>(update.get()) else { return false };
    let result = report.get("installResult").or_else(|| report.get("lastInstallResult"));
    let outcome = result.and_then(|result| result.get("outcome")).and_then(Value::as_str);
    outcome.is_some_and(|outcome| outcome != "IN_PROGRESS")
        && report.get("workflowId") == update.get("workflowId")
}
