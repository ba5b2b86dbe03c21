//! `dps register --state` when a registration is due and can't be made: the device boots with what is stored.

use std::{
    fs,
    io::Write as _,
    process::Command,
    time::{Duration, SystemTime},
};

use dps_client::CertificateFolder;
use dps_provisioner::{AssignmentFile, HubRefusal, Provisioner};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::Value;

use crate::support::{
    Emulator, FAILURE_KEYS, Running, Silent, closed_endpoint, keys, run, sorted, text,
};

/// A device with a state, a folder for its certificate and an output.
struct Device {
    emulator: Emulator,
    flags: [String; 7],
}

impl Device {
    fn new(enrollment: &str) -> Self {
        let emulator = Emulator::behaving(enrollment);
        let [state, certificate, env] =
            ["assignment.json", "certificate", "dps.env"].map(|name| emulator.folder.path(name));
        let flags = ["--state", &state, "--request-certificate", &certificate, "--output", "env"];
        let [a, b, c, d, e, f] = flags.map(ToOwned::to_owned);
        Self { emulator, flags: [a, b, c, d, e, f, env] }
    }

    /// At this boot the file of `--output` is not there yet, as in /run.
    fn boot(&self) -> Command {
        let _ = fs::remove_file(&self.flags[6]);
        let mut command = self.emulator.register_dev(&[]);
        command.args(&self.flags);
        command
    }

    fn boot_without_network(&self) -> Command {
        let mut command = self.boot();
        command.args(["--proxy", &format!("http://{}", closed_endpoint())]);
        command
    }

    fn has_output(&self) -> bool {
        fs::exists(&self.flags[6]).unwrap()
    }

    fn certificates(&self) -> CertificateFolder {
        CertificateFolder::open(&self.flags[3]).unwrap()
    }

    /// Puts a certificate in place of its own that is valid for one day more, of 21.
    fn is_due_for_renewal(&self) {
        self.has_certificate("dev", 20);
    }

