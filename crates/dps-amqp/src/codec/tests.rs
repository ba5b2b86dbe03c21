use proptest::prelude::*;

use super::*;
use hex::bytes;

const ADDRESS: &str = "0ne000EEBBD/registrations/FirstDevice";
const PROPERTIES: [(&str, &str); 2] =
    [("com.microsoft:api-version", "2021-06-01"), ("com.microsoft:client-version", "dps/0.1.0")];

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn read(frame: &str) -> Body {
    let frame = bytes(frame);
    let (read, size) = decode(&frame).unwrap().unwrap();
    assert_eq!(size, frame.len());
    read.body
}

#[test]
fn what_we_send_is_golden_bytes() {
    let position = Position::default();
    for (name, sent, golden) in [
        (
            "sasl-init",
            written(|out| sasl_init(out, "PLAIN", b"\0u\0p", "localhost")),
            "00000026 02010000 005341c019 03 a305504c41494e a004 00750070 a1096c6f63616c686f7374",
        ),
        (
            "sasl-response",
            written(|out| sasl_response(out, &[0, 1])),
            "00000012 02010000 005343c005 01 a0020001",
        ),
        (
            "open",
            written(|out| open(out, "FirstDevice", "localhost")),
            "0000002e 02000000 005310c021 04 a10b4669727374446576696365 a1096c6f63616c686f7374 7000010000 600000",
        ),
        (
            "begin",
            written(|out| begin(out, &position)),
            "0000001c 02000000 005311c00f 05 40 43 7000001000 7000001000 5201",
        ),
        (
            "attach, sender",
            written(|out| attach_sender(out, ADDRESS, PROPERTIES)),
            "000000ab 02000000 005312c09e 0e a10c6470732d7265717565737473 43 42 5000 40 00532845 005329c02801a125306e6530303045454242442f726567697374726174696f6e732f4669727374446576696365 40 40 43 40 40 40 c15104a319636f6d2e6d6963726f736f66743a6170692d76657273696f6ea10a323032312d30362d3031a31c636f6d2e6d6963726f736f66743a636c69656e742d76657273696f6ea1096470732f302e312e30",
        ),
        (
            "attach, receiver",
            written(|out| attach_receiver(out, ADDRESS, PROPERTIES)),
            "000000aa 02000000 005312c09d 0e a10b6470732d616e7377657273 5201 41 40 40 005328c02801a125306e6530303045454242442f726567697374726174696f6e732f4669727374446576696365 00532945 40 40 40 40 40 40 c15104a319636f6d2e6d6963726f736f66743a6170692d76657273696f6ea10a323032312d30362d3031a31c636f6d2e6d6963726f736f66743a636c69656e742d76657273696f6ea1096470732f302e312e30",
        ),
        (
            "flow",
            written(|out| flow(out, &position, Some((1, None, 16)))),
            "0000001f 02000000 005313c012 07 40 7000001000 43 7000001000 5201 40 5210",
        ),
        (
            "transfer",
            written(|out| assert!(transfer(out, 0, true, b"payload", 65536).is_empty())),
            "0000001f 02000000 005314c00b 05 43 43 a00400000000 43 42 7061796c6f6164",
        ),
        (
            "disposition",
            written(|out| accept(out, 1)),
            "00000017 02000000 005315c00a 05 41 5201 40 41 00532445",
        ),
        ("detach", written(|out| detach(out, RECEIVER)), "00000011 02000000 005316c004 02 5201 41"),
        ("close", written(close), "0000000c 02000000 00531845"),
        ("heartbeat", written(heartbeat), "00000008 02000000"),
    ] {
        assert_eq!(sent, bytes(golden), "{name}");
    }
}

