//! Keys that live outside of the process: in a TPM, a token, an HSM or a helper process.

use std::{sync::Arc, time::Duration};

use dps_client::{Attestation, CredentialError, Error, ErrorKind, Stage};
use dps_conformance::{
    Bench, Cell, Credential, OutsideKey, OutsideSigner, SignerConduct, adjusted, fast, settle,
};
use dps_emulator::Behavior;
use tokio::join;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let without_signer: fn(Cell) -> bool = |cell| cell.credential != Credential::Signer;
    let without_signing_key: fn(Cell) -> bool =
        |cell| cell.credential != Credential::X509SigningKey;
    let reason = "it tells another kind of key what to do";
    vec![
        case!(a_slow_signer_is_a_timeout_that_says_so).skip(reason, without_signer),
        case!(the_error_of_a_failing_signer_is_handed_on).skip(reason, without_signer),
        case!(a_signer_that_fails_at_a_later_request).skip(reason, without_signer),
        case!(a_signer_is_dropped_when_the_registration_is_cancelled).skip(reason, without_signer),
        case!(the_error_of_a_failing_signing_key_is_handed_on).skip(reason, without_signing_key),
    ]
}

/// A client whose signer does as its script says, with the device's own key.
fn signing(bench: &Bench, conduct: SignerConduct) -> (OutsideSigner, dps_client::Client) {
    let signer = OutsideSigner::that(bench.config.attestation.clone(), conduct);
    let config = adjusted(bench.config.clone(), |config| {
        config.attestation = Attestation::from_signer(signer.clone())
    });
    let settings =
        adjusted(fast(), |settings| settings.request_timeout = Duration::from_millis(1500));
    (signer, bench.client_with(config, settings))
}

/// Nothing was sent and nothing is left; the same client registers once its signer signs.
async fn works_again(bench: &Bench, signer: &OutsideSigner, client: &dps_client::Client) {
    assert_eq!(bench.connections(), 0);
    assert_eq!((signer.asked(), signer.in_flight()), (1, 0));
    signer.now(SignerConduct::Sign);
    client.register(bench.request()).await.unwrap();
    settle(client).await;
}

async fn a_slow_signer_is_a_timeout_that_says_so(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let (signer, client) = signing(&bench, SignerConduct::KeepSilent);
    let error = client.register(bench.request()).await.unwrap_err();
    assert_eq!((error.kind(), error.stage()), (ErrorKind::Timeout, Some(Stage::Sign)), "{error}");
    assert_eq!(error.to_string(), "no signature within 1.5 s from what signs for the device");
    assert!(error.is_retryable() && error.hint().unwrap().contains("signs for the device"));
    works_again(&bench, &signer, &client).await;
}

async fn the_error_of_a_failing_signer_is_handed_on(cell: Cell) {
    let wrong = CredentialError::new("the PIN is wrong").hint("check the PIN");
    let busy = CredentialError::new("the token is busy").retryable();
    for (failure, retryable) in [(wrong, false), (busy, true)] {
        let bench = Bench::healthy(cell).await;
        let (signer, client) = signing(&bench, SignerConduct::Fail(failure.clone()));
        let error = client.register(bench.request()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.stage()),
            (ErrorKind::Credential, Some(Stage::Sign)),
            "{failure:?}"
        );
        assert!(error.to_string().ends_with(&failure.message), "{error}");
        assert_eq!(
            (error.is_retryable(), error.hint()),
            (retryable, failure.hint.clone()),
            "{failure:?}"
        );
        works_again(&bench, &signer, &client).await;
    }
}

/// Over HTTP each request is signed, over the other transports each connection.
async fn a_signer_that_fails_at_a_later_request(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(1)).await;
    let failure = CredentialError::new("the token was pulled out");
    let (signer, client) = signing(&bench, SignerConduct::SignThenFail(1, failure));
    let outcome = client.register(bench.request()).await;
    if cell.transport == dps_client::Transport::Http {
        let Err(Error::Credential(error)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((&*error.message, signer.asked()), ("the token was pulled out", 2));
    } else {
        outcome.unwrap();
        assert_eq!(signer.asked(), 1);
    }
    signer.now(SignerConduct::Sign);
    client.register(bench.request()).await.unwrap();
    settle(&client).await;
    assert_eq!(signer.in_flight(), 0);
}

async fn a_signer_is_dropped_when_the_registration_is_cancelled(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let (signer, client) = signing(&bench, SignerConduct::KeepSilent);
    let (outcome, ()) = join!(client.register(bench.request()), async {
        signer.is_asked().await;
        client.cancel();
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Cancelled);
    works_again(&bench, &signer, &client).await;
}

async fn the_error_of_a_failing_signing_key_is_handed_on(cell: Cell) {
    let busy = CredentialError::new("the token is busy").retryable();
    let failures = [
        (rustls::Error::General("the PIN is wrong".to_owned()), "the PIN is wrong", false),
        (rustls::Error::Other(rustls::OtherError(Arc::new(busy))), "the token is busy", true),
    ];
    let bench = Bench::healthy(cell).await;
    let key = OutsideKey::new(&bench.config.attestation.x509().unwrap());
    let config = adjusted(bench.config.clone(), |config| {
        config.attestation = Attestation::from(key.identity())
    });
    let client = bench.client_with(config, fast());
    for (failure, words, retryable) in failures {
        key.fail(Some(failure));
        let asked = key.asked();
        let error = client.register(bench.request()).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.stage()),
            (ErrorKind::Credential, Some(Stage::Sign)),
            "{words}"
        );
        assert_eq!(
            error.to_string(),
            format!("the device's credential can't sign: {words}"),
            "{words}"
        );
        assert_eq!((error.is_retryable(), key.asked() - asked), (retryable, 1), "{words}");
        assert_eq!(bench.requests(), [], "{words}");
    }
    key.fail(None);
    client.register(bench.request()).await.unwrap();
    settle(&client).await;
}
