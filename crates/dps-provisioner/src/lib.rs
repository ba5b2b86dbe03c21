//! A device's life around its registration: the stored assignment, and when to register again.
//!
//! A device that registers at each boot does not start without a network, and a fleet that gets its power back throttles
//! itself. So the assignment is kept in a file ([`AssignmentFile`]), and a [`Provisioner`] says when a registration is due
//! ([`Due`]):
//!
//! | the device registers | |
//! |---|---|
//! | when it has no assignment | none is stored, it is damaged, or it is of another ID scope, registration id or endpoint |
//! | when its hub gave cause for it | by the [`RecoveryPolicy`]: the table of what follows from which [`HubRefusal`] |
//! | when its certificate is missing or due | with a [folder](Provisioner::certificate) for it; not for a while when the service issued none |
//! | when it is told to | a call of [`register`](Provisioner::register) |
//!
//! The assignment stays in use whatever is due: a device that can't register goes on with the one that it has. Waits are stored with their
//! beginning, so that neither a restart nor a clock that is wrong puts a registration off.
//!
//! An [`Agent`] does all of that by itself, for as long as its process runs.
//!
//! ```no_run
//! # async fn example(key: dps_client::SymmetricKey) -> Result<(), dps_client::Error> {
//! use std::time::SystemTime;
//! use dps_client::{Config, RegistrationRequest, Settings, Transport, client};
//! use dps_provisioner::{AssignmentFile, HubRefusal, Identity, NextStep, Provisioner};
//!
//! let config = Config::new("0ne00AABBCC".parse()?, key.into());
//! let request = RegistrationRequest::new("pump-17".parse()?);
//! let file = AssignmentFile::new("/var/lib/pump/assignment.json")?;
//! let mut device = Provisioner::open(file, Identity::of(&config, &request))?;
//!
//! // At boot: no network is needed while the assignment is good.
//! if device.registration_due(SystemTime::now()).is_some() {
//!     let client = client(Transport::Mqtt, config, Settings::default())?;
//!     device.register(&client, request, Some(Transport::Mqtt), SystemTime::now).await?;
//! }
//! println!("connect to {:?}", device.assignment().map(|it| &it.result.assigned_hub));
//!
//! // After each connection to the hub, and each one that failed:
//! match device.report(HubRefusal::Unreachable, SystemTime::now()) {
//!     NextStep::ConnectToHub { after } => println!("connect again in {after:?}"),
//!     NextStep::Register { after } => println!("register again in {after:?}"),
//!     NextStep::Stop => println!("look at the device"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`HandOver`] gives the assignment to other programs: as an environment file, a connection string, a part of the
//! configuration of IoT Edge, or by a [`Template`].

mod agent;
mod assignment;
mod file;
mod handover;
mod policy;
mod provisioner;
mod wait;

pub use agent::{Agent, Order, Surroundings};
pub use assignment::{Assignment, Identity};
pub use file::AssignmentFile;
pub use handover::{Format, HandOver, HubCredential, Template};
pub use policy::{Backoff, HubHistory, HubRefusal, NextStep, OnRefusal, RecoveryPolicy};
pub use provisioner::{Due, Provisioner};

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
