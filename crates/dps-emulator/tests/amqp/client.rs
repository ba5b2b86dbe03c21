//! Our own client against everything that can go wrong on an AMQP connection: what it makes of it.

use std::time::Duration;

use dps_amqp::{AmqpConfig, AmqpTransport};
use dps_attestation::X509Identity;
use dps_connect::Carrier;
use dps_emulator::{
    AmqpFault, Attestation, Behavior, ConnectionFault, Delivery, Emulator, Enrollment, EventKind,
    Fault, InfoRetryAfter, RetryAfter, Thumbprint,
};
use dps_state_machine::{ErrorKind, Stage, StateMachine};

use crate::one_device::*;

fn client_of(
    emulator: &Emulator,
    carrier: Carrier,
    attestation: dps_attestation::Attestation,
) -> StateMachine<AmqpTransport> {
    let config = configured(emulator, carrier, emulator.amqp_port(), attestation);
    let mut config = AmqpConfig::new(config);
    config.carrier = carrier;
    impatient(AmqpTransport::new(config).unwrap())
}

fn client(emulator: &Emulator, carrier: Carrier) -> StateMachine<AmqpTransport> {
    client_of(emulator, carrier, device_key())
}

struct Met {
    fault: AmqpFault,
    /// How the registration ends: `None` when it succeeds all the same.
    kind: Option<ErrorKind>,
    stage: Stage,
    says: &'static str,
    connections: usize,
}

fn met(
    fault: AmqpFault,
    kind: impl Into<Option<ErrorKind>>,
    says: &'static str,
    connections: usize,
) -> Met {
    Met { fault, kind: kind.into(), stage: Stage::Register, says, connections }
}

