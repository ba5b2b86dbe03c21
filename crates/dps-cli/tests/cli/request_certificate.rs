//! `dps register --request-certificate`: key and chain on disk, or what stood there before, and always the hub.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use dps_client::{CertificateFolder, SymmetricKey};
use dps_emulator::{Attestation, Behavior, CertificatePolicy, Enrollment, EventKind, Fault};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{
    Emulator, Ended, Folder, KEY, Running, SUCCESS_KEYS, TRANSPORTS, closed_endpoint, dps, keys,
    register_at, run, sorted, text,
};

const ISSUES: &str = "certificate-policy = \"issue\"\ncertificate-days = 7";

pub(crate) fn openssl(arguments: &[&str]) -> String {
    let output = Command::new("openssl").args(arguments).output().expect("openssl runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the certificate stands in the chain, by the judgment of another implementation.
pub(crate) fn verify_by_openssl(folder: &Folder, chain: &str) {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let chain = fs::read_to_string(chain).unwrap();
    let blocks: Vec<String> =
        chain.split(BEGIN).skip(1).map(|block| format!("{BEGIN}{block}")).collect();
    let [leaf, between @ .., root] = &blocks[..] else { panic!("{chain}") };
    let leaf = folder.file("leaf.pem", leaf);
    let between = folder.file("between.pem", between.concat());
    let root = folder.file("root.pem", root);
    let purpose = ["verify", "-x509_strict", "-purpose", "sslclient"];
    let files = ["-CAfile", &root, "-untrusted", &between, &leaf];
    assert_eq!(openssl(&[&purpose[..], &files].concat()), format!("{leaf}: OK\n"));
    assert!(openssl(&["x509", "-noout", "-subject", "-in", &leaf]).ends_with("CN = dev\n"));
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// The same command for the device `dev`, without `--json`.
fn for_people(command: &Command) -> Command {
    let arguments = command.get_args().map(|argument| argument.to_str().unwrap());
    let arguments: Vec<&str> = arguments.filter(|argument| *argument != "--json").collect();
    let mut command = dps(&arguments);
    command.env("DPS_SYMMETRIC_KEY", KEY);
    command
}

/// Assigned, without the certificate that was asked for.
fn lacks(ended: &Ended, status: &str) -> String {
    let object = ended.json();
    assert_eq!(ended.code, 9, "{ended:?}");
    assert_eq!(object["status"], "assigned", "{object}");
    assert!(!text(&object, "assignedHub").is_empty(), "{object}");
    let certificate = &object["certificate"];
    assert_eq!(text(certificate, "status"), status, "{object}");
    assert_eq!(certificate["chainFile"], Value::Null, "{object}");
    text(certificate, "message").to_owned()
}

#[test]
fn a_certificate_comes_over_each_transport_and_is_stored_for_its_owner_alone() {
    let emulator = Emulator::behaving(ISSUES);
    for transport in TRANSPORTS {
        let folder = Folder::new();
        let path = folder.path("certificate");
        let request = ["--request-certificate", &path];
        let ended = run(&mut emulator.register_dev_over(transport, &request));
        let object = ended.json();
        assert_eq!(ended.code, 0, "{transport}: {ended:?}");
        let names = SUCCESS_KEYS.into_iter().chain(["certificate"]);
        assert_eq!(keys(&object), sorted(names), "{transport}");
        let certificate = &object["certificate"];
        let names = ["status", "chainFile", "keyFile", "notBefore", "notAfter", "message"];
        assert_eq!(keys(certificate), sorted(names), "{transport}");
        assert_eq!(certificate["status"], "stored", "{transport}");
        let [chain, key] = ["chainFile", "keyFile"].map(|name| text(certificate, name).to_owned());
        assert_eq!((&*chain, &*key), (&*format!("{path}/chain.pem"), &*format!("{path}/key.pem")));

        verify_by_openssl(&folder, &chain);
        let [of_key, of_certificate] = [
            openssl(&["pkey", "-pubout", "-in", &key]),
            openssl(&["x509", "-noout", "-pubkey", "-in", &chain]),
        ];
        assert_eq!(of_key, of_certificate, "{transport}");
        let folders = ["", "pairs", "pairs/1"].map(|name| mode(format!("{path}/{name}")));
        assert_eq!((folders, [mode(&chain), mode(&key)]), ([0o700; 3], [0o600; 2]), "{transport}");

        let status = run(&mut dps(&["cert", "status", "--json", &path])).json();
        assert_eq!(status["notAfter"], certificate["notAfter"], "{transport}");
        assert_eq!((&status["subject"], &status["keyFits"]), (&"CN=dev".into(), &true.into()));
        let due = run(&mut dps(&["cert", "needs-renewal", &path]));
        assert_eq!(due.code, 1, "{transport}: {due:?}");
    }
}

#[test]
fn people_read_where_it_is_and_nobody_reads_the_key() {
    let emulator = Emulator::behaving(ISSUES);
    let folder = Folder::new();
    let path = folder.path("certificate");
    let mut command = for_people(&emulator.register_dev(&["-vvv"]));
    let ended = run(command.env("DPS_REQUEST_CERTIFICATE", &path));
    assert_eq!(ended.code, 0, "{ended:?}");
    let stored = CertificateFolder::open(&path).unwrap().load().unwrap();
    for line in [
        format!("  chain      {path}/chain.pem\n"),
        format!("  key        {path}/key.pem\n"),
        "  not after  20".to_owned(),
    ] {
        assert!(ended.stdout.contains(&line), "{line:?}: {}", ended.stdout);
    }
    let key = String::from_utf8(stored.key_pem().unwrap().to_vec()).unwrap();
    let lines: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    assert!(!lines.is_empty());
    for line in lines {
        assert!(!ended.stdout.contains(line) && !ended.stderr.contains(line), "a part of the key");
    }
}

#[test]
fn assigned_without_a_certificate_prints_the_hub_and_says_that_the_policy_is_missing() {
    let emulator = Emulator::behaving("certificate-policy = \"ignore\"");
    let folder = Folder::new();
    let path = folder.path("certificate");
    let request = ["--request-certificate", path.as_str()];
    for transport in TRANSPORTS {
        let message = lacks(&run(&mut emulator.register_dev_over(transport, &request)), "missing");
        assert!(message.contains("the enrollment has no policy for issuing"), "{message}");
    }
    let ended = run(&mut for_people(&emulator.register_dev(&request)));
    assert_eq!(ended.code, 9, "{ended:?}");
    assert!(ended.stdout.contains("  hub        "), "{ended:?}");
    let says =
        "error: the device is assigned, but no certificate came: the enrollment has no policy";
    assert!(ended.stderr.contains(says), "{ended:?}");
    let left: Vec<_> = fs::read_dir(format!("{path}/pairs")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_refusal_or_a_wrong_chain_leaves_what_was_stored_before() {
    let folder = Folder::new();
    let path = folder.path("certificate");
    let request = ["--request-certificate", path.as_str()];
    let good = Emulator::behaving(ISSUES);
    assert_eq!(run(&mut good.register_dev(&request)).code, 0);
    let chain = fs::read_to_string(format!("{path}/chain.pem")).unwrap();
    let other = openssl(&["x509", "-in", &format!("{path}/chain.pem"), "-outform", "PEM"]);
    let other: String = other.lines().filter(|line| !line.starts_with("-----")).collect();
    let of = |chain: &str| {
        let with = format!("with = {{ \"registrationState.issuedCertificateChain\" = {chain} }}");
        format!("{ISSUES}\nregister = [{{ {with} }}]")
    };
    for (toml, status, says) in [
        (of(&format!("[\"{other}\"]")), "refused", "key"),
        (of("[\"MAA=\"]"), "refused", "certificate"),
        (of("[\"no base64\"]"), "refused", "base64"),
        (of("[]"), "missing", "no policy"),
    ] {
        let emulator = Emulator::behaving(&toml);
        let message = lacks(&run(&mut emulator.register_dev(&request)), status);
        assert!(message.contains(says), "{message}");
        assert_eq!(fs::read_to_string(format!("{path}/chain.pem")).unwrap(), chain);
    }
    let none = Emulator::behaving("");
    let error = run(&mut none.register_dev(&request)).failed("rejected");
    assert_eq!(error["errorCode"], 400_000, "{error}");
    let due = run(&mut dps(&["cert", "status", "--json", &path])).json();
    assert_eq!(due["keyFits"], true, "{due}");
    assert_eq!(fs::read_dir(format!("{path}/pairs")).unwrap().count(), 1);
}

#[test]
fn what_can_not_be_stored_is_refused_before_anything_is_sent() {
    let folder = Folder::new();
    let refused = |path: &str, says: &str| {
        let ended = run(&mut register_at(&closed_endpoint(), &["--request-certificate", path]));
        let error = ended.failed("configuration");
        assert!(text(&error, "message").contains(says), "{says}: {error}");
        assert_eq!(error["registrationId"], "dev", "{error}");
    };
    refused("", "--request-certificate: the path is empty");
    refused(&folder.path("no/such"), "make the folder above it first");
    refused(&folder.file("file", "x"), "it is no folder");
    let open = folder.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    refused(&open, "chmod go-w");
    let foreign = folder.path("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(format!("{foreign}/key.pem"), "mine").unwrap();
    refused(&foreign, "foreign/key.pem\": it was put there by something else");
    assert_eq!(fs::read_to_string(format!("{foreign}/key.pem")).unwrap(), "mine");
    let locked = folder.path("locked");
    let lock = CertificateFolder::open(&locked).unwrap().prepare().unwrap();
    refused(&locked, "another process has the lock of the folder");
    drop(lock);
    // Now it comes as far as the connection.
    let ended = run(&mut register_at(&closed_endpoint(), &["--request-certificate", &locked]));
    ended.failed("connection");
}

#[test]
fn a_folder_that_vanishes_meanwhile_does_not_cost_the_assignment() {
    let folder = Folder::new();
    let path = folder.path("certificate");
    let runtime = Runtime::new().unwrap();
    let key: SymmetricKey = KEY.parse().unwrap();
    let busy = Behavior::new().on_register(Fault::refuse(429).forever());
    let enrollment =
        Enrollment::individual("dev".parse().unwrap(), Attestation::symmetric_key(key))
            .certificate_policy(CertificatePolicy::issue_for_days(1))
            .behavior(busy);
    let starting = dps_emulator::Emulator::builder().enrollment(enrollment).start();
    let emulator = runtime.block_on(starting).unwrap();
    let ca = folder.file("ca.pem", emulator.ca_pem());
    let scope = emulator.id_scope().to_string();
    let endpoint = format!("localhost:{}", emulator.https_port());
    let mut command = dps(&["register", "--json", "--endpoint", &endpoint, "--ca-file", &ca]);
    command.args(["--id-scope", &scope, "--registration-id", "dev", "--poll-floor", "0"]);
    command.args(["--request-certificate", &path]).env("DPS_SYMMETRIC_KEY", KEY);
    let running = Running::start(&mut command);
    let events = emulator.events();
    runtime.block_on(events.wait_for(|event| matches!(event.kind, EventKind::Request { .. })));
    fs::remove_dir_all(&path).unwrap();
    emulator.set_behavior("dev", Behavior::new()).unwrap();
    let message = lacks(&running.ended(), "notStored");
    assert!(message.starts_with("certificate folder \""), "{message}");
}

#[test]
fn the_emulator_within_the_command_issues_too() {
    let folder = Folder::new();
    let path = folder.path("certificate");
    let ended =
        run(&mut dps(&["register", "--emulator", "--json", "--request-certificate", &path]));
    assert_eq!(ended.code, 0, "{ended:?}");
    let status = run(&mut dps(&["cert", "status", "--json", &path])).json();
    assert_eq!(status["subject"], "CN=my-device", "{status}");
}

#[test]
fn a_name_that_is_too_long_for_a_certificate_is_warned_of() {
    let folder = Folder::new();
    let path = folder.path("certificate");
    for (length, warns) in [(64, false), (65, true)] {
        let mut command = dps(&["register", "--endpoint", &closed_endpoint()]);
        command.args(["--id-scope", "0ne00AABBCC", "--registration-id", &"a".repeat(length)]);
        command.args(["--request-certificate", &path]).env("DPS_SYMMETRIC_KEY", KEY);
        let ended = run(&mut command);
        let said = ended.stderr.contains("a certificate's common name holds 64");
        assert_eq!(said, warns, "{ended:?}");
    }
}
