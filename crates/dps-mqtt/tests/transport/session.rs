//! What goes out, in which order, in how many flights.

use dps_connect::Carrier;
use dps_state_machine::Json;
use mqtt_proto::{Protocol, QoS, QosPid};

#[cfg(feature = "websocket")]
use super::websocket::upgrade;
use super::*;

#[tokio::test]
async fn a_registration_leaves_in_one_flight_and_each_poll_in_one_more() {
    let answers = [answer("202", "&retry-after=3", "1"), ok("2"), ok("3")];
    let (mut peer, config) = start(service(answers)).await;
    let mut transport = MqttTransport::new(config).unwrap();

    let response = register(&mut transport).await.unwrap();
    let (connection, packets) = peer.flight().await;
    assert_eq!((connection, kinds(&packets)), (1, FLIGHT.to_vec()));
    let [Packet::Connect(connect), Packet::Subscribe(subscribe), Packet::Publish(put)] =
        &packets[..]
    else {
        panic!("{packets:?}")
    };
    assert_eq!(connect.protocol, Protocol::V311);
    assert!(connect.clean_session && connect.last_will.is_none());
    assert_eq!((&*connect.client_id, connect.keep_alive), ("pump-17", 60));
    let user_name = connect.username.as_deref().unwrap();
    assert_eq!(
        user_name,
        "0ne00AABBCC/registrations/pump-17/api-version=2021-06-01&ClientVersion=dps%2F0.1.0"
    );
    let password = str::from_utf8(connect.password.as_deref().unwrap()).unwrap();
    assert!(
        password.starts_with("SharedAccessSignature sr=0ne00AABBCC%2Fregistrations%2Fpump-17&sig=")
    );
    let [(filter, QoS::Level1)] = &subscribe.topics[..] else { panic!("{subscribe:?}") };
    assert_eq!(&**filter, "$dps/registrations/res/#");
    let rid = peer::rid(&put.topic_name);
    assert_eq!(
        &*put.topic_name,
        format!("$dps/registrations/PUT/iotdps-register/?$rid={rid}").as_str()
    );
    assert_eq!(put.payload, &br#"{"registrationId":"pump-17"}"#[..]);
    assert!(matches!(put.qos_pid, QosPid::Level1(pid) if pid.value() != subscribe.pid.value()));

    assert_eq!((response.status, response.body.as_slice()), (202, &b"1"[..]));
    assert_eq!(response.retry_after, Some(std::time::Duration::from_secs(3)));
    let metadata: Vec<_> = response.protocol_result.iter().collect();
    let topic = format!("$dps/registrations/res/202/?$rid={rid}&retry-after=3");
    assert_eq!(
        metadata,
        [("topic", topic.as_str()), ("status", "202"), ("$rid", rid), ("retry-after", "3")]
    );

    let mut last_rid = rid.to_owned();
    for _ in 0..2 {
        query(&mut transport).await.unwrap();
        let (connection, topic, body) = peer.publication().await;
        let rid = peer::rid(&topic).to_owned();
        assert_ne!(rid, last_rid, "each request has its own");
        let path = "$dps/registrations/GET/iotdps-get-operationstatus/";
        assert_eq!(topic, format!("{path}?$rid={rid}&operationId=4.op"));
        assert_eq!((connection, body.len()), (1, 0));
        last_rid = rid;
    }
}

#[tokio::test]
async fn the_end_of_session_takes_the_last_acknowledgement_along_and_closes() {
    let (mut peer, config) = start(service([ok("1"), ok("2")])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    for session in 1..=2 {
        register(&mut transport).await.unwrap();
        assert_eq!(kinds(&peer.flight().await.1), FLIGHT, "{session:?}");
        transport.end_session().await.unwrap();
        let (connection, end_of_session) = peer.flight().await;
        assert_eq!(
            (connection, kinds(&end_of_session)),
            (session, [Sent::Acknowledge, Sent::Disconnect].to_vec()),
            "{session:?}"
        );
        let [Packet::Puback(pid), _] = end_of_session[..] else { panic!("{end_of_session:?}") };
        assert_eq!(pid.value(), 7, "{session:?}");
        peer.closed(session).await;
        transport.end_session().await.unwrap();
    }
}

#[tokio::test]
async fn pipelining_can_be_turned_off() {
    let (mut peer, config) = start(service([ok("1")])).await;
    let mut transport =
        MqttTransport::new(MqttConfig::new(adjusted(config, |config| config.pipelined = false)))
            .unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    for kind in FLIGHT {
        assert_eq!(kinds(&peer.flight().await.1), [kind], "{kind:?}");
    }
}

#[tokio::test]
async fn a_pipelined_start_that_is_lost_is_tried_once_more_step_by_step() {
    // This server closes when a packet comes before its CONNACK.
    let good = service([ok("1"), ok("2")]);
    let script: Script = std::sync::Arc::new(move |connection, packet| match connection {
        1 => vec![Reply::Close],
        _ => good(connection, packet),
    });
    let (mut peer, config) = start(script).await;
    let mut transport = MqttTransport::new(config).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    let seen = [peer.flight().await, peer.flight().await, peer.flight().await, peer.flight().await];
    let seen: Vec<_> =
        seen.iter().map(|(connection, packets)| (*connection, kinds(packets))).collect();
    let step = |sent| (2, vec![sent]);
    let expected =
        [(1, FLIGHT.to_vec()), step(Sent::Connect), step(Sent::Subscribe), step(Sent::Publish)];
    assert_eq!(seen, expected);

    // The transport remembers it.
    transport.end_session().await.unwrap();
    peer.closed(2).await;
    assert_eq!(register(&mut transport).await.unwrap().body, b"2");
    let (connection, packets) = peer.flight().await;
    assert_eq!((connection, kinds(&packets)), (3, [Sent::Connect].to_vec()));
}

/// What a broker may do to packets that come before its CONNACK or SUBACK, as the bytes that it sends last, if any.
/// `0x20` and `0x90` stand for whichever it is.
fn deaths(is_suback: bool) -> Vec<(Vec<u8>, bool)> {
    let code = |code: u8| match is_suback {
        true => vec![0x90, 3, 0, 1, code],
        false => vec![0x20, 2, 0, code],
    };
    let early = [0x80, 0x81, 0x82, 0x83, 0x8F, 0x90, 0x91, 0x93, 0x95, 0x96, 0x99, 0x9B, 0xFF];
    let judged = [0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8B, 0x8C, 0x97, 0x9C, 0x9D, 0x9F, 0x84];
    let mut deaths = vec![
        (vec![], true),
        (vec![0xE0, 0], true),
        // More than a packet may have, and a packet of clients only.
        (vec![0xE0, 0xFF, 0xFF, 0xFF, 0xFF, 1], is_suback),
        (vec![0x82, 0], is_suback),
        (vec![0xF0, 0], is_suback),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), false),
    ];
    if is_suback {
        deaths.retain(|(bytes, _)| !bytes.starts_with(b"HTTP"));
        deaths.push((vec![0x90, 1, 0], true));
    } else {
        deaths.push((vec![0x20, 2, 0, 99], true));
        deaths.extend((1..=5).map(|refusal| (code(refusal), false)));
    }
    deaths.extend(early.map(|reason| (code(reason), true)));
    deaths.extend(judged.map(|reason| (code(reason), false)));
    deaths.extend([0x81, 0x82, 0x93, 0x96].map(|reason| (vec![0xE0, 1, reason], true)));
    deaths.extend([0x87, 0x89, 0x8B, 0x9D].map(|reason| (vec![0xE0, 1, reason], false)));
    deaths
}

