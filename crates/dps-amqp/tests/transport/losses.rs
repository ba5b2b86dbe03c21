//! Connections that die, at any frame; and those that are found dead.

use std::time::Duration;

use dps_connect::{Endpoint, ProxyChoice};

use super::{peer::*, support::cuttable, *};

/// Every prefix of what a server says to a device that registers, byte by byte where frames end and begin.
#[tokio::test]
async fn a_connection_that_dies_at_any_frame_is_lost_at_once() {
    let said = [
        vec![SASL.to_vec(), mechanisms(&["PLAIN"]), outcome(fe2o3_amqp_types::sasl::SaslCode::Ok)],
        vec![AMQP.to_vec(), frame(&open()), begin(2048), attached(), credit(0, 2048, 0, 100)],
        vec![accepted(0), part(0, b"half", true)],
    ];
    let reads = [LOGIN, START, REQUEST];
    let mut deaths = 0;
    for (flight, answers) in said.iter().enumerate() {
        for answered in 0..=answers.len() {
            // Whole, and with the last frame cut short.
            for missing in [0, 1] {
                let mut script = Vec::new();
                for (read, said) in reads.iter().zip(&said).take(flight) {
                    script.extend([Turn::Read(read), Turn::Send(said.concat())]);
                }
                let mut last = answers[..answered].concat();
                last.truncate(last.len().saturating_sub(missing));
                script.extend([Turn::Read(reads[flight]), Turn::Send(last), Turn::Cut]);
                // The second connection, step by step, is closed at once.
                let (_peer, config) = start(vec![script]).await;
                let mut transport = AmqpTransport::new(config).unwrap();
                let error = connection_error(register(&mut transport).await);
                assert!(error.lost && error.retryable, "{flight} {answered}: {error:?}");
                assert_eq!(error.stage, Stage::Register, "{flight} {answered} {missing}");
                assert!(transport.end_session().await.is_ok(), "nothing is left to end");
                deaths += 1;
            }
        }
    }
    assert_eq!(deaths, 2 * (4 + 6 + 3));
}

#[tokio::test]
async fn a_connection_closed_right_before_a_request_is_made_anew() {
    let script = |body| [usual_start(), vec![answers(0, body), Turn::ReadOn]].concat();
    let (mut peer, config) = start(vec![script("1"), script("2")]).await;
    let (address, mut connections) = cuttable(peer.address).await;
    let endpoint: Endpoint = localhost(address).parse().unwrap();
    let mut transport =
        AmqpTransport::new(adjusted(config, |config| config.endpoint = endpoint)).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    connections.recv().await.unwrap().now();
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
    assert_eq!(peer.over_next().await, [LOGIN, START, REQUEST].concat());
}

#[tokio::test]
async fn a_request_that_may_have_arrived_says_so() {
    let (_peer, mut transport) = started_with(vec![Turn::Cut]).await;
    assert!(connection_error(register(&mut transport).await).request_may_have_been_sent);

    let no_credit = [AMQP, &frame(&open()), &begin(2048), &attached()].concat();
    let script = vec![
        Turn::Read(LOGIN),
        Turn::Send(logged_in()),
        Turn::Read(START),
        Turn::Send(no_credit),
        Turn::Cut,
    ];
    let (_peer, config) = start(vec![script]).await;
    let error = connection_error(register(&mut AmqpTransport::new(config).unwrap()).await);
    assert!(!error.request_may_have_been_sent, "{error:?}");
}

/// Whatever is about the connection, the session or a link refuses nobody.
#[tokio::test]
async fn conditions_of_the_connection_the_session_and_the_link_are_lost_connections() {
    for condition in [
        "amqp:connection:forced",
        "amqp:connection:framing-error",
        "amqp:connection:redirect",
        "amqp:session:window-violation",
        "amqp:session:errant-link",
        "amqp:session:handle-in-use",
        "amqp:session:unattached-handle",
        "amqp:link:detach-forced",
        "amqp:link:transfer-limit-exceeded",
        "amqp:link:redirect",
        "amqp:link:stolen",
    ] {
        let failure = || Some(error(condition, Some("words")));
        for (what, bytes) in
            [("detach", detach(failure())), ("end", end(failure())), ("close", close(failure()))]
        {
            let (_peer, mut transport) = started_with(vec![Turn::Send(bytes)]).await;
            let error = connection_error(register(&mut transport).await);
            assert!(error.lost && error.retryable, "{condition} {what}: {error:?}");
            assert!(error.message.contains(condition), "{condition} {what}: {error}");
        }
    }
}

#[tokio::test]
async fn a_redirect_says_where_to() {
    let mut moved = error_with(
        "amqp:connection:redirect",
        "moved",
        "network-host",
        "global.example".to_owned().into(),
    );
    moved.info.get_or_insert_default().insert("port".into(), 5671_u16.into());
    let (_peer, mut transport) = started_with(vec![Turn::Send(close(Some(moved)))]).await;
    let error = connection_error(register(&mut transport).await);
    assert!(error.message.contains("it redirects to global.example:5671"), "{error}");
}

#[tokio::test]
async fn a_connection_found_dead_is_made_anew_for_the_next_request() {
    for (end, bytes) in [("nothing", vec![]), ("close", close(None)), ("detach", detach(None))] {
        let first = [usual_start(), vec![answers(0, "1"), Turn::Send(bytes), Turn::Cut]].concat();
        let second = [usual_start(), vec![answers(0, "2")]].concat();
        let (mut peer, config) = start(vec![first, second]).await;
        let mut transport = AmqpTransport::new(config).unwrap();
        assert_eq!(register(&mut transport).await.unwrap().body, b"1", "{end}");
        peer.over_next().await;
        assert_eq!(query(&mut transport).await.unwrap().body, b"2", "{end}");
    }
}

#[tokio::test]
async fn a_dropped_request_closes_its_connection_and_the_next_makes_another() {
    let silent = [usual_start(), vec![Turn::ReadOn]].concat();
    let second = [usual_start(), vec![answers(0, "2")]].concat();
    let (mut peer, config) = start(vec![silent, second]).await;
    let mut transport = AmqpTransport::new(config).unwrap();
    {
        let registering = register(&mut transport);
        let mut registering = std::pin::pin!(registering);
        // Far enough for the request to have left: its server answers nothing.
        let waited = tokio::time::timeout(Duration::from_millis(300), registering.as_mut()).await;
        assert!(waited.is_err(), "nobody answers");
    }
    let seen = peer.over_next().await;
    assert!(seen.starts_with(&[LOGIN, START].concat()), "{seen:?}");
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
}

#[tokio::test]
async fn the_end_of_the_session_is_sent_once_without_waiting_for_the_answer() {
    let (mut peer, mut transport) = started_with(vec![answers(0, "1"), Turn::ReadOn]).await;
    register(&mut transport).await.unwrap();
    transport.end_session().await.unwrap();
    transport.end_session().await.unwrap();
    assert_eq!(
        peer.over_next().await,
        [LOGIN, START, REQUEST, ACCEPTANCE, END_OF_SESSION].concat()
    );
}

#[tokio::test]
async fn every_fault_on_the_way_is_the_same_as_on_the_other_transports() {
    let mut faults = faults::all().await;
    // Those of proxies name the port of HTTPS: see the tests over WebSocket.
    faults.retain(|fault| matches!(fault.config.proxy, ProxyChoice::None));
    meets(faults, |config| AmqpTransport::new(config).unwrap()).await;
}
