//! `dps register --connect`: the first connection of an assigned device to its hub.

use serde_json::Value;

use crate::support::{Emulator, Ended, KEY, TRANSPORTS, dps, run};

/// Of the emulator's one device, `dev`.
fn connect(emulator: &Emulator, transport: &str, arguments: &[&str]) -> Ended {
    let mut command = emulator.register_over(transport, &["--registration-id", "dev", "--connect"]);
    run(command.args(arguments).env("DPS_SYMMETRIC_KEY", KEY))
}

fn hub(ended: &Ended) -> Value {
    let object: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(object["status"], "assigned", "{ended:?}");
    object["hub"].clone()
}

fn mqtt_of(emulator: &Emulator) -> String {
    format!("localhost:{}", emulator.ready["mqttPort"])
}

#[test]
fn an_assigned_device_is_let_in_by_its_hub_whatever_the_transport_was() {
    let emulator = Emulator::behaving("device-id = \"pump\"");
    let mqtt = mqtt_of(&emulator);
    for transport in TRANSPORTS {
        // Over AMQP alone nobody knows where the emulator serves MQTT.
        let place = ["--hub-endpoint", mqtt.as_str()];
        let place: &[&str] = if transport == "amqp" { &place } else { &[] };
        let ended = connect(&emulator, transport, place);
        assert_eq!(ended.code, 0, "{transport}: {ended:?}");
        let hub = hub(&ended);
        assert_eq!(hub["status"], "connected", "{transport}: {hub}");
        assert!(hub["message"].is_null() && hub["endpoint"].is_string(), "{hub}");
    }
    for transport in TRANSPORTS {
        let ended =
            run(&mut dps(&["register", "--emulator", "--connect", "--transport", transport]));
        let line = ended.stdout.lines().find(|line| line.starts_with("  connected  by MQTT at "));
        assert!(ended.code == 0 && line.is_some(), "{transport}: {ended:?}");
    }
}

#[test]
fn what_the_hub_refuses_is_said_with_a_code_of_its_own() {
    for (refusal, says, retryable) in [
        ("disabled", "CONNACK 5: not authorized; the hub does not know the device", false),
        ("unknown-device", "CONNACK 5", false),
        ("moved", "register it again with --force", false),
        ("throttled", "CONNACK 3: the service is unavailable; it is throttling or down", true),
    ] {
        let emulator = Emulator::behaving(&format!("hub-refusal = \"{refusal}\""));
        let ended = connect(&emulator, "mqtt", &[]);
        assert_eq!(ended.code, 10, "{ended:?}");
        let hub = hub(&ended);
        assert_eq!((&hub["status"], &hub["retryable"]), (&"refused".into(), &retryable.into()));
        assert!(hub["message"].as_str().unwrap().contains(says), "{hub}: {says}");
    }
}

#[test]
fn a_hub_that_is_not_there_is_said_with_the_place_and_what_to_do() {
    let emulator = Emulator::behaving("hub = \"hub.invalid\"");
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("localhost:{}", nowhere.local_addr().unwrap().port());
    drop(nowhere);
    for (arguments, says) in [
        (vec![], vec!["hub.invalid", "--hub-endpoint HOST:PORT names another place"]),
        (vec!["--hub-endpoint", closed.as_str()], vec![closed.as_str(), "refused"]),
    ] {
        let ended = connect(&emulator, "mqtt", &arguments);
        assert_eq!(ended.code, 10, "{ended:?}");
        let hub = hub(&ended);
        assert_eq!(hub["status"], "unreachable", "{hub}");
        for part in says {
            assert!(hub.to_string().contains(part), "{hub}: {part}");
        }
    }
    let mut command = dps(&["register", "--id-scope", "0ne", "--registration-id", "dev"]);
    let ended = run(command.args(["--hub-endpoint", "a"]).env("DPS_SYMMETRIC_KEY", KEY));
    assert!(ended.code == 2 && ended.stderr.contains("it needs --connect too"), "{ended:?}");
}

#[test]
fn people_read_why_the_device_is_not_connected() {
    let emulator = Emulator::behaving("hub-refusal = \"disabled\"");
    let port = format!("localhost:{}", emulator.ready["httpsPort"]);
    let ca = crate::support::text(&emulator.ready, "caFile");
    let scope = crate::support::text(&emulator.ready, "idScope");
    let mut command = dps(&["register", "--connect", "--endpoint", &port, "--ca-file", ca]);
    command.args(["--id-scope", scope, "--registration-id", "dev", "--quiet"]);
    let ended = run(command.env("DPS_SYMMETRIC_KEY", KEY));
    let says = "error: the device is assigned, but its hub hub.localhost refused it: CONNACK 5";
    assert!(ended.code == 10 && ended.stderr.contains(says), "{ended:?}");
    assert!(ended.stdout.starts_with("assigned: dev over http"), "{ended:?}");
}

#[test]
fn a_stored_certificate_is_renewed_by_the_hub() {
    let emulator = Emulator::behaving("device-id = \"pump\"\ncertificate-policy = \"issue\"");
    let folder = emulator.folder.path("certificate");
    let mut register = emulator.register(&["--registration-id", "dev"]);
    register.args(["--request-certificate", &folder]).env("DPS_SYMMETRIC_KEY", KEY);
    assert_eq!(run(&mut register).code, 0);
    let chain = || std::fs::read_to_string(format!("{folder}/chain.pem")).unwrap();
    let ca = crate::support::text(&emulator.ready, "caFile");
    let (mqtt, https) = (mqtt_of(&emulator), emulator.endpoint());
    let renew =
        |arguments: &[&str]| run(dps(&["cert", "renew", &folder, "--ca-file", ca]).args(arguments));
    for place in [
        ["--transport", "mqtt", "--hub-endpoint", &mqtt],
        ["--transport", "mqtt-ws", "--hub-endpoint", &https],
    ] {
        let before = chain();
        let hub = ["--hub", "hub.localhost", "--device-id", "pump", "--json"];
        let ended = renew(&[&hub[..], &place].concat());
        assert_eq!(ended.code, 0, "{ended:?}");
        let object: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(
            (&object["status"], &object["hub"]),
            (&"renewed".into(), &"hub.localhost".into())
        );
        assert_ne!(chain(), before, "another certificate is in the folder");
    }
    let before = chain();
    let at = ["--hub-endpoint", mqtt.as_str()];
    for (arguments, code, says) in [
        // The hub does not know the device by its registration id.
        (vec!["--hub", "hub.localhost"], 3, "CONNACK 5"),
        (vec!["--hub", "b.localhost", "--device-id", "pump"], 3, "CONNACK 5"),
        (vec!["--device-id", "pump", "--id-scope", "0ne"], 2, "--device-id: it needs --hub too"),
    ] {
        let ended = renew(&[&arguments[..], &at].concat());
        assert!(ended.code == code && ended.stderr.contains(says), "{says}: {ended:?}");
    }
    assert_eq!(chain(), before, "the former one stays in use");
    let ended = renew(&[&["--hub", "hub.localhost", "--device-id", "pump"], &at[..]].concat());
    assert!(
        ended.code == 0 && ended.stdout.starts_with("renewed: dev by hub.localhost"),
        "{ended:?}"
    );
}
