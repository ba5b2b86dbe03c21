//! `dps register --transport auto`: the first transport that gets through.

use crate::support::{Emulator, Folder, KEY, closed_endpoint, dps, register_at, run};

#[test]
fn auto_says_which_transport_it_tries_and_which_one_it_took() {
    let ended = run(&mut dps(&["register", "--emulator", "--transport", "auto", "--connect"]));
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut rest = ended.stderr.as_str();
    for step in ["trying mqtt-ws", "TLS", "registering over mqtt-ws", "assigning", "assigned"] {
        rest = rest.split_once(step).unwrap_or_else(|| panic!("{step} in {}", ended.stderr)).1;
    }
    assert!(ended.stdout.contains(" over mqtt-ws in "), "{}", ended.stdout);
    assert!(ended.stdout.contains("  connected  by MQTT at "), "{}", ended.stdout);

    let json = ["register", "--emulator", "--transport", "auto", "--json", "--force"];
    let ended = run(&mut dps(&json));
    assert_eq!(ended.assigned()["transport"], "amqp-ws", "MQTT can't force a registration");
}

#[test]
fn auto_names_in_its_error_what_each_transport_has_met() {
    let endpoint = closed_endpoint();
    let error = run(&mut register_at(&endpoint, &["--transport", "auto"])).failed("connection");
    assert_eq!((&error["transport"], &error["stage"]), (&"auto".into(), &"connect".into()));
    let message = error["message"].as_str().unwrap();
    let says = format!("mqtt-ws, amqp-ws, http: {endpoint} refused the connection; mqtt: its port");
    assert!(message.contains(&says), "{message}");
    assert!(error["hint"].is_string(), "{error}");
}

#[test]
fn auto_begins_with_the_transport_that_the_state_remembers() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let state = folder.path("state.json");
    let register = |arguments: &[&str]| {
        let ended = run(emulator.register_dev_over("auto", &["--state", &state]).args(arguments));
        ended.json()["transport"].clone()
    };
    assert_eq!(register(&[]), "mqtt-ws", "the first that has the port");
    assert_eq!(register(&[]), "mqtt-ws", "as it is stored");
    assert_eq!(register(&["--force"]), "amqp-ws", "MQTT can't force a registration");
    let with_json = emulator.register_dev_over("auto", &["--state", &state, "--force"]);
    let arguments: Vec<&str> = with_json.get_args().filter_map(|word| word.to_str()).collect();
    let without: Vec<&str> = arguments.into_iter().filter(|word| *word != "--json").collect();
    let ended = run(dps(&without).env("DPS_SYMMETRIC_KEY", KEY));
    assert!(ended.stderr.contains("trying amqp-ws"), "{ended:?}");
    assert!(!ended.stderr.contains("trying mqtt-ws"), "{ended:?}");
}
