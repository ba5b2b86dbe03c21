//! Through an HTTP proxy, or not at all.

use dps_client::{Error, ErrorKind, NoProxy, ProxyChoice, Stage};
use dps_conformance::{Bench, Cell, ProxyScript, TestProxy, adjusted};
use dps_emulator::Behavior;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_proxy_is_gone_through),
        case!(a_proxy_with_a_password_is_gone_through).before_the_credential(),
        case!(a_proxy_that_wants_a_password_is_named).before_the_credential(),
        case!(a_proxy_that_refuses_is_named).before_the_credential(),
        case!(a_proxy_may_open_a_tunnel_in_odd_words).before_the_credential(),
        case!(a_proxy_that_wants_another_authentication_is_named).before_the_credential(),
        case!(a_proxy_that_closes_is_named).before_the_credential(),
        case!(a_proxy_that_dies_in_the_tunnel_is_a_tls_error).before_the_credential(),
        case!(a_proxy_that_is_not_there_is_never_gone_around).before_the_credential(),
        case!(an_exempted_host_is_reached_directly).before_the_credential(),
    ]
}

async fn through(
    cell: Cell,
    script: ProxyScript,
    user: &str,
) -> (Bench, TestProxy, Result<(), Error>) {
    let bench = Bench::new(cell, Behavior::new().polls(1)).await;
    let proxy = TestProxy::start(script).await;
    let config = adjusted(bench.config.clone(), |config| config.proxy = proxy.choice(user));
    let outcome = bench.register_with(config).await.map(|_| ());
    (bench, proxy, outcome)
}

async fn refused(cell: Cell, script: ProxyScript, stage: Stage) -> Error {
    let (bench, _, outcome) = through(cell, script, "").await;
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Connection, Some(stage)), "{error:?}");
    assert!(bench.requests().is_empty(), "it went around the proxy");
    error
}

async fn a_proxy_is_gone_through(cell: Cell) {
    let (bench, proxy, outcome) = through(cell, ProxyScript::Open, "").await;
    outcome.unwrap();
    assert_eq!((proxy.tunnels(), bench.connections()), (1, 1));
}

async fn a_proxy_with_a_password_is_gone_through(cell: Cell) {
    let (_, proxy, outcome) = through(cell, ProxyScript::Authenticated, "user:pa%3Ass@").await;
    outcome.unwrap();
    assert_eq!(proxy.tunnels(), 1);
}

async fn a_proxy_that_wants_a_password_is_named(cell: Cell) {
    let error = refused(cell, ProxyScript::Authenticated, Stage::Proxy).await;
    assert!(error.to_string().contains("407"), "{error}");
    assert!(!error.is_retryable() && error.hint().is_some());

    let (_, _, outcome) = through(cell, ProxyScript::Authenticated, "user:wr0ng-s3cret@").await;
    let error = outcome.unwrap_err();
    assert_eq!(error.stage(), Some(Stage::Proxy));
    assert!(!format!("{error}{error:?}").contains("s3cret"));
}

/// Whatever bytes a refusal has, every transport says the same of it: what a client should take is taken.
async fn a_proxy_that_refuses_is_named(cell: Cell) {
    const NOT_HTTP: &str = "its answer is not HTTP";
    let answers: &[(&[u8], &str)] = &[
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "it answered \"403 Forbidden\""),
        (b"HTTP/1.0 502\r\n\r\n", "it answered \"502\""),
        (b"HTTP/1.1 403 Verboten f\xfcr alle\r\n\r\n", "it answered \"403 Verboten f"),
        ("HTTP/1.1 403 Défendu\r\nVia: é\r\n\r\n".as_bytes(), "it answered \"403 Défendu\""),
        (b"HTTP/1.1 403 No\r\nVia: a,\r\n\tb\r\n\r\n", "it answered \"403 No\""),
        (b"HTTP/1.1 403 No\nVia: a\n\n", "it answered \"403 No\""),
        (b"HTTP/1.1 403 No\r\nno field\r\n: x\r\nVia : a\r\n\r\n", "it answered \"403 No\""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\n\r\n", "it answered \"403 No\""),
        (b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 503 No\r\n\r\n", "it answered \"503 No\""),
        (b"HTTP/1.1 302 Found\r\nLocation: http://portal.example\r\n\r\n", "\"302 Found\""),
        (b"220 smtp.example ESMTP\r\n\r\n", NOT_HTTP),
        (b"HTTP/1.1 403 No\r\nA: \0\r\n\r\n", NOT_HTTP),
        (b"HTTP/2 403\r\n\r\n", NOT_HTTP),
    ];
    for (answer, says) in answers {
        let error = refused(cell, ProxyScript::Answer(answer), Stage::Proxy).await;
        assert!(error.to_string().contains(says), "{error} should say {says}");
        assert!(error.is_retryable() && error.hint().is_some(), "{error:?}");
    }
}

