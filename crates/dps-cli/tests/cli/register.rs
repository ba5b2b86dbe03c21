//! Registrations that succeed.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::support::{Emulator, Folder, KEY, TRANSPORTS, dps, run, run_with_stdin, text};

/// A certificate authority, and one device's chain and key, as PEM.
struct Factory {
    ca: String,
    chain: String,
    key: String,
}

fn factory(common_name: &str) -> Factory {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "Factory CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name.push(DnType::CommonName, common_name);
    leaf.is_ca = IsCa::ExplicitNoCa;
    let chain = leaf.signed_by(&key, &issuer).unwrap().pem();
    Factory { ca: ca_pem, chain, key: key.serialize_pem() }
}

#[test]
fn the_emulator_flag_needs_nothing_else_and_shows_each_step() {
    let ended = run(&mut dps(&["register", "--emulator"]));
    assert_eq!(ended.code, 0, "{ended:?}");
    let steps = [
        "resolving localhost",
        "TLS",
        "registering",
        "assigning",
        "next poll in",
        "polling",
        "assigned",
    ];
    let mut rest = ended.stderr.as_str();
    for step in steps {
        rest = rest.split_once(step).unwrap_or_else(|| panic!("{step} in {}", ended.stderr)).1;
    }
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [assigned, hub, device] = lines.as_slice() else { panic!("{lines:?}") };
    assert!(assigned.starts_with("assigned"), "{assigned}");
    assert!(hub.contains("hub") && hub.ends_with("hub.localhost"), "{hub}");
    assert!(device.contains("device id") && device.ends_with("my-device"), "{device}");
}

#[test]
fn the_emulator_flag_takes_what_makes_sense_with_it() {
    let words =
        ["--registration-id", "pump-17", "--id-scope", "0ne1", "--payload", "{\"b\": [1.50]}"];
    let mut command = dps(&["register", "--emulator", "--json", "--poll-floor", "0"]);
    // What concerns another service does not disturb it.
    command.args(words).env("DPS_ENDPOINT", "nowhere.invalid").env("DPS_PROXY", "127.0.0.1:1");
    let ended = run(&mut command);
    let object = ended.assigned();
    assert_eq!(object["registrationId"], "pump-17");
    assert_eq!(object["deviceId"], "pump-17");
    assert_eq!(object["transport"], "http");
    assert_eq!(object["polls"], 2);
    assert_eq!(object["payload"], serde_json::json!({"b": [1.5]}));
    assert_eq!(object["substatus"], "initialAssignment");
    assert!(object["elapsedMs"].is_u64() && object["operationId"].is_string());
    assert_eq!(ended.stderr, "", "a script gets JSON and nothing else");
}

#[test]
fn a_flag_and_its_variable_start_sessions_step_by_step() {
    for transport in TRANSPORTS {
        for by_variable in [false, true] {
            let mut command = dps(&["register", "--emulator", "-vv", "--transport", transport]);
            match by_variable {
                true => command.env("DPS_STEP_BY_STEP", "1"),
                false => command.arg("--step-by-step"),
            };
            let ended = run(&mut command);
            assert_eq!(ended.code, 0, "{transport} {by_variable}: {ended:?}");
            let steps = ended.stderr.matches("pipelined=false").count();
            assert_eq!(steps, usize::from(transport != "http"), "{transport}: {}", ended.stderr);
        }
    }
}

#[test]
fn the_emulator_flag_works_over_every_transport() {
    for transport in TRANSPORTS {
        let ended = run(&mut dps(&["register", "--emulator", "--json", "--transport", transport]));
        assert_eq!(ended.assigned()["transport"], transport, "{transport:?}");
    }
}

#[test]
fn the_next_of_several_credentials_is_tried_when_one_is_refused() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let wrong = folder.file("wrong.key", "bm90IHRoZSBrZXkgb2YgdGhpcyBkZXZpY2UuLi4uLi4=");
    let right = folder.file("right.key", KEY);
    let with = |transport: &str, keys: &[&String]| {
        let mut command = emulator.register_over(transport, &["--registration-id", "dev"]);
        for key in keys {
            command.args(["--symmetric-key-file", key]);
        }
        command
    };
    for transport in TRANSPORTS {
        let ended = run(&mut with(transport, &[&wrong, &right]));
        assert_eq!((ended.code, &ended.json()["credential"]), (0, &2.into()), "{ended:?}");
        let ended = run(&mut with(transport, &[&right, &wrong]));
        assert_eq!((ended.code, &ended.json()["credential"]), (0, &1.into()), "{ended:?}");
        let ended = run(&mut with(transport, &[&wrong, &wrong]));
        let error = ended.failed("rejected");
        let hint = text(&error, "hint");
        assert!(hint.contains("each of the 2 credentials was refused"), "{hint}");
    }
    let mut for_people = dps(&["register", "--registration-id", "dev"]);
    for_people.args(["--endpoint", &emulator.endpoint()]);
    for_people.args(["--id-scope", text(&emulator.ready, "idScope")]);
    for_people.args(["--ca-file", text(&emulator.ready, "caFile")]);
    for_people.args(["--symmetric-key-file", &wrong, "--symmetric-key-file", &right]);
    let ended = run(&mut for_people);
    assert!(ended.stderr.contains("credential 1 refused; trying the next one\n"), "{ended:?}");
    assert!(ended.stdout.ends_with("\n  credential 2 of 2\n"), "{ended:?}");
}

