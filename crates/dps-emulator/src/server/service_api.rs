//! The service API over HTTPS: its paths and headers.

use http::{HeaderMap, Method, header, request};
use hyper::body::Bytes;

use super::http::{Query, decode};
use crate::core::{ApiReply, ApiRequest, Call, Caller, Kind, ServiceError};

/// Whether a path belongs to the service API: that of a device begins with an ID scope.
pub(super) fn is_path(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    ["enrollments", "enrollmentgroups", "registrations"]
        .iter()
        .any(|name| first.eq_ignore_ascii_case(name))
}

/// Answers a request for such a path.
pub(super) fn answer(
    caller: &Caller,
    head: &request::Parts,
    body: &Result<Bytes, ServiceError>,
) -> ApiReply {
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let path = head.uri.path();
    let request = ApiRequest {
        call: read(&head.method, path),
        api_version: Query(head.uri.query().unwrap_or_default()).get("api-version"),
        host: host(head),
        token: text(header::AUTHORIZATION.as_str()),
        if_match: text(header::IF_MATCH.as_str()),
        content_type: text(header::CONTENT_TYPE.as_str()),
        max_item_count: text("x-ms-max-item-count"),
        continuation: text("x-ms-continuation"),
        body: body.as_deref().map_err(Clone::clone),
    };
    caller.call(head.method.as_str(), path, &request)
}

/// The headers of an answer that no other one has.
pub(super) fn add_headers(answer: &ApiReply, headers: &mut HeaderMap) {
    for (name, value) in &answer.headers {
        if let Ok(value) = value.parse() {
            headers.insert(*name, value);
        }
    }
    if answer.reply.body.is_empty() {
        headers.remove(header::CONTENT_TYPE);
    }
}

fn host(head: &request::Parts) -> &str {
    let asked = head.uri.authority().map(http::uri::Authority::as_str);
    let named = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    asked.or(named).unwrap_or_default()
}

/// What a method asks of a path. Names in paths have no case; a slash at the end is one client's habit.
fn read(method: &Method, path: &str) -> Result<Call, ServiceError> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments: Vec<_> = path.trim_start_matches('/').split('/').map(decode).collect();
    let lower: Vec<_> = segments.iter().map(|segment| segment.to_ascii_lowercase()).collect();
    let lower: Vec<_> = lower.iter().map(String::as_str).collect();
    let kind = match lower.first() {
        Some(&"enrollments") => Some(Kind::Individual),
        Some(&"enrollmentgroups") => Some(Kind::Group),
        _ => None,
    };
    let name = segments.get(1).cloned().unwrap_or_default();
    let call = match (method.as_str(), kind, lower.get(1..).unwrap_or_default()) {
        ("POST", Some(kind), []) => Call::Bulk(kind),
        ("POST", Some(kind), ["query"]) => Call::Query(kind),
        ("GET", Some(kind), [_]) => Call::Get(kind, name),
        ("PUT", Some(kind), [_]) => Call::Put(kind, name),
        ("DELETE", Some(kind), [_]) => Call::Delete(kind, name),
        ("POST", Some(kind), [_, "attestationmechanism"]) => Call::AttestationMechanism(kind, name),
        ("GET", None, [_]) => Call::GetRegistration(name),
        ("DELETE", None, [_]) => Call::DeleteRegistration(name),
        ("POST", None, [_, "query"]) => Call::QueryRegistrations(name),
        (_, Some(_), [] | [_] | [_, "attestationmechanism"])
        | (_, None, [] | [_] | [_, "query"]) => {
            return Err(ServiceError::METHOD_NOT_ALLOWED);
        }
        _ => return Err(ServiceError::no_such_path(path)),
    };
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_service_api_is_known_in_any_case() {
        let one = || "a:1".to_owned();
        for (method, path, call) in [
            ("PUT", "/enrollments/a%3A1", Call::Put(Kind::Individual, one())),
            ("GET", "/enrollmentGroups/a:1", Call::Get(Kind::Group, one())),
            ("DELETE", "/ENROLLMENTGROUPS/a:1", Call::Delete(Kind::Group, one())),
            ("POST", "/enrollments/", Call::Bulk(Kind::Individual)),
            ("POST", "/enrollmentgroups", Call::Bulk(Kind::Group)),
            ("POST", "/enrollments/query", Call::Query(Kind::Individual)),
            ("PUT", "/enrollments/query", Call::Put(Kind::Individual, "query".into())),
            (
                "POST",
                "/enrollmentgroups/a:1/attestationMechanism",
                Call::AttestationMechanism(Kind::Group, one()),
            ),
            ("GET", "/registrations/a:1", Call::GetRegistration(one())),
            ("DELETE", "/registrations/a:1", Call::DeleteRegistration(one())),
            ("POST", "/registrations/a:1/query", Call::QueryRegistrations(one())),
        ] {
            assert!(is_path(path), "{path}");
            assert_eq!(read(&method.parse().unwrap(), path), Ok(call), "{method} {path}");
        }
        for (method, path, status) in [
            ("PATCH", "/enrollments/a", 405),
            ("GET", "/enrollments", 405),
            ("GET", "/enrollments/a/attestationmechanism", 405),
            ("PUT", "/registrations/a", 405),
            ("GET", "/enrollments/a/b", 404),
            ("GET", "/registrations/a/b/c", 404),
        ] {
            let refused = read(&method.parse().unwrap(), path).unwrap_err();
            assert_eq!(refused.status, status, "{method} {path}");
        }
        assert!(!is_path("/0ne00AABBCC/registrations/a/register") && !is_path("/"));
    }
}
