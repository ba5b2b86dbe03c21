//! Certificates, tokens, and what is refused before any I/O.

use std::sync::{Arc, Mutex};

use mqtt_proto::v3::ConnectReturnCode;

use super::*;

#[tokio::test]
async fn a_device_certificate_goes_out_with_its_chain_and_without_a_password() {
    let root = Authority::new("Root CA");
    let device = root.intermediate("Factory CA").device("pump-17");
    for version in [&TLS12, &TLS13] {
        let tls = server_config(&root.server(|_| ()), Some(&root), &[version]);
        let mut peer = Peer::start(tls, service([answer("401", "", "{}")])).await;
        let config = adjusted(config(&localhost(peer.address), root.roots()), |config| {
            config.attestation = device.attestation()
        });
        let hint = register(&mut MqttTransport::new(config).unwrap()).await.unwrap().hint.unwrap();
        assert!(hint.contains("CN=pump-17") && hint.contains("CN=Factory CA"), "{hint}");
        let (_, packets) = peer.flight().await;
        let Packet::Connect(connect) = &packets[0] else { panic!("{packets:?}") };
        assert_eq!(connect.password, None, "{version:?}");
        assert!(connect.username.is_some(), "{version:?}");
    }
}

#[tokio::test]
async fn a_session_refused_to_a_certificate_says_which_chain_was_sent() {
    let root = Authority::new("Root CA");
    let script: Script = Arc::new(|_, _| vec![peer::connack(ConnectReturnCode::NotAuthorized)]);
    let tls = server_config(&root.server(|_| ()), Some(&root), &[&TLS13]);
    let peer = Peer::start(tls, script).await;
    let config = adjusted(config(&localhost(peer.address), root.roots()), |config| {
        config.attestation = root.device("pump-17").attestation()
    });
    let response = register(&mut MqttTransport::new(config).unwrap()).await.unwrap();
    assert!(response.hint.unwrap().contains("CN=pump-17"));
}

#[tokio::test]
async fn a_device_certificate_that_the_server_refuses_is_named() {
    names_a_refused_certificate(|config| MqttTransport::new(config).unwrap()).await;
}

#[tokio::test]
async fn what_mqtt_cannot_carry_is_refused_before_any_io() {
    let authority = Authority::new("Test CA");
    let steps = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&steps);
    let progress = Progress::new(move |step| noted.lock().unwrap().push(step.clone()));
    let config = config("localhost:1", authority.roots());
    let other = adjusted(config.clone(), |config| {
        config.attestation = authority.device("pump-18").attestation()
    });

    let mut transport = MqttTransport::new(config.clone()).unwrap();
    let forced = request().force_registration(true);
    let error = transport.registration_request(&forced, &progress).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let message = error.to_string();
    assert!(message.contains("forceRegistration") && message.contains("http, amqp and amqp-ws"));

    let mut transport = MqttTransport::new(other).unwrap();
    let error = transport.registration_request(&request(), &progress).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("pump-17"), "{error}");

    let endless = adjusted(config.clone(), |config| config.user_agent = "x".repeat(70_000));
    let mut transport = MqttTransport::new(endless).unwrap();
    let error = transport.registration_request(&request(), &progress).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("user agent"), "{error}");

    for (keep_alive, shown) in [(0, "0ns"), (500, "500ms"), (65_536_000, "65536s")] {
        let keep_alive = std::time::Duration::from_millis(keep_alive);
        let mqtt = adjusted(MqttConfig::new(config.clone()), |mqtt| mqtt.keep_alive = keep_alive);
        let message = MqttTransport::new(mqtt).unwrap_err().to_string();
        assert!(message.contains("keep-alive") && message.contains(shown), "{message}");
    }
    assert_eq!(*steps.lock().unwrap(), [], "nothing was tried");
}

#[tokio::test]
async fn each_connection_gets_a_fresh_token_and_none_is_shown() {
    let (mut peer, config) = start(service([raw(vec![Reply::Close]), ok("2")])).await;
    let mut transport = MqttTransport::new(config).unwrap();
    let error = connection_error(register(&mut transport).await);
    query(&mut transport).await.unwrap();
    let shown = format!("{transport:?} {error:?}");
    for _ in 0..2 {
        let (_, packets) = peer.flight().await;
        let Packet::Connect(connect) = &packets[0] else { panic!("{packets:?}") };
        let password = str::from_utf8(connect.password.as_deref().unwrap()).unwrap();
        assert!(password.contains("&skn=registration"));
        assert!(!shown.contains("SharedAccessSignature") && !shown.contains("c2VjcmV0"), "{shown}");
    }
}
