//! The HTTPS transport: hyper over TLS, the service's paths and headers.
//! See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration>.
//!
//! WebSocket upgrades begin here too. The upgraded stream is still the one that counts, drips and can be cut, and
//! [`serve`] waits for its end.

use std::{collections::BTreeMap, convert::Infallible, time::SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Connection, STOPS,
    websocket::{Subprotocol, Upgrade},
};
use crate::{
    amqp,
    behavior::Delivery,
    events::{EventKind, Operation, Transport},
    mqtt,
    service::{Credential, Registration, Reply, ServiceError, check_api_version, http_date},
};

mod body;

use body::AnswerBody;

/// The largest body that is read, in bytes; above [`Registration::MAX_BYTES`], so that the service can say no.
const MAX_BODY: usize = 128 * 1024;

/// Serves one connection until it is over; says why it is.
pub(crate) async fn serve<S>(connection: Connection<S>) -> String
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Connection { peer: end, stream, mut stopping } = connection;
    let upgrade = Upgrade::default();
    let peer = Peer { end: end.clone(), upgrade: upgrade.clone() };
    let service = hyper::service::service_fn(move |request| {
        let peer = peer.clone();
        async move { Ok::<_, Infallible>(peer.answer(request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(end.shared.limits.idle_timeout)
        .max_buf_size(end.shared.limits.max_head_bytes.max(8192))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let mut stops = false;
    loop {
        tokio::select! {
            result = &mut served => match result {
                Ok(()) if stops => return STOPS.into(),
                Ok(()) => break,
                Err(error) => return describe(&error),
            },
            () = end.control.is_cut() => return "scripted".into(),
            _ = stopping.wait_for(|stop| *stop), if !stops => {
                stops = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
    let (subprotocol, stream) = match upgrade.stream().await {
        None => return "the peer closed".into(),
        Some(Ok(upgraded)) => upgraded,
        Some(Err(error)) => return format!("the upgrade failed: {error}"),
    };
    let over = |transport| Connection { peer: super::Peer { transport, ..end }, stream, stopping };
    match subprotocol {
        Subprotocol::Mqtt => super::serve::<mqtt::Conversation, _>(over(Transport::MqttWs)).await,
        Subprotocol::Amqp => super::serve::<amqp::Conversation, _>(over(Transport::AmqpWs)).await,
    }
}

fn describe(error: &hyper::Error) -> String {
    if error.is_timeout() { "idle for too long".into() } else { format!("HTTP failed: {error}") }
}

/// The other end of a connection, and what it may become.
#[derive(Clone)]
struct Peer {
    end: super::Peer,
    upgrade: Upgrade,
}

/// What a request asks for, as its head says it.
struct Asked {
    operation: Operation,
    id_scope: String,
    registration_id: String,
    operation_id: Option<String>,
    api_version: Option<String>,
    force: bool,
}

impl Peer {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<AnswerBody> {
        let asked = match self.upgrade.answer(&mut request) {
            Some(Ok((status, headers))) => {
                let nothing =
                    AnswerBody::new(Bytes::new(), Delivery::Whole, self.end.control.clone());
                let mut response = Response::new(nothing);
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                return response;
            }
            Some(Err(error)) => Err(error),
            None => Asked::read(&request),
        };
        let (head, body) = request.into_parts();
        let (asked, wrong) = match asked {
            Ok(asked) => (asked, None),
            Err(error) => (Asked::unknown(), Some(error)),
        };
        let body = self.read_body(body).await;
        let bytes = body.as_deref().unwrap_or_default();
        self.end.shared.recorder.record(
            self.end.id,
            EventKind::Request {
                transport: Transport::Http,
                operation: asked.operation,
                registration_id: asked.registration_id.clone(),
                operation_id: asked.operation_id.clone(),
                api_version: asked.api_version.clone(),
                force: asked.force,
                headers: telling_headers(&head.headers),
                body_bytes: bytes.len(),
                payload: Registration::peek_payload(bytes),
            },
        );
        let now = self.end.shared.now();
        let reply = match (wrong, body) {
            (Some(error), _) | (None, Err(error)) => self.end.shared.service().refuse(now, &error),
            (None, Ok(body)) => self.ask(now, &head.headers, &asked, &body),
        };
        self.end.record(asked.operation, &asked.registration_id, &reply);
        self.deliver(reply, &asked, &head).await
    }

    async fn read_body(&self, body: Incoming) -> Result<Bytes, ServiceError> {
        if body.size_hint().lower() > u64::try_from(MAX_BODY).unwrap_or(u64::MAX) {
            return Err(ServiceError::too_large());
        }
        let read = Limited::new(body, MAX_BODY).collect();
        match tokio::time::timeout(self.end.shared.limits.body_timeout, read).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ServiceError::too_large()),
            Ok(Err(error)) => {
                Err(ServiceError::bad_request(&format!("The body could not be read: {error}")))
            }
            Err(_) => Err(ServiceError::timed_out()),
        }
    }

    fn ask(&self, now: SystemTime, headers: &HeaderMap, asked: &Asked, body: &[u8]) -> Reply {
        let mut service = self.end.shared.service();
        let version = asked.api_version.as_deref();
        if let Err(error) = check_api_version(version) {
            return service.refuse(now, &error);
        }
        let authorization =
            headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let credential = match authorization {
            Some(token) => Credential::Sas(token),
            None if self.end.certificates.is_empty() => Credential::None,
            None => Credential::Certificates(&self.end.certificates),
        };
        let checked =
            service.authenticate(now, &asked.id_scope, &asked.registration_id, credential);
        self.end.shared.checked(self.end.id, &asked.registration_id, credential, &checked);
        let who = match checked {
            Ok(who) => who,
            Err(error) => return service.refuse(now, &error),
        };
        match &asked.operation_id {
            Some(operation_id) => service.query(now, &who, operation_id),
            None => {
                let id = &asked.registration_id;
                let version = version.unwrap_or_default();
                let registration = Registration::read(body, id, version, asked.force);
                service.register(now, &who, registration)
            }
        }
    }

    async fn deliver(
        &self,
        reply: Reply,
        asked: &Asked,
        head: &http::request::Parts,
    ) -> Response<AnswerBody> {
        let drip = match reply.delivery {
            Delivery::Drip { bytes, every } => Some((bytes, every)),
            _ => None,
        };
        self.end.control.drip(drip);
        match reply.delivery {
            Delivery::Never => std::future::pending().await,
            Delivery::CloseBefore => {
                self.end.control.cut();
                std::future::pending().await
            }
            _ => {}
        }
        let mut response = Response::new(AnswerBody::new(
            reply.body.clone().into(),
            reply.delivery,
            self.end.control.clone(),
        ));
        *response.status_mut() =
            StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        *response.headers_mut() = answer_headers(&reply, asked, head);
        // Otherwise the server underneath tells the machine's time, not the service's.
        if let Ok(date) = HeaderValue::from_str(&http_date(self.end.shared.now(), 0)) {
            response.headers_mut().insert(header::DATE, date);
        }
        response
    }
}

fn answer_headers(reply: &Reply, asked: &Asked, head: &http::request::Parts) -> HeaderMap {
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
        let Asked { id_scope, registration_id, .. } = asked;
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

impl Asked {
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
        let segments: Vec<_> = head.uri().path().trim_start_matches('/').split('/').collect();
        let (id_scope, registration_id, operation, operation_id) = match *segments.as_slice() {
            [scope, "registrations", id, "register"] => (scope, id, Operation::Register, None),
            [scope, "registrations", id, "operations", operation] => {
                (scope, id, Operation::Query, Some(decode(operation)))
            }
            _ => return Err(ServiceError::no_such_path(head.uri().path())),
        };
        match (operation, head.method()) {
            (Operation::Register, &Method::PUT) | (Operation::Query, &Method::GET) => {}
            _ => return Err(ServiceError::method_not_allowed()),
        }
        let query = Query(head.uri().query().unwrap_or_default());
        Ok(Self {
            operation,
            id_scope: decode(id_scope),
            registration_id: decode(registration_id),
            operation_id,
            api_version: query.get("api-version"),
            force: query.get("forceRegistration").is_some_and(|v| v.eq_ignore_ascii_case("true")),
        })
    }
}

struct Query<'a>(&'a str);

impl Query<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| decode(value))
    }
}

fn decode(text: &str) -> String {
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
