//! How hubs and their devices may be called: nobody could connect to others.

use rustls_pki_types::ServerName;

/// Says what the name of a hub must be, unless this is one.
pub(crate) fn check_hub(name: &str) -> Result<(), &'static str> {
    let is_one = ServerName::try_from(name).is_ok();
    is_one.then_some(()).ok_or("it must be a host name, like hub.localhost, or an IP address")
}

/// Says what a device id must be, unless this is one. See
/// <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-identity-registry#device-identity-properties>.
pub(crate) fn check_device_id(id: &str) -> Result<(), &'static str> {
    let is_one = (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.+%_#*?!(),:=@$'".contains(&byte));
    is_one.then_some(()).ok_or("it must be 1 to 128 ASCII letters, digits and -.+%_#*?!(),:=@$'")
}