/// The answer that opens a tunnel may be as odd. The HTTP client reads it itself: there the tunnel is not used, and
/// that is said.
async fn a_proxy_may_open_a_tunnel_in_odd_words(cell: Cell) {
    let answers: &[(&[u8], bool)] = &[
        (b"HTTP/1.0 200\r\n\r\n", true),
        (b"HTTP/1.1 200 Verbunden f\xfcr dich\r\nVia: \xe9\r\n\r\n", true),
        (b"HTTP/1.1 200 OK\nVia: a\n\n", true),
        (b"HTTP/1.1 200 OK\r\nVia: a,\r\n b\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nno field\r\n\r\n", false),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", false),
        (b"HTTP/1.1 201 Created\r\n\r\n", false),
    ];
    for (answer, http_reads) in answers {
        let (_, proxy, outcome) = through(cell, ProxyScript::OpenWith(answer), "").await;
        if *http_reads || cell.transport != dps_client::Transport::Http {
            outcome.unwrap();
            assert_eq!(proxy.requests().len(), 1, "a tunnel that stands is asked for once");
        } else {
            let error = outcome.unwrap_err();
            assert_eq!(error.stage(), Some(Stage::Proxy), "{answer:?}");
            assert!(error.to_string().contains("can't read the answer"), "{error}");
        }
    }
}

/// A refusal of the credentials is final, and they are never sent again: that may lock an account.
async fn a_proxy_that_wants_another_authentication_is_named(cell: Cell) {
    let answers: &[(&[u8], &str, &str)] = &[
        (
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n",
            "asks for the authentication \"NTLM, Negotiate\" (407)",
            "only Basic authentication",
        ),
        (
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: Digest realm=\"a, b\", nonce=\"c\"\r\n\r\n",
            "asks for the authentication \"Digest",
            "only Basic authentication",
        ),
        (
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM, basic realm=\"a\"\r\n\r\n",
            "refused our credentials (407)",
            "user",
        ),
        (b"HTTP/1.1 407 No\r\n\r\n", "refused our credentials (407)", "user"),
    ];
    for (answer, says, hint) in answers {
        for user in ["", "user:pa%3Ass@"] {
            let (_, proxy, outcome) = through(cell, ProxyScript::Answer(answer), user).await;
            let error = outcome.unwrap_err();
            assert_eq!(
                (error.stage(), error.is_retryable()),
                (Some(Stage::Proxy), false),
                "{user:?}"
            );
            assert!(error.to_string().contains(says), "{error} should say {says}");
            assert!(error.hint().unwrap().contains(hint), "{:?}", error.hint());
            let sent = proxy.requests().iter().filter(|head| head.contains("Basic ")).count();
            assert_eq!(sent, usize::from(!user.is_empty()), "{:?}", proxy.requests());
        }
    }
}

async fn a_proxy_that_closes_is_named(cell: Cell) {
    refused(cell, ProxyScript::Close, Stage::Proxy).await;
}

async fn a_proxy_that_dies_in_the_tunnel_is_a_tls_error(cell: Cell) {
    refused(cell, ProxyScript::CloseTunnel, Stage::Tls).await;
}

async fn a_proxy_that_is_not_there_is_never_gone_around(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let proxy = TestProxy::start(ProxyScript::Open).await;
    let choice = proxy.choice("");
    drop(proxy);
    tokio::task::yield_now().await;
    let error = bench
        .register_with(adjusted(bench.config.clone(), |config| config.proxy = choice))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.stage()),
        (ErrorKind::Connection, Some(Stage::Proxy)),
        "{error:?}"
    );
    assert!(bench.requests().is_empty());
}

async fn an_exempted_host_is_reached_directly(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let proxy = TestProxy::start(ProxyScript::Refuse("403 Forbidden")).await;
    let ProxyChoice::Url(url) = proxy.choice("") else { panic!("a proxy's URL") };
    let list: NoProxy = "example.com,localhost".parse().unwrap();
    let config =
        adjusted(bench.config.clone(), |config| config.proxy = ProxyChoice::Url(url.except(list)));
    bench.register_with(config).await.unwrap();
}
