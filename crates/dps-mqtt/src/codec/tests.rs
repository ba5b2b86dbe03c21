//! Golden bytes, both ways.

use std::time::Duration;

use dps_attestation::SymmetricKey;

use super::*;
use crate::codec;

fn config() -> Config {
    let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse().unwrap();
    let mut config = Config::new("0ne00AABBCC".parse().unwrap(), key.into());
    config.user_agent = "a b/1".to_owned();
    config
}

fn request() -> RegistrationRequest {
    RegistrationRequest::new("pump-17".parse().unwrap())
}

fn written(append: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::from(&b"before"[..]);
    append(&mut out);
    out.strip_prefix(b"before").unwrap().to_vec()
}

fn read(bytes: &[u8]) -> Result<Option<Incoming>, String> {
    codec::read(&mut BytesMut::from(bytes)).map_err(|error| error.to_string())
}

#[test]
fn what_goes_out_is_known_to_the_byte() {
    let id = request().registration_id().clone();
    let operation = OperationId::new("4.op").unwrap();
    let connect =
        |password| written(|out| codec::connect(out, &config(), &id, 60, password).unwrap());
    assert_eq!(
        connect(Some("SAS")),
        [
            &b"\x10\x6a\x00\x04MQTT\x04\xc2\x00\x3c\x00\x07pump-17\x00\x50"[..],
            b"0ne00AABBCC/registrations/pump-17/api-version=2021-06-01&ClientVersion=a%20b%2F1",
            b"\x00\x03SAS",
        ]
        .concat()
    );
    let without = connect(None);
    assert_eq!(without.get(9), Some(&0x82), "a user name and no password");
    assert!(without.ends_with(b"a%20b%2F1"));
    assert_eq!(
        written(|out| codec::subscribe(out, 1).unwrap()),
        b"\x82\x1d\x00\x01\x00\x18$dps/registrations/res/#\x01"
    );
    assert_eq!(
        written(|out| codec::register(out, &request(), "0a", 2).unwrap()),
        b"\x32\x4f\x00\x2f$dps/registrations/PUT/iotdps-register/?$rid=0a\x00\x02{\"registrationId\":\"pump-17\"}"
    );
    assert_eq!(
        written(|out| codec::query(out, &operation, "0b", 0x103).unwrap()),
        b"\x32\x4f\x00\x4b$dps/registrations/GET/iotdps-get-operationstatus/?$rid=0b&operationId=4.op\x01\x03"
    );
    assert_eq!(written(codec::ping), b"\xc0\x00");
    assert_eq!(written(codec::disconnect), b"\xe0\x00");
}

#[test]
fn an_operation_id_is_encoded_where_a_topic_needs_it_and_left_alone_otherwise() {
    for (id, sent) in [
        ("4.d0a671905ea5b2c8.42d78160-4c78-479e-8be7-61d5e55dac0d", ""),
        ("a=b~c:d;e", ""),
        ("a&b#c+d%e f/g?h", "a%26b%23c%2Bd%25e%20f%2Fg%3Fh"),
        ("é\0", "%C3%A9%00"),
    ] {
        let operation = OperationId::new(id).unwrap();
        let bytes = written(|out| codec::query(out, &operation, "0", 1).unwrap());
        let sent = format!("&operationId={}\0\u{1}", if sent.is_empty() { id } else { sent });
        assert!(bytes.ends_with(sent.as_bytes()), "{}", String::from_utf8_lossy(&bytes));
    }
    let endless = OperationId::new("x".repeat(70_000)).unwrap();
    let mut out = BytesMut::new();
    let error = codec::query(&mut out, &endless, "0", 1).unwrap_err();
    assert!(error.to_string().contains("no topic can carry the operation id \"xxx"), "{error}");
    assert!(out.is_empty(), "nothing half written");
}