#[test]
fn what_other_libraries_send_is_read() {
    // As rhea 3.0.5 and the library's encoder sent it.
    let json = r#"{"errorCode":429001,"trackingId":"t","message":"slow"}"#;
    let failure = |condition: &str, description: Option<&str>, info: &[(&str, &str)]| Failure {
        condition: condition.to_owned(),
        description: description.map(str::to_owned),
        info: info.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
    };
    for (frame, body) in [
        (
            "00000024 02010000 005340d00000001400000001f00000000b00000001a305504c41494e",
            Body::Mechanisms(vec!["PLAIN".into()]),
        ),
        // A single symbol stands for an array of one.
        ("00000013 02010000 005340c00601a303414243", Body::Mechanisms(vec!["ABC".into()])),
        ("00000011 02010000 005342c00401a00100", Body::Challenge(vec![0])),
        (
            "00000016 02010000 005344d000000006000000015000",
            Body::SaslOutcome { code: 0, additional_data: vec![] },
        ),
        (
            "00000040 02000000 005310d00000003000000003a12461333263373631652d613465382d323034662d386266322d353732303937646539333337407000010000",
            Body::Open { max_frame_size: 65536, idle_time_out: None, open_error: None },
        ),
        (
            "00000014 02000000 005310c00705a1004040 4043",
            Body::Open {
                max_frame_size: u32::MAX,
                idle_time_out: Some(Duration::ZERO),
                open_error: None,
            },
        ),
        (
            "00000022 02000000 005311d0000000120000000460000043700000080070ffffffff",
            Body::Begin { next_outgoing_id: 0, incoming_window: 2048 },
        ),
        (
            "00000024 02000000 005312d00000001400000003a10c6470732d72657175657374734341",
            Body::Attach { name: SENDER.1.into(), handle: 0, delivery_count: 0 },
        ),
        (
            "0000002b 02000000 005312d00000001b0000000aa10b6470732d616e737765727352014240404040404043",
            Body::Attach { name: RECEIVER.1.into(), handle: 1, delivery_count: 0 },
        ),
        (
            "00000027 02000000 005313d000000017000000074370000008004370ffffffff434370000003e8",
            Body::Flow {
                handle: Some(0),
                next_incoming_id: Some(0),
                incoming_window: 2048,
                delivery_count: Some(0),
                link_credit: 1000,
                drain: false,
                echo: false,
            },
        ),
        (
            "00000021 02000000 005314d00000000d00000006520143a0013043424200537045",
            Body::Transfer {
                handle: 1,
                delivery_id: Some(0),
                settled: false,
                more: false,
                aborted: false,
                payload: bytes("00537045"),
            },
        ),
        (
            "0000001c 02000000 005315d00000000c000000054143434100532445",
            Body::Disposition {
                of_ours: true,
                first: 0,
                last: 0,
                outcome: Some(Outcome::Accepted),
            },
        ),
        // An info map with strings for keys, where the standard wants symbols.
        (
            "00000097 02000000 005315d00000008700000005415201520141005325d0000000750000000100531dd00000006900000003a313616d71703a696e7465726e616c2d6572726f72a1367b226572726f72436f6465223a3432393030312c22747261636b696e674964223a2274222c226d657373616765223a22736c6f77227dd10000001300000002a10b72657472792d61667465725201",
            Body::Disposition {
                of_ours: true,
                first: 1,
                last: 1,
                outcome: Some(Outcome::Rejected(Some(failure(
                    "amqp:internal-error",
                    Some(json),
                    &[("retry-after", "1")],
                )))),
            },
        ),
        (
            "00000016 02000000 005315c009 05 41 43 40 42 00532645",
            Body::Disposition {
                of_ours: true,
                first: 0,
                last: 0,
                outcome: Some(Outcome::Released),
            },
        ),
        (
            "0000001a 02000000 005315c00d 05 41 43 40 41 005327c003024141",
            Body::Disposition {
                of_ours: true,
                first: 0,
                last: 0,
                outcome: Some(Outcome::Modified { undeliverable_here: true }),
            },
        ),
        (
            "00000016 02000000 005316d000000006000000024341",
            Body::Detach { handle: 0, failure: None },
        ),
        ("0000000c 02000000 00531745", Body::End { failure: None }),
        (
            "00000026 02000000 005318c01901 00531dc01301 a310616d71703a6e6f742d616c6c6f776564",
            Body::Close { failure: Some(failure("amqp:not-allowed", None, &[])) },
        ),
        // A descriptor by its name.
        (
            "0000001b 02000000 00a30f616d71703a636c6f73653a6c697374 45",
            Body::Close { failure: None },
        ),
        // A longer header than usual.
        ("0000000c 03000000 00000000", Body::Heartbeat),
    ] {
        assert_eq!(read(frame), body, "{frame}");
    }
}

