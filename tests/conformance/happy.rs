//! What a device is for.

use dps_client::{Json, OperationStatus, RegistrationRequest, Settings, Substatus};
use dps_conformance::{Bench, Cell, DEVICE, adjusted, fast, settle};
use dps_emulator::{
    Allocation, Behavior, EventKind, Fault, Operation, Reprovisioning, RetryAfter, ReturnedPayload,
};
use serde_json::{Value, json};

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(assigned_at_once),
        case!(assigned_step_by_step),
        case!(assigning_then_assigned).after_the_handshake(),
        case!(assigned_after_many_polls).after_the_handshake(),
        case!(events_come_for_each_status).after_the_handshake(),
        case!(hub_device_id_and_substatus_are_read).after_the_handshake(),
        case!(a_payload_reaches_the_service_and_its_answer_comes_back_untouched)
            .after_the_handshake(),
        case!(json_is_carried_to_the_letter_both_ways).after_the_handshake(),
        case!(a_fixed_payload_comes_back).after_the_handshake(),
        case!(a_model_id_goes_into_the_payload).after_the_handshake(),
        case!(unknown_fields_survive).after_the_handshake(),
        case!(a_large_payload_goes_both_ways).after_the_handshake(),
        case!(a_payload_over_the_limit_never_leaves).before_the_credential(),
        case!(registering_again_moves_the_device_when_the_allocation_says_so).after_the_handshake(),
        case!(registering_again_keeps_the_device_under_its_policy).after_the_handshake(),
        case!(forced_registration_is_carried_or_refused_before_any_io).after_the_handshake(),
        case!(register_and_polls_share_one_connection),
        case!(two_registrations_share_a_session),
        case!(a_session_that_was_ended_begins_anew),
        case!(default_bounds_register_too).after_the_handshake(),
    ]
}

async fn assigned_at_once(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let registered = bench.register().await.unwrap();
    assert_eq!(registered.device_id, DEVICE);
    assert_eq!(registered.polls, 0);
    assert!(registered.operation_id.is_some());
    assert_eq!(bench.requests(), [Operation::Register]);
}

/// Each step waits for the answer to the one before; HTTP has none, and takes the setting all the same.
async fn assigned_step_by_step(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(1)).await;
    let client = bench
        .client_with(adjusted(bench.config.clone(), |config| config.pipelined = false), fast());
    let registered = client.register(bench.request()).await.unwrap();
    assert_eq!((registered.device_id.as_str(), registered.polls), (DEVICE, 1));
    assert_eq!(bench.requests(), [Operation::Register, Operation::Query]);
    settle(&client).await;
}

async fn assigning_then_assigned(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(1)).await;
    let registered = bench.register().await.unwrap();
    assert_eq!(registered.polls, 1);
    assert_eq!(bench.requests(), [Operation::Register, Operation::Query]);
}

async fn assigned_after_many_polls(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(5)).await;
    assert_eq!(bench.register().await.unwrap().polls, 5);
    assert_eq!(bench.requests().len(), 6);
}

