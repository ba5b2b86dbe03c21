//! The configuration file of a device: `--config`, `dps config check` and `dps config example`.

use crate::support::{Emulator, Folder, KEY, dps, run, text};

/// A file for the device `dev` of this emulator, its key in a file beside it.
fn device(emulator: &Emulator, more: &str) -> String {
    emulator.folder.file("dev.key", KEY);
    let (scope, ca) = (text(&emulator.ready, "idScope"), text(&emulator.ready, "caFile"));
    let endpoint = emulator.endpoint();
    emulator.folder.file(
        "dps.toml",
        format!(
            "id-scope = \"{scope}\"\nregistration-id = \"dev\"\nendpoint = \"{endpoint}\"\nca-file = \"{ca}\"\n\
             symmetric-key-file = \"dev.key\"\n{more}"
        ),
    )
}

#[test]
fn a_device_registers_by_its_file_alone_with_files_beside_it() {
    let emulator = Emulator::behaving("payload = \"echo\"");
    let file = device(
        &emulator,
        "poll-floor = 0\ntimeout = 30\npayload = { site = \"north\", floor = 3 }\n",
    );
    let assigned = run(&mut dps(&["register", "--json", "--config", &file])).assigned();
    assert_eq!(assigned["payload"], serde_json::json!({"site": "north", "floor": 3}));
    let assigned = run(dps(&["register", "--json"]).env("DPS_CONFIG", &file)).assigned();
    assert_eq!(assigned["registrationId"], "dev");
    let token = run(&mut dps(&["sas-token", "--config", &file]));
    assert!(token.stdout.starts_with("SharedAccessSignature "), "{token:?}");
    let token = run(dps(&["sas-token", "--config", &file]).env("DPS_SYMMETRIC_KEY", KEY));
    assert_eq!(token.code, 0, "{token:?}");
}

#[test]
fn a_flag_wins_over_its_variable_and_a_variable_over_the_file() {
    let emulator = Emulator::behaving("");
    let file = device(&emulator, "transport = \"mqtt\"\nforce = true\n");
    // Over MQTT nothing can be forced.
    let message =
        |ended: crate::support::Ended| text(&ended.failed("configuration"), "message").to_owned();
    let said = message(run(&mut dps(&["register", "--json", "--config", &file])));
    assert!(said.starts_with(&format!("{file}:7: force \"true\": ")), "{said}");
    let mut command = dps(&["register", "--json", "--config", &file]);
    run(command.env("DPS_TRANSPORT", "http")).assigned();
    let said = message(run(command.args(["--transport", "mqtt"])));
    assert!(said.starts_with(&format!("{file}:7: force \"true\": ")), "{said}");
    run(command
        .env("DPS_FORCE", "off")
        .args(["--endpoint", &format!("localhost:{}", emulator.ready["mqttPort"])]))
    .assigned();
}

#[test]
fn a_credential_of_a_variable_or_a_flag_takes_the_place_of_the_files() {
    let emulator = Emulator::behaving("");
    let file = device(&emulator, "");
    let other = std::fs::read_to_string(&file)
        .unwrap()
        .replace("symmetric-key-file = \"dev.key\"", "cert = \"no.pem\"\nkey = \"no.pem\"\n");
    let other = emulator.folder.file("certificate.toml", other);
    let error = run(&mut dps(&["register", "--json", "--config", &other])).failed("configuration");
    let said = text(&error, "message");
    assert!(
        said.starts_with(&format!("{other}:5: cert \"{}\": ", emulator.folder.path("no.pem"))),
        "{said}"
    );
    run(dps(&["register", "--json", "--config", &other]).env("DPS_SYMMETRIC_KEY", KEY)).assigned();
    let key = emulator.folder.path("dev.key");
    run(&mut dps(&["register", "--json", "--config", &other, "--symmetric-key-file", &key]))
        .assigned();
    // Two kinds in one file are two credentials.
    let both = emulator.folder.file(
        "both.toml",
        format!("group-key-file = \"dev.key\"\n{}", std::fs::read_to_string(&file).unwrap()),
    );
    let error = run(&mut dps(&["register", "--json", "--config", &both])).failed("configuration");
    let said = text(&error, "message");
    assert!(
        said.ends_with(&format!(
            "there are {both}:6: symmetric-key-file and {both}:1: group-key-file"
        )),
        "{said}"
    );
    let both = emulator.folder.file(
        "both.toml",
        format!("tpm = \"swtpm:localhost:1\"\n{}", std::fs::read_to_string(&file).unwrap()),
    );
    let error = run(&mut dps(&["register", "--json", "--config", &both])).failed("configuration");
    let said = text(&error, "message");
    assert!(
        said.ends_with(&format!("there are {both}:6: symmetric-key-file and {both}:1: tpm")),
        "{said}"
    );
}

