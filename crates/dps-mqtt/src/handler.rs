//! The transport as the state machine drives it.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    pin::pin,
    time::{Duration, SystemTime},
};

use bytes::BytesMut;
use dps_connect::{
    ApiVersion, Opened,
    internal::{
        Opener,
        failure::{self, Peer},
    },
};
use dps_state_machine::{
    Error, OperationId, Progress, ProtocolError, RegistrationRequest, Response, Stage,
    TransportHandlers,
};

use tokio::{select, time::sleep};

use crate::{
    codec::{self, Incoming, PROTOCOL},
    config::MqttConfig,
    connection::{Connection, Fault, Parked},
};

/// How long the service may take to acknowledge a request that left in one flight with CONNECT. A broker that loses what
/// comes before its CONNACK or SUBACK stays silent.
const FLIGHT_PATIENCE: Duration = Duration::from_secs(10);

/// Registers over MQTT, with a SAS token as the password or with the device's certificate.
///
/// One connection is made at the first request and kept for the polls, until the end of the session; between two
/// requests a task of its own keeps it alive. A connection that was lost meanwhile is made anew, with a fresh token,
/// when the next request comes. Answers are matched by their `$rid`: those to other requests are ignored.
pub struct MqttTransport {
    opener: Opener,
    keep_alive: u16,
    pipelined: bool,
    parked: Option<Parked>,
    /// The version of the service's interface that the kept connection has.
    served: ApiVersion,
    last_request_id: u32,
}

impl MqttTransport {
    /// A transport without a connection yet. No I/O.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the setting that can't be used.
    pub fn new(config: impl Into<MqttConfig>) -> Result<Self, Error> {
        let config = config.into();
        let keep_alive = config.check()?;
        let MqttConfig { connect, carrier, .. } = config;
        let pipelined = connect.pipelined;
        let opener = Opener::new(connect, PROTOCOL, carrier)?;
        // Random, so that an answer to a former process is not taken for one to this.
        let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
        let last_request_id = u32::from_ne_bytes([a, b, c, d]);
        let served = ApiVersion::default();
        Ok(Self { opener, keep_alive, pipelined, parked: None, served, last_request_id })
    }

    async fn exchange(
        &mut self,
        request: Request<'_>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.last_request_id = self.last_request_id.wrapping_add(1);
        let request_id = format!("{:08x}", self.last_request_id);
        let peer = self.opener.peer()?;
        let exchange = Exchange { request, request_id: &request_id, peer: &peer, progress };
        // What no packet can carry is found out before any I/O.
        exchange.append_request(&mut BytesMut::new(), 1)?;

        let (connection, response) = match self.kept(request.registration()).await {
            Some(mut connection) => {
                let response = exchange.ask(&mut connection).await?;
                (Some(connection), response)
            }
            None => self.start(&exchange).await?,
        };
        self.parked = connection.filter(|connection| !connection.refused).map(Parked::new);
        let hint = self.opener.config().credential_hint(None);
        let refused = response.refuses_credential();
        Ok(response.hint(hint.filter(|_| refused)))
    }

    /// The connection that was kept, if it still stands, is this device's and has the version of the request.
    async fn kept(&mut self, request: &RegistrationRequest) -> Option<Connection> {
        let version = self.opener.config().api_version.for_request(request);
        let serves = self.served == version;
        self.served = version;
        let mut connection = self.parked.take()?.take().await?;
        if !serves || connection.registration_id() != request.registration_id() {
            connection.close().await;
            return None;
        }
        (!connection.has_ended().await).then_some(connection)
    }

