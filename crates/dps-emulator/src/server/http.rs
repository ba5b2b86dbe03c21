//! The HTTPS transport: hyper over TLS, the service's paths and headers.
//! See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration>.
//!
//! WebSocket upgrades begin here too. The upgraded stream is still the one that counts, drips and can be cut;
//! [`serve`] hands it back.

use std::{collections::BTreeMap, convert::Infallible};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request,
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    body::{Body as _, Bytes, Incoming},
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    peer::{Connection, Peer, STOPS},
    service_api,
    websocket::{Upgrade, WebSocket},
};
use crate::{
    behavior::Delivery,
    core::{ApiVersion, DeviceRequest, Proof, Reply, ServiceError, events::Operation, http_date},
};

mod body;

use body::AnswerBody;

/// The largest body that is read, in bytes; above what the service takes, so that it can refuse it.
const MAX_BODY: usize = 128 * 1024;

/// What a connection has come to.
pub(super) enum Served {
    /// It is over, for this reason.
    Over(String),
    /// It goes on in another protocol.
    Upgraded(Box<Connection<WebSocket<TokioIo<Upgraded>>>>),
}

/// Serves one connection until it is over or upgraded.
pub(super) async fn serve<S>(connection: Connection<S>) -> Served
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Connection { mut peer, stream, mut stopping } = connection;
    let upgrade = Upgrade::default();
    let server = Server { peer: peer.clone(), upgrade: upgrade.clone() };
    let service = hyper::service::service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(peer.limits.idle_timeout)
        .max_buf_size(peer.limits.max_head_bytes.max(8192))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let mut stops = false;
    loop {
        tokio::select! {
            result = &mut served => match result {
                Ok(()) if stops => return Served::Over(STOPS.into()),
                Ok(()) => break,
                Err(error) if error.is_timeout() => {
                    return Served::Over("idle for too long".into());
                }
                Err(error) => return Served::Over(format!("HTTP failed: {error}")),
            },
            () = peer.control.is_cut() => return Served::Over("scripted".into()),
            _ = stopping.wait_for(|stop| *stop), if !stops => {
                stops = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
    match upgrade.stream().await {
        None => Served::Over("the peer closed".into()),
        Some(Ok((transport, stream))) => {
            peer.caller.transport = transport;
            Served::Upgraded(Box::new(Connection { peer, stream, stopping }))
        }
        Some(Err(error)) => Served::Over(format!("the upgrade failed: {error}")),
    }
}

/// What answers the requests of one connection.
#[derive(Clone)]
struct Server {
    peer: Peer,
    upgrade: Upgrade,
}

/// What a request is about, as its head says.
struct Target {
    operation: Operation,
    id_scope: String,
    registration_id: String,
    operation_id: Option<String>,
    api_version: Option<String>,
    force: bool,
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        match service_api::is_path(request.uri().path()) {
            true => self.answer_service(request).await,
            false => self.answer_device(request).await,
        }
    }

    /// Answers a call of the service API.
    async fn answer_service(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let (head, body) = request.into_parts();
        let body = self.read_body(body).await;
        let answer = service_api::answer(&self.peer.caller, &head, &body);
        let mut response = self.deliver(&answer.reply, &Target::unknown(), &head).await;
        service_api::add_headers(&answer, response.headers_mut());
        response
    }

    async fn answer_device(&self, mut request: Request<Incoming>) -> Response<AnswerBody> {
        let target = match self.upgrade.answer(&mut request) {
            None => Target::read(&request),
            Some(Err(error)) => Err(error),
            Some(Ok(headers)) => {
                let mut response =
                    self.response(StatusCode::SWITCHING_PROTOCOLS, &[], Delivery::Whole);
                *response.headers_mut() = headers;
                return response;
            }
        };
        let (head, body) = request.into_parts();
        let body = self.read_body(body).await;
        let (target, wrong) = match target {
            Ok(target) => (target, None),
            Err(error) => (Target::unknown(), Some(error)),
        };
        let token = head.headers.get(header::AUTHORIZATION);
        let reply = self.peer.caller.ask(DeviceRequest {
            operation: target.operation,
            registration_id: target.registration_id.clone(),
            operation_id: target.operation_id.clone(),
            api_version: target.api_version.clone(),
            force: target.force,
            headers: telling_headers(&head.headers),
            body: body.as_deref().unwrap_or_default(),
            proof: Proof::Shown {
                id_scope: target.id_scope.clone(),
                token: token.map(|value| value.to_str().unwrap_or_default()),
            },
            malformed: wrong.or(body.as_ref().err().cloned()),
        });
        self.deliver(&reply, &target, &head).await
    }

    async fn read_body(&self, body: Incoming) -> Result<Bytes, ServiceError> {
        if body.size_hint().lower() > u64::try_from(MAX_BODY).unwrap_or(u64::MAX) {
            return Err(ServiceError::TOO_LARGE);
        }
        let read = Limited::new(body, MAX_BODY).collect();
        match tokio::time::timeout(self.peer.limits.body_timeout, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ServiceError::TOO_LARGE),
            Ok(Err(error)) => {
                Err(ServiceError::bad_request(&format!("The body could not be read: {error}")))
            }
            Err(_) => Err(ServiceError::TIMED_OUT),
        }
    }

    async fn deliver(
        &self,
        reply: &Reply,
        target: &Target,
        head: &request::Parts,
    ) -> Response<AnswerBody> {
        self.peer.control.drip(reply.delivery.pace());
        match reply.delivery {
            Delivery::Never => std::future::pending().await,
            Delivery::CloseBefore => {
                self.peer.control.cut();
                std::future::pending().await
            }
            _ => {}
        }
        let status =
            StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = self.response(status, &reply.body, reply.delivery);
        *response.headers_mut() = answer_headers(reply, target, head);
        // Otherwise the server underneath tells the machine's time, not the service's.
        if let Ok(date) = HeaderValue::from_str(&http_date(self.peer.caller.now(), 0)) {
            response.headers_mut().insert(header::DATE, date);
        }
        response
    }

    fn response(
        &self,
        status: StatusCode,
        body: &[u8],
        delivery: Delivery,
    ) -> Response<AnswerBody> {
        let body = Bytes::copy_from_slice(body);
        let mut response =
            Response::new(AnswerBody::new(body, delivery, self.peer.control.clone()));
        *response.status_mut() = status;
        response
    }
}

