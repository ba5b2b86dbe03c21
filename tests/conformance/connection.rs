//! Connections that can't be made, break, or go quiet.

use std::time::{Duration, Instant};

use dps_client::{Endpoint, Error, ErrorKind, Roots, Stage};
use dps_conformance::{Authority, Bench, Cell, adjusted, fast, settle};
use dps_emulator::{Behavior, ConnectionFault, Delivery, Fault, Operation, ServerCertificate};
use tokio::net::TcpListener;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_registration_without_an_answer_times_out).after_the_handshake(),
        case!(a_query_without_an_answer_times_out).after_the_handshake(),
        case!(the_whole_registration_times_out).within_a_short_time(),
        case!(closed_instead_of_an_answer_is_a_lost_connection),
        case!(closed_half_way_through_an_answer_is_a_lost_connection).after_the_handshake(),
        case!(closed_instead_of_a_poll_is_asked_again_on_a_new_connection),
        case!(closed_while_waiting_to_poll_is_asked_on_a_new_connection),
        case!(closed_on_every_poll_ends_within_the_deadline).within_a_short_time(),
        case!(closed_on_accept_is_a_tls_error).before_the_credential(),
        case!(closed_after_tls_is_a_connection_error),
        case!(silence_instead_of_tls_times_out_at_tls).before_the_credential(),
        case!(garbage_instead_of_tls_is_a_tls_error).before_the_credential(),
        case!(a_refused_port_is_a_connect_error).before_the_credential(),
        case!(a_name_that_does_not_exist_is_a_resolve_error).before_the_credential(),
        case!(an_unknown_authority_is_refused).before_the_credential(),
        case!(an_expired_server_certificate_is_refused).before_the_credential(),
        case!(a_server_certificate_from_tomorrow_is_refused).before_the_credential(),
        case!(a_server_certificate_for_another_name_is_refused).before_the_credential(),
        case!(a_server_that_restarts_is_found_again),
    ]
}

async fn error_of(bench: &Bench) -> Error {
    let error = bench.register().await.unwrap_err();
    // Whatever broke: the same client works again as soon as the service does.
    bench.emulator.set_behavior(bench.enrollment, Behavior::new()).unwrap();
    error
}

fn assert_connection(error: &Error, stage: Stage) {
    assert_eq!(error.kind(), ErrorKind::Connection, "{error:?}");
    assert_eq!(error.stage(), Some(stage), "{error:?}");
}

async fn times_out(bench: &Bench, bounds: dps_client::Settings) -> (Error, Duration) {
    let client = bench.client_with(bench.config.clone(), bounds);
    let start = Instant::now();
    let error = client.register(bench.request()).await.unwrap_err();
    let took = start.elapsed();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    // The machine is usable afterwards, on the same client.
    bench.emulator.set_connection_faults([]);
    bench.emulator.set_behavior(bench.enrollment, Behavior::new()).unwrap();
    bench.emulator.forget_devices();
    client.register(bench.request()).await.unwrap();
    settle(&client).await;
    (error, took)
}

async fn a_registration_without_an_answer_times_out(cell: Cell) {
    let fault = Fault::deliver(Delivery::Never);
    let bench = Bench::new(cell, Behavior::new().on_register(fault)).await;
    let bounds =
        adjusted(fast(), |settings| settings.request_timeout = Duration::from_millis(1500));
    let (error, took) = times_out(&bench, bounds).await;
    assert_eq!(error.stage(), Some(Stage::Register));
    assert!(error.is_retryable() && error.hint().is_some());
    assert!(took >= Duration::from_millis(1500) && took < Duration::from_secs(5), "{took:?}");
}

async fn a_query_without_an_answer_times_out(cell: Cell) {
    let fault = Fault::deliver(Delivery::Never);
    let bench = Bench::new(cell, Behavior::new().polls(1).on_query(fault)).await;
    let bounds =
        adjusted(fast(), |settings| settings.request_timeout = Duration::from_millis(1500));
    let (error, _) = times_out(&bench, bounds).await;
    assert_eq!(error.stage(), Some(Stage::Query));
}