/// Whether the connection ends with a reset, whether packets come early, and whether it goes over WebSocket.
const CELLS: [(bool, bool, bool); 5] = [
    (false, true, false),
    (true, true, false),
    (false, false, false),
    (false, true, true),
    (true, true, true),
];

/// A connection that is reset when it is dropped.
fn resetting(tls: support::ServerStream) -> support::ServerStream {
    tls.get_ref().0.set_zero_linger().unwrap();
    tls
}

/// Whatever the symptom: closing, resetting, refusing and nonsense. What judges the device or the service is no symptom, and
/// without an early packet there is none.
#[tokio::test]
async fn what_a_broker_does_to_early_packets_is_tried_once_more_step_by_step() {
    let (tls, roots) = trusted_tls();
    for is_suback in [false, true] {
        for (bytes, is_early) in deaths(is_suback) {
            for (resets, pipelined, over_websocket) in CELLS {
                // What a reset throws away was not heard.
                if resets && !bytes.is_empty() {
                    continue;
                }
                // A code in a packet is read alike over both; how the connection ends is not.
                if over_websocket && !matches!(bytes.first(), None | Some(0xE0)) {
                    continue;
                }
                let (good, last) = (service([ok("1"), ok("2")]), bytes.clone());
                let script: Script = std::sync::Arc::new(move |connection, packet| match packet {
                    _ if connection > 1 => good(connection, packet),
                    Packet::Connect(_) if is_suback => courtesy(packet),
                    _ => vec![Reply::Raw(last.clone()), Reply::Close],
                });
                let tls = tls.clone();
                let mut peer = match (over_websocket, resets) {
                    (false, false) => Peer::start(tls, script).await,
                    (false, true) => {
                        Peer::over(tls, script, |tls| async { Some(resetting(tls)) }).await
                    }
                    #[cfg(feature = "websocket")]
                    (true, false) => {
                        Peer::over(tls, script, |tls| upgrade::accept(tls, "mqtt")).await
                    }
                    #[cfg(feature = "websocket")]
                    (true, true) => {
                        let upgrade = |tls| upgrade::accept(resetting(tls), "mqtt");
                        Peer::over(tls, script, upgrade).await
                    }
                    #[cfg(not(feature = "websocket"))]
                    (true, _) => continue,
                };
                let config = config(&localhost(peer.address), roots.clone());
                let mut config =
                    MqttConfig::new(adjusted(config, |config| config.pipelined = pipelined));
                if over_websocket {
                    config.carrier = Carrier::WebSocket;
                }
                let mut transport = MqttTransport::new(config).unwrap();
                let case = format!(
                    "{bytes:x?}, SUBACK: {is_suback}, reset: {resets}, early: {pipelined}, WebSocket: {over_websocket}"
                );
                let outcome = register(&mut transport).await;
                let is_assigned = outcome.as_ref().is_ok_and(|response| response.body == b"1");
                assert_eq!(is_assigned, is_early && pipelined, "{case}: {outcome:?}");
                if !is_assigned {
                    continue;
                }
                // The transport remembers it.
                transport.end_session().await.unwrap();
                peer.closed(2).await;
                assert_eq!(register(&mut transport).await.unwrap().body, b"2", "{case}");
                let first = loop {
                    let (connection, packets) = peer.flight().await;
                    if connection == 3 {
                        break kinds(&packets);
                    }
                };
                assert_eq!(first, [Sent::Connect], "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_start_is_tried_once_more_and_never_after_an_answer() {
    let closing: Script = std::sync::Arc::new(|_, _| vec![Reply::Close]);
    let (mut peer, config) = start(closing).await;
    let mut transport = MqttTransport::new(config).unwrap();
    let error = connection_error(register(&mut transport).await);
    assert!(error.lost && error.retryable && error.stage == Stage::Register);
    assert!(!error.request_may_have_been_sent, "CONNECT alone went out the second time");
    assert_eq!(peer.flight().await.0, 1);
    assert_eq!(peer.flight().await.0, 2);

    let accepting: Script = std::sync::Arc::new(|_, packet| match packet {
        Packet::Publish(_) => vec![Reply::Close],
        other => courtesy(other),
    });
    let (mut peer, config) = start(accepting).await;
    let error = connection_error(register(&mut MqttTransport::new(config).unwrap()).await);
    assert!(error.lost && error.request_may_have_been_sent);
    assert_eq!(peer.flight().await.0, 1);
    peer.closed(1).await;
    assert!(error.message.contains("closed the connection before it had answered"), "{error}");
}

#[tokio::test]
async fn the_largest_request_goes_through_whole_and_may_be_refused() {
    let body = "x".repeat(RegistrationRequest::MAX_BODY_BYTES - 100);
    let large =
        request().payload(format!("{{\"p\":\"{body}\"}}").parse::<Json>().unwrap()).unwrap();
    let (_peer, config) = start(service([ok("1")])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    assert_eq!(
        transport.registration_request(&large, &Progress::default()).await.unwrap().body,
        b"1"
    );

    let refusing: Script = std::sync::Arc::new(|_, packet| match packet {
        Packet::Connect(_) => {
            vec![peer::connack(mqtt_proto::v3::ConnectReturnCode::NotAuthorized), Reply::Close]
        }
        other => courtesy(other),
    });
    let (_peer, config) = start(refusing).await;
    let response = MqttTransport::new(config)
        .unwrap()
        .registration_request(&large, &Progress::default())
        .await
        .unwrap();
    assert_eq!(response.status, 401);
}

#[tokio::test]
async fn another_device_gets_a_session_of_its_own() {
    let (mut peer, config) = start(service([ok("1"), ok("2")])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    register(&mut transport).await.unwrap();
    peer.flight().await;
    let other = RegistrationRequest::new("pump-18".parse().unwrap());
    transport.registration_request(&other, &Progress::default()).await.unwrap();
    let mut seen = vec![peer.flight().await, peer.flight().await];
    seen.sort_by_key(|(connection, _)| *connection);
    assert_eq!(kinds(&seen[0].1), [Sent::Acknowledge, Sent::Disconnect]);
    let Packet::Connect(connect) = &seen[1].1[0] else { panic!("{seen:?}") };
    assert_eq!(&*connect.client_id, "pump-18");
}
