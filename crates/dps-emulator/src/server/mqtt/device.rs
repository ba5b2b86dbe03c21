//! Devices and their requests, as user names and topics name them.

use std::collections::BTreeMap;

use mqtt_proto::{
    QosPid,
    v3::{Connect, Publish},
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::{
    behavior::MqttFault,
    core::{Authenticated, Caller, DeviceRequest, Proof, Reply, ServiceError, events::Operation},
};

/// What would end a value in a topic, or make the topic a filter.
pub(super) const TOPIC_ENCODED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'#').add(b'%').add(b'&').add(b'+');

/// A user name, taken apart: `{ID scope}/registrations/{registration id}/api-version=V&ClientVersion=C`.
pub(super) struct UserName<'a> {
    id_scope: &'a str,
    pub(super) registration_id: &'a str,
    fields: Fields<'a>,
}

impl<'a> UserName<'a> {
    pub(super) fn parse(user_name: &'a str) -> Option<Self> {
        let (id_scope, rest) = user_name.split_once("/registrations/")?;
        let (registration_id, fields) = rest.split_once('/').unwrap_or((rest, ""));
        let fields = Fields(fields.trim_start_matches('?'));
        (!id_scope.contains('/')).then_some(Self { id_scope, registration_id, fields })
    }
}

/// Names and values as in the query of a URL.
pub(super) struct Fields<'a>(pub(super) &'a str);

impl Fields<'_> {
    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy().into_owned())
    }
}

/// The device at the other end.
pub(super) struct Device {
    registration_id: String,
    /// Whether it is the one that it says, and why it is not.
    pub(super) checked: Result<Authenticated, ServiceError>,
    api_version: Option<String>,
    /// What tells one client from another.
    headers: BTreeMap<String, String>,
}

impl Device {
    /// Checks the credential of a device that connects.
    pub(super) fn new(caller: &Caller, user_name: &UserName<'_>, connect: &Connect) -> Self {
        let UserName { id_scope, registration_id, fields } = user_name;
        let token = connect.password.as_deref();
        let token = token.map(|token| str::from_utf8(token).unwrap_or_default());
        let headers = [
            ("client-version", fields.get("ClientVersion")),
            ("clean-session", Some(connect.clean_session.to_string())),
            ("keep-alive", Some(connect.keep_alive.to_string())),
        ];
        Self {
            registration_id: (*registration_id).to_owned(),
            checked: caller.authenticate(id_scope, registration_id, token),
            api_version: fields.get("api-version"),
            headers: headers
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .collect(),
        }
    }

    /// What a publication asks for, and the id that the answer repeats, which is empty without one, as at the service;
    /// `None` when its topic is none of the service's.
    pub(super) fn request<'a>(
        &'a self,
        publish: &'a Publish,
    ) -> Option<(DeviceRequest<'a>, String)> {
        let (operation, fields) = operation(&publish.topic_name)?;
        let qos = if publish.qos_pid == QosPid::Level0 { "0" } else { "1" };
        let mut headers = self.headers.clone();
        headers.insert("topic".to_owned(), publish.topic_name.to_string());
        headers.insert("qos".to_owned(), qos.to_owned());
        let request_id = fields.get("$rid").unwrap_or_default();
        let unknown = || ServiceError::no_such_path(&publish.topic_name);
        let request = DeviceRequest {
            operation,
            registration_id: self.registration_id.clone(),
            operation_id: fields.get("operationId").filter(|_| operation == Operation::Query),
            api_version: self.api_version.clone(),
            force: false,
            headers,
            body: &publish.payload,
            proof: Proof::Checked(self.checked.as_ref()),
            malformed: (operation == Operation::Unknown).then(unknown),
        };
        Some((request, request_id))
    }
}

const OPERATIONS: [(&str, Operation); 5] = [
    ("PUT/iotdps-register", Operation::Register),
    ("GET/iotdps-get-operationstatus", Operation::Query),
    ("POST/iotdps-get-onboarding-deviceupdate", Operation::OnboardingUpdate),
    ("POST/iotdps-get-deviceupdate", Operation::SoftwareUpdate),
    ("POST/iotdps-report-deviceupdatestatus", Operation::UpdateStatus),
];

/// What a topic asks for, and the fields beside it; `None` when it is none of the service's.
fn operation(topic: &str) -> Option<(Operation, Fields<'_>)> {
    let rest = topic.strip_prefix("$dps/")?;
    let (path, fields) = rest.split_once('?').unwrap_or((rest, ""));
    let path = path.strip_prefix("registrations/").unwrap_or_default().trim_end_matches('/');
    let known = OPERATIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(path));
    let operation = known.map_or(Operation::Unknown, |(_, operation)| *operation);
    Some((operation, Fields(fields)))
}

