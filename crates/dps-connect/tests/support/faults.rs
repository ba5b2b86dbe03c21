//! Everything that can be wrong on the way to the service, and what must be said about it, on every transport.

use std::time::Duration;

use dps_connect::{Config, Proxy, Roots};
use dps_state_machine::Stage;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    Authority, adjusted, closed_address, config, head, listen, listen_tls, localhost, proxy,
    server_config, swallow,
};

/// Short, for those faults that consist in silence.
const SILENCE: Duration = Duration::from_millis(300);

pub struct Fault {
    pub name: &'static str,
    pub config: Config,
    pub stage: Stage,
    /// What the message must contain.
    pub says: &'static str,
    pub retryable: bool,
}

pub async fn all() -> Vec<Fault> {
    let mut faults = vec![
        Fault {
            name: "name not found",
            config: config("no-such-host.invalid", Roots::default()),
            stage: Stage::Resolve,
            says: "no-such-host.invalid can't be resolved",
            retryable: true,
        },
        Fault {
            name: "refused",
            config: config(&localhost(closed_address()), Roots::default()),
            stage: Stage::Connect,
            says: "refused the connection",
            retryable: true,
        },
    ];
    faults.extend(certificates().await);
    faults.extend(handshakes().await);
    faults.extend(proxies().await);
    faults
}

async fn certificates() -> Vec<Fault> {
    let authority = Authority::new("Test CA");
    let old = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    };
    let young = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(4000, 1, 1);
    };
    let strange = |params: &mut CertificateParams| {
        let names = ["other.example", "www.other.example"];
        params.subject_alt_names =
            names.map(|name| SanType::DnsName(name.try_into().unwrap())).to_vec();
    };
    let client_only = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    };
    let cases = [
        ("expired", authority.server(old), authority.roots(), "has expired"),
        ("not yet valid", authority.server(young), authority.roots(), "is not valid yet"),
        (
            "wrong name",
            authority.server(strange),
            authority.roots(),
            "is not for localhost, but for other.example, www.other.example",
        ),
        (
            "not for servers",
            authority.server(client_only),
            authority.roots(),
            "not made for servers",
        ),
        (
            "unknown CA",
            authority.server(|_| ()),
            Roots::default(),
            "comes from an unknown authority",
        ),
        ("an authority's own", own(), Roots::default(), "is that of an authority"),
    ];
    let mut faults = Vec::new();
    for (name, identity, mut roots, says) in cases {
        if name == "an authority's own" {
            roots = Roots::empty().with_der(&identity.chain[0]).unwrap();
        }
        for versions in [[&TLS12], [&TLS13]] {
            let tls = server_config(&identity, None, &versions);
            let address = listen_tls(tls, swallow).await;
            let config = config(&localhost(address), roots.clone());
            faults.push(Fault { name, config, stage: Stage::Tls, says, retryable: false });
        }
    }
    faults
}

fn own() -> super::Identity {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    super::Identity { chain: vec![params.self_signed(&key).unwrap().der().clone()], key }
}

