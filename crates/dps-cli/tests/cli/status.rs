//! `dps status`: what the service keeps of a device, without registering it.

use crate::support::{Emulator, Ended, KEY, Silent, dps, keys, run, sorted, text};

fn status(emulator: &Emulator, arguments: &[&str]) -> Ended {
    let mut command =
        dps(&["status", "--registration-id", "dev", "--endpoint", &emulator.endpoint()]);
    command.args(["--id-scope", text(&emulator.ready, "idScope")]);
    command.args(["--ca-file", text(&emulator.ready, "caFile")]).args(arguments);
    run(command.env("DPS_SYMMETRIC_KEY", KEY))
}

#[test]
fn a_device_that_never_registered_is_unknown_and_asking_does_not_register_it() {
    let emulator = Emulator::behaving("payload = '{\"rate\": 1.50}'");
    for _ in 0..2 {
        let error = status(&emulator, &["--json"]).failed("rejected");
        assert_eq!(
            (&error["httpStatus"], text(&error, "stage")),
            (&404.into(), "query"),
            "{error}"
        );
        assert_eq!(text(&error, "transport"), "http");
    }
    let registered = run(&mut emulator.register_dev(&[])).assigned();
    let ended = status(&emulator, &["--json"]);
    let state = ended.json();
    let expected = [
        "registrationId",
        "status",
        "substatus",
        "assignedHub",
        "deviceId",
        "payload",
        "errorCode",
        "errorMessage",
        "created",
        "lastUpdated",
    ];
    assert_eq!((ended.code, keys(&state)), (0, sorted(expected)), "{state}");
    for key in ["registrationId", "status", "substatus", "assignedHub", "deviceId", "payload"] {
        assert_eq!(state[key], registered[key], "{key}");
    }
    assert!(ended.stdout.contains(r#""payload":{"rate": 1.50}"#), "to the letter: {ended:?}");
    let people = status(&emulator, &[]);
    assert!(people.stdout.starts_with("assigned: dev\n  hub        "), "{people:?}");
    assert!(people.stdout.contains("\n  substatus  initialAssignment\n"), "{people:?}");
}

#[test]
fn the_second_credential_is_asked_with_when_the_first_one_is_refused() {
    let emulator = Emulator::behaving("");
    run(&mut emulator.register_dev(&[])).assigned();
    let wrong = emulator.folder.file("wrong.key", "d3Jvbmcga2V5IG9mIHRoZSBkZXZpY2UgZGV2");
    let right = emulator.folder.file("right.key", KEY);
    let with = |keys: &[&str]| {
        let flags: Vec<&str> = keys.iter().flat_map(|key| ["--symmetric-key-file", *key]).collect();
        status(&emulator, &[&["--json"], flags.as_slice()].concat())
    };
    assert_eq!(with(&[&wrong, &right]).json()["status"], "assigned");
    let error = with(&[&wrong]).failed("rejected");
    assert_eq!((&error["httpStatus"], text(&error, "stage")), (&401.into(), "authenticate"));
}

#[test]
fn what_only_a_registration_has_is_refused_and_a_silent_service_is_a_timeout() {
    let emulator = Emulator::behaving("");
    for flags in [
        &["--transport", "mqtt"][..],
        &["--force"],
        &["--payload", "{}"],
        &["--model-id", "dtmi:a;1"],
    ] {
        let error = status(&emulator, &[&["--json"], flags].concat()).failed("configuration");
        assert!(text(&error, "message").starts_with(flags[0]), "{error}");
    }
    let silent = Silent::new();
    let mut command =
        dps(&["status", "--json", "--id-scope", "0ne00AABBCC", "--registration-id", "dev"]);
    command
        .args(["--endpoint", &silent.endpoint, "--timeout", "0.2"])
        .env("DPS_SYMMETRIC_KEY", KEY);
    run(&mut command).failed("timeout");
}
