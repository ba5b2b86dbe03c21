//! The first connection of an assigned device to its hub: does the hub let it in?
//!
//! See <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub>.

use std::fmt;

use bytes::BytesMut;
use dps_connect::{
    Carrier, Config, Connector, Opened,
    internal::failure::{self, Peer},
};
use dps_state_machine::{
    Error, Progress, ProtocolError, RegistrationId, RejectionError, Response, Stage,
};

use crate::{
    codec::{self, Incoming, PROTOCOL},
    connection::{Connection, Fault},
};

const KEEP_ALIVE_SECONDS: u16 = 60;
const STAGE: Stage = Stage::Authenticate;

/// A hub, and the device that connects to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HubConfig {
    /// How the hub is reached, whom to trust, and the credential. Its endpoint is the hub's; its ID scope and its
    /// api-version do not count.
    pub connect: Config,
    /// What carries MQTT: TLS on port 8883 (the default) or WebSocket on port 443.
    pub carrier: Carrier,
    /// The hub's name, as the registration result has it.
    pub hub: String,
    /// The device's id there.
    pub device_id: String,
}

impl HubConfig {
    /// A hub that is reached over TLS.
    #[must_use]
    pub fn new(connect: Config, hub: impl Into<String>, device_id: impl Into<String>) -> Self {
        Self { connect, carrier: Carrier::Tls, hub: hub.into(), device_id: device_id.into() }
    }
}

/// A device that is connected to its hub. Dropping it closes the connection.
pub struct HubConnection(Connection);

impl HubConnection {
    /// Connects once. What bounds the time is the caller's; the progress tells how far it has come.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the hub refuses the device; retryable when it has no time for it. [`Error::Connection`],
    /// [`Error::Credential`], [`Error::Protocol`] and [`Error::Configuration`] are those of a registration.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was open.
    pub async fn open(
        config: &HubConfig,
        registration_id: &RegistrationId,
        progress: &Progress,
    ) -> Result<Self, Error> {
        let HubConfig { connect, carrier, hub, device_id } = config;
        connect.preflight(registration_id)?;
        let token = connect.hub_token(hub, device_id, progress).await?;
        let password = token.as_ref().map(|token| token.expose());
        let (agent, mut first) = (&connect.user_agent, BytesMut::new());
        codec::hub::connect(&mut first, hub, device_id, agent, KEEP_ALIVE_SECONDS, password)?;
        let peer = Peer::of(connect, PROTOCOL.port(*carrier))?;
        let connector = Connector::new(connect.clone())?;
        let io = match connector.open(&PROTOCOL, *carrier, progress).await? {
            Opened::Ready(io) => io,
            Opened::Refused(refusal) => return Err(rejected(refusal)),
        };
        let mut connection =
            Connection::new(io, registration_id.clone(), KEEP_ALIVE_SECONDS, first);
        loop {
            match connection.next().await.map_err(|fault| error(&peer, fault))? {
                Incoming::Accepted => return Ok(Self(connection)),
                Incoming::Refused(refusal) => {
                    return Err(rejected(codec::refusal(refusal, STAGE)?));
                }
                _ => {}
            }
        }
    }

    /// Ends the session and closes the connection.
    pub async fn close(self) {
        self.0.close().await;
    }
}

impl fmt::Debug for HubConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubConnection")
    }
}

fn rejected(Response { status, reason, hint, .. }: Response) -> Error {
    let mut rejection = RejectionError::new(status, reason.unwrap_or_default());
    rejection.hint = hint;
    rejection.into()
}

fn error(peer: &Peer, fault: Fault) -> Error {
    match fault {
        Fault::Unreadable(what) => ProtocolError::unreadable(STAGE, what).into(),
        Fault::AnotherProtocol(heard) => {
            failure::another_protocol(STAGE, peer, "MQTT, which begins with CONNACK", &heard)
        }
        Fault::Lost(error) => failure::broken(STAGE, peer, error),
    }
}
