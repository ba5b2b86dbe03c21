//! The register / poll / end-session logic of the Azure IoT Hub Device Provisioning Service, once, for every transport.
//!
//! - A transport implements [`TransportHandlers`]: send the registration, ask for an operation's status, end the session.
//!   It hands up each answer as a [`Response`] and decides nothing.
//!
//! Without the default feature `std` the crate is `no_std` with `alloc`.
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod answer;
mod body;
#[cfg(feature = "std")]
mod driver;
mod error;
mod ids;
pub mod machine;
mod printable;
mod progress;
mod registration_result;
mod request;
mod response;
#[cfg(feature = "std")]
pub mod retry_after;
mod settings;
mod transport;

#[cfg(feature = "std")]
pub use driver::{OperationStatusEvents, StateMachine};
pub use error::{
    ConfigurationError, ConnectionError, CredentialError, Error, ErrorKind, ProtocolError,
    RejectionCause, RejectionError, Stage, TimeoutError, TimeoutScope,
};
pub use ids::{IdScope, OperationId, RegistrationId};
pub use printable::Printable;
pub use progress::{Next, Progress, Step};
pub use registration_result::{OperationStatus, RegistrationResult, Substatus};
pub use request::RegistrationRequest;
pub use response::{ProtocolResult, Response};
/// The library whose [`Value`](serde_json::Value) is a payload that goes out and whose
/// [`RawValue`](serde_json::value::RawValue) is one that comes back.
pub use serde_json;
pub use settings::Settings;
pub use transport::{BoxTransport, TransportHandlers};
