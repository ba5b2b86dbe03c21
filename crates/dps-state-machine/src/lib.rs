//! The register / poll / end-session logic of the Azure IoT Hub Device Provisioning Service, once, for every transport.
//!
//! A device registers with one request, and then asks for the operation's status until the service has assigned it to a
//! hub. What the service's answers mean, how long to wait in between, what is tried again and what ends the registration is
//! the same whatever carries the requests, so it is decided here and nowhere else:
//!
//! - A transport implements [`TransportHandlers`]: send the registration, ask for an operation's status, end the session.
//!   It hands up each answer as a [`Response`] and decides nothing.
//! - [`StateMachine`] drives a transport on tokio, within the bounds of its [`Settings`], and gives a
//!   [`RegistrationResult`] or a typed [`Error`]. It spawns no task, and a future that is dropped leaves nothing behind.
//! - [`machine::Machine`] is what it drives: the protocol without a clock, a socket or a runtime, for a driver of your own.
//!
//! An application usually wants the crate `dps-client`, which brings the transports. With a transport of your own:
//!
//! ```
//! use dps_client::{
//!     Error, OperationId, Progress, RegistrationRequest, Response, Settings, StateMachine, TransportHandlers,
//! };
//!
//! /// Assigns every device to one hub.
//! struct OneHub;
//!
//! impl TransportHandlers for OneHub {
//!     async fn registration_request(
//!         &mut self,
//!         request: &RegistrationRequest,
//!         _: &Progress,
//!     ) -> Result<Response, Error> {
//!         let device = request.registration_id();
//!         Ok(Response::new(
//!             200,
//!             format!(
//!                 r#"{{"status":"assigned","registrationState":{{"assignedHub":"one.example","deviceId":"{device}"}}}}"#
//!             ),
//!         ))
//!     }
//!
//!     async fn query_operation_status(
//!         &mut self,
//!         _: &RegistrationRequest,
//!         _: &OperationId,
//!         _: &Progress,
//!     ) -> Result<Response, Error> {
//!         Ok(Response::new(404, "")) // It has no operations.
//!     }
//!
//!     async fn end_session(&mut self) -> Result<(), Error> {
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let machine = StateMachine::new(OneHub, Settings::default());
//! let device = machine.register(RegistrationRequest::new("pump-17".parse()?)).await?;
//! assert_eq!(device.assigned_hub, "one.example");
//! machine.end_session().await
//! # }
//! ```
//!
//! Without the default feature `std` the crate is `no_std` with `alloc`, and has no [`StateMachine`].
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "std"), no_std)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod answer;
mod body;
mod certificates;
#[cfg(feature = "std")]
mod driver;
mod error;
mod fallback;
mod ids;
mod json;
#[cfg(feature = "std")]
mod known;
pub mod machine;
mod printable;
mod progress;
#[cfg(feature = "std")]
mod race;
mod registration_result;
#[cfg(feature = "std")]
mod registration_state;
mod request;
mod response;
#[cfg(feature = "std")]
pub mod retry_after;
mod secret;
mod service_error;
mod settings;
mod stored;
mod transport;

pub use certificates::{
    CertificateRequest, ConnectionProfile, IssuedCertificates, TrustBundle, TrustedCertificate,
};
#[cfg(feature = "std")]
pub use driver::{OperationStatusEvents, StateMachine};
pub use error::{
    ConfigurationError, ConnectionError, CredentialError, Error, ErrorKind, ProtocolError,
    RejectionCause, RejectionError, Stage, TimeoutError, TimeoutScope,
};
pub use fallback::Fallback;
pub use ids::{IdScope, OperationId, RegistrationId};
pub use json::Json;
pub use printable::Printable;
pub use progress::{Next, PeerActivity, Progress, Step};
#[cfg(feature = "std")]
pub use race::Race;
pub use registration_result::{OperationStatus, RegistrationResult, Substatus};
#[cfg(feature = "std")]
pub use registration_state::{RegistrationState, RegistrationStatus};
pub use request::RegistrationRequest;
pub use response::{ProtocolResult, Response};
/// The library whose [`Value`](serde_json::Value) and [`RawValue`](serde_json::value::RawValue) a [`Json`] is made
/// from.
pub use serde_json;
pub use settings::Settings;
pub use transport::{BoxTransport, TransportHandlers};

/// What the emulator and the command need of the inside. It may change in any version.
#[doc(hidden)]
pub mod internal {
    pub use crate::secret::{kind, masked, masked_but};
}
