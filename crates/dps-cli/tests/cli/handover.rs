//! `--output` and `--exec`: what another program gets once the device is assigned.

use std::{fs, os::unix::fs::PermissionsExt as _};

use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

use crate::support::{
    Emulator, Folder, KEY, Running, TRANSPORTS, closed_endpoint, dps, register_at, run, text,
};

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A program of a shell's lines.
fn program(folder: &Folder, lines: &str) -> String {
    let path = folder.file("program", format!("#!/bin/sh\n{lines}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A certificate of the device `dev` that expired, and its key.
pub(crate) fn expired(folder: &Folder) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "dev");
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let key = KeyPair::generate().unwrap();
    let chain = folder.file("expired.pem", params.self_signed(&key).unwrap().pem());
    (chain, folder.file("expired.key", key.serialize_pem()))
}

#[test]
fn each_form_is_written_for_its_owner_alone() {
    let emulator = Emulator::behaving("payload = { site = \"it's\" }\n");
    let folder = Folder::new();
    let template =
        folder.file("template", "hub={{assignedHub}}\nid={{ deviceId }}\n{{connectionString}}");
    let template = format!("template:{template}");
    let mut command = emulator.register_dev(&[]);
    let forms = ["json", "env", "connection-string", "iotedge-toml", template.as_str()];
    for (number, form) in forms.iter().enumerate() {
        command.args(["--output", form, &folder.path(&number.to_string())]);
    }
    // One is there already, for everybody.
    folder.file("1", "former");
    fs::set_permissions(folder.path("1"), fs::Permissions::from_mode(0o644)).unwrap();
    let ended = run(&mut command);
    assert_eq!(ended.code, 0, "{ended:?}");
    let result = ended.json();
    let hub = text(&result, "assignedHub");
    for number in 0..forms.len() {
        let mode = fs::metadata(folder.path(&number.to_string())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{number}");
        assert_eq!(result["handedOver"]["outputs"][number]["message"], json!(null), "{result}");
    }
    let string = format!("HostName={hub};DeviceId=dev;SharedAccessKey={KEY}");
    let mut written: serde_json::Value = serde_json::from_str(&read(&folder.path("0"))).unwrap();
    written["handedOver"] = result["handedOver"].clone();
    assert_eq!(written, result);
    let env = read(&folder.path("1"));
    assert!(env.contains(&format!("DPS_ASSIGNED_HUB='{hub}'\nDPS_DEVICE_ID='dev'\n")), "{env}");
    assert!(env.contains("DPS_RESULT_PAYLOAD=\"{\\\"site\\\":\\\"it's\\\"}\"\n"), "{env}");
    assert!(!env.contains(KEY), "{env}");
    assert_eq!(read(&folder.path("2")), format!("{string}\n"));
    let toml = read(&folder.path("3"));
    assert!(
        toml.starts_with("[provisioning]\nsource = \"manual\"\n") && toml.contains(KEY),
        "{toml}"
    );
    assert_eq!(read(&folder.path("4")), format!("hub={hub}\nid=dev\n{string}"));
    let left = fs::read_dir(folder.path(".")).unwrap().count();
    assert_eq!(left, forms.len() + 1, "nothing else is left in the folder");
    assert!(!ended.stdout.contains(KEY) && !ended.stderr.contains(KEY), "{ended:?}");
}

#[test]
fn a_device_is_handed_over_from_every_transport() {
    let emulator = Emulator::behaving("");
    for transport in TRANSPORTS {
        let env = emulator.folder.path("dps.env");
        let ended = run(&mut emulator.register_dev_over(transport, &["--output", "env", &env]));
        assert_eq!(ended.code, 0, "{ended:?}");
        let env = read(&env);
        assert!(env.contains(&format!("DPS_ASSIGNED_TRANSPORT='{transport}'\n")), "{env}");
    }
}

#[test]
fn what_can_not_be_handed_over_is_refused_before_the_registration() {
    let folder = Folder::new();
    let key = folder.file("dev.key", KEY);
    let unknown = format!("template:{}", folder.file("unknown", "a\n{{hub}}"));
    let file = folder.path("out");
    let nowhere = folder.path("no/such/folder");
    let ours = folder.path(".");
    for (arguments, says) in [
        (
            &["--output", "yaml", &file][..],
            "--output \"yaml\": there is no such format; choose from json, env, ",
        ),
        (
            &["--output", &unknown, &file],
            "line 2: there is no such placeholder; there are assignedHub, ",
        ),
        (&["--output", "template:none", &file], "--output \"none\": the file can't be read"),
        (&["--output", "env", &nowhere], "can't be written: No such file or directory"),
        (&["--output", "env", &ours], "it is no regular file; name one"),
        (&["--output", "env", "/dev/null"], "it is no regular file; name one"),
        (&["--output", "env", ""], "the path is empty; name a file"),
        (&["--output", "env", &file, "--output", "json", &file], "names the same file"),
        (&["--output", "connection-string", "-"], "give --show-keys too"),
        (&["--output", "iotedge-toml", "-"], "give --show-keys too"),
        (&["--output", "env", "-", "--output", "json", "-"], "another output has this file"),
        (&["--exec", ""], "--exec: it is empty; give a command"),
    ] {
        let mut command = dps(&["register", "--id-scope", "0ne1", "--registration-id", "dev"]);
        command.args(["--endpoint", &closed_endpoint(), "--symmetric-key-file", &key]);
        let ended = run(command.args(arguments));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains(says), "{arguments:?}: {ended:?}");
        assert_eq!(read(&key), KEY);
    }
    let error = run(&mut register_at(&closed_endpoint(), &["--output", "env", "-"]))
        .failed("configuration");
    assert!(text(&error, "message").contains("the result of --json; name a file"), "{error}");
    let mut by_variable = dps(&["register", "--emulator"]);
    let ended = run(by_variable.env("DPS_OUTPUT", "env"));
    assert!(ended.stderr.contains("DPS_OUTPUT \"env\": give the format and the file"), "{ended:?}");
}

#[test]
fn no_file_that_is_read_or_kept_is_written() {
    let folder = Folder::new();
    let key = folder.file("dev.key", KEY);
    let kept = |name: &str| folder.file(name, "it is mine");
    let config = folder.file("dps.toml", "id-scope = \"0ne1\"\nregistration-id = \"dev\"\n");
    let (state, certificate) = (folder.path("s.json"), folder.path("certificate"));
    let (payload, template) = (folder.file("p.json", "{}"), kept("m.t"));
    let (pin, password, ca) = (kept("pin"), kept("password"), kept("ca.pem"));
    let from_file = format!("pkcs11:token=t;object=o?pin-source=file:{pin}");
    let by_template = format!("template:{template}");
    fs::create_dir(&certificate).unwrap();
    let (own_key, lock) = (format!("{certificate}/key.pem"), format!("{certificate}/lock"));
    std::os::unix::fs::symlink(&key, folder.path("link")).unwrap();
    let cases: [(&[&str], &str); 16] = [
        (&["--payload", "{}"], &key),
        (&["--payload", "{}"], &folder.path("link")),
        (&["--payload", "{}"], &config),
        (&["--state", &state], &state),
        (&["--state", &state], &folder.path("certificate/../s.json")),
        (&["--state", &state], &folder.path("s.json.lock")),
        (&["--state", &state], &folder.path("s.json.damaged")),
        (&["--payload", &format!("@{payload}")], &payload),
        (&["--output", &by_template, &folder.path("out")], &template),
        (&["--request-certificate", &certificate], &own_key),
        (&["--request-certificate", &certificate], &lock),
        (&["--ca-file", &ca], &ca),
        (&["--request-key", &from_file], &pin),
        (&["--pkcs11-pin-file", &pin], &pin),
        (&["--tpm-key-password-file", &password], &password),
        (&["--tpm-owner-password-file", &password], &password),
    ];
    let content = || {
        let entries = fs::read_dir(folder.path(".")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.map(|path| (fs::read(&path).ok(), path)).collect();
        files.sort();
        files
    };
    let former = content();
    for (arguments, output) in cases {
        let mut command = dps(&["register", "--config", &config, "--symmetric-key-file", &key]);
        command.args(["--endpoint", &closed_endpoint(), "--output", "env", output]);
        let ended = run(command.args(arguments));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{output}: {ended:?}");
        let says = " names the same file; name another";
        assert!(ended.stderr.contains(says), "{output}: {ended:?}");
        assert_eq!(content(), former, "{output}");
    }
}

#[test]
fn a_file_with_a_name_like_an_outputs_is_left_alone() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let out = folder.path("out");
    let mine = ["out.new", "s.json.new", "out.lock"].map(|name| folder.file(name, "it is mine"));
    let state = folder.path("s.json");
    let arguments =
        ["--state", &state, "--output", "env", &out, "--output", "json", &folder.path("o")];
    assert_eq!(run(&mut emulator.register_dev(&arguments)).code, 0);
    assert!(mine.iter().all(|path| read(path) == "it is mine"));
    // A name that systemd has loaded a file of is still a file here.
    let loaded = folder.file("dps.env", "it is mine");
    let here = Folder::new();
    let mut command = emulator.register_dev(&["--output", "env", "dps.env"]);
    command.current_dir(here.path(".")).env("CREDENTIALS_DIRECTORY", folder.path("."));
    assert_eq!(run(&mut command).code, 0);
    assert_eq!(read(&loaded), "it is mine");
    assert!(read(&here.path("dps.env")).contains("DPS_DEVICE_ID='dev'"));
    // A link that leads to no file yet stays one.
    std::os::unix::fs::symlink("target", folder.path("dangling")).unwrap();
    let ended = run(&mut emulator.register_dev(&["--output", "env", &folder.path("dangling")]));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(fs::symlink_metadata(folder.path("dangling")).unwrap().is_symlink());
    assert!(read(&folder.path("target")).contains("DPS_DEVICE_ID='dev'"));
}

#[test]
fn standard_output_has_the_form_alone_and_a_key_when_that_is_asked_for() {
    let emulator = Emulator::behaving("");
    let bare = |more: &[&str]| {
        let mut command = dps(&["register", "--registration-id", "dev"]);
        command.args([
            "--endpoint",
            &emulator.endpoint(),
            "--id-scope",
            text(&emulator.ready, "idScope"),
        ]);
        command.args(["--ca-file", text(&emulator.ready, "caFile")]).args(more);
        run(command.env("DPS_SYMMETRIC_KEY", KEY))
    };
    let env = bare(&["--output", "env", "-"]);
    assert!(env.code == 0 && env.stdout.starts_with("DPS_ASSIGNED_HUB='"), "{env:?}");
    let string = bare(&["--output", "connection-string", "-", "--show-keys"]);
    assert!(
        string.code == 0 && string.stdout.ends_with(&format!(";SharedAccessKey={KEY}\n")),
        "{string:?}"
    );
}

#[test]
fn a_command_runs_with_the_facts_and_without_a_key() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let (seen, env) = (folder.path("seen"), folder.path("dps.env"));
    let hook = format!("test -s '{env}' && env > '{seen}' && echo printed");
    let ended = run(&mut emulator.register_dev(&["--exec", &hook, "--output", "env", &env]));
    assert_eq!((ended.code, ended.stderr.contains("printed\n")), (0, true), "{ended:?}");
    let result = ended.json();
    assert_eq!(
        result["handedOver"]["exec"],
        json!({"command": hook, "exitCode": 0, "message": null})
    );
    let seen = read(&seen);
    let hub = text(&result, "assignedHub");
    assert!(
        seen.contains(&format!("DPS_ASSIGNED_HUB={hub}\n")) && seen.contains("DPS_DEVICE_ID=dev\n"),
        "{seen}"
    );
    assert!(!seen.contains(KEY), "{seen}");
    // What it was given is no misspelled variable.
    let again = run(dps(&["register", "--emulator"]).env("DPS_ASSIGNED_HUB", hub));
    assert!(!again.stderr.contains("warning"), "{again:?}");

    let silent = program(&folder, "exit 3");
    let not_executable = folder.file("text", "exit 0\n");
    for (command, code, says) in [
        (silent.as_str(), 3, "it ended with exit status: 3"),
        ("exit 5", 5, "it ended with exit status: 5"),
        (
            "no-such-program --with arguments",
            127,
            "the shell does not find it (exit code 127): give its path",
        ),
        (&not_executable, 126, "the shell may not run it (exit code 126): make it executable"),
    ] {
        let ended = run(&mut emulator.register_dev(&["--exec", command]));
        let result = ended.json();
        assert_eq!((ended.code, result["status"].as_str()), (11, Some("assigned")), "{ended:?}");
        let ran = &result["handedOver"]["exec"];
        assert_eq!((&ran["exitCode"], text(ran, "message")), (&json!(code), says), "{command}");
    }
    let ended = run(&mut dps(&["register", "--emulator", "--exec", "exit 3"]));
    assert!(ended.stdout.starts_with("assigned: ") && ended.code == 11, "{ended:?}");
    let says = "error: the device is assigned, but not handed over: \"exit 3\" did not do its work: it ended with exit status: 3";
    assert!(ended.stderr.contains(says), "{ended:?}");
}

