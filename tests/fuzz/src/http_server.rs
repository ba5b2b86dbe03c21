//! The emulator's HTTPS port, behind TLS: requests, bodies, upgrades, and what is spoken over WebSocket.

use std::time::Duration;

use crate::{
    emulated::{certificates, emulator},
    stream,
};

/// The first byte: `c` for a device with a certificate. The second: see [`Scripted`](stream::Scripted).
pub fn run(data: &[u8]) {
    let (certificates, data) = certificates(data);
    let (stream, written) = stream::Scripted::new(data);
    let emulator = emulator();
    let reason = stream::run(Duration::from_secs(48 * 3600), emulator.http(stream, certificates));
    let reason = reason.expect("a silent peer is shown out");
    assert!(!reason.is_empty());
    let written = written.lock().expect("nobody panics with it");
    assert!(written.is_empty() || written.starts_with(b"HTTP/1."), "{written:?}");
    // A head, and the last one is whole.
    assert!(written.is_empty() || written.windows(4).any(|bytes| bytes == b"\r\n\r\n"));
}
