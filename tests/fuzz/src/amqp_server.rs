//! The emulator's AMQP port, behind TLS: SASL and AMQP frames of a device.

use dps_amqp::codec::{AMQP_HEADER, SASL_HEADER, decode};
use dps_emulator::Transport;

use crate::emulated::served;

/// See [`served`].
pub fn run(data: &[u8]) {
    let written = served(data, Transport::Amqp);
    // Whatever came, what went out is AMQP to the other codec, the client's.
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