#[test]
fn a_command_that_runs_dps_itself_finds_its_own_settings() {
    let emulator = Emulator::behaving("certificate-policy = \"issue\"\n");
    let folder = Folder::new();
    let status = format!("{} status --json", env!("CARGO_BIN_EXE_dps"));
    let variables = folder.path("variables");
    let hook = format!("env > '{variables}'; {status}");
    let mut command = emulator.register_dev(&["--request-certificate", "cert", "--exec", &hook]);
    command.env("DPS_ENDPOINT", emulator.endpoint());
    command.env("DPS_ID_SCOPE", text(&emulator.ready, "idScope")).env("DPS_REGISTRATION_ID", "dev");
    command.env("DPS_CA_FILE", text(&emulator.ready, "caFile")).env_remove("DPS_SYMMETRIC_KEY");
    command.env("DPS_SYMMETRIC_KEY_FILE", folder.file("dev.key", KEY));
    let ended = run(command.current_dir(folder.path("")));
    assert_eq!(ended.code, 0, "{ended:?}");
    // Whoever reads the names of the files may run elsewhere.
    let chain = format!("DPS_ASSIGNED_CERT={}", folder.path("cert/chain.pem"));
    assert!(read(&variables).contains(&chain), "{}", read(&variables));
    command.env("DPS_CERT", folder.path("cert/chain.pem"));
    let ended = run(command.env("DPS_KEY", folder.path("cert/key.pem")));
    let says = "there are DPS_SYMMETRIC_KEY_FILE and DPS_CERT with DPS_KEY";
    assert!(ended.code == 2 && ended.stdout.contains(says), "{ended:?}");
}

