//! `dps doctor`: what `dps register` would meet, for people and as JSON.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use serde_json::Value;

use crate::support::{
    Emulator, Ended, Folder, KEY, Running, Silent, TRANSPORTS, closed_endpoint, dps, keys, run,
    sorted, text,
};

/// What a registration is given, for the doctor.
fn doctor(register: &Command, arguments: &[&str]) -> Command {
    let mut command = dps(&["doctor"]);
    command.args(register.get_args().skip(1)).args(arguments);
    for (name, value) in register.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn healthy(emulator: &Emulator, transport: &str, arguments: &[&str]) -> Command {
    doctor(&emulator.register_dev_over(transport, &[]), arguments)
}

/// The report, which must have all its keys.
fn report(ended: &Ended) -> Value {
    let report = ended.json();
    assert_eq!(keys(&report), sorted(["verdict", "endsAt", "checks"]), "{report}");
    for check in report["checks"].as_array().unwrap() {
        let expected = sorted(["id", "status", "seen", "advice", "elapsedMs"]);
        assert_eq!(keys(check), expected, "{check}");
    }
    report
}

fn check<'a>(report: &'a Value, id: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("{id} in {report}"))
}

/// The exit code, the verdict, and the first check that failed.
fn outcome(ended: &Ended) -> (i32, String, Option<String>) {
    let report = report(ended);
    let checks = report["checks"].as_array().unwrap();
    let failed = checks.iter().find(|check| check["status"] == "failed");
    let id = failed.map(|check| text(check, "id").to_owned());
    (ended.code, text(&report, "verdict").to_owned(), id)
}

#[test]
fn a_registered_device_is_healthy_on_every_transport() {
    let emulator = Emulator::behaving("");
    run(&mut emulator.register_dev(&[])).assigned();
    for transport in TRANSPORTS {
        let ended = run(&mut healthy(&emulator, transport, &[]));
        assert_eq!(outcome(&ended), (0, "healthy".to_owned(), None), "{transport}: {ended:?}");
        let report = report(&ended);
        assert_eq!(report["endsAt"], Value::Null, "{transport}");
        assert_eq!(check(&report, "tls.authority")["status"], "ok", "{transport}");
        assert_eq!(check(&report, "service.credential")["status"], "ok", "{transport}");
    }
}

#[test]
fn the_exit_code_is_that_of_the_registration() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let wrong = folder.file("wrong.key", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl");
    for transport in TRANSPORTS {
        let ended = run(&mut healthy(&emulator, transport, &["--symmetric-key-file", &wrong]));
        let refused = (3, "broken".into(), Some("service.credential".into()));
        assert_eq!(outcome(&ended), refused, "{transport}: {ended:?}");
        assert_eq!(report(&ended)["endsAt"], "service", "{transport}");
    }

    let ended = run(&mut dps(&["doctor", "--json", "--endpoint", "localhost:1"]));
    assert_eq!(outcome(&ended), (2, "broken".into(), Some("settings.id-scope".into())));
    assert_eq!(report(&ended)["endsAt"], "device");

    let at = |endpoint: &str, more: &[&str]| {
        let device = ["--id-scope", "0ne1", "--registration-id", "dev", "--endpoint", endpoint];
        let mut command = dps(&["doctor", "--json"]);
        command.args(device).args(more).env("DPS_SYMMETRIC_KEY", KEY);
        run(&mut command)
    };
    let ended = at(&closed_endpoint(), &[]);
    assert_eq!(outcome(&ended), (4, "broken".into(), Some("port.ipv4".into())));
    assert_eq!(report(&ended)["endsAt"], "network");

    let silent = Silent::new();
    let ended = at(&silent.endpoint, &["--timeout", "1"]);
    assert_eq!((ended.code, text(&report(&ended), "verdict")), (5, "broken"));

    let mut command = dps(&["doctor", "--json", "--id-scope", "0ne1", "--registration-id", "dev"]);
    let ended = run(command.args(["--endpoint", "localhost:1", "--tpm", "/no/such/tpm"]));
    assert_eq!(outcome(&ended), (8, "broken".into(), Some("credential.key".into())));
}

