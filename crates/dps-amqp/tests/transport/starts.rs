//! How a session starts, and in how many flights. The server sends nothing before it has read a whole flight: a device
//! that waited in between would never go on.

use fe2o3_amqp_types::sasl::SaslCode;

#[cfg(feature = "websocket")]
use super::websocket::{over_websocket, upgrade};
use super::{peer::*, *};

#[tokio::test]
async fn a_token_takes_three_flights_after_tls_and_each_poll_one() {
    let script = [
        usual_start(),
        vec![
            answers(0, "1"),
            Turn::Read(&[Sent::Disposition, Sent::Transfer]),
            answers(1, "2"),
            Turn::Read(&[Sent::Disposition, Sent::Detach, Sent::Detach, Sent::Close]),
            Turn::ReadOn,
        ],
    ];
    let (mut peer, config) = start(vec![script.concat()]).await;
    let mut transport = AmqpTransport::new(config).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
    transport.end_session().await.unwrap();
    let session = [LOGIN, START, REQUEST, ACCEPTANCE, REQUEST, ACCEPTANCE, END_OF_SESSION];
    assert_eq!(peer.over_next().await, session.concat());
}

#[tokio::test]
async fn a_certificate_takes_two_flights_after_tls() {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), Some(&authority), &[&TLS13]);
    let script = vec![
        Turn::Read(START),
        Turn::Send(started()),
        Turn::Read(REQUEST),
        answers(0, "1"),
        Turn::ReadOn,
    ];
    let mut peer = Peer::start(tls, vec![script]).await;
    let mut config = config(&localhost(peer.address), authority.roots());
    config.attestation = authority.device("pump-17").attestation();
    let mut transport = AmqpTransport::new(config).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    drop(transport);
    assert_eq!(peer.over_next().await, [START, REQUEST].concat());
}

/// A server that accepts each step only after its answer to the one before.
fn step_by_step_script() -> Vec<Turn> {
    let answer = |read: &'static [Sent], send: &[u8]| [Turn::Read(read), Turn::Send(send.to_vec())];
    [
        answer(&[Sent::SaslHeader], &[SASL, &mechanisms(&["PLAIN"])].concat()),
        answer(&[Sent::SaslInit], &outcome(SaslCode::Ok)),
        answer(&[Sent::AmqpHeader], AMQP),
        answer(&[Sent::Open], &frame(&open())),
        answer(&[Sent::Begin], &begin(2048)),
        answer(
            &[Sent::Attach, Sent::Attach, Sent::Flow],
            &[attached(), credit(0, 2048, 0, 100)].concat(),
        ),
        [Turn::Read(REQUEST), answers(0, "1")],
    ]
    .concat()
}

#[tokio::test]
async fn step_by_step_waits_for_each_answer() {
    let (_peer, config) = start(vec![step_by_step_script()]).await;
    let mut transport = step_by_step(config);
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
}

#[tokio::test]
async fn a_start_that_dies_is_tried_once_more_step_by_step() {
    let quarrel = close(Some(error("amqp:connection:framing-error", Some("not so fast"))));
    for (death, script) in [
        ("at once", vec![Turn::Cut]),
        ("after the login", vec![Turn::Read(LOGIN), Turn::Cut]),
        (
            "after the start",
            vec![Turn::Read(LOGIN), Turn::Send(logged_in()), Turn::Read(START), Turn::Cut],
        ),
        (
            "with a close",
            vec![
                Turn::Read(LOGIN),
                Turn::Send(logged_in()),
                Turn::Read(START),
                Turn::Send([AMQP, &frame(&open()), &quarrel].concat()),
            ],
        ),
        (
            "with nonsense after the login",
            vec![
                Turn::Read(LOGIN),
                Turn::Send(logged_in()),
                Turn::Read(START),
                Turn::Send([AMQP, b"\0\0\0\x03\x02\0\0\0"].concat()),
            ],
        ),
        (
            "with a close for what is not allowed",
            vec![
                Turn::Read(LOGIN),
                Turn::Send(logged_in()),
                Turn::Read(START),
                Turn::Send(
                    [AMQP, &frame(&open()), &close(Some(error("amqp:not-allowed", None)))].concat(),
                ),
            ],
        ),
        (
            "with an end",
            vec![
                Turn::Read(LOGIN),
                Turn::Send(logged_in()),
                Turn::Read(START),
                Turn::Send([AMQP, &frame(&open()), &end(None)].concat()),
            ],
        ),
    ] {
        for over in Over::ALL {
            let (_peer, mut transport) =
                over.start(vec![script.clone(), step_by_step_script()]).await;
            assert_eq!(register(&mut transport).await.unwrap().body, b"1", "{death}, {over:?}");
        }
    }
}

/// What the connections to a server are, and whether they end with a reset.
#[derive(Clone, Copy, Debug)]
enum Over {
    Tls {
        resets: bool,
    },
    #[cfg(feature = "websocket")]
    WebSocket {
        resets: bool,
    },
}

impl Over {
    const ALL: &[Self] = &[
        Self::Tls { resets: false },
        Self::Tls { resets: true },
        #[cfg(feature = "websocket")]
        Self::WebSocket { resets: false },
        #[cfg(feature = "websocket")]
        Self::WebSocket { resets: true },
    ];