#[test]
fn what_comes_in_is_read_from_the_byte() {
    let cases: &[(&[u8], Incoming)] = &[
        (b"\x20\x02\x00\x00", Incoming::Accepted),
        (b"\x20\x02\x01\x00", Incoming::Accepted),
        (b"\x20\x02\x00\x01", Incoming::Refused(Refusal::ProtocolVersion)),
        (b"\x20\x02\x00\x02", Incoming::Refused(Refusal::ClientId)),
        (b"\x20\x02\x00\x03", Incoming::Refused(Refusal::Unavailable)),
        (b"\x20\x02\x00\x04", Incoming::Refused(Refusal::Credential)),
        (b"\x20\x02\x00\x05", Incoming::Refused(Refusal::Unauthorized)),
        (b"\x90\x03\x00\x01\x00", Incoming::Subscribed),
        (b"\x90\x03\x00\x01\x01", Incoming::Subscribed),
        (b"\x90\x03\x00\x01\x80", Incoming::SubscriptionRefused(0x80)),
        // As MQTT 5 has them: with reasons, and with properties of no length.
        (b"\x90\x03\x00\x01\x87", Incoming::SubscriptionRefused(0x87)),
        (b"\x90\x04\x00\x01\x00\xa2", Incoming::SubscriptionRefused(0xa2)),
        (b"\x20\x02\x00\x84", Incoming::Refused(Refusal::Reason(0x84))),
        (b"\x20\x03\x00\x87\x00", Incoming::Refused(Refusal::Reason(0x87))),
        (b"\xe0\x01\x8b", Incoming::Disconnected(Some(0x8b))),
        (b"\xe0\x02\x9d\x00", Incoming::Disconnected(Some(0x9d))),
        (b"\x50\x02\x00\x02", Incoming::Received { packet_id: 2 }),
        (b"\x62\x02\x00\x02", Incoming::Released { packet_id: 2 }),
        (b"\x70\x02\x00\x02", Incoming::Other),
        (b"\x40\x02\x00\x02", Incoming::Acknowledged { packet_id: 2 }),
        (b"\xb0\x02\x00\x02", Incoming::Other),
        (b"\xd0\x00", Incoming::Pong),
        (b"\xe0\x00", Incoming::Disconnected(None)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(read(bytes).as_ref().map(Option::as_ref), Ok(Some(expected)), "{bytes:x?}");
        for length in 0..bytes.len() {
            let (part, _) = bytes.split_at(length);
            assert_eq!(read(part), Ok(None), "{part:x?}");
        }
    }
}

#[test]
fn what_is_no_packet_of_a_server_is_refused_at_once() {
    let cases: &[(&[u8], &str)] = &[
        (b"\x00\x00", "not MQTT"),
        (b"\xf0\x00", "not MQTT"),
        // One that announces 393 KB to come.
        (b"\x00\xff\xfe\x17 junk", "not MQTT"),
        (b"\x20\x02\x00\x06", "not MQTT"),
        (b"\x20\x03\x00\x00\x00", "not MQTT"),
        (b"\x20\x00", "not MQTT"),
        (b"\x22\x02\x00\x00", "not MQTT"),
        (b"\x90\x03\x00\x00\x01", "not MQTT"),
        (b"\x90\x03\x00\x01\x03", "not MQTT"),
        (b"\x90\x02\x00\x01", "not MQTT"),
        (b"\x36\x04\x00\x01a\x00", "not MQTT"),
        (b"\x30\x02\x00\x01", "not MQTT"),
        (b"\x30\x03\x00\x01+", "not MQTT"),
        (b"\x30\x03\x00\x01\xff", "not MQTT"),
        (b"\x32\x05\x00\x01a\x00\x00", "not MQTT"),
        (b"\x30\xff\xff\xff\xff", "not MQTT"),
        (b"\xc0\x00", "only clients"),
        (b"\x82\x06\x00\x01\x00\x01a\x00", "only clients"),
        (b"\x30\x80\x80\x45", "larger than 1048576 bytes"),
    ];
    let quiet: Vec<_> = cases
        .iter()
        .filter(|(bytes, says)| !read(bytes).is_err_and(|e| e.contains(says)))
        .collect();
    assert!(quiet.is_empty(), "{quiet:x?}");
}

fn published(topic: &str, body: &[u8]) -> codec::Delivery {
    let mut bytes = vec![0x30];
    let mut length = 2 + topic.len() + body.len();
    while length > 127 {
        bytes.push(0x80 | u8::try_from(length % 128).unwrap());
        length /= 128;
    }
    bytes.push(u8::try_from(length).unwrap());
    bytes.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(topic.as_bytes());
    bytes.extend_from_slice(body);
    match read(&bytes) {
        Ok(Some(Incoming::Delivery(delivery))) => delivery,
        other => panic!("{other:?}"),
    }
}

fn answer(topic: &str) -> Option<Response> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    codec::answer(&published(topic, b"{}"), "7", Stage::Query, now).unwrap()
}