#[test]
fn every_credential_registers() {
    let folder = Folder::new();
    let Factory { ca, chain, key } = factory("x-dev");
    let group_ca = folder.file("group-ca.pem", ca);
    let emulator = Emulator::start(folder, &["--group-ca", &group_ca]);
    let folder = &emulator.folder;
    let group_key = text(&emulator.ready, "groupKey");
    // As an editor leaves it.
    let group_file = folder.file("group.key", format!("\u{feff}{group_key}\r\n\n"));

    let by_group = ["--registration-id", "a", "--group-key-file", &group_file];
    assert_eq!(run(&mut emulator.register(&by_group)).assigned()["deviceId"], "a");
    let by_stdin = ["--registration-id", "b", "--group-key-file", "-"];
    run_with_stdin(&mut emulator.register(&by_stdin), group_key).assigned();

    let derived =
        run(&mut dps(&["derive-key", "--registration-id", "c", "--group-key-file", &group_file]));
    let key_file = folder.file("c.key", &derived.stdout);
    let by_key = ["--registration-id", "c", "--symmetric-key-file", &key_file];
    run(&mut emulator.register(&by_key)).assigned();
    let from_environment = ["--registration-id", "c"];
    let mut command = emulator.register(&from_environment);
    run(command.env("DPS_SYMMETRIC_KEY", derived.stdout.trim())).assigned();

    let (chain, key) = (folder.file("chain.pem", chain), folder.file("key.pem", key));
    let by_certificate = ["--registration-id", "x-dev", "--cert", &chain, "--key", &key];
    run(&mut emulator.register(&by_certificate)).assigned();
}

#[test]
fn a_flag_wins_over_the_environment_and_the_environment_stands_in_for_it() {
    let emulator = Emulator::behaving("");
    let key = emulator.folder.file("dev.key", KEY);
    let explicit = ["--registration-id", "dev", "--symmetric-key-file", &key];
    let mut command = emulator.register(&explicit);
    for name in [
        "DPS_REGISTRATION_ID",
        "DPS_ID_SCOPE",
        "DPS_ENDPOINT",
        "DPS_TRANSPORT",
        "DPS_CA_FILE",
        "DPS_SYMMETRIC_KEY",
    ] {
        command.env(name, "not good for anything: /");
    }
    run(&mut command).assigned();

    let mut command = dps(&["register", "--json"]);
    command
        .env("DPS_ID_SCOPE", text(&emulator.ready, "idScope"))
        .env("DPS_REGISTRATION_ID", "dev")
        .env("DPS_ENDPOINT", emulator.endpoint())
        .env("DPS_TRANSPORT", "")
        .env("DPS_CA_FILE", text(&emulator.ready, "caFile"))
        .env("DPS_SYMMETRIC_KEY", KEY);
    assert_eq!(run(&mut command).assigned()["deviceId"], "dev");
}

#[test]
fn the_result_is_printed_unchanged_and_on_one_line() {
    let emulator = Emulator::behaving(
        "hub = \"north.azure-devices.net\"\ndevice-id = \"d\"\nsubstatus = \"newWord\"\npayload = { text = \"a\\nb\" }",
    );
    let object = run(&mut emulator.register_dev(&[])).assigned();
    assert_eq!(object["assignedHub"], "north.azure-devices.net");
    assert_eq!(object["registrationId"], "dev");
    assert_eq!(object["deviceId"], "d");
    assert_eq!(object["substatus"], "newWord");
    assert_eq!(object["payload"]["text"], "a\nb");
    assert_eq!(object["polls"], 0);
}

#[test]
fn payload_model_id_and_force_go_out() {
    let emulator = Emulator::behaving("payload = \"echo\"");
    let file = emulator.folder.file("payload.json", "\u{feff}{\"site\": \"north\"}");
    let at_file = format!("@{file}");
    let object = run(&mut emulator.register_dev(&[
        "--payload",
        &at_file,
        "--model-id",
        "dtmi:m;1",
        "--force",
    ]))
    .assigned();
    let expected = serde_json::json!({"site": "north", "modelId": "dtmi:m;1"});
    assert_eq!(object["payload"], expected);
    let mut command = emulator.register_dev(&["--payload", "@-"]);
    let object = run_with_stdin(&mut command, "{}").assigned();
    assert_eq!(object["payload"], serde_json::json!({}));
}

