//! `dps register --state`: the assignment is kept, and a device boots without a network.

use std::{fs, thread, time::Duration};

use serde_json::Value;

use crate::support::{
    Emulator, Ended, Folder, KEY, SUCCESS_KEYS, Silent, TRANSPORTS, dps, keys, register_at, run,
    sorted, text,
};

/// How often a registration is killed; `DPS_TEST_KILLS` says otherwise.
const KILLS: u32 = 12;

/// The one JSON object of a success, which comes from here.
fn kept(ended: &Ended, source: &str) -> Value {
    let object = ended.json();
    assert_eq!((ended.code, text(&object, "source")), (0, source), "{ended:?}");
    let expected = SUCCESS_KEYS.iter().chain(&["source", "storedAt"]);
    assert_eq!(keys(&object), sorted(expected), "{object}");
    object
}

/// The same registration without a credential.
fn boot(emulator: &Emulator, transport: &str, state: &str) -> Ended {
    let arguments = ["--registration-id", "dev", "--state", state];
    run(&mut emulator.register_over(transport, &arguments))
}

#[test]
fn a_stored_assignment_is_printed_without_network_and_credential_on_every_transport() {
    for transport in TRANSPORTS {
        let mut emulator = Emulator::behaving("payload = '{\"rate\": 1.50}'");
        let state = emulator.folder.path("assignment.json");
        let first = run(&mut emulator.register_dev_over(transport, &["--state", &state]));
        let first = kept(&first, "registered");
        emulator.running.child().kill().unwrap();
        emulator.running.child().wait().unwrap();
        let mut again = kept(&boot(&emulator, transport, &state), "stored");
        again["source"] = "registered".into();
        again["elapsedMs"] = first["elapsedMs"].clone();
        assert_eq!(again, first, "{transport}");
        // People read when it was stored.
        let arguments =
            ["--id-scope", text(&emulator.ready, "idScope"), "--registration-id", "dev"];
        let mut people = dps(&["register", "--state", &state]);
        let endpoint = emulator.register_over(transport, &[]);
        let endpoint = endpoint.get_args().skip_while(|word| *word != "--endpoint").nth(1).unwrap();
        people.args(arguments).arg("--endpoint").arg(endpoint);
        let people = run(&mut people);
        assert!(people.stdout.starts_with("assigned: dev, stored at 20"), "{people:?}");
        assert!(people.stdout.contains("\n  hub  ") && people.stderr.is_empty(), "{people:?}");
    }
}

#[test]
fn a_device_registers_when_it_is_forced_or_is_another_one_and_else_asks_nobody() {
    let emulator = Emulator::configured(&format!(
        "[[enrollment]]\ngroup = \"pumps\"\nsymmetric-key = \"{KEY}\"\n[[enrollment]]\nregistration-id = \"dev\"\nsymmetric-key = \"{KEY}\"\n"
    ));
    let state = emulator.folder.path("assignment.json");
    let of_dev =
        |arguments: &[&str]| run(emulator.register_dev(arguments).env("DPS_STATE", &state));
    kept(&of_dev(&[]), "registered");
    kept(&of_dev(&[]), "stored");
    kept(&of_dev(&["--force"]), "registered");
    kept(&of_dev(&[]), "stored");
    let of_pump = || {
        let mut command = emulator.register(&["--registration-id", "pump", "--state", &state]);
        let key = emulator.folder.file("group.key", KEY);
        run(command.args(["--group-key-file", &key]))
    };
    let pump = kept(&of_pump(), "registered");
    assert_eq!(text(&pump, "deviceId"), "pump");
    kept(&of_pump(), "stored");
    // Now it is the assignment of the other one.
    kept(&of_dev(&[]), "registered");
    // A registration that fails leaves what is stored.
    let wrong = "d3Jvbmcga2V5IG9mIHRoZSBkZXZpY2UgZGV2";
    let refused =
        run(emulator.register_dev(&["--force", "--state", &state]).env("DPS_SYMMETRIC_KEY", wrong));
    refused.failed("rejected");
    kept(&of_dev(&[]), "stored");
}

