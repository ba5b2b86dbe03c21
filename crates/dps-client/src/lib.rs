//! Device provisioning for Azure IoT: a client for the
//! [Device Provisioning Service](https://learn.microsoft.com/azure/iot-dps/about-iot-dps) (DPS), which tells a device
//! which hub is its own.
//!
//! # Why this one
//!
//! - A registration has exactly one outcome: no hang, no lost answer. Every wait has a bound, a future that is dropped
//!   leaves nothing behind, and the client can be used again.
//! - An [`Error`] says by its [kind](ErrorKind) whose fault it is, where it happened, and what to do next. The same fault
//!   gives the same error on every transport.
//! - The server's certificate is always checked. No secret is printed, and each is wiped when it is dropped.
//!
//! # Example
//!
//! ```no_run
//! use dps_client::{Config, RegistrationRequest, Settings, SymmetricKey, Transport, client};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let key: SymmetricKey = std::fs::read_to_string("device.key")?.parse()?;
//!     let config = Config::new("0ne00AABBCC".parse()?, key.into());
//!     let client = client(Transport::Mqtt, config, Settings::default())?;
//!
//!     let device = client.register(RegistrationRequest::new("pump-17".parse()?)).await?;
//!     println!("{} is a device of {}", device.device_id, device.assigned_hub);
//!     client.end_session().await?;
//!     Ok(())
//! }
//! ```
//!
//! It runs on tokio, in a runtime of any flavor with its I/O and its timer enabled: `#[tokio::main]` makes one, and
//! [`enable_all`](https://docs.rs/tokio/1/tokio/runtime/struct.Builder.html#method.enable_all) does so by hand. Outside
//! of a runtime, [`register`](StateMachine::register) is a configuration error.
//!
//! # Features
//!
//! | feature | adds | port |
//! |---|---|---|
//! | `http` | [`Transport::Http`]: HTTPS | 443 |
//! | `mqtt` | [`Transport::Mqtt`]: MQTT 3.1.1 over TLS | 8883 |
//! | `mqtt`, `websocket` | [`Transport::MqttWs`]: the same over WebSocket | 443 |
//! | `amqp` | [`Transport::Amqp`]: AMQP 1.0 over TLS | 5671 |
//! | `amqp`, `websocket` | [`Transport::AmqpWs`]: the same over WebSocket | 443 |
//! | `tpm` | an identity in a TPM 2.0 | |
//! | `pkcs11` | a TLS key in a PKCS#11 token | |
//! | `csr` | certificates that the service issues: the key, the check of what comes, a folder for both | |
//! | `device-file` | [`DeviceFile`]: the configuration file that the command reads too | |
//! | `emulator` | the service on loopback, for the tests of an application | |
//!
//! None is there by default. A feature only adds; to ask for a transport that is not compiled in is a configuration
//! error that names those that are.
//!
//! # More examples
//!
//! The [`guide`] has errors and a loop that tries again, events, cancel, a certificate, a payload, a proxy, and tests with
//! a fake transport and with the emulator.
//!
//! # How to choose a transport
//!
//! - The one that the device speaks to its hub anyway: its library, its port and its firewall rule are there already.
//! - Otherwise [`Transport::Mqtt`]: the fewest round trips, and the smallest program. Where only port 443 is open,
//!   [`Transport::MqttWs`] or [`Transport::Http`]; all go through an HTTP CONNECT [`Proxy`].
//! - Where nobody knows what the network lets through: [`Auto`], which takes the first that is connected.
//! - MQTT can't force a device to be assigned anew
//!   ([`force_registration`](RegistrationRequest::force_registration)); HTTPS and AMQP can.
//!
//! An application that knows its transport at compile time, or that has settings for it, can use that transport's own
//! type with [`StateMachine`] in place of [`client`]. So can one that brings a transport of its own, like a fake for its
//! tests: it implements [`TransportHandlers`].
#![cfg_attr(docsrs, feature(doc_cfg))]

mod choice;
#[cfg(feature = "device-file")]
mod device_file;
#[cfg(feature = "emulator")]
pub mod emulator;
#[cfg(all(
    feature = "amqp",
    feature = "csr",
    feature = "emulator",
    feature = "http",
    feature = "mqtt"
))]
pub mod guide;
mod transport;