#[test]
fn the_secondary_key_of_the_files_list_is_tried_when_the_primary_one_is_refused() {
    let emulator = Emulator::behaving("");
    let file = device(&emulator, "poll-floor = 0\n");
    emulator.folder.file("old.key", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl");
    let text =
        std::fs::read_to_string(&file).unwrap().replace("\"dev.key\"", "['old.key', 'dev.key']");
    let file = emulator.folder.file("dps.toml", text);
    let ended = run(&mut dps(&["register", "--json", "--config", &file]));
    assert_eq!((ended.code, &ended.json()["credential"]), (0, &serde_json::json!(2)), "{ended:?}");
}

#[test]
fn a_file_that_can_not_be_used_is_named_with_its_line_by_every_command() {
    let folder = Folder::new();
    let missing = folder.path("missing.toml");
    let misspelled =
        folder.file("misspelled.toml", "id-scope = \"0ne1\"\nregistration = \"dev\"\n");
    let emulators = folder
        .file("emulator.toml", "id-scope = \"0ne1\"\n[[enrollment]]\nregistration-id = \"dev\"\n");
    let secret = folder.file("secret.toml", format!("symmetric-key-file = \"{KEY}\"\n"));
    for command in [
        &["register"][..],
        &["sas-token"],
        &["derive-key"],
        &["tpm", "show"],
        &["cert", "renew", "folder"],
        &["config", "check"],
    ] {
        for (file, says) in [
            (&missing, format!("--config \"{missing}\": it can't be read: ")),
            (
                &misspelled,
                format!(
                    "{misspelled}:2: registration: there is no such key; registration-id is one"
                ),
            ),
            (
                &emulators,
                format!(
                    "{emulators}:2: enrollment: there is no such key; this is a file for `dps emulate --config`"
                ),
            ),
            (
                &secret,
                format!(
                    "{secret}:1: symmetric-key-file: it holds a key in base64 in place of the name of a file"
                ),
            ),
        ] {
            let ended = run(dps(command).args(["--config", file]));
            assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{command:?}: {ended:?}");
            assert!(ended.stderr.starts_with(&format!("error: {says}")), "{command:?}: {ended:?}");
            assert!(!ended.stderr.contains(KEY), "{ended:?}");
        }
    }
    let error =
        run(&mut dps(&["register", "--json", "--config", &misspelled])).failed("configuration");
    assert!(text(&error, "message").starts_with(&misspelled), "{error}");
    let ended = run(dps(&["register"]).env("DPS_CONFIG", &missing));
    assert!(ended.stderr.starts_with("error: DPS_CONFIG "), "{ended:?}");
    let devices = folder.file("device.toml", "id-scope = \"0ne1\"\ntransport = \"mqtt\"\n");
    let ended = run(&mut dps(&["emulate", "--config", &devices]));
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("this is a configuration file of a device, for `dps register --config`"),
        "{ended:?}"
    );
}

