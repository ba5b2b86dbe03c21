//! A device with a TPM registers at the emulator, over each transport that carries it.

use std::time::Duration;

use dps_amqp::{AmqpConfig, AmqpTransport};
use dps_attestation::{Attestation, SymmetricKey};
use dps_connect::{Carrier, Config, Roots};
use dps_emulator::{Behavior, Emulator, Enrollment, EventKind, Fault, Method, Operation};
use dps_http::HttpTransport;
use dps_mqtt::{MqttConfig, MqttTransport};
use dps_state_machine::{
    BoxTransport, Error, RegistrationRequest, RegistrationResult, Settings, StateMachine,
};
use dps_tpm::{Tpm, TpmError};
use tokio::sync::mpsc::unbounded_channel;

use crate::{
    support::{Act, Middleman, swtpm},
    swtpm::Swtpm,
};

const TEXT: &[u8] = b"hub.example/devices/pump-17\n1700000000";
const TRANSPORTS: [&str; 3] = ["http", "amqp", "amqp-ws"];

/// A service that knows the TPM.
async fn service(swtpm: &Swtpm, behavior: Behavior) -> (Emulator, String) {
    let keys = swtpm.tpm().keys().await.unwrap();
    let id = keys.registration_id().unwrap();
    let attestation = dps_emulator::Attestation::tpm(keys.endorsement_key().parse().unwrap());
    let enrollment = Enrollment::individual(id.clone(), attestation).behavior(behavior);
    let emulator = Emulator::builder().enrollment(enrollment).start().await.unwrap();
    (emulator, id.to_string())
}

fn client(
    emulator: &Emulator,
    transport: &str,
    tpm: Tpm,
) -> Result<StateMachine<BoxTransport>, Error> {
    let mut config = Config::new(emulator.id_scope().clone(), Attestation::from_tpm(tpm));
    config.roots = Roots::empty().with_pem(emulator.ca_pem().as_bytes()).unwrap();
    let port = match transport {
        "amqp" => emulator.amqp_port(),
        "mqtt" => emulator.mqtt_port(),
        _ => emulator.https_port(),
    };
    config.endpoint = format!("localhost:{port}").parse().unwrap();
    let transport = match transport {
        "http" => BoxTransport::new(HttpTransport::new(config)?),
        "amqp" => BoxTransport::new(AmqpTransport::new(config)?),
        "amqp-ws" => {
            let mut config = AmqpConfig::new(config);
            config.carrier = Carrier::WebSocket;
            BoxTransport::new(AmqpTransport::new(config)?)
        }
        _ => BoxTransport::new(MqttTransport::new(MqttConfig::new(config))?),
    };
    let mut settings = Settings::default();
    settings.poll_interval = Duration::from_millis(10);
    settings.poll_floor = Duration::from_millis(10);
    settings.max_backoff = Duration::from_millis(20);
    Ok(StateMachine::new(transport, settings))
}

async fn register(
    emulator: &Emulator,
    transport: &str,
    tpm: Tpm,
    id: &str,
) -> Result<RegistrationResult, Error> {
    let client = client(emulator, transport, tpm)?;
    let outcome = client.register(RegistrationRequest::new(id.parse().unwrap())).await;
    let _ = client.end_session().await;
    outcome
}

/// Whether the TPM signs with the key that the service has for the device's hub.
async fn holds_hub_key(swtpm: &Swtpm, emulator: &Emulator, id: &str) -> bool {
    let key: SymmetricKey = emulator.hub_key(id).unwrap();
    let text = std::str::from_utf8(TEXT).unwrap();
    swtpm.tpm().sign(TEXT).await.is_ok_and(|hmac| hmac[..] == *key.signature(text).expose())
}

fn requests(emulator: &Emulator) -> Vec<Operation> {
    let events = emulator.events().snapshot();
    let requests = events.into_iter().filter_map(|event| match event.kind {
        EventKind::Request { operation, .. } => Some(operation),
        _ => None,
    });
    requests.collect()
}

#[tokio::test]
async fn a_device_with_a_tpm_is_assigned_and_holds_the_key_for_its_hub() {
    let swtpm = swtpm!();
    for transport in TRANSPORTS {
        let (emulator, id) = service(&swtpm, Behavior::new().polls(2)).await;
        let before = swtpm.in_memory();
        let registered = register(&emulator, transport, swtpm.tpm(), &id).await.unwrap();
        assert_eq!((&registered.device_id, registered.polls), (&id, 2), "{transport}");
        assert!(holds_hub_key(&swtpm, &emulator, &id).await, "{transport}");
        assert_eq!(swtpm.in_memory(), before, "{transport}");
        let persistent = [0x8100_0001, 0x8100_0100, 0x8101_0001];
        assert_eq!(swtpm.persistent(), persistent, "{transport}");
        let methods: Vec<Method> = emulator
            .events()
            .snapshot()
            .into_iter()
            .filter_map(|event| match event.kind {
                EventKind::Authenticated { method, .. } => Some(method),
                _ => None,
            })
            .collect();
        assert!(methods.iter().all(|method| *method == Method::Tpm), "{transport}: {methods:?}");
        // Over HTTP the first request brings the challenge, once for all polls.
        let registers = if transport == "http" { 2 } else { 1 };
        let expected = [vec![Operation::Register; registers], vec![Operation::Query; 2]].concat();
        assert_eq!(requests(&emulator), expected, "{transport}");
    }
}

