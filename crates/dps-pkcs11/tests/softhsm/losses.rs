//! Tokens that are pulled out, busy or broken in the middle.

use dps_client::{CredentialError, X509Identity};
use dps_pkcs11::{Pkcs11Error, Pkcs11Key};
use rustls::{
    pki_types::CertificateDer,
    version::{TLS12, TLS13},
};

use crate::{
    support::{Kind, SoftHsm, in_own_process, typed},
    tls::{certified, handshake},
};

fn faulty_key(hsm: &SoftHsm) -> Pkcs11Key {
    hsm.make(Kind::P256, "key", 1);
    hsm.open(&format!("pkcs11:token=dps;object=key?pin-value=1234&{}", hsm.faulty())).unwrap()
}

/// What a transport takes out of the failed handshake.
fn failed(certified: &(CertificateDer<'static>, X509Identity)) -> (Pkcs11Error, bool) {
    let error = handshake(certified.clone(), &TLS13).unwrap_err();
    let rustls::Error::Other(other) = error.get_ref().unwrap().downcast_ref().unwrap() else {
        panic!("{error:?}")
    };
    let shown = other.0.downcast_ref::<CredentialError>().unwrap();
    let typed = shown.source.as_ref().unwrap().downcast_ref::<Pkcs11Error>().unwrap();
    assert_eq!(shown.message, typed.to_string());
    (typed.clone(), shown.retryable)
}

#[test]
fn a_lost_session_is_opened_anew_once() {
    in_own_process("losses::a_lost_session_is_opened_anew_once", |hsm| {
        let certified = certified(faulty_key(hsm));
        // CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT, CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED,
        // CKR_USER_NOT_LOGGED_IN, CKR_KEY_HANDLE_INVALID, CKR_CRYPTOKI_NOT_INITIALIZED.
        for code in [0x32, 0xe0, 0xb3, 0xb0, 0x101, 0x60, 0x190] {
            for function in ["C_SignInit", "C_Sign"] {
                let before = hsm.calls("C_OpenSession");
                hsm.fail(function, code, 1);
                handshake(certified.clone(), &TLS12).unwrap();
                assert_eq!(hsm.calls("C_OpenSession"), before + 1, "{function} {code:#x}");
            }
        }
        // Twice is the end of this signature, and not of the next one.
        hsm.fail("C_Sign", 0x32, 2);
        let (error, retryable) = failed(&certified);
        let expected = "the token \"dps\" is gone: C_Sign failed with CKR_DEVICE_REMOVED";
        assert_eq!((error.to_string().as_str(), retryable), (expected, false));
        handshake(certified, &TLS13).unwrap();
    });
}

#[test]
fn a_token_that_was_pulled_out_is_named_and_taken_again_when_it_is_back() {
    let test = "losses::a_token_that_was_pulled_out_is_named_and_taken_again_when_it_is_back";
    in_own_process(test, |hsm| {
        let certified = certified(faulty_key(hsm));
        hsm.fail("C_SignInit", 0x32, 1);
        hsm.set("no-token", "");
        let (error, retryable) = failed(&certified);
        assert!(matches!(error, Pkcs11Error::TokenGone { .. }) && !retryable, "{error}");
        let (error, retryable) = failed(&certified);
        assert!(matches!(error, Pkcs11Error::NoToken { .. }) && !retryable, "{error}");
        assert_eq!(error.to_string(), "no token matches \"token=dps\"; there is none");
        hsm.unset("no-token");
        handshake(certified, &TLS13).unwrap();
    });
}

#[test]
fn another_key_in_the_place_of_the_first_is_refused() {
    in_own_process("losses::another_key_in_the_place_of_the_first_is_refused", |hsm| {
        let certified = certified(faulty_key(hsm));
        let session = hsm.session();
        for object in session.find_objects(&[]).unwrap() {
            session.destroy_object(object).unwrap();
        }
        drop(session);
        hsm.make(Kind::P256, "key", 1);
        let (error, retryable) = failed(&certified);
        assert!(error.to_string().contains("another key took its place") && !retryable, "{error}");
    });
}

#[test]
fn a_busy_token_can_be_tried_again_and_other_failures_can_not() {
    in_own_process("losses::a_busy_token_can_be_tried_again_and_other_failures_can_not", |hsm| {
        let key = faulty_key(hsm);
        let certified = certified(key);
        // CKR_HOST_MEMORY, CKR_DEVICE_MEMORY, CKR_GENERAL_ERROR, CKR_FUNCTION_NOT_SUPPORTED.
        for (code, busy) in [(2, true), (0x31, true), (5, false), (0x54, false)] {
            hsm.fail("C_Sign", code, 1);
            let (error, retryable) = failed(&certified);
            assert_eq!(retryable, busy, "{error}");
            handshake(certified.clone(), &TLS13).unwrap();
        }
        // CKR_SESSION_COUNT when the next key is opened.
        let uri = format!("pkcs11:object=key?pin-value=1234&{}", hsm.faulty());
        hsm.fail("C_OpenSession", 0xb1, 1);
        let error = hsm.open(&uri).unwrap_err();
        let expected = "the token \"dps\" is busy: C_OpenSession failed with CKR_SESSION_COUNT";
        assert_eq!(typed(&error).to_string(), expected);
        assert!(typed(&error).is_retryable());
    });
}

#[test]
fn a_module_is_initialized_once_and_again_when_it_must() {
    in_own_process("losses::a_module_is_initialized_once_and_again_when_it_must", |hsm| {
        hsm.make(Kind::P256, "key", 1);
        let uri = format!("pkcs11:object=key?pin-value=1234&{}", hsm.faulty());
        // CKR_CANT_LOCK.
        hsm.fail("C_Initialize", 0xa, 1);
        let error = hsm.open(&uri).unwrap_err();
        assert!(matches!(typed(&error), Pkcs11Error::Module { .. }), "{error:?}");
        assert!(error.to_string().contains("C_Initialize failed with CKR_CANT_LOCK"), "{error}");
        // Another part of the program, here the test, has initialized it: CKR_CRYPTOKI_ALREADY_INITIALIZED.
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| handshake(certified(hsm.open(&uri).unwrap()), &TLS13).unwrap());
            }
        });
        assert_eq!(hsm.calls("C_Initialize"), 2);
        // CKR_CRYPTOKI_NOT_INITIALIZED.
        hsm.fail("C_GetSlotList", 0x190, 1);
        hsm.open(&uri).unwrap();
        assert_eq!(hsm.calls("C_Initialize"), 3);
    });
}

#[test]
fn many_threads_may_open_keys_at_once() {
    in_own_process("losses::many_threads_may_open_keys_at_once", |hsm| {
        hsm.token.import("key", "01", &rcgen::KeyPair::generate().unwrap().serialize_pem());
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..8 {
                        let key = hsm.open("pkcs11:object=key?pin-value=1234").unwrap();
                        handshake(certified(key), &TLS13).unwrap();
                    }
                });
            }
        });
    });
}