#[test]
fn people_see_the_way_and_where_it_ends_and_what_to_do_next() {
    let emulator = Emulator::behaving("");
    let mut json = emulator.register_dev(&[]);
    run(&mut json).assigned();
    let spoken = |arguments: &[&str]| {
        let port = emulator.endpoint();
        let mut command = dps(&["doctor", "--endpoint", &port, "--registration-id", "dev"]);
        command.args(["--id-scope", text(&emulator.ready, "idScope")]).args(arguments);
        run(command.env("DPS_SYMMETRIC_KEY", KEY))
    };
    let ca = text(&emulator.ready, "caFile");
    let ended = spoken(&["--ca-file", ca]);
    assert!(
        ended.stdout.contains("  this device ── network ── TLS ── service ── hub\n"),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("healthy: nothing stands in the way"), "{ended:?}");
    assert!(!ended.stdout.contains("clock.year"), "only what matters: {ended:?}");
    let ended = spoken(&["--ca-file", ca, "-v"]);
    assert!(ended.stdout.contains("\nok       clock.year: "), "{ended:?}");
    assert!(ended.stdout.contains("\nskipped  proxy.name: no proxy is used\n"), "{ended:?}");

    let ended = spoken(&[]);
    assert_eq!(ended.code, 4, "{ended:?}");
    let way = "  this device ── network ── ✗ TLS ·· service ·· hub\n";
    assert!(ended.stdout.contains(way), "{ended:?}");
    assert!(ended.stdout.contains("\nfailed   tls.authority: the certificate of "), "{ended:?}");
    assert!(ended.stdout.contains("--ca-file FILE"), "{ended:?}");
    assert!(ended.stdout.contains("broken: a registration ends in the TLS handshake"), "{ended:?}");
    let quiet = spoken(&["--quiet"]);
    assert_eq!(quiet.stdout.lines().filter(|line| line.contains("──")).count(), 0, "{quiet:?}");
    assert!(quiet.stdout.contains("failed   tls.authority"), "{quiet:?}");
}

#[test]
fn what_was_not_looked_at_is_not_called_healthy() {
    let emulator = Emulator::behaving("");
    let ended = run(&mut healthy(&emulator, "http", &["--only", "hub"]));
    assert_eq!(outcome(&ended), (1, "unknown".to_owned(), None), "{ended:?}");
}

#[test]
fn a_check_that_is_none_is_a_usage_error_that_lists_those_that_are() {
    let ended = run(&mut dps(&["doctor", "--json", "--only", "tls.nothing"]));
    let error = ended.failed("configuration");
    let message = text(&error, "message");
    assert!(message.starts_with("--only \"tls.nothing\": there is no such check"), "{message}");
    assert!(message.contains("clock.year, clock.release"), "{message}");
    let ended = run(dps(&["doctor", "--json"]).env("DPS_ONLY", "clock.year"));
    assert_eq!(outcome(&ended), (0, "healthy".to_owned(), None), "{ended:?}");
}

#[test]
fn the_environments_proxy_is_told_and_its_password_is_not() {
    let emulator = Emulator::behaving("");
    let proxy = "http://me:canary-of-the-proxy@127.0.0.1:1";
    let set = |arguments: &[&str], names: &[(&str, &str)]| {
        let mut command = healthy(&emulator, "http", arguments);
        command.envs(names.iter().copied());
        let ended = run(&mut command);
        assert!(!format!("{ended:?}").contains("canary-of-the-proxy"), "{ended:?}");
        report(&ended)
    };
    let unused = set(&[], &[("HTTPS_PROXY", proxy)]);
    let seen = text(check(&unused, "settings.proxy"), "seen");
    assert!(seen.contains("HTTPS_PROXY is set and not used without --proxy env"), "{seen}");
    let used = set(&["--proxy", "env"], &[("HTTPS_PROXY", proxy)]);
    let port = check(&used, "proxy.port");
    assert_eq!((&port["status"], &used["endsAt"]), (&"failed".into(), &"proxy".into()), "{used}");
    let left_out = [("HTTPS_PROXY", proxy), ("NO_PROXY", "localhost")];
    let left_out = set(&["--proxy", "env"], &left_out);
    let seen = text(check(&left_out, "settings.proxy"), "seen");
    assert!(seen.contains("NO_PROXY leaves out"), "{seen}");
    assert_eq!(left_out["endsAt"], Value::Null, "{left_out}");
    let wrong = set(&["--proxy", "env"], &[("HTTPS_PROXY", "ftp://proxy")]);
    let failed = check(&wrong, "settings.proxy");
    assert!(text(failed, "seen").starts_with("HTTPS_PROXY \"ftp://proxy\""), "{failed}");
}

#[test]
fn a_key_file_that_others_can_read_is_named_and_its_key_is_not() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let file = folder.file("dev.key", KEY);
    let device = ["--registration-id", "dev", "--symmetric-key-file", &file];
    for (mode, status) in [(0o644, "warning"), (0o600, "ok")] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let ended = run(&mut doctor(&emulator.register(&device), &[]));
        assert!(!format!("{ended:?}").contains(KEY), "{ended:?}");
        let report = report(&ended);
        let found = check(&report, "credential.permissions");
        assert_eq!(found["status"], status, "{found}");
        assert_eq!(found["seen"].as_str().unwrap().contains("dev.key"), mode == 0o644, "{found}");
    }
}

