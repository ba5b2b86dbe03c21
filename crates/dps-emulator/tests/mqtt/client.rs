//! Our own client against everything that can go wrong on an MQTT connection: what it makes of it.

use dps_connect::Carrier;
use dps_emulator::{Behavior, ConnectionFault, Emulator, Fault, MqttFault};
use dps_mqtt::{MqttConfig, MqttTransport};
use dps_state_machine::{ErrorKind, Stage, StateMachine};

use crate::one_device::*;

fn client(emulator: &Emulator, carrier: Carrier, pipelined: bool) -> StateMachine<MqttTransport> {
    let mut config = configured(emulator, carrier, emulator.mqtt_port(), device_key());
    config.pipelined = pipelined;
    let mut config = MqttConfig::new(config);
    config.carrier = carrier;
    impatient(MqttTransport::new(config).unwrap())
}

struct Met {
    fault: MqttFault,
    /// How the registration ends: `None` when it succeeds all the same.
    kind: Option<ErrorKind>,
    stage: Stage,
    says: &'static str,
    connections: usize,
}

fn met(
    fault: MqttFault,
    kind: impl Into<Option<ErrorKind>>,
    says: &'static str,
    connections: usize,
) -> Met {
    Met { fault, kind: kind.into(), stage: Stage::Register, says, connections }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_of_a_connection_ends_as_it_should() {
    let refuse = |code| MqttFault::RefuseConnect { code };
    let cut = |packets| MqttFault::CutAfter { packets };
    let (connection, protocol) = (ErrorKind::Connection, ErrorKind::Protocol);
    let cases = [
        met(refuse(1), protocol, "CONNACK 1", 1),
        met(refuse(2), ErrorKind::Rejected, "CONNACK 2", 1),
        // The service will be back: the registration is sent again.
        met(refuse(3), None, "", 2),
        Met { stage: Stage::Authenticate, ..met(refuse(4), ErrorKind::Rejected, "CONNACK 4", 1) },
        Met { stage: Stage::Authenticate, ..met(refuse(5), ErrorKind::Rejected, "CONNACK 5", 1) },
        // A code that nobody knows, and a refused subscription: once more, step by step.
        met(refuse(99), None, "", 2),
        met(MqttFault::RefusePipelining, None, "", 2),
        met(MqttFault::RefuseSubscribe, None, "", 2),
        // Nothing was answered: once more, step by step.
        met(cut(1), None, "", 2),
        met(cut(2), None, "", 2),
        met(cut(3), connection, "closed the connection before it had answered", 1),
        met(MqttFault::WrongTopic, ErrorKind::Timeout, "no answer to the register request", 1),
        met(MqttFault::NoStatus, protocol, "\"none\" in its topic is no status", 1),
        met(MqttFault::Garbage, protocol, "not MQTT", 1),
        met(MqttFault::Disconnect, connection, "it sent DISCONNECT", 1),
        met(MqttFault::AnswerFirst, None, "", 1),
        met(MqttFault::IgnorePings, None, "", 1),
    ];
    for carrier in CARRIERS {
        for Met { fault, kind, stage, says, connections } in &cases {
            let faults = [ConnectionFault::Mqtt(*fault)];
            let emulator = started(Behavior::new(), |c| c.connection_faults(faults)).await;
            let client = client(&emulator, carrier, true);
            match (register(&client).await, kind) {
                (Ok(_), None) => {}
                (Err(error), Some(kind)) => {
                    assert_eq!(error.kind(), *kind, "{carrier:?} {fault:?}: {error:?}");
                    assert_eq!(error.stage(), Some(*stage), "{carrier:?} {fault:?}: {error:?}");
                    assert!(error.to_string().contains(says), "{carrier:?} {fault:?}: {error}");
                }
                (outcome, _) => panic!("{carrier:?} {fault:?}: {outcome:?}"),
            }
            let made = secure_connections(&emulator);
            assert_eq!(made, *connections, "{carrier:?} {fault:?}");
            // Whatever it was, the same client works with the next connection.
            register(&client).await.unwrap();
            client.end_session().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn step_by_step_is_refused_nowhere() {
    for carrier in CARRIERS {
        let faults = [ConnectionFault::Mqtt(MqttFault::RefusePipelining)];
        let emulator = started(Behavior::new(), |c| c.connection_faults(faults)).await;
        register(&client(&emulator, carrier, false)).await.unwrap();
        assert_eq!(secure_connections(&emulator), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_others_and_answers_twice_do_no_harm() {
    for carrier in CARRIERS {
        let behavior = Behavior::new()
            .polls(2)
            .on_register(Fault::none().twice())
            .on_query(Fault::none().twice().times(2));
        let emulator = started(behavior, |config| config).await;
        let client = client(&emulator, carrier, true);
        assert_eq!(register(&client).await.unwrap().polls, 2);

        let stray = Behavior::new().on_register(Fault::none().wrong_id());
        emulator.set_behavior("dev-1", stray).unwrap();
        let error = register(&client).await.unwrap_err();
        assert_eq!((error.kind(), error.stage()), (ErrorKind::Timeout, Some(Stage::Register)));
        register(&client).await.unwrap();
    }
}
