//! Requests as messages, and messages as answers.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-messaging-v1.0-os.html#section-message-format>.

use std::time::SystemTime;

use dps_state_machine::{OperationId, RegistrationRequest, Response, retry_after};
use fe2o3_amqp_types::messaging::{ApplicationProperties, Data, Properties};

use super::{Fields, Malformed, Value, encode::encoded, uuid_text};

/// The largest body of an answer that is read, in bytes (1 MiB).
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The message that registers the device.
#[must_use]
pub fn register(request: &RegistrationRequest, correlation_id: &str) -> Vec<u8> {
    let properties = ApplicationProperties::builder()
        .insert("iotdps-operation-type", "iotdps-register")
        .insert("iotdps-forceRegistration", request.is_forced())
        .build();
    message(correlation_id, &properties, request.body())
}

/// The message that asks for the operation's status.
#[must_use]
pub fn query(operation_id: &OperationId, correlation_id: &str) -> Vec<u8> {
    let properties = ApplicationProperties::builder()
        .insert("iotdps-operation-type", "iotdps-get-operationstatus")
        .insert("iotdps-operation-id", operation_id.as_str())
        .build();
    message(correlation_id, &properties, Vec::new())
}

fn message(correlation_id: &str, application: &ApplicationProperties, body: Vec<u8>) -> Vec<u8> {
    let properties = Properties {
        correlation_id: Some(correlation_id.to_owned().into()),
        ..Properties::default()
    };
    let mut message = encoded(&properties);
    message.extend(encoded(application));
    message.extend(encoded(&Data::from(body)));
    message
}

/// A message from the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    correlation_id: Option<String>,
    /// Its properties, then its application properties.
    properties: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The properties of a message in their order.
const PROPERTIES: [&str; 13] = [
    "message-id",
    "user-id",
    "to",
    "subject",
    "reply-to",
    "correlation-id",
    "content-type",
    "content-encoding",
    "absolute-expiry-time",
    "creation-time",
    "group-id",
    "group-sequence",
    "reply-to-group-id",
];

impl Answer {
    /// Reads a whole message: its body may be in data sections, or a text or bytes as a value.
    ///
    /// # Errors
    /// [`Malformed`] when it is no message, or its body is larger than [`MAX_ANSWER_BYTES`].
    pub fn read(mut bytes: &[u8]) -> Result<Self, Malformed> {
        let mut answer = Self::default();
        while !bytes.is_empty() {
            let Value::Described(section, content) = Value::read(&mut bytes)? else {
                return Err(Malformed::new("a section of a message does not say what it is"));
            };
            match (section, content.read()) {
                (0x73, properties) => answer.read_properties(&Fields::of(properties)),
                (0x74, properties) => answer.properties.extend(
                    properties
                        .into_named()
                        .map(|(name, value)| (name.into_owned(), value.to_string())),
                ),
                (0x75 | 0x77, Value::Binary(part)) => answer.body.extend(part),
                (0x77, Value::Text(text)) => answer.body.extend(text),
                (0x76 | 0x77, Value::Null) => {}
                (0x75..=0x77, _) => {
                    return Err(Malformed::new("its body is neither data nor text"));
                }
                // Headers, annotations and footers are the transport's own.
                _ => {}
            }
        }
        match answer.body.len() {
            0..=MAX_ANSWER_BYTES => Ok(answer),
            _ => Err(too_large()),
        }
    }

    fn read_properties(&mut self, fields: &Fields<'_>) {
        for (place, name) in PROPERTIES.into_iter().enumerate() {
            let Some(value) = fields.get(place) else { continue };
            if name == "correlation-id" {
                self.correlation_id = Some(id(value));
            }
            self.properties.push((name.to_owned(), value.to_string()));
        }
    }

    /// Whether it answers the request of this id. One that says something and has no id answers the request that waits:
    /// there is one at a time.
    #[must_use]
    pub fn answers(&self, correlation_id: &str) -> bool {
        match &self.correlation_id {
            Some(id) => id.eq_ignore_ascii_case(correlation_id),
            None => !self.body.is_empty(),
        }
    }

