//! What stands between a device and its registration with the Azure IoT Hub Device Provisioning Service: checks of all that
//! a registration meets, in that order. Each [`Finding`] says what was seen and what to do next.
//!
//! [`examine`] takes a [`Subject`], which is what a registration would take, and gives a [`Report`]. All checks are in
//! [`CHECKS`]; a [`Selection`] asks for some. The ports of all transports are looked at, whichever was chosen: the chosen one
//! decides, the others are advice. A check whose ground is gone is skipped and says what failed before it.
//!
//! Nothing is changed at the service. Over the transport of the registration the device says who it is: over MQTT by CONNECT,
//! over AMQP until its links are attached, over HTTPS by asking for the state of its registration
//! ([`registration_state`](dps_client::HttpTransport::registration_state)), which is asked beside the other transports too. No
//! secret is in a report.
//!
//! ```no_run
//! # async fn look() -> Result<(), Box<dyn std::error::Error>> {
//! use dps_client::{Config, SymmetricKey, Transport};
//! use dps_doctor::{Selection, Subject, examine};
//!
//! let key: SymmetricKey = std::fs::read_to_string("device.key")?.parse()?;
//! let config = Config::new("0ne00AABBCC".parse()?, key.into());
//! let subject = Subject::new(Transport::Mqtt, config, "pump-17".parse()?);
//! let report = examine(&subject, &Selection::all()).await;
//! if let Some(failure) = report.failure() {
//!     println!("{}: {}", failure.check.id, failure.seen);
//! }
//! # Ok(())
//! # }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod check;
mod clock;
mod credential;
mod examine;
mod finding;
mod hub;
mod login;
mod name;
mod port;
mod proxy;
mod report;
mod service;
mod settings;
mod subject;
mod tls;
mod way;
mod websocket;

pub use check::{CHECKS, Check, Hop, Selection};
pub use examine::{examine, examine_until};
pub use finding::{Finding, Status};
pub use report::{Report, Verdict};
pub use subject::{Limits, Ports, Subject};