pub use choice::{Auto, TransportChoice, client, client_with_fallback};
#[cfg(feature = "device-file")]
pub use device_file::{DeviceFile, FileValue};
#[cfg(feature = "amqp")]
pub use dps_amqp::{AmqpConfig, AmqpTransport};
#[doc(hidden)]
pub use dps_attestation::internal::disk;
pub use dps_attestation::{
    Attestation, GroupKey, SasSignature, SasSigner, SasToken, Signing, SymmetricKey,
    SymmetricKeyFile, TpmAnswer, TpmAttestation, TpmKeys, X509Files, X509Identity,
    parse_certificates,
};
#[cfg(feature = "csr")]
pub use dps_attestation::{
    CertificateFolder, CertificateSummary, IssuedChain, PreparedFolder, RequestKey,
    StoredCertificate,
};
pub use dps_connect::{ApiVersion, Carrier, Config, Endpoint, NoProxy, Proxy, ProxyChoice, Roots};
#[cfg(feature = "http")]
pub use dps_http::HttpTransport;
#[cfg(feature = "hub")]
pub use dps_mqtt::{HubConfig, HubConnection};
#[cfg(feature = "mqtt")]
pub use dps_mqtt::{MqttConfig, MqttTransport};
#[doc(hidden)]
pub use dps_state_machine::internal;
pub use dps_state_machine::{
    BoxTransport, CertificateRequest, ConfigurationError, ConnectionError, ConnectionProfile,
    CredentialError, Error, ErrorKind, Fallback, IdScope, IssuedCertificates, Json, Next,
    OperationId, OperationStatus, OperationStatusEvents, PeerActivity, Printable, Progress,
    ProtocolError, ProtocolResult, Race, RegistrationId, RegistrationRequest, RegistrationResult,
    RegistrationState, RegistrationStatus, RejectionCause, RejectionError, Response, Settings,
    Stage, StateMachine, Step, Substatus, TimeoutError, TimeoutScope, TransportHandlers,
    TrustBundle, TrustedCertificate, retry_after, serde_json,
};
pub use transport::Transport;

/// A device's identity in a TPM 2.0, from the crate `dps-tpm`: [`Attestation::from_tpm`] takes a [`Tpm`](tpm::Tpm).
#[cfg(feature = "tpm")]
pub mod tpm {
    pub use dps_tpm::{
        AuthenticationKey, KeySource, NonceKey, Password, ResponseCode, StoredKey, Tpm, TpmAddress,
        TpmConfig, TpmError, TpmSigningKey,
    };
}

/// A TLS key in a PKCS#11 token, from the crate `dps-pkcs11`: [`X509Identity::from_signing_key`] takes a
/// [`Pkcs11Key`](pkcs11::Pkcs11Key).
#[cfg(feature = "pkcs11")]
pub mod pkcs11 {
    pub use dps_pkcs11::{Pin, PinProblem, Pkcs11Error, Pkcs11Key, Pkcs11Options, Pkcs11Uri};
}

/// The code in the READMEs and in a page for Rust compiles and runs.
#[cfg(all(doctest, feature = "amqp", feature = "http", feature = "mqtt"))]
mod readmes {
    #[doc = include_str!("../../../README.md")]
    struct Workspace;
    #[doc = include_str!("../README.md")]
    struct Client;
    #[doc = include_str!("../../dps-amqp/README.md")]
    struct Amqp;
    #[doc = include_str!("../../dps-attestation/README.md")]
    struct Attestation;
    #[doc = include_str!("../../dps-connect/README.md")]
    struct Connect;
    #[doc = include_str!("../../dps-emulator/README.md")]
    struct Emulator;
    #[cfg(feature = "emulator")]
    #[doc = include_str!("../../../docs/emulator/rust.md")]
    struct EmulatorInTests;
    #[cfg(feature = "device-file")]
    #[doc = include_str!("../../../docs/guides/configuration.md")]
    struct ConfigurationFile;
    #[doc = include_str!("../../dps-http/README.md")]
    struct Http;
    #[doc = include_str!("../../dps-mqtt/README.md")]
    struct Mqtt;
    #[doc = include_str!("../../dps-state-machine/README.md")]
    struct Machine;
}

/// A device's session over a transport chosen at run time.
pub type Client = StateMachine<BoxTransport>;
