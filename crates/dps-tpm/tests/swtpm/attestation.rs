//! The keys of the TPM, the key of the challenge and the one for the hub.

use dps_attestation::{Attestation, SasToken, SymmetricKey};
use dps_tpm::{AuthenticationKey, TpmConfig, TpmError};

use crate::{
    support::{Act, Middleman, swtpm, wrapped, wrapped_bytes},
    swtpm::Swtpm,
};

const KEY: [u8; 32] = [7; 32];
const OTHER_KEY: [u8; 32] = [9; 32];

/// What a program with the key itself signs.
fn in_software(key: &[u8]) -> String {
    let key = SymmetricKey::from_bytes(key).unwrap();
    base64(key.signature("resource\n1700000000").expose())
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

const TEXT: &[u8] = b"resource\n1700000000";

#[tokio::test]
async fn the_keys_are_made_once_and_are_the_same_after_that() {
    let swtpm = swtpm!();
    let keys = swtpm.tpm().keys().await.unwrap();
    assert!(keys.endorsement_key().starts_with("AToAAQAL"), "{}", keys.endorsement_key());
    assert_eq!(keys.endorsement_key_bytes().len(), 316);
    assert_eq!(keys.storage_root_key_bytes().len(), 284);
    assert_eq!(keys.registration_id().unwrap().as_str().len(), 52);
    assert_eq!(swtpm.persistent(), [0x8100_0001, 0x8101_0001]);
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
    assert_eq!(swtpm.tpm().keys().await.unwrap(), keys);
}

#[tokio::test]
async fn the_key_of_a_challenge_signs_as_in_software_and_stays_nowhere() {
    let swtpm = swtpm!();
    let tpm = swtpm.tpm();
    let keys = tpm.keys().await.unwrap();
    let before = swtpm.persistent();
    let nonce = tpm.import(wrapped(&keys, &KEY)).await.unwrap();
    for _ in 0..4 {
        assert_eq!(base64(&*nonce.sign(TEXT).await.unwrap()), in_software(&KEY));
    }
    assert_eq!((swtpm.persistent(), swtpm.in_memory()), (before, vec![]));
}

#[tokio::test]
async fn a_challenge_leaves_the_key_for_the_hub_as_it_is() {
    let swtpm = swtpm!();
    let tpm = swtpm.tpm();
    let keys = tpm.keys().await.unwrap();
    tpm.store(wrapped(&keys, &KEY)).await.unwrap();
    let nonce = tpm.import(wrapped(&keys, &OTHER_KEY)).await.unwrap();
    assert_eq!(base64(&*nonce.sign(TEXT).await.unwrap()), in_software(&OTHER_KEY));
    assert_eq!(base64(&*tpm.sign(TEXT).await.unwrap()), in_software(&KEY));
}

#[tokio::test]
async fn a_new_key_for_the_hub_takes_the_place_of_the_former_one() {
    let swtpm = swtpm!();
    let tpm = swtpm.tpm();
    let keys = tpm.keys().await.unwrap();
    for key in [KEY, OTHER_KEY] {
        tpm.store(wrapped(&keys, &key)).await.unwrap();
        assert_eq!(base64(&*tpm.sign(TEXT).await.unwrap()), in_software(&key));
    }
    assert_eq!(swtpm.persistent(), [0x8100_0001, 0x8100_0100, 0x8101_0001]);
    assert_eq!(swtpm.in_memory(), Vec::<u32>::new());
}

#[tokio::test]
async fn keys_of_every_length_that_the_service_makes_are_taken_in() {
    let swtpm = swtpm!();
    let tpm = swtpm.tpm();
    let keys = tpm.keys().await.unwrap();
    for length in [16, 32, 33, 64] {
        let key: Vec<u8> = (0..length).collect();
        let nonce = tpm.import(wrapped(&keys, &key)).await.unwrap();
        assert_eq!(base64(&*nonce.sign(TEXT).await.unwrap()), in_software(&key), "{length}");
    }
}

#[tokio::test]
async fn both_keys_sign_the_sas_tokens_that_software_signs() {
    let swtpm = swtpm!();
    let tpm = swtpm.tpm();
    let keys = tpm.keys().await.unwrap();
    tpm.store(wrapped(&keys, &KEY)).await.unwrap();
    let nonce = tpm.import(wrapped(&keys, &KEY)).await.unwrap();
    let (scope, id) = ("0ne00AABBCC".parse().unwrap(), keys.registration_id().unwrap());
    let expiry = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    let key = SymmetricKey::from_bytes(&KEY).unwrap();
    let expected = SasToken::sign(&key, &scope, &id, expiry);
    for attestation in [Attestation::from_signer(nonce), Attestation::from_signer(tpm.stored_key())]
    {
        let signer = attestation.sas_signer().unwrap();
        let token = SasToken::sign_with(signer, &scope, &id, expiry).await.unwrap();
        assert_eq!(token.expose(), expected.expose());
    }
}

#[tokio::test]
async fn a_text_of_1024_bytes_is_signed_and_a_longer_one_refused() {
    let swtpm = swtpm!();
    let tpm = swtpm.tpm();
    let keys = tpm.keys().await.unwrap();
    tpm.store(wrapped(&keys, &KEY)).await.unwrap();
    assert!(tpm.sign(&[b'x'; 1024]).await.is_ok());
    let error = tpm.sign(&[b'x'; 1025]).await.unwrap_err();
    assert_eq!(error.to_string(), "the text has 1025 bytes; the TPM signs at most 1024");
}

#[tokio::test]
async fn signing_for_the_hub_before_it_was_assigned_says_so() {
    let swtpm = swtpm!();
    let error = swtpm.tpm().sign(TEXT).await.unwrap_err();
    assert_eq!(error.to_string(), "at 0x81000100 there is no key");
    assert!(error.hint().unwrap().contains("register first"));
}

#[tokio::test]
async fn a_key_for_another_tpm_is_refused_and_nothing_changes() {
    let (swtpm, other) = (swtpm!(), swtpm!());
    let tpm = swtpm.tpm();
    let keys = tpm.keys().await.unwrap();
    tpm.store(wrapped(&keys, &KEY)).await.unwrap();
    let before = (swtpm.persistent(), swtpm.in_memory());
    let foreign = wrapped(&other.tpm().keys().await.unwrap(), &OTHER_KEY);
    for error in
        [tpm.import(foreign.clone()).await.unwrap_err(), tpm.store(foreign).await.unwrap_err()]
    {
        assert!(matches!(error, TpmError::ForeignKey { .. }), "{error}");
        assert!(error.hint().unwrap().contains("endorsement key"));
    }
    assert_eq!((swtpm.persistent(), swtpm.in_memory()), before);
    assert_eq!(base64(&*tpm.sign(TEXT).await.unwrap()), in_software(&KEY));
}

#[tokio::test]
async fn a_key_that_is_damaged_anywhere_is_refused_and_leaves_nothing() {
    let swtpm = swtpm!();
    let tpm = swtpm.tpm();
    let keys = tpm.keys().await.unwrap();
    let bytes = wrapped_bytes(&keys, &KEY);
    // One place in every part; what follows the fifth is nobody's business here.
    let places = [
        0, 2, 30, 40, 54, 56, 200, 312, 314, 340, 350, 456, 458, 600, 714, 716, 720, 722, 740, 760,
    ];
    for place in places {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        let result = match AuthenticationKey::from_bytes(&damaged) {
            Ok(key) => tpm.import(key).await.map(drop),
            Err(error) => Err(error),
        };
        let error = result.expect_err(&place.to_string());
        assert!(
            matches!(error, TpmError::ForeignKey { .. } | TpmError::DamagedKey { .. }),
            "{place}: {error}"
        );
        assert_eq!(swtpm.in_memory(), Vec::<u32>::new(), "{place}");
    }
    assert!(tpm.import(wrapped(&keys, &KEY)).await.is_ok());
}

#[tokio::test]
async fn the_three_handles_can_be_set() {
    let swtpm = swtpm!();
    let mut config: TpmConfig = swtpm.config();
    config.endorsement_handle = 0x8101_0002;
    config.storage_handle = 0x8100_0003;
    config.identity_handle = 0x8100_0200;
    let tpm = dps_tpm::Tpm::new(config).unwrap();
    let keys = tpm.keys().await.unwrap();
    tpm.store(wrapped(&keys, &KEY)).await.unwrap();
    assert_eq!(base64(&*tpm.sign(TEXT).await.unwrap()), in_software(&KEY));
    assert_eq!(swtpm.persistent(), [0x8100_0003, 0x8100_0200, 0x8101_0002]);
}

#[tokio::test]
async fn a_damaged_key_is_found_before_the_tpm_is_asked() {
    let swtpm = swtpm!();
    let middleman = Middleman::new(&swtpm, |_, _| Act::Pass);
    let _tpm = middleman.tpm();
    assert!("AAAA".parse::<AuthenticationKey>().is_err());
    assert_eq!(middleman.seen(), Vec::<u32>::new());
}

#[test]
fn a_software_tpm_is_up_at_once() {
    let Some(swtpm) = Swtpm::start() else { return };
    assert_eq!(swtpm.persistent(), Vec::<u32>::new());
}
