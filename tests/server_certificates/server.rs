//! A server that presents the chain that it is given, does the handshake, and hangs up.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::make::Presented;

/// Stops when it is dropped.
pub(crate) struct Server {
    port: u16,
    handshakes: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(
        presented: &Presented,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let chain = presented.chain.iter().map(|der| der.clone().into()).collect();
        let key = ring::sign::any_supported_type(&presented.key).unwrap();
        // Nothing is checked here: not even that there is a certificate, or that it goes with the key.
        let presents = Presents(Arc::new(CertifiedKey::new(chain, key)));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(presents));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let handshakes = Arc::new(AtomicUsize::new(0));
        let counter = handshakes.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                if acceptor.accept(tcp).await.is_ok() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        Self { port, handshakes, _accepting: accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many came to their end.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl ResolvesServerCert for Presents {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