#[test]
fn an_interrupt_ends_the_command_and_what_it_started() {
    // What lives on has standard error open, and this would wait for it.
    let hook = "echo started >&2; sleep 600; echo over";
    let mut running = Running::start(&mut dps(&["register", "--emulator", "--exec", hook]));
    running.wait_for_stderr("started");
    running.signal("-TERM");
    let ended = running.ended();
    assert_eq!(ended.code, 143, "{ended:?}");
}

#[test]
fn a_stored_assignment_is_handed_over_at_each_boot_without_the_network() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let (state, string) = (folder.path("assignment.json"), folder.path("string"));
    let boot = ["--state", &state, "--output", "connection-string", &string];
    run(&mut emulator.register_dev(&boot)).json();
    let written = read(&string);
    fs::remove_file(&string).unwrap();
    let mut again = emulator.register_dev(&boot);
    drop(emulator.running);
    let ended = run(&mut again);
    assert_eq!((ended.code, ended.json()["source"].as_str()), (0, Some("stored")), "{ended:?}");
    assert_eq!(read(&string), written);
}

#[test]
fn a_stored_assignment_is_handed_over_whatever_the_clock_says_and_before_the_tpm_is_there() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let [state, env] = ["assignment.json", "dps.env"].map(|name| folder.path(name));
    let (chain, key) = expired(&folder);
    let boot = ["--state", &state, "--output", "env", &env];
    let first = run(&mut emulator.register_dev(&boot)).json();
    let mut by_certificate = emulator.register_dev(&boot);
    by_certificate.args(["--cert", &chain, "--key", &key]);
    let mut by_tpm = dps(&["register", "--json", "--endpoint", &emulator.endpoint()]);
    by_tpm.args(["--id-scope", text(&emulator.ready, "idScope"), "--tpm", "/no/such"]).args(boot);
    for command in [&mut by_certificate, &mut by_tpm] {
        fs::remove_file(&env).unwrap();
        let ended = run(command);
        let object = ended.json();
        assert_eq!((ended.code, text(&object, "source")), (0, "stored"), "{ended:?}");
        assert!(read(&env).contains(text(&first, "assignedHub")));
    }
    // Without one it is said before anything is sent.
    let error = run(emulator.register_dev(&["--cert", &chain]).args(["--key", &key]));
    let error = error.failed("configuration");
    assert!(text(&error, "message").starts_with(&format!("--cert {chain:?}: ")), "{error}");
}