#[test]
fn each_quality_of_service_gets_its_reply() {
    for (packet, expected) in [
        (&b"\x30\x03\x00\x01a"[..], &b""[..]),
        (b"\x32\x05\x00\x01a\x01\x02", b"\x40\x02\x01\x02"),
        (b"\x34\x05\x00\x01a\x01\x02", b"\x50\x02\x01\x02"),
        (b"\x50\x02\x01\x02", b"\x62\x02\x01\x02"),
        (b"\x62\x02\x01\x02", b"\x70\x02\x01\x02"),
        (b"\x70\x02\x01\x02", b""),
        (b"\x40\x02\x01\x02", b""),
    ] {
        let incoming = read(packet).unwrap().unwrap();
        assert_eq!(written(|out| codec::reply(out, &incoming)), expected, "{packet:x?}");
    }
}

#[test]
fn reasons_of_mqtt_5_are_named_and_judged() {
    for (code, status, says) in [
        (0x80, 500, "unspecified error"),
        (0x82, 400, "protocol error"),
        (0x85, 400, "client identifier not valid"),
        (0x86, 401, "bad user name or password"),
        (0x87, 401, "not authorized"),
        (0x88, 503, "server unavailable"),
        (0x89, 503, "server busy"),
        (0x8a, 403, "banned"),
        (0x8c, 401, "bad authentication method"),
        (0x95, 400, "packet too large"),
        (0x97, 429, "quota exceeded"),
        (0x9c, 503, "use another server"),
        (0x9d, 421, "server moved"),
        (0x9f, 429, "connection rate exceeded"),
        (0xfe, 500, "not in the standard"),
    ] {
        let connack = codec::refusal(Refusal::Reason(code), Stage::Register).unwrap();
        let suback = codec::subscription_refusal(code);
        for (response, packet) in [(connack, "CONNACK"), (suback, "SUBACK")] {
            if (packet, code) == ("SUBACK", 0x80) {
                continue; // MQTT 3.1.1 has this one too, and means a refusal.
            }
            assert_eq!(response.status, status, "{packet} {code:x}");
            let reason = response.reason.unwrap();
            assert!(reason.starts_with(&format!("{packet} {code}: ")), "{reason}");
            assert!(reason.contains(says), "{code:x}: {reason}");
        }
        assert!(codec::disconnection(Some(code)).contains(says), "{code:x}");
    }
    let error = codec::refusal(Refusal::Reason(0x84), Stage::Register).unwrap_err();
    assert!(error.to_string().contains("does not take MQTT 3.1.1"), "{error}");
}