#[test]
fn a_place_that_keeps_nothing_is_refused_before_anything_is_sent() {
    let (folder, silent) = (Folder::new(), Silent::new());
    fs::create_dir(folder.path("folder")).unwrap();
    std::os::unix::fs::symlink(folder.path("target"), folder.path("link")).unwrap();
    let newer = folder.file("newer", r#"{"version": 2, "sha256": "", "content": {}}"#);
    let foreign = folder.file("foreign", r#"{"name": "pump"}"#);
    let cases = [
        (String::new(), "the path is empty; name a file"),
        ("-".to_owned(), "standard input and output keep nothing; name a file"),
        (folder.path("folder"), "it is a folder; name a file in it"),
        (
            folder.path("link"),
            "it is a link, which would be replaced; name the file that it leads to",
        ),
        ("/dev/null".to_owned(), "it is no regular file; name another"),
        (folder.path("none/assignment.json"), "make the folder above it first"),
        (newer.clone(), "it is of version 2, and this program reads version 1"),
        (foreign.clone(), "it is a file of another program; name another file"),
    ];
    for (path, says) in &cases {
        let ended = run(&mut silent.register(&["--state", path]));
        let error = ended.failed("configuration");
        assert!(text(&error, "message").contains(says), "{path}: {error}");
        if !path.is_empty() {
            let ended = run(silent.register(&[]).env("DPS_STATE", path));
            assert!(text(&ended.failed("configuration"), "message").contains(says), "{ended:?}");
        }
    }
    assert_eq!(fs::read_to_string(newer).unwrap().len(), 43);
    assert_eq!(fs::read_to_string(foreign).unwrap().len(), 16);
    let ended = run(&mut dps(&["register", "--emulator", "--state", &folder.path("state")]));
    assert!(ended.code == 2 && ended.stderr.contains("--state"), "{ended:?}");
}

#[test]
fn a_damaged_file_is_kept_aside_and_the_device_registers_anew() {
    let emulator = Emulator::behaving("");
    let state = emulator.folder.path("assignment.json");
    let register = || run(&mut emulator.register_dev(&["--state", &state]));
    kept(&register(), "registered");
    let whole = fs::read(&state).unwrap();
    for damaged in [&whole[..whole.len() / 2], &[], &[0; 4096]] {
        fs::write(&state, damaged).unwrap();
        let ended = register();
        kept(&ended, "registered");
        assert!(ended.stderr.contains("the stored assignment was damaged"), "{ended:?}");
        assert!(ended.stderr.contains("assignment.json.damaged"), "{ended:?}");
        assert_eq!(fs::read(format!("{state}.damaged")).unwrap(), damaged);
        kept(&register(), "stored");
    }
}

#[test]
fn a_hub_that_refuses_or_is_away_leads_to_what_the_table_says() {
    for (refusal, status, step) in
        [("disabled", "refused", "register"), ("throttled", "refused", "connectToHub")]
    {
        let emulator = Emulator::behaving(&format!("hub-refusal = \"{refusal}\""));
        let state = emulator.folder.path("assignment.json");
        let waits: &[(u64, u64)] = match refusal {
            // The registration that is pending is not put off.
            "disabled" => &[(300, 375), (240, 375), (240, 375)],
            _ => &[(1, 2), (2, 3), (4, 5)],
        };
        for (nth, (least, most)) in waits.iter().enumerate() {
            let ended =
                run(&mut emulator.register_dev_over("mqtt", &["--connect", "--state", &state]));
            let object = ended.json();
            let source = if nth == 0 { "registered" } else { "stored" };
            assert_eq!((ended.code, text(&object, "source")), (10, source), "{ended:?}");
            let hub = &object["hub"];
            assert_eq!((text(hub, "status"), text(hub, "nextStep")), (status, step), "{hub}");
            let after = hub["afterSeconds"].as_u64().unwrap();
            assert!((*least..=*most).contains(&after), "{nth}: {hub}");
        }
        let people = emulator.register_dev_over("mqtt", &["--connect", "--state", &state]);
        let arguments: Vec<_> = people.get_args().filter(|word| *word != "--json").collect();
        let people = run(dps(&[]).args(arguments).env("DPS_SYMMETRIC_KEY", KEY));
        let words = match step {
            "register" => " s on the same command registers again",
            _ => "; connect again in ",
        };
        assert!(people.stderr.contains(words), "{people:?}");
    }
    // Once it is let in, all of that is forgotten.
    let emulator = Emulator::behaving("");
    let state = emulator.folder.path("assignment.json");
    let connect = |place: &str| {
        let place = ["--connect", "--state", &state, "--hub-endpoint", place];
        run(&mut emulator.register_dev_over("mqtt", &place))
    };
    let (away, there) =
        (crate::support::closed_endpoint(), format!("localhost:{}", emulator.ready["mqttPort"]));
    for place in [&away, &there, &away] {
        let object = connect(place).json();
        let step = (&object["hub"]["nextStep"], &object["hub"]["afterSeconds"]);
        let expected = if *place == there {
            (&Value::Null, &Value::Null)
        } else {
            (&"connectToHub".into(), &2.into())
        };
        // 1 s, and up to a fifth of it on top.
        assert_eq!(step, expected, "{object}");
    }
}

#[test]
fn no_kill_leaves_half_of_an_assignment_or_loses_one() {
    let kills = std::env::var("DPS_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let emulator = Emulator::behaving("");
    let state = emulator.folder.path("assignment.json");
    let endpoint = emulator.endpoint();
    let (mut stored, mut killed) = (false, 0);
    for round in 0..kills {
        let mut command = emulator.register_dev(&["--state", &state]);
        if stored {
            command.arg("--force");
        }
        let mut running = crate::support::Running::start(&mut command);
        // The whole of it takes some tens of milliseconds: the kills fall on all of that.
        thread::sleep(Duration::from_micros(u64::from(round * 1613 % 24_000)));
        running.child().kill().unwrap();
        killed += u32::from(running.child().wait().unwrap().code().is_none());
        let scope = text(&emulator.ready, "idScope");
        let mut boot = register_at(&endpoint, &["--id-scope", scope, "--state", &state]);
        boot.env_remove("DPS_SYMMETRIC_KEY");
        let boot = run(&mut boot);
        assert!(boot.code == 0 || !stored, "round {round}: {boot:?}");
        assert!(!fs::exists(format!("{state}.damaged")).unwrap(), "round {round}");
        stored |= boot.code == 0;
    }
    eprintln!("{kills} kills, {killed} before the end; nothing lost");
    kept(&run(&mut emulator.register_dev(&["--state", &state, "--force"])), "registered");
    let names = fs::read_dir(emulator.folder.path("")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name.starts_with("assignment.json.")).collect();
    assert_eq!(left, ["assignment.json.lock"]);
}