async fn events_come_for_each_status(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(2)).await;
    let client = bench.client();
    let mut events = client.operation_status();
    let registered = client.register(bench.request()).await.unwrap();
    settle(&client).await;
    let mut assigning = 0;
    loop {
        match events.try_next().expect("an event before register returned") {
            OperationStatus::Assigning { operation_id, .. } => {
                assert_eq!(Some(operation_id), registered.operation_id);
                assigning += 1;
            }
            OperationStatus::Assigned { body, .. } => {
                assert_eq!(body, registered.body);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(assigning, 2);
    assert!(events.try_next().is_none());
}

async fn hub_device_id_and_substatus_are_read(cell: Cell) {
    let bench = Bench::with(cell, |enrollment| {
        enrollment.assign_to("hub-7.azure-devices.net").device_id("pump-7")
    })
    .await;
    let registered = bench.register().await.unwrap();
    assert_eq!(registered.assigned_hub, "hub-7.azure-devices.net");
    assert_eq!(registered.device_id, "pump-7");
    assert_eq!(registered.substatus, Some(Substatus::InitialAssignment));
}

async fn a_payload_reaches_the_service_and_its_answer_comes_back_untouched(cell: Cell) {
    let bench = Bench::with(cell, |enrollment| enrollment.payload(ReturnedPayload::Echo)).await;
    let payload =
        json!({"site": "Málaga", "n": 1.5, "deep": {"list": [1, null, true, "\u{1F600}"]}});
    let client = bench.client();
    let request = bench.request().payload(payload.clone()).unwrap();
    let registered = client.register(request).await.unwrap();
    settle(&client).await;
    let returned: Value = serde_json::from_str(registered.payload.unwrap().get()).unwrap();
    assert_eq!(returned, payload);
    assert_eq!(payloads(&bench), [Some(payload.into())]);
}

/// What a parser would print in another way.
const JSON: [&str; 22] = [
    "{}",
    "{ }",
    r#"{"serial": 12345678901234567890, "more": 99999999999999999999999999999999}"#,
    r#"{"negative": -12345678901234567890, "min": -9223372036854775809}"#,
    r#"{"price": 0.123456789012345678, "same": 1.10, "zeros": 1.500000000000000000}"#,
    r#"{"big": 1e400, "small": 1E-400, "plus": 1e+2, "capital": 1E2, "zero": -0, "float": -0.0}"#,
    r#"{"a": 1, "a": 2, "a": {"a": 1, "a": 2}}"#,
    r#"{"z": 1, "a": 2, "m": {"y": 1, "b": 2}, "10": 1, "9": 2}"#,
    r#"{"escapes": "\u0041\u00e9\u20AC \/ \b\f\n\r\t \" \\ \u0000 \u001F"}"#,
    r#"{"pair": "\ud83d\ude00", "lone": "\ud800", "reversed": "\udc00\ud800"}"#,
    r#"{"plain": "größe 表 🙂 / \u2028", "key with \"quotes\"": null}"#,
    r#"{"\u006dodelId": "escaped", "": "empty", " ": "space"}"#,
    "{\n  \"site\" :\t\"north\" ,\r\n  \"list\": [ 1 , 2 ]\n}",
    "{\"separators\": \"\u{2028}\u{2029}\u{85}\u{feff}\u{7f}\"}",
    "{\"direction\": \"\u{202e}cod.exe\u{2066}\"}",
    r#"{"text": "{\"a\": 1.0}", "html": "<script>&amp;</script>"}"#,
    r##"{"$type": "x", "@id": 1, "#": "?", "%20": "a+b&c=d"}"##,
    r#"{"true": true, "false": false, "null": null, "list": [[], {}, [[]]]}"#,
    r#"{"modelId": "dtmi:example:Pump;1", "payload": {"payload": {}}}"#,
    r#"{"registrationId": "another", "status": "assigned", "operationId": 7}"#,
    r#"{"$serde_json::private::RawValue": "1", "$serde_json::private::Number": "2"}"#,
    r#"{"deep": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1.0]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}"#,
];

async fn json_is_carried_to_the_letter_both_ways(cell: Cell) {
    let behavior = Behavior::new().polls(1).retry_after(RetryAfter::Seconds(0));
    let bench = Bench::with(cell, |enrollment| {
        enrollment.payload(ReturnedPayload::Echo).behavior(behavior)
    })
    .await;
    let client = bench.client();
    let deep = format!("{{\"deep\":{}1.0{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let texts: Vec<&str> = JSON.into_iter().chain([deep.as_str()]).collect();
    for text in &texts {
        let request = bench.request().payload(text.parse::<Json>().unwrap()).unwrap();
        let registered = client.register(request).await.unwrap();
        assert_eq!(registered.payload.unwrap().get(), *text, "{text:?}");
    }
    settle(&client).await;
    let arrived: Vec<_> = payloads(&bench).into_iter().flatten().collect();
    assert_eq!(arrived.iter().map(|payload| payload.get()).collect::<Vec<_>>(), texts);
}

async fn a_fixed_payload_comes_back(cell: Cell) {
    for text in JSON {
        let payload = ReturnedPayload::Fixed(text.parse().unwrap());
        // A fault that edits what is beside the payload leaves it alone.
        let fault = Fault::with("registrationState.newField", 1);
        let behavior = Behavior::new().on_register(fault);
        let bench =
            Bench::with(cell, |enrollment| enrollment.payload(payload).behavior(behavior)).await;
        let registered = bench.register().await.unwrap();
        assert_eq!(registered.payload.unwrap().get(), text, "{text:?}");
    }
}

async fn a_model_id_goes_into_the_payload(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    let request = bench.request().model_id("dtmi:example:Pump;1");
    client.register(request).await.unwrap();
    settle(&client).await;
    assert_eq!(payloads(&bench), [Some(json!({"modelId": "dtmi:example:Pump;1"}).into())]);
}

async fn unknown_fields_survive(cell: Cell) {
    let fault = Fault::with("registrationState.newField", json!({"a": [1]})).and_with("top", 7);
    let bench = Bench::new(cell, Behavior::new().on_register(fault)).await;
    let registered = bench.register().await.unwrap();
    let body: Value = serde_json::from_slice(&registered.body).unwrap();
    assert_eq!(body["registrationState"]["newField"], json!({"a": [1]}));
    assert_eq!(body["top"], 7);
}

async fn a_large_payload_goes_both_ways(cell: Cell) {
    let bench = Bench::with(cell, |enrollment| enrollment.payload(ReturnedPayload::Echo)).await;
    // A TPM's public keys need room too.
    let text = "x".repeat(RegistrationRequest::MAX_BODY_BYTES - 1000);
    let client = bench.client();
    let request = bench.request().payload(json!({ "text": text })).unwrap();
    let registered = client.register(request).await.unwrap();
    settle(&client).await;
    let returned: Value = serde_json::from_str(registered.payload.unwrap().get()).unwrap();
    assert_eq!(returned["text"].as_str().unwrap().len(), text.len());
}

async fn a_payload_over_the_limit_never_leaves(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    let text = "x".repeat(RegistrationRequest::MAX_BODY_BYTES);
    let request = bench.request().payload(json!({ "text": text })).unwrap();
    let error = client.register(request).await.unwrap_err();
    assert_eq!(error.kind(), dps_client::ErrorKind::Configuration);
    assert_eq!(bench.connections(), 0);
}

async fn registering_again_moves_the_device_when_the_allocation_says_so(cell: Cell) {
    for (policy, substatus) in [
        (Reprovisioning::MigrateData, Substatus::DeviceDataMigrated),
        (Reprovisioning::ResetData, Substatus::DeviceDataReset),
    ] {
        let bench = Bench::with(cell, |enrollment| {
            let enrollment = enrollment.assign_to_each(["hub-a", "hub-b"]).reprovisioning(policy);
            enrollment.allocation(Allocation::EachRun)
        })
        .await;
        assert_eq!(bench.register().await.unwrap().assigned_hub, "hub-a", "{policy:?}");
        let again = bench.register().await.unwrap();
        assert_eq!(
            (again.assigned_hub.as_str(), again.substatus),
            ("hub-b", Some(substatus)),
            "{policy:?}"
        );
    }
}

async fn registering_again_keeps_the_device_under_its_policy(cell: Cell) {
    let bench = Bench::with(cell, |enrollment| {
        enrollment.assign_to_each(["hub-a", "hub-b"]).reprovisioning(Reprovisioning::Never)
    })
    .await;
    for _ in 0..2 {
        assert_eq!(bench.register().await.unwrap().assigned_hub, "hub-a");
    }
}

async fn forced_registration_is_carried_or_refused_before_any_io(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    let outcome = client.register(bench.request().force_registration(true)).await;
    settle(&client).await;
    if cell.is_mqtt() {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), dps_client::ErrorKind::Configuration);
        let message = error.to_string();
        assert!(message.contains("http") && message.contains("amqp"), "{message}");
        assert_eq!(bench.connections(), 0);
    } else {
        outcome.unwrap();
        let forced = bench.events(|event| match event.kind {
            EventKind::Request { force, .. } => Some(force),
            _ => None,
        });
        assert_eq!(forced, [true]);
    }
}

async fn register_and_polls_share_one_connection(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(3)).await;
    bench.register().await.unwrap();
    assert_eq!(bench.secure_connections(), 1);
}

