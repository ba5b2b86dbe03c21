//! The transport as the state machine drives it.

use std::fmt;

use dps_attestation::SasToken;
use dps_connect::{
    Config,
    internal::{TpmLogin, from_base64, tls_config},
};
#[cfg(doc)]
use dps_state_machine::RegistrationState;
use dps_state_machine::{
    ConfigurationError, Error, OperationId, Progress, RegistrationId, RegistrationRequest,
    Response, Stage, TransportHandlers,
};
use rustls::ClientConfig;

use crate::{codec, connection::Connection};

/// What makes a request of the device's, with the value of `Authorization`.
type Make =
    fn(&Config, &RegistrationRequest, Option<&str>) -> Result<http::Request<Vec<u8>>, Error>;

/// Registers over HTTPS, with a SAS token in each request or with the device's certificate. A TPM answers a challenge
/// first: its SAS token serves for the whole registration.
///
/// One connection is made at the first request and kept for the polls, until the end of the session. Nothing is
/// sent twice: a request on a connection that breaks fails, and the next one makes a new connection.
pub struct HttpTransport {
    config: Config,
    tls: ClientConfig,
    connection: Option<Connection>,
    /// What the TPM signed for the registration that is under way.
    tpm_token: Option<(RegistrationId, SasToken)>,
}

impl HttpTransport {
    /// A transport without a connection yet. No I/O.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the setting that can't be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        let config = config.apart();
        let tls = tls_config(&config)?;
        Ok(Self { config, tls, connection: None, tpm_token: None })
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
        if !response.refuses_credential() {
            return Ok(response);
        }
        let date = codec::date(&response.protocol_result);
        Ok(response.hint(self.config.credential_hint(date)))
    }

    /// Asks for the state of the device's registration, without registering: 200 with that state as the body, 404 when the
    /// service knows of none, and a refusal of the credential as a registration would meet it. Nothing changes at the
    /// service. What bounds the time is the caller's.
    ///
    /// [`RegistrationState::read`] makes a state of the answer, or the error that a registration would be:
    ///
    /// ```no_run
    /// # async fn example(config: dps_client::Config) -> Result<(), dps_client::Error> {
    /// use dps_client::{HttpTransport, Progress, RegistrationState};
    /// let (mut service, progress) = (HttpTransport::new(config)?, Progress::default());
    /// let answer = service.registration_state(&"pump-17".parse()?, &progress).await?;
    /// let state = RegistrationState::read(answer, &progress)?;
    /// println!("{}, at {:?}", state.status, state.assigned_hub);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/device-registration-status-lookup>.
    ///
    /// # Errors
    /// Those of [`registration_request`](TransportHandlers::registration_request).
    ///
    /// # Cancel safety
    /// Dropping the future drops the connection.
    pub async fn registration_state(
        &mut self,
        registration_id: &RegistrationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let request = RegistrationRequest::new(registration_id.clone());
        let answer = self.send(codec::lookup, &request, progress).await;
        answer.map_err(|error| progress.without_secrets(error))
    }

    /// Sends the request that is made so, by whichever credential there is.
    async fn send(
        &mut self,
        make: Make,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.config.preflight(request.registration_id())?;
        if let Some(tpm) = TpmLogin::of(&self.config, progress) {
            return self.send_by_tpm(make, &tpm, request, progress).await;
        }
        let token = self.config.sas_token(request.registration_id(), progress).await?;
        self.send_with(make, request, token.as_ref(), progress).await
    }

    async fn send_with(
        &mut self,
        make: Make,
        request: &RegistrationRequest,
        token: Option<&SasToken>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let made = make(&self.config, request, token.map(SasToken::expose))?;
        self.exchange(Stage::Register, made, progress).await
    }

    /// Registers with a TPM: the first request brings its challenge, the second the answer to that. One that is sent
    /// again, because the service throttled, keeps to the answer; so a registration has one challenge, unless the
    /// service refuses an answer that an earlier call has left.
    async fn send_by_tpm(
        &mut self,
        make: Make,
        tpm: &TpmLogin,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let request = tpm.complete(request).await?;
        let id = request.registration_id();
        // It is out of its place until the service has taken it.
        if let Some((_, token)) = self.tpm_token.take().filter(|(of, _)| of == id) {
            let response = self.send_with(make, &request, Some(&token), progress).await?;
            if response.status != 401 {
                self.tpm_token = Some((id.clone(), token));
                return Ok(response);
            }
        }
        let response = self.send_with(make, &request, None, progress).await?;
        let Some(challenge) = response.tpm_challenge() else { return Ok(response) };
        let token = tpm.answer(&from_base64(&challenge)?, id).await?;
        let response = self.send_with(make, &request, Some(&token), progress).await?;
        if response.status != 401 {
            self.tpm_token = Some((id.clone(), token));
        }
        Ok(response)
    }
}

impl TransportHandlers for HttpTransport {
    async fn connect(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.config.preflight(request.registration_id())?;
        if self.connection.as_ref().is_some_and(Connection::stands) {
            return Ok(());
        }
        let mut connection = Connection::new(&self.config, &self.tls)?;
        let never_sent = convert(codec::register(&self.config, request, None)?)?;
        connection.connect(never_sent, progress).await?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let response = self.send(codec::register, request, progress).await?;
        // Only the answer to a registration brings the key for the hub.
        if let Some(tpm) = TpmLogin::of(&self.config, progress) {
            tpm.conclude(Stage::Register, &response).await?;
        }
        Ok(response)
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let token = self.config.sas_token(request.registration_id(), progress).await?;
        let token = token.as_ref().or(self.tpm_token.as_ref().map(|(_, token)| token));
        let authorization = token.map(SasToken::expose);
        let get = codec::query(&self.config, request, operation_id, authorization)?;
        let response = self.exchange(Stage::Query, get, progress).await?;
        if let Some(tpm) = TpmLogin::of(&self.config, progress) {
            tpm.conclude(Stage::Query, &response).await?;
        }
        Ok(response)
    }

    /// HTTP has no end of the session: the connection is closed.
    async fn end_session(&mut self) -> Result<(), Error> {
        self.connection = None;
        self.tpm_token = None;
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
