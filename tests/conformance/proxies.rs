//! Through an HTTP proxy, or not at all.

use dps_client::{Error, ErrorKind, NoProxy, ProxyChoice, Stage};
use dps_conformance::{Bench, Cell, ProxyScript, TestProxy};
use dps_emulator::Behavior;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_proxy_is_gone_through),
        case!(a_proxy_with_a_password_is_gone_through),
        case!(a_proxy_that_wants_a_password_is_named),
        case!(a_proxy_that_refuses_is_named),
        case!(a_proxy_that_closes_is_named),
        case!(a_proxy_that_dies_in_the_tunnel_is_a_tls_error),
        case!(a_proxy_that_is_not_there_is_never_gone_around),
        case!(an_exempted_host_is_reached_directly),
    ]
}

async fn through(
    cell: Cell,
    script: ProxyScript,
    user: &str,
) -> (Bench, TestProxy, Result<(), Error>) {
    let bench = Bench::new(cell, Behavior::new().polls(1)).await;
    let proxy = TestProxy::start(script).await;
    let config = bench.config.clone().proxy(proxy.choice(user));
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

async fn a_proxy_that_refuses_is_named(cell: Cell) {
    let error = refused(cell, ProxyScript::Refuse("403 Forbidden"), Stage::Proxy).await;
    // The HTTP client below doesn't tell which refusal it was.
    let said = if cell.transport == dps_client::Transport::Http { "refusal" } else { "403" };
    assert!(error.to_string().contains(said), "{error}");
    refused(cell, ProxyScript::Refuse("502 Bad Gateway"), Stage::Proxy).await;
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
    let error = bench.register_with(bench.config.clone().proxy(choice)).await.unwrap_err();
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
    let config = bench.config.clone().proxy(ProxyChoice::Url(url.except(list)));
    bench.register_with(config).await.unwrap();
}