fn cases() -> Vec<Met> {
    let refuse = |code| AmqpFault::RefuseSasl { code };
    let cut = |frames| AmqpFault::CutAfter { frames };
    let reject = |condition| AmqpFault::Reject { condition, retry_after: InfoRetryAfter::Absent };
    let (connection, rejected) = (ErrorKind::Connection, ErrorKind::Rejected);
    let unauthorized =
        |fault, says| Met { stage: Stage::Authenticate, ..met(fault, rejected, says, 1) };
    let mut cases = vec![
        unauthorized(refuse(1), "SASL outcome 1"),
        // The service will be back: the registration is sent again.
        met(refuse(2), None, "", 2),
        met(refuse(4), None, "", 2),
        // It will not go away by itself.
        met(refuse(3), rejected, "SASL outcome 3", 1),
        met(AmqpFault::SaslDecides, None, "", 1),
        unauthorized(AmqpFault::OpenError, "401002"),
        met(AmqpFault::RefuseAttach, rejected, "403000", 1),
        met(AmqpFault::NoCredit, ErrorKind::Timeout, "no answer to the register request", 1),
        met(AmqpFault::Narrow, None, "", 1),
        met(AmqpFault::Detach, connection, "the link for requests without a reason", 1),
        met(AmqpFault::DetachForced, connection, "amqp:link:detach-forced", 1),
        met(AmqpFault::DetachWithError, None, "", 2),
        met(AmqpFault::End, connection, "the session without a reason", 1),
        met(AmqpFault::Close, connection, "the connection without a reason", 1),
        met(AmqpFault::CloseWithError, None, "", 2),
        // Transient by their conditions: sent again on the same connection.
        met(reject(0), None, "", 1),
        met(reject(1), None, "", 1),
        met(reject(2), rejected, "amqp:not-found", 1),
        unauthorized(reject(3), "amqp:unauthorized-access"),
        met(reject(4), rejected, "amqp:not-allowed", 1),
        met(reject(5), rejected, "amqp:decode-error", 1),
        met(AmqpFault::Release, None, "", 1),
        met(AmqpFault::Modify { undeliverable_here: false }, None, "", 1),
        met(AmqpFault::Modify { undeliverable_here: true }, rejected, "can't be handled here", 1),
        met(AmqpFault::AnswerFirst, None, "", 1),
        met(AmqpFault::ValueBody, None, "", 1),
        met(AmqpFault::IdleTimeOut { millis: 1000 }, None, "", 1),
    ];
    // Header, init, header, open, begin, attach, attach: it did not start, so once more, step by step.
    cases.extend((1..=7).map(|frames| met(cut(frames), None, "", 2)));
    // The flow and the request: it had started.
    let closed = "closed the connection before it had answered";
    cases.extend((8..=9).map(|frames| met(cut(frames), connection, closed, 1)));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_connection_ends_as_it_should() {
    for carrier in CARRIERS {
        for Met { fault, kind, stage, says, connections } in cases() {
            let faults = [ConnectionFault::Amqp(fault)];
            let emulator = started(Behavior::new(), |c| c.connection_faults(faults)).await;
            let client = client(&emulator, carrier);
            match (register(&client).await, kind) {
                (Ok(_), None) => {}
                (Err(error), Some(kind)) => {
                    assert_eq!(error.kind(), kind, "{carrier:?} {fault:?}: {error:?}");
                    assert_eq!(error.stage(), Some(stage), "{carrier:?} {fault:?}: {error:?}");
                    assert!(error.to_string().contains(says), "{carrier:?} {fault:?}: {error}");
                }
                (outcome, _) => panic!("{carrier:?} {fault:?}: {outcome:?}"),
            }
            assert_eq!(secure_connections(&emulator), connections, "{carrier:?} {fault:?}");
            // Whatever it was, the same client works afterwards.
            register(&client).await.unwrap();
            client.end_session().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_in_a_rejection_holds_in_every_form() {
    for retry_after in [
        InfoRetryAfter::Number(600),
        InfoRetryAfter::Text(600),
        InfoRetryAfter::CapitalNumber(600),
        InfoRetryAfter::CapitalText(600),
    ] {
        let fault = AmqpFault::Reject { condition: 1, retry_after };
        let faults = [ConnectionFault::Amqp(fault)];
        let emulator = started(Behavior::new(), |c| c.connection_faults(faults)).await;
        // Past the deadline: it fails at once and says when to come back.
        let error = register(&client(&emulator, Carrier::Tls)).await.unwrap_err();
        assert_eq!((error.kind(), error.status()), (ErrorKind::Rejected, Some(429)));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(600)), "{retry_after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_enough_whether_sasl_is_wanted_or_not() {
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "dev-1");
    let leaf = params.self_signed(&pair).unwrap().der().to_vec();
    let enrollment = Enrollment::individual(
        "dev-1".parse().unwrap(),
        Attestation::thumbprint(Thumbprint::of_der(&leaf)),
    );
    let identity = X509Identity::from_der(vec![leaf], pair.serialize_der()).unwrap();
    for carrier in CARRIERS {
        for (fault, connections) in [
            (ConnectionFault::Pass, 1),
            (ConnectionFault::Amqp(AmqpFault::InsistOnSasl), 2),
            (ConnectionFault::Amqp(AmqpFault::InsistOnAnonymous), 2),
        ] {
            // The connection that comes back with SASL meets the same request.
            let faults = [fault, fault];
            let config = Emulator::builder().enrollment(enrollment.clone());
            let emulator = config.connection_faults(faults).start().await.unwrap();
            let client = client_of(&emulator, carrier, identity.clone().into());
            register(&client).await.unwrap();
            assert_eq!(secure_connections(&emulator), connections, "{carrier:?} {fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_the_same_refusal_by_open_and_less_of_one_by_sasl() {
    let other = || "YW5vdGhlciBkZXZpY2UncyBrZXk=".parse::<dps_attestation::SymmetricKey>().unwrap();
    for (fault, code) in [
        (ConnectionFault::Pass, Some(401_002)),
        (ConnectionFault::Amqp(AmqpFault::SaslDecides), None),
    ] {
        let emulator = started(Behavior::new(), |c| c.connection_faults([fault])).await;
        let client = client_of(&emulator, Carrier::Tls, other().into());
        let error = register(&client).await.unwrap_err();
        assert_eq!((error.status(), error.stage()), (Some(401), Some(Stage::Authenticate)));
        assert_eq!(error.error_code(), code);
        assert_eq!(error.tracking_id().is_some(), code.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_keep_a_connection_open_on_which_nothing_is_answered() {
    let faults = [ConnectionFault::Amqp(AmqpFault::IdleTimeOut { millis: 500 })];
    let behavior = Behavior::new().on_register(Fault::deliver(Delivery::Never));
    let emulator = started(behavior, |c| c.connection_faults(faults)).await;
    let client = client(&emulator, Carrier::Tls);
    assert_eq!(register(&client).await.unwrap_err().kind(), ErrorKind::Timeout);
    let closed = |event: &dps_emulator::Event| match &event.kind {
        EventKind::Closed { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    let event = emulator.events().wait_for(|event| closed(event).is_some()).await.unwrap();
    let reason = closed(&event).unwrap();
    assert!(!reason.contains("idle"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_answers_twice_answers_to_others_and_large_answers() {
    for carrier in CARRIERS {
        let behavior = Behavior::new()
            .polls(2)
            .retry_after(RetryAfter::Seconds(0))
            .on_register(Fault::none().twice())
            .on_query(Fault::none().twice())
            .on_query(Fault::with_body(dps_emulator::Body::Oversized(1024 * 1024)));
        let emulator = started(behavior, |config| config).await;
        let client = client(&emulator, carrier);
        assert_eq!(register(&client).await.unwrap().polls, 2);
        assert_eq!(secure_connections(&emulator), 1);

        let stray = Behavior::new().on_register(Fault::none().wrong_id());
        emulator.set_behavior("dev-1", stray).unwrap();
        let error = register(&client).await.unwrap_err();
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Timeout, Some(Stage::Register)));
        register(&client).await.unwrap();
    }
}
