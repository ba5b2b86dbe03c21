//! The service API: how an operator's tools manage enrollments and look at registrations. It knows no socket.
//!
//! [`Service::call`] answers an [`ApiRequest`], which a server has read from bytes, by the rules of the service: tokens
//! and rights, etags, pages. See <https://learn.microsoft.com/rest/api/iot-dps/service/>.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::service::{
    ApiVersion, EnrollmentId, Kind, Reply, Service, ServiceError, Stored, takes_the_place,
};
use crate::enrollment::Enrollment;

mod bulk;
mod certificate_policy;
mod fields;
mod policy;
mod query;
mod record;

use fields::Fields;
pub use policy::{ServicePolicy, ServiceRight};
use record::Keys;

/// The api-versions that are served beside those of the device API.
const OTHER_API_VERSIONS: [&str; 2] = ["2018-04-01", "2019-02-15-preview"];

/// A request of the service API, as a server has read it.
pub(crate) struct ApiRequest<'a> {
    /// What is asked for, or what is wrong with the path or the method.
    pub(crate) call: Result<Call, ServiceError>,
    pub(crate) api_version: Option<String>,
    /// The host that the client asked for.
    pub(crate) host: &'a str,
    pub(crate) token: Option<&'a str>,
    pub(crate) if_match: Option<&'a str>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) max_item_count: Option<&'a str>,
    pub(crate) continuation: Option<&'a str>,
    pub(crate) body: Result<&'a [u8], ServiceError>,
}

/// What the service API can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Get(Kind, String),
    Put(Kind, String),
    Delete(Kind, String),
    Bulk(Kind),
    Query(Kind),
    AttestationMechanism(Kind, String),
    GetRegistration(String),
    DeleteRegistration(String),
    /// The registrations of this group.
    QueryRegistrations(String),
}

/// An answer of the service API, with the headers that it has beside those of every answer.
pub(crate) struct ApiReply {
    pub(crate) reply: Reply,
    pub(crate) headers: Vec<(&'static str, String)>,
    /// The policy that the caller has proved to have.
    pub(crate) policy: Option<String>,
}

impl ApiReply {
    fn of(reply: Reply) -> Self {
        Self { reply, headers: Vec::new(), policy: None }
    }

    fn ok(body: &Value) -> Self {
        Self::of(Reply::ok(200, body))
    }

    /// A record, whose etag is also a header.
    fn record(record: &Value) -> Self {
        let mut reply = Self::ok(record);
        let etag = record.get("etag").and_then(Value::as_str);
        reply.headers.extend(etag.map(|etag| ("etag", etag.to_owned())));
        reply
    }
}

impl Call {
    fn right(&self) -> ServiceRight {
        match self {
            Self::Get(..) | Self::Query(_) | Self::AttestationMechanism(..) => {
                ServiceRight::EnrollmentRead
            }
            Self::Put(..) | Self::Delete(..) | Self::Bulk(_) => ServiceRight::EnrollmentWrite,
            Self::GetRegistration(_) | Self::QueryRegistrations(_) => {
                ServiceRight::RegistrationStatusRead
            }
            Self::DeleteRegistration(_) => ServiceRight::RegistrationStatusWrite,
        }
    }

    /// Whether its body is JSON.
    fn has_body(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Bulk(_) | Self::Query(_) | Self::QueryRegistrations(_))
    }
}

/// The record of an enrollment as a webhook gets it.
pub(crate) fn record_without_keys(stored: &Stored) -> Value {
    record::write(stored, Keys::Hidden, None)
}

impl Service {
    /// Answers a request of the service API.
    pub(crate) fn call(&mut self, now: SystemTime, request: &ApiRequest<'_>) -> ApiReply {
        let policies = &self.instance.policies;
        let policy = policy::authenticate(policies, now, request.host, request.token).cloned();
        let fault = policy.is_ok().then(|| self.next_api_fault()).flatten();
        let replaced = fault.as_ref().is_some_and(takes_the_place);
        let answered = match &policy {
            Ok(_) if replaced => Ok(ApiReply::of(Reply::empty(200))),
            Ok(policy) => self.answer(now, policy, request),
            Err(error) => Err(error.clone()),
        };
        let mut answer = answered.unwrap_or_else(|error| ApiReply::of(self.refuse(now, &error)));
        if answer.reply.tracking_id.is_empty() {
            answer.reply = answer.reply.tracked(self.guids.next());
        }
        answer.reply = self.apply(now, answer.reply, fault);
        answer.policy = policy.ok().map(|policy| policy.name);
        answer
    }

