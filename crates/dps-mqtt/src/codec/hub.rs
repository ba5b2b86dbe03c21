//! What goes to a hub and comes from it.
//! See <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub>.

use bytes::BytesMut;
use dps_state_machine::{ConfigurationError, Error};
use percent_encoding::utf8_percent_encode;

use super::{ENCODED, connect_as};

/// Of the interface of the hub.
const API_VERSION: &str = "2021-04-12";

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
) -> Result<(), Error> {
    let user_agent = utf8_percent_encode(user_agent, ENCODED);
    let user_name =
        format!("{hub}/{device_id}/?api-version={API_VERSION}&DeviceClientType={user_agent}");
    connect_as(out, device_id, user_name, keep_alive, password).map_err(|error| {
        let reason = format!("CONNECT can't carry it: {error}");
        ConfigurationError::new("hub", hub, &reason).into()
    })
}