#[test]
fn a_payload_is_carried_to_the_letter_from_each_place_it_can_stand() {
    const PAYLOADS: [&str; 6] = [
        r#"{"serial": 12345678901234567890, "price": 0.123456789012345678, "same": 1.10}"#,
        r#"{"z": 1, "a": 2, "a": {"a": 1, "a": 2}}"#,
        r#"{"escapes": "\u0041\/\u20AC \ud800", "e": 1E+2, "zero": -0.0}"#,
        r#"{"modelId": "own", "list": [ 1 , {} ]}"#,
        r#"{"plain": "größe 表 🙂"}"#,
        "{ }",
    ];
    let emulator = Emulator::behaving("payload = \"echo\"");
    let file = |text: &str| format!("@{}", emulator.folder.file("payload.json", text));
    for payload in PAYLOADS {
        let expected = format!("\"payload\":{payload},");
        for transport in TRANSPORTS {
            let ended = run(&mut emulator.register_dev_over(transport, &["--payload", payload]));
            assert!(ended.stdout.contains(&expected), "{transport}: {ended:?}");
        }
        let mut of_variable = emulator.register_dev(&[]);
        of_variable.env("DPS_PAYLOAD", payload);
        let mut of_file = emulator.register_dev(&["--payload", &file(payload)]);
        let mut of_stdin = emulator.register_dev(&["--payload", "@-"]);
        for ended in
            [run(&mut of_variable), run(&mut of_file), run_with_stdin(&mut of_stdin, payload)]
        {
            assert!(ended.stdout.contains(&expected), "{ended:?}");
        }
        let ended = run(&mut dps(&["register", "--emulator", "--payload", payload]));
        let expected = format!("payload    {payload}\n");
        assert!(ended.stdout.contains(&expected), "{ended:?}");
    }
}

#[test]
fn a_proxy_is_used_unless_no_proxy_names_the_host() {
    let emulator = Emulator::behaving("");
    let closed = crate::support::closed_endpoint();
    let mut command = emulator.register_dev(&[]);
    let error =
        run(command.env("DPS_PROXY", format!("http://me:hidden@{closed}"))).failed("connection");
    assert_eq!(error["stage"], "proxy");
    assert!(
        text(&error, "message").contains(&closed) && !error.to_string().contains("hidden"),
        "{error}"
    );
    run(command.env("NO_PROXY", "example.com,localhost")).assigned();
}

#[test]
fn no_trace_shows_a_secret() {
    let emulator = Emulator::behaving("polls = 1\nretry-after = 0");
    for transport in TRANSPORTS {
        let traced = ["-vv", "--poll-floor", "0"];
        let ended = run(&mut emulator.register_dev_over(transport, &traced));
        ended.assigned();
        let said = ended.stderr;
        assert!(said.contains("Assigned") && said.contains("rustls"), "{said}");
        for secret in [KEY, "sig=", "SharedAccessSignature", "authorization"] {
            assert!(!said.contains(secret), "{secret} in {said}");
        }
    }
    let quiet = run(&mut emulator.register_dev(&["-v", "--poll-floor", "0"]));
    assert!(quiet.stderr.contains("Assigned") && !quiet.stderr.contains("rustls"), "{quiet:?}");
}

#[test]
fn a_reader_that_goes_away_does_no_harm() {
    let emulator = Emulator::behaving("polls = 1\nretry-after = 0");
    let mut running =
        crate::support::Running::start(&mut emulator.register_dev(&["--poll-floor", "0"]));
    drop(running.child().stdout.take());
    let ended = running.ended();
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_can_not_be_written_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = dps(&["register", "--emulator", "--json", "--poll-floor", "0"])
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("standard output"));
}

#[test]
fn a_certificate_that_is_left_out_of_a_chain_is_warned_of() {
    let folder = Folder::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::default();
    leaf.distinguished_name.push(rcgen::DnType::CommonName, "pump-17");
    let leaf = leaf.self_signed(&key).unwrap().pem();
    let chain = folder.file("chain.pem", format!("{leaf}{leaf}"));
    let key = folder.file("key.pem", key.serialize_pem());
    let arguments = [
        "register",
        "--id-scope",
        "0ne1",
        "--registration-id",
        "pump-17",
        "--endpoint",
        "localhost:1",
        "--cert",
        &chain,
        "--key",
        &key,
    ];
    let warning = "warning: left certificates out that stand in the chain already (repeated: 1)\n";
    let ended = run(&mut dps(&arguments));
    assert_eq!(ended.stderr.matches(warning).count(), 1, "{ended:?}");
    let quiet = run(dps(&arguments).arg("--quiet"));
    assert!(!quiet.stderr.contains("warning"), "{quiet:?}");
}
