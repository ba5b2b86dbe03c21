//! What the server says, sense and nonsense.

use mqtt_proto::v3::ConnectReturnCode;

use super::*;

#[tokio::test]
async fn answers_to_other_requests_are_ignored() {
    let many: peer::Answer = Box::new(|rid| {
        let topic = |rid: &str| format!("$dps/registrations/res/200/?$rid={rid}");
        vec![
            publish(&topic("other"), "wrong rid", None),
            publish(&topic(&format!("{rid}0")), "longer rid", Some(8)),
            publish("$dps/registrations/res/200/?$rid=x&junk&=&%", "junk", None),
            publish("$dps/registrations/res/other/", "no status", None),
            publish(&format!("$dps/other/res/200/?$rid={rid}"), "wrong topic", None),
            publish(&format!("$dps/registrations/POST/x/?$rid={rid}"), "wrong topic", None),
            publish(&format!("{}&retry-after=5", topic(rid)), "right", None),
            publish(&topic(rid), "twice", None),
        ]
    });
    let late: peer::Answer = Box::new({
        let first = std::sync::Mutex::new(String::new());
        move |rid| {
            let old = first.lock().unwrap().clone();
            vec![
                publish(&format!("$dps/registrations/res/200/?$rid={old}"), "late", None),
                publish(&format!("$dps/registrations/res/200/?$rid={rid}"), "new", None),
            ]
        }
    });
    let (_peer, config) = start(service([many, late])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body, b"right");
    assert_eq!(query(&mut transport).await.unwrap().body, b"new");
}

#[tokio::test]
async fn a_refused_session_is_an_answer_of_the_service() {
    let cases = [
        (ConnectReturnCode::IdentifierRejected, 400, "CONNACK 2"),
        (ConnectReturnCode::ServerUnavailable, 503, "CONNACK 3"),
        (ConnectReturnCode::BadUserNameOrPassword, 401, "CONNACK 4"),
        (ConnectReturnCode::NotAuthorized, 401, "CONNACK 5"),
    ];
    for (code, status, says) in cases {
        let script: Script =
            std::sync::Arc::new(move |_, _| vec![peer::connack(code), Reply::Close]);
        let (mut peer, config) = start(script).await;
        let mut transport = MqttTransport::new(config).unwrap();
        for connection in 1..=2 {
            let response = register(&mut transport).await.unwrap();
            assert_eq!(response.status, status, "{says}");
            assert!(response.reason.unwrap().contains(says), "{says}");
            assert_eq!(peer.flight().await.0, connection, "a refused session is not kept");
        }
    }
}

#[tokio::test]
async fn a_refused_subscription_is_an_answer_of_the_service() {
    let script: Script = std::sync::Arc::new(|_, packet| match packet {
        // The codec would write a wrong byte.
        Packet::Subscribe(_) => vec![Reply::Raw(b"\x90\x03\x00\x01\x80".to_vec())],
        Packet::Publish(_) => vec![],
        other => courtesy(other),
    });
    let (_peer, config) = start(script).await;
    for pipelined in [true, false] {
        let mqtt = MqttConfig::new(adjusted(config.clone(), |config| config.pipelined = pipelined));
        let response = register(&mut MqttTransport::new(mqtt).unwrap()).await.unwrap();
        assert_eq!(response.status, 403, "{pipelined:?}");
        let reason = response.reason.unwrap();
        assert!(
            reason.contains("SUBACK 128") && reason.contains("$dps/registrations/res/#"),
            "{pipelined:?}"
        );
    }
}

#[tokio::test]
async fn error_answers_are_handed_up_as_they_came() {
    let body = r#"{"errorCode":404201,"trackingId":"t","message":"m"}"#;
    let (_peer, config) = start(service([answer("404", "", body), ok("2")])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    let response = register(&mut transport).await.unwrap();
    assert_eq!((response.status, response.body), (404, body.as_bytes().to_vec()));
    assert_eq!(query(&mut transport).await.unwrap().body, b"2", "the session goes on");
}

#[tokio::test]
async fn a_malformed_answer_is_a_protocol_error_of_its_request() {
    let bytes = |bytes: &[u8]| raw(vec![Reply::Raw(bytes.to_vec())]);
    let status = |status| answer(status, "", "");
    let cases = [
        (bytes(b"\xff\xff\xff\xff\xff"), "not MQTT"),
        (bytes(b"\x30\xff\xff\xff\xff\x01"), "not MQTT"),
        (bytes(b"\x20\x02\x00\x63"), "not MQTT"),
        (bytes(b"\x30\x03\x00\x05a"), "not MQTT"),
        (bytes(b"\x10\x00"), "not MQTT"),
        (bytes(b"\xc0\x00"), "only clients send"),
        (bytes(b"\x30\x80\x80\x80\x01"), "larger than 1048576 bytes"),
        (status("nonsense"), "\"nonsense\" in its topic is no status"),
        (status(""), "\"\" in its topic is no status"),
        (status("99999"), "\"99999\" in its topic is no status"),
        (answer("200", "", "x".repeat(1024 * 1024 + 1)), "larger than 1048576 bytes"),
    ];
    for (nonsense, says) in cases {
        let says = says.to_owned();
        let (_peer, config) = start(service([ok("1"), nonsense, ok("3")])).await;
        let mut transport = MqttTransport::new(config).unwrap();
        register(&mut transport).await.unwrap();
        let error = protocol_error(query(&mut transport).await);
        assert_eq!(error.stage, Stage::Query, "{says}");
        assert!(error.reason.contains(&says), "{} should say {says}", error.reason);
        assert_eq!(query(&mut transport).await.unwrap().body, b"3", "on a new connection");
    }
}

#[tokio::test]
async fn a_server_of_something_else_is_named() {
    let cases: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak MQTT"),
        (b"\xd0\x00", "does not speak MQTT"),
        (b"\x90\x03\x00\x01\x01", "does not speak MQTT"),
        (b"\x20\x02\x00\x01", "CONNACK 1"),
    ];
    for (bytes, says) in cases {
        let script: Script =
            std::sync::Arc::new(move |_, _| vec![Reply::Raw(bytes.to_vec()), Reply::Silence]);
        let (_peer, config) = start(script).await;
        let error = protocol_error(register(&mut MqttTransport::new(config).unwrap()).await);
        assert!(error.reason.contains(says), "{} should say {says}", error.reason);
        assert_eq!(error.stage, Stage::Register, "{bytes:?}");
    }
}

#[tokio::test]
async fn the_largest_answer_is_read_whole_however_it_drips() {
    let body = "x".repeat(1024 * 1024);
    let expected = body.clone();
    let (_peer, config) = start(service([answer("200", "", body)])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    assert!(register(&mut transport).await.unwrap().body == expected.as_bytes());

    let dripping: peer::Answer = Box::new(|rid| {
        let topic = format!("$dps/registrations/res/200/?$rid={rid}");
        let Reply::Packet(packet) = publish(&topic, "drip", None) else { panic!() };
        let bytes = packet.encode().unwrap().as_ref().to_vec();
        bytes.into_iter().map(|byte| Reply::Raw(vec![byte])).collect()
    });
    let (_peer, config) = start(service([dripping])).await;
    assert_eq!(register(&mut MqttTransport::new(config).unwrap()).await.unwrap().body, b"drip");
}