#[tokio::test]
async fn a_service_that_throttles_is_not_asked_for_a_second_challenge() {
    let swtpm = swtpm!();
    for transport in TRANSPORTS {
        let behavior = Behavior::new().polls(1).on_register(Fault::refuse(429));
        let (emulator, id) = service(&swtpm, behavior).await;
        register(&emulator, transport, swtpm.tpm(), &id).await.unwrap();
        let registers = if transport == "http" { 3 } else { 2 };
        let expected = [vec![Operation::Register; registers], vec![Operation::Query]].concat();
        assert_eq!(requests(&emulator), expected, "{transport}");
    }
}

#[tokio::test]
async fn another_tpm_than_the_enrolled_one_is_rejected() {
    let (enrolled, other) = (swtpm!(), swtpm!());
    for transport in TRANSPORTS {
        let (emulator, id) = service(&enrolled, Behavior::new()).await;
        let error = register(&emulator, transport, other.tpm(), &id).await.unwrap_err();
        let Error::Rejected(rejection) = &error else { panic!("{transport}: {error}") };
        assert_eq!(rejection.status, 401, "{transport}: {error}");
        assert!(!error.is_retryable(), "{transport}: {error}");
        assert_eq!(other.in_memory(), Vec::<u32>::new(), "{transport}");
    }
}

#[tokio::test]
async fn mqtt_refuses_a_tpm_before_any_io() {
    let swtpm = swtpm!();
    let (emulator, id) = service(&swtpm, Behavior::new()).await;
    let middleman = Middleman::new(&swtpm, |_, _| Act::Pass);
    let error = register(&emulator, "mqtt", middleman.tpm(), &id).await.unwrap_err();
    assert!(matches!(error, Error::Configuration(_)), "{error}");
    assert!(error.to_string().contains("use http, amqp or amqp-ws"), "{error}");
    assert_eq!(middleman.seen(), Vec::<u32>::new());
    assert!(emulator.events().snapshot().is_empty());
}

/// Cut after each command in turn: the error is the TPM's, nothing is left in it, and the next registration is assigned.
#[tokio::test]
async fn a_tpm_that_fails_at_any_command_leaves_the_device_able_to_register() {
    let swtpm = swtpm!();
    for transport in TRANSPORTS {
        let (emulator, id) = service(&swtpm, Behavior::new()).await;
        let counting = Middleman::new(&swtpm, |_, _| Act::Pass);
        register(&emulator, transport, counting.tpm(), &id).await.unwrap();
        let commands = counting.seen().len();
        assert!(commands > 10, "{commands}");
        for at in 0..commands {
            let cut = move |number, _| if number == at { Act::CutAfter } else { Act::Pass };
            let middleman = Middleman::new(&swtpm, cut);
            let outcome = register(&emulator, transport, middleman.tpm(), &id).await;
            if let Err(error) = &outcome {
                assert!(matches!(error, Error::Credential(_)), "{transport} at {at}: {error}");
            }
            assert_eq!(swtpm.in_memory(), Vec::<u32>::new(), "{transport} at {at}");
            register(&emulator, transport, swtpm.tpm(), &id).await.unwrap();
            assert!(holds_hub_key(&swtpm, &emulator, &id).await, "{transport} at {at}");
        }
    }
}

/// Dropped at each command in turn, when the TPM has just been sent it.
#[tokio::test]
async fn a_registration_that_is_dropped_leaves_the_tpm_usable() {
    let swtpm = swtpm!();
    for transport in TRANSPORTS {
        let (emulator, id) = service(&swtpm, Behavior::new()).await;
        let counting = Middleman::new(&swtpm, |_, _| Act::Pass);
        register(&emulator, transport, counting.tpm(), &id).await.unwrap();
        for at in 0..counting.seen().len() {
            let (reached, mut is_reached) = unbounded_channel();
            let middleman = Middleman::new(&swtpm, move |number, _| {
                if number == at {
                    let _ = reached.send(());
                }
                Act::Pass
            });
            let tpm = middleman.tpm();
            let client = client(&emulator, transport, tpm.clone()).unwrap();
            let request = RegistrationRequest::new(id.parse().unwrap());
            tokio::select! {
                biased;
                reached = is_reached.recv() => assert_eq!(reached, Some(()), "{transport} at {at}"),
                outcome = client.register(request) => panic!("{transport} at {at}: {outcome:?}"),
            }
            let _ = client.end_session().await;
            // Waits behind the job that was under way.
            tpm.keys().await.unwrap();
            assert_eq!(swtpm.in_memory(), Vec::<u32>::new(), "{transport} at {at}");
            register(&emulator, transport, tpm, &id).await.unwrap();
            assert!(holds_hub_key(&swtpm, &emulator, &id).await, "{transport} at {at}");
        }
    }
}

#[tokio::test]
async fn before_a_registration_there_is_no_key_for_the_hub() {
    let swtpm = swtpm!();
    assert!(matches!(swtpm.tpm().sign(TEXT).await, Err(TpmError::NoKey { handle: 0x8100_0100 })));
}
