//! The emulator's MQTT port, behind TLS.

use std::time::Duration;

use bytes::BytesMut;
use dps_mqtt::codec;

use crate::{
    emulated::{certificates, emulator},
    stream,
};

/// The first byte: `c` for a device with a certificate. The second: see [`Scripted`](stream::Scripted).
pub fn run(data: &[u8]) {
    let (certificates, data) = certificates(data);
    let (stream, written) = stream::Scripted::new(data);
    let emulator = emulator();
    let reason = stream::run(Duration::from_secs(48 * 3600), emulator.mqtt(stream, certificates));
    let reason = reason.expect("a silent peer is shown out");
    assert!(!reason.is_empty());
    // Whatever came, what went out is MQTT to the other codec, the client's.
    let mut written = BytesMut::from(written.lock().expect("nobody panics with it").as_slice());
    assert!(written.first().is_none_or(|first| *first == codec::CONNACK));
    while !written.is_empty() {
        assert!(codec::read(&mut written).expect("packets of a server").is_some(), "cut short");
    }
}
