//! An MQTT server that follows a script. It reads and writes with another codec than the client's.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use mqtt_proto::{
    Pid, QosPid, TopicName, total_len,
    v3::{Connack, ConnectReturnCode, Header, Packet, Publish, Suback, SubscribeReturnCode},
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::support::{listen_tls, swallow};

/// What the server sees, in order.
#[derive(Debug)]
pub(crate) enum Event {
    /// All packets that came at once, on which connection (counted from 1).
    Flight(usize, Vec<Packet>),
    /// That connection is closed.
    Closed(usize),
}

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Packet(Packet),
    Raw(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Answers nothing any more.
    Silence,
}

pub(crate) type Script = Arc<dyn Fn(usize, &Packet) -> Vec<Reply> + Send + Sync>;

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Peer {
    /// Serves MQTT over TLS.
    pub(crate) async fn start(config: ServerConfig, script: Script) -> Self {
        Self::over(config, script, |tls| async { Some(tls) }).await
    }

    /// Serves MQTT over what the function makes of each TLS stream.
    pub(crate) async fn over<S: AsyncRead + AsyncWrite + Send + Unpin + 'static, F>(
        config: ServerConfig,
        script: Script,
        upgrade: fn(super::support::ServerStream) -> F,
    ) -> Self
    where
        F: Future<Output = Option<S>> + Send + 'static,
    {
        let connections = Arc::new(AtomicUsize::new(0));
        let (tell, events) = mpsc::unbounded_channel();
        let address = listen_tls(config, move |tls| {
            let connection = connections.fetch_add(1, Ordering::SeqCst) + 1;
            let (script, tell) = (Arc::clone(&script), tell.clone());
            async move {
                if let Some(stream) = upgrade(tls).await {
                    serve(stream, connection, &script, &tell).await;
                }
                // The test may be over.
                let _ = tell.send(Event::Closed(connection));
            }
        })
        .await;
        Self { address, events }
    }

    /// The next packets that came at once, and their connection.
    pub(crate) async fn flight(&mut self) -> (usize, Vec<Packet>) {
        loop {
            match self.events.recv().await.unwrap() {
                Event::Flight(connection, packets) => return (connection, packets),
                Event::Closed(_) => {}
            }
        }
    }

    /// The next publication, its topic and body.
    pub(crate) async fn publication(&mut self) -> (usize, String, Vec<u8>) {
        loop {
            let (connection, packets) = self.flight().await;
            if let Some(Packet::Publish(publish)) = packets.last() {
                return (connection, publish.topic_name.to_string(), publish.payload.to_vec());
            }
        }
    }

    /// Waits until the connection is closed.
    pub(crate) async fn closed(&mut self, connection: usize) {
        while !matches!(self.events.recv().await.unwrap(), Event::Closed(c) if c == connection) {}
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    script: &Script,
    tell: &mpsc::UnboundedSender<Event>,
) {
    let mut incoming = Vec::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer).await else { return };
        incoming.extend_from_slice(&buffer[..read]);
        let mut packets = Vec::new();
        while let Ok(header) = Header::decode(&incoming) {
            let length = total_len(header.remaining_len as usize).unwrap();
            if incoming.len() < length {
                break;
            }
            let frame: Vec<_> = incoming.drain(..length).collect();
            packets.push(Packet::decode(&frame).unwrap().unwrap());
        }
        if packets.is_empty() {
            continue;
        }
        let _ = tell.send(Event::Flight(connection, packets.clone()));
        for reply in packets.iter().flat_map(|packet| script(connection, packet)) {
            let bytes = match reply {
                Reply::Packet(packet) => packet.encode().unwrap().as_ref().to_vec(),
                Reply::Raw(bytes) => bytes,
                Reply::Close => return,
                Reply::Silence => return swallow(stream).await,
            };
            if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

pub(crate) fn connack(code: ConnectReturnCode) -> Reply {
    Reply::Packet(Connack::new(false, code).into())
}

pub(crate) fn suback(pid: Pid, code: SubscribeReturnCode) -> Reply {
    Reply::Packet(Suback::new(pid, vec![code]).into())
}

/// A publication of the server's, by which it may want to be acknowledged.
pub(crate) fn publish(topic: &str, body: impl AsRef<[u8]>, pid: Option<u16>) -> Reply {
    let qos = pid.map_or(QosPid::Level0, |pid| QosPid::Level1(Pid::try_from(pid).unwrap()));
    let topic = TopicName::try_from(topic).unwrap();
    Reply::Packet(Publish::new(qos, topic, body.as_ref().to_vec().into()).into())
}

/// The `$rid` of a publication.
pub(crate) fn rid(topic: &str) -> &str {
    let (_, fields) = topic.split_once("$rid=").unwrap();
    fields.split('&').next().unwrap()
}

/// What a service in good health says to all but publications.
pub(crate) fn courtesy(packet: &Packet) -> Vec<Reply> {
    match packet {
        Packet::Connect(_) => vec![connack(ConnectReturnCode::Accepted)],
        Packet::Subscribe(subscribe) => vec![suback(subscribe.pid, SubscribeReturnCode::MaxLevel1)],
        Packet::Pingreq => vec![Reply::Packet(Packet::Pingresp)],
        Packet::Disconnect => vec![Reply::Close],
        _ => vec![],
    }
}

/// A service in good health whose publications, over all connections, are these.
pub(crate) fn service(answers: impl IntoIterator<Item = Answer>) -> Script {
    let answers = Mutex::new(answers.into_iter().collect::<VecDeque<_>>());
    Arc::new(move |_, packet| match packet {
        Packet::Publish(asked) => {
            let QosPid::Level1(pid) = asked.qos_pid else { panic!("{asked:?}") };
            let mut replies = vec![Reply::Packet(Packet::Puback(pid))];
            match answers.lock().unwrap().pop_front() {
                Some(answer) => replies.extend(answer(rid(&asked.topic_name))),
                None => replies.push(Reply::Silence),
            }
            replies
        }
        other => courtesy(other),
    })
}

/// What is published in answer to a `$rid`.
pub(crate) type Answer = Box<dyn Fn(&str) -> Vec<Reply> + Send>;

pub(crate) fn answer(status: &str, more: &str, body: impl Into<String>) -> Answer {
    let (status, more, body) = (status.to_owned(), more.to_owned(), body.into());
    Box::new(move |rid| {
        let topic = format!("$dps/registrations/res/{status}/?$rid={rid}{more}");
        vec![publish(&topic, &body, Some(7))]
    })
}

pub(crate) fn ok(body: &str) -> Answer {
    answer("200", "", body)
}

pub(crate) fn raw(replies: Vec<Reply>) -> Answer {
    Box::new(move |_| replies.clone())
}
