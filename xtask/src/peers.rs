//! `cargo xtask peers`: SDKs that none of us wrote, unmodified, register against `dps emulate`.
//!
//! Each peer has a folder in tests/peers with its pinned packages and a script that registers one device as a JSON
//! file asks, and prints how it ended. To add a peer, write that folder and a table in tests/peers/peers.toml.

mod service;
#[path = "../../tests/src/swtpm.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "it is part of a library of tests elsewhere"
)]
mod swtpm;

mod hub;
mod tpm;

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::{
    packages,
    process::{Result, Running, build, in_ci, metadata, none_of},
};

/// A table of tests/peers/peers.toml, which says what each entry means.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    needs: BTreeMap<String, String>,
    install: String,
    register: String,
    hub: Option<String>,
    ca_variable: String,
    #[serde(default)]
    tpm: bool,
    #[serde(default)]
    service: bool,
    #[serde(default)]
    transports: Vec<String>,
    #[serde(default)]
    skips: BTreeMap<String, String>,
}

/// The SDKs have the service's ports built in: the emulator's flag for each.
const PORTS: &str = "--https-port 443 --mqtt-port 8883 --amqp-port 5671";

/// The device whose certificate its group knows, and the one whose nobody knows.
const KNOWN: &str = "peer-by-certificate";
const FOREIGN: &str = "peer-by-foreign-certificate";

/// Runs every peer, or those that are named, by every transport and credential, good and bad.
pub(crate) fn run(shell: &Shell, named: &[String]) -> Result {
    let peers: BTreeMap<String, Peer> =
        toml::from_str(&shell.read_file("tests/peers/peers.toml")?)?;
    let mut faults = Vec::new();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|wanted| wanted == name);
    for (name, peer) in peers.into_iter().filter(|(name, _)| wanted(name)) {
        if let Some(reason) = missing(shell, &peer.needs, PORTS)? {
            println!("skipped: {name}: {reason}");
            continue;
        }
        let folder = install(shell, &name, &peer)?;
        if peer.tpm {
            faults.extend(tpm::run(shell, &name, &peer, &folder)?);
            continue;
        }
        if peer.service {
            faults.extend(service::run(shell, &name, &peer, &folder)?);
            continue;
        }
        make_certificates(shell, &folder)?;
        if let Some(script) = &peer.hub {
            faults.extend(hub::run(shell, &name, &peer, script, &folder)?);
        }
        let group_ca = folder.join("known-root.pem");
        let (_running, emulator) = emulate(shell, &folder, "--group-ca", &group_ca)?;
        for (transport, case) in peer.transports.iter().flat_map(|t| CASES.map(|case| (t, case))) {
            let shown = format!("{transport}::{}", case.0);
            if skips(&name, &peer, &shown) {
                continue;
            }
            let outcome = register(shell, &peer, &folder, transport, case, &emulator);
            faults.extend(tell_outcome(&format!("{name}::{shown}"), outcome));
        }
    }
    none_of(&faults)
}

fn make_certificates(shell: &Shell, folder: &Path) -> Result {
    for (family, device) in [("known", KNOWN), ("foreign", FOREIGN)] {
        let make = cmd!(shell, "tests/peers/certificates.sh {folder} {family} {device}");
        make.ignore_stderr().run()?;
    }
    Ok(())
}

/// Whether a peer can't show a case; says why.
fn skips(name: &str, peer: &Peer, case: &str) -> bool {
    let reason = peer.skips.get(case);
    reason.inspect(|reason| println!("{name}::{case} ... skipped: {reason}")).is_some()
}

/// Shows how a case ended; what is wrong with it.
fn tell_outcome(case: &str, outcome: Result) -> Option<String> {
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!("{case} ... {verdict}");
    outcome.err().map(|why| format!("{case}: {why}"))
}

