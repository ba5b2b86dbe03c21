//! A process that the system gives no thread and no descriptor any more.

use std::{
    fs::File,
    os::unix::fs::MetadataExt,
    process::{Command, Output},
};

use dps_client::{
    Attestation, Config, RegistrationRequest, Settings, SymmetricKey, Transport, client,
};
use libtest_mimic::Trial;
use tokio::runtime::Builder;

use crate::{Case, trial};

/// What the process has none of, and the transport that it registers over all the same.
pub(crate) struct Limited {
    scarce: String,
    transport: Transport,
}

const SCARCE: &str = "DPS_TEST_SCARCE";
const TRANSPORT: &str = "DPS_TEST_TRANSPORT";

pub(crate) fn trials() -> Vec<Trial> {
    let cases: [(&str, Case); 3] = [
        ("no_thread_is_left_in_a_runtime_of_one_thread", no_thread_for_one),
        ("no_thread_is_left_in_a_runtime_of_many_threads", no_thread_for_many),
        ("no_descriptor_is_left", no_descriptor),
    ];
    let on_each = |(name, case)| Transport::ALL.map(|transport| trial(name, transport, case));
    cases.into_iter().flat_map(on_each).collect()
}

fn no_thread_for_one(transport: Transport) {
    check(&run(transport, "thread"), "resolve", "no thread can be started");
}

fn no_thread_for_many(transport: Transport) {
    check(&run(transport, "threads"), "resolve", "no thread can be started");
}

fn no_descriptor(transport: Transport) {
    check(&run(transport, "descriptor"), "connect", "oo many open files");
}

fn check(output: &Output, stage: &str, message: &str) {
    let (text, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {text}{errors}", output.status);
    assert!(text.starts_with(&format!("connection at {stage}: ")), "{text}{errors}");
    assert!(text.contains(message), "{text}");
    assert_eq!(errors, "", "nothing panicked");
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs this test as a process of its own. The limit on processes does not hold for root, so that it belongs to nobody then.
fn run(transport: Transport, scarce: &str) -> Output {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mut command = Command::new(if is_root { "setpriv" } else { "env" });
    if is_root {
        command.args(["--reuid=65534", "--clear-groups"]);
    }
    command.arg(std::env::current_exe().unwrap());
    command.env(SCARCE, scarce).env(TRANSPORT, transport.to_string());
    command.output().expect("the tools of util-linux")
}

impl Limited {
    /// What the parent made of this process.
    pub(crate) fn of_this_process() -> Option<Self> {
        let scarce = std::env::var(SCARCE).ok()?;
        let transport = std::env::var(TRANSPORT).unwrap().parse().unwrap();
        Some(Self { scarce, transport })
    }

    /// Registers, and prints the error.
    pub(crate) fn register(&self) {
        let mut builder = match self.scarce.as_str() {
            "threads" => Builder::new_multi_thread(),
            _ => Builder::new_current_thread(),
        };
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let key = Attestation::SymmetricKey(SymmetricKey::from_bytes(&[7; 32]).unwrap());
        let mut config = Config::new("0ne00AABBCC".parse().unwrap(), key);
        let host = if self.scarce == "descriptor" { "127.0.0.1:9" } else { "dps.example:9" };
        config.endpoint = host.parse().unwrap();
        let client = client(self.transport, config, Settings::default()).unwrap();
        // From here on there is none.
        let limit = if self.scarce == "descriptor" { "--nofile=64" } else { "--nproc=1" };
        let process = std::process::id().to_string();
        let limited = Command::new("prlimit").args([limit, "--pid", &process]).status();
        assert!(limited.expect("the tools of util-linux").success());
        let mut taken = Vec::new();
        while self.scarce == "descriptor"
            && let Ok(file) = File::open("/dev/null")
        {
            taken.push(file);
        }
        let registration = client.register(RegistrationRequest::new("dev-1".parse().unwrap()));
        let error = runtime.block_on(registration).unwrap_err();
        println!("{} at {}: {error}", error.kind(), error.stage().unwrap());
        runtime.block_on(client.end_session()).unwrap();
    }
}
