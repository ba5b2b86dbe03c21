//! Connections: kept, lost, dropped, through a proxy, and not to be had.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_register_and_polls_until_the_session_ends() {
    let (mut server, config) = start(std::iter::repeat_n(Answer::ok("{}"), 32)).await;
    let mut transport = HttpTransport::new(config).unwrap();
    for session in 1..=2 {
        register(&mut transport).await.unwrap();
        assert_eq!(server.request().await.0, session, "{session:?}");
        for _ in 0..10 {
            query(&mut transport).await.unwrap();
            assert_eq!(server.request().await.0, session, "{session:?}");
        }
        transport.end_session().await.unwrap();
        server.closed(session).await;
        transport.end_session().await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_lost_and_the_next_call_makes_a_new_one() {
    let broken = [
        "",
        "HTTP/1.1 20",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"opera",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"op",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ];
    for bytes in broken {
        let answers =
            [Answer::raw(bytes).then_close(), Answer::raw(bytes).then_close(), Answer::ok("{}")];
        let (mut server, config) = start(answers).await;
        let mut transport = HttpTransport::new(config).unwrap();
        for stage in [Stage::Register, Stage::Query] {
            let outcome = match stage {
                Stage::Register => register(&mut transport).await,
                _ => query(&mut transport).await,
            };
            let error = connection_error(outcome);
            assert_eq!(error.stage, stage, "{bytes:?}");
            assert!(error.lost && error.retryable && error.request_may_have_been_sent, "{stage:?}");
            let host = localhost(server.address);
            assert!(error.message.contains(&format!("{host} closed")), "{error}");
        }
        assert_eq!(query(&mut transport).await.unwrap().body, b"{}", "{bytes:?}");
        for connection in 1..=3 {
            assert_eq!(server.request().await.0, connection, "nothing is sent twice: {bytes:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_made_anew() {
    let answers = [
        Answer::ok("1").then_close(),
        Answer::with("200 OK", "Connection: close\r\n", "2"),
        Answer::ok("3"),
    ];
    let (mut server, config) = start(answers).await;
    let mut transport = HttpTransport::new(config).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    server.closed(1).await;
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
    assert_eq!(query(&mut transport).await.unwrap().body, b"3");
    assert_eq!((server.request().await.0, server.request().await.0), (2, 3));
}

#[tokio::test]
async fn a_connection_closed_right_before_a_request_is_made_anew() {
    let (mut server, config) = start([Answer::ok("1"), Answer::ok("2")]).await;
    let (address, mut connections) = cuttable(server.address).await;
    let endpoint: Endpoint = localhost(address).parse().unwrap();
    let mut transport =
        HttpTransport::new(adjusted(config, |config| config.endpoint = endpoint)).unwrap();
    assert_eq!(register(&mut transport).await.unwrap().body, b"1");
    // The connection is back in its place: the next request waits for nothing.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    connections.recv().await.unwrap().now();
    assert_eq!(query(&mut transport).await.unwrap().body, b"2");
    assert_eq!((server.request().await.0, server.request().await.0), (1, 2));
}

#[tokio::test]
async fn a_dropped_call_leaves_no_connection_and_the_next_one_works() {
    let silent_then_ok = [
        Answer::raw(""),
        Answer::raw("HTTP/1.1 200 OK\r\n"),
        Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
        Answer::ok("{}"),
    ];
    let (mut server, config) = start(silent_then_ok).await;
    let mut transport = HttpTransport::new(config).unwrap();
    for connection in 1..=3 {
        tokio::select! {
            outcome = register(&mut transport) => panic!("{outcome:?}"),
            seen = server.request() => assert_eq!(seen.0, connection),
        }
        server.closed(connection).await;
    }
    assert_eq!(query(&mut transport).await.unwrap().body, b"{}");
}

/// The same while the connection is being made: in the TLS handshake, and before the proxy has answered.
#[tokio::test]
async fn a_call_dropped_while_connecting_leaves_no_socket() {
    for through_proxy in [false, true] {
        let (tell, mut events) = tokio::sync::mpsc::unbounded_channel();
        let address = listen(move |mut tcp| {
            let tell = tell.clone();
            async move {
                let first = tcp.read_u8().await;
                tell.send("something").unwrap();
                swallow(tcp).await;
                tell.send(if first.is_ok() { "closed" } else { "broken" }).unwrap();
            }
        })
        .await;
        let mut config = config(&localhost(address), Roots::default());
        if through_proxy {
            config.proxy = proxy("", address).into();
        }
        let mut transport = HttpTransport::new(config).unwrap();
        for _ in 0..3 {
            tokio::select! {
                outcome = register(&mut transport) => panic!("{outcome:?}"),
                event = events.recv() => assert_eq!(event, Some("something")),
            }
            assert_eq!(events.recv().await, Some("closed"));
        }
    }
}

#[tokio::test]
async fn failed_registrations_leave_no_task_behind() {
    let broken = Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").then_close();
    let answers = [broken, Answer::ok("{}"), Answer::raw("HTTP/1.1 junk\r\n\r\n")];
    let (_server, config) = start(answers.into_iter().cycle().take(300)).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let mut transport = HttpTransport::new(config).unwrap();
    let mut kinds = Vec::new();
    for _ in 0..300 {
        kinds.push(register(&mut transport).await.map_err(|error| error.kind()).err());
        transport.end_session().await.unwrap();
    }
    let third = [Some(ErrorKind::Connection), None, Some(ErrorKind::Protocol)];
    assert_eq!(kinds, third.repeat(100));
    let all_gone = async {
        while metrics.num_alive_tasks() > before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_gone).await.expect("tasks are left");
}

#[tokio::test]
async fn each_step_of_a_new_connection_is_reported_and_none_of_a_kept_one() {
    let (mut server, config) = start(std::iter::repeat_n(Answer::ok("{}"), 9)).await;
    let (through, _asked) = open_proxy(server.address).await;
    let steps = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&steps);
    let progress = Progress::new(move |step| tell.lock().unwrap().push(step.clone()));
    let host = localhost(server.address);
    let tls = Step::Tls { server_name: "localhost".into() };
    let connecting = |address: String| Step::Connecting { address };
    let by_name = [
        Step::Resolving { host: "localhost".into() },
        connecting(host.clone()),
        tls.clone(),
        Step::Connected,
    ];
    let by_address = [
        connecting(server.address.to_string()),
        Step::Tls { server_name: "127.0.0.1".into() },
        Step::Connected,
    ];
    let proxied = [Step::Proxy { proxy: through.to_string() }, tls, Step::Connected];
    let address: Endpoint = server.address.to_string().parse().unwrap();
    let cases = [
        (config.clone(), by_name.to_vec()),
        (adjusted(config.clone(), |config| config.endpoint = address), by_address.to_vec()),
        (adjusted(config, |config| config.proxy = proxy("", through).into()), proxied.to_vec()),
    ];
    for (config, expected) in cases {
        let mut transport = HttpTransport::new(config.clone()).unwrap();
        transport.registration_request(&request(), &progress).await.unwrap();
        let connection = server.request().await.0;
        assert_eq!(std::mem::take(&mut *steps.lock().unwrap()), expected);
        let query = (request(), operation("4.op"));
        transport.query_operation_status(&query.0, &query.1, &progress).await.unwrap();
        assert_eq!(server.request().await.0, connection, "{expected:?}");
        assert_eq!(*steps.lock().unwrap(), [], "{expected:?}");
        // The other transports report the same.
        Connector::new(config).unwrap().connect(443, &progress).await.unwrap();
        assert_eq!(std::mem::take(&mut *steps.lock().unwrap()), expected);
    }
}

#[tokio::test]
async fn one_tunnel_through_the_proxy_serves_the_session() {
    let (mut server, config) = start(std::iter::repeat_n(Answer::ok("{}"), 9)).await;
    let (through, mut asked) = open_proxy(server.address).await;
    // Only the proxy knows where this name leads.
    let config = adjusted(config, |config| config.endpoint = "dps.example".parse().unwrap());
    for (user_info, authorization) in [("", None), ("me:p%40ss@", Some("Basic bWU6cEBzcw=="))] {
        let config =
            adjusted(config.clone(), |config| config.proxy = proxy(user_info, through).into());
        let mut transport = HttpTransport::new(config).unwrap();
        register(&mut transport).await.unwrap();
        query(&mut transport).await.unwrap();
        let request = asked.recv().await.unwrap();
        assert!(request.starts_with("CONNECT dps.example:443 HTTP/1.1\r\n"), "{request}");
        let sent = request.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("proxy-authorization").then_some(value)
        });
        assert_eq!(sent, authorization, "{user_info:?}");
        for _ in 0..2 {
            let (_, head, _) = server.request().await;
            assert!(!head.contains("proxy-authorization"), "the service sees none of it: {head}");
        }
        assert!(asked.try_recv().is_err(), "one tunnel");
    }
}

#[tokio::test]
async fn a_host_that_the_proxy_leaves_out_is_reached_directly() {
    let (_server, config) = start([Answer::ok("{}")]).await;
    let dead = proxy("", closed_address());
    let direct = adjusted(config.clone(), |config| {
        config.proxy = dead.clone().except("localhost".parse().unwrap()).into()
    });
    assert_eq!(register(&mut HttpTransport::new(direct).unwrap()).await.unwrap().status, 200);
    let around = adjusted(config.clone(), |config| config.proxy = dead.clone().into());
    let error = connection_error(register(&mut HttpTransport::new(around).unwrap()).await);
    assert_eq!(error.stage, Stage::Proxy, "never around the proxy: {error}");
    // What can't go through the proxy is refused rather than sent around it.
    let bare = adjusted(config, |config| {
        config.endpoint = "[::1]:1".parse().unwrap();
        config.proxy = dead.into();
    });
    let error = register(&mut HttpTransport::new(bare).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("[::1]:1"), "{error}");
}

#[tokio::test]
async fn every_fault_is_the_same_as_on_the_other_transports() {
    for fault in faults::all().await {
        let name = fault.name;
        let through_proxy = !matches!(fault.config.proxy, ProxyChoice::None);
        let connector = Connector::new(fault.config.clone()).unwrap();
        let Err(Error::Connection(theirs)) = connector.connect(443, &Progress::default()).await
        else {
            panic!("{name}")
        };
        let mut transport = HttpTransport::new(fault.config).unwrap();
        for _ in 0..2 {
            let ours = connection_error(register(&mut transport).await);
            assert_eq!(ours.stage, fault.stage, "{name}: {ours}");
            assert_eq!(ours.stage, theirs.stage, "{name}: {ours}");
            assert_eq!(ours.retryable, theirs.retryable, "{name}: {ours}");
            assert_eq!((ours.lost, ours.request_may_have_been_sent), (false, false), "{name}");
            assert!(ours.message.contains(fault.says), "{name}: {ours}");
            assert_eq!(ours.hint, theirs.hint, "{name}");
            if !through_proxy {
                assert_eq!(ours.message, theirs.message, "{name}");
            }
        }
    }
}
