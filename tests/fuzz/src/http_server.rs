//! The emulator's HTTPS port, behind TLS: requests, bodies, upgrades, and what is spoken over WebSocket.

use dps_emulator::Transport;

use crate::emulated::served;

/// See [`served`].
pub fn run(data: &[u8]) {
    let written = served(data, Transport::Http);
    assert!(written.is_empty() || written.starts_with(b"HTTP/1."), "{written:?}");
    // A head, and the last one is whole.
    assert!(written.is_empty() || written.windows(4).any(|bytes| bytes == b"\r\n\r\n"));
}
