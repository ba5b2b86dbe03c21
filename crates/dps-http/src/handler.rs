//! The transport as the state machine drives it.

use std::fmt;

use dps_connect::{Config, internal::tls_config};
use dps_state_machine::{
    ConfigurationError, Error, OperationId, Progress, RegistrationRequest, Response, Stage,
    TransportHandlers,
};
use rustls::ClientConfig;

use crate::{codec, connection::Connection};

/// Registers over HTTPS, with a SAS token in each request or with the device's certificate.
///
/// One connection is made at the first request and kept for the polls, until the end of the session. Nothing is
/// sent twice: a request on a connection that breaks fails, and the next one makes a new connection.
pub struct HttpTransport {
    config: Config,
    tls: ClientConfig,
    connection: Option<Connection>,
}

impl HttpTransport {
    /// A transport without a connection yet. No I/O.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the setting that can't be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        let tls = tls_config(&config)?;
        Ok(Self { config, tls, connection: None })
    }

    async fn exchange(
        &mut self,
        stage: Stage,
        request: http::Request<Vec<u8>>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let request = convert(request)?;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::new(&self.config, &self.tls)?),
        };
        let response = connection.exchange(stage, request, progress).await?;
        if response.status != 401 {
            return Ok(response);
        }
        let date = codec::date(&response.protocol_result);
        Ok(response.hint(self.config.credential_hint(date)))
    }
}

impl TransportHandlers for HttpTransport {
    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.config.preflight(request.registration_id())?;
        let token = self.config.sas_token(request.registration_id(), progress).await?;
        let authorization = token.as_ref().map(|token| token.expose());
        let put = codec::register(&self.config, request, authorization)?;
        self.exchange(Stage::Register, put, progress).await
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let token = self.config.sas_token(request.registration_id(), progress).await?;
        let authorization = token.as_ref().map(|token| token.expose());
        let get = codec::query(&self.config, request, operation_id, authorization)?;
        self.exchange(Stage::Query, get, progress).await
    }

    /// HTTP has no end of the session: the connection is closed.
    async fn end_session(&mut self) -> Result<(), Error> {
        self.connection = None;
        Ok(())
    }
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpTransport")
            .field("config", &self.config)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

/// To the client's own type.
fn convert(request: http::Request<Vec<u8>>) -> Result<reqwest::Request, Error> {
    let host = request.uri().host().unwrap_or_default().to_owned();
    reqwest::Request::try_from(request)
        .map_err(|e| ConfigurationError::new("endpoint", host, &e.to_string()).into())
}
