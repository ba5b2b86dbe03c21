//! Values that can't be used: nothing is sent, and the message names the value and where it came from.

use crate::generated::{command_of, commands};
use crate::support::{Ended, Folder, KEY, closed_endpoint, dps, run, run_with_stdin, text};

/// A complete registration, then these arguments; the environment holds the key.
fn register(arguments: &[&str]) -> Ended {
    run(dps(&["register", "--json", "--id-scope", "0ne1", "--registration-id", "dev"])
        .args(["--endpoint", &closed_endpoint()])
        .args(arguments)
        .env("DPS_SYMMETRIC_KEY", KEY))
}

fn refused(ended: &Ended, parts: &[&str]) {
    let error = ended.failed("configuration");
    let message = text(&error, "message");
    for part in parts {
        assert!(message.contains(part), "{part:?} in {message}");
    }
    assert!(!message.contains(KEY) && error["retryable"] == false, "{error}");
}

#[test]
fn each_flag_is_checked_and_named() {
    let folder = Folder::new();
    let missing = folder.path("missing");
    let empty = folder.file("empty", "");
    let text_file = folder.file("text", "hello");
    let binary = folder.file("binary", [0xf0, 0x00, 0xff]);
    let list = folder.file("list.json", "[1]");
    let at_missing = format!("@{missing}");
    let at_list = format!("@{list}");
    let long = "x".repeat(100_000);
    let long = format!("{{\"p\": \"{long}\"}}");
    let cases: &[(&[&str], &[&str])] = &[
        (&["--transport", "pigeon"], &["--transport \"pigeon\"", "auto", "http", "amqp-ws"]),
        (&["--transport", "HTTP"], &["--transport \"HTTP\"", "http"]),
        (&["--timeout", "0"], &["--timeout \"0\"", "seconds"]),
        (&["--timeout", "-1"], &["--timeout \"-1\""]),
        (&["--timeout", "soon"], &["--timeout \"soon\""]),
        (&["--timeout", "1e9"], &["--timeout \"1e9\"", "86400"]),
        (&["--poll-floor", "-0.1"], &["--poll-floor \"-0.1\""]),
        (&["--poll-floor", "nan"], &["--poll-floor \"nan\""]),
        (
            &["--proxy", "http://proxy:3128 ;"],
            &["--proxy \"http://proxy:3128\"", "a space and a comment"],
        ),
        (
            &["--proxy", "http://me:hidden@proxy:3128\r"],
            &["***@proxy:3128", "a carriage return follows"],
        ),
        (
            &["--proxy", "'http://proxy:3128'"],
            &["--proxy \"http://proxy:3128\"", "quotes stand around"],
        ),
        (&["--proxy", "socks5://h:1"], &["--proxy \"socks5://h:1\"", "http://"]),
        (&["--ca-file", &missing], &["--ca-file", &missing, "No such file"]),
        (&["--ca-file", &text_file], &["--ca-file", &text_file, "no certificate"]),
        (&["--ca-file", "file:///ca.pem"], &["--ca-file \"file:///ca.pem\"", "leave file:// out"]),
        (&["--ca-file", "/"], &["--ca-file \"/\"", "can't be read"]),
        (&["--payload", "{\"a\":"], &["--payload \"{\\\"a\\\":\"", "not JSON", "line 1 column 5"]),
        (&["--payload", "[1]"], &["--payload \"[1]\"", "an array", "object"]),
        (&["--payload", &at_missing], &["--payload", &missing, "No such file"]),
        (&["--payload", &at_list], &["--payload", "an array"]),
        (&["--payload", &long], &["--payload: the request", "98304"]),
        (&["--payload", "@"], &["--payload: the path is empty", "standard input"]),
        (&["--symmetric-key-file="], &["--symmetric-key-file: the path is empty"]),
        (&["--ca-file="], &["--ca-file: the path is empty"]),
        (&["--symmetric-key-file", "/"], &["--symmetric-key-file \"/\"", "directory"]),
        (&["--model-id", ""], &["--model-id", "empty"]),
        (&["--symmetric-key-file", &missing], &["--symmetric-key-file", &missing, "No such file"]),
        (&["--symmetric-key-file", &empty], &["--symmetric-key-file", &empty, "empty"]),
        (&["--symmetric-key-file", &text_file], &["--symmetric-key-file", &text_file]),
        (&["--symmetric-key-file", &binary], &["--symmetric-key-file", &binary, "UTF-8"]),
        (&["--symmetric-key-file", "/dev/zero"], &["--symmetric-key-file \"/dev/zero\"", "larger"]),
        (&["--group-key-file", &text_file], &["--group-key-file", &text_file]),
        (&["--cert", &text_file, "--key", &text_file], &["--cert", &text_file]),
        (&["--cert", &text_file], &["--key"]),
        (&["--symmetric-key", "x"], &["--symmetric-key"]),
        (&["--frobnicate"], &["--frobnicate"]),
        (&["stray"], &["stray"]),
    ];
    for (arguments, parts) in cases {
        refused(&register(arguments), parts);
    }
}

