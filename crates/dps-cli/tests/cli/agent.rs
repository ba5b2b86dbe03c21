//! `dps agent`: one process that owns the identity, as a service manager and other programs meet it.

use std::{
    fs,
    os::unix::net::{UnixDatagram, UnixListener},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    request_certificate::openssl,
    support::{Emulator, Folder, KEY, Running, dps, run, text},
};

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    folder: Folder,
}

impl Manager {
    fn new() -> Self {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.path("notify")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        fs::create_dir(folder.path("run")).unwrap();
        Self { socket, folder }
    }

    /// What it is told next that has this in it.
    fn told(&self, part: &str) -> String {
        let mut all = String::new();
        loop {
            let mut bytes = [0; 2048];
            let read = self
                .socket
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("{part}: {error}; {all}"));
            let told = String::from_utf8_lossy(&bytes[..read]).into_owned();
            if told.contains(part) {
                return told;
            }
            all.push_str(&told);
        }
    }
}

/// The agent of the device `dev`, over MQTT, with its files in the manager's folder.
fn agent(emulator: &Emulator, manager: &Manager, arguments: &[&str]) -> Command {
    let register = emulator.register_dev_over("mqtt", &[]);
    let mut command = dps(&["agent"]);
    command.args(register.get_args().skip(1)).args(arguments);
    command.env("NOTIFY_SOCKET", manager.folder.path("notify"));
    command.env("STATE_DIRECTORY", manager.folder.path("")).env("DPS_SYMMETRIC_KEY", KEY);
    command.env("RUNTIME_DIRECTORY", manager.folder.path("run"));
    command
}

/// A manager that has an assignment stored, and where the service was.
fn without_its_service() -> (Emulator, Manager) {
    let (mut emulator, manager) = (Emulator::behaving(""), Manager::new());
    let running = Running::start(&mut agent(&emulator, &manager, &[]));
    manager.told("READY=1");
    end(running, &manager);
    emulator.running.child().kill().unwrap();
    emulator.running.child().wait().unwrap();
    (emulator, manager)
}

