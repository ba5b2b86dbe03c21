//! Who may use the admin port: no page of a browser but its own, and beyond loopback nobody without the token.

use std::net::{IpAddr, Ipv4Addr};

use super::{Port, config, started};

/// One request for each route that reads or changes something.
const REQUESTS: [&str; 9] = [
    "GET /events",
    "GET /info",
    "GET /ca.pem",
    "GET /clock",
    "PUT /clock",
    "POST /reset",
    "DELETE /devices",
    "GET /devices/pump-17",
    "GET /nope",
];

const JSON: &str = "Content-Type: application/json\r\n";

#[tokio::test]
async fn it_answers_for_names_and_addresses_of_the_loopback_only() {
    let (_emulator, port) = started().await;
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.2:1", "[::1]", "[::1]:80"] {
        let got = port.ask("GET /events", &format!("Host: {host}\r\n"), "").await;
        assert_eq!(got.status, 200, "{host}");
    }
    for host in
        ["attacker.example", "localhost.attacker.example:80", "10.0.0.1", "[::2]", "", "a b"]
    {
        for request in REQUESTS {
            let got = port.ask(request, &format!("{JSON}Host: {host}\r\n"), "{}").await;
            let (status, field, value, message) = got.refused();
            assert_eq!((status, field.as_str(), value.as_str()), (403, "Host", host), "{request}");
            assert!(message.contains("localhost"), "{message}");
        }
    }
}

#[tokio::test]
async fn a_page_of_another_origin_can_neither_read_nor_change_anything() {
    let (emulator, port) = started().await;
    let own = port.0;
    for origin in [
        "https://attacker.example".to_owned(),
        "null".to_owned(),
        "http://localhost".to_owned(),
        "http://localhost:1".to_owned(),
        format!("https://localhost:{own}"),
        format!("http://127.0.0.1:{own}"),
        format!("http://localhost:{own}.attacker.example"),
        String::new(),
    ] {
        let headers = format!("{JSON}Host: localhost:{own}\r\nOrigin: {origin}\r\n");
        for request in REQUESTS {
            let (status, field, value, _) = port.ask(request, &headers, "{}").await.refused();
            assert_eq!((status, field.as_str()), (403, "Origin"), "{request} {origin}");
            assert_eq!(value, origin);
        }
        let asks = format!("{headers}Access-Control-Request-Method: PUT\r\n");
        let got = port.ask("OPTIONS /clock", &asks, "").await;
        assert!(
            got.status == 403 && !got.head.to_ascii_lowercase().contains("access-control"),
            "{got:?}"
        );
    }
    let headers = format!("{JSON}Host: localhost:{own}\r\nOrigin: http://localhost:{own}\r\n");
    let got = port.ask("PUT /clock", &headers, r#"{"frozen":true}"#).await;
    assert_eq!(got.status, 200, "its own page may: {got:?}");
    assert!(!got.head.to_ascii_lowercase().contains("access-control"), "{got:?}");
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    drop(emulator);
}

#[tokio::test]
async fn what_a_form_of_a_page_can_send_changes_nothing() {
    let (emulator, port) = started().await;
    let before = port.get("/clock").await.json()["frozen"].clone();
    for kind in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
    ] {
        let header =
            if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        for request in ["PUT /clock", "POST /reset", "PUT /connections"] {
            let (status, field, value, _) =
                port.ask(request, &header, r#"{"frozen":true}"#).await.refused();
            assert_eq!((status, field.as_str(), value.as_str()), (415, "Content-Type", kind));
        }
    }
    assert_eq!(port.get("/clock").await.json()["frozen"], before);
    let with_charset = "Content-Type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(port.ask("PUT /clock", with_charset, r#"{"frozen":true}"#).await.status, 200);
    drop(emulator);
}

#[tokio::test]
async fn no_get_changes_anything() {
    let (emulator, port) = started().await;
    for path in
        ["/reset", "/clock?frozen=true", "/devices?forget=1", "/connections?connections=pass"]
    {
        port.ask(&format!("GET {path}"), JSON, r#"{"frozen":true}"#).await;
    }
    assert_eq!(port.get("/clock").await.json()["frozen"], false);
    assert_eq!(port.get("/reset").await.header("allow"), Some("POST"));
    assert!(emulator.events().is_empty(), "not even an event");
}

#[tokio::test]
async fn beyond_loopback_it_wants_the_token() {
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    for given in [None, Some("given-token")] {
        let mut config = config().admin_listen([everywhere]).server_names(["emulator.test"]);
        if let Some(token) = given {
            config = config.admin_token(token);
            assert!(!format!("{config:?}").contains(token), "it is not shown");
        }
        let emulator = config.start().await.unwrap();
        let (port, token) = (Port::of(&emulator), emulator.admin_token().unwrap().to_owned());
        given.map_or_else(|| assert!(token.len() >= 43), |given| assert_eq!(token, given));
        let short = &token[..token.len() - 1];
        for wrong in [
            String::new(),
            "Authorization: Bearer\r\n".into(),
            format!("Authorization: Bearer {short}\r\n"),
            format!("Authorization: Bearer {token}x\r\n"),
            format!("Authorization: Basic {token}\r\n"),
        ] {
            for request in REQUESTS {
                let got = port.ask(request, &format!("{JSON}{wrong}"), "{}").await;
                assert_eq!(
                    (got.status, got.header("www-authenticate")),
                    (401, Some("Bearer")),
                    "{request}"
                );
                assert!(!got.body.contains(&token) && got.refused().1 == "Authorization");
            }
        }
        let right = format!("Authorization: bearer {token}\r\n");
        for host in ["localhost", "192.0.2.7:80", "emulator.test", "[2001:db8::1]:1"] {
            let got = port.ask("GET /info", &format!("{right}Host: {host}\r\n"), "").await;
            assert_eq!(got.status, 200, "{host}: {got:?}");
        }
        let other = format!("{right}Host: attacker.example\r\n");
        assert_eq!(port.ask("GET /info", &other, "").await.status, 403);
        for open in ["/health", "/ready"] {
            assert_eq!(port.get(open).await.status, 200, "{open}");
        }
    }
    let (emulator, _) = started().await;
    assert_eq!(emulator.admin_token(), None, "on loopback there is none");
    let guarded = config().admin_token("mine").start().await.unwrap();
    assert_eq!(Port::of(&guarded).get("/info").await.status, 401, "unless one is given");
}

#[tokio::test]
async fn a_token_that_no_header_can_hold_is_refused_without_showing_it() {
    for token in ["", "two words", "caf\u{e9}", "line\nfeed", &"x".repeat(513)] {
        let error = config().admin_token(token).start().await.unwrap_err().to_string();
        assert!(error.starts_with("admin-token: ") && error.contains("visible"), "{error}");
        assert!(token.is_empty() || !error.contains(token), "{error}");
    }
}
