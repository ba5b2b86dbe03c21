//! What a test asks of any transport, and what every transport must make of it.

use std::fmt::Debug;

use dps_connect::{Config, Roots};
use dps_state_machine::{
    ConnectionError, Error, OperationId, Progress, ProtocolError, RegistrationRequest, Response,
    Stage, TransportHandlers,
};
use rustls::{
    ServerConfig,
    version::{TLS12, TLS13},
};

use super::{
    Authority, adjusted, config, faults::Fault, listen_tls, localhost, server_config, swallow,
};

/// The TLS of a server on localhost, and the roots of a device that trusts it.
pub fn trusted_tls() -> (ServerConfig, Roots) {
    let authority = Authority::new("Test CA");
    (server_config(&authority.server(|_| ()), None, &[&TLS13]), authority.roots())
}

pub fn request() -> RegistrationRequest {
    RegistrationRequest::new("pump-17".parse().unwrap())
}

pub fn operation(id: &str) -> OperationId {
    OperationId::new(id).unwrap()
}

pub async fn register(transport: &mut impl TransportHandlers) -> Result<Response, Error> {
    transport.registration_request(&request(), &Progress::default()).await
}

pub async fn query(transport: &mut impl TransportHandlers) -> Result<Response, Error> {
    transport.query_operation_status(&request(), &operation("4.op"), &Progress::default()).await
}

pub fn connection_error(outcome: Result<impl Debug, Error>) -> ConnectionError {
    match outcome.unwrap_err() {
        Error::Connection(error) => {
            repeats_nothing(&*error);
            *error
        }
        other => panic!("{other:?}"),
    }
}

/// Whoever prints an error with all that is below it reads nothing twice.
fn repeats_nothing(error: &(dyn std::error::Error + 'static)) {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    let texts: Vec<_> = chain.map(ToString::to_string).collect();
    for (place, text) in texts.iter().enumerate() {
        assert!(!texts[..place].iter().any(|above| above.contains(text)), "{texts:?}");
    }
}

pub fn protocol_error(outcome: Result<impl Debug, Error>) -> ProtocolError {
    match outcome.unwrap_err() {
        Error::Protocol(error) => *error,
        other => panic!("{other:?}"),
    }
}

/// Each fault on the way gives the same error on every transport.
pub async fn meets<W: TransportHandlers>(faults: Vec<Fault>, transport: impl Fn(Config) -> W) {
    for Fault { name, config, stage, says, retryable } in faults {
        let error = connection_error(register(&mut transport(config)).await);
        assert_eq!(error.stage, stage, "{name}: {error}");
        assert_eq!(error.retryable, retryable, "{name}: {error}");
        assert_eq!((error.lost, error.request_may_have_been_sent), (false, false), "{name}");
        assert!(error.message.contains(says), "{name}: {error}");
    }
}

/// A device certificate that the server refuses is named: also with TLS 1.3, where the handshake is over by then.
pub async fn names_a_refused_certificate<W: TransportHandlers>(transport: impl Fn(Config) -> W) {
    let known = Authority::new("Known CA");
    let device = Authority::new("Unknown CA").device("pump-17");
    for version in [&TLS12, &TLS13] {
        let tls = server_config(&known.server(|_| ()), Some(&known), &[version]);
        let address = listen_tls(tls, swallow).await;
        let config = adjusted(config(&localhost(address), known.roots()), |config| {
            config.attestation = device.attestation()
        });
        let error = connection_error(register(&mut transport(config)).await);
        assert_eq!(error.stage, Stage::Tls, "{error}");
        assert!(error.message.contains("does not know the authority"), "{error}");
        assert!(!error.retryable && !error.lost, "{error}");
    }
}