#[test]
fn only_a_file_of_the_emulator_is_said_to_be_one() {
    let folder = Folder::new();
    for (key, is_the_emulators) in [
        ("mqtt-port = 0", true),
        ("ca-cert-file = \"ca.pem\"", true),
        ("[[enrollment]]", true),
        ("[limits]", true),
        ("[[verified-ca]]", true),
        ("a.b = 1", false),
        ("the = true", false),
        ("\"x: limits\" = true", false),
        ("symmetric-key = \"x\"", false),
    ] {
        let file = folder.file("dps.toml", key);
        let ended = run(&mut dps(&["config", "check", &file]));
        assert_eq!(ended.code, 2, "{ended:?}");
        let said = ended.stderr.contains("this is a file for `dps emulate --config`");
        assert_eq!(said, is_the_emulators, "{key}: {ended:?}");
        if key.starts_with("symmetric-key ") {
            assert!(ended.stderr.contains("symmetric-key-file is one"), "{ended:?}");
        }
    }
}

#[test]
fn what_a_file_and_its_name_hold_reaches_no_terminal_as_it_is() {
    let folder = Folder::new();
    folder.file("dev.key", KEY);
    let start =
        "id-scope = \"0ne1\"\nregistration-id = \"dev\"\nsymmetric-key-file = \"dev.key\"\n";
    for (more, code) in [("", 0), ("\"re\\u001bd\\n\" = true\n", 2), ("timeout = 0\n", 2), ("x", 2)]
    {
        let file = folder.file("d\u{1b}ps\n.toml", format!("{start}{more}"));
        let ended = run(&mut dps(&["config", "check", &file]));
        assert_eq!(ended.code, code, "{ended:?}");
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(said.contains("\\u{1b}") && !said.contains('\u{1b}'), "{said:?}");
        assert!(said.contains("ps\\n.toml:") && !said.contains("\n.toml"), "{said:?}");
    }
}

#[test]
fn a_check_says_what_is_set_and_from_where_and_needs_no_service() {
    let folder = Folder::new();
    folder.file("dev.key", KEY);
    let file = folder.file(
        "dps.toml",
        "registration-id = \"dev\"\nid-scope = \"0ne1\"\ntransport = \"amqp\"\nendpoint = \"no.such.host\"\nsymmetric-key-file = \"dev.key\"\n",
    );
    let mut command =
        dps(&["config", "check", &file, "--transport", "mqtt-ws", "--platform-roots"]);
    command.env("DPS_ENDPOINT", "other.example");
    let ended = run(&mut command);
    assert_eq!(ended.code, 0, "{ended:?}");
    let words: Vec<Vec<&str>> =
        ended.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        &["id-scope", "0ne1", &format!("{file}:2:"), "id-scope"][..],
        &["transport", "mqtt-ws", "--transport"],
        &["endpoint", "other.example", "DPS_ENDPOINT"],
        &["platform-roots", "true", "--platform-roots"],
    ] {
        assert!(words.iter().any(|words| words == row), "{row:?}: {}", ended.stdout);
    }
    let found = run(command.arg("--json").env("DPS_SYMMETRIC_KEY", KEY));
    assert!(!found.stdout.contains(KEY), "{found:?}");
    let found = found.json();
    assert_eq!((text(&found, "status"), text(&found, "file")), ("valid", file.as_str()));
    let from = |key: &str| {
        let rows = found["settings"].as_array().unwrap();
        text(rows.iter().find(|row| row["key"] == key).unwrap(), "from").to_owned()
    };
    assert_eq!(
        (from("symmetric-key"), from("registration-id")),
        ("DPS_SYMMETRIC_KEY".into(), format!("{file}:1: registration-id"))
    );
    assert_eq!(run(dps(&["config", "check"]).env("DPS_CONFIG", &file)).code, 0);
}