#[test]
fn the_property_for_a_refused_open_is_an_error_or_words() {
    // { com.microsoft:open-error: error(amqp:unauthorized-access) }, then a number and a text in its place.
    let name = "a318 636f6d2e6d6963726f736f66743a6f70656e2d6572726f72";
    let error = "00531dc01b01 a318 616d71703a756e617574686f72697a65642d616363657373";
    let opened = |value: &str| {
        let map = bytes(&format!("02{name}{value}"));
        let fields =
            [vec![0x0a, 0xa1, 0x00], vec![0x40; 8], vec![0xc1, map.len() as u8], map].concat();
        let body = [bytes("02000000 005310c0"), vec![fields.len() as u8], fields].concat();
        let frame = [(body.len() as u32 + 4).to_be_bytes().to_vec(), body].concat();
        match decode(&frame).unwrap().unwrap().0.body {
            Body::Open { open_error, .. } => open_error.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(opened(error).condition, "amqp:unauthorized-access");
    let status = |failure: Failure| failure.into_response(std::time::SystemTime::now()).status;
    assert_eq!(status(opened(error)), 401);
    assert_eq!(status(opened("71 00061e8a")), 401);
    assert_eq!(opened("a102 6e6f").description.as_deref(), Some("no"));
}

/// A described list, map or other value, with a wide size.
fn described(code: u8, constructor: u8, fields: &[&[u8]]) -> Vec<u8> {
    let content = fields.concat();
    let size = u32::try_from(content.len() + 4).unwrap().to_be_bytes();
    let count = u32::try_from(fields.len()).unwrap().to_be_bytes();
    [&[0, 0x53, code, constructor][..], &size, &count, &content].concat()
}

/// A peer may put anything into the parts of a rejection that nobody reads.
#[test]
fn odd_parts_of_a_rejection_do_not_hide_its_error_code() {
    let json = br#"{"errorCode":409203,"message":"Device locked"}"#;
    let description = [&[0xa1, u8::try_from(json.len()).unwrap()][..], json].concat();
    let condition = [&[0xa3, 19][..], b"amqp:internal-error"].concat();
    let deep_list = (0..1000_u32).fold(vec![0x40], |inner, _| {
        let size = u32::try_from(inner.len() + 4).unwrap().to_be_bytes();
        [&[0xd0][..], &size, &[0, 0, 0, 1], &inner].concat()
    });
    for (name, odd) in [
        ("text that is no UTF-8", vec![0xa1, 1, 0xff]),
        ("an unknown type", vec![0x5f, 1]),
        ("an unknown type with a size", vec![0xaf, 2, 1, 2]),
        ("an array of described values", vec![0xe0, 6, 1, 0, 0x53, 0x24, 0x45, 0x45]),
        ("a list that is deep", deep_list),
        ("a list whose count lies", vec![0xc0, 2, 99, 0x40]),
        ("a list with a constructor that is none", vec![0xc0, 2, 1, 0x07]),
        ("a value with an unknown name", bytes("00a3046e6f6e6540")),
        ("a value described by a list", vec![0, 0x45, 0x40]),
    ] {
        let info =
            described(0, 0xd1, &[&[0xa3, 1, b'x'], &odd, &[0xa3, 11], b"retry-after", &[0x52, 7]]);
        // The map alone, without the descriptor, and the count of keys and values.
        let mut info = info[3..].to_vec();
        info[8] = 4;
        let error = described(0x1d, 0xd0, &[&condition, &description, &info]);
        let rejected = described(0x25, 0xd0, &[&error]);
        // A field that nobody reads, after the last that somebody does.
        let body = described(0x15, 0xd0, &[&[0x41], &[0x43], &[0x43], &[0x41], &rejected, &odd]);
        let size = u32::try_from(body.len() + 8).unwrap().to_be_bytes();
        let frame = [&size[..], &[2, 0, 0, 0], &body].concat();
        let (frame, _) = decode(&frame).unwrap().unwrap();
        let Body::Disposition { outcome: Some(Outcome::Rejected(Some(failure))), .. } = frame.body
        else {
            panic!("{name}: {frame:?}")
        };
        let response = failure.into_response(std::time::SystemTime::now());
        assert_eq!((response.status, response.body), (409, json.to_vec()), "{name}");
        assert_eq!(response.retry_after, Some(Duration::from_secs(7)), "{name}");
    }
}

#[test]
fn frames_that_lie_are_refused_and_parts_of_frames_are_waited_for() {
    let whole = bytes("0000000c 02000000 00531845");
    for length in 0..whole.len() {
        assert_eq!(decode(&whole[..length]), Ok(None), "{length}");
    }
    for (frame, says) in [
        ("00000007 02000000", "between 8 and 65536"),
        ("00010001 02000000", "between 8 and 65536"),
        ("48545450 2f312e31", "between 8 and 65536"),
        ("00000008 01000000", "outside"),
        ("00000008 03000000", "outside"),
        ("00000009 02000000 40", "does not say what it is"),
        ("00000009 02010000 40", "does not say what it is"),
        ("0000000c 02000000 00531245", "an attach has no name"),
        ("0000000c 02000000 00531445", "a transfer has no handle"),
        ("0000000c 02000000 00531545", "a disposition has no first"),
        ("0000000c 02000000 00531645", "a detach has no handle"),
    ] {
        let reason = decode(&bytes(frame)).unwrap_err().to_string();
        assert!(reason.contains(says), "{frame}: {reason}");
    }
}

#[test]
fn headers_tell_who_speaks() {
    assert_eq!(Protocol::read(AMQP_HEADER), Ok(Protocol::Amqp));
    assert_eq!(Protocol::read(SASL_HEADER), Ok(Protocol::Sasl));
    for (header, says) in [
        (b"AMQP\x00\x00\x09\x01", "AMQP 0.9.1"),
        (b"AMQP\x02\x01\x00\x00", "protocol id 2"),
        (b"HTTP/1.1", "does not speak AMQP"),
    ] {
        let reason = Protocol::read(*header).unwrap_err().to_string();
        assert!(reason.contains(says), "{reason}");
    }
}

#[test]
fn a_message_fills_frames_to_the_brim_and_no_further() {
    let message: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for max_frame_size in [512, 513, 4096, 65_536] {
        let mut out = Vec::new();
        let mut rest = message.as_slice();
        while !rest.is_empty() {
            rest = transfer(&mut out, 7, rest.len() == message.len(), rest, max_frame_size);
        }
        let (mut bytes, mut together, mut ended) = (out.as_slice(), Vec::new(), 0);
        while let Some((frame, size)) = decode(bytes).unwrap() {
            assert!(size <= max_frame_size as usize, "{max_frame_size:?}");
            let Body::Transfer { more, payload, delivery_id, .. } = frame.body else { panic!() };
            assert!(!more || size == max_frame_size as usize, "{size}");
            assert_eq!(delivery_id, Some(7), "{max_frame_size:?}");
            together.extend(payload);
            ended += u32::from(!more);
            bytes = &bytes[size..];
        }
        assert_eq!((together == message, ended), (true, 1), "{max_frame_size}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_frame_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 8..200)) {
        let _ = decode(&bytes);
        // The same with a size that is right, and of a known kind.
        let size = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        bytes[..4].copy_from_slice(&size);
        bytes[4] = 2;
        bytes[5] %= 2;
        let _ = decode(&bytes);
    }

    /// Frames that begin well and go wrong somewhere.
    #[test]
    fn any_damage_to_a_frame_is_a_frame_or_refused(place in 8..151_usize, byte: u8) {
        let mut frame = bytes("00000097 02000000 005315d00000008700000005415201520141005325d0000000750000000100531dd00000006900000003a313616d71703a696e7465726e616c2d6572726f72a1367b226572726f72436f6465223a3432393030312c22747261636b696e674964223a2274222c226d657373616765223a22736c6f77227dd10000001300000002a10b72657472792d61667465725201");
        frame[place] = byte;
        let _ = decode(&frame);
    }
}