#[test]
fn an_issued_certificate_is_handed_over_by_the_names_of_its_files() {
    let emulator = Emulator::behaving("certificate-policy = \"issue\"\n");
    let folder = Folder::new();
    let (toml, certificate) = (folder.path("config.toml"), folder.path("certificate"));
    let arguments = ["--request-certificate", &certificate, "--output", "iotedge-toml", &toml];
    let ended = run(&mut emulator.register_dev(&arguments));
    assert_eq!(ended.code, 0, "{ended:?}");
    let toml = read(&toml);
    assert!(toml.contains("method = \"x509\"") && !toml.contains(KEY), "{toml}");
    let key = toml.lines().find_map(|line| line.strip_prefix("identity_pk = \"file://")).unwrap();
    assert!(read(key.trim_end_matches('"')).contains("PRIVATE KEY"), "{toml}");
}

#[test]
fn an_issued_certificate_is_handed_over_at_each_boot_and_no_key_in_its_place() {
    let emulator = Emulator::behaving("certificate-policy = \"issue\"\n");
    let folder = Folder::new();
    let (state, certificate) = (folder.path("assignment.json"), folder.path("certificate"));
    let forms = ["connection-string", "env", "iotedge-toml"];
    let files = forms.map(|form| folder.path(form));
    let mut arguments = vec!["--state", &state, "--request-certificate", &certificate];
    for (form, file) in forms.iter().zip(&files) {
        arguments.extend(["--output", form, file]);
    }
    let first = run(&mut emulator.register_dev(&arguments)).json();
    let written = files.each_ref().map(|file| read(file));
    assert!(written[0].ends_with(";x509=true\n"), "{written:?}");
    assert!(written[1].contains(&format!("DPS_ASSIGNED_CERT='{certificate}/chain.pem'\n")));
    assert!(written[2].contains("method = \"x509\""), "{written:?}");
    let mut boots =
        [&[][..], &["--quiet"]].map(|more| emulator.register_dev(&[&arguments, more].concat()));
    drop(emulator.running);
    for boot in &mut boots {
        let ended = run(boot);
        let second = ended.json();
        assert_eq!((ended.code, text(&second, "source")), (0, "stored"), "{ended:?}");
        assert_eq!(second["certificate"], first["certificate"]);
        assert_eq!(files.each_ref().map(|file| read(file)), written);
    }
    // One that is there for another device is none of this one's.
    let other = Emulator::configured(&format!(
        "[[enrollment]]\nregistration-id = \"other\"\nsymmetric-key = \"{KEY}\"\ncertificate-policy = \"ignore\"\n"
    ));
    let mut command = other.register(&["--registration-id", "other"]);
    command.args(["--request-certificate", &certificate]).env("DPS_SYMMETRIC_KEY", KEY);
    let ended = run(command.args(["--output", "connection-string", &files[0]]));
    assert_eq!(ended.code, 9, "{ended:?}");
    assert!(read(&files[0]).ends_with(&format!(";SharedAccessKey={KEY}\n")));
}