#[test]
fn a_check_finds_what_speaks_against_a_registration() {
    let folder = Folder::new();
    folder.file("dev.key", "not a key");
    let expired = {
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "dev");
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        folder.file("key.pem", key.serialize_pem());
        params.self_signed(&key).unwrap().pem()
    };
    folder.file("expired.pem", expired);
    for (text, says) in [
        ("symmetric-key-file = \"dev.key\"", ":3: symmetric-key-file "),
        ("symmetric-key-file = \"none.key\"", "none.key\": the file can't be read"),
        ("cert = \"expired.pem\"\nkey = \"key.pem\"", "expired"),
        ("cert = \"expired.pem\"", ":3: cert: it needs --key too"),
        ("", "credential: none was given"),
        ("tpm = \"/dev/no-tpm\"", ":3: tpm \"/dev/no-tpm\": there is no such device"),
        ("symmetric-key-file = \"dev.key\"\nca-file = \"none.pem\"", ":4: ca-file "),
        ("force = true\ntransport = \"mqtt\"", ":3: force \"true\": MQTT can't carry it; "),
        ("force = true\ntransport = \"mqtt-ws\"", ":3: force \"true\": MQTT can't carry it; "),
        ("state = \"no/x.json\"", ":3: state \""),
        ("state = \"no/x.json\"", "; make the folder above it first"),
        ("request-certificate = \"no/c\"", ":3: request-certificate \""),
        ("request-certificate = \"no/c\"", "; make the folder above it first"),
    ] {
        let file = folder
            .file("dps.toml", format!("id-scope = \"0ne1\"\nregistration-id = \"dev\"\n{text}\n"));
        let ended = run(&mut dps(&["config", "check", &file]));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{text}: {ended:?}");
        assert!(ended.stderr.contains(says), "{text}: {ended:?}");
    }
    folder.file("dev.key", KEY);
    // Nothing is written, no folder is made.
    let file = folder.file(
        "dps.toml",
        "id-scope = \"0ne1\"\nregistration-id = \"dev\"\nsymmetric-key-file = \"dev.key\"\nrequest-certificate = \"certificate\"\nstate = \"assignment.json\"\n",
    );
    let names = || {
        let entries = std::fs::read_dir(folder.path(".")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let ended = run(&mut dps(&["config", "check", &file]));
    assert_eq!((ended.code, names()), (0, before), "{ended:?}");
    // A folder that is there is tried itself.
    std::fs::create_dir(folder.path("certificate")).unwrap();
    let ended = run(&mut dps(&["config", "check", &file]));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(std::fs::read_dir(folder.path("certificate")).unwrap().next().is_none());
}

#[test]
fn a_check_shows_no_credential_that_another_one_takes_the_place_of() {
    let folder = Folder::new();
    let key = folder.file("dev.key", KEY);
    let file = folder.file(
        "dps.toml",
        "id-scope = \"0ne1\"\nregistration-id = \"dev\"\nsymmetric-key-file = \"dev.key\"\ntpm = \"/dev/no-tpm\"\n",
    );
    let keys = |command: &mut std::process::Command| {
        let ended = run(command);
        assert_eq!(ended.code, 0, "{ended:?}");
        let found = ended.json();
        let rows = found["settings"].as_array().unwrap().clone();
        let rows = rows.iter().map(|row| format!("{} {}", text(row, "key"), text(row, "from")));
        rows.filter(|row| row.contains("key") || row.contains("tpm")).collect::<Vec<_>>()
    };
    let check = || dps(&["config", "check", "--json", &file]);
    let by_flag = keys(check().args(["--group-key-file", &key]).env("DPS_SYMMETRIC_KEY", KEY));
    assert_eq!(by_flag, ["group-key-file --group-key-file"]);
    assert_eq!(keys(check().env("DPS_SYMMETRIC_KEY", KEY)), ["symmetric-key DPS_SYMMETRIC_KEY"]);
    assert_eq!(
        keys(check().env("DPS_GROUP_KEY_FILE", &key)),
        ["group-key-file DPS_GROUP_KEY_FILE"]
    );
}

#[test]
fn the_example_passes_the_reader_of_every_command() {
    let example = run(&mut dps(&["config", "example"]));
    assert_eq!(example.code, 0, "{example:?}");
    let folder = Folder::new();
    let file = folder.file("dps.toml", &example.stdout);
    let mut command =
        dps(&["config", "check", &file, "--id-scope", "0ne1", "--registration-id", "dev"]);
    assert_eq!(run(command.env("DPS_SYMMETRIC_KEY", KEY)).code, 0);
}
