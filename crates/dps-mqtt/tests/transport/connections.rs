//! Connections: kept, lost, kept alive, dropped, and not to be had.

use std::{sync::Arc, time::Duration};

use dps_connect::{Endpoint, ProxyChoice};

use super::{
    support::{cuttable, faults, open_proxy, proxy},
    *,
};

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_register_and_polls_until_the_session_ends() {
    let (mut peer, config) = start(service(std::iter::repeat_with(|| ok("{}")).take(32))).await;
    let mut transport = MqttTransport::new(config).unwrap();
    for session in 1..=2 {
        register(&mut transport).await.unwrap();
        assert_eq!(peer.publication().await.0, session, "{session:?}");
        for _ in 0..10 {
            query(&mut transport).await.unwrap();
            assert_eq!(peer.publication().await.0, session, "{session:?}");
        }
        transport.end_session().await.unwrap();
        peer.closed(session).await;
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_lost_and_the_next_call_makes_a_new_one() {
    let half: peer::Answer = Box::new(|_| vec![Reply::Raw(b"\x30\x20\x00".to_vec()), Reply::Close]);
    let closing = || raw(vec![Reply::Close]);
    let leaving = || raw(vec![Reply::Raw(b"\xe0\x00".to_vec()), Reply::Silence]);
    let (mut peer, config) = start(service([closing(), half, ok("3"), leaving(), ok("5")])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    for stage in [Stage::Register, Stage::Query] {
        let outcome = match stage {
            Stage::Register => register(&mut transport).await,
            _ => query(&mut transport).await,
        };
        let error = connection_error(outcome);
        assert_eq!(error.stage, stage, "{stage:?}");
        assert!(error.lost && error.retryable && error.request_may_have_been_sent, "{stage:?}");
        let host = localhost(peer.address);
        assert!(error.message.contains(&format!("{host} closed")), "{error}");
    }
    assert_eq!(query(&mut transport).await.unwrap().body, b"3");
    let error = connection_error(query(&mut transport).await);
    assert!(error.lost && error.message.contains("DISCONNECT"), "{error}");
    assert_eq!(query(&mut transport).await.unwrap().body, b"5");
    for connection in [1, 2, 3, 3, 4] {
        let (seen, topic, _) = peer.publication().await;
        assert_eq!(seen, connection, "nothing is sent twice: {topic}");
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_made_anew() {
    let then_close: peer::Answer = Box::new(|rid| {
        let topic = format!("$dps/registrations/res/200/?$rid={rid}");
        vec![publish(&topic, "1", None), Reply::Close]
    });
    let (mut peer, config) = start(service([then_close, ok("2")])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    peer.closed(1).await;
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
    let (connection, packets) = peer.flight().await;
    assert_eq!((connection, kinds(&packets)), (2, FLIGHT.to_vec()));
}

#[tokio::test]
async fn a_connection_closed_right_before_a_request_is_made_anew() {
    let (mut peer, config) = start(service([ok("1"), ok("2")])).await;
    let (address, mut connections) = cuttable(peer.address).await;
    let endpoint: Endpoint = localhost(address).parse().unwrap();
    let mut transport =
        MqttTransport::new(adjusted(config, |config| config.endpoint = endpoint)).unwrap();
    // On a task: whatever the test's own future waits for, the runtime looks at its sockets first.
    let session = tokio::spawn(async move {
        assert_eq!(register(&mut transport).await.unwrap().body, b"1");
        connections.recv().await.unwrap().now();
        assert_eq!(query(&mut transport).await.unwrap().body, b"2");
    });
    session.await.unwrap();
    assert_eq!((peer.publication().await.0, peer.publication().await.0), (1, 2));
}

#[tokio::test]
async fn an_end_of_session_to_a_peer_that_is_gone_is_no_failure() {
    let then_close: peer::Answer = Box::new(|rid| {
        let topic = format!("$dps/registrations/res/200/?$rid={rid}");
        vec![publish(&topic, "1", None), Reply::Close]
    });
    let (mut peer, config) = start(service([then_close])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    register(&mut transport).await.unwrap();
    peer.closed(1).await;
    transport.end_session().await.unwrap();
}

#[tokio::test]
async fn a_dropped_call_leaves_no_connection_and_the_next_one_works() {
    let silent = |_: &Packet| vec![Reply::Silence];
    let good = service([ok("{}")]);
    let script: Script = Arc::new(move |connection, packet| match (connection, packet) {
        (1, _) => silent(packet),
        (2, Packet::Subscribe(_)) => silent(packet),
        (3, Packet::Publish(_)) => silent(packet),
        (1..=3, _) => courtesy(packet),
        _ => good(connection, packet),
    });
    let (mut peer, config) = start(script).await;
    let mut transport = MqttTransport::new(config).unwrap();
    for connection in 1..=3 {
        tokio::select! {
            outcome = register(&mut transport) => panic!("{outcome:?}"),
            seen = peer.flight() => assert_eq!(seen.0, connection),
        }
        peer.closed(connection).await;
    }
    assert_eq!(query(&mut transport).await.unwrap().body, b"{}");
}

#[tokio::test]
async fn a_dropped_transport_leaves_no_connection() {
    let (mut peer, config) = start(service([ok("{}")])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    register(&mut transport).await.unwrap();
    drop(transport);
    peer.closed(1).await;
}

/// On a real socket the clock can't be paused: the shortest keep-alive there is.
#[tokio::test]
async fn a_session_is_kept_alive_while_an_answer_is_awaited_and_between_two() {
    let (mut peer, config) = start(service([ok("1")])).await;
    let mqtt = adjusted(MqttConfig::new(config), |mqtt| mqtt.keep_alive = Duration::from_secs(1));
    let mut transport = MqttTransport::new(mqtt).unwrap();
    register(&mut transport).await.unwrap();
    assert_eq!(kinds(&peer.flight().await.1), FLIGHT);
    assert_eq!(
        kinds(&peer.flight().await.1),
        [Sent::Acknowledge],
        "acknowledged at once when nothing follows"
    );
    for _ in 0..2 {
        assert_eq!(kinds(&peer.flight().await.1), [Sent::Ping]);
    }

    let deaf: Script = Arc::new(|_, packet| match packet {
        Packet::Publish(_) | Packet::Pingreq => vec![],
        other => courtesy(other),
    });
    let (mut peer, config) = start(deaf).await;
    let mqtt = adjusted(MqttConfig::new(config), |mqtt| mqtt.keep_alive = Duration::from_secs(1));
    let mut transport = MqttTransport::new(mqtt).unwrap();
    let error = connection_error(register(&mut transport).await);
    assert!(error.lost && error.message.contains("does not answer pings"), "{error}");
    assert_eq!(kinds(&peer.flight().await.1), FLIGHT);
    assert_eq!(kinds(&peer.flight().await.1), [Sent::Ping]);
}

#[tokio::test]
async fn a_proxy_is_asked_for_the_port_of_mqtt() {
    let (mut peer, config) = start(service([ok("1")])).await;
    let (address, mut requests) = open_proxy(peer.address).await;
    let config = adjusted(config, |config| {
        config.endpoint = "localhost".parse().unwrap();
        config.proxy = proxy("me:secret@", address).into();
    });
    register(&mut MqttTransport::new(config).unwrap()).await.unwrap();
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("CONNECT localhost:8883 HTTP/1.1\r\n"), "{request}");
    assert_eq!(kinds(&peer.flight().await.1), FLIGHT);
}

#[tokio::test]
async fn every_fault_on_the_way_is_the_same_as_on_the_other_transports() {
    let mut faults = faults::all().await;
    // Those of proxies name the port of HTTPS: see the tests over WebSocket.
    faults.retain(|fault| matches!(fault.config.proxy, ProxyChoice::None));
    meets(faults, |config| MqttTransport::new(config).unwrap()).await;
}

#[tokio::test]
async fn a_closed_port_suggests_another_way() {
    let config = config("127.0.0.1", Roots::default());
    if let Err(Error::Connection(error)) = register(&mut MqttTransport::new(config).unwrap()).await
    {
        assert!(error.message.contains("127.0.0.1:8883"), "{error}");
        let hint = error.hint.unwrap_or_default();
        assert!(error.stage != Stage::Connect || hint.contains("443"), "{hint}");
    } else {
        panic!("nobody vouches for a server there");
    }
}
