//! Bad server certificates: every transport refuses each of them during the handshake, over TLS 1.2 and 1.3, and says in
//! plain words what is wrong and what to do. And good ones, so that it is the badness that is refused.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

mod bad;
mod good;
mod make;
mod server;
mod source;

use std::{collections::BTreeSet, process::ExitCode, sync::Arc};

use dps_client::{
    Config, Error, ErrorKind, Progress, RegistrationRequest, Roots, Stage, SymmetricKey, Transport,
    client,
};
use dps_conformance::{TransportCase, fast, run_on_every_transport, settle};
use dps_connect::internal::handshake;
use libtest_mimic::{Failed, Trial};
use rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

use make::Presented;
use server::Server;

/// The versions that every transport speaks.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// What a server presents and what must be said about it.
struct Case {
    name: &'static str,
    presented: Presented,
    /// Part of the message, beside the peer's name.
    says: &'static str,
    /// Part of the hint.
    advises: &'static str,
}

fn main() -> ExitCode {
    let bad = bad::cases();
    let names: Vec<_> = bad.iter().map(|case| case.name).collect();
    let mut cases: Vec<TransportCase> = Vec::new();
    for case in bad {
        let (name, case) = (case.name, Arc::new(case));
        cases.push(TransportCase::new(name, move |transport| is_refused(transport, case.clone())));
    }
    for (name, presented) in good::cases() {
        let presented = Arc::new(presented);
        cases.push(TransportCase::new(name, move |transport| {
            is_taken(transport, presented.clone())
        }));
    }
    let others = [
        Trial::test("there_are_at_least_fifteen_bad_certificates", move || whole(&names)),
        Trial::test("no_source_skips_verification", source::no_source_skips_verification),
        Trial::test("a_source_that_skips_verification_is_found", source::is_found),
    ];
    // Most of a case's time is waiting.
    run_on_every_transport(8, cases, others)
}

fn whole(names: &[&str]) -> Result<(), Failed> {
    let different = names.iter().collect::<BTreeSet<_>>().len();
    if names.len() < 15 || different < names.len() {
        return Err(format!("{different} different of {}: {names:?}", names.len()).into());
    }
    Ok(())
}

async fn is_refused(transport: Transport, case: Arc<Case>) {
    for version in VERSIONS {
        let server = Server::start(&case.presented, version).await;
        let error = error_of(transport, &case.presented, &server).await;
        let message = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Connection, "{message}");
        assert_eq!(error.stage(), Some(Stage::Tls), "{message}");
        assert!(!error.is_retryable(), "only another certificate mends it: {message}");
        let peer = format!("{}:{}", case.presented.host, server.port());
        assert!(message.contains(&peer) && message.contains(case.says), "{version:?}: {message}");
        let hint = error.hint().unwrap();
        assert!(hint.contains(case.advises), "{version:?}: {message}: {hint}");
        let seen =
            handshake(&config_for(&case.presented, &server), 443, &Progress::default()).await;
        assert!(seen.session.is_none() && seen.error.is_some(), "{version:?}: {seen:?}");
        assert_eq!(server.handshakes(), 0, "no handshake came to its end");
    }
}

async fn is_taken(transport: Transport, presented: Arc<Presented>) {
    for version in VERSIONS {
        let server = Server::start(&presented, version).await;
        // The server hangs up after the handshake.
        let error = error_of(transport, &presented, &server).await;
        assert_ne!(error.stage(), Some(Stage::Tls), "{version:?}: {error}");
        // A transport may try once more, in smaller steps.
        assert!(server.handshakes() >= 1, "{version:?}: {error}");
    }
}

fn config_for(presented: &Presented, server: &Server) -> Config {
    let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse().unwrap();
    let roots = presented.roots.iter();
    let roots = roots.fold(Roots::empty(), |roots, root| roots.with_der(root).unwrap());
    let endpoint = format!("{}:{}", presented.host, server.port());
    let mut config = Config::new("0ne00AABBCC".parse().unwrap(), key.into());
    config.endpoint = endpoint.parse().unwrap();
    config.roots = roots;
    config
}

async fn error_of(transport: Transport, presented: &Presented, server: &Server) -> Error {
    let client = client(transport, config_for(presented, server), fast()).unwrap();
    let request = RegistrationRequest::new("pump-17".parse().unwrap());
    let error = client.register(request).await.unwrap_err();
    settle(&client).await;
    error
}
