//! The HTTPS transport's requests and answers.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use dps_attestation::{Attestation, SymmetricKey};
use dps_connect::Config;
use dps_http::internal::codec;
use dps_state_machine::{ErrorKind, OperationId, RegistrationRequest, retry_after};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use percent_encoding::percent_decode_str;

use crate::input::{parts, text};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let key = SymmetricKey::from_bytes(b"the key of a device").expect("a key");
    Config::new("0ne00AABBCC".parse().expect("a scope"), Attestation::from(key))
});

/// Parts: an operation id, a registration id, a token, a status, then header lines.
pub fn run(data: &[u8]) {
    let mut parts = parts(data);
    let mut next = || text(parts.next().unwrap_or_default());
    let (operation, id, token, status) = (next(), next(), next(), next());
    let id = id.parse().unwrap_or_else(|_| "pump-17".parse().expect("an id"));
    let request = RegistrationRequest::new(id);
    if let Some(operation) = OperationId::new(operation) {
        query(&request, &operation, &token);
    }
    let lines: Vec<&[u8]> = parts.collect();
    answer(&status, &lines);
}

/// Whatever the service calls an operation, the URL names just that one, on the same host and below the same device.
fn query(request: &RegistrationRequest, operation: &OperationId, token: &str) {
    let get = match codec::query(&CONFIG, request, operation, Some(token)) {
        Ok(get) => get,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Protocol);
            return;
        }
    };
    // The URL type of the HTTP client must not see more or less in it.
    let url = url::Url::parse(&get.uri().to_string()).expect("a URL");
    assert_eq!(url.host_str(), Some("global.azure-devices-provisioning.net"));
    assert_eq!(url.query(), Some("api-version=2021-06-01"));
    assert_eq!((url.fragment(), url.username()), (None, ""));
    let segments: Vec<_> = url.path_segments().expect("a path").collect();
    let [scope, registrations, id, operations, named] = segments[..] else {
        panic!("{operation} leads to {url}");
    };
    assert_eq!((scope, registrations, operations), ("0ne00AABBCC", "registrations", "operations"));
    let decoded = |text| percent_decode_str(text).decode_utf8().expect("UTF-8");
    assert_eq!(decoded(id), request.registration_id().as_str());
    assert_eq!(decoded(named), operation.as_str());
    let authorization = get.headers().get("authorization").expect("the token");
    assert!(authorization.is_sensitive() && authorization.as_bytes() == token.as_bytes());
}

/// All headers come up, and retry-after is what its one parser makes of it.
fn answer(status: &str, lines: &[&[u8]]) {
    let status = status.parse().ok().and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.unwrap_or(StatusCode::OK);
    let mut headers = HeaderMap::new();
    for line in lines {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let response = codec::response(status, Version::HTTP_11, &headers, b"body".to_vec(), now);
    assert_eq!(response.status, status.as_u16());
    let asked = headers.get_all("retry-after").iter().filter_map(|value| value.to_str().ok());
    assert_eq!(response.retry_after, retry_after::parse(asked, now));
    assert_eq!(response.protocol_result.iter().count(), headers.len() + 2);
    for name in headers.keys().filter(|name| !matches!(name.as_str(), "status" | "version")) {
        assert!(response.protocol_result.get(name.as_str()).is_some(), "{name} is lost");
    }
}
