//! A server that begins as it should and then sends without end, on a thread of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use dps_client::{Config, Roots, SymmetricKey};
use dps_connect::internal::websocket::accept_key;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink, split},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};
use tokio_rustls::TlsAcceptor;

use crate::floods::Flood;

/// About as much is sent at once, in bytes.
const CHUNK: usize = 16 * 1024;

pub(crate) struct Peer {
    pub(crate) config: Config,
    floods: Arc<AtomicUsize>,
    _stop: oneshot::Sender<()>,
}

#[derive(Clone)]
struct Script {
    is_http: bool,
    first: Vec<u8>,
    again: Vec<u8>,
}

impl Peer {
    pub(crate) fn start(flood: &Flood) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let floods = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel::<()>();
        let script = Script {
            is_http: flood.is_http,
            first: flood.first.clone(),
            again: flood.again.repeat(CHUNK / flood.again.len()),
        };
        let count = floods.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                listener.set_nonblocking(true).unwrap();
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = serve(listener, tls.into(), script, count) => {}
                    _ = stopped => {}
                }
            });
        });
        let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse().unwrap();
        let mut config = Config::new("0ne00AABBCC".parse().unwrap(), key.into());
        config.endpoint = format!("localhost:{port}").parse().unwrap();
        config.roots = Roots::empty().with_der(certificate.der()).unwrap();
        Self { config, floods, _stop: stop }
    }

    /// How many floods have begun.
    pub(crate) fn floods(&self) -> usize {
        self.floods.load(Ordering::SeqCst)
    }
}

async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    script: Script,
    floods: Arc<AtomicUsize>,
) {
    let acceptor = TlsAcceptor::from(tls);
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, script, floods) = (acceptor.clone(), script.clone(), floods.clone());
        tokio::spawn(async move {
            // The client hangs up at some time.
            let _ = flood(acceptor, tcp, script, &floods).await;
        });
    }
}

async fn flood(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    script: Script,
    floods: &AtomicUsize,
) -> std::io::Result<()> {
    let mut tls = acceptor.accept(tcp).await?;
    let mut head = Vec::new();
    let is_whole = |head: &[u8]| head.windows(4).any(|end| end == b"\r\n\r\n");
    while tls.read_buf(&mut head).await? > 0 && script.is_http && !is_whole(&head) {}
    let head = String::from_utf8_lossy(&head).into_owned();
    if let Some((_, rest)) = head.split_once("Sec-WebSocket-Key: ") {
        let subprotocol = head.split_once("Sec-WebSocket-Protocol: ").unwrap().1;
        let upgraded = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
            accept_key(rest.lines().next().unwrap()),
            subprotocol.lines().next().unwrap(),
        );
        tls.write_all(upgraded.as_bytes()).await?;
    }
    tls.write_all(&script.first).await?;
    let (mut reads, mut writes) = split(tls);
    let sends = async {
        writes.write_all(&script.again).await?;
        floods.fetch_add(1, Ordering::SeqCst);
        loop {
            writes.write_all(&script.again).await?;
        }
    };
    let mut nowhere = sink();
    tokio::select! {
        ended = sends => ended,
        read = copy(&mut reads, &mut nowhere) => read.map(drop),
    }
}