    /// Puts a certificate in place of its own that is valid for 21 days, so many of which are over.
    fn has_certificate(&self, name: &str, days_over: u32) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + (now - days_over * DAY);
        params.not_after = params.not_before + 21 * DAY;
        let key = KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        self.certificates().store(&chain, Some(&key.serialize_pem())).unwrap();
    }

    /// Its hub refused it so long ago that it is to register.
    fn is_refused(&self) {
        let file = AssignmentFile::new(&self.flags[1]).unwrap();
        let identity = file.load().unwrap().unwrap().identity;
        let mut device = Provisioner::open(file, identity).unwrap();
        let _ = device.report(HubRefusal::NotAuthorized, SystemTime::now() - DAY);
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

const ISSUES: &str = "certificate-policy = \"issue\"";

#[test]
fn a_device_boots_with_what_is_stored_when_its_service_is_out_of_reach() {
    let device = Device::new(ISSUES);
    let first = run(&mut device.boot());
    assert_eq!((first.code, text(&first.json(), "source")), (0, "registered"), "{first:?}");
    device.is_due_for_renewal();
    let ended = run(&mut device.boot_without_network());
    let object = ended.json();
    assert_eq!((ended.code, text(&object, "source")), (0, "stored"), "{ended:?}");
    let error = &object["registrationError"];
    assert_eq!((keys(error), text(error, "kind")), (sorted(FAILURE_KEYS), "connection"), "{error}");
    assert_eq!(object["assignedHub"], first.json()["assignedHub"]);
    assert!(ended.stderr.contains("warning: ") && ended.stderr.contains("stored"), "{ended:?}");
    assert!(device.has_output());
    // One who forces it wants to know.
    run(device.boot_without_network().arg("--force")).failed("connection");
    assert!(!device.has_output());
    // So does one whom the service refuses.
    let wrong = "d3Jvbmcga2V5IG9mIHRoZSBkZXZpY2UgZGV2";
    run(device.boot().env("DPS_SYMMETRIC_KEY", wrong)).failed("rejected");
    // Another process that renews the certificate just now is no reason not to boot.
    let lock = device.certificates().prepare().unwrap();
    let ended = run(&mut device.boot());
    let object = ended.json();
    assert_eq!((ended.code, text(&object, "source")), (0, "stored"), "{ended:?}");
    assert!(text(&object["registrationError"], "message").contains("has the lock"), "{object}");
    assert_eq!(object["registrationError"]["retryable"], true);
    assert!(device.has_output());
    drop(lock);
    let ended = run(&mut device.boot());
    let object = ended.json();
    assert_eq!((ended.code, text(&object, "source")), (0, "registered"), "{ended:?}");
    assert_eq!(object["registrationError"], Value::Null);
    assert_eq!(text(&object["certificate"], "status"), "stored");
}

#[test]
fn a_certificate_that_the_service_does_not_issue_is_not_asked_for_at_each_boot() {
    let device = Device::new("certificate-policy = \"ignore\"");
    let first = run(&mut device.boot()).json();
    assert_eq!(text(&first, "source"), "registered");
    for command in [device.boot(), device.boot_without_network()] {
        let mut command = command;
        let ended = run(&mut command);
        let object = ended.json();
        assert_eq!((ended.code, text(&object, "source")), (9, "stored"), "{ended:?}");
        assert_eq!(object["operationId"], first["operationId"]);
        let certificate = &object["certificate"];
        assert_eq!(text(certificate, "status"), "missing");
        assert!(text(certificate, "message").contains("the next one asks for it from 20"));
        assert!(device.has_output());
    }
    // Without an output nothing but the file is looked at.
    let flags = &device.flags[..4];
    let ended = run(device.emulator.register_dev(&[]).args(flags));
    assert_eq!((ended.code, text(&ended.json(), "source")), (9, "stored"), "{ended:?}");
}

#[test]
fn an_assignment_that_another_process_stores_while_the_hub_is_tried_is_not_replaced() {
    let device = Device::new("");
    let register = |arguments: &[&str]| {
        let mut command = device.emulator.register_dev(arguments);
        command.args(&device.flags[..2]);
        command
    };
    let first = run(&mut register(&[])).json();
    let hub = Silent::new();
    let connect = ["--connect", "--hub-endpoint", &hub.endpoint];
    let waiting = Running::start(&mut register(&connect));
    let connection = hub.accept();
    let other = run(&mut register(&["--force"])).json();
    assert_ne!(other["operationId"], first["operationId"]);
    drop(connection);
    let ended = waiting.ended();
    let object = ended.json();
    assert_eq!((ended.code, text(&object["hub"], "nextStep")), (10, "connectToHub"), "{ended:?}");
    assert_eq!(object["operationId"], other["operationId"]);
    let boot = run(&mut register(&[])).json();
    assert_eq!((text(&boot, "source"), &boot["operationId"]), ("stored", &other["operationId"]));
}

#[test]
fn a_certificate_of_another_device_is_not_taken_for_this_ones() {
    let device = Device::new(ISSUES);
    run(&mut device.boot());
    device.has_certificate("former", 1);
    let object = run(&mut device.boot()).json();
    assert_eq!(text(&object, "source"), "registered", "{object}");
    assert_eq!(text(&object["certificate"], "status"), "stored");
    let device = Device::new("certificate-policy = \"ignore\"");
    run(&mut device.boot());
    device.has_certificate("former", 1);
    for flags in [&device.flags[..], &device.flags[..4]] {
        let ended = run(device.emulator.register_dev(&[]).args(flags));
        assert_eq!((ended.code, text(&ended.json(), "source")), (9, "stored"), "{ended:?}");
    }
}

#[test]
fn a_registration_that_takes_all_of_the_time_leaves_some_for_the_hub() {
    let device = Device::new("");
    let (state, mqtt) = (&device.flags[..2], &device.emulator.ready["mqttPort"]);
    run(device.emulator.register_dev(&[]).args(state));
    device.is_refused();
    let silent = Silent::new();
    let (proxy, hub) = (format!("http://{}", silent.endpoint), format!("127.0.0.1:{mqtt}"));
    let flags = ["--proxy", &proxy, "--timeout", "0.5", "--connect", "--hub-endpoint", &hub];
    let mut command = device.emulator.register_dev_over("http", &flags);
    let ended = run(command.args(state).env("NO_PROXY", "127.0.0.1"));
    let object = ended.json();
    assert_eq!((ended.code, text(&object["hub"], "status")), (0, "connected"), "{ended:?}");
    assert_eq!(text(&object["registrationError"], "kind"), "timeout");
}

#[cfg(unix)]
#[test]
fn what_another_process_stores_while_a_device_looks_for_its_keys_is_what_it_boots_with() {
    let device = Device::new("certificate-policy = \"ignore\"");
    run(&mut device.boot());
    let key = device.emulator.folder.path("key.fifo");
    assert!(Command::new("mkfifo").arg(&key).status().unwrap().success());
    for is_due in [false, true] {
        if is_due {
            device.is_refused();
        }
        let booting = Running::start(device.boot_without_network().args(["--request-key", &key]));
        // It is opened once it is read.
        let mut written = fs::File::options().write(true).open(&key).unwrap();
        let state = &device.flags[..2];
        let other = run(device.emulator.register_dev(&["--force"]).args(state)).json();
        written.write_all(KeyPair::generate().unwrap().serialize_pem().as_bytes()).unwrap();
        drop(written);
        let object = booting.ended().json();
        assert_eq!(object["operationId"], other["operationId"], "{object}");
        assert_eq!(object["registrationError"].is_null(), !is_due, "{object}");
    }
}