async fn the_whole_registration_times_out(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(u32::MAX)).await;
    let bounds =
        adjusted(fast(), |settings| settings.registration_timeout = Duration::from_millis(900));
    let (error, took) = times_out(&bench, bounds).await;
    assert!(matches!(error.stage(), Some(Stage::Query | Stage::Register)), "{error}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

async fn closed_instead_of_an_answer_is_a_lost_connection(cell: Cell) {
    let fault = Fault::deliver(Delivery::CloseBefore).forever();
    let bench = Bench::new(cell, Behavior::new().on_register(fault)).await;
    let error = error_of(&bench).await;
    assert_connection(&error, Stage::Register);
    assert!(error.is_retryable());
    bench.register().await.unwrap();
}

async fn closed_half_way_through_an_answer_is_a_lost_connection(cell: Cell) {
    let fault = Fault::deliver(Delivery::CloseMid(30)).forever();
    let bench = Bench::new(cell, Behavior::new().on_register(fault)).await;
    assert_connection(&error_of(&bench).await, Stage::Register);
    bench.register().await.unwrap();
}

async fn closed_instead_of_a_poll_is_asked_again_on_a_new_connection(cell: Cell) {
    let fault = Fault::deliver(Delivery::CloseBefore);
    let bench = Bench::new(cell, Behavior::new().polls(1).on_query(fault)).await;
    bench.register().await.unwrap();
    assert!(bench.secure_connections() >= 2);
    let registrations = bench.requests().iter().filter(|r| **r == Operation::Register).count();
    assert_eq!(registrations, 1);
}

async fn closed_while_waiting_to_poll_is_asked_on_a_new_connection(cell: Cell) {
    let fault = Fault::deliver(Delivery::CloseAfter);
    let bench = Bench::new(cell, Behavior::new().polls(2).on_register(fault)).await;
    bench.register().await.unwrap();
    assert_eq!(bench.secure_connections(), 2);
}

async fn closed_on_every_poll_ends_within_the_deadline(cell: Cell) {
    let fault = Fault::deliver(Delivery::CloseBefore).forever();
    let bench = Bench::new(cell, Behavior::new().polls(1).on_query(fault)).await;
    // The second poll is lost at 1.4 s, and the wait for a third would pass the deadline. A slow machine has what is left.
    let bounds = adjusted(fast(), |settings| {
        settings.poll_interval = Duration::from_millis(700);
        settings.registration_timeout = Duration::from_secs(2);
    });
    let client = bench.client_with(bench.config.clone(), bounds);
    let start = Instant::now();
    let error = client.register(bench.request()).await.unwrap_err();
    settle(&client).await;
    assert_connection(&error, Stage::Query);
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(bench.secure_connections() <= 5, "{} connections", bench.secure_connections());
}

async fn with_connection_fault(cell: Cell, fault: ConnectionFault) -> Bench {
    let bench = Bench::healthy(cell).await;
    bench.emulator.set_connection_faults([fault; 4]);
    bench
}

async fn closed_on_accept_is_a_tls_error(cell: Cell) {
    let bench = with_connection_fault(cell, ConnectionFault::CloseOnAccept).await;
    let error = error_of(&bench).await;
    assert_connection(&error, Stage::Tls);
    assert!(error.is_retryable());
}

async fn closed_after_tls_is_a_connection_error(cell: Cell) {
    let bench = with_connection_fault(cell, ConnectionFault::CloseAfterTls).await;
    let error = error_of(&bench).await;
    assert_eq!(error.kind(), ErrorKind::Connection, "{error:?}");
    assert!(error.is_retryable());
}

async fn silence_instead_of_tls_times_out_at_tls(cell: Cell) {
    let bench = with_connection_fault(cell, ConnectionFault::HangOnAccept).await;
    let bounds =
        adjusted(fast(), |settings| settings.request_timeout = Duration::from_millis(1500));
    let (error, _) = times_out(&bench, bounds).await;
    assert_eq!(error.stage(), Some(Stage::Tls), "{error}");
}

async fn garbage_instead_of_tls_is_a_tls_error(cell: Cell) {
    let bench = with_connection_fault(cell, ConnectionFault::GarbageForTls).await;
    assert_connection(&error_of(&bench).await, Stage::Tls);
}

async fn a_refused_port_is_a_connect_error(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let endpoint: Endpoint = format!("127.0.0.1:{port}").parse().unwrap();
    let error = bench
        .register_with(adjusted(bench.config.clone(), |config| config.endpoint = endpoint))
        .await
        .unwrap_err();
    assert_connection(&error, Stage::Connect);
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    assert!(error.is_retryable());
}

async fn a_name_that_does_not_exist_is_a_resolve_error(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let endpoint: Endpoint = "no-such-host.invalid".parse().unwrap();
    let error = bench
        .register_with(adjusted(bench.config.clone(), |config| config.endpoint = endpoint))
        .await
        .unwrap_err();
    assert_connection(&error, Stage::Resolve);
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    assert!(error.is_retryable());
}

async fn with_certificate(cell: Cell, certificate: ServerCertificate) -> Error {
    let bench = Bench::with_service(
        cell,
        |enrollment| enrollment,
        |service| service.server_certificate(certificate),
    )
    .await;
    let error = bench.register().await.unwrap_err();
    assert_connection(&error, Stage::Tls);
    assert!(!error.is_retryable(), "only another certificate mends it: {error}");
    assert!(bench.requests().is_empty());
    error
}

async fn an_unknown_authority_is_refused(cell: Cell) {
    let error = with_certificate(cell, ServerCertificate::WrongCa).await;
    assert!(error.to_string().contains("CA"), "{error}");

    let bench = Bench::healthy(cell).await;
    let other = Roots::empty().with_pem(Authority::root("Somebody").pem.as_bytes()).unwrap();
    let error = bench
        .register_with(adjusted(bench.config.clone(), |config| config.roots = other))
        .await
        .unwrap_err();
    assert_connection(&error, Stage::Tls);
}

async fn an_expired_server_certificate_is_refused(cell: Cell) {
    let error = with_certificate(cell, ServerCertificate::Expired).await;
    assert!(error.to_string().contains("expired"), "{error}");
}

async fn a_server_certificate_from_tomorrow_is_refused(cell: Cell) {
    let error = with_certificate(cell, ServerCertificate::NotYetValid).await;
    assert!(
        error.to_string().contains("not yet valid") || error.to_string().contains("not valid"),
        "{error}"
    );
}

async fn a_server_certificate_for_another_name_is_refused(cell: Cell) {
    let error = with_certificate(cell, ServerCertificate::WrongName).await;
    assert!(error.to_string().contains("localhost"), "{error}");
}

async fn a_server_that_restarts_is_found_again(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    client.register(bench.request()).await.unwrap();
    // Every connection of the session is gone; the next registration makes its own.
    let fault = Fault::deliver(Delivery::CloseAfter);
    bench.emulator.set_behavior(bench.enrollment, Behavior::new().on_register(fault)).unwrap();
    client.register(bench.request()).await.unwrap();
    client.register(bench.request()).await.unwrap();
    settle(&client).await;
    assert_eq!(bench.requests().len(), 3);
}
