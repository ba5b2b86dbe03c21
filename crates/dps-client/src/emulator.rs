//! The service itself, for an application's tests: all of `dps-emulator`, and what a client needs to reach it.

pub use dps_emulator::*;
use percent_encoding::percent_decode_str;

use crate::{CredentialError, Error, Roots, SasSigner, Signing, Transport as ClientTransport};

/// What connects a client to an [`Emulator`].
pub trait EmulatorExt {
    /// Where the emulator serves this transport, its ID scope, and its CA to trust.
    ///
    /// The credential fits any device of the group that [`Config::with_any_device`] adds. For a device of another
    /// enrollment set [`attestation`](crate::Config::attestation) to what the device has; without either, a registration
    /// is a [`CredentialError`] that says so.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use dps_client::{RegistrationRequest, Settings, Transport, client};
    /// use dps_client::emulator::{Emulator, EmulatorExt as _};
    ///
    /// let emulator = Emulator::builder().with_any_device(None, None)?.start().await?;
    /// let client = client(Transport::Mqtt, emulator.config(Transport::Mqtt)?, Settings::default())?;
    /// let device = client.register(RegistrationRequest::new("pump-17".parse()?)).await?;
    /// # assert_eq!(device.device_id, "pump-17");
    /// # client.end_session().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Configuration`] when the platform can't read the CA's certificate.
    fn config(&self, transport: ClientTransport) -> Result<crate::Config, Error>;
}

impl EmulatorExt for Emulator {
    fn config(&self, transport: ClientTransport) -> Result<crate::Config, Error> {
        let served = match transport {
            ClientTransport::Http => Transport::Http,
            ClientTransport::Mqtt => Transport::Mqtt,
            ClientTransport::MqttWs => Transport::MqttWs,
            ClientTransport::Amqp => Transport::Amqp,
            ClientTransport::AmqpWs => Transport::AmqpWs,
        };
        let any_device = AnyDevice(self.group_key().cloned());
        let mut config = crate::Config::new(
            self.id_scope().clone(),
            crate::Attestation::from_signer(any_device),
        );
        config.endpoint = self.endpoint(served).parse()?;
        config.roots = Roots::empty().with_pem(self.ca_pem().as_bytes())?;
        Ok(config)
    }
}

/// Signs for whichever device a token is for, by a key derived from the group's.
struct AnyDevice(Option<GroupKey>);

impl SasSigner for AnyDevice {
    fn sign<'a>(&'a self, text: &'a str) -> Signing<'a> {
        Box::pin(async move {
            let group = self.0.as_ref().ok_or_else(|| {
                CredentialError::new("the emulator has no group that takes any device").hint(
                    "call with_any_device on its builder, or set the configuration's attestation",
                )
            })?;
            let resource = text.split('\n').next().unwrap_or_default();
            let resource = percent_decode_str(resource).decode_utf8_lossy();
            let (_, device) = resource.rsplit_once('/').unwrap_or_default();
            let device = device.parse().map_err(|error: Error| {
                CredentialError::new("the token is for no device").source(error)
            })?;
            Ok(group.derive(&device).signature(text))
        })
    }
}
