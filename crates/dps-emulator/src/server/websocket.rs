//! The upgrade to WebSocket, by which devices reach the other transports through the HTTPS port.
//! See <https://www.rfc-editor.org/rfc/rfc6455#section-4.2>.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use dps_connect::internal::websocket::{PATH, WsBytes, accept_key};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;

use crate::service::ServiceError;

/// A transport that can be spoken over WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subprotocol {
    Mqtt,
    Amqp,
}

impl Subprotocol {
    /// The transports by their names; devices spell them in any case.
    const ALL: [(&str, Self); 2] = [("mqtt", Self::Mqtt), ("AMQPWSB10", Self::Amqp)];

    /// The first name of the list that is a transport's, as the device spelled it.
    fn choose(offered: &HeaderMap) -> Option<(&str, Self)> {
        offered
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(',').map(str::trim))
            .find_map(|offer| {
                let (_, transport) =
                    Self::ALL.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(offer))?;
                Some((offer, transport))
            })
    }
}

/// What a connection is upgraded to, from the answer until it is served.
#[derive(Clone, Default)]
pub(super) struct Upgrade(Arc<Mutex<Option<(Subprotocol, OnUpgrade)>>>);

impl Upgrade {
    /// Answers the wish for an upgrade; `None` when the request has none.
    pub(super) fn answer(
        &self,
        request: &mut Request<Incoming>,
    ) -> Option<Result<(StatusCode, HeaderMap), ServiceError>> {
        let wish = request.headers().get(header::UPGRADE)?.to_str().unwrap_or_default();
        if !wish.eq_ignore_ascii_case("websocket") {
            return None;
        }
        let (subprotocol, headers) = match accept(request) {
            Ok(accepted) => accepted,
            Err(error) => return Some(Err(error)),
        };
        let on_upgrade = hyper::upgrade::on(request);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((subprotocol, on_upgrade));
        Some(Ok((StatusCode::SWITCHING_PROTOCOLS, headers)))
    }

    /// The stream that the connection has become, if it was upgraded.
    pub(super) async fn stream(
        &self,
    ) -> Option<io::Result<(Subprotocol, WsBytes<TokioIo<Upgraded>>)>> {
        let (subprotocol, on_upgrade) =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(match on_upgrade.await {
            Ok(upgraded) => Ok((subprotocol, WsBytes::server(TokioIo::new(upgraded)).await)),
            Err(error) => Err(io::Error::other(error)),
        })
    }
}

fn accept(request: &Request<Incoming>) -> Result<(Subprotocol, HeaderMap), ServiceError> {
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
    let (spelled, subprotocol) = Subprotocol::choose(headers)
        .ok_or_else(|| wrong("None of the WebSocket subprotocols is served"))?;
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
    Ok((subprotocol, fields.collect()))
}
