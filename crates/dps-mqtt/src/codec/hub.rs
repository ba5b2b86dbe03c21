//! What goes to a hub and comes from it.
//! See <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub>.

use bytes::BytesMut;
use dps_state_machine::{
    CertificateRequest, ConfigurationError, Error, ProtocolError, Response, Stage, serde_json::json,
};
use percent_encoding::utf8_percent_encode;
use rumqttc::{Packet, QoS, Subscribe};

use super::{Delivery, ENCODED, connect_as, publish, write};

/// The filter and the beginning of the answers to requests for certificates.
const ANSWERS: &str = "$iothub/credentials/res/";
/// There is one at a time on a connection.
const REQUEST_ID: &str = "0001";

/// Of the interface of the hub.
const API_VERSION: &str = "2021-04-12";
/// The one that has requests for certificates.
const CERTIFICATES_API_VERSION: &str = "2025-08-01-preview";

/// Appends the packet that begins a session with a hub.
///
/// # Errors
/// [`Error::Configuration`] when a name can't be written into a packet.
pub(crate) fn connect(
    out: &mut BytesMut,
    hub: &str,
    device_id: &str,
    user_agent: &str,
    keep_alive: u16,
    password: Option<&str>,
    for_certificate: bool,
) -> Result<(), Error> {
    let version = if for_certificate { CERTIFICATES_API_VERSION } else { API_VERSION };
    let user_agent = utf8_percent_encode(user_agent, ENCODED);
    let user_name =
        format!("{hub}/{device_id}/?api-version={version}&DeviceClientType={user_agent}");
    connect_as(out, device_id, user_name, keep_alive, password).map_err(|error| {
        let reason = format!("CONNECT can't carry it: {error}");
        ConfigurationError::new("hub", hub, &reason).into()
    })
}

/// Appends the packets that ask for a certificate, and before that for the answers.
///
/// # Errors
/// [`Error::Protocol`] never, as long as the packet ids are not 0.
pub(crate) fn issue(
    out: &mut BytesMut,
    device_id: &str,
    csr: &CertificateRequest,
    [first, second]: [u16; 2],
) -> Result<(), Error> {
    let mut subscribe = Subscribe::new(format!("{ANSWERS}#"), QoS::AtLeastOnce);
    subscribe.pkid = first;
    let topic = format!("$iothub/credentials/POST/issueCertificate/?$rid={REQUEST_ID}");
    // One that was left under way is of no use to anybody.
    let body = json!({ "id": device_id, "csr": csr.to_base64(), "replace": "*" });
    write(out, &Packet::Subscribe(subscribe))
        .and_then(|()| publish(out, topic, body.to_string().into_bytes(), second))
        .map_err(|error| ProtocolError::unreadable(Stage::Register, error.to_string()).into())
}

/// The answer to the request for a certificate; `None` when it is something else.
pub(crate) fn answer(delivery: &Delivery) -> Option<Response> {
    let topic = str::from_utf8(&delivery.topic).ok()?.strip_prefix(ANSWERS)?;
    let (status, fields) = topic.split_once('/')?;
    let fields = fields.trim_start_matches('?');
    let is_ours = fields.split('&').any(|field| field.strip_prefix("$rid=") == Some(REQUEST_ID));
    // The answers of one implementation have the bare id there.
    (is_ours || fields == REQUEST_ID)
        .then(|| Some(Response::new(status.parse().ok()?, delivery.body.to_vec())))?
}