#[test]
fn a_topic_is_read_leniently() {
    let res = "$dps/registrations/res";
    let seconds = |n| Some(Duration::from_secs(n));
    let cases = [
        ("200/?$rid=7", 200, None),
        ("202/?$rid=7&retry-after=3", 202, seconds(3)),
        ("202/?retry-after=3&$rid=7", 202, seconds(3)),
        ("202/?$RID=7&Retry-After=3", 202, seconds(3)),
        ("202?$rid=7&retry-after=3&x=y&&z", 202, seconds(3)),
        ("202/?$rid=7&retry-after=", 202, None),
        ("202/?$rid=7&retry-after=soon", 202, None),
        ("202/?$rid=7&retry-after=-1", 202, None),
        ("202/?$rid=7&retry-after=3&retry-after=9", 202, seconds(9)),
        ("202/?$rid=7&retry-after=99999999999999999999", 202, seconds(u64::MAX)),
        ("202/?$rid=7&retry-after=Sun%2C%2006%20Nov%201994%2008:49:47%20GMT", 202, seconds(10)),
        ("429/?$rid=%37", 429, None),
        ("007/?$rid=7", 7, None),
    ];
    for (rest, status, retry_after) in cases {
        let response = answer(&format!("{res}/{rest}")).unwrap();
        assert_eq!((response.status, response.retry_after), (status, retry_after), "{rest}");
        assert_eq!(
            response.protocol_result.get("topic"),
            Some(format!("{res}/{rest}").as_str()),
            "{rest:?}"
        );
        assert!(response.protocol_result.get("$rid").is_some(), "{rest}");
    }
    // One request is under way: what has no id, or spells it otherwise, is its answer.
    for rest in
        ["200/", "200", "200/?$rid", "200/?rid=7", "200/?Rid=7", "200/?%24rid=7", "200/?x=7"]
    {
        let response = answer(&format!("{res}/{rest}"));
        assert_eq!(response.map(|response| response.status), Some(200), "{rest}");
    }
    let others = [
        format!("{res}/200/?$rid=77"),
        format!("{res}/200/?rid=8"),
        format!("{res}/200/?%24rid=8"),
        // No answer at all: it has neither a status nor an id.
        format!("{res}/other/"),
        format!("{res}x/200/?$rid=7"),
        "$dps/registrations/PUT/iotdps-register/?$rid=7".to_owned(),
        "$iothub/twin/res/200/?$rid=7".to_owned(),
        "$rid=7".to_owned(),
    ];
    for topic in others {
        assert!(answer(&topic).is_none(), "{topic}");
    }
}

#[test]
fn an_answer_to_us_that_makes_no_sense_is_kept_as_far_as_it_was_read() {
    let now = SystemTime::UNIX_EPOCH;
    for status in ["", "x", "-1", "20 0", "65536", "200/extra"] {
        let delivery = published(&format!("$dps/registrations/res/{status}/?$rid=7"), b"");
        let error = codec::answer(&delivery, "7", Stage::Query, now).unwrap_err();
        assert!(error.reason.contains("is no status"), "{}", error.reason);
        assert_eq!(error.protocol_result.get("$rid"), Some("7"), "{status:?}");
    }
    let large = vec![b'x'; MAX_ANSWER_BYTES + 1];
    let delivery = published("$dps/registrations/res/200/?$rid=7", &large);
    let error = codec::answer(&delivery, "7", Stage::Register, now).unwrap_err();
    assert_eq!(
        (error.status, error.reason.as_str()),
        (Some(200), "it is larger than 1048576 bytes")
    );
    let (_, fits) = large.split_at(1);
    let delivery = published("$dps/registrations/res/200/?$rid=7", fits);
    assert!(codec::answer(&delivery, "7", Stage::Register, now).unwrap().is_some());
}

#[test]
fn whatever_comes_is_read_without_a_panic_and_with_an_end() {
    // A cheap generator is enough: the same bytes on every run.
    let mut state = 0x2545_f491_u32;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        u8::try_from(state >> 24).unwrap()
    };
    let mut packets = 0;
    for _ in 0..20_000 {
        let length = usize::from(next() % 32);
        let mut bytes: BytesMut = (0..length).map(|_| next()).collect::<Vec<_>>().as_slice().into();
        // Small lengths, so that many of them are whole packets.
        if let Some(second) = bytes.get_mut(1) {
            *second %= 16;
        }
        while let Ok(Some(packet)) = codec::read(&mut bytes) {
            packets += 1;
            if let Incoming::Delivery(delivery) = packet {
                let answer = codec::answer(&delivery, "7", Stage::Query, SystemTime::UNIX_EPOCH);
                assert!(answer.is_ok_and(|answer| answer.is_none()));
            }
        }
    }
    assert!(packets > 100, "{packets} packets");
}
