//! What a core dump would hold: a device registers in a process of its own and drops all that it used; then its memory
//! is searched from outside. The device's key must be gone from it, and while the device still has it, be found.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::{Config, RegistrationRequest, Roots, SymmetricKeyFile, Transport, client};
use dps_conformance::{Canaries, TransportCase, config_for, fast, settle, transport_case};
use dps_emulator::{Attestation, Emulator, Enrollment, SymmetricKey};

use crate::canaries::device;

/// Set for the process that is the device: whether it keeps what it used.
const DEVICE: &str = "SECRETS_DEVICE";
const KEEP: &str = "keep";
const DROP: &str = "drop";

pub(crate) fn cases() -> [TransportCase; 2] {
    [
        transport_case!(a_dropped_key_is_gone_from_memory),
        transport_case!(a_kept_key_is_found_in_memory),
    ]
}

async fn a_dropped_key_is_gone_from_memory(transport: Transport) {
    let found = found_after_registration(transport, DROP).await;
    assert!(found.is_empty(), "still in the memory of the process: {found:?}");
}

/// The search can find.
async fn a_kept_key_is_found_in_memory(transport: Transport) {
    let found = found_after_registration(transport, KEEP).await;
    assert!(found.contains(&"the key".to_owned()), "{found:?}");
}

async fn found_after_registration(transport: Transport, what_then: &str) -> Vec<String> {
    let key = SymmetricKey::random().unwrap();
    let text = key.expose_base64();
    let enrollment = Enrollment::individual(device(), Attestation::symmetric_key(key.clone()));
    let emulator = Emulator::builder().enrollment(enrollment).start().await.unwrap();
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("memory-{transport}-{what_then}"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("device.key"), &*text).unwrap();
    fs::write(folder.join("ca.pem"), emulator.ca_pem()).unwrap();
    let own = config_for(&emulator, transport, key.into());

    let mut canaries = Canaries::new();
    canaries.add("the key", STANDARD.decode(&*text).unwrap());
    canaries.add("the key's text", text.as_bytes());
    let child = Command::new(std::env::current_exe().unwrap())
        .env(DEVICE, what_then)
        .args([transport.as_str(), own.id_scope.as_str(), &own.endpoint.to_string()])
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The emulator lives on this thread, so whoever waits for the device does so on another.
    tokio::task::spawn_blocking(move || search(child, &canaries)).await.unwrap()
}

/// Waits until the device is done, and searches the memory that it can write to.
fn search(mut child: Child, canaries: &Canaries) -> Vec<String> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "registered");
    let process = Path::new("/proc").join(child.id().to_string());
    let memory = File::open(process.join("mem")).unwrap();
    let mut found: Vec<String> = Vec::new();
    let mut searched = 0;
    for mapping in fs::read_to_string(process.join("maps")).unwrap().lines() {
        let mut fields = mapping.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        if !rights.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).unwrap());
        let mut content = vec![0; usize::try_from(end - start).unwrap()];
        // What can't be read holds nothing, like the pages that guard a stack.
        if memory.read_exact_at(&mut content, start).is_ok() {
            searched += content.len();
            found.extend(canaries.found_bare_in(&content).into_iter().map(str::to_owned));
        }
    }
    assert!(searched > 100_000, "only {searched} bytes were searched");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    found
}

pub(crate) fn is_device() -> bool {
    std::env::var_os(DEVICE).is_some()
}

/// Registers, drops what it used or keeps it, says so, and waits to be searched.
pub(crate) fn be_device() -> ExitCode {
    let kept = register();
    let kept = Some(kept).filter(|_| std::env::var(DEVICE).unwrap() == KEEP);
    println!("registered");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(kept);
    ExitCode::SUCCESS
}

#[expect(clippy::panic, reason = "a test may fail")]
fn register() -> Config {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [transport, id_scope, endpoint, folder] = arguments.as_slice() else {
        panic!("four arguments, not {arguments:?}")
    };
    let folder = Path::new(folder);
    let roots = Roots::empty().with_pem(&fs::read(folder.join("ca.pem")).unwrap()).unwrap();
    let key = SymmetricKeyFile::open(folder.join("device.key")).unwrap();
    let mut config = Config::new(id_scope.parse().unwrap(), key.into());
    config.endpoint = endpoint.parse().unwrap();
    config.roots = roots;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let transport = transport.parse::<Transport>().unwrap();
        let client = client(transport, config.clone(), fast()).unwrap();
        client.register(RegistrationRequest::new(device())).await.unwrap();
        settle(&client).await;
    });
    config
}