    /// The answer, as the state machine takes it. `now` is what a retry-after date counts from.
    #[must_use]
    pub fn into_response(self, now: SystemTime) -> Response {
        let asked =
            self.properties.iter().filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
        let retry_after = retry_after::parse(asked.map(|(_, value)| value.as_str()), now);
        Response::new(200, self.body)
            .retry_after(retry_after)
            .protocol_result(self.properties.into_iter().collect())
    }
}

/// An id in whatever type it comes: a text, a UUID, or the bytes of one.
fn id(value: Value<'_>) -> String {
    match value {
        Value::Binary(bytes) => match bytes.try_into() {
            Ok(uuid) => uuid_text(uuid),
            Err(_) => value.to_string(),
        },
        _ => value.to_string().trim_matches(['{', '}']).to_owned(),
    }
}

pub(crate) fn too_large() -> Malformed {
    Malformed::new(format!("it is larger than {MAX_ANSWER_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::hex::bytes;

    const ID: &str = "23c3a5ca-2873-44c9-bc44-a81d63669132";

    #[test]
    fn requests_are_golden_bytes() {
        let request = RegistrationRequest::new("FirstDevice".parse().unwrap());
        let properties = "005373c02c0640404040 40a124 32336333613563612d323837332d343463392d626334342d613831643633363639313332";
        let registers = "005374c144 04 a115 696f746470732d6f7065726174696f6e2d74797065 a10f 696f746470732d7265676973746572 a118 696f746470732d666f726365526567697374726174696f6e 42";
        let body = "005375a020 7b22726567697374726174696f6e4964223a224669727374446576696365227d";
        let golden = [properties, registers, body].map(bytes).concat();
        assert_eq!(register(&request, ID), golden);
        let forced = register(&request.force_registration(true), ID);
        let differing: Vec<_> = golden.iter().zip(&forced).filter(|(a, b)| a != b).collect();
        assert_eq!(differing, [(&0x42, &0x41)]);

        let asks = "005374c14e 04 a115 696f746470732d6f7065726174696f6e2d74797065 a11a 696f746470732d6765742d6f7065726174696f6e737461747573 a113 696f746470732d6f7065726174696f6e2d6964 a103 6f7031";
        let golden = [properties, asks, "005375a000"].map(bytes).concat();
        assert_eq!(query(&OperationId::new("op1").unwrap(), ID), golden);
    }

    #[test]
    fn an_answer_of_another_library_is_read() {
        // As rhea 3.0.5 sent it.
        let message = bytes(
            "00537045 005373d00000002f000000064040404040a12432336333613563612d323837332d343463392d626334342d613831643633363639313332 005374d10000001300000002a10b72657472792d616674657254 00 005375a02a7b226f7065726174696f6e4964223a226f7031222c22737461747573223a2261737369676e696e67227d",
        );
        let answer = Answer::read(&message).unwrap();
        assert!(
            answer.answers(ID) && answer.answers(&ID.to_uppercase()) && !answer.answers("23c3")
        );
        let response = answer.into_response(SystemTime::UNIX_EPOCH);
        assert_eq!(response.status, 200);
        assert_eq!(response.body, br#"{"operationId":"op1","status":"assigning"}"#);
        assert_eq!(response.retry_after, Some(std::time::Duration::ZERO));
        assert_eq!(response.protocol_result.get("correlation-id"), Some(ID));
        assert_eq!(response.protocol_result.get("Retry-After"), Some("0"));
    }

    #[test]
    fn bodies_and_ids_come_in_every_form() {
        let uuid = "005373c01706404040404098 23c3a5ca287344c9bc44a81d63669132";
        for body in [
            "005375a0017b 005375a0017d",
            "005377a1027b7d",
            "005377a0027b7d",
            "0053 75b0000000027b7d",
        ] {
            let answer = Answer::read(&bytes(&format!("{uuid}{body}"))).unwrap();
            assert!(answer.answers(ID), "{answer:?}");
            assert_eq!(answer.into_response(SystemTime::now()).body, b"{}", "{body}");
        }
        let empty = Answer::read(&[]).unwrap();
        assert!(!empty.answers(ID) && !empty.answers(""), "it says nothing");
    }

    /// [3.2](https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-messaging-v1.0-os.html#section-message-format)
    #[test]
    fn sections_are_known_by_their_codes_and_by_their_standard_names() {
        let named = |name: &str| [&[0, 0xa3, name.len() as u8], name.as_bytes()].concat();
        let coded = |code: u8| vec![0, 0x53, code];
        let properties = bytes(
            "c02c0640404040 40a124 32336333613563612d323837332d343463392d626334342d613831643633363639313332",
        );
        let application = bytes("c1100 2a10b72657472792d61667465725409");
        for (name, code, content) in [
            ("amqp:data:binary", 0x75, bytes("a0027b7d")),
            ("amqp:amqp-value:*", 0x77, bytes("a1027b7d")),
            ("amqp:amqp-value:*", 0x77, bytes("b3000000027b7d")),
        ] {
            for by_name in [true, false] {
                let section = |name, code| if by_name { named(name) } else { coded(code) };
                let message = [
                    section("amqp:header:list", 0x70),
                    bytes("45"),
                    section("amqp:delivery-annotations:map", 0x71),
                    bytes("c10100"),
                    section("amqp:message-annotations:map", 0x72),
                    // What nobody reads may be odd.
                    bytes("c10502 a101ff 40"),
                    section("amqp:properties:list", 0x73),
                    properties.clone(),
                    section("amqp:application-properties:map", 0x74),
                    application.clone(),
                    section(name, code),
                    content.clone(),
                    section("amqp:footer:map", 0x78),
                    bytes("c10100"),
                ];
                let answer = Answer::read(&message.concat()).unwrap();
                assert!(answer.answers(ID), "{name} {by_name}: {answer:?}");
                let response = answer.into_response(SystemTime::now());
                assert_eq!(response.body, b"{}", "{name} {by_name}");
                let wait = Some(std::time::Duration::from_secs(9));
                assert_eq!(response.retry_after, wait, "{name} {by_name}");
            }
        }
        let sequence = [named("amqp:amqp-sequence:list"), bytes("c0020141")].concat();
        let reason = Answer::read(&sequence).unwrap_err().to_string();
        assert!(reason.contains("neither data nor text"), "{reason}");
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        let large = [
            bytes("005375b0"),
            (1024 * 1024 + 1_u32).to_be_bytes().to_vec(),
            vec![b' '; 1024 * 1024 + 1],
        ]
        .concat();
        for (message, says) in [
            (bytes("40"), "does not say what it is"),
            (bytes("005376c0020141"), "neither data nor text"),
            (bytes("005377c10100"), "neither data nor text"),
            (bytes("005375a0057b"), "longer"),
            (large, "larger than 1048576"),
        ] {
            let reason = Answer::read(&message).unwrap_err().to_string();
            assert!(reason.contains(says), "{reason}");
        }
        let largest =
            [bytes("005375b0"), (1024 * 1024_u32).to_be_bytes().to_vec(), vec![b' '; 1024 * 1024]]
                .concat();
        assert!(Answer::read(&largest).is_ok());
    }

    #[test]
    fn of_two_retry_afters_the_larger_holds_whatever_their_form() {
        let says = |properties: &str| {
            let length = bytes(properties).len() + 1;
            let count = properties.matches("a10b").count() * 2;
            let message = bytes(&format!("005374c1{length:02x}{count:02x}{properties}"));
            Answer::read(&message).unwrap().into_response(SystemTime::now()).retry_after
        };
        let (lower, upper) = ("a10b72657472792d6166746572", "a10b52657472792d4166746572");
        let seconds = |n| Some(std::time::Duration::from_secs(n));
        assert_eq!(says(&format!("{lower}5403")), seconds(3));
        assert_eq!(says(&format!("{lower}a10133")), seconds(3));
        assert_eq!(says(&format!("{lower}5403 {upper}a10137")), seconds(7));
        assert_eq!(says(&format!("{lower}54fd")), None);
        assert_eq!(says(&format!("{lower}80ffffffffffffffff")), seconds(u64::MAX));
        assert_eq!(says(&format!("{lower}40")), None);
    }
}
