//! Devices at their hubs over MQTT. See <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub>.

use std::collections::BTreeMap;

use mqtt_proto::{
    QoS, QosPid,
    v3::{Connect, Publish},
};
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::device::{Fields, TOPIC_ENCODED};
use crate::{
    core::{Caller, Session, events::HubOperation},
    hub::{Arrival, HubSession},
};

/// The largest message that a hub takes, in bytes.
/// See <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling#other-limits>.
pub(super) const MAX_MESSAGE: usize = 256 * 1024;
/// The largest packet that is read, in bytes: the largest message and its topic.
pub(super) const MAX_PACKET: usize = MAX_MESSAGE + 64 * 1024;

/// What devices may subscribe to. Nothing ever comes by those that have no answers.
const FILTERS: [&str; 4] = [
    TWIN_ANSWERS,
    CERTIFICATE_ANSWERS,
    "$iothub/twin/PATCH/properties/desired/#",
    "$iothub/methods/POST/#",
];
const TWIN_ANSWERS: &str = "$iothub/twin/res/#";
const CERTIFICATE_ANSWERS: &str = "$iothub/credentials/res/#";

/// A user name, taken apart: `{hub}/{device id}/?api-version=V&DeviceClientType=C`.
pub(super) struct UserName<'a> {
    hub: &'a str,
    device_id: &'a str,
    fields: Fields<'a>,
}

impl<'a> UserName<'a> {
    pub(super) fn parse(user_name: &'a str) -> Option<Self> {
        let (hub, rest) = user_name.split_once('/')?;
        let (device_id, fields) = rest.split_once('/')?;
        // A module has its name here.
        let fields = fields.strip_prefix('?').unwrap_or(fields);
        let is_one = !hub.is_empty() && !device_id.is_empty() && !fields.contains('/');
        is_one.then_some(Self { hub, device_id, fields: Fields(fields) })
    }
}

/// CONNACK's code, and the reason for the event.
pub(super) struct Refused(pub(super) u8, pub(super) String);

/// A device that is connected, and at most how often each answer is to be delivered, by filter.
pub(super) struct Hub {
    session: HubSession,
    subscribed: BTreeMap<String, QoS>,
}

/// An answer on its way out.
pub(super) struct Publication {
    pub(super) topic: String,
    pub(super) body: Vec<u8>,
    pub(super) qos: QoS,
}

impl Hub {
    pub(super) fn connect(
        caller: &Caller,
        name: &UserName<'_>,
        connect: &Connect,
    ) -> Result<Self, Refused> {
        let device_id = percent_decode_str(name.device_id).decode_utf8_lossy();
        if *connect.client_id != *device_id {
            return Err(Refused(2, "the client id is not the device id".to_owned()));
        }
        let Some(api_version) = name.fields.get("api-version") else {
            return Err(Refused(4, "the user name has no api-version".to_owned()));
        };
        let token = connect.password.as_deref().filter(|token| !token.is_empty());
        let session = HubSession::begin(
            caller,
            Arrival {
                hub: name.hub,
                device_id: &device_id,
                token: token.map(|token| str::from_utf8(token).unwrap_or_default()),
                api_version,
                client_type: name.fields.get("DeviceClientType"),
            },
        );
        match session {
            Ok(session) => Ok(Self { session, subscribed: BTreeMap::new() }),
            Err(refused) => Err(Refused(
                if refused.is_busy { 3 } else { 5 },
                format!("the hub refused the device: {}", refused.reason),
            )),
        }
    }

    pub(super) fn session(&self) -> &Session {
        &self.session.session
    }

    /// What is granted of a subscription; `None` when nobody may have it.
    pub(super) fn subscribe(&mut self, filter: &str, wanted: QoS) -> Option<QoS> {
        let device_bound =
            format!("devices/{}/messages/devicebound/#", self.session.device.device_id);
        if filter != device_bound && !FILTERS.contains(&filter) {
            return None;
        }
        let granted = if wanted == QoS::Level0 { QoS::Level0 } else { QoS::Level1 };
        self.subscribed.insert(filter.to_owned(), granted);
        Some(granted)
    }

    pub(super) fn unsubscribe(&mut self, filter: &str) {
        self.subscribed.remove(filter);
    }

    /// The answers to a publication; `None` when nobody may publish to this topic.
    pub(super) fn take(&mut self, publish: &Publish) -> Option<Vec<Publication>> {
        let topic: &str = &publish.topic_name;
        let events = format!("devices/{}/messages/events", self.session.device.device_id);
        if let Some(rest) = topic.strip_prefix(&events)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            let qos = u8::from(publish.qos_pid != QosPid::Level0);
            self.session.take_telemetry(properties(rest), qos, &publish.payload);
            return Some(Vec::new());
        }
        let rest = topic.strip_prefix("$iothub/")?;
        let (path, fields) = rest.split_once('?').unwrap_or((rest, ""));
        let (operation, filter) = match path.trim_end_matches('/') {
            "twin/GET" => (HubOperation::Twin, TWIN_ANSWERS),
            "twin/PATCH/properties/reported" => (HubOperation::ReportedProperties, TWIN_ANSWERS),
            "credentials/POST/issueCertificate" => {
                (HubOperation::IssueCertificate, CERTIFICATE_ANSWERS)
            }
            // The answer to a method that nobody has called.
            path if path.starts_with("methods/res/") => return Some(Vec::new()),
            _ => return None,
        };
        let answers = self.session.ask(operation, &publish.payload);
        // Without an id or a subscription there is no way for an answer.
        let id = Fields(fields).get("$rid");
        let (Some(id), Some(qos)) = (id, self.subscribed.get(filter)) else {
            return Some(Vec::new());
        };
        let id = utf8_percent_encode(&id, TOPIC_ENCODED);
        let place = filter.trim_end_matches('#');
        let publications = answers.into_iter().map(|answer| {
            let version = answer.version.map(|version| format!("&$version={version}"));
            let version = version.unwrap_or_default();
            let topic = format!("{place}{}/?$rid={id}{version}", answer.reply.status);
            Publication { topic, body: answer.reply.body, qos: *qos }
        });
        Some(publications.collect())
    }
}

/// The properties of a message, as its topic has them.
fn properties(rest: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let rest = rest.trim_matches('/');
    let pairs = rest.trim_start_matches('?').split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_of_devices_are_read_and_those_of_modules_are_not() {
        for user_name in [
            "hub.localhost/d-1/?api-version=2021-04-12&DeviceClientType=x%2F1",
            "hub.localhost/d-1/api-version=2021-04-12&DeviceClientType=x/1",
        ] {
            let Some(name) = UserName::parse(user_name).filter(|name| name.hub == "hub.localhost")
            else {
                // A slash belongs into the fields in its encoded form only.
                assert!(user_name.ends_with("x/1"), "{user_name}");
                continue;
            };
            assert_eq!(name.device_id, "d-1");
            assert_eq!(name.fields.get("DeviceClientType").as_deref(), Some("x/1"));
        }
        for other in ["", "d-1", "hub/d-1", "/d-1/?a=b", "hub//?a=b", "hub/d-1/module/?a=b"] {
            assert!(UserName::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn properties_of_messages_are_decoded() {
        let read = properties("/%24.ct=application%2Fjson&level=7&flag&=x/");
        let expected = [("$.ct", "application/json"), ("", "x"), ("flag", ""), ("level", "7")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read, BTreeMap::from(expected));
        assert!(properties("").is_empty() && properties("/").is_empty());
    }
}