async fn handshakes() -> Vec<Fault> {
    let alert = |description| [0x15, 3, 3, 0, 2, 2, description];
    let cases = [
        ("alert: version", alert(70).to_vec(), "no TLS version in common", false),
        ("alert: handshake failure", alert(40).to_vec(), "no cipher or parameter in common", false),
        ("alert: name", alert(112).to_vec(), "does not know the name localhost", false),
        ("alert: internal error", alert(80).to_vec(), "alert InternalError", true),
        ("not TLS", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "does not speak TLS", true),
        ("plain HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "does not speak TLS", true),
    ];
    let mut faults = Vec::new();
    let mut fault = |name, address, says, retryable| {
        let config = config(&localhost(address), Roots::default());
        faults.push(Fault { name, config, stage: Stage::Tls, says, retryable });
    };
    for (name, bytes, says, retryable) in cases {
        let address = listen(move |mut tcp| {
            let bytes = bytes.clone();
            async move {
                let _ = tcp.read(&mut [0; 5]).await;
                let _ = tcp.write_all(&bytes).await;
                swallow(tcp).await;
            }
        })
        .await;
        fault(name, address, says, retryable);
    }
    let closing = listen(|mut tcp| async move {
        let _ = tcp.read(&mut [0; 1024]).await;
    })
    .await;
    fault("closed", closing, "closed the connection during the TLS handshake", true);

    let authority = Authority::new("Test CA");
    let tls = server_config(&authority.server(|_| ()), Some(&authority), &[&TLS12]);
    let address = listen_tls(tls, swallow).await;
    faults.push(Fault {
        name: "wants a certificate",
        config: config(&localhost(address), authority.roots()),
        stage: Stage::Tls,
        says: "it wants one, and got none",
        retryable: false,
    });
    faults.push(Fault {
        name: "silent",
        config: adjusted(config(&localhost(listen(swallow).await), Roots::default()), |config| {
            config.connect_timeout = Some(SILENCE)
        }),
        stage: Stage::Tls,
        says: "no TLS handshake from localhost",
        retryable: true,
    });
    faults
}

async fn proxies() -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |name, proxy: Proxy, says, retryable| {
        let config =
            adjusted(config("dps.example", Roots::default()), |config| config.proxy = proxy.into());
        faults.push(Fault { name, config, stage: Stage::Proxy, says, retryable });
    };
    fault("proxy refused", proxy("", closed_address()), "refused the connection", true);
    let unknown = "http://no-such-proxy.invalid:3128".parse().unwrap();
    fault("proxy not found", unknown, "no-such-proxy.invalid can't be resolved", true);
    let too_long = ["HTTP/1.1 200 OK\r\nA: ", &"a".repeat(20_000), "\r\n\r\n"].concat();
    let replies = [
        (
            "proxy wants a user",
            "HTTP/1.1 407 Who are you\r\n\r\n",
            "refused our credentials",
            false,
        ),
        (
            "proxy forbids",
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            "opened no tunnel to dps.example:443",
            true,
        ),
        (
            "proxy fails",
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
            "opened no tunnel to dps.example:443",
            true,
        ),
        (
            "proxy is none",
            "220 smtp.example ESMTP\r\n",
            "opened no tunnel to dps.example:443",
            true,
        ),
        ("proxy answers without end", &too_long, "its answer is too long", true),
        ("proxy closes", "", "it closed the connection without an answer", true),
        ("proxy stops", "HTTP/1.1 200 O", "it closed the connection without an answer", true),
    ];
    for (name, reply, says, retryable) in replies {
        let reply = reply.to_owned();
        let address = listen(move |mut tcp| {
            let reply = reply.clone();
            async move {
                head(&mut tcp).await;
                let _ = tcp.write_all(reply.as_bytes()).await;
                if reply.ends_with('\n') {
                    swallow(tcp).await;
                }
            }
        })
        .await;
        fault(name, proxy("me:wrong@", address), says, retryable);
    }
    let silent = listen(swallow).await;
    faults.push(Fault {
        name: "proxy silent",
        config: adjusted(config("dps.example", Roots::default()), |config| {
            config.proxy = proxy("", silent).into();
            config.connect_timeout = Some(SILENCE);
        }),
        stage: Stage::Proxy,
        says: "no tunnel from the proxy",
        retryable: true,
    });
    // The tunnel is open, and then there is nobody at its end.
    let hollow = listen(|mut tcp| async move {
        head(&mut tcp).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let _ = tcp.read(&mut [0; 1024]).await;
    })
    .await;
    faults.push(Fault {
        name: "closed in the tunnel",
        config: adjusted(config("dps.example", Roots::default()), |config| {
            config.proxy = proxy("", hollow).into()
        }),
        stage: Stage::Tls,
        says: "closed the connection during the TLS handshake",
        retryable: true,
    });
    faults
}
