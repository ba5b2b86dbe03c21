//! What a device hears over MQTT: packets, and topics of answers.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use bytes::{BufMut as _, BytesMut};
use dps_attestation::{Attestation, SymmetricKey};
use dps_connect::Config;
use dps_mqtt::{
    codec::{self, Incoming},
    fuzzing::session,
};
use dps_state_machine::{
    Error, ErrorKind, OperationId, ProtocolError, RegistrationRequest, Response, Stage,
};

use crate::stream::{self, Scripted};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let key = SymmetricKey::from_bytes(b"the key of a device").expect("a key");
    Config::new("0ne00AABBCC".parse().expect("a scope"), Attestation::from(key))
});

/// What the service says, on a connection (the first byte: see [`Scripted`]) and as the topic of an answer.
pub fn run(data: &[u8]) {
    a_session(data);
    if data.len() <= usize::from(u16::MAX) {
        a_topic(data);
    }
    packets(data);
}

fn a_session(data: &[u8]) {
    let request = RegistrationRequest::new("pump-17".parse().expect("an id"));
    let operation = OperationId::new("4.op/+#\u{0}é").expect("an operation");
    let (stream, _) = Scripted::new(data);
    let ended =
        stream::run(Duration::from_secs(3600), session(stream, &CONFIG, &request, &operation));
    // Pings without an answer end it, whatever the service is silent about.
    match ended.expect("an end").expect("a request that can be sent") {
        (answers, Some(error)) => {
            assert!(matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Connection), "{error}");
            answers.iter().for_each(|answer| check(answer, data));
        }
        (answers, None) => answers.iter().for_each(|answer| check(answer, data)),
    }
}

/// An answer is what came, no more.
fn check(answer: &Response, data: &[u8]) {
    assert!(answer.body.len() <= codec::MAX_ANSWER_BYTES);
    assert!(answer.body.is_empty() || data.windows(answer.body.len()).any(|w| w == answer.body));
}

/// The input as the topic of a publication.
fn a_topic(topic: &[u8]) {
    let mut packet = BytesMut::new();
    packet.put_u8(0x30);
    let mut length = topic.len() + 4;
    while length > 0x7f {
        packet.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    packet.put_u8(length as u8);
    packet.put_u16(topic.len() as u16);
    packet.put_slice(topic);
    packet.put_slice(b"{}");
    let Ok(Some(Incoming::Delivery(delivery))) = codec::read(&mut packet) else { return };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let read = codec::answer(&delivery, "7", Stage::Query, now);
    let text = String::from_utf8_lossy(topic);
    match read {
        Ok(None) => {}
        Ok(Some(response)) => {
            assert!(text.starts_with("$dps/registrations/res/"));
            assert_eq!(response.protocol_result.get("topic"), Some(&*text));
            assert_eq!(response.body, b"{}");
        }
        Err(error) => {
            let ProtocolError { ref protocol_result, .. } = error;
            assert_eq!(protocol_result.get("topic"), Some(&*text));
            assert!(!Error::from(error).to_string().is_empty());
        }
    }
}

/// The input as packets: each takes something from the front, and never more than there is.
fn packets(data: &[u8]) {
    let mut rest = BytesMut::from(data);
    loop {
        let before = rest.len();
        match codec::read(&mut rest) {
            Ok(Some(_)) => assert!(rest.len() < before, "a packet of no bytes"),
            Ok(None) => {
                assert_eq!(rest.len(), before, "half a packet stays");
                return;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
}
