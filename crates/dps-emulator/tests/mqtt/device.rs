//! A device of packets, so that tests see exactly what goes over the transport.

use std::{net::SocketAddr, sync::Arc};

use dps_emulator::{Emulator, Event, EventKind};
use mqtt_proto::{
    Pid, Protocol, QoS, QosPid, TopicFilter, TopicName,
    v3::{Connect, Packet, Publish, Subscribe},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) use crate::one_device::*;
use crate::support::{PATIENCE, tls, token};

pub(crate) const ANSWERS: &str = "$dps/registrations/res/#";
pub(crate) const REGISTER: &str = "$dps/registrations/PUT/iotdps-register/?$rid=";

/// CONNECT of `dev-1` with the right token.
pub(crate) fn connect(emulator: &Emulator) -> Connect {
    connect_as(emulator, "dev-1", Some(token(emulator.id_scope().as_str(), "dev-1", &key())))
}

pub(crate) fn connect_as(emulator: &Emulator, id: &str, password: Option<String>) -> Connect {
    let scope = emulator.id_scope();
    let user_name =
        format!("{scope}/registrations/{id}/api-version=2021-06-01&ClientVersion=packets%2F1");
    Connect {
        protocol: Protocol::V311,
        clean_session: true,
        keep_alive: 60,
        client_id: id.into(),
        last_will: None,
        username: Some(user_name.as_str().into()),
        password: password.map(|password| password.into_bytes().into()),
    }
}

pub(crate) fn subscribe(filter: &str, qos: QoS) -> Packet {
    let filter = TopicFilter::try_from(filter).unwrap();
    Subscribe::new(Pid::try_from(1).unwrap(), vec![(filter, qos)]).into()
}

pub(crate) fn publish(topic: &str, body: &str, pid: Option<u16>) -> Packet {
    let qos = pid.map_or(QosPid::Level0, |pid| QosPid::Level1(Pid::try_from(pid).unwrap()));
    Publish::new(qos, TopicName::try_from(topic).unwrap(), body.as_bytes().to_vec().into()).into()
}

pub(crate) fn register(rid: &str) -> Packet {
    publish(&format!("{REGISTER}{rid}"), BODY, Some(2))
}

pub(crate) fn query(rid: &str, operation_id: &str) -> Packet {
    let topic = format!(
        "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={rid}&operationId={operation_id}"
    );
    publish(&topic, " ", Some(3))
}

pub(crate) struct Device<S> {
    pub(crate) stream: S,
    pub(crate) buffer: Vec<u8>,
}

/// A publication of the service's.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) topic: String,
    pub(crate) body: Vec<u8>,
    pub(crate) at_least_once: bool,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) type TlsDevice = Device<TlsStream<TcpStream>>;

/// A device with TLS up.
pub(crate) async fn reach(emulator: &Emulator) -> TlsDevice {
    reach_with(emulator, tls(emulator, rustls::DEFAULT_VERSIONS, None)).await
}

pub(crate) async fn reach_with(emulator: &Emulator, config: ClientConfig) -> TlsDevice {
    let address: SocketAddr = ([127, 0, 0, 1], emulator.mqtt_port()).into();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let stream = tokio::time::timeout(PATIENCE, stream).await.expect("TLS in time").unwrap();
    Device { stream, buffer: Vec::new() }
}

/// A device that is connected and subscribed.
pub(crate) async fn ready(emulator: &Emulator) -> TlsDevice {
    let mut device = reach(emulator).await;
    device.begin(emulator).await;
    device
}

impl<S: AsyncRead + AsyncWrite + Unpin> Device<S> {
    pub(crate) async fn begin(&mut self, emulator: &Emulator) {
        self.send([connect(emulator).into(), subscribe(ANSWERS, QoS::Level1)]).await;
        assert_eq!(self.bytes(4).await, b"\x20\x02\x00\x00");
        assert_eq!(self.bytes(5).await, b"\x90\x03\x00\x01\x01");
    }

    /// Sends all of it at once.
    pub(crate) async fn send(&mut self, packets: impl IntoIterator<Item = Packet>) {
        let bytes: Vec<_> = packets
            .into_iter()
            .flat_map(|packet| packet.encode().unwrap().as_ref().to_vec())
            .collect();
        self.send_bytes(&bytes).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next bytes, this many of them or as many as there are before the end.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count && self.read_more().await {}
        self.buffer.drain(..count.min(self.buffer.len())).collect()
    }

    /// The next packet; `None` at the end.
    pub(crate) async fn packet(&mut self) -> Option<Packet> {
        loop {
            if let Ok(Some(packet)) = Packet::decode(&self.buffer) {
                self.buffer.drain(..packet.encode().unwrap().as_ref().len());
                return Some(packet);
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// The next publication, whatever comes before it.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Packet::Publish(publish) = self.packet().await? {
                return Some(Answer {
                    topic: publish.topic_name.to_string(),
                    body: publish.payload.to_vec(),
                    at_least_once: publish.qos_pid != QosPid::Level0,
                });
            }
        }
    }

    /// False at the end, however abrupt.
    async fn read_more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer));
        read.await.expect("an end in time").is_ok_and(|count| count > 0)
    }

    /// Whether the other side has closed, with nothing more to read.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.read_more().await
    }
}

/// Why the first connection that is over is over.
pub(crate) async fn closed(emulator: &Emulator) -> String {
    let is_closed = |event: &Event| matches!(event.kind, EventKind::Closed { .. });
    let events = emulator.events();
    let event = tokio::time::timeout(PATIENCE, events.wait_for(is_closed)).await;
    match event.expect("closed in time").expect("closed at all").kind {
        EventKind::Closed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}
