//! Through to the service, and what is said when there is no way.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use std::sync::{Arc, Mutex};

use dps_connect::{
    Connector, Roots,
    internal::{Stream, failure},
};
use dps_state_machine::{Progress, Stage, Step};
use rustls::{
    ProtocolVersion,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use support::{
    Authority, adjusted, closed_address, config, echo, faults, head, listen, listen_tls, localhost,
    open_proxy, proxy, server_config, transport::connection_error,
};

async fn says_hello(mut stream: Stream) -> bool {
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    &answer == b"hello"
}

#[tokio::test]
async fn both_versions_connect_and_every_step_is_reported() {
    let authority = Authority::new("Test CA");
    let server = authority.server(|_| ());
    for (version, expected) in
        [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)]
    {
        let address = listen_tls(server_config(&server, None, &[version]), echo).await;
        let steps = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&steps);
        let progress = Progress::new(move |step| seen.lock().unwrap().push(step.clone()));
        let config = config(&localhost(address), authority.roots());
        let stream = Connector::new(config).unwrap().connect(8883, &progress).await.unwrap();
        let (tcp, tls) = stream.get_ref();
        assert_eq!(tls.protocol_version(), Some(expected));
        assert_eq!(tls.alpn_protocol(), None);
        assert!(tcp.get_ref().nodelay().unwrap(), "no delay");
        assert!(says_hello(stream).await);
        let steps = std::mem::take(&mut *steps.lock().unwrap());
        let expected = [
            Step::Resolving { host: "localhost".into() },
            Step::Connecting { address: localhost(address) },
            Step::Tls { server_name: "localhost".into() },
            Step::Connected,
        ];
        assert_eq!(steps, expected);
    }
}

#[tokio::test]
async fn addresses_connect_without_a_lookup() {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let address = listen_tls(tls, echo).await;
    let connector = Connector::new(config(&address.to_string(), authority.roots())).unwrap();
    assert!(says_hello(connector.connect(443, &Progress::default()).await.unwrap()).await);
}

#[tokio::test]
async fn the_whole_chain_of_the_device_goes_out() {
    let root = Authority::new("Root CA");
    let device = root.intermediate("Factory CA").device("pump-17");
    for version in [&TLS12, &TLS13] {
        let (show, mut shown) = mpsc::unbounded_channel();
        let tls = server_config(&root.server(|_| ()), Some(&root), &[version]);
        let address = listen_tls(tls, move |tls| {
            let chain: Vec<_> =
                tls.get_ref().1.peer_certificates().unwrap().iter().map(|c| c.to_vec()).collect();
            show.send(chain).unwrap();
            echo(tls)
        })
        .await;
        let config = adjusted(config(&localhost(address), root.roots()), |config| {
            config.attestation = device.attestation()
        });
        let stream =
            Connector::new(config).unwrap().connect(443, &Progress::default()).await.unwrap();
        assert!(says_hello(stream).await, "{version:?}");
        let sent: Vec<_> = device.chain.iter().map(|c| c.to_vec()).collect();
        assert_eq!(shown.recv().await.unwrap(), sent, "{version:?}");
    }
}

/// With TLS 1.3 the client is through before the server has looked at its certificate.
#[tokio::test]
async fn a_refusal_of_the_device_certificate_is_named_in_both_versions() {
    let known = Authority::new("Known CA");
    let device = Authority::new("Unknown CA").device("pump-17");
    for version in [&TLS12, &TLS13] {
        let tls = server_config(&known.server(|_| ()), Some(&known), &[version]);
        let address = listen_tls(tls, echo).await;
        let config = adjusted(config(&localhost(address), known.roots()), |config| {
            config.attestation = device.attestation()
        });
        let peer = failure::Peer::of(&config, 443).unwrap();
        let error = match Connector::new(config).unwrap().connect(443, &Progress::default()).await {
            Ok(mut stream) => {
                let broke = stream.read_u8().await.unwrap_err();
                failure::lost(Stage::Register, &peer, &broke)
            }
            refused => connection_error(refused),
        };
        assert_eq!(error.stage, Stage::Tls, "{error}");
        assert!(error.message.contains("refused this device's certificate"), "{error}");
        assert!(error.message.contains("does not know the authority"), "{error}");
        assert!(!error.retryable && !error.lost, "{version:?}");
    }
}

#[tokio::test]
async fn every_fault_has_its_stage_its_reason_and_a_hint() {
    for fault in faults::all().await {
        let name = fault.name;
        let connector = Connector::new(fault.config).unwrap();
        let error = connection_error(connector.connect(443, &Progress::default()).await);
        assert_eq!(error.stage, fault.stage, "{name}: {error}");
        assert!(error.message.contains(fault.says), "{name}: {error}");
        assert_eq!(error.retryable, fault.retryable, "{name}: {error}");
        assert!(!error.lost && !error.request_may_have_been_sent, "{name}: {error}");
    }
}

