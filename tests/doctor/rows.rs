//! The planted faults.

use std::{future::Future, pin::Pin, time::Duration};

use dps_client::{
    Attestation, ConfigurationError, Endpoint, Error, GroupKey, Json, Proxy, RegistrationRequest,
    Roots, SymmetricKey, Transport,
};
use dps_conformance::{Authority, OutsideKey, ProxyScript, TestProxy};
use dps_doctor::{Ports, Report, Selection, Status, Subject, examine};
use dps_emulator::{Enrollment, GroupAttestation, ServerCertificate};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::version::TLS13;

use crate::{
    make::{self, Presented},
    presenting,
    scene::{
        DEVICE, HOST, PUBLIC, Scene, before_1970, closed, device, never_set, other_key, silent,
    },
    speaking::{Layer, Manner, Server},
};

/// A fault, the check that must find it, and how.
pub(crate) struct Row {
    pub(crate) check: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) status: Status,
    /// Part of what it says.
    pub(crate) says: &'static str,
    pub(crate) plant: Pin<Box<dyn Future<Output = Report> + Send>>,
}

fn row(
    check: &'static str,
    fault: &'static str,
    status: Status,
    says: &'static str,
    plant: impl Future<Output = Report> + Send + 'static,
) -> Row {
    Row { check, fault, status, says, plant: Box::pin(plant) }
}

/// A healthy device with one thing changed.
async fn with(change: impl FnOnce(&mut Subject)) -> Report {
    at(Scene::new().await, change).await
}

async fn at(scene: Scene, change: impl FnOnce(&mut Subject)) -> Report {
    let mut subject = scene.subject();
    change(&mut subject);
    examine(&subject, &Selection::all()).await
}

/// A healthy device that takes this server for the service.
async fn before(server: Server, transport: Transport) -> Report {
    let config = server.config();
    let mut subject = Subject::new(transport, config, device());
    subject.limits.step = Duration::from_secs(30);
    examine(&subject, &Selection::all()).await
}

/// One that looks for silence: what does not come within the step is silent, and all else on loopback comes.
fn hurried(subject: &mut Subject) {
    subject.limits.step = Duration::from_secs(6);
    subject.limits.aside = subject.limits.step;
}

pub(crate) fn rows() -> Vec<Row> {
    [settings(), local(), proxies(), network(), tls(), service()].into_iter().flatten().collect()
}

fn settings() -> Vec<Row> {
    use Status::{Failed, Warning};
    vec![
        row(
            "settings.transport",
            "no transport of that name",
            Failed,
            "choose from",
            with(|s| {
                s.transport = "pigeon".parse();
            }),
        ),
        row(
            "settings.transport",
            "`--force` over MQTT",
            Failed,
            "--transport http",
            with(|s| {
                s.transport = Ok(Transport::Mqtt);
                s.request = Some(Ok(RegistrationRequest::new(device()).force_registration(true)));
            }),
        ),
        row(
            "settings.id-scope",
            "a name with a dash",
            Failed,
            "letters and digits",
            with(|s| {
                s.id_scope = "contoso-dps".parse();
            }),
        ),
        row(
            "settings.id-scope",
            "the name of the service",
            Warning,
            "overview page",
            with(|s| {
                s.id_scope = "contosodps".parse();
            }),
        ),
        row(
            "settings.registration-id",
            "a space in it",
            Failed,
            "not allowed",
            with(|s| {
                s.registration_id = "pump 17".parse();
            }),
        ),
        row(
            "settings.endpoint",
            "a URL",
            Failed,
            "give HOST",
            with(|s| {
                s.endpoint = "https://dps.test".parse();
            }),
        ),
        row(
            "settings.endpoint",
            "the name of a hub",
            Failed,
            "global.azure-devices",
            with(|s| {
                s.endpoint = "contoso.azure-devices.net".parse();
            }),
        ),
        row(
            "settings.endpoint",
            "that of the service API",
            Warning,
            "private endpoint",
            with(|s| {
                s.endpoint = "contoso.azure-devices-provisioning.net".parse();
            }),
        ),
        row(
            "settings.cloud",
            "a misspelled domain",
            Warning,
            "compare it",
            with(|s| {
                s.endpoint = "global.azure-device-provisioning.net".parse();
            }),
        ),
        row(
            "settings.proxy",
            "a SOCKS proxy",
            Failed,
            "http:// proxy",
            with(|s| {
                s.proxy = "socks5://proxy.test:1080".parse::<Proxy>().map(Into::into);
            }),
        ),
        row(
            "settings.roots",
            "no authority at all",
            Failed,
            "--ca-file FILE",
            with(|s| {
                s.roots = Ok(Roots::empty());
            }),
        ),
        row(
            "settings.request",
            "a payload that is cut off",
            Failed,
            "JSON",
            with(|s| {
                let payload = "{\"site\": ".parse::<Json>();
                let request = RegistrationRequest::new(device());
                s.request = Some(payload.and_then(|payload| request.payload(payload)));
            }),
        ),
        row(
            "settings.files",
            "a folder that is not there",
            Failed,
            "No such file",
            with(|s| {
                let reason = "No such file or directory; make the folder above it first";
                let error = ConfigurationError::new("--output", "gone/env", reason);
                s.files = Some(Err(error.into()));
            }),
        ),
        row(
            "settings.files",
            "a stored assignment that was cut short",
            Warning,
            "the right one",
            with(|s| {
                s.files = Some(Ok(vec!["state.json is damaged".to_owned()]));
            }),
        ),
        row(
            "clock.year",
            "a clock before 1970",
            Failed,
            "set the clock",
            with(|s| {
                s.clock = before_1970;
            }),
        ),
        row(
            "clock.release",
            "a clock in 2000",
            Failed,
            "set the clock",
            with(|s| {
                s.clock = never_set;
            }),
        ),
    ]
}