#[test]
fn the_hub_is_that_of_the_stored_assignment_or_the_one_that_is_named() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let state = folder.path("assignment.json");
    run(&mut emulator.register_dev_over("mqtt", &["--state", &state]));
    let hub = |arguments: &[&str]| {
        let ended = run(&mut healthy(&emulator, "mqtt", arguments));
        (ended.code, report(&ended))
    };
    let (_, unknown) = hub(&[]);
    assert_eq!(check(&unknown, "hub.name")["status"], "skipped", "{unknown}");
    let (code, kept) = hub(&["--state", &state]);
    let found = check(&kept, "hub.8883");
    assert_eq!((code, text(found, "status")), (0, "ok"), "{found}");
    let (code, closed) = hub(&["--hub-endpoint", &closed_endpoint()]);
    assert_eq!((code, text(&closed, "endsAt")), (10, "hub"), "{closed}");
    // What was assigned at another endpoint is not taken, as a registration would not.
    let ended = run(&mut healthy(&emulator, "amqp", &["--state", &state]));
    let (code, other) = (ended.code, report(&ended));
    assert_eq!(check(&other, "hub.name")["status"], "skipped", "{other}");
    assert_eq!(check(&other, "settings.files")["status"], "warning", "{code}: {other}");
    let ended = run(&mut healthy(&emulator, "mqtt", &["--hub-endpoint", "http://hub"]));
    ended.failed("configuration");
}

/// What `dps register` is given besides, for both of them.
#[test]
fn what_would_end_a_registration_before_it_begins_is_found_and_nothing_is_written() {
    let emulator = Emulator::behaving("");
    run(&mut emulator.register_dev(&[])).assigned();
    let folder = Folder::new();
    let (output, gone) = (folder.path("dev.env"), folder.path("gone/dev.env"));
    let (certificate, far) = (folder.path("certificate"), folder.path("gone/far/certificate"));
    let state = folder.path("state.json");
    let all = ["--connect", "--output", "env", &output, "--exec", "true", "--show-keys"];
    let all = [&all[..], &["--request-certificate", &certificate, "--state", &state]].concat();
    let files = || fs::read_dir(folder.path(".")).unwrap().count();
    let before = files();
    let ended = run(&mut healthy(&emulator, "http", &all));
    assert_eq!(outcome(&ended), (0, "healthy".to_owned(), None), "{ended:?}");
    assert_eq!(check(&report(&ended), "settings.files")["status"], "ok", "{ended:?}");
    assert_eq!(files(), before, "nothing is written");

    let newer = folder.file("newer.json", "{\"version\": 99, \"sha256\": \"\", \"content\": {}}");
    let foreign = folder.file("foreign.json", "{\"other\": 1}");
    for wrong in [
        vec!["--output", "env", &gone],
        vec!["--request-certificate", &far],
        vec!["--request-key", "request.key"],
        vec!["--state", &newer],
        vec!["--state", &foreign],
    ] {
        let ended = run(&mut healthy(&emulator, "http", &wrong));
        let found = (2, "broken".to_owned(), Some("settings.files".to_owned()));
        assert_eq!(outcome(&ended), found, "{wrong:?}: {ended:?}");
    }
    let ended = run(&mut dps(&["doctor", "--json", "--emulator"]));
    assert_eq!(check(&report(&ended), "settings.files")["status"], "failed", "{ended:?}");
    let damaged = folder.file("damaged.json", "");
    let ended = run(&mut healthy(&emulator, "http", &["--state", &damaged]));
    assert_eq!((ended.code, text(&report(&ended), "verdict")), (0, "warnings"), "{ended:?}");
}

#[test]
fn files_with_a_pin_that_others_can_read_are_named() {
    let emulator = Emulator::behaving("");
    let folder = Folder::new();
    let pin = folder.file("open.pin", "1234");
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o644)).unwrap();
    let ended = run(&mut healthy(&emulator, "http", &["--pkcs11-pin-file", &pin]));
    let report = report(&ended);
    let found = check(&report, "credential.permissions");
    assert!(text(found, "seen").contains("open.pin"), "{found}");
    assert!(!ended.stdout.contains("1234"), "{ended:?}");
}

#[test]
fn an_interrupt_ends_it() {
    let silent = Silent::new();
    let mut command = dps(&["doctor", "--json", "--id-scope", "0ne1", "--registration-id", "dev"]);
    command.args(["--endpoint", &silent.endpoint]).env("DPS_SYMMETRIC_KEY", KEY);
    let running = Running::start(&mut command);
    let _hanging = silent.accept();
    running.signal("-INT");
    let ended = running.ended();
    assert_eq!(ended.code, 130, "{ended:?}");
    assert_eq!(ended.json()["error"]["kind"], "cancelled", "{ended:?}");

    let mut command = dps(&["doctor", "--id-scope", "0ne1", "--registration-id", "dev"]);
    command.args(["--endpoint", &silent.endpoint, "-v"]).env("DPS_SYMMETRIC_KEY", KEY);
    let running = Running::start(&mut command);
    let _hanging = silent.accept();
    running.signal("-TERM");
    let ended = running.ended();
    assert_eq!(ended.code, 143, "{ended:?}");
    assert!(ended.stdout.contains("ok       name.lookup"), "what was found: {ended:?}");
    assert!(ended.stdout.contains("unknown: it was interrupted"), "{ended:?}");
}
