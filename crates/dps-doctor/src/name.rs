//! The service's name and its addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use dps_client::Progress;
use dps_connect::internal::resolve;
use tokio::time::{Instant, timeout};

use crate::{
    check::{LOOKUP, LOOKUP_TIME, PRIVATE},
    finding::Chart,
    settings::{is_public, set_in_environment},
    subject::Subject,
};

pub(crate) fn skip(chart: &mut Chart<'_>) {
    for check in [&LOOKUP, &LOOKUP_TIME, &PRIVATE] {
        chart.skip(check, "the proxy looks the name up");
    }
}

/// The addresses, with the port of the chosen transport.
pub(crate) async fn examine(subject: &Subject, chart: &mut Chart<'_>) -> Option<Vec<SocketAddr>> {
    let endpoint = subject.endpoint_of(subject.transport())?;
    let (host, step) = (endpoint.host(), subject.limits.step);
    let port = endpoint.port_or(subject.ports.of(subject.transport()));
    let begun = Instant::now();
    let addresses = match timeout(step, resolve(host, port, &Progress::default())).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            chart.fail_by(
                &LOOKUP,
                &error.into(),
                Some(&way_out("--endpoint HOST names the service")),
            );
            return None;
        }
        Err(_) => {
            let advice = way_out("check this machine's DNS");
            chart.silent(&LOOKUP, format_args!("address of {host}"), &advice);
            return None;
        }
    };
    let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let is_address = host.parse::<IpAddr>().is_ok();
    match is_address {
        true => chart.ok(&LOOKUP, format!("{host} is an address")),
        false => chart.ok(&LOOKUP, format!("{host} is {}", shown.join(", "))),
    }
    speed(begun.elapsed(), subject, chart);
    let private: Vec<String> = addresses
        .iter()
        .map(|address| address.ip().to_canonical())
        .filter(|address| is_private(*address))
        .map(|address| address.to_string())
        .collect();
    if !is_public(host) {
        chart.skip(&PRIVATE, "it is no public name of the service");
    } else if private.is_empty() {
        chart.ok(&PRIVATE, "its addresses are public");
    } else {
        chart.warn(
            &PRIVATE,
            format!("{host} is {} here, which is a private address", private.join(", ")),
            "unless the service has a private endpoint in this network, a captive portal, a filter or another DNS answers: look the name up elsewhere and compare",
        );
    }
    Some(addresses)
}

fn speed(took: Duration, subject: &Subject, chart: &mut Chart<'_>) {
    let seen = format!("{:.1} s", took.as_secs_f64());
    match took > subject.limits.lookup {
        true => chart.warn(
            &LOOKUP_TIME,
            format!("the lookup took {seen}"),
            "the first of this machine's DNS servers may be down; look at /etc/resolv.conf",
        ),
        false => chart.ok(&LOOKUP_TIME, seen),
    }
}

/// Another way out, if there may be one.
pub(crate) fn way_out(first: &str) -> String {
    match set_in_environment() {
        Some(name) => format!("{first}; {name} is set and not used: --proxy env uses it"),
        None => format!("{first}; --proxy URL goes through a proxy"),
    }
}

/// Whether an address is for networks of one's own.
/// See <https://www.iana.org/assignments/iana-ipv4-special-registry> and the one for IPv6 beside it.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = matches!(v4.octets(), [100, 64..128, ..]);
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || shared
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}
