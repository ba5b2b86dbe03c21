//! The upgrade from HTTP to WebSocket.
//! See <https://www.rfc-editor.org/rfc/rfc6455#section-4.2>.

use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use ring::digest;

use super::WebSocket;
use crate::core::{ServiceError, events::Transport};
use crate::lock::lock;

/// Where the service takes upgrades.
/// See <https://learn.microsoft.com/azure/iot-dps/iot-dps-mqtt-support>.
const PATH: &str = "/$iothub/websocket";

/// The transports by the names of their subprotocols; devices spell them in any case.
const SUBPROTOCOLS: [(&str, Transport); 2] =
    [("mqtt", Transport::MqttWs), ("AMQPWSB10", Transport::AmqpWs)];

/// What a connection is upgraded to, from the answer until it is served.
#[derive(Clone, Default)]
pub(crate) struct Upgrade(Arc<Mutex<Option<(Transport, OnUpgrade)>>>);

impl Upgrade {
    /// The headers of the answer to a request for the upgrade; `None` when the request is another one.
    pub(crate) fn answer(
        &self,
        request: &mut Request<Incoming>,
    ) -> Option<Result<HeaderMap, ServiceError>> {
        let protocol = request.headers().get(header::UPGRADE)?.to_str().unwrap_or_default();
        if !protocol.eq_ignore_ascii_case("websocket") {
            return None;
        }
        Some(accept(request).map(|(transport, headers)| {
            *lock(&self.0) = Some((transport, hyper::upgrade::on(request)));
            headers
        }))
    }

    /// The stream that the connection has become, if it was upgraded.
    pub(crate) async fn stream(
        &self,
    ) -> Option<hyper::Result<(Transport, WebSocket<TokioIo<Upgraded>>)>> {
        let (transport, upgraded) = lock(&self.0).take()?;
        let stream = upgraded.await.map(|stream| WebSocket::new(TokioIo::new(stream)));
        Some(stream.map(|stream| (transport, stream)))
    }
}

fn accept(request: &Request<Incoming>) -> Result<(Transport, HeaderMap), ServiceError> {
    let headers = request.headers();
    // One SDK sends no path at all.
    if !matches!(request.uri().path(), PATH | "/" | "") {
        return Err(ServiceError::no_such_path(request.uri().path()));
    }
    let field = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let wrong = |what: &str| ServiceError::bad_request(what);
    if field(header::SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(wrong("The WebSocket version must be 13"));
    }
    let key =
        field(header::SEC_WEBSOCKET_KEY).ok_or_else(|| wrong("The WebSocket key is missing"))?;
    let (spelled, transport) =
        choose(headers).ok_or_else(|| wrong("None of the WebSocket subprotocols is served"))?;
    let fields = [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, &accept_key(key)),
        (header::SEC_WEBSOCKET_PROTOCOL, spelled),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| {
        // Each came in a header, or is base64.
        Some((name, HeaderValue::from_str(value).ok()?))
    });
    Ok((transport, fields.collect()))
}

/// The first subprotocol of the list that is served, as the device spelled it.
fn choose(offered: &HeaderMap) -> Option<(&str, Transport)> {
    offered
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
        .find_map(|offer| {
            let mut served = SUBPROTOCOLS.into_iter();
            let (_, transport) = served.find(|(name, _)| name.eq_ignore_ascii_case(offer))?;
            Some((offer, transport))
        })
}

/// The answer to the key of an upgrade.
fn accept_key(key: &str) -> String {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(sha1.finish())
}