    /// A server with a script for each connection, and a device that trusts it.
    async fn start(self, scripts: Vec<Vec<Turn>>) -> (Peer, AmqpTransport) {
        let (tls, roots) = trusted_tls();
        let peer = match self {
            Self::Tls { resets: false } => Peer::start(tls, scripts).await,
            Self::Tls { resets: true } => {
                Peer::over(tls, scripts, |tls| async { Some(resetting(tls)) }).await
            }
            #[cfg(feature = "websocket")]
            Self::WebSocket { resets: false } => {
                Peer::over(tls, scripts, |tls| upgrade::accept(tls, "AMQPWSB10")).await
            }
            #[cfg(feature = "websocket")]
            Self::WebSocket { resets: true } => {
                Peer::over(tls, scripts, |tls| upgrade::accept(resetting(tls), "AMQPWSB10")).await
            }
        };
        let config = config(&localhost(peer.address), roots);
        let transport = match self {
            Self::Tls { .. } => AmqpTransport::new(config).unwrap(),
            #[cfg(feature = "websocket")]
            Self::WebSocket { .. } => over_websocket(config),
        };
        (peer, transport)
    }
}

/// A connection that is reset when it is dropped.
fn resetting(tls: support::ServerStream) -> support::ServerStream {
    tls.get_ref().0.set_zero_linger().unwrap();
    tls
}

/// The clock is paused: it runs ahead as soon as everybody waits for a server that stays silent.
#[tokio::test(start_paused = true)]
async fn a_start_that_gets_no_answer_is_tried_once_more_step_by_step() {
    for (silence, script) in [
        ("at once", vec![Turn::ReadOn]),
        ("after the mechanisms", {
            let offer = [SASL, &mechanisms(&["PLAIN"])].concat();
            vec![Turn::Read(LOGIN), Turn::Send(offer), Turn::ReadOn]
        }),
        ("after the login", vec![Turn::Read(LOGIN), Turn::Send(logged_in()), Turn::ReadOn]),
    ] {
        let (_peer, config) = start(vec![script, step_by_step_script()]).await;
        let mut transport = AmqpTransport::new(config).unwrap();
        assert_eq!(register(&mut transport).await.unwrap().body, b"1", "{silence}");
    }
}

#[tokio::test]
async fn a_transport_remembers_that_only_step_by_step_works() {
    let scripts = vec![vec![Turn::Cut], step_by_step_script(), step_by_step_script()];
    let (_peer, config) = start(scripts).await;
    let mut transport = AmqpTransport::new(config).unwrap();
    for session in 1..=2 {
        assert_eq!(register(&mut transport).await.unwrap().body, b"1", "{session}");
        transport.end_session().await.unwrap();
    }
}

#[tokio::test]
async fn what_dies_step_by_step_too_is_lost_and_nothing_was_sent() {
    let (mut peer, config) =
        start(vec![vec![Turn::Cut], vec![Turn::Read(&[Sent::SaslHeader]), Turn::Cut]]).await;
    let error = connection_error(register(&mut AmqpTransport::new(config).unwrap()).await);
    assert!(error.lost && error.retryable && !error.request_may_have_been_sent, "{error:?}");
    assert_eq!(error.stage, Stage::Register);
    assert_eq!(peer.over_next().await, []);
    assert_eq!(peer.over_next().await, [Sent::SaslHeader]);
}

#[tokio::test]
async fn a_refusal_in_a_start_is_no_death() {
    // Only the first connection is served: a second attempt would fail otherwise.
    let json = r#"{"errorCode":401002,"trackingId":"t"}"#;
    let refusal = close(Some(error("amqp:unauthorized-access", Some(json))));
    let script = vec![
        Turn::Read(LOGIN),
        Turn::Send(logged_in()),
        Turn::Read(START),
        Turn::Send([AMQP, &frame(&open()), &refusal].concat()),
        Turn::Cut,
    ];
    let (_peer, config) = start(vec![script]).await;
    let response = register(&mut AmqpTransport::new(config).unwrap()).await.unwrap();
    assert_eq!((response.status, response.body), (401, json.as_bytes().to_vec()));
}

#[tokio::test]
async fn requests_wait_for_credit_and_keep_to_window_and_frame_size() {
    // 512 bytes a frame, one frame at a time, and the credit comes last.
    let mut narrow = open();
    narrow.max_frame_size = 512.into();
    let opened = [AMQP, &frame(&narrow), &begin(1), &attached()].concat();
    let script = vec![
        Turn::Read(LOGIN),
        Turn::Send(logged_in()),
        Turn::Read(START),
        Turn::Send(opened),
        Turn::Send(credit(0, 1, 0, 1)),
        Turn::Read(REQUEST),
        Turn::Send(credit(1, 1, 1, 1)),
        Turn::Read(REQUEST),
        Turn::Send(credit(2, 1, 1, 1)),
        Turn::Read(REQUEST),
        answers(0, "1"),
    ];
    let (_peer, config) = start(vec![script]).await;
    let payload = serde_json::json!({ "text": "x".repeat(1000) });
    let request = request().payload(payload).unwrap();
    let mut transport = AmqpTransport::new(config).unwrap();
    assert_eq!(
        transport.registration_request(&request, &Progress::default()).await.unwrap().body,
        b"1"
    );
}