    /// Makes a connection and asks on it. There is no connection when the service refuses it.
    async fn start(
        &mut self,
        exchange: &Exchange<'_>,
    ) -> Result<(Option<Connection>, Response), Error> {
        tracing::debug!(pipelined = self.pipelined, "starting MQTT");
        if self.pipelined {
            let mut connection = match self.open(exchange).await? {
                Opened::Ready(connection) => connection,
                Opened::Refused(refusal) => return Ok((None, refusal)),
            };
            if let Some(response) = exchange.ask_in_one_flight(&mut connection).await? {
                return Ok((Some(connection), response));
            }
            tracing::debug!("the service does not take several packets at once: now step by step");
        }
        let mut connection = match self.open(exchange).await? {
            Opened::Ready(connection) => connection,
            Opened::Refused(refusal) => return Ok((None, refusal)),
        };
        if let Received::Answer(refusal) = exchange.listen(&mut connection).await? {
            return Ok((Some(connection), refusal));
        }
        exchange.append_subscribe(&mut connection)?;
        if let Received::Answer(refusal) = exchange.listen(&mut connection).await? {
            return Ok((Some(connection), refusal));
        }
        // This way works: the transport keeps to it.
        self.pipelined = false;
        let response = exchange.ask(&mut connection).await?;
        Ok((Some(connection), response))
    }

    /// A new connection, with CONNECT ready to leave, or the refusal of the service.
    async fn open(
        &mut self,
        &Exchange { request, progress, .. }: &Exchange<'_>,
    ) -> Result<Opened<Connection>, Error> {
        let registration_id = request.registration().registration_id();
        let config = &self.opener.config().for_request(request.registration());
        // Each connection gets a fresh token.
        let token = config.sas_token(registration_id, progress).await?;
        let password = token.as_ref().map(|token| token.expose());
        let mut connect = BytesMut::new();
        codec::connect(&mut connect, config, registration_id, self.keep_alive, password)?;
        let opened = self.opener.open(progress).await?;
        Ok(opened.map(|io| Connection::new(io, registration_id.clone(), self.keep_alive, connect)))
    }
}

impl TransportHandlers for MqttTransport {
    async fn connect(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.opener.config().preflight(request.registration_id())?;
        // What no packet can carry is found out before any I/O.
        codec::register(&mut BytesMut::new(), request, "", 1)?;
        match self.kept(request).await {
            Some(connection) => {
                self.parked = Some(Parked::new(connection));
                Ok(())
            }
            None => self.opener.open_ahead(progress).await,
        }
    }

    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.opener.config().preflight(request.registration_id())?;
        self.exchange(Request::Register(request), progress).await
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.exchange(Request::Status(request, operation_id), progress).await
    }

    /// Sends DISCONNECT and closes, without waiting for the service.
    async fn end_session(&mut self) -> Result<(), Error> {
        self.opener.close();
        if let Some(parked) = self.parked.take()
            && let Some(connection) = parked.take().await
        {
            connection.close().await;
        }
        Ok(())
    }
}

impl fmt::Debug for MqttTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttTransport")
            .field("opener", &self.opener)
            .field("keep_alive", &self.keep_alive)
            .field("pipelined", &self.pipelined)
            .finish_non_exhaustive()
    }
}

/// A request.
#[derive(Clone, Copy)]
pub(crate) enum Request<'a> {
    Register(&'a RegistrationRequest),
    Status(&'a RegistrationRequest, &'a OperationId),
}

impl<'a> Request<'a> {
    fn registration(self) -> &'a RegistrationRequest {
        match self {
            Self::Register(request) | Self::Status(request, _) => request,
        }
    }

    fn stage(self) -> Stage {
        match self {
            Self::Register(_) => Stage::Register,
            Self::Status(..) => Stage::Query,
        }
    }
}

/// What a packet means for the exchange.
enum Received {
    /// Go on.
    GoAhead,
    /// The answer to the request, or why there will be none.
    Answer(Response),
}

/// One request and its answer.
pub(crate) struct Exchange<'a> {
    pub(crate) request: Request<'a>,
    pub(crate) request_id: &'a str,
    pub(crate) peer: &'a Peer,
    pub(crate) progress: &'a Progress,
}

