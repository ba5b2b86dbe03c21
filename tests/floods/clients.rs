//! The emulator against a client that sends without end: other tasks and other devices come through at once, and the
//! emulator ends the connection.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::Duration,
};

use dps_client::{Progress, Transport};
use dps_conformance::{Bench, Cell, Credential};
use dps_emulator::{Event, EventKind};
use libtest_mimic::{Failed, Trial};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::time::timeout;

use crate::{Kind, LATE, PATIENCE};

/// What a client sends first, and then without end.
struct Flood {
    name: &'static str,
    transport: Transport,
    first: fn(id_scope: &str, token: &str) -> Vec<Vec<u8>>,
    again: &'static [u8],
    /// Why the emulator ends it.
    ends: &'static str,
}

const UPGRADE: &str = "GET /$iothub/websocket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

const FLOODS: [Flood; 5] = [
    Flood {
        name: "pingreq",
        transport: Transport::Mqtt,
        first: connect,
        again: b"\xc0\0",
        ends: "10000 packets came without a request among them",
    },
    Flood {
        name: "puback",
        transport: Transport::Mqtt,
        first: connect,
        again: b"\x40\x02\0\x07",
        ends: "10000 packets came without a request among them",
    },
    Flood {
        name: "empty_frame",
        transport: Transport::Amqp,
        first: |_, _| vec![login(), b"AMQP\0\x01\0\0".to_vec()],
        again: b"\0\0\0\x08\x02\0\0\0",
        ends: "10000 frames came without a transfer among them",
    },
    Flood {
        name: "websocket_pong",
        transport: Transport::MqttWs,
        first: |_, _| vec![UPGRADE.into()],
        again: b"\x8a\x80\0\0\0\0",
        ends: "10000 frames came with no part of a message",
    },
    Flood {
        name: "websocket_continuation",
        transport: Transport::MqttWs,
        first: |_, _| vec![UPGRADE.into(), b"\x02\x80\0\0\0\0".to_vec()],
        again: b"\0\x80\0\0\0\0",
        ends: "10000 frames came with no part of a message",
    },
];

pub(crate) fn trials() -> impl Iterator<Item = Trial> {
    FLOODS.iter().map(|flood| {
        let name = format!("the_emulator_ends_a_flood_and_serves_the_others::{}", flood.name);
        Trial::test(name, || {
            let runtime = Kind::CurrentThread.runtime();
            let outcome = runtime.block_on(ends(flood));
            runtime.shutdown_background();
            outcome
        })
    })
}

async fn ends(flood: &Flood) -> Result<(), Failed> {
    let cell = Cell { transport: flood.transport, credential: Credential::SymmetricKey };
    let bench = Bench::healthy(cell).await;
    let id = bench.request().registration_id().clone();
    let token = bench.config.sas_token(&id, &Progress::default()).await?.unwrap();
    let first = (flood.first)(bench.emulator.id_scope().as_str(), token.expose());
    let worst = Arc::new(AtomicU64::new(0));
    let ticks = tokio::spawn(crate::tick(worst.clone()));
    let (port, ca) = (bench.config.endpoint.port_or(0), bench.emulator.ca_pem().to_owned());
    let again = flood.again.repeat(16 * 1024 / flood.again.len());
    // Until the emulator hangs up.
    thread::spawn(move || send(port, &ca, first, &again));
    let events = bench.emulator.events();
    let is_the_end = |event: &Event| matches!(&event.kind, EventKind::Closed { reason, .. } if reason.contains(flood.ends));
    let (ended, registered) =
        tokio::join!(timeout(PATIENCE, events.wait_for(is_the_end)), bench.register());
    registered?;
    ticks.abort();
    if ended.is_err() {
        return Err(format!("the flood goes on: {:?}", bench.events(Some)).into());
    }
    let worst = Duration::from_millis(worst.load(std::sync::atomic::Ordering::Relaxed));
    // A busy machine is late now and then; without turns for others it would be for seconds.
    assert!(worst < 5 * LATE, "a tick was late by {worst:?}");
    Ok(())
}

/// Sends until the emulator hangs up.
fn send(port: u16, ca: &str, first: Vec<Vec<u8>>, again: &[u8]) {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = ClientConnection::new(Arc::new(tls), "localhost".try_into().unwrap()).unwrap();
    let tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut stream = StreamOwned::new(tls, tcp);
    for bytes in first {
        stream.write_all(&bytes).unwrap();
        let mut answer = [0; 1024];
        if !bytes.starts_with(b"\x02") {
            assert!(stream.read(&mut answer).unwrap() > 0);
        }
    }
    stream.sock.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    while stream.write_all(again).is_ok() {
        let mut answers = [0; 16 * 1024];
        let _ = stream.read(&mut answers);
    }
}

fn connect(id_scope: &str, token: &str) -> Vec<Vec<u8>> {
    let text = |text: &str| {
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        [&length, text.as_bytes()].concat()
    };
    let user = format!("{id_scope}/registrations/dev-1/api-version=2021-06-01");
    let body =
        [b"\0\x04MQTT\x04\xc2\0\x3c".to_vec(), text("dev-1"), text(&user), text(token)].concat();
    let length = body.len();
    let low = u8::try_from(length & 0x7f).unwrap() | 0x80;
    vec![[&[0x10, low, u8::try_from(length >> 7).unwrap()], &*body].concat()]
}

/// SASL's header and PLAIN with a token that is wrong, which is refused when a session begins.
fn login() -> Vec<u8> {
    let response = b"\x000ne00AABBCC/registrations/dev-1\0x";
    let length = u8::try_from(response.len()).unwrap();
    let fields = [b"\xa3\x05PLAIN\xa0".as_slice(), &[length], response].concat();
    let size = u8::try_from(fields.len() + 1).unwrap();
    let body = [b"\0\x53\x41\xc0".as_slice(), &[size, 2], &fields].concat();
    let frame = u32::try_from(body.len() + 8).unwrap().to_be_bytes();
    [b"AMQP\x03\x01\0\0".as_slice(), &frame, b"\x02\x01\0\0", &body].concat()
}
