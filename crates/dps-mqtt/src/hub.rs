//! The first connection of an assigned device to its hub: does the hub let it in?
//!
//! See <https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub>.

use std::fmt;

use bytes::BytesMut;
use dps_connect::{Carrier, Config, Opened, internal::failure::Peer};
use dps_state_machine::{
    CertificateRequest, Error, IssuedCertificates, Progress, RegistrationId, RejectionError,
    Response, Stage,
    serde_json::{self, Value},
};

use crate::{
    codec::{self, Incoming, PROTOCOL},
    connection::Connection,
    login::{self, error},
};

const KEEP_ALIVE_SECONDS: u16 = 60;

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
    /// Whether a certificate will be asked for, which only a preview of the hub's interface has.
    pub for_certificate: bool,
}

impl HubConfig {
    /// A hub that is reached over TLS.
    #[must_use]
    pub fn new(connect: Config, hub: impl Into<String>, device_id: impl Into<String>) -> Self {
        Self {
            connect,
            carrier: Carrier::Tls,
            hub: hub.into(),
            device_id: device_id.into(),
            for_certificate: false,
        }
    }
}

/// A device that is connected to its hub. Dropping it closes the connection.
pub struct HubConnection {
    connection: Connection,
    peer: Peer,
    device_id: String,
}

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
        let HubConfig { connect, carrier, hub, device_id, for_certificate } = config;
        connect.preflight(registration_id)?;
        let token = connect.hub_token(hub, device_id, progress).await?;
        let password = token.as_ref().map(|token| token.expose());
        let (agent, mut first) = (&connect.user_agent, BytesMut::new());
        let keep_alive = KEEP_ALIVE_SECONDS;
        let preview = *for_certificate;
        codec::hub::connect(&mut first, hub, device_id, agent, keep_alive, password, preview)?;
        let peer = Peer::of(connect, PROTOCOL.port(*carrier))?;
        let opened =
            login::open(connect, *carrier, registration_id, KEEP_ALIVE_SECONDS, first, progress);
        match opened.await? {
            Opened::Ready(connection) => {
                Ok(Self { connection, peer, device_id: device_id.clone() })
            }
            Opened::Refused(refusal) => Err(rejected(refusal)),
        }
    }

    /// Ends the session and closes the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }

    /// Has the hub issue a certificate in place of the one that the device has. A hub accepts such a request first and
    /// answers later: what bounds the time is the caller's.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the hub refuses it, and those of a connection.
    ///
    /// # Cancel safety
    /// Dropping the future takes the connection's use away: drop it too. The hub may issue the certificate all the same.
    pub async fn issue_certificate(
        &mut self,
        csr: &CertificateRequest,
    ) -> Result<IssuedCertificates, Error> {
        let packet_ids = [self.connection.packet_id(), self.connection.packet_id()];
        codec::hub::issue(self.connection.outgoing(), &self.device_id, csr, packet_ids)?;
        loop {
            let incoming = self.connection.next().await;
            match incoming.map_err(|fault| error(&self.peer, fault))? {
                Incoming::SubscriptionRefused(_) => {
                    let reason = "the hub takes no requests for certificates: it refused the subscription to their answers";
                    return Err(RejectionError::new(403, reason).into());
                }
                Incoming::Delivery(delivery) => match codec::hub::answer(&delivery) {
                    None | Some(Response { status: 202, .. }) => {}
                    Some(Response { status: 200, body, .. }) => {
                        return Ok(IssuedCertificates::from_hub(&body));
                    }
                    Some(refusal) => return Err(refused(&refusal)),
                },
                _ => {}
            }
        }
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

/// The hub's error body says why.
fn refused(Response { status, body, .. }: &Response) -> Error {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name| said.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut rejection =
        RejectionError::new(*status, text("message").unwrap_or_else(|| "no reason".to_owned()));
    let code = said.get("errorCode").and_then(Value::as_u64);
    rejection.error_code = code.and_then(|code| code.try_into().ok());
    rejection.tracking_id = text("trackingId");
    rejection.stage = Stage::Register;
    rejection.into()
}
