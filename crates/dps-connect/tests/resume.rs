//! A connector remembers the TLS session of its server.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod support;

use dps_connect::{Connector, internal::Stream};
use dps_state_machine::Progress;
use rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use support::{Authority, config, echo, listen_tls, localhost, server_config};

/// How the connection came about. A session can be resumed once something was read after the handshake.
async fn handshake(mut stream: Stream) -> Option<HandshakeKind> {
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    stream.get_ref().1.handshake_kind()
}

#[tokio::test]
async fn the_second_connection_goes_on_with_the_session_of_the_first() {
    let authority = Authority::new("Test CA");
    let server = authority.server(|_| ());
    for version in [&TLS12, &TLS13] {
        let address = listen_tls(server_config(&server, None, &[version]), echo).await;
        let connector = Connector::new(config(&localhost(address), authority.roots())).unwrap();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let stream = connector.connect(8883, &Progress::default()).await.unwrap();
            assert_eq!(handshake(stream).await, Some(expected), "{version:?}");
        }
    }
}
