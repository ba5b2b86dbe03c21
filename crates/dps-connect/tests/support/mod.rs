//! Certificates, servers and proxies on loopback. The transports' tests use them too.
#![allow(
    clippy::allow_attributes,
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part of it: an expectation would fail in some"
)]
#![allow(
    missing_debug_implementations,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test support"
)]

use std::{future::Future, net::SocketAddr, sync::Arc};

use dps_attestation::{Attestation, SymmetricKey, X509Identity};
use dps_connect::{Config, Proxy, Roots};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

pub mod faults;
pub mod refusals;
pub mod transport;

pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

/// A chain, the leaf first, and the leaf's key.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl Identity {
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }

    pub fn attestation(&self) -> Attestation {
        let chain = self.chain.iter().map(|der| der.to_vec()).collect();
        Attestation::X509(X509Identity::from_der(chain, self.key.serialize_der()).unwrap())
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    pub fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (Self::params(name), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        Self { issuer: Issuer::new(params, key), der, pem }
    }

    fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Identity { chain: vec![leaf.der().clone()], key }
    }

    /// A certificate for localhost, 127.0.0.1 and ::1, or something a little off.
    pub fn server(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names = ["localhost", "127.0.0.1", "::1", "dps.example"].map(String::from);
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        self.sign(params)
    }

    /// A device's certificate, with this authority in the chain.
    pub fn device(&self, name: &str) -> Identity {
        let mut device = self.sign(named(name));
        device.chain.push(self.der.clone());
        device
    }

    pub fn roots(&self) -> Roots {
        Roots::empty().with_pem(self.pem.as_bytes()).unwrap()
    }
}

pub fn server_config(
    identity: &Identity,
    clients: Option<&Authority>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der.clone()).unwrap();
            builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .build()
                    .unwrap(),
            )
        }
    };
    builder.with_single_cert(identity.chain.clone(), identity.key()).unwrap()
}

/// Serves each connection with the given function.
pub async fn listen<F, Fut>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    address
}

/// Serves each connection over TLS; those whose handshake fails are over.
pub async fn listen_tls<F, Fut>(config: ServerConfig, serve: F) -> SocketAddr
where
    F: Fn(ServerStream) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listen(move |tcp| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                serve(tls).await;
            }
        }
    })
    .await
}

/// Sends back what it gets.
pub async fn echo(mut tls: ServerStream) {
    let mut buffer = [0; 256];
    while let Ok(read @ 1..) = tls.read(&mut buffer).await {
        if tls.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Reads until the other side closes.
pub async fn swallow(mut stream: impl tokio::io::AsyncRead + Unpin) {
    let mut buffer = [0; 256];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// Reads the head of an HTTP message.
pub async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// A proxy that opens every tunnel, to the one address given, and tells of each request for one.
pub async fn open_proxy(to: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let address = listen(move |mut tcp| {
        let asked = asked.clone();
        async move {
            let request = head(&mut tcp).await;
            // Who asks may be gone already.
            let _ = asked.send(request);
            tcp.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
                .await
                .unwrap();
            let mut onward = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut tcp, &mut onward).await;
        }
    })
    .await;
    (address, requests)
}

/// A way to the address given that the test can cut: each connection through it, as it is made.
pub async fn cuttable(to: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<Cut>) {
    let (tell, connections) = mpsc::unbounded_channel();
    let address = listen(move |tcp| {
        let tell = tell.clone();
        async move {
            let tcp = tcp.into_std().unwrap();
            tell.send(Cut(tcp.try_clone().unwrap())).unwrap();
            let mut tcp = TcpStream::from_std(tcp).unwrap();
            let mut onward = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut tcp, &mut onward).await;
        }
    })
    .await;
    (address, connections)
}

/// A connection to cut.
pub struct Cut(std::net::TcpStream);

impl Cut {
    /// Closes it at once. No runtime has taken that in when this returns.
    pub fn now(self) {
        self.0.shutdown(std::net::Shutdown::Both).unwrap();
    }
}

/// An address that never answers, as long as what comes with it is kept: Linux drops what comes to a listener whose
/// queue is full, which on loopback is as silent as a lost route. `at` gives the port, or 0 for any.
#[cfg(target_os = "linux")]
pub async fn silent(at: SocketAddr) -> (SocketAddr, impl Sized) {
    let hole = TcpSocket::new_v4().unwrap();
    hole.bind(at).unwrap();
    let hole = hole.listen(1).unwrap();
    let address = hole.local_addr().unwrap();
    let queued = (TcpStream::connect(address).await, TcpStream::connect(address).await);
    (address, (hole, queued))
}

/// An address where nobody listens, nor will before the test is over: it is taken.
pub fn closed_address() -> SocketAddr {
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap();
    tokio::spawn(async move {
        let _held = taken;
        std::future::pending::<()>().await;
    });
    address
}

pub fn symmetric_key() -> Attestation {
    Attestation::SymmetricKey("c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse::<SymmetricKey>().unwrap())
}

pub fn config(endpoint: &str, roots: Roots) -> Config {
    let mut config = Config::new("0ne00AABBCC".parse().unwrap(), symmetric_key());
    config.endpoint = endpoint.parse().unwrap();
    config.roots = roots;
    config
}

/// The configuration with some of its fields changed.
pub fn adjusted<T>(mut config: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut config);
    config
}

pub fn localhost(address: SocketAddr) -> String {
    format!("localhost:{}", address.port())
}

pub fn proxy(user_info: &str, address: SocketAddr) -> Proxy {
    format!("http://{user_info}{address}").parse().unwrap()
}