fn answer_headers(reply: &Reply, target: &Target, head: &request::Parts) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: HeaderName, value: &str| {
        // Scripted values may be no header values at all; those can't go out.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    };
    add(header::CONTENT_TYPE, &reply.content_type);
    add(HeaderName::from_static("x-ms-request-id"), &reply.tracking_id);
    for value in &reply.retry_after {
        add(header::RETRY_AFTER, value);
    }
    if let Some(code) = reply.error_code {
        add(HeaderName::from_static("x-ms-error-code"), &code.to_string());
    }
    if let Some(operation_id) = &reply.pending {
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let Target { id_scope, registration_id, .. } = target;
        add(
            header::LOCATION,
            &format!(
                "https://{}/{id_scope}/registrations/{registration_id}/operations/{operation_id}",
                host.unwrap_or("localhost")
            ),
        );
    }
    headers
}

impl Target {
    fn unknown() -> Self {
        Self {
            operation: Operation::Unknown,
            id_scope: String::new(),
            registration_id: String::new(),
            operation_id: None,
            api_version: None,
            force: false,
        }
    }

    fn read(head: &Request<Incoming>) -> Result<Self, ServiceError> {
        let no_such_path = || ServiceError::no_such_path(head.uri().path());
        let query = Query(head.uri().query().unwrap_or_default());
        let api_version = query.get("api-version");
        let segments: Vec<_> = head.uri().path().trim_start_matches('/').split('/').collect();
        let [id_scope, "registrations", registration_id, rest @ ..] = segments.as_slice() else {
            return Err(no_such_path());
        };
        let (method, operation, operation_id) = match rest {
            [] => (Method::POST, Operation::Lookup, None),
            ["register"] => (Method::PUT, Operation::Register, None),
            ["operations", operation] => (Method::GET, Operation::Query, Some(decode(operation))),
            others => {
                let version =
                    ApiVersion::find(api_version.as_deref()).map_err(|_| no_such_path())?;
                let update = version.update(&others.join("/")).ok_or_else(no_such_path)?;
                (Method::POST, update, None)
            }
        };
        if head.method() != method {
            return Err(ServiceError::METHOD_NOT_ALLOWED);
        }
        Ok(Self {
            operation,
            id_scope: decode(id_scope),
            registration_id: decode(registration_id),
            operation_id,
            api_version,
            force: query.get("forceRegistration").is_some_and(|v| v.eq_ignore_ascii_case("true")),
        })
    }
}

/// Names and values in the query of a URL.
pub(super) struct Query<'a>(pub(super) &'a str);

impl Query<'_> {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| decode(value))
    }
}

pub(super) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The headers that tell one client from another; never the credential.
fn telling_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    ["accept", "content-type", "content-length", "host", "user-agent", "useragent", "expect"]
        .into_iter()
        .filter_map(|name| {
            let value = headers.get(name)?;
            Some((name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        })
        .collect()
}
