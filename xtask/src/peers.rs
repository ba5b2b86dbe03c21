//! `cargo xtask peers`: SDKs that none of us wrote, unmodified, register against `dps emulate`.
//!
//! Each peer has a folder in tests/peers with its pinned packages and a script that registers one device as a JSON
//! file asks, and prints how it ended. To add a peer, write that folder and a row of the table.

mod certificates;

use std::{
    io::ErrorKind,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};
use xshell::{Shell, cmd};

use crate::{
    packages,
    process::{Result, Running, build, in_ci, metadata, none_of},
};

struct Peer {
    /// Its folder in tests/peers.
    name: &'static str,
    /// The programs it needs, and the Debian packages that have them.
    needs: &'static [(&'static str, &'static str)],
    /// Installs the pinned packages into a copy of its folder.
    install: &'static str,
    /// Registers one device; the file with the case is appended.
    register: &'static str,
    /// The environment variable that names the file with the emulator's CA.
    ca_variable: &'static str,
    transports: &'static [&'static str],
    /// Cases that it can't show, `transport::case`, and why.
    skips: &'static [(&'static str, &'static str)],
}

const MUTE: &str = "it says nothing of a refused certificate and runs into its own timeout";

const NODE: Peer = Peer {
    name: "node",
    needs: &[("node", "nodejs"), ("npm", "npm"), ("openssl", "openssl")],
    install: "npm ci --ignore-scripts --no-audit --no-fund",
    // Not ::1 first: the emulator listens on 127.0.0.1.
    register: "node --dns-result-order=ipv4first register.js",
    ca_variable: "NODE_EXTRA_CA_CERTS",
    transports: &["http", "mqtt", "mqtt-ws", "amqp", "amqp-ws"],
    skips: &[("amqp::wrong_ca", MUTE), ("amqp-ws::wrong_ca", MUTE)],
};

const PEERS: &[Peer] = &[
    NODE,
    Peer { name: "plain", transports: &["mqtt", "amqp"], skips: &[], ..NODE },
    Peer {
        name: "python",
        needs: &[("python3", "python3"), ("pip3", "python3-pip"), ("openssl", "openssl")],
        install: "python3 -m pip install --quiet --no-deps --upgrade --target packages --requirement requirements.txt",
        register: "python3 register.py",
        ca_variable: "PEER_CA",
        transports: &["mqtt", "mqtt-ws"],
        skips: &[],
    },
];

/// The SDKs have the service's ports built in: the emulator's flag for each.
const PORTS: &[(&str, u16)] =
    &[("--https-port", 443), ("--mqtt-port", 8883), ("--amqp-port", 5671)];

/// The device whose certificate its group knows, and the one whose nobody knows.
const KNOWN: &str = "peer-by-certificate";
const FOREIGN: &str = "peer-by-foreign-certificate";

/// Runs every peer, transport and credential, good and bad.
pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let mut faults = Vec::new();
    for peer in PEERS {
        if let Some(reason) = missing(shell, peer.needs, PORTS)? {
            println!("skipped: {}: {reason}", peer.name);
            continue;
        }
        let folder = install(shell, peer)?;
        let root = certificates::family(shell, &folder, "known", KNOWN)?;
        certificates::family(shell, &folder, "foreign", FOREIGN)?;
        let (_running, emulator) = emulate(shell, &folder, &root)?;
        for (transport, case) in peer.transports.iter().flat_map(|t| CASES.map(|case| (t, case))) {
            let name = format!("{transport}::{}", case.0);
            if let Some((_, reason)) = peer.skips.iter().find(|(skipped, _)| *skipped == name) {
                println!("{}::{name} ... skipped: {reason}", peer.name);
                continue;
            }
            let outcome = register(shell, peer, &folder, transport, case, &emulator);
            let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
            println!("{}::{name} ... {verdict}", peer.name);
            faults.extend(outcome.err().map(|why| format!("{}::{name}: {why}", peer.name)));
        }
    }
    none_of(&faults)
}