    fn answer(
        &mut self,
        now: SystemTime,
        policy: &ServicePolicy,
        request: &ApiRequest<'_>,
    ) -> Result<ApiReply, ServiceError> {
        let call = request.call.clone()?;
        if !policy.rights.contains(&call.right()) {
            return Err(ServiceError::lacks_right(call.right()));
        }
        check_api_version(request.api_version.as_deref())?;
        let body = request.body.clone()?;
        if call.has_body() && !body.is_empty() && !is_json(request.content_type) {
            return Err(ServiceError::NO_JSON);
        }
        match call {
            Call::Get(kind, name) => {
                let record = self.record(&EnrollmentId::new(kind, &name), Keys::Hidden);
                Ok(ApiReply::record(&record.ok_or(ServiceError::NO_ENROLLMENT)?))
            }
            Call::Put(kind, name) => {
                let mut fields = Fields::of_body(body)?;
                let name = record::read_id(&mut fields, kind, Some(&name))?;
                let condition = match request.if_match {
                    None => Condition::Absent,
                    Some(etag) => Condition::Matches(etag),
                };
                self.write(now, kind, &name, fields, condition).map(|it| ApiReply::record(&it))
            }
            Call::Delete(kind, name) => {
                let id = EnrollmentId::new(kind, &name);
                self.check_etag(&id, request.if_match)?;
                self.remove_id(&id);
                Ok(ApiReply::of(Reply::empty(204)))
            }
            Call::Bulk(kind) => self.bulk(now, kind, body).map(|it| ApiReply::ok(&it)),
            Call::Query(kind) => self.query_enrollments(kind, request, body),
            Call::AttestationMechanism(kind, name) => {
                let stored = self.enrollments.get(&EnrollmentId::new(kind, &name));
                let stored = stored.ok_or(ServiceError::NO_ENROLLMENT)?;
                Ok(ApiReply::ok(&record::mechanism(&stored.enrollment, Keys::Shown)))
            }
            Call::GetRegistration(id) => {
                let state = self.registration_state(&id).ok_or(ServiceError::NOT_FOUND)?;
                Ok(ApiReply::record(&state))
            }
            Call::DeleteRegistration(id) => {
                let state = self.registration_state(&id).ok_or(ServiceError::NOT_FOUND)?;
                let etag = state.get("etag").and_then(Value::as_str).unwrap_or_default();
                if request.if_match.is_some_and(|given| !matches(given, etag)) {
                    return Err(ServiceError::ETAG_DIFFERS);
                }
                self.forget_device(&id);
                Ok(ApiReply::of(Reply::empty(204)))
            }
            Call::QueryRegistrations(group) => self.query_registrations(&group, request, body),
        }
    }

    fn record(&self, id: &EnrollmentId, keys: Keys) -> Option<Value> {
        let stored = self.enrollments.get(id)?;
        let of_device = (id.kind == Kind::Individual).then(|| stored.enrollment.name());
        let registration = of_device.and_then(|id| self.registration_state(id));
        Some(record::write(stored, keys, registration))
    }

    /// Writes a record if its condition holds, and gives what came of it.
    fn write(
        &mut self,
        now: SystemTime,
        kind: Kind,
        name: &str,
        fields: Fields,
        condition: Condition<'_>,
    ) -> Result<Value, ServiceError> {
        let id = EnrollmentId::new(kind, name);
        let former = self.enrollments.get(&id);
        match (condition, former) {
            (Condition::Absent, Some(_)) => return Err(ServiceError::ENROLLMENT_EXISTS),
            (Condition::Exists, None) => return Err(ServiceError::NO_ENROLLMENT),
            (Condition::Matches(etag), None) if !is_any(etag) => {
                return Err(ServiceError::NO_ENROLLMENT);
            }
            (Condition::Matches(etag), Some(former)) if !matches(etag, &former.etag) => {
                return Err(ServiceError::ETAG_DIFFERS);
            }
            _ => {}
        }
        let former: Option<&Enrollment> = former.map(|former| &*former.enrollment);
        let enrollment = record::read(fields, kind, name, former, &self.instance, &mut self.guids)?;
        self.put(now, enrollment).map_err(|error| {
            ServiceError::deserialization(&format!("{}: {}", error.field(), error.reason()))
        })?;
        self.record(&id, Keys::Shown).ok_or(ServiceError::INTERNAL)
    }

    fn check_etag(&self, id: &EnrollmentId, given: Option<&str>) -> Result<(), ServiceError> {
        let stored = self.enrollments.get(id).ok_or(ServiceError::NO_ENROLLMENT)?;
        match given.is_none_or(|given| matches(given, &stored.etag)) {
            true => Ok(()),
            false => Err(ServiceError::ETAG_DIFFERS),
        }
    }
}

/// On what a record is written.
#[derive(Clone, Copy)]
enum Condition<'a> {
    Absent,
    Exists,
    Matches(&'a str),
}

/// Whether an etag is the one of a record, with or without the quotes that belong to it.
fn matches(given: &str, etag: &str) -> bool {
    is_any(given) || bare(given) == bare(etag)
}

fn is_any(etag: &str) -> bool {
    bare(etag) == "*"
}

fn bare(etag: &str) -> &str {
    etag.trim().trim_matches('"')
}

fn check_api_version(version: Option<&str>) -> Result<(), ServiceError> {
    let mut served: Vec<_> = ApiVersion::names().chain(OTHER_API_VERSIONS).collect();
    match version {
        None | Some("") => Err(ServiceError::bad_request("The api-version is missing")),
        Some(version) if served.contains(&version) => Ok(()),
        Some(version) => {
            served.sort_unstable();
            let served = served.join(", ");
            let reason = format!("The api-version {version:?} is not served; there are {served}");
            Err(ServiceError::bad_request(&reason))
        }
    }
}

fn is_json(content_type: Option<&str>) -> bool {
    let essence = content_type.and_then(|it| it.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}
