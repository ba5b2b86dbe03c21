//! A peer that manages enrollments by the service API: what it made is what devices of ours register by.

use std::path::Path;

use serde_json::{Value, json};
use xshell::{Shell, cmd};

use super::{FOREIGN, KNOWN, Peer, Script, emulate, make_certificates, tell_outcome};
use crate::process::{Result, build};

const DEVICE: &str = "peer-by-key";
/// Its id at the hub, as the peer sets it.
const DEVICE_ID: &str = "peer-by-key-at-the-hub";
const MEMBER: &str = "member-of-the-group";
const HUB: &str = "hub-of-the-peer.example";
/// Base64 of the key of the device and of the group.
const KEY: &str = "a2V5IG9mIHRoZSBwZWVycyBvZiB0aGUgc2VydmljZQ==";

/// Has enrollments made, registers devices by them, and has them looked at and deleted; what went wrong.
pub(super) fn run(shell: &Shell, name: &str, peer: &Peer, folder: &Path) -> Result<Vec<String>> {
    let dps = build(shell, "dps", "cli")?;
    make_certificates(shell, folder)?;
    let (nothing, key) = (folder.join("nothing.toml"), folder.join("peer.key"));
    shell.write_file(&nothing, "")?;
    shell.write_file(&key, KEY)?;
    let (_running, emulator) = emulate(shell, folder, "--config", &nothing)?;
    let tpm = endorsement_key(shell)?;
    let phase = |phase: &str| {
        let file = |file: String| folder.join(file);
        let what = json!({
            "phase": phase, "connectionString": text(&emulator, "serviceConnectionString"), "hub": HUB,
            "device": DEVICE, "deviceId": DEVICE_ID, "member": MEMBER, "key": KEY,
            "endorsementKey": tpm, "certificateDevice": FOREIGN,
            "certificate": file(format!("{FOREIGN}.pem")), "ca": file("known-root.pem".to_owned()),
        });
        let script = Script { peer, folder, emulator: &emulator };
        script.run(shell, &peer.register, "http", DEVICE, what)
    };
    let register = |id: &str, credential: &[&Path], flags: &[&str]| -> Result {
        let (scope, ca) = (text(&emulator, "idScope"), text(&emulator, "caFile"));
        let connection = ["--transport", "http", "--endpoint", "localhost", "--ca-file", ca];
        let identity = ["--id-scope", scope, "--registration-id", id, "--json"];
        let mut command = cmd!(shell, "{dps} register {connection...} {identity...}");
        for (flag, file) in flags.iter().zip(credential) {
            command = command.arg(flag).arg(file);
        }
        let printed: Value = serde_json::from_str(&command.quiet().read()?)?;
        match text(&printed, "assignedHub") {
            HUB => Ok(()),
            _ => Err(format!("it is not assigned to the peer's hub: {printed}").into()),
        }
    };
    let mut faults = tell_steps(name, &phase("make")?);
    let certificate =
        |id: &str| [format!("{id}-chain.pem"), format!("{id}.key")].map(|file| folder.join(file));
    let (known, foreign) = (certificate(KNOWN), certificate(FOREIGN));
    let chain = ["--cert", "--key"];
    for (id, credential, flags) in [
        (DEVICE, vec![key.as_path()], &["--symmetric-key-file"][..]),
        (MEMBER, vec![key.as_path()], &["--group-key-file"]),
        (FOREIGN, foreign.iter().map(|it| it.as_path()).collect(), &chain),
        (KNOWN, known.iter().map(|it| it.as_path()).collect(), &chain),
    ] {
        let outcome = register(id, &credential, flags);
        faults.extend(tell_outcome(&format!("{name}::register::{id}"), outcome));
    }
    faults.extend(tell_steps(name, &phase("look")?));
    Ok(faults)
}

/// Tells how each step of a script ended; what went wrong.
fn tell_steps(name: &str, printed: &Value) -> Vec<String> {
    let steps = printed.as_object().into_iter().flatten();
    let told = steps.map(|(step, outcome)| {
        let outcome = match outcome.as_str() {
            Some("ok") => Ok(()),
            _ => Err(outcome.to_string().into()),
        };
        tell_outcome(&format!("{name}::{step}"), outcome)
    });
    let mut faults: Vec<_> = told.flatten().collect();
    if printed.as_object().is_none_or(|steps| steps.is_empty()) {
        faults.push(format!("{name}: it printed no steps: {printed}"));
    }
    faults
}

/// The endorsement key in the example of the emulator's configuration.
fn endorsement_key(shell: &Shell) -> Result<String> {
    let example = shell.read_file("crates/dps-emulator/emulator.toml")?;
    let example: toml::Table = toml::from_str(&example)?;
    let enrollments = example.get("enrollment").and_then(toml::Value::as_array);
    let mut keys = enrollments.into_iter().flatten().filter_map(|it| it.get("endorsement-key"));
    let key = keys.next().and_then(toml::Value::as_str).ok_or("the example has no TPM")?;
    Ok(key.to_owned())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}