#[test]
fn the_credential_that_was_taken_is_found_again_whatever_others_are_given() {
    const BAD: &str = "d3Jvbmcga2V5IG9mIHRoZSBkZXZpY2UgZGV2";
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let (state, string) = (folder.path("assignment.json"), folder.path("string"));
    let keys = [folder.file("bad", BAD), folder.file("good", KEY)];
    let hub = format!("localhost:{}", emulator.ready["mqttPort"]);
    let boot = |given: &[&str]| {
        let mut command = emulator.register_over("mqtt", &["--registration-id", "dev"]);
        command.args(["--state", &state, "--output", "connection-string", &string]);
        command.args(["--connect", "--hub-endpoint", &hub]);
        for file in given {
            command.args(["--symmetric-key-file", file]);
        }
        run(&mut command)
    };
    let [bad, good] = keys.each_ref().map(String::as_str);
    for (given, number) in
        [(&[bad, good][..], json!(2)), (&[good, bad], json!(1)), (&[good], json!(null))]
    {
        let ended = boot(given);
        let result = ended.json();
        assert_eq!((ended.code, &result["credential"]), (0, &number), "{ended:?}");
        assert!(!ended.stderr.contains("warning"), "{ended:?}");
        assert!(read(&string).ends_with(&format!(";SharedAccessKey={KEY}\n")), "{given:?}");
    }
    // Without it the first one is all that there is.
    let ended = boot(&[bad]);
    let says = "warning: the credential that the service took is none of those that are given now";
    assert!(ended.stderr.contains(says), "{ended:?}");
    assert_eq!((ended.code, &ended.json()["hub"]["status"]), (10, &json!("refused")));
}

