//! A server that sends what it is given, in TCP, TLS or WebSocket.

use std::time::Duration;

use dps_client::{Config, Roots, SymmetricKey};
use dps_connect::internal::websocket::accept_key;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer};
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, sink, split},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// In what the server speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layer {
    Tcp,
    Tls,
    /// With the subprotocol that is asked for.
    WebSocket,
    /// With this subprotocol.
    WebSocketOf(&'static str),
}

/// When the server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// At once.
    Greets,
    /// At once, with a moment between two bytes.
    GreetsByteByByte,
    /// Once something has come.
    Answers,
    /// Once something has come, and hangs up.
    AnswersAndCloses,
    /// What comes goes back.
    Echoes,
}

/// Stops when it is dropped.
pub(crate) struct Server {
    config: Config,
    _accepting: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(layer: Layer, sends: impl Into<Vec<u8>>, manner: Manner) -> Self {
        let (sends, key) = (sends.into(), KeyPair::generate().unwrap());
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
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let (acceptor, sends) = (acceptor.clone(), sends.clone());
                connections.spawn(async move {
                    // The client hangs up at some time.
                    let _gone = match layer {
                        Layer::Tcp => speak(tcp, &sends, manner).await,
                        _ => match acceptor.accept(tcp).await {
                            Ok(tls) => in_tls(tls, layer, &sends, manner).await,
                            Err(error) => Err(error),
                        },
                    };
                });
            }
        });
        let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse().unwrap();
        let mut config = Config::new("0ne00AABBCC".parse().unwrap(), key.into());
        config.endpoint = format!("localhost:{port}").parse().unwrap();
        config.roots = Roots::empty().with_der(certificate.der()).unwrap();
        Self { config, _accepting: accepting }
    }

    /// A device that takes the server for the service.
    pub(crate) fn config(&self) -> Config {
        self.config.clone()
    }
}

async fn in_tls(
    mut tls: impl AsyncRead + AsyncWrite + Unpin,
    layer: Layer,
    sends: &[u8],
    manner: Manner,
) -> std::io::Result<()> {
    let subprotocol = match layer {
        Layer::WebSocket => None,
        Layer::WebSocketOf(subprotocol) => Some(subprotocol),
        _ => return speak(tls, sends, manner).await,
    };
    let mut head = vec![0; 4096];
    let length = tls.read(&mut head).await?;
    let head = String::from_utf8_lossy(head.get(..length).unwrap_or_default()).into_owned();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    let Some(key) = field("Sec-WebSocket-Key: ") else {
        tls.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await?;
        return tls.shutdown().await;
    };
    let upgraded = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        accept_key(key),
        subprotocol.or(field("Sec-WebSocket-Protocol: ")).unwrap_or_default(),
    );
    tls.write_all(upgraded.as_bytes()).await?;
    speak(tls, sends, manner).await
}

async fn speak(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    sends: &[u8],
    manner: Manner,
) -> std::io::Result<()> {
    if matches!(manner, Manner::Answers | Manner::AnswersAndCloses) {
        // All that has come is read: what is left would turn the close into a reset.
        while stream.read(&mut [0; 16 * 1024]).await? == 16 * 1024 {}
    }
    if manner == Manner::GreetsByteByByte {
        for byte in sends {
            stream.write_all(&[*byte]).await?;
            stream.flush().await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    } else {
        stream.write_all(sends).await?;
        stream.flush().await?;
    }
    if manner == Manner::AnswersAndCloses {
        return stream.shutdown().await;
    }
    let (mut reads, mut writes) = split(stream);
    if manner == Manner::Echoes {
        return copy(&mut reads, &mut writes).await.map(drop);
    }
    copy(&mut reads, &mut sink()).await.map(drop)
}

/// One binary message of WebSocket.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    [&[0x82, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}