fn certificate(
    of: impl FnOnce(Authority) -> dps_client::X509Identity,
) -> Result<Attestation, Error> {
    Ok(of(Authority::root("Factory")).into())
}

/// A device whose certificate was issued by an authority that has expired since.
fn by_expired_authority() -> dps_client::X509Identity {
    let root = make::Authority::root_with("Old factory", |params| {
        params.not_before = rcgen::date_time_ymd(2010, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let leaf = root.server_with(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, DEVICE);
    });
    let key = leaf.key.serialize_der();
    dps_client::X509Identity::from_der(vec![leaf.der, root.der], key).unwrap()
}

fn local() -> Vec<Row> {
    use Status::{Failed, Warning};
    let mut rows = vec![
        row(
            "credential.read",
            "a key that is no base64",
            Failed,
            "character",
            with(|s| {
                s.credential = "not!base64!at!all".parse::<SymmetricKey>().map(Into::into);
            }),
        ),
        row(
            "credential.read",
            "the key of another certificate",
            Failed,
            "not the key of the certificate",
            with(|s| {
                let factory = Authority::root("Factory");
                let (own, other) = (factory.device(DEVICE), factory.device(DEVICE));
                let (chain, key) = (own.chain_pem(), other.key_pem().as_bytes().to_vec());
                s.credential =
                    dps_client::X509Identity::from_pem(chain.as_bytes(), &key).map(Into::into);
            }),
        ),
        row(
            "credential.common-name",
            "another device's certificate",
            Failed,
            "--registration-id pump-99",
            with(|s| {
                s.credential = certificate(|factory| factory.device("pump-99").identity());
            }),
        ),
        row(
            "credential.certificate",
            "a certificate that has expired",
            Failed,
            "expired",
            with(|s| {
                s.credential = certificate(|factory| factory.expired_device(DEVICE).identity());
            }),
        ),
        row(
            "credential.chain-end",
            "an authority that has expired",
            Warning,
            "Old factory",
            with(|s| {
                s.credential = Ok(by_expired_authority().into());
            }),
        ),
        row(
            "credential.key",
            "a token that was pulled out",
            Failed,
            "the token is gone",
            with(|s| {
                s.credential = certificate(|factory| {
                    let key = OutsideKey::new(&factory.device(DEVICE).identity());
                    key.fail(Some(rustls::Error::General("the token is gone".to_owned())));
                    key.identity()
                });
            }),
        ),
    ];
    if cfg!(unix) {
        rows.push(row(
            "credential.permissions",
            "a key file that all can read",
            Warning,
            "chmod 600",
            with(|s| {
                let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("open.key");
                std::fs::write(&file, "key").unwrap();
                s.key_files = vec![file];
            }),
        ));
    }
    rows
}

/// A healthy device behind a proxy, over a transport.
async fn behind(script: ProxyScript, user: &str, transport: Transport) -> Report {
    let proxy = TestProxy::start(script).await;
    with(|s| {
        s.transport = Ok(transport);
        s.proxy = Ok(proxy.choice(user));
        hurried(s);
    })
    .await
}

fn proxies() -> Vec<Row> {
    use Status::Failed;
    let named = |url: &str| Ok(url.parse::<Proxy>().unwrap().into());
    vec![
        row(
            "proxy.name",
            "a name that nobody knows",
            Failed,
            "--proxy http://",
            with(move |s| {
                s.proxy = named("http://nowhere.test:3128");
            }),
        ),
        row("proxy.port", "nobody listens there", Failed, "refused the connection", async move {
            let (_taken, port) = closed();
            with(|s| s.proxy = named(&format!("http://127.0.0.1:{port}"))).await
        }),
        row("proxy.port", "a firewall drops what goes there", Failed, "within 6 s", async move {
            let (_hole, port) = silent().await;
            with(|s| {
                s.proxy = named(&format!("http://127.0.0.1:{port}"));
                hurried(s);
            })
            .await
        }),
        row(
            "proxy.http",
            "a mail server listens there",
            Failed,
            "not HTTP",
            behind(ProxyScript::Answer(b"220 mail.test ESMTP\r\n"), "", Transport::Http),
        ),
        row(
            "proxy.http",
            "it never answers",
            Failed,
            "within 6 s",
            behind(ProxyScript::Silent, "", Transport::Http),
        ),
        row(
            "proxy.authentication",
            "it wants a password",
            Failed,
            "USER:PASSWORD",
            behind(ProxyScript::Authenticated, "", Transport::Http),
        ),
        row(
            "proxy.authentication",
            "a wrong password",
            Failed,
            "check the password",
            behind(ProxyScript::Authenticated, "user:wrong@", Transport::Http),
        ),
        row(
            "proxy.tunnel",
            "it forbids the service",
            Failed,
            "403",
            behind(ProxyScript::Refuse("403 Forbidden"), "", Transport::Http),
        ),
        row(
            "proxy.tunnel",
            "it lets nothing but port 443 through",
            Failed,
            "--transport mqtt-ws or http",
            async {
                let scene = Scene::new().await;
                let https = scene.emulator.https_port();
                let proxy = TestProxy::start(ProxyScript::OnlyTo(https)).await;
                at(scene, |s| {
                    s.transport = Ok(Transport::Mqtt);
                    s.endpoint = "localhost".parse();
                    s.proxy = Ok(proxy.choice(""));
                })
                .await
            },
        ),
    ]
}

fn network() -> Vec<Row> {
    use Status::{Failed, Warning};
    let named = |name: &'static str| with(move |s| s.endpoint = name.parse());
    vec![
        row(
            "name.lookup",
            "a name that nobody knows",
            Failed,
            "can't be resolved",
            named("nowhere.test"),
        ),
        row(
            "name.lookup",
            "a resolver that never answers",
            Failed,
            "within 6 s",
            with(|s| {
                s.endpoint = "silent.test".parse();
                hurried(s);
            }),
        ),
        row(
            "name.speed",
            "a resolver that is slow",
            Warning,
            "DNS servers",
            with(|s| {
                s.limits.lookup = Duration::ZERO;
            }),
        ),
        row(
            "name.private",
            "another DNS answers for the service",
            Warning,
            "captive portal",
            named(PUBLIC),
        ),
        row(
            "port.ipv4",
            "one of two addresses refuses",
            Warning,
            "127.0.0.2 refuses",
            named("two.test"),
        ),
        row("port.ipv4", "nobody listens there", Failed, "127.0.0.1 refuses", async {
            let (_taken, port) = closed();
            with(|s| s.ports.https = port).await
        }),
        row(
            "port.ipv6",
            "IPv6 is refused and IPv4 open",
            Warning,
            "::1 refuses",
            named("both.test"),
        ),
        row("port.443", "it is closed, and 8883 is open", Failed, "--transport mqtt", async {
            let (_taken, port) = closed();
            with(|s| s.ports.https = port).await
        }),
        row(
            "port.8883",
            "a firewall drops what goes there",
            Failed,
            "--transport mqtt-ws or http",
            async {
                let (_hole, port) = silent().await;
                with(|s| {
                    s.transport = Ok(Transport::Mqtt);
                    s.ports.mqtt = port;
                    hurried(s);
                })
                .await
            },
        ),
        row("port.8883", "it is closed, and not needed", Warning, "http does not need it", async {
            let (_taken, port) = closed();
            with(|s| s.ports.mqtt = port).await
        }),
        row(
            "port.8883",
            "it swallows TLS, and is not needed",
            Warning,
            "http does not need it",
            async {
                let server = Server::start(Layer::Tcp, "", Manner::Greets).await;
                diverted(server, Transport::Http, |ports| &mut ports.mqtt).await
            },
        ),
        row("port.5671", "an SSH server listens there", Failed, "an SSH server", async {
            let server = Server::start(Layer::Tcp, "SSH-2.0-OpenSSH_9.9\r\n", Manner::Greets).await;
            let port = server.config().endpoint.port().unwrap();
            with(|s| {
                s.transport = Ok(Transport::Amqp);
                s.ports.amqp = port;
            })
            .await
        }),
    ]
}

/// A service whose certificate is off.
async fn presenting(certificate: ServerCertificate) -> Report {
    at(Scene::changed(|service| service.server_certificate(certificate)).await, |_| ()).await
}

/// What closes or answers so where TLS should begin.
async fn instead_of_tls(sends: &'static [u8]) -> Report {
    let server = Server::start(Layer::Tcp, sends, Manner::AnswersAndCloses).await;
    before(server, Transport::Http).await
}

/// A certificate that is made for something else than a server.
async fn for_a_client() -> Report {
    let root = make::Authority::root("Somebody");
    let server = root.server_with(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let presented = Presented::new(server, &root);
    let server = presenting::Server::start(&presented, &TLS13).await;
    let mut subject = Scene::unreachable();
    subject.endpoint = format!("localhost:{}", server.port()).parse();
    subject.roots = Roots::empty().with_der(&root.der);
    examine(&subject, &Selection::all()).await
}

fn tls() -> Vec<Row> {
    use Status::{Failed, Warning};
    vec![
        row(
            "tls.handshake",
            "a firewall closes it",
            Failed,
            "closed the connection",
            instead_of_tls(b""),
        ),
        row("tls.handshake", "a firewall swallows it", Failed, "within 6 s", async {
            let server = Server::start(Layer::Tcp, "", Manner::Greets).await;
            let mut subject = Subject::new(Transport::Http, server.config(), device());
            hurried(&mut subject);
            examine(&subject, &Selection::all()).await
        }),
        row(
            "tls.version",
            "TLS 1.1 and nothing newer",
            Failed,
            "1.2 or 1.3",
            instead_of_tls(b"\x15\x03\x01\x00\x02\x02\x46"),
        ),
        row(
            "tls.authority",
            "an authority that is not trusted",
            Failed,
            "--ca-file FILE",
            presenting(ServerCertificate::WrongCa),
        ),
        row(
            "tls.authority",
            "a proxy that inspects TLS to the service",
            Failed,
            "inspects TLS",
            with(|s| {
                s.endpoint = PUBLIC.parse();
                s.roots = Ok(Roots::default());
            }),
        ),
        row(
            "tls.expired",
            "a certificate that has expired",
            Failed,
            "has expired",
            presenting(ServerCertificate::Expired),
        ),
        row(
            "clock.certificate",
            "a clock that is behind",
            Failed,
            "not valid yet",
            presenting(ServerCertificate::NotYetValid),
        ),
        row(
            "tls.name",
            "another server's certificate",
            Failed,
            "is not for other.test",
            with(|s| {
                s.endpoint = "other.test".parse();
            }),
        ),
        row(
            "tls.certificate",
            "a certificate for clients",
            Failed,
            "not made for servers",
            for_a_client(),
        ),
        row(
            "tls.inspection",
            "the company's authority, added, for the service's name",
            Warning,
            "something in between",
            with(|s| {
                s.endpoint = PUBLIC.parse();
            }),
        ),
        row(
            "tls.client-certificate",
            "a proxy ends TLS and asks for no certificate",
            Failed,
            "nobody asked",
            async {
                let server = Server::start(Layer::Tls, "", Manner::Answers).await;
                let mut subject = Subject::new(Transport::Http, server.config(), device());
                subject.credential = certificate(|factory| factory.device(DEVICE).identity());
                examine(&subject, &Selection::all()).await
            },
        ),
    ]
}

/// A healthy device in a network where one port leads to another server, which it trusts.
async fn diverted(
    server: Server,
    transport: Transport,
    port: impl FnOnce(&mut Ports) -> &mut u16,
) -> Report {
    let (scene, there) = (Scene::new().await, server.config());
    scene.register().await;
    let ca = scene.emulator.ca_pem().to_owned();
    at(scene, |s| {
        s.transport = Ok(transport);
        s.endpoint = "localhost".parse();
        s.roots = there.roots.with_pem(ca.as_bytes());
        *port(&mut s.ports) = there.endpoint.port().unwrap();
        hurried(s);
    })
    .await
}

/// What answers every request of HTTP so.
async fn answering(answer: &'static str, transport: Transport) -> Report {
    before(Server::start(Layer::Tls, answer, Manner::AnswersAndCloses).await, transport).await
}

fn service() -> Vec<Row> {
    use Status::{Failed, Warning};
    const STRIPPED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    const OLD: &str = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n";
    const PORTAL: &str =
        "HTTP/1.1 302 Found\r\nLocation: http://login.hotel.test/\r\nContent-Length: 0\r\n\r\n";
    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 21\r\n\r\n<html>Welcome!</html>";
    const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n";
    const DISABLED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n\
                            {\"status\":\"disabled\"}";
    const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n\
                             Content-Length: 42\r\n\r\n{\"errorCode\":403001,\"message\":\"Forbidden\"}";
    const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nContent-Type: application/json\r\n\
                        Content-Length: 43\r\n\r\n{\"errorCode\":429001,\"message\":\"Throttled!\"} ";
    vec![
        row(
            "websocket.mqtt",
            "a proxy that strips the upgrade",
            Failed,
            "takes no WebSocket",
            answering(STRIPPED, Transport::MqttWs),
        ),
        row(
            "websocket.mqtt",
            "the same, over HTTP",
            Warning,
            "does not need it",
            answering(STRIPPED, Transport::Http),
        ),
        row(
            "websocket.amqp",
            "a proxy that refuses the upgrade",
            Failed,
            "426",
            answering(OLD, Transport::AmqpWs),
        ),
        row(
            "service.answer",
            "a captive portal",
            Failed,
            "log in to this network",
            answering(PORTAL, Transport::Http),
        ),
        row(
            "service.answer",
            "a page of a filter",
            Failed,
            "a web page",
            answering(PAGE, Transport::Http),
        ),
        row(
            "service.answer",
            "a web server that is not the service",
            Failed,
            "--endpoint HOST",
            answering(NOT_FOUND, Transport::Http),
        ),
        row(
            "service.answer",
            "a firewall that lets TLS stand, and closes it then, over MQTT",
            Failed,
            "--transport mqtt-ws or http",
            async {
                let server = Server::start(Layer::Tls, "", Manner::AnswersAndCloses).await;
                diverted(server, Transport::Mqtt, |ports| &mut ports.mqtt).await
            },
        ),
        row(
            "service.answer",
            "a firewall that lets TLS stand, and nothing more, over AMQP",
            Failed,
            "no answer within 6 s",
            async {
                let server = Server::start(Layer::Tls, "", Manner::Greets).await;
                diverted(server, Transport::Amqp, |ports| &mut ports.amqp).await
            },
        ),
        row(
            "clock.service",
            "a clock that is two hours behind",
            Warning,
            "2 hours behind",
            async {
                at(
                    Scene::changed(|service| service.clock_ahead(Duration::from_secs(7230))).await,
                    |_| (),
                )
                .await
            },
        ),
        row(
            "service.credential",
            "another key",
            Failed,
            "--symmetric-key-file",
            with(|s| {
                s.credential = Ok(other_key().into());
            }),
        ),
        row("service.credential", "another key, over MQTT", Failed, "CONNACK 5", async {
            let (_taken, port) = closed();
            with(|s| {
                s.transport = Ok(Transport::Mqtt);
                s.ports.https = port;
                s.credential = Ok(other_key().into());
            })
            .await
        }),
        row(
            "service.credential",
            "another key, over AMQP",
            Failed,
            "--symmetric-key-file",
            with(|s| {
                s.transport = Ok(Transport::Amqp);
                s.credential = Ok(other_key().into());
            }),
        ),
        row(
            "service.group-key",
            "a group's key in place of the device's",
            Failed,
            "--group-key-file",
            async {
                let group = GroupKey::random().unwrap();
                let known =
                    Enrollment::group("factory", GroupAttestation::symmetric_key(group.clone()));
                let scene = Scene::changed(|service| service.enrollment(known)).await;
                at(scene, move |s| {
                    s.registration_id = "pump-18".parse();
                    s.credential = group.expose_base64().parse::<SymmetricKey>().map(Into::into);
                })
                .await
            },
        ),
        row(
            "service.group-key",
            "a device's key in place of the group's",
            Failed,
            "--symmetric-key-file",
            async {
                let scene = Scene::new().await;
                let key = scene.key.clone();
                at(scene, move |s| {
                    let group: GroupKey = key.expose_base64().parse().unwrap();
                    s.credential = Ok(group.derive(&device()).into());
                    s.group_key = Some(group);
                })
                .await
            },
        ),
        row(
            "service.enrollment",
            "a device that never registered",
            Warning,
            "dps register",
            with(|_| ()),
        ),
        row(
            "service.enrollment",
            "another ID scope",
            Failed,
            "--id-scope",
            with(|s| {
                s.id_scope = "0ne00FFFFFF".parse();
            }),
        ),
        row(
            "service.enrollment",
            "the device is disabled",
            Failed,
            "enable",
            answering(DISABLED, Transport::Http),
        ),
        row(
            "service.enrollment",
            "a captive portal on port 443, over MQTT",
            Warning,
            "mqtt does not need it",
            async {
                let server = Server::start(Layer::Tls, PORTAL, Manner::AnswersAndCloses).await;
                diverted(server, Transport::Mqtt, |ports| &mut ports.https).await
            },
        ),
        row(
            "service.enrollment",
            "the service forbids it",
            Failed,
            "may be disabled",
            answering(FORBIDDEN, Transport::Http),
        ),
        row(
            "service.busy",
            "the service throttles",
            Failed,
            "in 7 s",
            answering(BUSY, Transport::Http),
        ),
        row(
            "hub.name",
            "a name that nobody knows",
            Failed,
            "--hub-endpoint HOST",
            with(|s| {
                s.hub = Some("nowhere.test".parse());
            }),
        ),
        row(
            "hub.8883",
            "the hub's port is closed",
            Failed,
            "not connect to its hub",
            hub(Transport::Mqtt),
        ),
        row(
            "hub.5671",
            "the hub's port is closed",
            Failed,
            "not connect to its hub",
            hub(Transport::Amqp),
        ),
        row(
            "hub.443",
            "the hub's port is closed",
            Failed,
            "not connect to its hub",
            hub(Transport::Http),
        ),
    ]
}

/// A hub where nobody listens.
async fn hub(transport: Transport) -> Report {
    let (_taken, port) = closed();
    with(|s| {
        s.transport = Ok(transport);
        s.hub = Some(HOST.parse::<Endpoint>().map(|hub| hub.with_port(port)));
    })
    .await
}
