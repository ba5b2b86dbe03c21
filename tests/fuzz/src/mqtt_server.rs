//! The emulator's MQTT port, behind TLS.

use bytes::BytesMut;
use dps_emulator::Transport;
use dps_mqtt::codec;

use crate::emulated::served;

/// See [`served`].
pub fn run(data: &[u8]) {
    let written = served(data, Transport::Mqtt);
    // Whatever came, what went out is MQTT to the other codec, the client's.
    let mut written = BytesMut::from(written.as_slice());
    // The first packet of a broker is CONNACK, of type 2.
    assert!(written.first().is_none_or(|first| *first == 0x20));
    while !written.is_empty() {
        assert!(codec::read(&mut written).expect("packets of a server").is_some(), "cut short");
    }
}
