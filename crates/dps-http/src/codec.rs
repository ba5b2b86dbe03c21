//! Requests to bytes and answers to [`Response`]s, without any I/O.

use std::time::SystemTime;

use dps_connect::Config;
use dps_state_machine::{
    ConfigurationError, Error, OperationId, ProtocolError, ProtocolResult, RegistrationRequest,
    Response, Stage, retry_after,
};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Version,
    header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, DATE, RETRY_AFTER, USER_AGENT},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The port of HTTPS.
pub const DEFAULT_PORT: u16 = 443;

/// The largest answer that is read, in bytes (1 MiB).
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// All but what RFC 3986 lets stand anywhere: <https://www.rfc-editor.org/rfc/rfc3986#section-2.3>.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The request that registers the device. `authorization` is the SAS token, if there is one.
///
/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device>.
///
/// # Errors
/// [`Error::Configuration`] when a setting can't be written into a request.
pub fn register(
    config: &Config,
    request: &RegistrationRequest,
    authorization: Option<&str>,
) -> Result<Request<Vec<u8>>, Error> {
    let forced = if request.is_forced() { "&forceRegistration=true" } else { "" };
    let path = format!(
        "{}/register?api-version={}{forced}",
        device_path(config, request),
        encode(config.api_version.for_request(request).as_str())
    );
    build(config, Method::PUT, &path, authorization, request.body())
        .map_err(|error| ConfigurationError::new("request", path, &error.to_string()).into())
}

/// The request that asks for the state of the device's registration.
///
/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/device-registration-status-lookup>.
///
/// # Errors
/// [`Error::Configuration`] when a setting can't be written into a request.
pub fn lookup(
    config: &Config,
    request: &RegistrationRequest,
    authorization: Option<&str>,
) -> Result<Request<Vec<u8>>, Error> {
    let version = encode(config.api_version.for_request(request).as_str());
    let path = format!("{}?api-version={version}", device_path(config, request));
    build(config, Method::POST, &path, authorization, request.body())
        .map_err(|error| ConfigurationError::new("request", path, &error.to_string()).into())
}

/// The request that asks for the operation's status.
///
/// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/operation-status-lookup>.
///
/// # Errors
/// [`Error::Protocol`] when the service's operation id is such that no URL can carry it.
pub fn query(
    config: &Config,
    request: &RegistrationRequest,
    operation_id: &OperationId,
    authorization: Option<&str>,
) -> Result<Request<Vec<u8>>, Error> {
    let wrong = |why: &str| {
        let start: String = operation_id.as_str().chars().take(64).collect();
        let reason = format!("no URL can carry the operation id that starts {start:?}: {why}");
        Error::from(ProtocolError::unreadable(Stage::Query, reason))
    };
    // Every URL library takes these for "here" and "up", percent-encoded or not.
    if matches!(operation_id.as_str(), "." | "..") {
        return Err(wrong("it names another path"));
    }
    let path = format!(
        "{}/operations/{}?api-version={}",
        device_path(config, request),
        encode(operation_id.as_str()),
        encode(config.api_version.for_request(request).as_str())
    );
    build(config, Method::GET, &path, authorization, Vec::new())
        .map_err(|error| wrong(&error.to_string()))
}

/// The answer, as the state machine takes it. `now` is what a retry-after date counts from.
#[must_use]
pub fn response(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    body: Vec<u8>,
    now: SystemTime,
) -> Response {
    let asked = headers.get_all(RETRY_AFTER).iter().filter_map(|value| value.to_str().ok());
    Response::new(status.as_u16(), body)
        .retry_after(retry_after::parse(asked, now))
        .protocol_result(protocol_result(status, version, headers))
}

/// What the service's clock says: <https://www.rfc-editor.org/rfc/rfc9110#section-6.6.1>.
pub(crate) fn date(headers: &ProtocolResult) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(DATE.as_str())?).ok()
}

/// The result metadata: `status`, `version`, then every header.
#[must_use]
pub fn protocol_result(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
) -> ProtocolResult {
    let head = [
        ("status".to_owned(), status.as_str().to_owned()),
        ("version".to_owned(), format!("{version:?}")),
    ];
    let headers = headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    head.into_iter().chain(headers).collect()
}

fn device_path(config: &Config, request: &RegistrationRequest) -> String {
    let registration_id = encode(request.registration_id().as_str());
    format!("/{}/registrations/{registration_id}", encode(config.id_scope.as_str()))
}

fn encode(segment: &str) -> String {
    utf8_percent_encode(segment, ENCODED).to_string()
}

fn build(
    config: &Config,
    method: Method,
    path: &str,
    authorization: Option<&str>,
    body: Vec<u8>,
) -> Result<Request<Vec<u8>>, http::Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://{}{path}", config.endpoint))
        .header(ACCEPT, "application/json")
        // Nothing here decodes a compressed body.
        .header(ACCEPT_ENCODING, "identity")
        .header(CONTENT_TYPE, "application/json; charset=utf-8")
        .header(USER_AGENT, &config.user_agent);
    if let Some(token) = authorization {
        let mut value = HeaderValue::from_str(token)?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    request.body(body)
}
