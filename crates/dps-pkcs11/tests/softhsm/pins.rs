//! How a token lets its user in, and that a wrong PIN is tried once.

use dps_pkcs11::{PinProblem, Pkcs11Error, Pkcs11Key};
use dps_state_machine::Error;

use crate::support::{Kind, PIN, in_own_process, typed};

fn problem(error: &Error) -> PinProblem {
    let Error::Credential(shown) = error else { panic!("{error:?}") };
    assert!(!shown.retryable && shown.hint.is_some(), "{shown:?}");
    let Pkcs11Error::Pin { problem, token } = typed(error) else { panic!("{error:?}") };
    assert_eq!(token, "dps");
    problem
}

#[test]
fn the_pin_comes_from_the_uri_a_file_or_the_program() {
    in_own_process("pins::the_pin_comes_from_the_uri_a_file_or_the_program", |hsm| {
        hsm.make(Kind::P256, "key", 1);
        let file = hsm.folder.join("my pin");
        std::fs::write(&file, format!("{PIN}\n")).unwrap();
        let source = file.display().to_string().replace(' ', "%20");
        hsm.open("pkcs11:object=key?pin-value=12%334").unwrap();
        hsm.open(&format!("pkcs11:object=key?pin-source=file:{source}")).unwrap();
        let mut options = hsm.options();
        options.pin = Some(PIN.parse().unwrap());
        Pkcs11Key::open(&"pkcs11:object=key".parse().unwrap(), &options).unwrap();

        assert_eq!(problem(&hsm.open("pkcs11:object=key").unwrap_err()), PinProblem::Missing);
        let error = hsm.open("pkcs11:object=key?pin-source=file:/none/pin").unwrap_err();
        assert!(
            error.to_string().starts_with("PIN file \"/none/pin\": the file can't be read"),
            "{error}"
        );
    });
}

#[test]
fn a_wrong_pin_is_tried_once_in_a_process() {
    in_own_process("pins::a_wrong_pin_is_tried_once_in_a_process", |hsm| {
        hsm.make(Kind::P256, "key", 1);
        let with = |pin: &str| format!("pkcs11:object=key?pin-value={pin}&{}", hsm.faulty());
        let error = hsm.open(&with("hunter2")).unwrap_err();
        assert_eq!(problem(&error), PinProblem::Wrong);
        let again = hsm.open(&with("hunter2")).unwrap_err();
        assert_eq!(problem(&again), PinProblem::RefusedBefore);
        assert_eq!(hsm.calls("C_Login"), 1);
        for text in [format!("{error} {error:?}"), format!("{again} {again:?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        // Another PIN is another try.
        let key = hsm.open(&with(PIN)).unwrap();
        assert_eq!(hsm.calls("C_Login"), 2);
        assert!(!format!("{key:?}").contains(PIN), "{key:?}");
    });
}

#[test]
fn a_pin_that_is_wrong_when_the_token_comes_back_is_tried_once() {
    use rustls::sign::SigningKey;
    in_own_process("pins::a_pin_that_is_wrong_when_the_token_comes_back_is_tried_once", |hsm| {
        hsm.make(Kind::P256, "key", 1);
        let key = hsm.open(&format!("pkcs11:object=key?pin-value=1234&{}", hsm.faulty())).unwrap();
        assert_eq!(hsm.calls("C_Login"), 1);
        let sign = || {
            let signer =
                key.choose_scheme(&[rustls::SignatureScheme::ECDSA_NISTP256_SHA256]).unwrap();
            signer.sign(b"message").map_err(|error| error.to_string())
        };
        // CKR_SESSION_HANDLE_INVALID, and CKR_PIN_INCORRECT.
        hsm.fail("C_SignInit", 0xb3, 1);
        hsm.fail("C_Login", 0xa0, 1);
        assert!(sign().unwrap_err().contains("it refused the PIN"));
        for _ in 0..3 {
            assert!(sign().unwrap_err().contains("it refused this PIN before"));
        }
        assert_eq!(hsm.calls("C_Login"), 2);
    });
}

#[test]
fn a_token_that_does_not_let_in_says_why_and_gets_no_pin() {
    in_own_process("pins::a_token_that_does_not_let_in_says_why_and_gets_no_pin", |hsm| {
        hsm.make(Kind::P256, "key", 1);
        let uri = format!("pkcs11:object=key?pin-value=1234&{}", hsm.faulty());
        // CKF_USER_PIN_LOCKED and CKF_USER_PIN_FINAL_TRY.
        for (flags, expected) in [("40000", PinProblem::Locked), ("20000", PinProblem::LastTry)] {
            hsm.set("token-flags", flags);
            assert_eq!(problem(&hsm.open(&uri).unwrap_err()), expected);
        }
        assert_eq!(hsm.calls("C_Login"), 0);
        hsm.unset("token-flags");
        // CKR_PIN_LOCKED, CKR_PIN_EXPIRED and CKR_USER_PIN_NOT_INITIALIZED.
        for (code, expected) in
            [(0xa4, PinProblem::Locked), (0xa3, PinProblem::Expired), (0x102, PinProblem::NotSet)]
        {
            hsm.fail("C_Login", code, 1);
            assert_eq!(problem(&hsm.open(&uri).unwrap_err()), expected);
        }
        hsm.open(&uri).unwrap();
    });
}

#[test]
fn a_second_key_of_a_token_shares_the_login() {
    in_own_process("pins::a_second_key_of_a_token_shares_the_login", |hsm| {
        hsm.make(Kind::P256, "one", 1);
        hsm.make(Kind::P256, "other", 2);
        let open = |object: &str| {
            hsm.open(&format!("pkcs11:object={object}?pin-value=1234&{}", hsm.faulty())).unwrap()
        };
        let _keys = [open("one"), open("other")];
        assert_eq!(hsm.calls("C_Login"), 1);
    });
}
