//! The inside of the emulator, for the fuzz targets only: its protocols without sockets and TLS, and its judgment of
//! credentials.

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
    behavior::ConnectionFault,
    config::{Config, Limits},
    config_error::ConfigError,
    core::{
        Caller, Core, Credential, Service,
        events::{Recorder, Transport},
    },
    server::{self, Connection, Control, Peer, Stream},
};

/// An emulator without sockets.
pub struct Unconnected {
    core: Arc<Core>,
    limits: Limits,
}

impl Unconnected {
    /// An emulator that nobody has connected to yet.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        let clock = config.clock()?;
        let service = Service::new(config.instance()?, config.enrollments, [7; 32], clock.now())?;
        let core = Core::new(service, clock, Recorder::new());
        Ok(Self { core: Arc::new(core), limits: config.limits })
    }

    /// Serves a protocol over the stream; HTTPS with what it is upgraded to.
    pub async fn serve(
        &self,
        transport: Transport,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificates: &[CertificateDer<'static>],
    ) -> String {
        let (_running, stopping) = watch::channel(false);
        let control = Arc::new(Control::default());
        let stream = Stream::new(stream, control.clone(), Duration::from_secs(60));
        let core = self.core.clone();
        let caller = Caller::new(core, 1, transport, certificates.into(), Arc::default());
        let peer = Peer { caller, control, limits: self.limits, fault: ConnectionFault::Pass };
        server::serve(Connection { peer, stream, stopping }).await
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
        let judged = self.core.service().authenticate(now, id_scope, registration_id, credential);
        judged
            .map(|who| who.enrollment_name)
            .map_err(|error| (error.error_code, error.reason.into_owned()))
    }
}

impl fmt::Debug for Unconnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unconnected")
    }
}
