//! Who the device is, and what comes of it.

use fe2o3_amqp_types::sasl::SaslCode;

use super::{peer::*, *};

#[tokio::test]
async fn sasl_outcomes_are_answers() {
    for (code, status) in [
        (SaslCode::Auth, 401),
        (SaslCode::Sys, 500),
        (SaslCode::SysPerm, 400),
        (SaslCode::SysTemp, 503),
    ] {
        let said = [SASL, &mechanisms(&["PLAIN"]), &outcome(code.clone())].concat();
        let (_peer, config) =
            start(vec![vec![Turn::Read(LOGIN), Turn::Send(said), Turn::Cut]]).await;
        let response = register(&mut AmqpTransport::new(config).unwrap()).await.unwrap();
        assert_eq!(response.status, status, "{code:?}");
        assert!(response.reason.unwrap().contains("SASL outcome"), "{code:?}");
        assert_eq!(
            response.protocol_result.get("sasl-server-mechanisms"),
            Some("PLAIN"),
            "{code:?}"
        );
    }
}

#[tokio::test]
async fn a_server_without_sasl_can_not_take_a_token() {
    let (_peer, config) = start(vec![vec![Turn::Read(LOGIN), Turn::Send(AMQP.to_vec())]]).await;
    let error = protocol_error(register(&mut AmqpTransport::new(config).unwrap()).await);
    assert!(error.reason.contains("no SASL"), "{error}");
}

#[tokio::test]
async fn an_unexpected_sasl_challenge_is_a_protocol_error() {
    let said = [SASL, &mechanisms(&["PLAIN"]), &challenge()].concat();
    let (_peer, config) = start(vec![vec![Turn::Read(LOGIN), Turn::Send(said)]]).await;
    let error = protocol_error(register(&mut AmqpTransport::new(config).unwrap()).await);
    assert!(error.reason.contains("PLAIN has none"), "{error}");
}

/// A device with a certificate, and a server that takes it.
async fn certified(scripts: Vec<Vec<Turn>>) -> (Peer, AmqpTransport) {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), Some(&authority), &[&TLS13]);
    let peer = Peer::start(tls, scripts).await;
    let mut config = config(&localhost(peer.address), authority.roots());
    config.attestation = authority.device("pump-17").attestation();
    (peer, AmqpTransport::new(config).unwrap())
}

#[tokio::test]
async fn a_server_that_insists_on_sasl_gets_external_or_anonymous() {
    for offer in [&["EXTERNAL", "PLAIN"][..], &["ANONYMOUS"], &["anonymous", "external"]] {
        let insists = vec![Turn::Read(START), Turn::Send(SASL.to_vec()), Turn::Cut];
        let takes = vec![
            Turn::Read(&[Sent::SaslHeader]),
            Turn::Send([SASL, &mechanisms(offer)].concat()),
            Turn::Read(&[Sent::SaslInit]),
            // A challenge that asks again is answered with nothing.
            Turn::Send(challenge()),
            Turn::Read(&[Sent::SaslResponse]),
            Turn::Send(outcome(SaslCode::Ok)),
            Turn::Read(START),
            Turn::Send(started()),
            Turn::Read(REQUEST),
            answers(0, "1"),
        ];
        let (_peer, mut transport) = certified(vec![insists, takes]).await;
        assert_eq!(register(&mut transport).await.unwrap().body, b"1", "{offer:?}");
    }
}

#[tokio::test]
async fn sasl_mechanisms_without_one_for_a_certificate_are_named() {
    for (offer, says) in [(&["PLAIN"][..], "PLAIN"), (&[], "no mechanism at all")] {
        let insists = vec![Turn::Read(START), Turn::Send(SASL.to_vec()), Turn::Cut];
        let offers = [SASL, &mechanisms(offer)].concat();
        let offers = vec![Turn::Read(&[Sent::SaslHeader]), Turn::Send(offers), Turn::ReadOn];
        let (_peer, mut transport) = certified(vec![insists, offers]).await;
        let response = register(&mut transport).await.unwrap();
        let reason = response.reason.unwrap();
        assert_eq!(response.status, 401, "{reason}");
        assert!(reason.contains(says) && reason.contains("EXTERNAL"), "{reason}");
    }
}