#[test]
fn the_configuration_file_says_what_is_handed_over_from_its_folder() {
    let emulator = Emulator::behaving("");
    let folder = &emulator.folder;
    let (scope, ca) = (text(&emulator.ready, "idScope"), text(&emulator.ready, "caFile"));
    let endpoint = emulator.endpoint();
    folder.file("dev.key", KEY);
    folder.file("template", "{{deviceId}}");
    program(folder, &format!("touch '{}'", folder.path("ran")));
    let file = folder.file(
        "dps.toml",
        format!(
            "id-scope = \"{scope}\"\nregistration-id = \"dev\"\nendpoint = \"{endpoint}\"\nca-file = \"{ca}\"\n\
             symmetric-key-file = \"dev.key\"\noutput = [\"env dps.env\", \"template:template id\"]\nexec = \"./program\"\n"
        ),
    );
    let ended = run(&mut dps(&["register", "--config", &file]));
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(read(&folder.path("id")), "dev");
    assert!(read(&folder.path("dps.env")).contains("DPS_DEVICE_ID='dev'"));
    assert!(read(&folder.path("ran")).is_empty());
    let file = folder.file(
        "wrong.toml",
        format!("output = \"yaml {}\"\n{}", folder.path("x"), "id-scope = \"0ne1\"\n"),
    );
    let ended = run(&mut dps(&["register", "--config", &file]));
    assert!(
        ended.stderr.contains(&format!("{file}:1: output \"yaml\": there is no such format")),
        "{ended:?}"
    );
}
