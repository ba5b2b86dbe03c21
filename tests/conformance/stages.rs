//! A timeout names the stage of its own registration, whatever else runs beside it.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    thread,
    time::Duration,
};

use dps_client::{
    Attestation, Client, Config, Endpoint, ErrorKind, RegistrationRequest, Roots, Settings, Stage,
    Transport,
};
use dps_conformance::{
    Bench, Cell, OutsideSigner, ProxyScript, SignerConduct, TestProxy, adjusted, config_for, fast,
    settle,
};
use dps_connect::internal::LOOKUP;
use dps_emulator::{Behavior, ConnectionFault, Delivery, Emulator, Fault};
use tokio::{net::TcpSocket, task::JoinSet};

use crate::{Case, case};

/// The host whose lookup never ends.
const NEVER_FOUND: &str = "never-found.example";

/// How many clients hang at each stage.
const AT_EACH: usize = 3;

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(clients_of_one_configuration_each_name_their_own_stage).within_a_short_time()]
}

/// Many clients from clones of one configuration run at once, each led to another peer, and each peer lets them hang
/// somewhere else.
async fn clients_of_one_configuration_each_name_their_own_stage(cell: Cell) {
    let never = Fault::deliver(Delivery::Never).forever();
    let mut enrolled = None;
    let silent_service = Bench::with(cell, |enrollment| {
        enrolled.insert(enrollment.behavior(Behavior::new().on_register(never))).clone()
    })
    .await;
    // A device has one session of MQTT at a service, so each client that gets as far has a service of its own.
    let mut silent_services = Vec::new();
    for _ in 1..AT_EACH {
        let service = Emulator::builder().enrollment(enrolled.clone().unwrap()).start();
        silent_services.push(service.await.unwrap());
    }
    let (request, attestation) = (silent_service.request(), silent_service.config.attestation);
    silent_services.push(silent_service.emulator);
    let silent_server = Bench::healthy(cell).await;
    silent_server.emulator.set_connection_faults([ConnectionFault::HangAfterTls; AT_EACH]);
    let silent_proxy = TestProxy::start(ProxyScript::Silent).await;
    let no_tls = listener(64);
    let full = listener(1);
    let full_endpoint = endpoint(full.local_addr().unwrap().port());
    let _queued = fill(&full).await;

    let emulators = silent_services.iter().chain([&silent_server.emulator]);
    let roots = emulators.fold(Roots::empty(), |roots, emulator| {
        roots.with_pem(emulator.ca_pem().as_bytes()).unwrap()
    });
    let config = adjusted(silent_server.config.clone(), |config| {
        config.roots = roots;
        config.attestation = attestation.clone();
    });
    let server = endpoint(silent_server.config.endpoint.port_or(0));
    let is_websocket = matches!(cell.transport, Transport::MqttWs | Transport::AmqpWs);
    let signer = OutsideSigner::that(attestation.clone(), SignerConduct::KeepSilent);
    let mut hanging = vec![
        (if is_websocket { Stage::Websocket } else { Stage::Register }, at(&config, server)),
        (Stage::Tls, at(&config, endpoint(no_tls.local_addr().unwrap().port()))),
        (Stage::Proxy, adjusted(config.clone(), |config| config.proxy = silent_proxy.choice(""))),
        (Stage::Resolve, at(&config, NEVER_FOUND.parse().unwrap())),
    ];
    if cfg!(target_os = "linux") {
        hanging.push((Stage::Connect, at(&config, full_endpoint)));
    }
    if cell.has_key() {
        let attestation = Attestation::from_signer(signer);
        hanging.push((
            Stage::Sign,
            adjusted(config.clone(), |config| config.attestation = attestation),
        ));
    }
    let registering = silent_services.iter().map(|service| {
        let port = config_for(service, cell.transport, attestation.clone()).endpoint.port_or(0);
        (Stage::Register, at(&config, endpoint(port)))
    });
    let clients = hanging.into_iter().flat_map(|hanging| vec![hanging; AT_EACH]).chain(registering);
    let client = |(stage, config)| (stage, silent_server.client_with(config, bounds()));
    let clients: Vec<_> = clients.map(client).collect();
    *LOOKUP.write().unwrap() = look_up;
    hang(clients, request).await;
}

fn bounds() -> Settings {
    adjusted(fast(), |settings| settings.request_timeout = Duration::from_secs(3))
}

fn at(config: &Config, endpoint: Endpoint) -> Config {
    adjusted(config.clone(), |config| config.endpoint = endpoint)
}

fn endpoint(port: u16) -> Endpoint {
    format!("127.0.0.1:{port}").parse().unwrap()
}

/// A port that takes connections into its queue and never accepts one.
fn listener(queue: u32) -> tokio::net::TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket.listen(queue).unwrap()
}

/// Fills the queue. What comes to a full one gets no answer on Linux, as on a lost route.
async fn fill(full: &tokio::net::TcpListener) -> Vec<tokio::net::TcpStream> {
    let mut queued = Vec::new();
    let connect = || tokio::net::TcpStream::connect(full.local_addr().unwrap());
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), connect()).await {
        queued.push(stream.unwrap());
    }
    queued
}

/// Registers all at once.
async fn hang(clients: Vec<(Stage, Client)>, request: RegistrationRequest) {
    let mut registrations = JoinSet::new();
    for (stage, client) in clients {
        let request = request.clone();
        registrations.spawn(async move {
            let error = client.register(request).await.unwrap_err();
            settle(&client).await;
            assert_eq!((error.kind(), error.stage()), (ErrorKind::Timeout, Some(stage)), "{error}");
        });
    }
    while let Some(registration) = registrations.join_next().await {
        registration.unwrap();
    }
}

/// The system's lookup, but for one name: that one's never ends.
fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host == NEVER_FOUND {
        loop {
            thread::park();
        }
    }
    Ok((host, port).to_socket_addrs()?.collect())
}