/// Nor does it have to say more than what it offers.
#[tokio::test]
async fn sasl_mechanisms_without_one_for_a_token_are_named() {
    for (offer, says) in [
        (&["EXTERNAL"][..], "EXTERNAL"),
        (&["ANONYMOUS", "SCRAM-SHA-256"], "ANONYMOUS, SCRAM-SHA-256"),
        (&[], "no mechanism at all"),
    ] {
        for (pipelined, first) in [(true, LOGIN), (false, &[Sent::SaslHeader][..])] {
            let offers = Turn::Send([SASL, &mechanisms(offer)].concat());
            let (_peer, config) = start(vec![vec![Turn::Read(first), offers, Turn::ReadOn]]).await;
            let config = AmqpConfig::new(adjusted(config, |config| config.pipelined = pipelined));
            let mut transport = AmqpTransport::new(config).unwrap();
            let error = protocol_error(register(&mut transport).await);
            assert!(error.reason.contains(says) && error.reason.contains("PLAIN"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_refused_certificate_comes_with_the_chain_that_was_sent() {
    let json = r#"{"errorCode":401002,"message":"CA certificate not found."}"#;
    let refusal = close(Some(error("amqp:unauthorized-access", Some(json))));
    let said = [AMQP, &frame(&open()), &refusal].concat();
    let (_peer, mut transport) = certified(vec![vec![Turn::Read(START), Turn::Send(said)]]).await;
    let response = register(&mut transport).await.unwrap();
    assert_eq!(response.status, 401);
    let hint = response.hint.unwrap();
    assert!(hint.contains("pump-17") && hint.contains("2 certificates"), "{hint}");
}

#[tokio::test]
async fn a_device_certificate_that_the_server_refuses_is_named() {
    names_a_refused_certificate(|config| AmqpTransport::new(config).unwrap()).await;
}

#[tokio::test]
async fn what_can_not_be_is_refused_before_any_connection() {
    let authority = Authority::new("Test CA");
    let (mut peer, mut config) = start(vec![]).await;
    config.attestation = authority.device("another-device").attestation();
    let refused = register(&mut AmqpTransport::new(config).unwrap()).await.unwrap_err();
    assert_eq!(refused.kind(), dps_state_machine::ErrorKind::Configuration);
    tokio::select! {
        biased;
        seen = peer.over_next() => panic!("{seen:?}"),
        () = tokio::task::yield_now() => {}
    }
}

#[tokio::test]
async fn tokens_and_ids_longer_than_a_small_frame_go_out_whole() {
    let (mut peer, config) = start(vec![[usual_start(), vec![answers(0, "1")]].concat()]).await;
    let long = "d".repeat(128);
    let request = RegistrationRequest::new(long.parse().unwrap());
    let scope = "0".repeat(64).parse::<dps_state_machine::IdScope>().unwrap();
    let mut transport =
        AmqpTransport::new(adjusted(config, |config| config.id_scope = scope)).unwrap();
    assert_eq!(
        transport.registration_request(&request, &Progress::default()).await.unwrap().body,
        b"1"
    );
    drop(transport);
    let seen = peer.over_next().await;
    assert!(seen.starts_with(&[LOGIN, START, REQUEST].concat()), "{seen:?}");
}

#[tokio::test]
async fn nothing_that_is_printed_has_the_token() {
    let (_peer, mut transport) = started_with(vec![answers(0, "1")]).await;
    register(&mut transport).await.unwrap();
    let shown = format!("{transport:?}");
    assert!(!shown.contains("SharedAccessSignature") && shown.contains("***"), "{shown}");
}
