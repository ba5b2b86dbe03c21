//! The way from a device to the Azure IoT Hub Device Provisioning Service: TCP, proxy, TLS and WebSocket, with one
//! configuration for every transport.
//!
//! [`Config`] says where the service is, who the device is, whom to trust and which proxy to go through. Every transport
//! is made from one, so that the same setting means the same on each of them, and the same fault on the way gives the
//! same error. A transport of your own opens its streams with a [`Connector`].
//!
//! ```
//! # async fn example() -> Result<(), dps_state_machine::Error> {
//! use dps_attestation::{Attestation, SymmetricKey};
//! use dps_connect::{Carrier, Config, Connector, Opened, Protocol};
//! use dps_state_machine::Progress;
//!
//! let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse()?;
//! let config = Config::new("0ne00AABBCC".parse()?, Attestation::SymmetricKey(key));
//! let connector = Connector::new(config)?; // no I/O yet
//! let mqtt = Protocol { tls_port: 8883, subprotocol: "mqtt" };
//! match connector.open(&mqtt, Carrier::Tls, &Progress::default()).await? {
//!     Opened::Ready(stream) => drop(stream), // speak the protocol over it
//!     Opened::Refused(response) => println!("refused with the status {}", response.status),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The feature `websocket` compiles [`Carrier::WebSocket`] in.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod carrier;
mod clock;
mod config;
mod connector;
mod endpoint;
mod failure;
mod first_bytes;
mod flood;
#[cfg(all(fuzzing, feature = "websocket"))]
pub mod fuzzing;
mod head;
mod inspect;
mod lookup;
mod no_proxy;
mod opener;
mod proxy;
mod roots;
mod tls;
mod tpm;
mod tunnel;
#[cfg(feature = "websocket")]
mod websocket;

pub use carrier::{Carrier, Io, Protocol};
pub use config::{ApiVersion, Config};
pub use connector::{Connector, Opened};
pub use endpoint::Endpoint;
pub use no_proxy::NoProxy;
pub use proxy::{Proxy, ProxyChoice};
pub use roots::Roots;

/// What our own transports, the emulator and the tests need of the inside. It may change in any version.
#[doc(hidden)]
pub mod internal {
    use std::time::Duration;

    pub use crate::{
        clock::roughly,
        connector::{
            ProxyCredentials, STAGGER, Stream, ask_proxy, catch_up, dial, greeting_in_tls,
            greeting_instead_of_tls, probe_proxy,
        },
        first_bytes::{begins_mqtt, greeting},
        flood::{Flood, Flooded},
        inspect::{Handshake, handshake},
        lookup::{LOOKUP, Lookup, resolve},
        opener::Opener,
        tls::{resumes_sessions, tls_config},
        tpm::{TpmLogin, from_base64},
        tunnel::NoTunnel,
    };

    /// What went wrong on the way to the service, in the same words on every transport.
    pub mod failure {
        pub use crate::failure::*;
    }

    /// The client's end of WebSocket.
    #[cfg(feature = "websocket")]
    pub mod websocket {
        pub use crate::websocket::*;
    }

    /// How long the body of a refusal may take after its head, on every transport; some never end. What came until then
    /// counts. See <https://www.rfc-editor.org/rfc/rfc9112#section-6.3>.
    pub const REFUSAL_BODY_TIME: Duration = Duration::from_secs(3);
}