impl Exchange<'_> {
    pub(crate) fn append_subscribe(&self, connection: &mut Connection) -> Result<(), Error> {
        let packet_id = connection.packet_id();
        codec::subscribe(connection.outgoing(), packet_id)
    }

    fn append_request(&self, out: &mut BytesMut, packet_id: u16) -> Result<(), Error> {
        match self.request {
            Request::Register(request) => codec::register(out, request, self.request_id, packet_id),
            Request::Status(_, operation_id) => {
                codec::query(out, operation_id, self.request_id, packet_id)
            }
        }
    }

    /// Sends the request and waits for its answer.
    pub(crate) async fn ask(&self, connection: &mut Connection) -> Result<Response, Error> {
        self.send(connection)?;
        loop {
            if let Received::Answer(response) = self.listen(connection).await? {
                return Ok(response);
            }
        }
    }

    /// Does the same on a new connection, and sends what begins the session in the same flight. `None` when the service
    /// has lost or refused what came before its own answers, whatever the symptom: before SUBACK it closes, resets, sends
    /// what can't be read, or refuses for another reason than who the device is or how the service does; or it does not
    /// acknowledge the request in time.
    async fn ask_in_one_flight(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<Response>, Error> {
        self.append_subscribe(connection)?;
        self.send(connection)?;
        let mut patience = pin!(sleep(FLIGHT_PATIENCE));
        loop {
            let acknowledged = connection.acknowledged();
            let received = select! {
                // Patience comes first: a peer that sends without end does not hide its end.
                biased;
                () = &mut patience, if !acknowledged => return Ok(None),
                received = self.listen(connection) => received,
            };
            match received {
                Ok(Received::GoAhead) => {}
                Ok(Received::Answer(_)) if connection.refused && may_be_early(connection) => {
                    return Ok(None);
                }
                Ok(Received::Answer(response)) => return Ok(Some(response)),
                Err(Error::Connection(error)) if error.lost && may_be_early(connection) => {
                    tracing::debug!(stage = ?error.stage, "no answer to a flight of packets");
                    return Ok(None);
                }
                Err(Error::Protocol(error)) if may_be_early(connection) => {
                    tracing::debug!(stage = ?error.stage, "no answer to a flight of packets");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn send(&self, connection: &mut Connection) -> Result<(), Error> {
        let packet_id = connection.packet_id();
        self.append_request(connection.outgoing(), packet_id)?;
        connection.note_request(packet_id);
        Ok(())
    }

    /// Waits for the next packet that concerns the exchange.
    async fn listen(&self, connection: &mut Connection) -> Result<Received, Error> {
        let stage = self.request.stage();
        loop {
            match connection.next().await.map_err(|fault| self.error(connection, fault))? {
                Incoming::Accepted | Incoming::Subscribed => return Ok(Received::GoAhead),
                Incoming::Refused(refusal) => {
                    connection.refused = true;
                    connection.is_judged = !refusal.may_concern_the_start();
                    return codec::refusal(refusal, stage).map(Received::Answer);
                }
                Incoming::SubscriptionRefused(code) => {
                    connection.refused = true;
                    connection.is_judged = !codec::reason::may_concern_the_start(code);
                    return Ok(Received::Answer(codec::subscription_refusal(code)));
                }
                Incoming::Acknowledged { packet_id } | Incoming::Received { packet_id } => {
                    connection.note_acknowledgement(packet_id);
                    self.progress.saw(connection.activity());
                    return Ok(Received::GoAhead);
                }
                Incoming::Delivery(delivery) => {
                    let now = SystemTime::now();
                    match codec::answer(&delivery, self.request_id, stage, now)? {
                        Some(response) => return Ok(Received::Answer(response)),
                        None => {
                            tracing::debug!("ignored an answer to another request");
                            connection.note_unmatched_answer();
                            self.progress.saw(connection.activity());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn error(&self, connection: &Connection, fault: Fault) -> Error {
        let stage = self.request.stage();
        match fault {
            Fault::Unreadable(what) => ProtocolError::unreadable(stage, what).into(),
            Fault::AnotherProtocol(heard) => {
                let ours = "MQTT, which begins with CONNACK";
                failure::another_protocol(stage, self.peer, ours, &heard)
            }
            Fault::Lost(error) => {
                let mut error = failure::broken(stage, self.peer, error);
                if let Error::Connection(lost) = &mut error {
                    lost.request_may_have_been_sent = connection.has_sent_a_request();
                }
                error
            }
        }
    }
}

/// Whether what came may be due to packets that came too early for the service.
fn may_be_early(connection: &Connection) -> bool {
    !connection.subscribed && !connection.is_judged
}

#[cfg(test)]
mod tests;