/// A name, the registration id, and how the registration must end.
type Case = (&'static str, &'static str, &'static str);

const CASES: [Case; 4] = [
    ("symmetric_key", "peer-by-key", "assigned"),
    ("x509", KNOWN, "assigned"),
    ("wrong_key", "peer-by-key", "refused"),
    ("wrong_ca", FOREIGN, "refused"),
];

/// Base64 of a key that has nothing to do with the group's.
const FOREIGN_KEY: &str = "Zm9yZWlnbiBrZXkgZm9yIHRoZSBwZWVycyBvZiBkcHM=";

/// What a machine lacks: programs, and ports that anyone may open. In CI it is installed, and a failure if it can't
/// be; elsewhere the reason to skip is returned.
fn missing(shell: &Shell, needs: &BTreeMap<String, String>, ports: &str) -> Result<Option<String>> {
    let needs: Vec<(&str, &str)> = needs.iter().map(|(program, of)| (&**program, &**of)).collect();
    if let Some(reason) = packages::missing(shell, &needs)? {
        return Ok(Some(reason));
    }
    let mut ports = ports.split(' ').filter_map(|word| word.parse::<u16>().ok());
    match ports.find_map(|port| Some((port, TcpListener::bind(("127.0.0.1", port)).err()?))) {
        None => Ok(None),
        Some((port, error)) if error.kind() != ErrorKind::PermissionDenied => {
            Err(format!("port {port} of 127.0.0.1, which the peers use: {error}").into())
        }
        Some((port, _)) if !in_ci() => Ok(Some(format!("port {port} is for root here"))),
        Some((port, _)) => {
            let open = format!("sysctl -w net.ipv4.ip_unprivileged_port_start={port}");
            packages::as_root(shell, &open).map(|()| None)
        }
    }
}

/// Copies the peer's folder and installs its packages there.
fn install(shell: &Shell, name: &str, peer: &Peer) -> Result<PathBuf> {
    let folder: PathBuf = metadata()?.target_directory.join("peers").join(name).into();
    shell.create_dir(&folder)?;
    for file in shell.read_dir(Path::new("tests/peers").join(name))? {
        if file.is_file() {
            shell.copy_file(file, &folder)?;
        }
    }
    let there = shell.push_dir(&folder);
    let install = shell.cmd("sh").args(["-c", &peer.install]);
    print!("{}", Running::start(install)?.read(Duration::from_secs(300))?);
    drop(there);
    Ok(folder)
}

/// Starts the emulator with a flag that tells whom it knows; what it says when it is ready tells the id scope, the
/// group's key and the file of its CA.
fn emulate(shell: &Shell, folder: &Path, flag: &str, known: &Path) -> Result<(Running, Value)> {
    let dps = build(shell, "dps", "cli")?;
    let ca = folder.join("server-ca.pem");
    let events = folder.join("events.jsonl");
    let ports = PORTS.split(' ');
    let outputs = cmd!(shell, "{dps} emulate --fast --ca-out {ca} --events {events}");
    let emulate = outputs.arg(flag).arg(known).args(ports);
    let running = Running::start(emulate)?;
    let ready = running.line(Duration::from_secs(30))?.ok_or("the emulator ended at once")?;
    Ok((running, serde_json::from_str(&ready)?))
}

fn register(
    shell: &Shell,
    peer: &Peer,
    folder: &Path,
    transport: &str,
    (name, id, outcome): Case,
    emulator: &Value,
) -> Result {
    let file = |ending| json!(folder.join(format!("{id}{ending}")));
    let credential = match name {
        "symmetric_key" => json!({"groupKey": emulator["groupKey"]}),
        "wrong_key" => json!({"groupKey": FOREIGN_KEY}),
        _ => json!({"certFile": file("-chain.pem"), "keyFile": file(".key")}),
    };
    let case = Script { peer, folder, emulator };
    let printed = case.run(shell, &peer.register, transport, id, credential)?;
    judge(&printed, id, outcome)
}

/// What runs a peer's scripts against the emulator.
#[derive(Clone, Copy)]
struct Script<'a> {
    peer: &'a Peer,
    folder: &'a Path,
    emulator: &'a Value,
}

impl Script<'_> {
    /// Has a script register a device; what it prints.
    fn run(
        self,
        shell: &Shell,
        script: &str,
        transport: &str,
        id: &str,
        credential: Value,
    ) -> Result<Value> {
        let Self { peer, folder, emulator } = self;
        let scope = &emulator["idScope"];
        let mut case = json!({"transport": transport, "host": "localhost", "idScope": scope, "registrationId": id});
        if let (Value::Object(case), Value::Object(credential)) = (&mut case, credential) {
            case.extend(credential);
        }
        let file = folder.join("case.json");
        shell.write_file(&file, case.to_string())?;
        let ca = emulator["caFile"].as_str().ok_or("the emulator names no file of its CA")?;
        let _there = shell.push_dir(folder);
        let register = shell.cmd("sh").args(["-c", script]).arg(&file);
        let register = register.env(&peer.ca_variable, ca);
        let printed = Running::start(register)?.read(Duration::from_secs(60))?;
        Ok(serde_json::from_str(&printed).map_err(|e| format!("{printed:?}: {e}"))?)
    }
}

/// Whether a script ended as it must: refused, or assigned as the device that was asked for to some hub.
fn judge(printed: &Value, id: &str, outcome: &str) -> Result {
    let hub = printed["assignedHub"].as_str().unwrap_or_default();
    let named = printed["deviceId"] == id && !hub.is_empty();
    if printed["outcome"] == outcome && (named || outcome != "assigned") {
        return Ok(());
    }
    Err(format!("should be {outcome} and is {printed}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_outcome_for_the_wanted_device_passes() {
        let judge = |printed: Value, outcome| judge(&printed, "a", outcome).is_ok();
        let assigned = json!({"outcome": "assigned", "deviceId": "a", "assignedHub": "h"});
        let refused = json!({"outcome": "refused", "error": "UnauthorizedError: no"});
        assert!(judge(assigned.clone(), "assigned") && judge(refused.clone(), "refused"));
        assert!(!judge(assigned, "refused") && !judge(refused, "assigned"));
        for other in [
            json!({"outcome": "assigned", "deviceId": "b", "assignedHub": "h"}),
            json!({"outcome": "assigned", "deviceId": "a"}),
            json!({"outcome": "failed", "error": "ECONNREFUSED"}),
            json!({}),
        ] {
            assert!(!judge(other.clone(), "assigned") && !judge(other, "refused"));
        }
    }

    #[test]
    fn a_port_in_use_is_an_error_that_names_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let shell = Shell::new().unwrap();
        let needs = BTreeMap::from([("sh".to_owned(), "dash".to_owned())]);
        let why = missing(&shell, &needs, &format!("--https-port {port}")).unwrap_err();
        assert!(why.to_string().contains(&port.to_string()), "{why}");
    }
}
