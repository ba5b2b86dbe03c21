//! Variables in place of flags, and warnings of those that only look like one.

use crate::support::{Emulator, Folder, KEY, closed_endpoint, dps, run, text};

#[test]
fn each_variable_stands_in_for_its_flag_and_is_named() {
    let folder = Folder::new();
    let missing = folder.path("missing");
    let at_missing = format!("@{missing}");
    let device = [("DPS_ID_SCOPE", "0ne1"), ("DPS_REGISTRATION_ID", "dev")];
    for (command, name, value) in [
        ("register", "DPS_ID_SCOPE", "0ne 1"),
        ("register", "DPS_REGISTRATION_ID", "a b"),
        ("register", "DPS_TRANSPORT", "pigeon"),
        ("register", "DPS_ENDPOINT", "https://h"),
        ("register", "DPS_CA_FILE", &missing),
        ("register", "DPS_PLATFORM_ROOTS", "maybe"),
        ("register", "DPS_PROXY", "ftp://proxy"),
        ("register", "DPS_PAYLOAD", "{"),
        ("register", "DPS_PAYLOAD", &at_missing),
        ("register", "DPS_FORCE", "maybe"),
        ("register", "DPS_TIMEOUT", "soon"),
        ("register", "DPS_POLL_FLOOR", "-1"),
        ("register", "DPS_EMULATOR", "maybe"),
        ("register", "DPS_JSON", "maybe"),
        ("register", "DPS_QUIET", "maybe"),
        ("register", "DPS_VERBOSE", "much"),
        ("register", "DPS_SYMMETRIC_KEY_FILE", &missing),
        ("register", "DPS_GROUP_KEY_FILE", &missing),
        ("register", "DPS_CERT", &missing),
        ("register", "DPS_KEY", &missing),
        ("doctor", "DPS_ONLY", "tls.nothing"),
        ("doctor", "DPS_TIMEOUT", "soon"),
        ("doctor", "DPS_JSON", "maybe"),
        ("doctor", "DPS_VERBOSE", "much"),
        ("sas-token", "DPS_SYMMETRIC_KEY_FILE", &missing),
        ("sas-token", "DPS_EXPIRY", "soon"),
        ("sas-token", "DPS_EXPIRES_IN", "0"),
        ("derive-key", "DPS_GROUP_KEY_FILE", &missing),
        ("emulate", "DPS_HTTPS_PORT", "65536"),
        ("emulate", "DPS_MQTT_PORT", "x"),
        ("emulate", "DPS_AMQP_PORT", "-1"),
        ("emulate", "DPS_ADMIN_PORT", "x"),
        ("emulate", "DPS_ADMIN_LISTEN", "127.0.0.1,everywhere"),
        ("emulate", "DPS_ADMIN_TOKEN_FILE", &missing),
        ("emulate", "DPS_FIXED", "maybe"),
        ("emulate", "DPS_LISTEN", "127.0.0.1,everywhere"),
        ("emulate", "DPS_NAME", "good,a b"),
        ("emulate", "DPS_CONFIG", &missing),
        ("emulate", "DPS_GROUP_CA", &missing),
        ("emulate", "DPS_CA_OUT", "/no/such/folder"),
        ("emulate", "DPS_EVENTS", "/no/such/folder"),
        ("emulate", "DPS_FAST", "maybe"),
        ("emulate", "DPS_QUIET", "maybe"),
        ("emulate", "DPS_VERBOSE", "much"),
    ] {
        let mut command = dps(&[command]);
        command.envs(device);
        match name {
            "DPS_CERT" => drop(command.env("DPS_KEY", folder.file("key.pem", ""))),
            "DPS_KEY" => {
                let certificate = rcgen::generate_simple_self_signed(vec!["dev".into()]).unwrap();
                command.env("DPS_CERT", folder.file("cert.pem", certificate.cert.pem()));
            }
            "DPS_GROUP_KEY_FILE" | "DPS_SYMMETRIC_KEY_FILE" => {}
            _ => drop(command.env("DPS_SYMMETRIC_KEY", KEY)),
        }
        let ended = run(command.env(name, value));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{name}: {ended:?}");
        assert!(ended.stderr.contains(&format!("error: {name} ")), "{name}: {ended:?}");
    }
}

#[test]
fn variables_that_switch_something_on_do_so() {
    let mut command = dps(&["register"]);
    command.env("DPS_EMULATOR", "yes").env("DPS_JSON", "1").env("DPS_POLL_FLOOR", "0");
    command.env("DPS_MODEL_ID", "dtmi:m;1").env("DPS_PAYLOAD", "{\"a\": 1}");
    let object = run(&mut command).assigned();
    assert_eq!(object["payload"], serde_json::json!({"a": 1, "modelId": "dtmi:m;1"}));
    let ended = run(command.env("DPS_JSON", "off").env("DPS_QUIET", "on"));
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let ended = run(command.arg("--endpoint").arg("h").env("DPS_JSON", "true"));
    let message = ended.failed("configuration");
    assert_eq!(text(&message, "message"), "DPS_EMULATOR: it does not go with --endpoint");
    run(dps(&["enroll"]).env("DPS_JSON", "1")).failed("configuration");
}

