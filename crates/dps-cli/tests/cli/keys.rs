//! `dps derive-key` and `dps sas-token`.

use crate::support::{Folder, dps, run, run_with_stdin};

/// The example of <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#group-enrollments>.
const GROUP_KEY: &str =
    "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
const DEVICE: &str = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
const DEVICE_KEY: &str = "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=";

#[test]
fn a_device_key_is_derived_from_a_file_or_standard_input_and_printed_alone() {
    let folder = Folder::new();
    let file = folder.file("group.key", format!("{GROUP_KEY}\n"));
    let by_file =
        run(&mut dps(&["derive-key", "--registration-id", DEVICE, "--group-key-file", &file]));
    assert_eq!(
        (by_file.code, by_file.stdout, by_file.stderr),
        (0, format!("{DEVICE_KEY}\n"), String::new())
    );
    let mut command = dps(&["derive-key", "--group-key-file", "-"]);
    let by_stdin = run_with_stdin(command.env("DPS_REGISTRATION_ID", DEVICE), GROUP_KEY);
    assert_eq!(by_stdin.stdout, format!("{DEVICE_KEY}\n"));
}

#[test]
fn a_token_is_signed_and_printed_alone() {
    // Computed with Python's hmac over the resource 0ne000EEBBD%2Fregistrations%2FFirstDevice.
    let key = "O+H9VTcdJP0Tqkl7bh4nVG0OJNrAataMpuWB54D0VEc=";
    let device = ["--id-scope", "0ne000EEBBD", "--registration-id", "FirstDevice"];
    let mut command = dps(&["sas-token", "--symmetric-key-file", "-", "--expiry", "1591921306"]);
    let ended = run_with_stdin(command.args(device), key);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let head = "SharedAccessSignature sr=0ne000EEBBD%2Fregistrations%2FFirstDevice&sig=";
    let tail = "&se=1591921306&skn=registration\n";
    let signature = ended.stdout.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
    assert_eq!(
        signature,
        Some("sL4rhIkkskrpxkpy7ywhLDZgoTDyCxVSuq%2BAoGTGCmA%3D"),
        "{}",
        ended.stdout
    );

    let mut command = dps(&["sas-token", "--expires-in", "60"]);
    let ended = run(command.args(device).env("DPS_SYMMETRIC_KEY", key));
    let expiry: u64 = ended
        .stdout
        .split_once("&se=")
        .and_then(|(_, rest)| rest.split_once('&'))
        .and_then(|(expiry, _)| expiry.parse().ok())
        .unwrap_or_else(|| panic!("{ended:?}"));
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now..=now + 60).contains(&expiry), "{expiry} at {now}");
}

#[test]
fn bad_values_are_named_and_keys_are_not_repeated() {
    let folder = Folder::new();
    let file = folder.file("bad.key", "c2VjcmV0*");
    let missing = folder.path("missing");
    let derive = ["derive-key", "--registration-id", "dev", "--group-key-file"];
    let sign =
        ["sas-token", "--id-scope", "0ne1", "--registration-id", "dev", "--symmetric-key-file"];
    let cases: &[(Vec<&str>, &str)] = &[
        ([&derive[..], &[&file]].concat(), "--group-key-file"),
        ([&derive[..], &[&missing]].concat(), "No such file"),
        (
            vec!["derive-key", "--registration-id", "a b", "--group-key-file", &file],
            "--registration-id \"a b\"",
        ),
        (vec!["derive-key", "--registration-id", "dev"], "--group-key-file"),
        ([&sign[..], &[&file]].concat(), "--symmetric-key-file"),
        ([&sign[..], &[&file, "--expires-in", "0"]].concat(), "--expires-in \"0\""),
        ([&sign[..], &[&file, "--expires-in", "1.5"]].concat(), "--expires-in \"1.5\""),
        ([&sign[..], &[&file, "--expiry", "18446744073709551615"]].concat(), "9999"),
        ([&derive[..], &["-"]].concat(), "--group-key-file \"-\": it is empty"),
        ([&sign[..], &["-"]].concat(), "--symmetric-key-file \"-\": it is empty"),
        ([&sign[..], &["/"]].concat(), "directory"),
        ([&sign[..], &[&file, "--expiry", "1", "--expires-in", "1"]].concat(), "--expires-in"),
        (vec!["sas-token", "--id-scope", "0ne1", "--registration-id", "dev"], "DPS_SYMMETRIC_KEY"),
    ];
    for (arguments, names) in cases {
        let ended = run(&mut dps(arguments));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(ended.stderr.contains(names), "{names} in {}", ended.stderr);
        assert!(!ended.stderr.contains("c2VjcmV0"), "{}", ended.stderr);
    }
}
