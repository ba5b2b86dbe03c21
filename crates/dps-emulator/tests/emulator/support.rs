//! A device of bytes: TLS and HTTP/1.1 by hand, so that tests see exactly what goes over the transport.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_emulator::{Emulator, Limits, SymmetricKey};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Nothing here takes long; a test that hangs fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// An answer as it came; `complete` is false when bytes that the head announced were missing.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) complete: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) struct Device {
    pub(crate) stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

pub(crate) fn tls(
    emulator: &Emulator,
    versions: &[&'static SupportedProtocolVersion],
    chain: Option<Chain>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(emulator.ca_pem().as_bytes()).unwrap()).unwrap();
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
    match chain {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    }
}

pub(crate) async fn connect_with(
    emulator: &Emulator,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<Device> {
    connect_to(([127, 0, 0, 1], emulator.https_port()).into(), config, name).await
}

pub(crate) async fn connect_to(
    address: SocketAddr,
    config: ClientConfig,
    name: &str,
) -> std::io::Result<Device> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let stream = tokio::time::timeout(PATIENCE, stream).await.expect("TLS in time")?;
    Ok(Device { stream, buffer: Vec::new() })
}

pub(crate) async fn connect(emulator: &Emulator) -> std::io::Result<Device> {
    connect_with(emulator, tls(emulator, rustls::DEFAULT_VERSIONS, None), "localhost").await
}

impl Device {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends a request and reads its answer; `None` when the connection closed before any byte of it.
    pub(crate) async fn ask(&mut self, request: &str) -> Option<Answer> {
        self.send(request).await;
        self.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        tokio::time::timeout(PATIENCE, self.read_answer()).await.expect("an answer in time")
    }

    async fn read_answer(&mut self) -> Option<Answer> {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.read_more().await {
                assert!(self.buffer.is_empty(), "cut in the head");
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..head_end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.map_or(0, |(_, value)| value.parse().unwrap());
        while self.buffer.len() < length && self.read_more().await {}
        let complete = self.buffer.len() >= length;
        let body = self.buffer.drain(..length.min(self.buffer.len())).collect();
        Some(Answer { status, headers, body, complete })
    }

    /// False at the end, however abrupt.
    async fn read_more(&mut self) -> bool {
        self.stream.read_buf(&mut self.buffer).await.is_ok_and(|count| count > 0)
    }

    /// Whether the other side has closed, with nothing more to read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let nothing_left = self.buffer.is_empty();
        let read = tokio::time::timeout(PATIENCE, self.read_more());
        nothing_left && !read.await.expect("an end in time")
    }
}

/// A token that holds for an hour.
pub(crate) fn token(scope: &str, id: &str, key: &SymmetricKey) -> String {
    let resource = format!("{scope}/registrations/{id}");
    let resource = utf8_percent_encode(&resource, NON_ALPHANUMERIC);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let expiry = now.as_secs() + 3600;
    let key = STANDARD.decode(key.expose_base64().as_bytes()).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let signature = ring::hmac::sign(&key, format!("{resource}\n{expiry}").as_bytes());
    let signature = STANDARD.encode(signature);
    let signature = utf8_percent_encode(&signature, NON_ALPHANUMERIC);
    format!("SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn=registration")
}

/// The default limits with another time for silent peers, in milliseconds.
pub(crate) fn idle_for(millis: u64) -> Limits {
    let mut limits = Limits::default();
    limits.idle_timeout = Duration::from_millis(millis);
    limits
}

pub(crate) struct Requests {
    pub(crate) scope: String,
    pub(crate) id: &'static str,
    pub(crate) authorization: Option<String>,
}

impl Requests {
    pub(crate) fn with_key(emulator: &Emulator, id: &'static str, key: &SymmetricKey) -> Self {
        let scope = emulator.id_scope().to_string();
        let authorization = Some(token(&scope, id, key));
        Self { scope, id, authorization }
    }

    pub(crate) fn with_certificate(emulator: &Emulator, id: &'static str) -> Self {
        Self { scope: emulator.id_scope().to_string(), id, authorization: None }
    }

    pub(crate) fn register(&self) -> String {
        self.register_with(&format!("{{\"registrationId\":\"{}\"}}", self.id))
    }

    pub(crate) fn register_with(&self, body: &str) -> String {
        let Self { scope, id, .. } = self;
        let path = format!("/{scope}/registrations/{id}/register?api-version=2021-06-01");
        self.request("PUT", &path, body)
    }

    pub(crate) fn query(&self, operation: &str) -> String {
        let Self { scope, id, .. } = self;
        let path =
            format!("/{scope}/registrations/{id}/operations/{operation}?api-version=2021-06-01");
        self.request("GET", &path, "")
    }

    pub(crate) fn request(&self, method: &str, path: &str, body: &str) -> String {
        let authorization = self.authorization.as_ref();
        let authorization =
            authorization.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bytes/1\r\n{authorization}\
             Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// How often each event happened on a connection, by its name.
pub(crate) fn event_names(emulator: &Emulator) -> Vec<String> {
    let events = emulator.events().snapshot();
    let name = |event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned();
    events.iter().map(name).collect()
}

pub(crate) fn counted(names: &[String]) -> HashMap<&str, usize> {
    names.iter().fold(HashMap::new(), |mut counts, name| {
        *counts.entry(name.as_str()).or_default() += 1;
        counts
    })
}
