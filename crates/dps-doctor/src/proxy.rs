//! The proxy, step by step.

use std::net::SocketAddr;

use dps_client::{Progress, Proxy, Transport};
use dps_connect::internal::{
    NoTunnel, ask_proxy, dial,
    failure::{self, Peer},
    resolve,
};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    check::{PROXY_HTTP, PROXY_LOGIN, PROXY_NAME, PROXY_PORT, TUNNEL},
    finding::Chart,
    port::OF_EACH_PORT,
    subject::Subject,
};

const FLAG: &str = "--proxy http://USER:PASSWORD@HOST:PORT";

pub(crate) fn skip(chart: &mut Chart<'_>) {
    for check in [&PROXY_NAME, &PROXY_PORT, &PROXY_HTTP, &PROXY_LOGIN, &TUNNEL] {
        chart.skip(check, "no proxy is used");
    }
}

/// `None` when the proxy does not let the chosen transport through.
pub(crate) async fn examine(subject: &Subject, proxy: &Proxy, chart: &mut Chart<'_>) -> Option<()> {
    let step = subject.limits.step;
    let silent = |what: &str| format!("{what} from the proxy {}", proxy.address());
    let progress = Progress::default();
    let addresses = match timeout(step, resolve(proxy.host(), proxy.port(), &progress)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            let error = failure::proxy_unresolved(proxy, error).into();
            chart.fail_by(&PROXY_NAME, &error, Some(FLAG));
            return None;
        }
        Err(_) => {
            chart.silent(&PROXY_NAME, silent("address"), "check this machine's DNS");
            return None;
        }
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    chart.ok(&PROXY_NAME, shown.join(", "));
    let tcp = match timeout(step, dial(addresses.clone())).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(error)) => {
            let error = failure::proxy_unreachable(proxy, &error).into();
            chart.fail_by(&PROXY_PORT, &error, Some(FLAG));
            return None;
        }
        Err(_) => {
            chart.silent(&PROXY_PORT, silent("connection"), FLAG);
            return None;
        }
    };
    chart.ok(&PROXY_PORT, format!("{} is open", proxy.address()));
    let transport = subject.transport();
    let asked = timeout(step, tunnel(subject, proxy, &addresses, tcp)).await;
    let Ok(no) = asked else {
        chart.silent(&PROXY_HTTP, silent("answer"), FLAG);
        return None;
    };
    let no = no?.err();
    let Some(NoTunnel { status, error }) = no else {
        chart.ok(&PROXY_HTTP, "it speaks HTTP");
        chart.ok(&PROXY_LOGIN, login(proxy));
        chart.ok(&TUNNEL, "it opens a tunnel");
        return Some(());
    };
    let error = error.into();
    if status.is_none() {
        chart.fail_by(&PROXY_HTTP, &error, Some(FLAG));
        return None;
    }
    chart.ok(&PROXY_HTTP, "it speaks HTTP");
    if status == Some(407) {
        chart.fail_by(&PROXY_LOGIN, &error, Some(FLAG));
        return None;
    }
    chart.ok(&PROXY_LOGIN, login(proxy));
    // Most proxies let HTTPS through.
    let https = match subject.any_transport || subject.ports.of(transport) == subject.ports.https {
        true => false,
        false => timeout(step, async {
            let mut tcp = dial(addresses).await.ok()?;
            ask(subject, proxy, Transport::Http, &mut tcp).await?.ok()
        })
        .await
        .is_ok_and(|open| open.is_some()),
    };
    let advice = format!("it lets port {} through: {}", subject.ports.https, over_443(transport));
    chart.fail_by(&TUNNEL, &error, https.then_some(&advice));
    None
}

fn login(proxy: &Proxy) -> &'static str {
    if proxy.credentials().is_some() { "it takes our user and password" } else { "it wants none" }
}

/// Which transport to take where port 443 is open.
pub(crate) fn over_443(instead_of: Transport) -> &'static str {
    match instead_of {
        Transport::Amqp => "--transport amqp-ws or http",
        _ => "--transport mqtt-ws or http",
    }
}

/// Asks for a tunnel to the port of the chosen transport; where any would do, for one to each port until there is one. `None`
/// where nothing says which port that is.
async fn tunnel(
    subject: &Subject,
    proxy: &Proxy,
    addresses: &[SocketAddr],
    mut tcp: TcpStream,
) -> Option<Result<(), NoTunnel>> {
    let chosen = subject.transport();
    let first = ask(subject, proxy, chosen, &mut tcp).await?;
    let is_about_port = |no: &NoTunnel| no.status.is_some_and(|status| status != 407);
    if subject.any_transport && first.as_ref().is_err_and(is_about_port) {
        let others =
            OF_EACH_PORT.into_iter().filter(|of| subject.ports.of(*of) != subject.ports.of(chosen));
        for transport in others {
            if let Ok(mut tcp) = dial(addresses.to_vec()).await
                && let Some(Ok(())) = ask(subject, proxy, transport, &mut tcp).await
            {
                return Some(Ok(()));
            }
        }
    }
    Some(first)
}

/// `None` where nothing says which port the transport has.
async fn ask(
    subject: &Subject,
    proxy: &Proxy,
    transport: Transport,
    tcp: &mut TcpStream,
) -> Option<Result<(), NoTunnel>> {
    let config = subject.config(&subject.endpoint_of(transport)?)?;
    let peer = Peer::of(&config, subject.ports.of(transport)).ok()?;
    Some(ask_proxy(tcp, proxy, &peer, &config.user_agent).await)
}
