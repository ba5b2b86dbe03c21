//! The Azure IoT Hub Device Provisioning Service on loopback: real sockets, real TLS, real credential checks,
//! scripted faults.
//!
//! A device's software is tested against the service that it will meet, on every transport, without an account, without
//! a network and within milliseconds; and against what the real service does only on its worst days.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dps_emulator::{Attestation, Behavior, Emulator, Enrollment, SymmetricKey, Transport};
//!
//! let key = SymmetricKey::random()?;
//! let emulator = Emulator::builder()
//!     .enrollment(
//!         Enrollment::individual("pump-17".parse()?, Attestation::symmetric_key(key))
//!             .assign_to("north.azure-devices.net")
//!             .behavior(Behavior::new().polls(2)),
//!     )
//!     .start()
//!     .await?;
//! // What a device needs to know: these, emulator.ca_pem() to trust, and its key.
//! println!("{} {}", emulator.id_scope(), emulator.endpoint(Transport::Mqtt));
//! // emulator.events().wait_for(..) then waits for what it does.
//! emulator.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! - Credentials are checked for real: signature, expiry, resource and policy of SAS tokens; chain, dates and common
//!   name of certificates. Refusals have the service's codes, tracking ids and timestamps.
//! - Each enrollment has its [`Behavior`]: how many polls, which retry-after, which end, and a script of [`Fault`]s.
//!   What happens before the peer is known goes wrong by [`ConnectionFault`].
//! - [`EventLog`] has every connection, authentication, request and answer, so that a test can wait for what it
//!   wants to see and needs no sleep.
//! - [`Config::admin_port`] opens a port by which programs in any language watch and steer it, and a browser shows what each
//!   device asks and is answered. [`Emulator`] has a method for each of these.
//! - [`Limits`] keep a hostile or forgotten peer from using the emulator up.
//!
//! It is not for production. Beside the service is a small hub over MQTT, for what a device does first once it is assigned:
//! it connects, sends telemetry, asks for its twin and reports properties. There is no more of a hub than that.
//!
//! # How it is built
//!
//! Modules use each other in one direction. `core` is the service: enrollments, credentials, operations, its clock and its
//! events; it knows no transport. `server` has the sockets, TLS and one thin layer for each protocol, which reads a
//! request from bytes, has the core answer it, and writes the reply. `config`, `enrollment`, `behavior` and `keys` are what
//! both are set up with; `hub` is the hub's part of the core; `emulator` puts them together.
//!
//! # The configuration file
//!
//! [`Config::from_toml_file`] reads all that can be said in code; this is [`Config::EXAMPLE`]:
//!
#![doc = concat!("```toml\n", include_str!("../emulator.toml"), "```\n")]

mod behavior;
mod config;
mod config_error;
mod core;
mod emulator;
mod enrollment;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hub;
mod issuance;
mod keys;
mod lock;
mod server;
#[cfg(feature = "state")]
mod state;
mod tls;
mod tpm;

pub use behavior::{
    AmqpFault, Behavior, Body, ConnectionFault, Delivery, Fault, InfoRetryAfter, MqttFault,
    Outcome, Pace, RetryAfter,
};
pub use config::{Config, Limits, ServerCertificate};
pub use config_error::ConfigError;
pub use core::KnownDevice;
pub use core::clock::ClockSetting;
pub use core::events::{Event, EventKind, EventLog, HubOperation, Method, Operation, Transport};
pub use core::{ServicePolicy, ServiceRight};
pub use dps_attestation::{GroupKey, IdScope, RegistrationId, SymmetricKey};
pub use emulator::{Emulator, StartError};
pub use enrollment::{
    Allocation, Attestation, Enrollment, EnrollmentName, GroupAttestation, Pair, Reprovisioning,
    ReturnedPayload,
};
pub use hub::HubRefusal;
pub use issuance::CertificatePolicy;
pub use keys::{CaCertificates, DeviceCertificate, Thumbprint};
pub use tpm::{NoRandomness, TpmKeyError, TpmStorageKey, wrap_key};