impl Reply {
    /// The topic of the answer.
    pub(super) fn topic(&self, request_id: &str, fault: Option<MqttFault>) -> String {
        let place = if fault == Some(MqttFault::WrongTopic) { "elsewhere" } else { "res" };
        let status = match fault {
            Some(MqttFault::NoStatus) => "none".to_owned(),
            _ => self.status.to_string(),
        };
        let another = if self.wrong_id { "another-" } else { "" };
        let request_id = utf8_percent_encode(request_id, TOPIC_ENCODED);
        let mut topic = format!("$dps/registrations/{place}/{status}/?$rid={another}{request_id}");
        for value in &self.retry_after {
            topic.push_str("&retry-after=");
            topic.extend(utf8_percent_encode(value, TOPIC_ENCODED));
        }
        topic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_of_all_clients_are_read() {
        for user_name in [
            "0ne1/registrations/d-1/api-version=2019-03-31&ClientVersion=x%2F1",
            "0ne1/registrations/d-1/ClientVersion=x%2F1&api-version=2019-03-31",
            "0ne1/registrations/d-1/?API-Version=2019-03-31&clientVersion=x/1",
        ] {
            let parsed = UserName::parse(user_name).unwrap();
            assert_eq!((parsed.id_scope, parsed.registration_id), ("0ne1", "d-1"));
            assert_eq!(parsed.fields.get("api-version").as_deref(), Some("2019-03-31"));
            assert_eq!(parsed.fields.get("ClientVersion").as_deref(), Some("x/1"));
        }
        assert!(UserName::parse("0ne1/registrations/d-1").is_some_and(|u| u.fields.0.is_empty()));
        for other in ["", "d-1", "hub.azure-devices.net/d-1/?api-version=1", "a/b/registrations/c"]
        {
            assert!(UserName::parse(other).is_none(), "{other}");
        }
    }

    #[test]
    fn topics_of_the_service_are_read_and_no_others() {
        let read = |topic| operation(topic).map(|(op, fields)| (op, fields.get("$rid")));
        let rid = Some("7".to_owned());
        for (topic, expected) in [
            (
                "$dps/registrations/PUT/iotdps-register/?$rid=7",
                Some((Operation::Register, rid.clone())),
            ),
            (
                "$dps/registrations/PUT/iotdps-register?$rid=7",
                Some((Operation::Register, rid.clone())),
            ),
            (
                "$dps/registrations/GET/iotdps-get-operationstatus/?operationId=x&$rid=7",
                Some((Operation::Query, rid.clone())),
            ),
            ("$dps/registrations/PUT/iotdps-register/?", Some((Operation::Register, None))),
            ("$dps/registrations/PUT/iotdps-register/", Some((Operation::Register, None))),
            (
                "$dps/registrations/POST/IoTDPS-get-deviceupdate/?$rid=7",
                Some((Operation::SoftwareUpdate, rid.clone())),
            ),
            (
                "$dps/registrations/POST/iotdps-register/?$rid=7",
                Some((Operation::Unknown, rid.clone())),
            ),
            ("$dps/registrations/res/200/?$rid=7", Some((Operation::Unknown, rid))),
            ("$dps/registrations/", Some((Operation::Unknown, None))),
            ("$dps/?$", Some((Operation::Unknown, None))),
            ("$dpsx/registrations/PUT/iotdps-register/?$rid=7", None),
            ("devices/d-1/messages/events/", None),
        ] {
            assert_eq!(read(topic), expected, "{topic}");
        }
    }

    #[test]
    fn the_topic_of_an_answer_has_status_id_and_retry_after() {
        let mut reply = Reply::empty(202);
        assert_eq!(reply.topic("7", None), "$dps/registrations/res/202/?$rid=7");
        reply.retry_after = vec!["3".into(), "a b&c".into()];
        reply.wrong_id = true;
        assert_eq!(
            reply.topic("7", Some(MqttFault::NoStatus)),
            "$dps/registrations/res/none/?$rid=another-7&retry-after=3&retry-after=a%20b%26c"
        );
        let elsewhere = reply.topic("7", Some(MqttFault::WrongTopic));
        assert!(elsewhere.starts_with("$dps/registrations/elsewhere/202/"));
    }
}
