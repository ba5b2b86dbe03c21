//! What comes back to a request that the service took.

use std::{sync::Arc, time::Duration};

use dps_state_machine::{Settings, StateMachine};
use fe2o3_amqp_types::messaging::{Data, MessageId, Properties};
use serde_amqp::primitives::Binary;

use super::{peer::*, *};

fn made(make: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Turn {
    Turn::Answer(Arc::new(make))
}

#[tokio::test]
async fn an_answer_is_handed_up_with_its_properties() {
    let (_peer, mut transport) = started_with(vec![answers(0, r#"{"status":"assigned"}"#)]).await;
    let response = register(&mut transport).await.unwrap();
    assert_eq!((response.status, response.body), (200, br#"{"status":"assigned"}"#.to_vec()));
    assert_eq!(response.retry_after, Some(Duration::from_secs(3)));
    assert_eq!(response.protocol_result.get("x"), Some("y"));
    assert_eq!(response.protocol_result.get("correlation-id").unwrap().len(), 36);
}

#[tokio::test]
async fn an_answer_before_the_acceptance_is_an_answer() {
    let first = made(|id| [delivery(0, &message(id, b"1")), accepted(0)].concat());
    let (_peer, mut transport) = started_with(vec![
        first,
        Turn::Read(&[Sent::Disposition, Sent::Transfer]),
        answers(1, "2"),
    ])
    .await;
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
}

#[tokio::test]
async fn answers_to_others_old_ones_and_copies_are_accepted_and_forgotten() {
    let stray = "00000000-0000-4000-8000-000000000000";
    let copies = made(move |id| {
        let right = message(id, b"1");
        [
            accepted(0),
            delivery(0, &message(stray, b"wrong")),
            delivery(1, &[]),
            delivery(2, &right),
            delivery(3, &right),
        ]
        .concat()
    });
    let turns = vec![
        copies,
        Turn::Read(&[Sent::Disposition; 4]),
        Turn::Read(REQUEST),
        answers(4, "2"),
        Turn::ReadOn,
    ];
    let (mut peer, mut transport) = started_with(turns).await;
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
    drop(transport);
    let seen = peer.over_next().await;
    assert!(
        seen.starts_with(&[LOGIN, START, REQUEST, &[Sent::Disposition; 4], REQUEST].concat()),
        "{seen:?}"
    );
}

#[tokio::test]
async fn credit_is_given_again_for_as_many_answers_as_come() {
    // Sixteen are allowed at first; a flow tops them up.
    let stray = |number| delivery(number, &message("00000000-0000-4000-8000-000000000000", b""));
    let strays = |from: u32| (from..from + 8).flat_map(stray).collect::<Vec<_>>();
    let turns = vec![
        Turn::Send([accepted(0), strays(0)].concat()),
        Turn::Read(EIGHT_ACCEPTANCES_AND_CREDIT),
        Turn::Send(strays(8)),
        Turn::Read(EIGHT_ACCEPTANCES_AND_CREDIT),
        answers(0, "1"),
    ];
    let (_peer, mut transport) = started_with(turns).await;
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
}

#[tokio::test]
async fn an_answer_may_come_in_many_parts() {
    let parts = made(|id| {
        let whole = message(id, &[b'x'; 300_000]);
        let mut parts = whole.chunks(1000).peekable();
        let mut sent = accepted(0);
        while let Some(bytes) = parts.next() {
            sent.extend(part(0, bytes, parts.peek().is_some()));
        }
        sent
    });
    let (_peer, mut transport) = started_with(vec![parts]).await;
    assert_eq!(register(&mut transport).await.unwrap().body, [b'x'; 300_000]);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_a_protocol_error() {
    let endless = Turn::Send((0..30).flat_map(|_| part(0, &[0; 60_000], true)).collect());
    let whole = made(|id| {
        let whole = message(id, &vec![b' '; 1024 * 1024 + 1]);
        let mut parts = whole.chunks(60_000).peekable();
        let mut sent = Vec::new();
        while let Some(bytes) = parts.next() {
            sent.extend(part(0, bytes, parts.peek().is_some()));
        }
        sent
    });
    for turn in [endless, whole] {
        let (_peer, mut transport) = started_with(vec![turn]).await;
        let error = protocol_error(register(&mut transport).await);
        assert!(error.reason.contains("larger than 1048576 bytes"), "{error}");
    }
}

#[tokio::test]
async fn malformed_frames_are_a_protocol_error_and_the_next_request_connects_again() {
    let junk: [(&[u8], &str); 11] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "between 8 and 65536"),
        (&[0, 0, 0, 9, 2, 0, 0, 0, 0x40], "does not say what it is"),
        (&[0, 1, 0, 1, 2, 0, 0, 0], "between 8 and 65536"),
        (&[0, 0, 0, 12, 2, 0, 0, 0, 0, 0x53, 0x14, 0x45], "a transfer has no handle"),
        (&[0, 0, 0, 8, 2, 7, 0, 0], "the unknown type 7"),
        (&[0, 0, 0, 12, 2, 0, 0, 0, 0, 0x53, 0x60, 0x45], "the unknown 0x60"),
        (&[0, 0, 0, 12, 2, 1, 0, 0, 0, 0x53, 0x10, 0x45], "SASL that says the unknown 0x10"),
        (&[0, 0, 0, 12, 2, 1, 0, 0, 0, 0x53, 0x44, 0x45], "SASL's after its end"),
        // By the link for requests.
        (&[0, 0, 0, 16, 2, 0, 0, 0, 0, 0x53, 0x14, 0xc0, 3, 1, 0x52, 5], "brings none"),
        (&[0, 0, 0, 16, 2, 0, 0, 0, 0, 0x53, 0x14, 0xc0, 3, 1, 0x52, 6], "has no number"),
        (
            &[0, 0, 0, 18, 2, 0, 0, 0, 0, 0x53, 0x14, 0xc0, 4, 2, 0x52, 6, 0x43, 0x40],
            "does not say what it is",
        ),
    ];
    for (bytes, says) in junk {
        let first = [usual_start(), vec![Turn::Send(bytes.to_vec())]].concat();
        let second = [usual_start(), vec![answers(0, "1")]].concat();
        let (_peer, config) = start(vec![first, second]).await;
        let mut transport = AmqpTransport::new(config).unwrap();
        let error = protocol_error(register(&mut transport).await);
        assert_eq!(error.stage, Stage::Register, "{bytes:?}");
        assert!(error.reason.contains(says), "{says}: {error}");
        assert_eq!(query(&mut transport).await.unwrap().body, b"1", "{bytes:?}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_named() {
    for (header, says) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "it is an HTTP server"),
        (b"AMQP\x00\x00\x09\x01", "AMQP 0.9.1"),
    ] {
        let (_peer, config) =
            start(vec![vec![Turn::Read(LOGIN), Turn::Send(header.to_vec())]]).await;
        let error = protocol_error(register(&mut AmqpTransport::new(config).unwrap()).await);
        assert!(error.reason.contains(says), "{error}");
    }
}

/// One request is under way: an answer without an id, or with the id in another type, is its answer.
#[tokio::test]
async fn an_answer_without_an_id_or_with_one_of_another_type_is_the_answer() {
    let uuid = |id: &str| -> [u8; 16] {
        let digits: Vec<_> = id.chars().filter_map(|digit| digit.to_digit(16)).collect();
        let bytes: Vec<_> =
            digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect();
        bytes.try_into().unwrap()
    };
    type MakeId = fn(&str, [u8; 16]) -> Option<MessageId>;
    let ids: [(&str, MakeId); 6] = [
        ("none", |_, _| None),
        ("text", |id, _| Some(MessageId::String(id.into()))),
        ("text in capitals", |id, _| Some(MessageId::String(id.to_uppercase()))),
        ("text in braces", |id, _| Some(MessageId::String(format!("{{{id}}}")))),
        ("UUID", |_, uuid| Some(MessageId::Uuid(uuid.into()))),
        ("bytes", |_, uuid| Some(MessageId::Binary(Binary::from(uuid)))),
    ];
    for (name, make_id) in ids {
        let answer = made(move |id| {
            let properties =
                Properties { correlation_id: make_id(id, uuid(id)), ..Default::default() };
            let message = [
                serde_amqp::to_vec(&properties).unwrap(),
                serde_amqp::to_vec(&Data::from(&b"{}"[..])).unwrap(),
            ];
            [accepted(0), delivery(0, &message.concat())].concat()
        });
        let (_peer, mut transport) = started_with(vec![answer]).await;
        let response = register(&mut transport).await.unwrap();
        assert_eq!(response.body, b"{}", "{name}");
    }
}

/// Through the machine: the timeout says what the service did meanwhile.
#[tokio::test]
async fn a_timeout_says_what_the_service_did_while_the_request_waited() {
    let stray = |number| delivery(number, &message("00000000-0000-4000-8000-000000000000", b"{}"));
    let no_credit = [AMQP, &frame(&open()), &begin(2048), &attached()].concat();
    let start_without_credit =
        vec![Turn::Read(LOGIN), Turn::Send(logged_in()), Turn::Read(START), Turn::Send(no_credit)];
    let then = |bytes: Vec<u8>| [usual_start(), vec![Turn::Send(bytes)]].concat();
    let network = "check the network path";
    let works = "the network path works";
    let endpoint = "check that the endpoint is a provisioning service";
    for (script, says, advice) in [
        (then(vec![]), "no answer to the register request within 0.3 s", network),
        (then(accepted(0)), "it was acknowledged and never answered", works),
        (
            then([accepted(0), stray(0)].concat()),
            "1 answer came that belongs to no request",
            endpoint,
        ),
        (then([stray(0), stray(1)].concat()), "2 answers came that belong to no request", endpoint),
        (start_without_credit, "the peer gives no credit to send it", works),
    ] {
        let script = [script, vec![Turn::ReadOn]].concat();
        let (_peer, config) = start(vec![script]).await;
        let mut settings = Settings::default();
        settings.request_timeout = Duration::from_millis(300);
        let machine = StateMachine::new(AmqpTransport::new(config).unwrap(), settings);
        let error = machine.register(request()).await.unwrap_err();
        assert!(error.to_string().ends_with(says), "{error} should end with {says}");
        let hint = error.hint().unwrap();
        assert!(hint.starts_with(advice), "{says}: {hint}");
    }
}