/// A program that does this.
fn program(manager: &Manager, script: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = manager.folder.file("program", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn written(manager: &Manager) -> Value {
    serde_json::from_str(&fs::read_to_string(manager.folder.path("run/assignment.json")).unwrap())
        .unwrap()
}

fn end(running: Running, manager: &Manager) {
    running.signal("-TERM");
    manager.told("STOPPING=1");
    assert!(running.status().success());
}

#[test]
fn the_agent_registers_hands_over_runs_its_program_and_registers_again_when_told() {
    let (emulator, manager) = (Emulator::behaving(""), Manager::new());
    let hooked = manager.folder.path("hooked");
    let hook =
        program(&manager, &format!("echo \"$DPS_DEVICE_ID at $DPS_ASSIGNED_HUB\" >> {hooked}"));
    let start = || {
        let mut command = agent(&emulator, &manager, &["--exec", &hook]);
        Running::start(command.env("WATCHDOG_USEC", "100000"))
    };
    let running = start();
    let ready = manager.told("READY=1");
    assert!(ready.contains("STATUS=assigned to "), "{ready}");
    while !Path::new(&hooked).exists() {
        std::thread::yield_now();
    }
    let first = written(&manager);
    assert_eq!(
        (text(&first, "source"), text(&first, "deviceId")),
        ("registered", "dev"),
        "{first}"
    );
    let assigned = text(&first, "assignedHub").to_owned();
    let env = fs::read_to_string(manager.folder.path("run/device.env")).unwrap();
    assert!(env.contains("DPS_ASSIGNED_HUB=") && env.contains(&assigned), "{env}");
    assert_eq!(fs::read_to_string(&hooked).unwrap(), format!("dev at {assigned}\n"));
    manager.told("WATCHDOG=1");
    end(running, &manager);
    // The second one needs no service to be ready, and registers when it is told to.
    let running = start();
    manager.told("READY=1");
    let mut again = written(&manager);
    assert_eq!((text(&again, "source"), &again["elapsedMs"]), ("stored", &0.into()), "{again}");
    for name in ["source", "elapsedMs"] {
        again[name] = first[name].clone();
    }
    assert_eq!(again, first);
    running.signal("-HUP");
    manager.told("STATUS=assigned to ");
    while fs::read_to_string(&hooked).unwrap().lines().count() < 3 {
        std::thread::yield_now();
    }
    end(running, &manager);
    use std::os::unix::fs::MetadataExt as _;
    for name in ["assignment.json", "run/assignment.json", "run/device.env"] {
        assert_eq!(
            fs::metadata(manager.folder.path(name)).unwrap().mode() & 0o777,
            0o600,
            "{name}"
        );
    }
}

#[test]
fn the_agent_is_told_by_signals_what_the_hub_did() {
    let (emulator, manager) = (Emulator::behaving(""), Manager::new());
    let running = Running::start(&mut agent(&emulator, &manager, &[]));
    manager.told("READY=1");
    let kept = || {
        let kept = fs::read_to_string(manager.folder.path("assignment.json")).unwrap();
        serde_json::from_str::<Value>(&kept).unwrap()["content"].clone()
    };
    let seconds = |told: String| {
        let after = told.split(" again in ").nth(1).unwrap();
        after.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    running.signal("-USR1");
    let first = seconds(manager.told("the hub refused the device; it registers again in "));
    assert!((300..=375).contains(&first), "{first}");
    assert_eq!(kept()["hub"]["refusals"], 1);
    // A program that tries its hub again and again puts nothing off.
    running.signal("-USR1");
    assert!(seconds(manager.told("it registers again in ")) <= first);
    assert_eq!(kept()["hub"]["refusals"], 1);
    running.signal("-USR2");
    manager.told("STATUS=connected to its hub");
    while kept()["hub"]["refusals"] != 0 {
        std::thread::yield_now();
    }
    assert_eq!(kept()["registerWait"], Value::Null);
    end(running, &manager);
}

#[test]
fn the_agent_is_ready_without_the_service_once_an_assignment_is_stored_and_not_before() {
    let (emulator, manager) = without_its_service();
    let running = Running::start(&mut agent(&emulator, &manager, &[]));
    manager.told("READY=1");
    end(running, &manager);
    // Another device has nothing stored.
    let state = manager.folder.path("other.json");
    let mut other = agent(&emulator, &manager, &["--state", &state]);
    let running = Running::start(&mut other);
    let told = manager.told("tried again in ");
    assert!(told.contains("refused") && !told.contains("READY"), "{told}");
    end(running, &manager);
    assert!(!Path::new(&state).exists());
}

#[test]
fn a_key_that_the_service_manager_has_loaded_need_only_be_named() {
    let (emulator, manager) = (Emulator::behaving(""), Manager::new());
    manager.folder.file("pump.key", KEY);
    let mut command = agent(&emulator, &manager, &["--symmetric-key-file", "pump.key"]);
    command.env_remove("DPS_SYMMETRIC_KEY").env("CREDENTIALS_DIRECTORY", manager.folder.path(""));
    let running = Running::start(&mut command);
    manager.told("READY=1");
    end(running, &manager);
}

#[test]
fn a_program_that_fails_is_said_and_run_again_and_the_device_is_ready_before() {
    let (emulator, manager) = (Emulator::behaving(""), Manager::new());
    let first = manager.folder.path("first");
    let script = format!("test -e '{first}' || {{ touch '{first}'; exit 3; }}");
    let mut command = agent(&emulator, &manager, &["--exec", &program(&manager, &script)]);
    let running = Running::start(&mut command);
    manager.told("READY=1");
    let told = manager.told("not handed over");
    assert!(told.contains("did not do its work") && told.contains("exit status: 3"), "{told}");
    assert!(told.contains("tried again in 1 s"), "{told}");
    manager.told("STATUS=assigned to ");
    // So is a file that can't be written for a while.
    end(running, &manager);
    let running = Running::start(&mut command);
    manager.told("READY=1");
    fs::remove_dir_all(manager.folder.path("run")).unwrap();
    running.signal("-HUP");
    let told = manager.told("was not written");
    assert!(told.contains("make the folder above it first"), "{told}");
    fs::create_dir(manager.folder.path("run")).unwrap();
    manager.told("STATUS=assigned to ");
    assert_eq!(text(&written(&manager), "deviceId"), "dev");
    end(running, &manager);
    // One that takes its time is ended with the agent.
    let running = Running::start(
        agent(&emulator, &manager, &["--exec", &program(&manager, "echo > began; exec sleep 50")])
            .current_dir(manager.folder.path("")),
    );
    while !Path::new(&manager.folder.path("began")).exists() {
        std::thread::yield_now();
    }
    // A program that it restarts may wait for just this.
    manager.told("READY=1");
    end(running, &manager);
}

#[test]
fn the_agent_hands_over_the_certificate_that_it_got_for_the_key_that_was_given() {
    let manager = Manager::new();
    let emulator = Emulator::behaving("certificate-policy = \"issue\"\n");
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let key = manager.folder.file("request.pem", key);
    let (certificate, string) = (manager.folder.path("certificate"), manager.folder.path("string"));
    let mut arguments = vec!["--request-certificate", certificate.as_str()];
    arguments.extend(["--request-key", &key, "--output", "connection-string", &string]);
    // The second time it is stored.
    for source in ["registered", "stored"] {
        let running = Running::start(&mut agent(&emulator, &manager, &arguments));
        manager.told("READY=1");
        let result = written(&manager);
        let told = (text(&result, "source"), text(&result["certificate"], "status"));
        assert_eq!(told, (source, "stored"), "{result}");
        assert!(fs::read_to_string(&string).unwrap().ends_with(";x509=true\n"));
        let env = fs::read_to_string(manager.folder.path("run/device.env")).unwrap();
        for (name, file) in [("CERT", "chain.pem"), ("KEY", "key.pem")] {
            let line = format!("DPS_ASSIGNED_{name}='{certificate}/{file}'\n");
            assert!(env.contains(&line), "{env}");
        }
        end(running, &manager);
    }
    let public = |path: &str| openssl(&["pkey", "-pubout", "-in", path]);
    assert_eq!(public(&format!("{certificate}/key.pem")), public(&key));
}

#[test]
fn a_certificate_that_the_enrollment_does_not_issue_is_said_so() {
    let manager = Manager::new();
    let emulator = Emulator::behaving("certificate-policy = \"ignore\"\n");
    let folder = manager.folder.path("certificate");
    let mut running =
        Running::start(&mut agent(&emulator, &manager, &["--request-certificate", &folder]));
    manager.told("READY=1");
    let told = manager.told("tried again in ");
    assert!(told.contains("the enrollment has no policy for issuing certificates"), "{told}");
    assert!(!told.contains("makes no sense"), "{told}");
    running.signal("-TERM");
    running.child().wait().unwrap();
    let ended = running.ended();
    assert!(!ended.stderr.contains("proxy"), "{ended:?}");
}

#[test]
fn what_can_mend_itself_does_not_end_the_agent_and_holds_no_stored_assignment_back() {
    let (emulator, manager) = (Emulator::behaving(""), Manager::new());
    let (chain, key) = crate::handover::expired(&manager.folder);
    let by_certificate = ["--cert", &chain, "--key", &key];
    let by_tpm = ["--cert", &chain, "--key", "tpm:0x81000002", "--tpm", "/no/such"];
    for flags in [&by_certificate[..], &by_tpm] {
        let running = Running::start(&mut agent(&emulator, &manager, flags));
        let told = manager.told("tried again in ");
        assert!(told.contains("expired") || told.contains("/no/such"), "{told}");
        running.signal("-TERM");
        assert!(running.status().success());
    }
    let running = Running::start(&mut agent(&emulator, &manager, &[]));
    manager.told("READY=1");
    end(running, &manager);
    fs::remove_file(manager.folder.path("run/device.env")).unwrap();
    let running = Running::start(&mut agent(&emulator, &manager, &by_certificate));
    manager.told("READY=1");
    end(running, &manager);
    assert!(Path::new(&manager.folder.path("run/device.env")).exists());
}

#[test]
fn what_the_agent_can_not_begin_with_is_said_at_once() {
    let folder = Folder::new();
    let base = ["agent", "--id-scope", "0ne00AABBCC", "--registration-id", "dev"];
    let cases = [
        (vec![], "--state: it is missing; name the file that keeps the assignment"),
        (vec!["--state", "-"], "standard input and output keep nothing"),
        (vec!["--state", "state", "--output-dir", "/no/such"], "there is no such folder; make it"),
        (
            vec!["--state", "./assignment.json", "--output-dir", "."],
            "names the same file; name another",
        ),
    ];
    for (arguments, says) in cases {
        let mut command = dps(&[&base, arguments.as_slice()].concat());
        let ended = run(command.current_dir(folder.path("")).env("DPS_SYMMETRIC_KEY", KEY));
        assert!(ended.code == 2 && ended.stderr.contains(says), "{ended:?}");
    }
}

#[test]
fn a_program_that_is_run_again_is_not_ended_by_a_registration_that_fails() {
    let (emulator, manager) = without_its_service();
    let [first, began, go, done] =
        ["first", "began", "go", "done"].map(|name| manager.folder.path(name));
    let fails_first = format!("test -e {first} || {{ touch {first}; exit 3; }}");
    let script = format!(
        "{fails_first}\necho >> {began}\nuntil test -e {go}; do sleep 0.02; done\ntouch {done}"
    );
    let mut command = agent(&emulator, &manager, &["--exec", &program(&manager, &script)]);
    let running = Running::start(command.env("WATCHDOG_USEC", "100000"));
    manager.told("not handed over");
    running.signal("-HUP");
    // Tried again as soon as the program is.
    manager.told("tried again in ");
    while !Path::new(&began).exists() {
        std::thread::yield_now();
    }
    for _ in 0..20 {
        manager.told("WATCHDOG=1");
    }
    fs::write(&go, "").unwrap();
    while !Path::new(&done).exists() {
        std::thread::yield_now();
    }
    assert_eq!(fs::read_to_string(&began).unwrap().lines().count(), 1);
    manager.told("tried again in ");
    end(running, &manager);
}

#[test]
fn no_signal_ends_an_agent_that_waits_for_its_tpm() {
    let (emulator, manager) = (Emulator::behaving(""), Manager::new());
    let (chain, _) = crate::handover::expired(&manager.folder);
    let by_tpm = ["--cert", &chain, "--key", "tpm:0x81000002", "--tpm", "/no/such"];
    let running = Running::start(&mut agent(&emulator, &manager, &by_tpm));
    manager.told("tried again in ");
    for signal in ["-HUP", "-USR1", "-USR2"] {
        running.signal(signal);
    }
    manager.told("tried again in ");
    running.signal("-TERM");
    assert!(running.status().success());
}

#[test]
fn an_agent_that_is_told_to_end_while_its_tpm_is_silent_ends_well() {
    let (emulator, manager) = (Emulator::behaving(""), Manager::new());
    let (chain, _) = crate::handover::expired(&manager.folder);
    let socket = manager.folder.path("tpm");
    let silent = UnixListener::bind(&socket).unwrap();
    let tpm = format!("swtpm:{socket}");
    let by_tpm = ["--cert", &chain, "--key", "tpm:0x81000002", "--tpm", &tpm];
    let running = Running::start(&mut agent(&emulator, &manager, &by_tpm));
    let _asked = silent.accept().unwrap();
    running.signal("-TERM");
    assert!(running.status().success());
}