#[test]
fn a_flag_of_a_credential_wins_over_every_variable_with_one() {
    let emulator = Emulator::behaving("");
    let key = emulator.folder.file("dev.key", KEY);
    let mut command =
        emulator.register(&["--registration-id", "dev", "--symmetric-key-file", &key]);
    for name in ["DPS_SYMMETRIC_KEY", "DPS_GROUP_KEY_FILE", "DPS_CERT", "DPS_KEY"] {
        command.env(name, "not good for anything");
    }
    run(&mut command).assigned();
    let mut command = emulator.register(&["--registration-id", "dev"]);
    command.env("DPS_SYMMETRIC_KEY", KEY).env("DPS_SYMMETRIC_KEY_FILE", &key);
    let error = run(&mut command).failed("configuration");
    assert!(text(&error, "message").ends_with("DPS_SYMMETRIC_KEY_FILE and DPS_SYMMETRIC_KEY"));
}

#[test]
fn a_variable_that_looks_like_one_is_named_with_the_nearest() {
    for (name, says) in [
        ("DPS_IDSCOPE", "the variable DPS_IDSCOPE is not read; DPS_ID_SCOPE is"),
        ("DPS_REGISTRATIONID", "the variable DPS_REGISTRATIONID is not read; DPS_REGISTRATION_ID"),
        ("DPS_TIMOUT", "DPS_TIMEOUT is"),
        ("DPS_SYMMETRICKEY", "DPS_SYMMETRIC_KEY is"),
        ("DPS_CONNECTION_STRING", "those that are have the names of flags, like DPS_POLL_FLOOR"),
    ] {
        for command in ["register", "emulate"] {
            // Both end soon: the one registers, the other has no port.
            let mut command = dps(&[command]);
            command.env("DPS_EMULATOR", "1").env("DPS_POLL_FLOOR", "0");
            command.env("DPS_HTTPS_PORT", "x").env(name, "a secret");
            let ended = run(&mut command);
            assert!(ended.stderr.contains("warning: ") && ended.stderr.contains(says), "{ended:?}");
            assert!(!ended.stderr.contains("a secret"), "{ended:?}");
            let quiet = run(command.env("DPS_QUIET", "1"));
            assert!(!quiet.stderr.contains("warning"), "{quiet:?}");
        }
    }
}

#[test]
fn the_proxy_of_the_environment_is_used_when_asked_for_and_named_when_not() {
    let emulator = Emulator::behaving("");
    let closed = closed_endpoint();
    let mut command = emulator.register_dev(&["--proxy", "env"]);
    run(command.env("HTTPS_PROXY", "")).assigned();
    let error = run(command.env("HTTPS_PROXY", format!("http://{closed}"))).failed("connection");
    assert_eq!(error["stage"], "proxy");
    let commented = "http://me:hidden@proxy:3128\u{a0}# office";
    let error = run(command.env("HTTPS_PROXY", commented)).failed("configuration");
    let message = text(&error, "message");
    assert!(message.starts_with("HTTPS_PROXY") && message.contains("a comment"), "{message}");
    assert!(!message.contains("hidden"), "{message}");
    let mut other = crate::support::register_at(&closed, &[]);
    let error = run(other.env("DPS_PROXY", commented)).failed("configuration");
    let message = text(&error, "message");
    assert!(message.starts_with("DPS_PROXY") && message.contains("a comment"), "{message}");
    assert!(!message.contains("hidden"), "{message}");
    run(command.env("HTTPS_PROXY", format!("http://{closed}")).env("NO_PROXY", "localhost"))
        .assigned();

    let mut command = crate::support::register_at(&closed, &[]);
    let error = run(&mut command).failed("connection");
    assert!(text(&error, "hint").ends_with("(--proxy URL goes through a proxy)"), "{error}");
    let error = run(command.env("HTTPS_PROXY", "http://p:1")).failed("connection");
    assert!(text(&error, "hint").contains("HTTPS_PROXY is set and was not used; --proxy env"));
}

#[test]
fn the_roots_of_the_platform_are_used_when_asked_for_and_named_when_not() {
    let emulator = Emulator::behaving("");
    let ca_file = text(&emulator.ready, "caFile");
    let mut command = crate::support::register_at(&emulator.endpoint(), &[]);
    command.args(["--id-scope"]).arg(text(&emulator.ready, "idScope"));
    let mut command = dps(&["register", "--json", "--registration-id", "dev"]);
    command.args(["--endpoint", &emulator.endpoint()]).env("DPS_SYMMETRIC_KEY", KEY);
    command.args(["--id-scope", text(&emulator.ready, "idScope")]).env("SSL_CERT_FILE", ca_file);
    let error = run(&mut command).failed("connection");
    let hint = text(&error, "hint");
    assert!(hint.contains("--ca-file FILE adds it, --platform-roots trusts"), "{hint}");
    run(command.arg("--platform-roots")).assigned();
}

#[test]
fn hints_name_the_flags_that_do_what_they_say() {
    let silent = crate::support::Silent::new();
    let error = run(&mut silent.register(&["--timeout", "0.3"])).failed("timeout");
    assert!(text(&error, "hint").contains("--timeout SECONDS"), "{error}");
    let emulator = Emulator::behaving("");
    let mut command = emulator.register_dev(&[]);
    let error =
        run(command.env("DPS_SYMMETRIC_KEY", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl")).failed("rejected");
    assert!(text(&error, "hint").contains("--group-key-file"), "{error}");
    let group = emulator.folder.file("group.key", KEY);
    let by_group = ["--registration-id", "dev", "--group-key-file", &group];
    let error = run(&mut emulator.register(&by_group)).failed("rejected");
    assert!(text(&error, "hint").contains("--symmetric-key-file"), "{error}");
    // What registers with an emulator of its own has none of these flags.
    let mut command = dps(&["register", "--emulator", "--json", "--timeout", "0.001"]);
    let error = run(&mut command).failed("timeout");
    assert!(!text(&error, "hint").contains("--proxy"), "{error}");
}