async fn two_registrations_share_a_session(cell: Cell) {
    let bench = Bench::new(cell, Behavior::new().polls(1)).await;
    let client = bench.client();
    for _ in 0..2 {
        client.register(bench.request()).await.unwrap();
    }
    settle(&client).await;
    assert_eq!(bench.secure_connections(), 1);
    assert_eq!(bench.requests().len(), 4);
}

async fn a_session_that_was_ended_begins_anew(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client();
    for _ in 0..2 {
        client.register(bench.request()).await.unwrap();
        client.end_session().await.unwrap();
    }
    assert_eq!(bench.secure_connections(), 2);
    client.end_session().await.unwrap();
    assert_eq!(bench.secure_connections(), 2);
}

async fn default_bounds_register_too(cell: Cell) {
    let bench = Bench::healthy(cell).await;
    let client = bench.client_with(bench.config.clone(), Settings::default());
    client.register(bench.request()).await.unwrap();
    settle(&client).await;

    // The service's own words decide the wait: one second here, the floor being lower.
    let behavior = Behavior::new().polls(1).retry_after(RetryAfter::Seconds(1));
    let bench = Bench::new(cell, behavior).await;
    let client = bench.client_with(bench.config.clone(), fast());
    client.register(bench.request()).await.unwrap();
    settle(&client).await;
    let times = bench.request_times();
    assert!(times[1] - times[0] >= 1000, "{times:?}");
}

fn payloads(bench: &Bench) -> Vec<Option<Json>> {
    bench.events(|event| match event.kind {
        EventKind::Request { operation: Operation::Register, payload, .. } => Some(payload),
        _ => None,
    })
}
