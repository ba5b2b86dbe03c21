//! The transport as the state machine drives it.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher, Hasher},
    time::SystemTime,
};

use bytes::BytesMut;
use dps_connect::{
    Carrier, Connector,
    failure::{self, Peer},
};
use dps_state_machine::{
    Error, OperationId, Progress, ProtocolError, RegistrationRequest, Response, Stage,
    TransportHandlers,
};

use crate::{
    codec::{self, Incoming, PROTOCOL},
    config::MqttConfig,
    link::{Fault, Link, Parked},
};

/// Registers over MQTT, with a SAS token as the password or with the device's certificate.
///
/// One connection is made at the first request and kept for the polls, until the end of the session; between two
/// requests a task of its own keeps it alive. A connection that was lost meanwhile is made anew, with a fresh token,
/// when the next request comes. Answers are matched by their `$rid`: those to other requests are ignored.
pub struct MqttTransport {
    connector: Connector,
    carrier: Carrier,
    keep_alive: u16,
    pipelined: bool,
    parked: Option<Parked>,
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
        let MqttConfig { connect, carrier, pipelined, .. } = config;
        let connector = Connector::new(connect)?;
        // Random, so that an answer to a former process is not taken for one to this.
        let [a, b, c, d, ..] = RandomState::new().build_hasher().finish().to_ne_bytes();
        let last_request_id = u32::from_ne_bytes([a, b, c, d]);
        Ok(Self { connector, carrier, keep_alive, pipelined, parked: None, last_request_id })
    }

    async fn exchange(
        &mut self,
        question: Question<'_>,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.last_request_id = self.last_request_id.wrapping_add(1);
        let request_id = format!("{:08x}", self.last_request_id);
        let peer = Peer::of(self.connector.config(), PROTOCOL.port(self.carrier))?;
        let talk = Talk { question, request_id: &request_id, peer: &peer };
        // What no packet can carry is found out before any I/O.
        talk.append_question(&mut BytesMut::new(), 1)?;

        let (link, response) = match self.kept(question.request()).await {
            Some(mut link) => {
                let response = talk.ask(&mut link).await?;
                (Some(link), response)
            }
            None => self.start(&talk, progress).await?,
        };
        self.parked = link.filter(|link| !link.refused).map(Parked::new);
        let hint = self.connector.config().credential_hint();
        let refused = response.status == 401;
        Ok(response.hint(hint.filter(|_| refused)))
    }

    /// The connection that was kept, if it still stands and is this device's.
    async fn kept(&mut self, request: &RegistrationRequest) -> Option<Link> {
        let mut link = self.parked.take()?.take().await?;
        if link.registration_id() != request.registration_id() {
            link.close().await;
            return None;
        }
        (!link.has_ended().await).then_some(link)
    }

    /// Makes a connection and asks on it. There is none when the service says no before it stands.
    async fn start(
        &mut self,
        talk: &Talk<'_>,
        progress: &Progress,
    ) -> Result<(Option<Link>, Response), Error> {
        if self.pipelined {
            let mut link = match self.open(talk.question.request(), progress).await? {
                Ok(link) => link,
                Err(refusal) => return Ok((None, refusal)),
            };
            talk.append_subscribe(&mut link)?;
            match talk.ask(&mut link).await {
                Err(Error::Connection(error)) if error.lost && !link.heard => {
                    tracing::debug!(%error, "no answer to a flight of packets: now step by step");
                }
                outcome => return Ok((Some(link), outcome?)),
            }
        }
        let mut link = match self.open(talk.question.request(), progress).await? {
            Ok(link) => link,
            Err(refusal) => return Ok((None, refusal)),
        };
        if let Said::Answer(refusal) = talk.listen(&mut link).await? {
            return Ok((Some(link), refusal));
        }
        talk.append_subscribe(&mut link)?;
        if let Said::Answer(refusal) = talk.listen(&mut link).await? {
            return Ok((Some(link), refusal));
        }
        let response = talk.ask(&mut link).await?;
        self.pipelined = false;
        Ok((Some(link), response))
    }

    /// A new connection, with CONNECT ready to leave, or the service's no.
    async fn open(
        &self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Result<Link, Response>, Error> {
        let (config, registration_id) = (self.connector.config(), request.registration_id());
        // Signed anew for each connection.
        let token = config.sas_token(registration_id, progress).await?;
        let password = token.as_ref().map(|token| token.expose());
        let mut connect = BytesMut::new();
        codec::connect(&mut connect, config, registration_id, self.keep_alive, password)?;
        let opened = self.connector.open(&PROTOCOL, self.carrier, progress).await?;
        Ok(opened.map(|io| Link::new(io, registration_id.clone(), self.keep_alive, connect)))
    }
}