/// A name, the registration id, what makes the credential, and how the registration must end.
type Case = (&'static str, &'static str, fn(&Path, &Value) -> Value, &'static str);

const CASES: [Case; 4] = [
    (
        "symmetric_key",
        "peer-by-key",
        |_, emulator| json!({"groupKey": emulator["groupKey"]}),
        ASSIGNED,
    ),
    ("x509", KNOWN, |folder, _| certificate(folder, KNOWN), ASSIGNED),
    // Base64 of a key that has nothing to do with the group's.
    (
        "wrong_key",
        "peer-by-key",
        |_, _| json!({"groupKey": "Zm9yZWlnbiBrZXkgZm9yIHRoZSBwZWVycyBvZiBkcHM="}),
        "refused",
    ),
    ("wrong_ca", FOREIGN, |folder, _| certificate(folder, FOREIGN), "refused"),
];
const ASSIGNED: &str = "assigned";

fn certificate(folder: &Path, device: &str) -> Value {
    let file = |name: String| folder.join(name);
    json!({"certFile": file(format!("{device}-chain.pem")), "keyFile": file(format!("{device}.key"))})
}

/// What a machine lacks: programs, and ports that anyone may open. In CI it is installed, and a failure if it can't
/// be; elsewhere the reason to skip is returned.
fn missing(shell: &Shell, needs: &[(&str, &str)], ports: &[(&str, u16)]) -> Result<Option<String>> {
    let found = |program: &str| cmd!(shell, "sh -c 'command -v $0' {program}").read().is_ok();
    let missing: Vec<&str> =
        needs.iter().filter(|(program, _)| !found(program)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        if !in_ci() {
            return Ok(Some(format!("{} not installed", missing.join(", "))));
        }
        packages::install(shell, &missing)?;
    }
    for (_, port) in ports {
        match TcpListener::bind(("127.0.0.1", *port)) {
            Ok(_) => {}
            Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                let why = format!("port {port} of 127.0.0.1, which the peers use: {error}");
                return Err(why.into());
            }
            Err(_) if !in_ci() => return Ok(Some(format!("port {port} is for root here"))),
            Err(_) => {
                packages::as_root(
                    shell,
                    &format!("sysctl -w net.ipv4.ip_unprivileged_port_start={port}"),
                )?;
            }
        }
    }
    Ok(None)
}

/// Copies the peer's folder and installs its packages there.
fn install(shell: &Shell, peer: &Peer) -> Result<PathBuf> {
    let folder: PathBuf = metadata()?.target_directory.join("peers").join(peer.name).into();
    shell.create_dir(&folder)?;
    for file in shell.read_dir(Path::new("tests/peers").join(peer.name))? {
        if file.is_file() {
            shell.copy_file(file, &folder)?;
        }
    }
    let there = shell.push_dir(&folder);
    print!("{}", Running::start(command(shell, peer.install)?)?.read(Duration::from_secs(300))?);
    drop(there);
    Ok(folder)
}

/// Starts the emulator; what it says when it is ready tells the id scope, the group's key and the file of its CA.
fn emulate(shell: &Shell, folder: &Path, group_ca: &Path) -> Result<(Running, Value)> {
    let dps = build(shell, "dps", "cli")?;
    let ca = folder.join("server-ca.pem");
    let ports = PORTS.iter().flat_map(|(flag, port)| [flag.to_string(), port.to_string()]);
    let emulate = cmd!(shell, "{dps} emulate --group-ca {group_ca} --ca-out {ca} {ports...}");
    let mut running = Running::start(emulate)?;
    let ready = running.line(Duration::from_secs(30))?.ok_or("the emulator ended at once")?;
    Ok((running, serde_json::from_str(&ready)?))
}

fn register(
    shell: &Shell,
    peer: &Peer,
    folder: &Path,
    transport: &str,
    (name, id, credential, outcome): Case,
    emulator: &Value,
) -> Result {
    let id_scope = &emulator["idScope"];
    let mut case = json!({"transport": transport, "host": "localhost", "idScope": id_scope, "registrationId": id});
    if let (Some(case), Value::Object(credential)) =
        (case.as_object_mut(), credential(folder, emulator))
    {
        case.extend(credential);
    }
    let file = folder.join(format!("{name}.json"));
    shell.write_file(&file, case.to_string())?;
    let ca = emulator["caFile"].as_str().ok_or("the emulator names no file of its CA")?;
    let _there = shell.push_dir(folder);
    let register = command(shell, peer.register)?.arg(&file).env(peer.ca_variable, ca);
    let printed = Running::start(register)?.read(Duration::from_secs(60))?;
    judge(&serde_json::from_str(&printed).map_err(|e| format!("{printed:?}: {e}"))?, id, outcome)
}

/// A command by its words.
fn command<'a>(shell: &'a Shell, words: &str) -> Result<xshell::Cmd<'a>> {
    let (program, arguments) = words.split_once(' ').ok_or("a peer's command is empty")?;
    Ok(shell.cmd(program).args(arguments.split(' ')))
}

/// Whether a script ended as it must: refused, or assigned as the device that was asked for to some hub.
fn judge(printed: &Value, id: &str, outcome: &str) -> Result {
    let hub = printed["assignedHub"].as_str().unwrap_or_default();
    let named = printed["deviceId"] == id && !hub.is_empty();
    if printed["outcome"] == outcome && (named || outcome != ASSIGNED) {
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
        let why = missing(&shell, &[("sh", "dash")], &[("--https-port", port)]).unwrap_err();
        assert!(why.to_string().contains(&port.to_string()), "{why}");
    }
}
