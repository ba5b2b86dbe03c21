//! `dps emulate`.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{Emulator, Folder, KEY, Running, TRANSPORTS, dps, keys, run, sorted, text};

const READY_KEYS: [&str; 10] = [
    "ready",
    "idScope",
    "httpsPort",
    "mqttPort",
    "amqpPort",
    "adminPort",
    "adminToken",
    "caFile",
    "groupKey",
    "serviceConnectionString",
];

fn get(port: &Value, path: &str) -> String {
    let port = u16::try_from(port.as_u64().expect("a port")).unwrap();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(tcp, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_first_line_says_all_and_all_of_it_is_true() {
    let emulator = Emulator::start(Folder::new(), &[]);
    let ready = &emulator.ready;
    assert_eq!(keys(ready), sorted(READY_KEYS), "{ready}");
    assert_eq!(ready["ready"], true);
    for port in ["httpsPort", "mqttPort", "amqpPort", "adminPort"] {
        assert!(ready[port].as_u64().is_some_and(|port| port > 0), "{ready}");
    }
    let ca = fs::read_to_string(text(ready, "caFile")).unwrap();
    assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"), "{ca}");
    assert!(get(&ready["adminPort"], "/health").starts_with("HTTP/1.1 200"));

    let group = emulator.folder.file("group.key", text(ready, "groupKey"));
    let any = ["--registration-id", "any-device", "--group-key-file", &group];
    assert_eq!(run(&mut emulator.register(&any)).assigned()["deviceId"], "any-device");
    assert!(get(&ready["adminPort"], "/events").contains("any-device"));
}

#[test]
fn without_a_file_for_it_the_ca_is_null_and_a_given_group_key_is_kept() {
    let mut command =
        dps(&["emulate", "--group-key", KEY, "--service-key", KEY, "--mqtt-port", "0"]);
    let mut running = crate::support::Running::start(&mut command);
    let mut stdout = std::io::BufReader::new(running.child().stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&ready["caFile"], text(&ready, "groupKey")), (&Value::Null, KEY));
    let service = format!(
        "HostName=localhost:{};SharedAccessKeyName=provisioningserviceowner;SharedAccessKey={KEY}",
        ready["httpsPort"]
    );
    assert_eq!(text(&ready, "serviceConnectionString"), service);
}

#[test]
fn it_takes_its_time_as_the_service_does_unless_it_is_to_be_fast() {
    let toml = format!(
        "[[enrollment]]\nregistration-id = \"dev\"\nsymmetric-key = \"{KEY}\"\n\
         [[enrollment]]\nregistration-id = \"own\"\nsymmetric-key = \"{KEY}\"\npolls = 0\n"
    );
    let started = |fast: &[&str]| {
        let folder = Folder::new();
        let config = folder.file("emulator.toml", &toml);
        let arguments = [&["--config", &config, "--events", "-"], fast].concat();
        Emulator::start_with_stderr(folder, &arguments, std::process::Stdio::piped())
    };
    // The wait would pass the deadline: so it fails at once.
    let register = |emulator: &Emulator, device: &str| {
        let mut command = emulator.register(&["--registration-id", device, "--timeout", "2"]);
        run(command.env("DPS_SYMMETRIC_KEY", KEY)).code
    };
    let mut slow = started(&[]);
    assert_eq!(register(&slow, "dev"), 5);
    let answer = slow.event("answer");
    assert_eq!(answer["registrationStatus"], "assigning", "{answer}");
    assert_eq!(answer["retryAfter"][0], "3", "{answer}");
    assert_eq!(register(&slow, "own"), 0, "it says itself how many polls it takes");
    assert_eq!(register(&started(&["--fast"]), "dev"), 0);
}

#[test]
fn it_stops_cleanly_and_its_port_is_free_again() {
    for signal in ["-INT", "-TERM"] {
        let first = Emulator::behaving("");
        run(&mut first.register_dev(&[])).assigned();
        let port = first.ready["httpsPort"].to_string();
        first.running.signal(signal);
        let ended = first.running.ended();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{signal:?}");
        let again = Emulator::start(Folder::new(), &["--https-port", &port]);
        assert_eq!(again.ready["httpsPort"].to_string(), port, "{signal:?}");
    }
}

#[test]
fn with_stop_at_eof_it_serves_until_its_standard_input_ends() {
    for variable in [false, true] {
        let mut command = dps(&["emulate"]);
        match variable {
            true => command.env("DPS_STOP_AT_EOF", "1"),
            false => command.arg("--stop-at-eof"),
        };
        let mut running = crate::support::Running::start(command.stdin(Stdio::piped()));
        let mut stdout = BufReader::new(running.child().stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let mut stdin = running.child().stdin.take().unwrap();
        stdin.write_all(b"what is written does not matter\n").unwrap();
        assert!(get(&ready["adminPort"], "/health").starts_with("HTTP/1.1 200"));
        drop(stdin);
        let ended = running.ended();
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{variable}");
    }
}

#[test]
fn a_configuration_file_counts_and_flags_win_over_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = Folder::new();
    let toml = format!(
        "id-scope = \"0neFile\"\nhttps-port = {port}\n[[enrollment]]\nregistration-id = \"dev\"\nsymmetric-key = \"{KEY}\"\nhub = \"from.file\"\n"
    );
    let config = folder.file("emulator.toml", toml);
    let emulator =
        Emulator::start(folder, &["--config", &config, "--https-port", "0", "--group-key", KEY]);
    assert_eq!(text(&emulator.ready, "idScope"), "0neFile");
    assert_eq!(text(&emulator.ready, "groupKey"), KEY);
    assert!(emulator.ready["adminPort"].is_u64());
    assert_eq!(run(&mut emulator.register_dev(&[])).assigned()["assignedHub"], "from.file");

    let plain = Emulator::configured("admin-port = 0");
    assert_eq!(plain.ready["groupKey"], Value::Null);
    assert!(plain.ready["adminPort"].is_u64());
}

#[test]
fn the_example_of_a_configuration_is_one() {
    let example = run(&mut dps(&["emulate", "--example-config"]));
    assert_eq!((example.code, example.stderr.as_str()), (0, ""));
    let folder = Folder::new();
    let config = folder.file("emulator.toml", example.stdout);
    let emulator = Emulator::start(folder, &["--config", &config]);
    assert_eq!(text(&emulator.ready, "idScope"), "0ne00AABBCC");
}

#[test]
fn events_are_lines_of_json_after_the_first_line_or_in_a_file() {
    let mut emulator = Emulator::start(Folder::new(), &["--group-key", KEY, "--events", "-"]);
    let group = emulator.folder.file("group.key", KEY);
    let device = ["--registration-id", "dev", "--group-key-file", &group];
    run(&mut emulator.register(&device)).assigned();
    assert_eq!(emulator.event("connected")["sequence"], 0, "all of it comes after the first line");
    assert_eq!(emulator.event("answer")["registrationStatus"], "assigned");

    let folder = Folder::new();
    let file = folder.path("events.jsonl");
    let emulator = Emulator::start(folder, &["--group-key", KEY, "--events", &file]);
    run(&mut emulator.register(&device)).assigned();
    emulator.running.signal("-TERM");
    assert_eq!(emulator.running.ended().code, 0);
    let events = fs::read_to_string(&file).unwrap();
    assert!(events.lines().count() > 3 && !events.contains("sig="), "{events}");
}

#[cfg(target_os = "linux")]
#[test]
fn events_that_can_no_longer_be_written_give_one_warning_and_stop_nothing() {
    let emulator = Emulator::start(Folder::new(), &["--group-key", KEY, "--events", "/dev/full"]);
    let group = emulator.folder.file("group.key", KEY);
    let device = ["--registration-id", "dev", "--group-key-file", &group];
    run(&mut emulator.register(&device)).assigned();
    emulator.running.signal("-TERM");
    let ended = emulator.running.ended();
    let said = "warning: --events \"/dev/full\": it can't be written: No space left";
    assert_eq!((ended.code, ended.stderr.lines().count()), (0, 1), "{ended:?}");
    assert!(ended.stderr.starts_with(said), "{ended:?}");
}

#[test]
fn with_v_it_prints_a_line_for_each_registration_and_each_refusal() {
    let toml = format!(
        "[[enrollment]]\nregistration-id = \"dev\"\nsymmetric-key = \"{KEY}\"\npolls = 1\nretry-after = 0\n\
         [[enrollment]]\nregistration-id = \"off\"\nsymmetric-key = \"{KEY}\"\nenabled = false\n\
         [[enrollment]]\nregistration-id = \"busy\"\nsymmetric-key = \"{KEY}\"\nregister = [{{ refuse = 429, times = \"forever\" }}]\n"
    );
    let folder = Folder::new();
    let config = folder.file("emulator.toml", toml);
    let emulator = Emulator::start(folder, &["--config", &config, "-v"]);
    let mut expected = Vec::new();
    for transport in TRANSPORTS {
        let register = |device, key| {
            let mut command = emulator.register_over(transport, &["--registration-id", device]);
            command.args(["--poll-floor", "0", "--timeout", "1"]).env("DPS_SYMMETRIC_KEY", key);
            run(&mut command).code
        };
        assert_eq!(register("dev", KEY), 0, "{transport:?}");
        assert_eq!(register("dev", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl"), 3, "{transport:?}");
        assert_eq!(register("off", KEY), 3, "{transport:?}");
        expected.push(format!(" {transport} dev assigned"));
        let by = if transport.ends_with("-ws") { "websocket" } else { transport };
        expected.push(format!(" {by} dev refused: the token is not signed with the right key"));
        expected.push(format!(" {transport} off disabled"));
    }
    let mut busy = emulator.register(&["--registration-id", "busy", "--timeout", "1"]);
    assert_eq!(run(busy.env("DPS_SYMMETRIC_KEY", KEY)).code, 7);
    expected.push(" http busy refused: the registration with status 429".to_owned());
    emulator.running.signal("-TERM");
    let ended = emulator.running.ended();
    for line in &expected {
        assert!(ended.stderr.contains(line), "{line}: {}", ended.stderr);
    }
    assert!(
        ended.stderr.lines().all(|line| line.contains("assigned")
            || line.contains("refused: ")
            || line.contains("disabled")),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_name_goes_into_the_certificate() {
    let emulator =
        Emulator::start(Folder::new(), &["--listen", "127.0.0.1", "--name", "127.0.0.2"]);
    let group = emulator.folder.file("group.key", text(&emulator.ready, "groupKey"));
    let device = ["--registration-id", "dev", "--group-key-file", &group];
    run(&mut emulator.register(&device)).assigned();
}

#[test]
fn bad_values_are_named_with_exit_code_2() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let missing = folder.path("missing");
    let nowhere = folder.path("no/such/folder");
    let text_file = folder.file("text", "hello");
    let toml = folder.file("bad.toml", "https-port = \"x\"");
    let typo =
        folder.file("typo.toml", "[[enrollment]]\nregistration-id = \"dev\"\nsymetric-key = \"a\"");
    let named = folder.file("named.toml", "server-names = [\"a b\"]");
    let grouped = folder.file(
        "grouped.toml",
        format!("[[enrollment]]\ngroup = \"group\"\nsymmetric-key = \"{KEY}\""),
    );
    let cases: &[(&[&str], &[&str])] = &[
        (&["--https-port", &port], &["https-port: ", &port, "127.0.0.1", "another port, or 0"]),
        (&["--mqtt-port", &port], &[&port, "127.0.0.1"]),
        (&["--amqp-port", &port], &[&port, "127.0.0.1"]),
        (&["--admin-port", &port], &["admin-port: ", &port, "127.0.0.1"]),
        (&["--https-port", "65536"], &["65536", "--https-port"]),
        (&["--listen", "everywhere"], &["everywhere", "--listen"]),
        (&["--listen", "192.0.2.1"], &["192.0.2.1", "an address of this machine"]),
        (&["--name", "a b"], &["--name \"a b\": give a host name"]),
        (&["--name", "[::1]"], &["--name \"[::1]\": give a host name"]),
        (&["--config", &named], &["--config", &named, "server-names \"a b\": give a host name"]),
        (&["--config", &grouped, "--group-key", KEY], &["--group-key", "\"group\"", "rename"]),
        (&["--config", &missing], &["--config", &missing, "No such file"]),
        (&["--config", &toml], &["--config", "https-port"]),
        (&["--config", &typo], &["--config", "symetric-key"]),
        (&["--group-key", "c2VjcmV0*"], &["--group-key"]),
        (&["--service-key", "c2VjcmV0*"], &["--service-key"]),
        (&["--group-ca", &missing], &["--group-ca", &missing, "No such file"]),
        (&["--group-ca", &text_file], &["--group-ca", &text_file, "no certificate"]),
        (&["--ca-out", &nowhere], &["--ca-out", &nowhere, "can't be written"]),
        (&["--events", &nowhere], &["--events", &nowhere, "can't be written"]),
    ];
    for (arguments, parts) in cases {
        let ended = run(dps(&["emulate"]).args(*arguments));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}: {ended:?}");
        for part in *parts {
            assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
        }
        assert!(!ended.stderr.contains("c2VjcmV0"), "{}", ended.stderr);
    }
}

#[test]
fn what_is_not_found_names_the_path() {
    let emulator = Emulator::start(Folder::new(), &["-v"]);
    let answer = get(&emulator.ready["adminPort"], "/nope");
    assert!(
        answer.contains(r#"\"/nope\" is not served; GET /openapi.json says what is"#),
        "{answer}"
    );
}

#[test]
#[cfg(unix)]
fn no_file_is_overwritten_that_another_flag_names() {
    let folder = Folder::new();
    let config = folder.file("emulator.toml", "admin-port = 0\n");
    let group_ca = folder.file("group.pem", "not looked at");
    let [hard, soft, dangling] = ["hard", "soft", "dangling"].map(|name| folder.path(name));
    fs::hard_link(&config, &hard).unwrap();
    std::os::unix::fs::symlink(&config, &soft).unwrap();
    std::os::unix::fs::symlink(folder.path("new"), &dangling).unwrap();
    let (new, state) = (folder.path("new"), folder.path("s.db"));
    let dotted = |name: &str| folder.path(&format!("./{name}"));
    let cases = [
        (["--ca-out", &config, "--config", &config], ["--ca-out", "--config"]),
        (["--ca-out", &dotted("emulator.toml"), "--config", &config], ["--ca-out", "--config"]),
        (["--ca-out", &hard, "--config", &config], ["--ca-out", "--config"]),
        (["--ca-out", &soft, "--config", &config], ["--ca-out", "--config"]),
        (["--ca-out", &group_ca, "--group-ca", &group_ca], ["--ca-out", "--group-ca"]),
        (["--events", &soft, "--config", &config], ["--events", "--config"]),
        (["--events", &group_ca, "--group-ca", &group_ca], ["--events", "--group-ca"]),
        (["--ca-out", &new, "--events", &new], ["--ca-out", "--events"]),
        (["--ca-out", &dotted("new"), "--events", &new], ["--ca-out", "--events"]),
        (["--ca-out", &dangling, "--events", &new], ["--ca-out", "--events"]),
        (["--ca-out", &folder.path("s.db-wal"), "--state", &state], ["--ca-out", "log of --state"]),
        (["--events", &folder.path("s.db-wal"), "--state", &state], ["--events", "log of --state"]),
    ];
    for (arguments, [named, other]) in cases {
        let ended = run(dps(&["emulate"]).args(arguments));
        assert_eq!(ended.code, 2, "{arguments:?}: {ended:?}");
        let says = format!("{other} names the same file; name another");
        assert!(ended.stderr.contains(named) && ended.stderr.contains(&says), "{ended:?}");
    }
    assert_eq!(fs::read_to_string(config).unwrap(), "admin-port = 0\n");
    assert_eq!(fs::read_to_string(group_ca).unwrap(), "not looked at");
    assert!(!std::path::Path::new(&new).exists());
}

#[test]
fn no_file_is_overwritten_that_the_configuration_file_names() {
    let folder = Folder::new();
    let (certificate, key) = certificate(|_| {});
    let files = [("ca.pem", &certificate), ("ca.key", &key), ("device.pem", &certificate)];
    for (name, pem) in files {
        folder.file(name, pem);
    }
    let config = folder.file(
        "emulator.toml",
        "ca-cert-file = \"ca.pem\"\nca-key-file = \"ca.key\"\n\
         [[enrollment]]\nregistration-id = \"dev\"\ncertificate-file = \"device.pem\"\n",
    );
    for (name, pem) in files {
        for flag in ["--ca-out", "--events"] {
            let file = folder.path(name);
            let ended = run(&mut dps(&["emulate", "--config", &config, flag, &file]));
            let says = "the configuration file names the same file; name another";
            let named = ended.stderr.contains(flag) && ended.stderr.contains(says);
            assert!(ended.code == 2 && named, "{ended:?}");
            assert_eq!(&fs::read_to_string(file).unwrap(), pem);
        }
    }
}

/// A certificate with its key, as PEM.
fn certificate(change: impl FnOnce(&mut rcgen::CertificateParams)) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "Our CA");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn what_is_no_authority_is_refused_by_the_name_of_its_file() {
    let folder = Folder::new();
    let (good, good_key) = certificate(|_| {});
    let (leaf, leaf_key) = certificate(|params| params.is_ca = rcgen::IsCa::NoCa);
    let (signs_nothing, its_key) = certificate(|params| {
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    });
    let (old, old_key) = certificate(|params| {
        params.not_before = rcgen::date_time_ymd(2015, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let (early, early_key) =
        certificate(|params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
    let cases = [
        (&leaf, &leaf_key, "--ca-cert", "lacks CA:TRUE"),
        (&signs_nothing, &its_key, "--ca-cert", "lacks keyCertSign"),
        (&old, &old_key, "--ca-cert", "it has expired"),
        (&early, &early_key, "--ca-cert", "not valid yet"),
        (&good, &leaf_key, "--ca-key", "it is not the key of"),
        (&good, &good, "--ca-key", "key"),
        (&good_key, &good_key, "--ca-cert", "certificate"),
    ];
    for (certificate, key, flag, says) in cases {
        let secret = key.lines().nth(1).unwrap();
        let (certificate, key) = (folder.file("ca.pem", certificate), folder.file("ca.key", key));
        let ended = run(&mut dps(&["emulate", "--ca-cert", &certificate, "--ca-key", &key]));
        assert_eq!(ended.code, 2, "{ended:?}");
        let file = if flag == "--ca-key" { "ca.key" } else { "ca.pem" };
        let named = ended.stderr.contains(flag) && ended.stderr.contains(file);
        assert!(named && ended.stderr.contains(says), "{says}: {}", ended.stderr);
        assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
    }
    for (pem, says) in [(&leaf, "lacks CA:TRUE"), (&signs_nothing, "lacks keyCertSign")] {
        let file = folder.file("group.pem", pem);
        let ended = run(&mut dps(&["emulate", "--group-ca", &file]));
        assert_eq!(ended.code, 2, "{ended:?}");
        let named = ended.stderr.contains("--group-ca") && ended.stderr.contains("group.pem");
        assert!(named && ended.stderr.contains(says), "{}", ended.stderr);
    }
    let file = folder.file("ca.pem", &good);
    for [flag, other] in [["--ca-cert", "--ca-key"], ["--ca-key", "--ca-cert"]] {
        let ended = run(&mut dps(&["emulate", flag, &file]));
        assert!(ended.code == 2 && ended.stderr.contains(&format!("give {other}")), "{ended:?}");
    }
}

#[test]
fn the_authority_is_fresh_at_each_start_unless_one_is_given() {
    let subject =
        |emulator: &Emulator| fs::read_to_string(text(&emulator.ready, "caFile")).unwrap();
    let [one, two] = [(), ()].map(|()| Emulator::start(Folder::new(), &[]));
    assert_ne!(subject(&one), subject(&two));
    let folder = Folder::new();
    let (certificate, key) = certificate(|_| {});
    let (ca, key) = (folder.file("ca.pem", &certificate), folder.file("ca.key", key));
    let in_the_file = format!("ca-cert-file = {ca:?}\nca-key-file = {key:?}\n");
    let as_flags = ["--ca-cert", ca.as_str(), "--ca-key", &key];
    for (keys, flags) in [("", &as_flags[..]), ("", &as_flags), (&in_the_file, &[])] {
        let folder = Folder::new();
        let config = folder.file(
            "emulator.toml",
            format!("{keys}[[enrollment]]\nregistration-id = \"dev\"\nsymmetric-key = \"{KEY}\"\n"),
        );
        let arguments = [flags, &["--config", &config]].concat();
        let emulator = Emulator::start(folder, &arguments);
        assert_eq!(subject(&emulator), certificate);
        run(&mut emulator.register_dev(&[])).assigned();
    }
}

#[test]
fn a_file_without_an_enrollment_is_warned_of() {
    for (arguments, is_warned) in [(&[][..], true), (&["--quiet"], false)] {
        let folder = Folder::new();
        let config = folder.file("emulator.toml", "https-port = 0\n");
        let arguments = [&["--config", config.as_str()], arguments].concat();
        let emulator = Emulator::start(folder, &arguments);
        emulator.running.signal("-TERM");
        let warning = "warning: the configuration file has no enrollment";
        assert_eq!(emulator.running.ended().stderr.contains(warning), is_warned);
    }
}

/// Each device takes a descriptor, and a shell lets a program have few to begin with.
#[cfg(target_os = "linux")]
#[test]
fn it_has_as_many_descriptors_as_the_system_allows() {
    let emulate = dps(&["emulate"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 64; exec \"$0\" \"$@\""]);
    limited.arg(emulate.get_program()).args(emulate.get_args()).stdin(Stdio::null());
    emulate.get_envs().for_each(|(name, _)| {
        limited.env_remove(name);
    });
    let mut running = Running::start_with_stdout(&mut limited, Stdio::piped());
    let mut ready = String::new();
    let stdout = running.child().stdout.take().expect("its output");
    BufReader::new(stdout).read_line(&mut ready).unwrap();
    assert!(ready.contains("\"ready\":true"), "{ready}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", running.id())).unwrap();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files: Vec<_> = files.expect("a limit of files").split_whitespace().take(2).collect();
    assert!(files[0] == files[1] && files[0] != "64", "{files:?}");
}
