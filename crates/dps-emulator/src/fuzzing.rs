//! The inside of the emulator, for the fuzz targets only: its transports without sockets and TLS, and its judgment of
//! credentials.

#![expect(clippy::expect_used, reason = "targets fail by a panic")]

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use crate::{
    amqp,
    behavior::ConnectionFault,
    config::{Config, ServerCertificate},
    config_error::ConfigError,
    events::{Recorder, Transport},
    mqtt,
    server::{
        Connection, Peer, Shared, http, serve,
        stream::{Control, Stream},
    },
    service::{Credential, Service},
    tls::Identity,
};

/// What stays the same from one run of a target to the next.
#[derive(Debug)]
pub struct Fixture {
    tls: Arc<rustls::ServerConfig>,
}

impl Default for Fixture {
    fn default() -> Self {
        let identity = Identity::make(&[], ServerCertificate::Valid, SystemTime::now());
        Self { tls: identity.expect("a server certificate").config }
    }
}

impl Fixture {
    /// An emulator that nobody has talked to yet, and that listens nowhere.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn emulator(&self, config: Config) -> Result<Unconnected, ConfigError> {
        let id_scope = config.id_scope.unwrap_or_else(|| {
            Config::DEFAULT_ID_SCOPE.parse().expect("the default is an ID scope")
        });
        let service = Service::new(id_scope, config.enrollments, [7; 32])?;
        let shared = Shared::new(
            service,
            Recorder::new(None),
            config.limits,
            config.connection_faults,
            self.tls.clone(),
            config.clock_ahead,
        );
        Ok(Unconnected(Arc::new(shared)))
    }
}

/// An emulator without sockets.
pub struct Unconnected(Arc<Shared>);

impl Unconnected {
    /// Serves HTTPS, and what it is upgraded to, over the stream.
    pub async fn http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificates: &[CertificateDer<'static>],
    ) -> String {
        let (connection, _running) = self.connection(Transport::Http, stream, certificates);
        http::serve(connection).await
    }

    /// Serves MQTT over the stream.
    pub async fn mqtt(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        certificates: &[CertificateDer<'static>],
    ) -> String {
        let (connection, _running) = self.connection(Transport::Mqtt, stream, certificates);
        serve::<mqtt::Conversation, _>(connection).await
    }

    /// Serves AMQP over the stream.
    pub async fn amqp(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        certificates: &[CertificateDer<'static>],
    ) -> String {
        let (connection, _running) = self.connection(Transport::Amqp, stream, certificates);
        serve::<amqp::Conversation, _>(connection).await
    }

    /// Judges a token: the enrollment that it proves, or why it doesn't.
    ///
    /// # Errors
    /// The service's error code and the reason for it.
    pub fn authenticate(
        &self,
        now: SystemTime,
        id_scope: &str,
        registration_id: &str,
        token: &str,
    ) -> Result<String, (u32, String)> {
        let credential = Credential::Sas(token);
        let judged = self.0.service().authenticate(now, id_scope, registration_id, credential);
        judged.map(|who| who.enrollment).map_err(|error| (error.error_code, error.reason))
    }

    fn connection<S>(
        &self,
        transport: Transport,
        stream: S,
        certificates: &[CertificateDer<'static>],
    ) -> (Connection<Stream<S>>, watch::Sender<bool>) {
        let (running, stopping) = watch::channel(false);
        let control = Arc::new(Control::default());
        let stream = Stream::new(stream, control.clone(), Duration::from_secs(60));
        let peer = Peer {
            id: 1,
            transport,
            shared: self.0.clone(),
            control,
            certificates: certificates.into(),
            fault: ConnectionFault::Pass,
        };
        (Connection { peer, stream, stopping }, running)
    }
}

impl fmt::Debug for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unconnected")
    }
}