#[test]
fn ids_and_endpoints_are_named_with_their_source() {
    let id_with_space =
        run(dps(&["register", "--json", "--id-scope", "0ne1", "--registration-id", "my device"])
            .env("DPS_SYMMETRIC_KEY", KEY));
    refused(&id_with_space, &["--registration-id \"my device\"", "' '"]);
    let bad_scope =
        run(dps(&["register", "--json", "--id-scope", "0ne/1", "--registration-id", "dev"])
            .env("DPS_SYMMETRIC_KEY", KEY));
    refused(&bad_scope, &["--id-scope \"0ne/1\""]);
    let cases = [
        ("DPS_REGISTRATION_ID", "my device"),
        ("DPS_ID_SCOPE", "0ne 1"),
        ("DPS_ENDPOINT", "https://dps.example"),
        ("DPS_TRANSPORT", "pigeon"),
        ("DPS_CA_FILE", "/nowhere/ca.pem"),
        ("DPS_PROXY", "ftp://proxy"),
    ];
    for (name, value) in cases {
        let mut command = dps(&["register", "--json"]);
        command.env("DPS_ID_SCOPE", "0ne1").env("DPS_REGISTRATION_ID", "dev");
        command.env("DPS_SYMMETRIC_KEY", KEY).env(name, value);
        refused(&run(&mut command), &[&format!("{name} {value:?}: ")]);
    }
    let mut command =
        dps(&["register", "--json", "--id-scope", "0ne1", "--registration-id", "dev"]);
    refused(&run(command.env("DPS_SYMMETRIC_KEY", "*")), &["DPS_SYMMETRIC_KEY: "]);
}

#[test]
fn what_is_missing_is_named_with_the_variable_that_would_do() {
    let none = dps(&["register", "--json"]);
    refused(&run(&mut { none }), &["--id-scope", "DPS_ID_SCOPE"]);
    refused(
        &run(&mut dps(&["register", "--json", "--id-scope", "0ne1"])),
        &["--registration-id", "DPS_REGISTRATION_ID"],
    );
    let mut command =
        dps(&["register", "--json", "--id-scope", "0ne1", "--registration-id", "dev"]);
    refused(
        &run(&mut command),
        &["--symmetric-key-file", "DPS_SYMMETRIC_KEY", "--group-key-file", "--cert"],
    );
    refused(&run(command.env("DPS_SYMMETRIC_KEY", "")), &["none was given"]);
}

#[test]
fn one_credential_at_a_time() {
    let both = register(&["--symmetric-key-file", "a", "--group-key-file", "b"]);
    refused(&both, &["--symmetric-key-file and --group-key-file"]);
    let other = register(&["--symmetric-key-file", "a", "--cert", "b", "--key", "c"]);
    refused(&other, &["--symmetric-key-file and --cert with --key"]);
}

#[test]
fn a_key_in_place_of_its_file_is_not_repeated() {
    for flag in ["--symmetric-key-file", "--group-key-file"] {
        refused(&register(&[flag, KEY]), &[&format!("{flag}: this is what the file should hold")]);
    }
    let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let lines: Vec<&str> = pem.lines().collect();
    let [cert, ca_file] = ["cert", "ca-file"].map(|flag| format!("--{flag}={pem}"));
    for (arguments, says) in [
        (&["--cert", "c", "--key", &pem][..], "argument 12, after --key, is PEM text"),
        (&[&cert, "--key", "k"], "--cert: this is what the file should hold"),
        (&[&ca_file], "--ca-file: this is what the file should hold"),
    ] {
        let ended = register(arguments);
        refused(&ended, &[says]);
        assert!(!ended.stdout.contains(lines[1]), "{ended:?}");
    }
}

