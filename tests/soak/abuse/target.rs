//! Where an attacker connects to.

use std::{io, net::Ipv4Addr, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::Result;

/// Where an attacker connects to.
#[derive(Clone)]
pub(super) struct Target {
    port: u16,
    tls: Arc<ClientConfig>,
}

impl Target {
    pub(super) fn new(port: u16, ca_pem: &str) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { port, tls: Arc::new(tls) })
    }

    pub(super) async fn tcp(&self) -> io::Result<TcpStream> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    pub(super) async fn tls(&self) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(self.tls.clone()).connect(server_name()?, self.tcp().await?).await
    }

    /// The first words of a TLS handshake.
    pub(super) fn hello(&self) -> io::Result<Vec<u8>> {
        let mut client =
            ClientConnection::new(self.tls.clone(), server_name()?).map_err(io::Error::other)?;
        let mut hello = Vec::new();
        client.write_tls(&mut hello)?;
        Ok(hello)
    }
}

fn server_name() -> io::Result<ServerName<'static>> {
    ServerName::try_from("localhost").map_err(io::Error::other)
}

/// Reads and forgets until the other end closes.
pub(super) async fn wait_for_close(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    tokio::io::copy(stream, &mut tokio::io::sink()).await.map(drop)
}

/// Says this, and then nothing more.
pub(super) async fn say_and_wait(target: Target, words: &[u8]) -> io::Result<()> {
    let mut stream = target.tls().await?;
    stream.write_all(words).await?;
    stream.flush().await?;
    wait_for_close(&mut stream).await
}

/// Says the beginning, then the rest over and over, and reads whatever comes.
pub(super) async fn say_without_end(target: Target, begin: &[u8], rest: &[u8]) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(target.tls().await?);
    let conversation = async {
        writer.write_all(begin).await?;
        loop {
            writer.write_all(rest).await?;
        }
    };
    tokio::select! {
        outcome = conversation => outcome,
        outcome = wait_for_close(&mut reader) => outcome,
    }
}

/// As [`say_without_end`], but nothing is read.
pub(super) async fn send_without_reading(
    target: Target,
    begin: &[u8],
    rest: &[u8],
) -> io::Result<()> {
    let mut stream = target.tls().await?;
    stream.write_all(begin).await?;
    loop {
        stream.write_all(rest).await?;
    }
}

/// Says the beginning, then a few bytes now and then.
pub(super) async fn drip(target: Target, begin: &[u8], drop: &[u8]) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(target.tls().await?);
    let conversation = async {
        writer.write_all(begin).await?;
        loop {
            writer.write_all(drop).await?;
            writer.flush().await?;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        outcome = conversation => outcome,
        outcome = wait_for_close(&mut reader) => outcome,
    }
}

/// Reads until these bytes have come; the bytes read.
pub(super) async fn read_until(
    stream: &mut (impl AsyncRead + Unpin),
    end: &[u8],
) -> io::Result<Vec<u8>> {
    const MOST: usize = 16 * 1024;
    let mut read = Vec::new();
    while !read.ends_with(end) && read.len() < MOST {
        read.push(stream.read_u8().await?);
    }
    Ok(read)
}
