//! Device provisioning for Azure IoT: choose a transport by feature, register a device.
//!
//! ```no_run
//! use dps_client::{Config, RegistrationRequest, Settings, SymmetricKey, Transport, client};
//!
//! # async fn register() -> Result<(), dps_client::Error> {
//! let key: SymmetricKey = std::fs::read_to_string("device.key").unwrap_or_default().parse()?;
//! let config = Config::new("0ne00AABBCC".parse()?, key.into());
//! let client = client(Transport::Http, config, Settings::default())?;
//! let device = client.register(RegistrationRequest::new("pump-17".parse()?)).await?;
//! println!("{} is {}", device.device_id, device.assigned_hub);
//! client.end_session().await
//! # }
//! ```
//!
//! It runs on tokio: in a runtime of any flavour with its I/O and its timer enabled (`#[tokio::main]` does so; by hand,
//! `enable_all`), which takes tokio's features `rt`, `net` and `time`. Outside of one, `register` is a configuration
//! error.
//!
//! Each feature adds a transport: `http`, `mqtt`, `amqp`, and `websocket` lets MQTT and AMQP go through port 443. None is
//! there by default, and none hides anything: asking for a transport that is not compiled in is a configuration error. An
//! application that knows its transport at compile time, or that has settings for it, can use that transport's own type with
//! [`StateMachine`] instead; so can one that brings a transport of its own, like a fake for its tests: it implements
//! [`TransportHandlers`].

mod transport;

#[cfg(feature = "amqp")]
pub use dps_amqp::{AmqpConfig, AmqpTransport};
pub use dps_attestation::{
    Attestation, GroupKey, SasSignature, SasSigner, SasToken, Signing, SymmetricKey,
    SymmetricKeyFile, X509Files, X509Identity,
};
pub use dps_connect::{ApiVersion, Carrier, Config, Endpoint, NoProxy, Proxy, ProxyChoice, Roots};
#[cfg(feature = "http")]
pub use dps_http::HttpTransport;
#[cfg(feature = "mqtt")]
pub use dps_mqtt::{MqttConfig, MqttTransport};
pub use dps_state_machine::{
    BoxTransport, ConfigurationError, ConnectionError, CredentialError, Error, ErrorKind, IdScope,
    Next, OperationId, OperationStatus, OperationStatusEvents, Printable, Progress, ProtocolError,
    ProtocolResult, RegistrationId, RegistrationRequest, RegistrationResult, RejectionCause,
    RejectionError, Response, Settings, Stage, StateMachine, Step, Substatus, TimeoutError,
    TimeoutScope, TransportHandlers, retry_after, serde_json,
};
pub use transport::{Transport, client};

/// The README's code compiles.
#[cfg(all(doctest, feature = "http"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// A device's session over a transport chosen at run time.
pub type Client = StateMachine<BoxTransport>;
