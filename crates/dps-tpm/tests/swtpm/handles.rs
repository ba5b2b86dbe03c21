//! What else may be at a handle, and hierarchies with passwords.

use dps_tpm::{Tpm, TpmConfig, TpmError};

use crate::support::{ENDORSEMENT_HIERARCHY, OWNER_HIERARCHY, swtpm, wrapped};

/// The storage root key that systemd-tpm2-setup makes: ECC P-256.
pub(crate) const ECC_STORAGE: [u8; 26] = [
    0, 0x23, 0, 0x0b, 0, 3, 4, 0x72, 0, 0, 0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 0, 3, 0, 0x10, 0, 0, 0,
    0,
];

#[tokio::test]
async fn an_ecc_key_at_the_handle_of_the_storage_root_key_is_refused_and_nothing_is_made() {
    let swtpm = swtpm!();
    swtpm.keep_primary(&ECC_STORAGE, 0x8100_0001);
    let error = swtpm.tpm().keys().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "at 0x81000001 there must be the storage root key, an RSA key of 2048 bits by the TCG's template, but there is an ECC key on P-256"
    );
    assert!(error.hint().unwrap().contains("choose another handle"));
    assert_eq!(swtpm.persistent(), [0x8100_0001]);
    let storage_handle = 0x8100_0005;
    let mut config = swtpm.config();
    config.storage_handle = storage_handle;
    Tpm::new(config).unwrap().keys().await.unwrap();
    assert_eq!(swtpm.persistent(), [0x8100_0001, storage_handle, 0x8101_0001]);
}

#[tokio::test]
async fn another_template_at_the_handle_of_the_endorsement_key_is_refused() {
    let swtpm = swtpm!();
    swtpm.tpm().keys().await.unwrap();
    let mut config = swtpm.config();
    (config.endorsement_handle, config.storage_handle) = (0x8100_0001, 0x8101_0001);
    let error = Tpm::new(config).unwrap().keys().await.unwrap_err();
    let expected = "but there is an RSA key of 2048 bits with another policy";
    assert!(error.to_string().ends_with(expected), "{error}");
}

#[tokio::test]
async fn another_programs_key_at_the_handle_for_the_hub_is_never_replaced() {
    let swtpm = swtpm!();
    let keys = swtpm.tpm().keys().await.unwrap();
    swtpm.keep_primary(&ECC_STORAGE, 0x8100_0100);
    let tpm = swtpm.tpm();
    for error in [
        tpm.store(wrapped(&keys, &[7; 32])).await.unwrap_err(),
        tpm.sign(b"text").await.unwrap_err(),
    ] {
        assert!(matches!(error, TpmError::WrongKey { handle: 0x8100_0100, .. }), "{error}");
    }
    assert_eq!(swtpm.persistent(), [0x8100_0001, 0x8100_0100, 0x8101_0001]);
}

fn with_passwords(mut config: TpmConfig, endorsement: &str, owner: &str) -> Tpm {
    config.endorsement_password = endorsement.parse().unwrap();
    config.owner_password = owner.parse().unwrap();
    Tpm::new(config).unwrap()
}

#[tokio::test]
async fn hierarchies_with_passwords_are_opened_with_them_and_named_without() {
    let swtpm = swtpm!();
    swtpm.set_password(OWNER_HIERARCHY, b"of the owner");
    swtpm.set_password(ENDORSEMENT_HIERARCHY, b"of the endorsement");
    for (endorsement, owner, says) in [
        ("", "", "the password of the endorsement hierarchy is wrong or missing"),
        ("of the endorsement", "", "the password of the owner hierarchy is wrong or missing"),
        ("wrong", "of the owner", "the password of the endorsement hierarchy is wrong or missing"),
    ] {
        let error = with_passwords(swtpm.config(), endorsement, owner).keys().await.unwrap_err();
        assert_eq!(error.to_string(), says);
        assert!(!format!("{error:?}").contains("of the endorsement\""));
        assert_eq!((swtpm.in_memory(), swtpm.persistent()), (vec![], vec![]));
    }
    let tpm = with_passwords(swtpm.config(), "of the endorsement", "of the owner");
    let keys = tpm.keys().await.unwrap();
    tpm.store(wrapped(&keys, &[7; 32])).await.unwrap();
    tpm.sign(b"text").await.unwrap();

    let without = with_passwords(swtpm.config(), "", "of the owner");
    let error = without.import(wrapped(&keys, &[7; 32])).await.unwrap_err();
    assert!(matches!(error, TpmError::Password { hierarchy: "endorsement hierarchy" }), "{error}");
    let without = with_passwords(swtpm.config(), "of the endorsement", "");
    let error = without.store(wrapped(&keys, &[9; 32])).await.unwrap_err();
    assert!(matches!(error, TpmError::Password { hierarchy: "owner hierarchy" }), "{error}");
    // The former key is there still.
    tpm.sign(b"text").await.unwrap();
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}
