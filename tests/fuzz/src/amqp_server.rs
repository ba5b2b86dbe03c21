//! The emulator's AMQP port, behind TLS: SASL and AMQP frames of a device.

use std::time::Duration;

use dps_amqp::codec::{AMQP_HEADER, SASL_HEADER, decode};

use crate::{
    emulated::{certificates, emulator},
    stream,
};

/// The first byte: `c` for a device with a certificate. The second: see [`Scripted`](stream::Scripted).
pub fn run(data: &[u8]) {
    let (certificates, data) = certificates(data);
    let (stream, written) = stream::Scripted::new(data);
    let emulator = emulator();
    let reason = stream::run(Duration::from_secs(48 * 3600), emulator.amqp(stream, certificates));
    let reason = reason.expect("a silent peer is shown out");
    assert!(!reason.is_empty());
    // Whatever came, what went out is AMQP to the other codec, the client's.
    let written = written.lock().expect("nobody panics with it");
    let mut rest = written.as_slice();
    while !rest.is_empty() {
        if let Some(after) =
            [AMQP_HEADER, SASL_HEADER].iter().find_map(|header| rest.strip_prefix(header))
        {
            rest = after;
            continue;
        }
        let (_, size) = decode(rest).expect("a frame").expect("a whole one");
        rest = &rest[size..];
    }
}
