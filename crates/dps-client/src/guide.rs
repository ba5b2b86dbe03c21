//! How to do what applications do, as programs that run: each of these is a test. They need this crate, tokio, and where
//! the emulator plays the service this crate's feature `emulator`.
//!
//! # Errors, and a loop that tries again
//!
//! An [`Error`](crate::Error) says whether the same registration can succeed later
//! ([`is_retryable`](crate::Error::is_retryable)) and how long to wait at least
//! ([`retry_after`](crate::Error::retry_after)). Within one registration the client tries again by itself as long as
//! [`registration_timeout`](crate::Settings::registration_timeout) lasts; this loop is for what outlasts it.
//!
//! ```
//! use std::time::Duration;
//! use dps_client::{Client, Error, RegistrationId, RegistrationRequest, RegistrationResult};
//!
//! async fn register(client: &Client, device: &RegistrationId) -> Result<RegistrationResult, Error> {
//!     let mut pause = Duration::from_secs(5);
//!     loop {
//!         match client.register(RegistrationRequest::new(device.clone())).await {
//!             Err(error) if error.is_retryable() => {
//!                 eprintln!("{error}; {}", error.hint().unwrap_or_default());
//!                 // A fleet that lost its network should not come back all at once: add a random share here.
//!                 tokio::time::sleep(error.retry_after().unwrap_or(pause)).await;
//!                 pause = (pause * 2).min(Duration::from_secs(300));
//!             }
//!             // What is not retryable needs somebody who changes something: the error's hint says what.
//!             outcome => return outcome,
//!         }
//!     }
//! }
//! # use dps_client::{ErrorKind, Settings, Transport, client};
//! # use dps_client::emulator::{Behavior, ConnectionFault, Emulator, EmulatorExt as _, Fault};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let emulator = Emulator::builder().with_any_device(None, None)?.start().await?;
//! # let client = client(Transport::Mqtt, emulator.config(Transport::Mqtt)?, Settings::default())?;
//! # emulator.set_connection_faults([ConnectionFault::CloseOnAccept, ConnectionFault::CloseOnAccept]);
//! # assert_eq!(register(&client, &"pump-17".parse()?).await?.device_id, "pump-17");
//! # emulator.set_behavior("group", Behavior::new().on_register(Fault::error(401_002, "Unauthorized")))?;
//! # assert_eq!(register(&client, &"pump-18".parse()?).await.unwrap_err().kind(), ErrorKind::Rejected);
//! # Ok(())
//! # }
//! ```
//!
//! # Events
//!
//! [`operation_status`](crate::StateMachine::operation_status) gives each answer of the service, and
//! [`observe`](crate::StateMachine::observe) each step of the way there.
//!
//! ```
//! use dps_client::{Client, Error, OperationStatus, RegistrationRequest};
//!
//! async fn register(client: &Client) -> Result<usize, Error> {
//!     client.observe(|step| eprintln!("{step:?}"));
//!     let mut events = client.operation_status();
//!     let registration = client.register(RegistrationRequest::new("pump-17".parse()?));
//!     tokio::pin!(registration);
//!     let mut polls = 0;
//!     loop {
//!         tokio::select! {
//!             Some(event) = events.next() => {
//!                 if let OperationStatus::Assigning { operation_id, next_poll, .. } = event {
//!                     polls += 1;
//!                     eprintln!("{operation_id}: asking again in {next_poll:?}");
//!                 }
//!             }
//!             outcome = &mut registration => return outcome.map(|_| polls),
//!         }
//!     }
//! }
//! # use dps_client::{Settings, Transport, client};
//! # use dps_client::emulator::{Behavior, Emulator, EmulatorExt as _};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let emulator = Emulator::builder().with_any_device(None, None)?.start().await?;
//! # emulator.set_behavior("group", Behavior::new().polls(3))?;
//! # let client = client(Transport::Amqp, emulator.config(Transport::Amqp)?, Settings::default())?;
//! # assert_eq!(register(&client).await?, 3);
//! # Ok(())
//! # }
//! ```
//!
//! # Cancel
//!
//! [`cancel`](crate::StateMachine::cancel) ends the registration in progress from anywhere. To drop the future does it
//! too, as a `select!` or a timeout of your own does: nothing is left behind, and the client can be used again.
//!
//! ```
//! use std::time::Duration;
//! use dps_client::{Client, Error, ErrorKind, RegistrationRequest};
//!
//! async fn register(client: &Client) -> Result<(), Error> {
//!     let request = || Ok::<_, Error>(RegistrationRequest::new("pump-17".parse()?));
//!     let (outcome, ()) = tokio::join!(client.register(request()?), async {
//!         tokio::time::sleep(Duration::from_secs(1)).await;
//!         client.cancel();
//!     });
//!     assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
//!
//!     let outcome = tokio::time::timeout(Duration::from_secs(1), client.register(request()?)).await;
//!     assert!(outcome.is_err(), "it was dropped");
//!     client.end_session().await
//! }
//! # use dps_client::{Settings, Transport, client};
//! # use dps_client::emulator::{Behavior, Emulator, EmulatorExt as _};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let emulator = Emulator::builder().with_any_device(None, None)?.start().await?;
//! # emulator.set_behavior("group", Behavior::new().polls(1000))?;
//! # let client = client(Transport::Mqtt, emulator.config(Transport::Mqtt)?, Settings::default())?;
//! # register(&client).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # A certificate
//!
//! ```no_run
//! use dps_client::{Client, Config, Error, Settings, Transport, X509Files, client};
//!
//! fn device() -> Result<Client, Error> {
//!     // The device's certificate with those that vouch for it. The files are read again at each connection, so that
//!     // a renewed certificate is taken without a restart.
//!     let identity = X509Files::open("device-chain.pem", "device.key")?;
//!     client(Transport::Mqtt, Config::new("0ne00AABBCC".parse()?, identity.into()), Settings::default())
//! }
//! # device().unwrap();
//! ```
//!
//! # A certificate that the service issues
//!
//! The device makes a key and asks for a certificate while it registers with the credential that it was shipped with
//! (feature `csr`). What comes is checked before it takes the place of anything: it must be for this key and this device,
//! in date, and signed by the authorities that came with it. The enrollment needs a policy that issues certificates.
//! [`RequestKey`](crate::RequestKey) says on which transports the service is known to take such a request.
//!
//! ```
//! use std::{error::Error, time::SystemTime};
//! use dps_client::{Client, IssuedCertificates, RegistrationId, RegistrationRequest, RequestKey, X509Identity};
//!
//! async fn certificate(client: &Client, device: &RegistrationId) -> Result<X509Identity, Box<dyn Error>> {
//!     let key = RequestKey::generate()?;
//!     let request = RegistrationRequest::new(device.clone()).certificate_request(key.request(device)?);
//!     let certificates = match client.register(request).await?.certificates {
//!         IssuedCertificates::Issued(certificates) => certificates,
//!         IssuedCertificates::Missing => return Err("the enrollment has no policy: no certificate came".into()),
//!         other => return Err(format!("no chain came: {other:?}").into()),
//!     };
//!     let issued = key.verify(&certificates, device, SystemTime::now())?;
//!     // A device stores both, readable by their owner alone, and opens them with X509Files from then on.
//!     let (_chain, _private_key) = (issued.to_pem(), key.to_pem());
//!     Ok(issued.identity())
//! }
//! # use dps_client::{Settings, Transport, client};
//! # use dps_client::emulator::{CaCertificates, CertificatePolicy, Emulator, EmulatorExt as _, Enrollment};
//! # use dps_client::emulator::{GroupAttestation, GroupKey};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn Error>> {
//! # let (device, key): (RegistrationId, _) = ("pump-17".parse()?, GroupKey::random()?);
//! # let shipped = Enrollment::group("shipped", GroupAttestation::symmetric_key(key.clone()));
//! # let shipped = shipped.certificate_policy(CertificatePolicy::issue_for_days(30));
//! # let emulator = Emulator::builder().enrollment(shipped).start().await?;
//! # let mut config = emulator.config(Transport::Mqtt)?;
//! # config.attestation = key.derive(&device).into();
//! # let identity = certificate(&client(Transport::Mqtt, config.clone(), Settings::default())?, &device).await?;
//! # let ca = CaCertificates::from_pem(&emulator.issuing_ca_pem().ok_or("an issuing CA")?)?;
//! # emulator.remove_enrollment("shipped")?;
//! # emulator.add_enrollment(Enrollment::group("renewed", GroupAttestation::x509(ca)).assign_to("hub-2"))?;
//! # config.attestation = identity.into();
//! # let client = client(Transport::Mqtt, config, Settings::default())?;
//! # assert_eq!(client.register(RegistrationRequest::new(device)).await?.assigned_hub, "hub-2");
//! # Ok(())
//! # }
//! ```
//!
//! # A payload, both ways
//!
//! What goes to a custom allocation webhook, and what comes back from it or from the enrollment, is carried to the letter.
//!
//! ```
//! use dps_client::{Client, RegistrationRequest, serde_json::json};
//!
//! async fn register(client: &Client) -> Result<String, Box<dyn std::error::Error>> {
//!     let request = RegistrationRequest::new("pump-17".parse()?);
//!     let request = request.payload(json!({"site": "north", "serial": 12345678901234567890_u64}))?;
//!     let device = client.register(request).await?;
//!     let returned = device.payload.ok_or("the service returned no payload")?;
//!     Ok(returned.to_string())
//! }
//! # use dps_client::{Settings, Transport, client};
//! # use dps_client::emulator::{Emulator, EmulatorExt as _, Enrollment, GroupAttestation, GroupKey, ReturnedPayload};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let key = GroupKey::random()?;
//! # let group = Enrollment::group("pumps", GroupAttestation::symmetric_key(key.clone())).payload(ReturnedPayload::Echo);
//! # let emulator = Emulator::builder().enrollment(group).start().await?;
//! # let mut config = emulator.config(Transport::Http)?;
//! # config.attestation = key.derive(&"pump-17".parse()?).into();
//! # let client = client(Transport::Http, config, Settings::default())?;
//! # assert_eq!(register(&client).await?, r#"{"serial":12345678901234567890,"site":"north"}"#);
//! # Ok(())
//! # }
//! ```
//!
//! # Through a proxy
//!
//! ```
//! use dps_client::{Config, Error, Proxy, ProxyChoice};
//!
//! fn through_proxy(config: &mut Config) -> Result<(), Error> {
//!     config.proxy = "http://user:password@proxy.example:3128".parse::<Proxy>()?.into();
//!     // Or whatever HTTPS_PROXY and NO_PROXY say:
//!     config.proxy = ProxyChoice::Environment;
//!     Ok(())
//! }
//! # let key = dps_client::SymmetricKey::random().unwrap();
//! # let mut config = Config::new("0ne00AABBCC".parse().unwrap(), key.into());
//! # through_proxy(&mut config).unwrap();
//! ```
//!
//! # A test without a network
//!
//! A fake transport gives the answers that a test wants to see; errors and results can be made by hand.
//!
//! ```
//! use std::time::Duration;
//! use dps_client::{
//!     Error, OperationId, Progress, RegistrationRequest, RejectionError, Response, Settings, StateMachine,
//!     TransportHandlers,
//! };
//!
//! /// Is busy for an hour, and assigns then.
//! struct Slow;
//!
//! impl TransportHandlers for Slow {
//!     async fn registration_request(&mut self, _: &RegistrationRequest, _: &Progress) -> Result<Response, Error> {
//!         let answer = Response::new(202, r#"{"operationId": "4.0", "status": "assigning"}"#);
//!         Ok(answer.retry_after(Some(Duration::from_secs(3600))))
//!     }
//!
//!     async fn query_operation_status(
//!         &mut self,
//!         request: &RegistrationRequest,
//!         _: &OperationId,
//!         _: &Progress,
//!     ) -> Result<Response, Error> {
//!         let device = request.registration_id();
//!         let state = format!(r#"{{"assignedHub": "one.example", "deviceId": "{device}"}}"#);
//!         Ok(Response::new(200, format!(r#"{{"status": "assigned", "registrationState": {state}}}"#)))
//!     }
//!
//!     async fn end_session(&mut self) -> Result<(), Error> {
//!         Ok(())
//!     }
//! }
//!
//! /// The application's own function, which is to be tested.
//! fn exit_code(error: &Error) -> u8 {
//!     if error.is_retryable() { 75 } else { 1 }
//! }
//!
//! # async fn test() -> Result<(), Error> {
//! // In a paused runtime, as #[tokio::test(start_paused = true)] makes one, the hour takes no time.
//! let mut settings = Settings::default();
//! settings.registration_timeout = Duration::from_secs(2 * 3600);
//! let machine = StateMachine::new(Slow, settings);
//! let device = machine.register(RegistrationRequest::new("pump-17".parse()?)).await?;
//! assert_eq!((device.assigned_hub.as_str(), device.polls), ("one.example", 1));
//!
//! assert_eq!(exit_code(&RejectionError::new(429, "Throttled").into()), 75);
//! assert_eq!(exit_code(&RejectionError::new(401, "Unauthorized").into()), 1);
//! # Ok(())
//! # }
//! # let paused = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
//! # paused.block_on(test()).unwrap();
//! ```
//!
//! # A test with the emulator
//!
//! Real sockets, TLS and credentials, on loopback: three lines for the client, by
//! [`EmulatorExt`](crate::emulator::EmulatorExt). Paused time works with it in the same runtime: the hour that this service asks
//! to wait takes no time. (Bounds on connections run in the same paused time: leave them as they are.)
//!
//! ```
//! use std::time::Duration;
//! use dps_client::{RegistrationRequest, Settings, Transport, client};
//! use dps_client::emulator::{Behavior, Emulator, EmulatorExt as _, RetryAfter};
//!
//! # async fn test() -> Result<(), Box<dyn std::error::Error>> {
//! let emulator = Emulator::builder().with_any_device(None, None)?.start().await?;
//! let an_hour = RetryAfter::raw("3600");
//! emulator.set_behavior("group", Behavior::new().polls(2).retry_after(an_hour))?;
//!
//! let mut settings = Settings::default();
//! settings.registration_timeout = Duration::from_secs(24 * 3600);
//! let client = client(Transport::Amqp, emulator.config(Transport::Amqp)?, settings)?;
//! let device = client.register(RegistrationRequest::new("pump-17".parse()?)).await?;
//! assert_eq!((device.device_id.as_str(), device.polls), ("pump-17", 2));
//!
//! client.end_session().await?;
//! emulator.stop().await;
//! # Ok(())
//! # }
//! # let paused = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
//! # paused.block_on(test()).unwrap();
//! ```