impl TransportHandlers for MqttTransport {
    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.connector.config().preflight(request.registration_id())?;
        self.exchange(Question::Register(request), progress).await
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.exchange(Question::Status(request, operation_id), progress).await
    }

    /// Sends DISCONNECT and closes, without waiting for the service.
    async fn end_session(&mut self) -> Result<(), Error> {
        if let Some(parked) = self.parked.take()
            && let Some(link) = parked.take().await
        {
            link.close().await;
        }
        Ok(())
    }
}

impl fmt::Debug for MqttTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttTransport")
            .field("connector", &self.connector)
            .field("carrier", &self.carrier)
            .field("keep_alive", &self.keep_alive)
            .field("pipelined", &self.pipelined)
            .finish_non_exhaustive()
    }
}

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) enum Question<'a> {
    Register(&'a RegistrationRequest),
    Status(&'a RegistrationRequest, &'a OperationId),
}

impl<'a> Question<'a> {
    fn request(self) -> &'a RegistrationRequest {
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

/// What the service said, as far as the question at hand goes.
enum Said {
    /// Go on.
    Yes,
    /// The answer to the question, or why there will be none.
    Answer(Response),
}

/// One question and its answer.
pub(crate) struct Talk<'a> {
    pub(crate) question: Question<'a>,
    pub(crate) request_id: &'a str,
    pub(crate) peer: &'a Peer,
}

impl Talk<'_> {
    pub(crate) fn append_subscribe(&self, link: &mut Link) -> Result<(), Error> {
        let packet_id = link.packet_id();
        codec::subscribe(link.outgoing(), packet_id)
    }

    fn append_question(&self, out: &mut BytesMut, packet_id: u16) -> Result<(), Error> {
        match self.question {
            Question::Register(request) => {
                codec::register(out, request, self.request_id, packet_id)
            }
            Question::Status(_, operation_id) => {
                codec::query(out, operation_id, self.request_id, packet_id)
            }
        }
    }

    pub(crate) async fn ask(&self, link: &mut Link) -> Result<Response, Error> {
        let packet_id = link.packet_id();
        self.append_question(link.outgoing(), packet_id)?;
        link.asked = true;
        loop {
            if let Said::Answer(response) = self.listen(link).await? {
                return Ok(response);
            }
        }
    }

    /// Waits for the next word that concerns the question.
    async fn listen(&self, link: &mut Link) -> Result<Said, Error> {
        let stage = self.question.stage();
        loop {
            match link.next().await.map_err(|fault| self.error(link, fault))? {
                Incoming::Accepted | Incoming::Subscribed => return Ok(Said::Yes),
                Incoming::Refused(refusal) => {
                    link.refused = true;
                    return codec::refusal(refusal, stage).map(Said::Answer);
                }
                Incoming::SubscriptionRefused => {
                    link.refused = true;
                    return Ok(Said::Answer(codec::subscription_refusal()));
                }
                Incoming::Delivery(delivery) => {
                    let now = SystemTime::now();
                    match codec::answer(&delivery, self.request_id, stage, now)? {
                        Some(response) => return Ok(Said::Answer(response)),
                        None => tracing::debug!("ignored an answer to another request"),
                    }
                }
                _ => {}
            }
        }
    }

    fn error(&self, link: &Link, fault: Fault) -> Error {
        let stage = self.question.stage();
        match fault {
            Fault::Unreadable(what) => ProtocolError::unreadable(stage, what).into(),
            Fault::Lost(error) => {
                let mut error = failure::broken(stage, self.peer, error);
                if let Error::Connection(lost) = &mut error {
                    lost.request_may_have_been_sent = link.asked;
                }
                error
            }
        }
    }
}
