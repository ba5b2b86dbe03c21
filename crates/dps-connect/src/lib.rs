//! The one way out: TCP, proxy, TLS and WebSocket, with one rustls configuration for every transport.
//!
//! - [`Config`] says where to, who the device is, whom to trust and which proxy to use; every transport takes one.
//! - [`Connector`] opens the stream that the MQTT and AMQP transports speak over, by either [`Carrier`]. The HTTPS transport has a client of
//!   its own underneath and shares everything else: [`tls_config`], [`resolve`], [`Config::chosen_proxy`] and the
//!   reading of failures in [`failure`], so that one fault has one stage and one wording on every transport.

mod carrier;
mod clock;
mod config;
mod connector;
mod endpoint;
pub mod failure;
#[cfg(all(fuzzing, feature = "websocket"))]
pub mod fuzzing;
mod head;
mod no_proxy;
mod proxy;
mod roots;
mod tls;
mod tunnel;
#[cfg(feature = "websocket")]
pub mod websocket;

pub use carrier::{Carrier, Io, Protocol};
pub use config::{ApiVersion, Config};
pub use connector::{
    Connector, ProxyCredentials, STAGGER, Stream, catch_up, dial, probe_proxy, resolve,
};
pub use endpoint::Endpoint;
pub use no_proxy::NoProxy;
pub use proxy::{Proxy, ProxyChoice};
pub use roots::Roots;
pub use tls::{resumes_sessions, tls_config};

/// How long the body of a refusal may take after its head, on every transport; some never end. What came until then
/// counts. See <https://www.rfc-editor.org/rfc/rfc9112#section-6.3>.
pub const REFUSAL_BODY_TIME: std::time::Duration = std::time::Duration::from_secs(3);