#[tokio::test]
async fn a_closed_port_of_mqtt_or_amqp_points_to_the_websocket() {
    for (port, transport) in [(8883, "MQTT over WebSocket"), (5671, "AMQP over WebSocket")] {
        let config = config("127.0.0.1", Roots::default());
        let error = connection_error(
            Connector::new(config).unwrap().connect(port, &Progress::default()).await,
        );
        assert!(error.message.contains(&format!("127.0.0.1:{port} refused")), "{error}");
        assert!(error.hint.as_ref().unwrap().contains(transport), "{:?}", error.hint);
    }
}

#[tokio::test]
async fn a_tunnel_is_asked_for_by_name_with_the_user() {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let (through, mut asked) = open_proxy(listen_tls(tls, echo).await).await;
    for (user_info, authorization) in
        [("", ""), ("me:p%40ss@", "Proxy-Authorization: Basic bWU6cEBzcw==\r\n")]
    {
        let config = adjusted(config("dps.example:8443", authority.roots()), |config| {
            config.proxy = proxy(user_info, through).into();
            config.user_agent = "test/1".to_owned();
        });
        let stream =
            Connector::new(config).unwrap().connect(443, &Progress::default()).await.unwrap();
        assert!(says_hello(stream).await);
        let expected = format!(
            "CONNECT dps.example:8443 HTTP/1.1\r\nHost: dps.example:8443\r\nUser-Agent: test/1\r\n{authorization}\r\n"
        );
        assert_eq!(asked.recv().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_host_that_the_proxy_leaves_out_is_reached_directly() {
    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), None, &[&TLS13]);
    let address = listen_tls(tls, echo).await;
    let dead = proxy("", closed_address());
    let direct = adjusted(config(&localhost(address), authority.roots()), |config| {
        config.proxy = dead.clone().except("localhost".parse().unwrap()).into()
    });
    assert!(
        says_hello(
            Connector::new(direct).unwrap().connect(443, &Progress::default()).await.unwrap()
        )
        .await
    );
    let around = adjusted(config(&localhost(address), authority.roots()), |config| {
        config.proxy = dead.except("other.example".parse().unwrap()).into()
    });
    let error =
        connection_error(Connector::new(around).unwrap().connect(443, &Progress::default()).await);
    assert_eq!(error.stage, Stage::Proxy, "never around the proxy: {error}");
}

#[tokio::test]
async fn the_password_of_the_proxy_is_nowhere_to_be_seen() {
    let address = listen(|mut tcp| async move {
        head(&mut tcp).await;
        let _ = tcp.write_all(b"HTTP/1.1 407 No\r\n\r\n").await;
    })
    .await;
    let config = adjusted(config("dps.example", Roots::default()), |config| {
        config.proxy = proxy("me:hunter2@", address).into()
    });
    let connector = Connector::new(config).unwrap();
    let error = connector.connect(443, &Progress::default()).await.unwrap_err();
    assert!(error.hint().unwrap().contains("\"me\""), "{error:?}");
    let shown = format!("{connector:?} {error:?} {error} {:?}", error.hint());
    assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
}

/// Dropped while the server holds its breath, at each stage: the server sees the connection closed.
#[tokio::test]
async fn a_dropped_connect_leaves_no_socket() {
    for through_proxy in [false, true] {
        let (event, mut events) = mpsc::unbounded_channel();
        let address = listen(move |mut tcp| {
            let event = event.clone();
            async move {
                let mut buffer = [0; 2048];
                while let Ok(read) = tcp.read(&mut buffer).await {
                    event.send(read).unwrap();
                    if read == 0 {
                        return;
                    }
                }
                event.send(0).unwrap();
            }
        })
        .await;
        let mut config = config(&localhost(address), Roots::default());
        if through_proxy {
            config.proxy = proxy("", address).into();
        }
        let (connector, progress) = (Connector::new(config).unwrap(), Progress::default());
        tokio::select! {
            outcome = connector.connect(443, &progress) => panic!("{outcome:?}"),
            first = events.recv() => assert!(first.unwrap() > 0),
        }
        while events.recv().await.unwrap() > 0 {}
    }
}

#[tokio::test]
async fn settings_that_can_not_work_are_refused_before_any_io() {
    let no_roots = config("dps.example", Roots::empty());
    assert!(Connector::new(no_roots).unwrap_err().to_string().contains("roots"));
    for user_agent in ["", "a\r\nb: c", "é"] {
        let config = adjusted(config("dps.example", Roots::default()), |config| {
            config.user_agent = user_agent.to_owned()
        });
        assert!(
            Connector::new(config).unwrap_err().to_string().contains("user agent"),
            "{user_agent:?}"
        );
    }
}
