//! What needs a name with several addresses, which no test can give this machine.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use dps_connect::{Config, internal::tls_config};
use dps_state_machine::Progress;
use reqwest::{Method, Request};
use tokio::io::AsyncWriteExt;

use crate::connection::Connection;

#[path = "../../dps-connect/tests/support/mod.rs"]
mod support;

use support::{adjusted, config, head, listen_tls, silent, transport::trusted_tls};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// A server; how many connections it got, and the configuration of a device that trusts it.
async fn server() -> (SocketAddr, Arc<AtomicUsize>, Config) {
    let (tls, roots) = trusted_tls();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let address = listen_tls(tls, move |mut tls| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move {
            head(&mut tls).await;
            tls.write_all(OK).await.unwrap();
            let _ = tls.shutdown().await;
        }
    })
    .await;
    let config = config(&format!("dps.example:{}", address.port()), roots);
    (address, connections, config)
}

/// Asks the server whose name has these addresses, or whose proxy's name has; the time until the answer.
async fn asked(config: &Config, addresses: Vec<SocketAddr>) -> reqwest::Result<Duration> {
    let connection = Connection::new(config, &tls_config(config).unwrap()).unwrap();
    connection.watch.follow(&Progress::default());
    connection.watch.answer_lookups_with(addresses);
    let url = format!("https://{}/", config.endpoint).parse().unwrap();
    let begin = Instant::now();
    let answer = connection.execute(Request::new(Method::GET, url)).await?;
    assert_eq!(answer.text().await?, "{}");
    Ok(begin.elapsed())
}

fn at(last: u8, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, last), port).into()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_address_that_does_not_answer_costs_a_quarter_of_a_second() {
    let (good, connections, config) = server().await;
    let (hole, _kept) = silent(at(2, good.port())).await;
    let took = asked(&config, vec![hole, good]).await.unwrap();
    assert!((250..900).contains(&took.as_millis()), "{took:?}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    // Nobody waits for the second one when the first one answers, nor is it asked.
    let took = asked(&config, vec![good, hole]).await.unwrap();
    assert!(took.as_millis() < 250, "{took:?}");
    // One that refuses is passed by at once, and the next one gets its time.
    let (refused, _taken) = refusing(3, good.port());
    let took = asked(&config, vec![refused, hole, good]).await.unwrap();
    assert!((250..900).contains(&took.as_millis()), "{took:?}");
    // The time for a connection counts over both attempts.
    let config =
        adjusted(config, |config| config.connect_timeout = Some(Duration::from_millis(400)));
    let (other, _kept) = silent(at(4, good.port())).await;
    let begin = Instant::now();
    let error = asked(&config, vec![hole, other]).await.unwrap_err();
    assert!(error.is_connect() && (390..800).contains(&begin.elapsed().as_millis()), "{error:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_proxys_address_that_does_not_answer_costs_a_quarter_of_a_second() {
    let (good, _, config) = server().await;
    let (open, mut requests) = support::open_proxy(good).await;
    let (hole, _kept) = silent(at(2, open.port())).await;
    let named = format!("http://proxy.example:{}", open.port()).parse::<dps_connect::Proxy>();
    let config = adjusted(config, |config| config.proxy = named.unwrap().into());
    let took = asked(&config, vec![hole, open]).await.unwrap();
    assert!((250..900).contains(&took.as_millis()), "{took:?}");
    // The look at who answers asks for nothing.
    let asked = std::iter::from_fn(|| requests.try_recv().ok()).filter(|head| !head.is_empty());
    assert_eq!(asked.count(), 1, "one tunnel");
}

/// An address that refuses, as long as what comes with it is kept.
fn refusing(last: u8, port: u16) -> (SocketAddr, tokio::net::TcpSocket) {
    let taken = tokio::net::TcpSocket::new_v4().unwrap();
    taken.bind(at(last, port)).unwrap();
    (at(last, port), taken)
}