#[test]
fn an_argument_that_is_not_text_is_named_by_its_place_and_not_repeated() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    let proxy = OsStr::from_bytes(b"http://user:pass\xffword@proxy");
    let ended = run(dps(&["register", "--json", "--proxy"]).arg(proxy));
    refused(&ended, &["command line: argument 4, after --proxy, is not UTF-8"]);
    let ended = run(dps(&["derive-key", "--group-key-file"]).arg(proxy));
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert!(ended.stderr.contains("argument 3") && !ended.stderr.contains("word"), "{ended:?}");
    let mut command = dps(&["register", "--json", "--id-scope", "0ne1"]);
    refused(&run(command.env("DPS_REGISTRATION_ID", proxy)), &["DPS_REGISTRATION_ID: it is not"]);
}

#[test]
fn standard_input_is_read_once() {
    let mut command =
        dps(&["register", "--json", "--id-scope", "0ne1", "--registration-id", "dev"]);
    command.args(["--symmetric-key-file", "-", "--payload", "@-"]);
    let ended = run_with_stdin(&mut command, KEY);
    refused(&ended, &["--payload \"-\"", "--symmetric-key-file"]);
}

#[test]
fn the_emulator_flag_refuses_what_makes_no_sense_with_it() {
    for flag in ["--endpoint", "--ca-file", "--proxy", "--symmetric-key-file", "--group-key-file"] {
        let ended = run(&mut dps(&["register", "--emulator", "--json", flag, "x"]));
        refused(&ended, &["--emulator", flag]);
    }
}

#[test]
fn what_a_transport_can_not_carry_is_refused_by_name() {
    for transport in ["mqtt", "mqtt-ws"] {
        refused(&register(&["--transport", transport, "--force"]), &["--force ", "http", "amqp"]);
    }
}

#[test]
fn an_encrypted_key_is_refused_by_name_before_the_certificate_matters() {
    let folder = Folder::new();
    let certificate = rcgen::generate_simple_self_signed(vec!["dev".into()]).unwrap();
    let chain = folder.file("chain.pem", certificate.cert.pem());
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAAwAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let key = folder.file("locked.pem", encrypted);
    refused(&register(&["--cert", &chain, "--key", &key]), &["--key", &key, "encrypted"]);
    let foreign = folder.file("foreign.pem", rcgen::KeyPair::generate().unwrap().serialize_pem());
    refused(&register(&["--cert", &chain, "--key", &foreign]), &[&foreign]);
}

#[test]
fn a_certificate_of_another_device_is_refused_before_anything_is_sent() {
    let folder = Folder::new();
    let certificate = rcgen::generate_simple_self_signed(vec!["dev".into()]).unwrap();
    let chain = folder.file("chain.pem", certificate.cert.pem());
    let key = folder.file("key.pem", certificate.signing_key.serialize_pem());
    refused(
        &register(&["--cert", &chain, "--key", &key]),
        &["--cert", &chain, "common name", "dev"],
    );
}

#[test]
fn usage_errors_are_for_people_unless_json_is_asked_for() {
    for arguments in [&["register", "--frobnicate"][..], &["enroll"], &[]] {
        let ended = run(&mut dps(arguments));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ended.stderr.contains("Usage"), "{}", ended.stderr);
    }
    refused(&run(&mut dps(&["enroll", "--json"])), &["enroll"]);
}

#[test]
fn the_help_of_each_command_has_examples() {
    for command in commands() {
        let ended = run(command_of(&command).arg("--help"));
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{command:?}");
        assert!(ended.stdout.contains("Examples:\n"), "{}", ended.stdout);
        assert!(ended.stdout.contains(&format!("dps {command} ")), "{}", ended.stdout);
    }
    assert_eq!(run(&mut dps(&["--help", "--json"])).code, 0);
}
