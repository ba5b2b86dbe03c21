//! What comes before TLS: a proxy's reply to CONNECT.

use std::{sync::LazyLock, time::Duration};

use dps_attestation::{Attestation, SymmetricKey};
use dps_connect::{Config, Proxy, fuzzing, internal::failure::Peer};
use dps_state_machine::Stage;

use crate::{
    input::Secret,
    stream::{self, Scripted},
};

const PASSWORD: &str = "kQzVxJwPyGhLmTrB";

static PEER: LazyLock<(Proxy, Peer)> = LazyLock::new(|| {
    let proxy: Proxy = format!("http://me:{PASSWORD}@proxy.example:3128").parse().expect("a proxy");
    let key = SymmetricKey::from_bytes(b"the key of a device").expect("a key");
    let mut config = Config::new("0ne00AABBCC".parse().expect("a scope"), Attestation::from(key));
    config.proxy = proxy.clone().into();
    let peer = Peer::of(&config, 443).expect("a peer");
    (proxy, peer)
});

/// What the proxy says; the first byte: see [`Scripted`].
pub fn run(data: &[u8]) {
    let (proxy, peer) = &*PEER;
    let (mut stream, written) = Scripted::new(data);
    let all = stream.rest().to_vec();
    let opened = stream::run(Duration::from_secs(20), fuzzing::tunnel(&mut stream, proxy, peer));
    let read = all.len() - stream.rest().len();
    let (head, _) = all.split_at(read);
    assert!(written.lock().expect("no holder of the lock panics").starts_with(b"CONNECT "));
    match opened {
        None => assert!(read == all.len(), "it waits although there is more"),
        Some(Ok(())) => {
            // Empty lines and interim answers may come before it.
            let says_yes = |line: &[u8]| line.starts_with(b"HTTP/1.") && line.ends_with(b" 2");
            assert!(head.windows(10).any(says_yes), "{head:?}");
            assert!(head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n"), "{head:?}");
            assert!(read <= 8 * 1024);
        }
        Some(Err(error)) => {
            assert_eq!(error.stage, Stage::Proxy);
            let shown = format!("{error} {:?}", error.hint);
            assert!(shown.len() < 16 * 1024);
            let secret = Secret::new(PASSWORD.as_bytes(), 8);
            assert!(secret.is_in(data) || !secret.is_in(shown.as_bytes()), "{shown}");
        }
    }
}
