//! Which module, token and key a URI finds.

use cryptoki::object::Attribute;
use dps_pkcs11::{Pkcs11Error, Pkcs11Key, Pkcs11Options};

use crate::support::{Kind, in_own_process, typed};

#[test]
fn a_token_is_found_by_each_of_its_attributes_and_a_missing_one_lists_what_is_there() {
    let test =
        "finding::a_token_is_found_by_each_of_its_attributes_and_a_missing_one_lists_what_is_there";
    in_own_process(test, |hsm| {
        hsm.make(Kind::P256, "key", 1);
        for attributes in [
            "",
            "token=dps",
            "token=dps;manufacturer=SoftHSM%20project;model=SoftHSM%20v2",
            "library-manufacturer=SoftHSM;library-description=Implementation%20of%20PKCS11",
        ] {
            let uri = format!("pkcs11:{attributes}?pin-value=1234");
            hsm.open(&uri).unwrap_or_else(|error| panic!("{uri}: {error}"));
        }
        let error = hsm.open("pkcs11:token=other?pin-value=1234").unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("no token matches \"token=other\"; there is token=dps;serial="),
            "{message}"
        );
        let serial = message.split("serial=").nth(1).unwrap().trim_end();
        hsm.open(&format!("pkcs11:serial={serial}?pin-value=1234")).unwrap();
        for wrong in [
            "model=x",
            "manufacturer=x",
            "serial=x",
            "slot-id=1",
            "slot-description=x",
            "slot-manufacturer=x",
        ] {
            let error = hsm.open(&format!("pkcs11:{wrong}?pin-value=1234")).unwrap_err();
            assert!(matches!(typed(&error), Pkcs11Error::NoToken { .. }), "{wrong}: {error}");
        }
        let error = hsm.open("pkcs11:library-version=9.9?pin-value=1234").unwrap_err();
        assert!(error.to_string().contains("the URI wants library-version=9.9"), "{error}");
    });
}

#[test]
fn two_tokens_that_match_are_listed() {
    in_own_process("finding::two_tokens_that_match_are_listed", |hsm| {
        hsm.token.add_token("dps");
        hsm.token.add_token("third");
        let error = hsm.open("pkcs11:token=dps?pin-value=1234").unwrap_err();
        let Pkcs11Error::SeveralTokens { found, .. } = typed(&error) else { panic!("{error}") };
        assert_eq!(found.len(), 2, "{error}");
        assert!(error.to_string().contains("2 tokens match \"token=dps\""), "{error}");
    });
}

#[test]
fn a_key_is_found_by_label_or_id_and_another_one_lists_what_is_there() {
    in_own_process(
        "finding::a_key_is_found_by_label_or_id_and_another_one_lists_what_is_there",
        |hsm| {
            let error = hsm.open("pkcs11:object=key?pin-value=1234").unwrap_err();
            assert!(
                error.to_string().ends_with("no private key matches \"object=key\"; there is none"),
                "{error}"
            );
            hsm.make(Kind::P256, "key", 1);
            hsm.make(Kind::P256, "key", 2);
            hsm.make(Kind::P256, "third", 3);
            for uri in
                ["pkcs11:object=third", "pkcs11:id=%02", "pkcs11:object=key;id=%01;type=private"]
            {
                hsm.open(&format!("{uri}?pin-value=1234")).unwrap();
            }
            let error = hsm.open("pkcs11:object=kee?pin-value=1234").unwrap_err();
            let Pkcs11Error::NoKey { mut found, .. } = typed(&error) else { panic!("{error}") };
            found.sort();
            assert_eq!(found, ["object=key;id=%01", "object=key;id=%02", "object=third;id=%03"]);
            let error = hsm.open("pkcs11:object=key?pin-value=1234").unwrap_err();
            let Pkcs11Error::SeveralKeys { mut found, .. } = typed(&error) else {
                panic!("{error}")
            };
            found.sort();
            assert_eq!(found, ["object=key;id=%01", "object=key;id=%02"]);
            assert!(error.to_string().contains("2 private keys match \"object=key\""), "{error}");
        },
    );
}

#[test]
fn a_module_that_can_not_be_loaded_is_named() {
    in_own_process("finding::a_module_that_can_not_be_loaded_is_named", |hsm| {
        let none = Pkcs11Options::default();
        let open = |uri: &str| Pkcs11Key::open(&uri.parse().unwrap(), &none).unwrap_err();
        assert_eq!(typed(&open("pkcs11:token=dps")), Pkcs11Error::NoModule);
        let text = hsm.folder.join("softhsm2.conf");
        for (query, says) in [
            ("module-path=/none/here.so".to_owned(), "/none/here.so"),
            (format!("module-path={}", text.display()), "softhsm2.conf"),
            (
                "module-path=libc.so.6".to_owned(),
                "it is no PKCS#11 module: it has no C_GetFunctionList",
            ),
            ("module-name=no-such-module".to_owned(), "libno-such-module.so"),
        ] {
            let error = open(&format!("pkcs11:token=dps?pin-value=1234&{query}"));
            assert!(matches!(typed(&error), Pkcs11Error::Module { .. }), "{error:?}");
            assert!(error.to_string().contains(says), "{query}: {error}");
        }
        // A folder and a name in it.
        hsm.make(Kind::P256, "key", 1);
        hsm.faulty();
        let query = format!("module-path={}&module-name=faults", hsm.folder.display());
        Pkcs11Key::open(&format!("pkcs11:?pin-value=1234&{query}").parse().unwrap(), &none)
            .unwrap();
    });
}

#[test]
fn keys_that_can_not_sign_handshakes_are_refused_by_name() {
    in_own_process("finding::keys_that_can_not_sign_handshakes_are_refused_by_name", |hsm| {
        hsm.make(Kind::Rsa(1024), "short", 1);
        hsm.make(Kind::P521, "p521", 2);
        hsm.make_with(Kind::P256, "mute", 3, &[Attribute::Sign(false)]);
        for (object, says) in [
            ("short", "it is an RSA key of 1024 bits; give an RSA key of 2048 to 4096 bits"),
            ("p521", "it is on another curve than P-256 and P-384; give"),
            ("mute", "it may not sign (CKA_SIGN is false)"),
        ] {
            let error = hsm.open(&format!("pkcs11:object={object}?pin-value=1234")).unwrap_err();
            assert!(matches!(typed(&error), Pkcs11Error::UnusableKey { .. }), "{error:?}");
            let message = error.to_string();
            assert!(
                message.contains(says) && message.contains(&format!("object={object}")),
                "{message}"
            );
        }
        let uri = format!("pkcs11:object=mute?pin-value=1234&{}", hsm.faulty());
        hsm.make(Kind::P256, "key", 4);
        hsm.set("mechanisms", "250");
        let error = hsm.open(&uri.replace("mute", "key")).unwrap_err();
        assert!(
            error.to_string().contains("allows a mechanism that signs TLS handshakes"),
            "{error}"
        );
    });
}
