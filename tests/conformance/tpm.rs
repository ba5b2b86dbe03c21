//! What only a TPM does, and where the service does not take it.

use dps_client::{ErrorKind, RegistrationRequest};
use dps_conformance::{Bench, Cell, Credential, DEVICE, settle};
use serde_json::json;

use crate::{Case, case};

pub(crate) const NOT_OFFERED: &str = "the service has no TPM attestation over MQTT";

pub(crate) fn cases() -> Vec<Case> {
    let without_tpm: fn(Cell) -> bool = |cell| cell.credential != Credential::Tpm;
    let reason = "the device has no TPM to show";
    vec![
        case!(an_assigned_device_has_the_key_for_its_hub)
            .skip(reason, without_tpm)
            .skip(NOT_OFFERED, |cell| !cell.is_offered()),
        case!(a_payload_that_leaves_no_room_for_the_keys_of_the_tpm_never_leaves)
            .skip(reason, without_tpm)
            .skip(NOT_OFFERED, |cell| !cell.is_offered()),
        case!(a_tpm_is_refused_over_mqtt_before_any_io)
            .skip("the service takes this credential here", Cell::is_offered),
    ]
}

async fn an_assigned_device_has_the_key_for_its_hub(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    client.register(bench.request()).await.unwrap();
    // In a session that goes on, there is no other challenge.
    client.register(bench.request()).await.unwrap();
    settle(&client).await;
    let text = "hub.example%2Fdevices%2Fdev-1\n4102444800";
    let signature = bench.tpm.as_ref().unwrap().tpm().sign(text.as_bytes()).await.unwrap();
    let key: dps_client::SymmetricKey = bench.emulator.hub_key(DEVICE).unwrap();
    assert_eq!(signature[..], *key.signature(text).expose());
}

async fn a_payload_that_leaves_no_room_for_the_keys_of_the_tpm_never_leaves(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    let text = "x".repeat(RegistrationRequest::MAX_BODY_BYTES - 200);
    let request = bench.request().payload(json!({ "text": text })).unwrap();
    let error = client.register(request).await.unwrap_err();
    settle(&client).await;
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("the service takes at most 98304"), "{error}");
    assert_eq!(bench.requests(), []);
}

async fn a_tpm_is_refused_over_mqtt_before_any_io(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let error = bench.register().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("use http, amqp or amqp-ws"), "{error}");
    assert_eq!(bench.connections(), 0);
}
