//! What a network does with the ports of the service.

use std::{
    any::Any,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use dps_client::Transport;
use dps_emulator::Emulator;
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What becomes of a connection to one port.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Port {
    Open,
    /// The connection is refused.
    Closed,
    /// It is made, and nothing more comes.
    Silent,
    /// Nothing comes back at all.
    BlackHole,
    /// It is reset at the first bytes.
    Reset,
    /// TLS stands, and nothing more comes.
    TlsSilent,
    /// TLS stands, and is closed at the first bytes.
    TlsClosed,
    /// A gateway ends TLS, with a certificate that the device trusts, and lets HTTP through but no WebSocket.
    NoWebSocket,
    /// As such a gateway, and it asks the service only after [`SLOW`].
    SlowNoWebSocket,
}

/// Longer than a silent transport is waited for where another is connected.
pub(crate) const SLOW: Duration = Duration::from_secs(7);

/// Where the ports of the service are, for a device in a network.
pub(crate) struct Network {
    ports: [SocketAddr; 3],
    /// The gateway's certificate.
    pub(crate) gateway: CertificateDer<'static>,
    tasks: JoinSet<()>,
    /// The sockets that are open for as long as the network is there.
    kept: Vec<Box<dyn Any>>,
}

impl Network {
    /// In the order 8883, 5671, 443.
    pub(crate) async fn new(ports: [Port; 3], emulator: &Emulator) -> Self {
        let service = [emulator.mqtt_port(), emulator.amqp_port(), emulator.https_port()];
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let gateway = params.self_signed(&key).unwrap().der().clone();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut network =
            Self { ports: [nowhere; 3], gateway, tasks: JoinSet::new(), kept: Vec::new() };
        for (place, (port, service)) in ports.into_iter().zip(service).enumerate() {
            let service = SocketAddr::from(([127, 0, 0, 1], service));
            network.ports[place] = match port {
                Port::Open => service,
                Port::Closed => {
                    let taken = TcpSocket::new_v4().unwrap();
                    taken.bind(nowhere).unwrap();
                    let address = taken.local_addr().unwrap();
                    network.kept.push(Box::new(taken));
                    address
                }
                Port::Silent => {
                    let listener = TcpListener::bind(nowhere).await.unwrap();
                    let address = listener.local_addr().unwrap();
                    network.kept.push(Box::new(listener));
                    address
                }
                Port::BlackHole => network.black_hole().await,
                Port::Reset => {
                    let listener = TcpListener::bind(nowhere).await.unwrap();
                    let address = listener.local_addr().unwrap();
                    network.tasks.spawn(reset(listener));
                    address
                }
                Port::TlsSilent | Port::TlsClosed => {
                    let listener = TcpListener::bind(nowhere).await.unwrap();
                    let address = listener.local_addr().unwrap();
                    let tls = server_config(&network.gateway, &key);
                    let closes = port == Port::TlsClosed;
                    network.tasks.spawn(serve_nothing(listener, tls, closes));
                    address
                }
                Port::NoWebSocket | Port::SlowNoWebSocket => {
                    let listener = TcpListener::bind(nowhere).await.unwrap();
                    let address = listener.local_addr().unwrap();
                    let tls = server_config(&network.gateway, &key);
                    let onwards = client_config(emulator);
                    let delay = if port == Port::NoWebSocket { Duration::ZERO } else { SLOW };
                    network.tasks.spawn(serve_gateway(listener, tls, onwards, service, delay));
                    address
                }
            };
        }
        network
    }

    /// All ports are open, by way of relays that can be cut.
    pub(crate) async fn with_relays(emulator: &Emulator) -> (Self, Relays) {
        let mut network = Self::new([Port::Open; 3], emulator).await;
        let relays = Relays::default();
        for address in &mut network.ports {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let service = std::mem::replace(address, listener.local_addr().unwrap());
            network.tasks.spawn(relay(listener, service, Arc::clone(&relays)));
        }
        (network, relays)
    }

    pub(crate) fn address(&self, transport: Transport) -> SocketAddr {
        let [mqtt, amqp, https] = self.ports;
        match transport {
            Transport::Mqtt => mqtt,
            Transport::Amqp => amqp,
            _ => https,
        }
    }

    /// A listener whose queue is full: the system answers no more connections.
    async fn black_hole(&mut self) -> SocketAddr {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        self.kept.push(Box::new(TcpStream::connect(address).await.unwrap()));
        self.kept.push(Box::new(listener));
        address
    }
}

/// The connections that are relayed.
pub(crate) type Relays = Arc<Mutex<JoinSet<()>>>;

async fn relay(listener: TcpListener, service: SocketAddr, relays: Relays) {
    while let Ok((mut device, _)) = listener.accept().await {
        let mut service = TcpStream::connect(service).await.unwrap();
        for tcp in [&device, &service] {
            tcp.set_nodelay(true).unwrap();
        }
        relays.lock().unwrap().spawn(async move {
            copy_bidirectional(&mut device, &mut service).await.unwrap_or_default();
        });
    }
}

async fn reset(listener: TcpListener) {
    while let Ok((mut tcp, _)) = listener.accept().await {
        tcp.read_u8().await.unwrap_or_default();
        tcp.set_zero_linger().unwrap();
    }
}

async fn serve_nothing(listener: TcpListener, tls: TlsAcceptor, closes: bool) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let tls = tls.clone();
        connections.spawn(async move {
            let mut device = tls.accept(tcp).await.ok()?;
            let mut sent = vec![0; 8192];
            while device.read(&mut sent).await.ok()? > 0 && !closes {}
            device.shutdown().await.ok()
        });
    }
}

async fn serve_gateway(
    listener: TcpListener,
    tls: TlsAcceptor,
    onwards: TlsConnector,
    service: SocketAddr,
    delay: Duration,
) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (tls, onwards) = (tls.clone(), onwards.clone());
        connections.spawn(async move {
            let mut device = tls.accept(tcp).await.ok()?;
            let mut head = vec![0; 8192];
            let length = device.read(&mut head).await.ok()?;
            head.truncate(length);
            if head.starts_with(b"GET ") && String::from_utf8_lossy(&head).contains("Upgrade:") {
                let refusal = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                device.write_all(refusal).await.ok()?;
                return device.shutdown().await.ok();
            }
            tokio::time::sleep(delay).await;
            let tcp = TcpStream::connect(service).await.ok()?;
            let name = ServerName::try_from("localhost").ok()?;
            let mut service = onwards.connect(name, tcp).await.ok()?;
            service.write_all(&head).await.ok()?;
            copy_bidirectional(&mut device, &mut service).await.ok().map(drop)
        });
    }
}

fn server_config(certificate: &CertificateDer<'static>, key: &rcgen::KeyPair) -> TlsAcceptor {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn client_config(emulator: &Emulator) -> TlsConnector {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(emulator.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
