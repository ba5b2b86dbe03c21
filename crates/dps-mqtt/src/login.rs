//! CONNECT and its answer, for who needs no more of a session than that.

use bytes::BytesMut;
use dps_connect::{
    Carrier, Config, Connector, Opened,
    internal::failure::{self, Peer},
};
use dps_state_machine::{Error, Progress, ProtocolError, RegistrationId, Stage};

use crate::{
    MqttConfig,
    codec::{self, Incoming, PROTOCOL},
    connection::{Connection, Fault},
};

pub(crate) const STAGE: Stage = Stage::Authenticate;

/// Authenticates at the provisioning service, as a registration does, and ends the session. Nothing is registered. What
/// bounds the time is the caller's.
///
/// # Errors
/// [`Error::Connection`], [`Error::Credential`], [`Error::Protocol`] and [`Error::Configuration`], as of a registration; a
/// refusal of the service is [`Opened::Refused`].
///
/// # Cancel safety
/// Dropping the future closes what was open.
pub async fn log_in(
    config: &MqttConfig,
    registration_id: &RegistrationId,
    progress: &Progress,
) -> Result<Opened<()>, Error> {
    let (connect, keep_alive) = (&config.connect, config.check()?);
    connect.preflight(registration_id)?;
    let token = connect.sas_token(registration_id, progress).await?;
    let password = token.as_ref().map(|token| token.expose());
    let mut first = BytesMut::new();
    codec::connect(&mut first, connect, registration_id, keep_alive, password)?;
    let opened =
        open(connect, config.carrier, registration_id, keep_alive, first, progress).await?;
    Ok(match opened {
        Opened::Ready(connection) => {
            connection.close().await;
            Opened::Ready(())
        }
        Opened::Refused(response) => Opened::Refused(response),
    })
}

/// Connects, sends CONNECT (`first`), and reads what comes until that is answered.
pub(crate) async fn open(
    connect: &Config,
    carrier: Carrier,
    registration_id: &RegistrationId,
    keep_alive: u16,
    first: BytesMut,
    progress: &Progress,
) -> Result<Opened<Connection>, Error> {
    let peer = Peer::of(connect, PROTOCOL.port(carrier))?;
    let connector = Connector::new(connect.clone())?;
    let io = match connector.open(&PROTOCOL, carrier, progress).await? {
        Opened::Ready(io) => io,
        Opened::Refused(refusal) => return Ok(Opened::Refused(refusal)),
    };
    let mut connection = Connection::new(io, registration_id.clone(), keep_alive, first);
    loop {
        match connection.next().await.map_err(|fault| error(&peer, fault))? {
            Incoming::Accepted => return Ok(Opened::Ready(connection)),
            Incoming::Refused(refusal) => {
                return codec::refusal(refusal, STAGE).map(Opened::Refused);
            }
            _ => {}
        }
    }
}

pub(crate) fn error(peer: &Peer, fault: Fault) -> Error {
    match fault {
        Fault::Unreadable(what) => ProtocolError::unreadable(STAGE, what).into(),
        Fault::AnotherProtocol(heard) => {
            failure::another_protocol(STAGE, peer, "MQTT, which begins with CONNACK", &heard)
        }
        Fault::Lost(error) => failure::broken(STAGE, peer, error),
    }
}
