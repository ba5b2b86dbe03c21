//! Registrations that fail: each kind with its exit code, and the bound on time.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{
    Emulator, Ended, Folder, KEY, Silent, TRANSPORTS, closed_endpoint, dps, register_at, run, text,
};

/// How long a process may live on after `--timeout`.
const GRACE: Duration = Duration::from_secs(1);

fn fails(toml: &str, arguments: &[&str], kind: &str) -> Value {
    run(&mut Emulator::behaving(toml).register_dev(arguments)).failed(kind)
}

#[test]
fn a_wrong_key_is_rejected_on_every_transport() {
    let emulator = Emulator::behaving("");
    for transport in TRANSPORTS {
        let mut command = emulator.register_dev_over(transport, &[]);
        let error = run(command.env("DPS_SYMMETRIC_KEY", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl"))
            .failed("rejected");
        assert_eq!(error["stage"], "authenticate", "{transport:?}");
        assert_eq!(error["transport"], transport, "{transport:?}");
        assert_eq!(error["httpStatus"], 401, "{transport:?}");
        assert_eq!(error["retryable"], false, "{transport:?}");
        assert_eq!(error["retryAfterSeconds"], Value::Null, "{transport:?}");
        assert!(!text(&error, "hint").is_empty(), "{transport:?}");
    }
}

#[test]
fn a_refusal_has_the_codes_of_the_service() {
    let emulator = Emulator::behaving("");
    let mut command = emulator.register_dev(&[]);
    let error =
        run(command.env("DPS_SYMMETRIC_KEY", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl")).failed("rejected");
    assert_eq!(error["errorCode"], 401_002);
    assert!(!text(&error, "trackingId").is_empty());
}

#[test]
fn an_unknown_device_is_rejected() {
    let emulator = Emulator::behaving("");
    let mut command = emulator.register(&["--registration-id", "not-enrolled"]);
    let error = run(command.env("DPS_SYMMETRIC_KEY", KEY)).failed("rejected");
    assert!(matches!(error["httpStatus"].as_u64(), Some(401 | 404)), "{error}");
}

#[test]
fn failed_and_disabled_are_rejected() {
    let outcome = "outcome = { error-code = 400207, message = \"Custom allocation failed\" }";
    let error = fails(outcome, &[], "rejected");
    assert_eq!(error["errorCode"], 400_207);
    assert!(text(&error, "message").contains("Custom allocation failed"), "{error}");
    let error = fails("enabled = false", &[], "rejected");
    assert!(text(&error, "message").contains("disabled"), "{error}");
}

#[test]
fn throttled_to_the_end_is_rejected_and_says_when_to_come_back() {
    let toml = "register = [{ refuse = 429, retry-after = 100, times = \"forever\" }]";
    let error = fails(toml, &["--timeout", "5"], "rejected");
    assert_eq!(error["httpStatus"], 429);
    assert_eq!(error["retryable"], true);
    assert_eq!(error["retryAfterSeconds"], 100);
}

#[test]
fn a_refusal_that_can_succeed_later_has_an_exit_code_of_its_own() {
    for (toml, code) in [
        ("register = [{ refuse = 429, retry-after = 100, times = \"forever\" }]", 7),
        ("register = [{ refuse = 503, retry-after = 100, times = \"forever\" }]", 7),
        ("register = [{ error-code = 409203, retry-after = 100, times = \"forever\" }]", 7),
        ("register = [{ refuse = 403, times = \"forever\" }]", 3),
        ("enabled = false", 3),
    ] {
        let emulator = Emulator::behaving(toml);
        for transport in TRANSPORTS {
            let mut command = emulator.register_dev_over(transport, &["--timeout", "5"]);
            assert_eq!(run(&mut command).code, code, "{transport}: {toml}");
        }
    }
}

#[test]
fn a_refused_token_says_what_the_clock_says() {
    let ahead = format!(
        "clock-ahead = 7230\n[[enrollment]]\nregistration-id = \"dev\"\nsymmetric-key = \"{KEY}\""
    );
    let ahead = Emulator::configured(&ahead);
    let right = Emulator::behaving("");
    for transport in TRANSPORTS {
        let over_http = transport == "http";
        let behind =
            if over_http { ", 2 hours behind the service's: set the clock" } else { ": a token" };
        let same = if over_http { ", as the service's does" } else { ": a token holds only if" };
        for (emulator, says) in [(&ahead, behind), (&right, same)] {
            let mut command = emulator.register_dev_over(transport, &[]);
            let error = run(command.env("DPS_SYMMETRIC_KEY", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl"))
                .failed("rejected");
            let hint = text(&error, "hint");
            assert!(hint.contains("this machine's clock says 20"), "{transport}: {hint}");
            assert!(hint.contains(&format!("Z{says}")), "{transport}: {hint}");
        }
    }
    // The right key, and a token that the service takes for one that has expired.
    let error = run(&mut ahead.register_dev(&[])).failed("rejected");
    assert!(text(&error, "hint").contains("2 hours behind"), "{error}");
}

#[test]
fn a_failure_names_its_device_operation_endpoint_and_time() {
    let emulator = Emulator::behaving("polls = 1\nretry-after = 3600");
    let error = run(&mut emulator.register_dev(&["--timeout", "5"])).failed("timeout");
    assert_eq!(error["registrationId"], "dev");
    assert_eq!(text(&error, "endpoint"), emulator.endpoint());
    assert!(text(&error, "operationId").len() > 10, "{error}");
    assert!(text(&error, "timestamp").starts_with("20"), "{error}");
    // What the service says of the time comes first.
    let mut command = emulator.register_dev(&[]);
    let error =
        run(command.env("DPS_SYMMETRIC_KEY", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl")).failed("rejected");
    assert!(text(&error, "timestamp").ends_with('Z'), "{error}");
    assert_eq!(error["operationId"], Value::Null);
    // What was given counts, whatever is wrong with the rest.
    let device = ["--json", "--registration-id", "dev", "--endpoint", "localhost:1"];
    for wrong in [
        &["--timeout", "x"][..],
        &["--id-scope", " "],
        &[],
        &["--poll-floor", "-1"],
        &["--transport", "none"],
    ] {
        let error = run(dps(&["register"]).args(device).args(wrong)).failed("configuration");
        assert_eq!(
            (&error["registrationId"], &error["endpoint"]),
            (&"dev".into(), &"localhost:1".into())
        );
    }
    // What is not known, or can't be one, is null.
    let device = ["--json", "--registration-id", "d v", "--endpoint", "http://"];
    let error = run(dps(&["register"]).args(device)).failed("configuration");
    assert_eq!((&error["registrationId"], &error["endpoint"]), (&Value::Null, &Value::Null));
    let error = run(&mut dps(&["register", "--json", "--timeout", "x"])).failed("configuration");
    assert_eq!((&error["registrationId"], &error["endpoint"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_status_is_said_once() {
    let emulator = Emulator::behaving("register = [{ refuse = 403, body = \"empty\" }]");
    let error = run(&mut emulator.register_dev(&[])).failed("rejected");
    assert_eq!(text(&error, "message").matches("403").count(), 1, "{error}");
}

#[test]
fn json_escapes_what_a_peer_wrote_to_confuse_a_terminal() {
    let words = "\\u202Ecod.exe \\u009B2J \\u007F \\u2066 größe";
    let emulator = Emulator::behaving(&format!("payload = {{ text = \"{words}\" }}"));
    let ended = run(&mut emulator.register_dev(&[]));
    assert!(ended.stdout.contains("\\u202ecod.exe \\u009b2J \\u007f \\u2066 größe"), "{ended:?}");
    let payload = &ended.assigned()["payload"]["text"];
    assert_eq!(payload, "\u{202e}cod.exe \u{9b}2J \u{7f} \u{2066} größe");
    let outcome = format!("outcome = {{ error-code = 400207, message = \"{words}\" }}");
    let ended = run(&mut Emulator::behaving(&outcome).register_dev(&[]));
    ended.failed("rejected");
    assert!(!ended.stdout.contains(['\u{202e}', '\u{9b}', '\u{7f}']), "{ended:?}");
}

#[test]
fn connections_that_fail_name_their_stage() {
    let error = run(&mut register_at(&closed_endpoint(), &[])).failed("connection");
    assert_eq!((text(&error, "stage"), &error["retryable"]), ("connect", &Value::Bool(true)));
    assert_eq!(error["httpStatus"], Value::Null);

    let emulator = Emulator::behaving("");
    let other = Emulator::behaving("");
    let mut command =
        register_at(&emulator.endpoint(), &["--ca-file", text(&other.ready, "caFile")]);
    let error = run(&mut command).failed("connection");
    assert_eq!((text(&error, "stage"), &error["retryable"]), ("tls", &Value::Bool(false)));
    assert!(text(&error, "message").contains("unknown authority"), "{error}");

    let error = fails("register = [{ deliver = \"close-before\" }]", &[], "connection");
    assert_eq!(error["stage"], "register");
}

#[test]
fn a_malformed_answer_is_a_protocol_error() {
    let error = fails("register = [{ body = \"garbage\" }]", &[], "protocol");
    assert_eq!((text(&error, "stage"), &error["retryable"]), ("register", &Value::Bool(false)));
    let error = fails("outcome = { status = \"daydreaming\" }", &[], "protocol");
    assert!(text(&error, "message").contains("daydreaming"), "{error}");
}

fn within(timeout: Duration, command: &mut Command) -> Ended {
    let start = Instant::now();
    let ended = run(command);
    let took = start.elapsed();
    assert!(took <= timeout + GRACE, "{took:?}: {ended:?}");
    ended
}

fn is_gone_with_the_timeout_whatever_the_peer_does(transport: &str) {
    let half = Duration::from_millis(500);
    let silent = Silent::new();
    let over = ["--timeout", "0.5", "--transport", transport];
    let error = within(half, &mut silent.register(&over)).failed("timeout");
    assert_eq!((text(&error, "stage"), &error["retryable"]), ("tls", &Value::Bool(true)));
    // A poll every 50 ms, not a flood.
    let arguments = ["--timeout", "0.5", "--poll-floor", "0.05"];
    let deaf = Emulator::configured("connections = [\"hang-after-tls\"]");
    within(half, &mut deaf.register_dev_over(transport, &arguments)).failed("timeout");
    for toml in [
        "register = [{ deliver = \"never\" }]",
        "polls = 1\nretry-after = 0\nquery = [{ deliver = \"never\" }]",
        "register = [{ deliver = { drip = 1, every-ms = 300 } }]",
        "polls = \"forever\"\nretry-after = 0",
    ] {
        let emulator = Emulator::behaving(toml);
        within(half, &mut emulator.register_dev_over(transport, &arguments)).failed("timeout");
    }
}

macro_rules! over_each_transport {
    ($check:ident: $($name:ident $transport:literal),+) => {
        mod $check {
            $(#[test]
            fn $name() {
                super::$check($transport);
            })+
        }
    };
}

over_each_transport!(is_gone_with_the_timeout_whatever_the_peer_does:
    http "http", mqtt "mqtt", mqtt_ws "mqtt-ws", amqp "amqp", amqp_ws "amqp-ws");

#[test]
fn a_wait_that_would_pass_the_timeout_fails_now_and_says_when_to_come_back() {
    let emulator = Emulator::behaving("polls = 1\nretry-after = 3600");
    let ended = within(Duration::ZERO, &mut emulator.register_dev(&["--timeout", "30"]));
    let error = ended.failed("timeout");
    assert_eq!(error["stage"], "query");
    assert!(error["retryAfterSeconds"].as_u64().is_some_and(|wait| wait >= 3569), "{error}");
}

#[test]
fn a_timeout_is_printed_as_it_was_given() {
    let silent = Silent::new();
    for (timeout, says) in [("0.5", "within 0.5 s"), ("0.001", "within 0.001 s")] {
        let error = run(&mut silent.register(&["--timeout", timeout])).failed("timeout");
        assert!(text(&error, "message").contains(says), "{error}");
    }
}

#[test]
fn a_key_that_never_comes_ends_with_the_timeout() {
    let mut command =
        dps(&["register", "--json", "--id-scope", "0ne1", "--registration-id", "dev"]);
    command.args(["--symmetric-key-file", "-", "--timeout", "0.3"]).stdin(Stdio::piped());
    let mut running = crate::support::Running::start(&mut command);
    // Kept open: nothing comes, and no end either.
    let _stdin = running.child().stdin.take();
    let start = Instant::now();
    let error = running.ended().failed("configuration");
    assert!(start.elapsed() < Duration::from_millis(300) + GRACE, "{:?}", start.elapsed());
    assert!(text(&error, "message").starts_with("--symmetric-key-file \"-\": "), "{error}");
}

#[test]
fn a_password_or_a_pin_that_never_comes_ends_with_the_timeout() {
    let folder = Folder::new();
    let fifo = folder.path("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for arguments in [
        ["--key", "pkcs11:object=k", "--pkcs11-pin-file", &fifo],
        ["--key", "tpm:0x81000002", "--tpm-key-password-file", &fifo],
    ] {
        let mut command =
            dps(&["register", "--json", "--id-scope", "0ne1", "--registration-id", "dev"]);
        command.args(["--timeout", "0.3", "--cert", "c"]).args(arguments);
        let start = Instant::now();
        let error = run(&mut command).failed("configuration");
        assert!(start.elapsed() < Duration::from_millis(300) + GRACE, "{:?}", start.elapsed());
        let says = "file with a password or a PIN: it did not come to its end within 0.3 s";
        assert_eq!(text(&error, "message"), says);
    }
}

#[test]
fn people_get_the_facts_and_a_hint_on_standard_error() {
    let emulator = Emulator::behaving("");
    let ca = fs::read(text(&emulator.ready, "caFile")).unwrap();
    let folder = Folder::new();
    let mut command = dps(&["register", "--endpoint", &emulator.endpoint()]);
    command.args(["--ca-file", &folder.file("ca.pem", ca), "--registration-id", "dev"]);
    command
        .args(["--id-scope", text(&emulator.ready, "idScope")])
        .env("DPS_SYMMETRIC_KEY", "d3Jvbmcga2V5IG9mIGEgZGV2aWNl");
    let ended = run(&mut command);
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""));
    let tail: Vec<&str> = ended.stderr.lines().rev().take(3).collect();
    let [hint, facts, error] = tail.as_slice() else { panic!("{tail:?}") };
    assert!(error.starts_with("error: ") && error.contains("401002"), "{error}");
    assert!(error.contains("tracking id"), "{error}");
    assert_eq!(*facts, "  rejected: stage authenticate, transport http, status 401");
    assert!(hint.starts_with("hint: "), "{hint}");
}

#[test]
fn what_a_peer_says_does_not_reach_the_terminal_as_a_command() {
    let outcome = "outcome = { error-code = 400207, message = \"red \\u001B[31m and\\na line\" }";
    let emulator = Emulator::behaving(outcome);
    let mut command =
        dps(&["register", "--endpoint", &emulator.endpoint(), "--registration-id", "dev"]);
    command.args(["--ca-file", text(&emulator.ready, "caFile")]);
    command.args(["--id-scope", text(&emulator.ready, "idScope")]).env("DPS_SYMMETRIC_KEY", KEY);
    let ended = run(&mut command);
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains("red \\u{1b}[31m and\\na line"), "{}", ended.stderr);
}

#[test]
fn a_token_that_the_service_repeats_is_not_printed() {
    let token = "SharedAccessSignature sr=a%2Fb&sig=SECRET%3D&se=1";
    let toml = format!("outcome = {{ error-code = 400207, message = \"{token}\" }}");
    let emulator = Emulator::behaving(&toml);
    for transport in TRANSPORTS {
        let ended = run(&mut emulator.register_dev_over(transport, &["-vv"]));
        assert!(text(&ended.failed("rejected"), "message").contains("sig=***"), "{ended:?}");
        assert!(!format!("{}{}", ended.stdout, ended.stderr).contains("SECRET"), "{ended:?}");
    }
}
