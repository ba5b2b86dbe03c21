//! The transport as the state machine drives it.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use dps_connect::{
    ApiVersion, Opened,
    internal::{
        Opener, TpmLogin,
        failure::{self, Peer},
    },
};
use dps_state_machine::{
    ConfigurationError, ConnectionError, Error, OperationId, Progress, ProtocolError,
    RegistrationId, RegistrationRequest, Response, Stage, TransportHandlers,
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::timeout;

use crate::{
    codec::{PROTOCOL, message, uuid_text},
    config::AmqpConfig,
    connection::{Asked, Broken, Connection, Login, Started},
};

/// How long a pipelined start may take. A server that loses what comes before it has asked stays silent.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Registers over AMQP, with a SAS token or with the device's certificate.
///
/// One connection is made at the first request and kept until the end of the session. When it is found dead before
/// a request, or the service has not heard from us for longer than it allows, a new one is made. A request that
/// went out on a connection that breaks fails, and is not sent twice.
pub struct AmqpTransport {
    opener: Opener,
    pipelined: bool,
    /// The service wanted SASL although the device has a certificate.
    wants_sasl: bool,
    connection: Option<Connection>,
    /// Whose connection it is, and by which version of the service's interface.
    opened_for: Option<(RegistrationId, ApiVersion)>,
}

impl AmqpTransport {
    /// A transport without a connection yet. No I/O.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the setting that can't be used.
    pub fn new(config: impl Into<AmqpConfig>) -> Result<Self, Error> {
        let AmqpConfig { connect, carrier } = config.into();
        let pipelined = connect.pipelined;
        let opener = Opener::new(connect, PROTOCOL, carrier)?;
        Ok(Self { opener, pipelined, wants_sasl: false, connection: None, opened_for: None })
    }

    /// Sends a request, on a new connection if there is none that is alive.
    ///
    /// The connection is out of its place meanwhile, so that it is closed when this future is dropped.
    async fn exchange(
        &mut self,
        stage: Stage,
        request: &RegistrationRequest,
        message: impl FnOnce(&str) -> Vec<u8>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let correlation_id = fresh_uuid()?;
        let message = message(&correlation_id);
        let peer = self.opener.peer()?;
        let mut connection = match self.living(request).await {
            Some(connection) => connection,
            None => match self.connect(stage, &peer, request, progress).await? {
                Ok(connection) => connection,
                Err(refusal) => return Ok(self.hinted(refusal)),
            },
        };
        match connection.ask(message, &correlation_id, progress).await {
            Ok(Asked::Answer(answer)) => {
                self.connection = Some(connection);
                Ok(self.hinted(answer.into_response(SystemTime::now())))
            }
            Ok(Asked::Refused(response)) => {
                self.connection = Some(connection);
                Ok(self.hinted(response))
            }
            Err(broken) => {
                let mut error = explain(stage, &peer, broken);
                if let Error::Connection(lost) = &mut error {
                    lost.request_may_have_been_sent = connection.may_have_sent();
                }
                Err(error)
            }
        }
    }

    /// The connection, if it can be used for this request.
    async fn living(&mut self, request: &RegistrationRequest) -> Option<Connection> {
        let version = self.opener.config().api_version.for_request(request);
        let wanted = Some((request.registration_id().clone(), version));
        let fits = self.opened_for == wanted;
        self.opened_for = wanted;
        let mut connection = self.connection.take()?;
        if !fits {
            // Another session takes its place: how this one ends is no matter.
            drop(connection.end().await);
            return None;
        }
        if connection.is_usable().await { Some(connection) } else { None }
    }

    /// A new connection, or the refusal of the service. If a pipelined start is lost or answered with what makes no sense,
    /// it is tried once more step by step: there are servers that take nothing before they were asked.
    async fn connect(
        &mut self,
        stage: Stage,
        peer: &Peer,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Result<Connection, Response>, Error> {
        let mut pipelined = self.pipelined;
        let config = &self.opener.config().for_request(request);
        let registration_id = request.registration_id();
        loop {
            let login = match Login::of(config, registration_id, progress).await? {
                Login::None if self.wants_sasl => Login::Offered,
                login => login,
            };
            tracing::debug!(?login, pipelined, "starting AMQP");
            let is_bare = matches!(login, Login::None);
            let io = match self.opener.open(progress).await? {
                Opened::Ready(io) => io,
                Opened::Refused(refusal) => return Ok(Err(refusal)),
            };
            let start = Connection::start(io, config, registration_id, login, pipelined);
            // A TPM takes its time, which bounds nothing but the time for the request.
            let started = if pipelined && config.attestation.tpm().is_none() {
                match timeout(START_PATIENCE, start).await {
                    Ok(started) => started,
                    Err(_) => {
                        tracing::debug!("a pipelined start gets no answer: now step by step");
                        pipelined = false;
                        continue;
                    }
                }
            } else {
                start.await
            };
            match started {
                Ok(Started::Ready(connection)) => {
                    // This way works: the transport keeps to it.
                    self.pipelined = pipelined;
                    return Ok(Ok(*connection));
                }
                Ok(Started::Refused(response)) => return Ok(Err(response)),
                Ok(Started::WantsSasl) if is_bare => self.wants_sasl = true,
                Ok(Started::WantsSasl) => {
                    let reason = "it wants SASL a second time";
                    return Err(ProtocolError::unreadable(stage, reason).into());
                }
                Err(broken) => {
                    // A TPM has answered to a challenge by then.
                    let is_nonsense =
                        matches!(broken, Broken::Nonsense(_)) && config.attestation.tpm().is_none();
                    let mut error = explain(stage, peer, broken);
                    // A refused certificate is refused step by step too.
                    let mut may_be_early = is_nonsense;
                    if let Error::Connection(lost) = &mut error {
                        lost.request_may_have_been_sent = false;
                        may_be_early |= lost.lost;
                    }
                    if pipelined && may_be_early {
                        pipelined = false;
                        continue;
                    }
                    return Err(error);
                }
            }
        }
    }

    fn hinted(&self, response: Response) -> Response {
        let refused = response.refuses_credential();
        let hint = self.opener.config().credential_hint(None).filter(|_| refused);
        response.hint(hint)
    }
}

/// Authenticates at the provisioning service, as a registration does, attaches both links, and ends the session. Nothing is
/// registered. What bounds the time is the caller's.
///
/// # Errors
/// [`Error::Connection`], [`Error::Credential`], [`Error::Protocol`] and [`Error::Configuration`], as of a registration; a
/// refusal of the service is [`Opened::Refused`].
///
/// # Cancel safety
/// Dropping the future closes what was open.
pub async fn log_in(
    config: &AmqpConfig,
    registration_id: &RegistrationId,
    progress: &Progress,
) -> Result<Opened<()>, Error> {
    let mut transport = AmqpTransport::new(config.clone())?;
    transport.opener.config().preflight(registration_id)?;
    let peer = transport.opener.peer()?;
    let request = RegistrationRequest::new(registration_id.clone());
    Ok(match transport.connect(Stage::Authenticate, &peer, &request, progress).await? {
        Ok(connection) => {
            // The device was let in: how the session ends is no matter.
            drop(connection.end().await);
            Opened::Ready(())
        }
        Err(refusal) => Opened::Refused(transport.hinted(refusal)),
    })
}

impl TransportHandlers for AmqpTransport {
    async fn connect(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.opener.config().preflight(request.registration_id())?;
        self.connection = self.living(request).await;
        match self.connection {
            Some(_) => Ok(()),
            None => self.opener.open_ahead(progress).await,
        }
    }

    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.opener.config().preflight(request.registration_id())?;
        let Some(tpm) = TpmLogin::of(self.opener.config(), progress) else {
            let message = |correlation_id: &str| message::register(request, correlation_id);
            return self.exchange(Stage::Register, request, message, progress).await;
        };
        let request = &tpm.complete(request).await?;
        let message = |correlation_id: &str| message::register(request, correlation_id);
        let response = self.exchange(Stage::Register, request, message, progress).await?;
        tpm.conclude(Stage::Register, &response).await?;
        Ok(response)
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        let message = |correlation_id: &str| message::query(operation_id, correlation_id);
        let response = self.exchange(Stage::Query, request, message, progress).await?;
        if let Some(tpm) = TpmLogin::of(self.opener.config(), progress) {
            tpm.conclude(Stage::Query, &response).await?;
        }
        Ok(response)
    }

    /// Detaches both links and closes the connection.
    async fn end_session(&mut self) -> Result<(), Error> {
        self.opener.close();
        let Some(connection) = self.connection.take() else { return Ok(()) };
        connection.end().await.map_err(|error| {
            let message = format!("the end of the session could not be sent: {error}");
            ConnectionError::lost(Stage::EndSession, message).into()
        })
    }
}

impl fmt::Debug for AmqpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpTransport")
            .field("opener", &self.opener)
            .field("pipelined", &self.pipelined)
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

fn explain(stage: Stage, peer: &Peer, broken: Broken) -> Error {
    match broken {
        Broken::Lost(error) => failure::broken(stage, peer, error),
        Broken::Dismissed(what) => {
            ConnectionError::lost(stage, format!("{peer} ended {what}")).into()
        }
        Broken::Nonsense(reason) | Broken::Unfit(reason) => {
            ProtocolError::unreadable(stage, reason.to_string()).into()
        }
        Broken::AnotherProtocol(heard) => failure::another_protocol(stage, peer, "AMQP", &heard),
        Broken::Credential(error) => error,
    }
}

/// A random UUID. See <https://www.rfc-editor.org/rfc/rfc9562#section-5.4>.
fn fresh_uuid() -> Result<String, Error> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        ConfigurationError::new("random source", "", "the system's random source failed")
    })?;
    let [.., version, _, variant, _, _, _, _, _, _, _] = &mut bytes;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    Ok(uuid_text(&bytes))
}
