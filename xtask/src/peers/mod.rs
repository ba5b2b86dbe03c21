//! `cargo xtask peers`: SDKs that none of us wrote, unmodified, register against `dps emulate`.
//!
//! Each peer has a folder in tests/peers with its pinned packages and a script that registers one device as a JSON
//! file asks, and prints how it ended. To add a peer, write that folder and a row of the table.

mod certificates;
mod machine;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    metadata::Metadata,
    process::{Cmd, Group, Result, none_of},
};

struct Peer {
    /// Its folder in tests/peers.
    name: &'static str,
    /// The programs it needs, and the Debian packages that have them.
    needs: &'static [(&'static str, &'static str)],
    /// Installs the pinned packages into a copy of its folder.
    install: &'static [&'static str],
    /// Registers one device; the file with the case is appended.
    register: &'static [&'static str],
    /// The environment variable that names the file with the emulator's CA.
    ca_variable: &'static str,
    transports: &'static [&'static str],
    /// Cases that it can't show: transport, case, and why.
    skips: &'static [(&'static str, &'static str, &'static str)],
}

const NPM: &[&str] = &["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"];
// Not ::1 first: the emulator listens on 127.0.0.1.
const NODE: &[&str] = &["node", "--dns-result-order=ipv4first", "register.js"];
const NODE_NEEDS: &[(&str, &str)] = &[("node", "nodejs"), ("npm", "npm"), ("openssl", "openssl")];

const MUTE: &str = "it says nothing of a refused certificate and runs into its own timeout";

const PEERS: &[Peer] = &[
    Peer {
        name: "node",
        needs: NODE_NEEDS,
        install: NPM,
        register: NODE,
        ca_variable: "NODE_EXTRA_CA_CERTS",
        transports: &["http", "mqtt", "mqtt-ws", "amqp", "amqp-ws"],
        skips: &[("amqp", "wrong_ca", MUTE), ("amqp-ws", "wrong_ca", MUTE)],
    },
    Peer {
        name: "plain",
        needs: NODE_NEEDS,
        install: NPM,
        register: NODE,
        ca_variable: "NODE_EXTRA_CA_CERTS",
        transports: &["mqtt", "amqp"],
        skips: &[],
    },
    Peer {
        name: "python",
        needs: &[("python3", "python3"), ("pip3", "python3-pip"), ("openssl", "openssl")],
        install: &[
            "python3",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--upgrade",
            "--target",
            "packages",
            "--requirement",
            "requirements.txt",
        ],
        register: &["python3", "register.py"],
        ca_variable: "PEER_CA",
        transports: &["mqtt", "mqtt-ws"],
        skips: &[],
    },
];

/// The SDKs have the service's ports built in: the emulator's flag for each.
const PORTS: &[(&str, u16)] =
    &[("--https-port", 443), ("--mqtt-port", 8883), ("--amqp-port", 5671)];

const HOST: &str = "localhost";

/// Runs every peer, transport and credential, good and bad.
pub(crate) fn run(_: &[String]) -> Result {
    let scratch = Metadata::load()?.target_directory.join("peers");
    let mut faults = Vec::new();
    for peer in PEERS {
        if let Some(reason) = machine::lacks(peer.needs, PORTS)? {
            println!("skipped: {}: {reason}", peer.name);
            continue;
        }
        let folder = install(peer, &scratch)?;
        let certificates = certificates::make(&folder)?;
        let (_running, emulator) = emulate(&folder, &certificates.root)?;
        for transport in peer.transports {
            for case in cases(transport, &emulator, &certificates) {
                let name = format!("{}::{transport}::{}", peer.name, case.name);
                let skip =
                    peer.skips.iter().find(|skip| (skip.0, skip.1) == (*transport, case.name));
                if let Some((_, _, reason)) = skip {
                    println!("{name} ... skipped: {reason}");
                    continue;
                }
                match register(peer, &folder, &case, &emulator) {
                    Ok(()) => println!("{name} ... ok"),
                    Err(why) => {
                        println!("{name} ... FAILED");
                        faults.push(format!("{name}: {why:?}"));
                    }
                }
            }
        }
    }
    none_of(&faults)
}

/// What the emulator says when it is ready.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Emulator {
    id_scope: String,
    group_key: String,
    ca_file: PathBuf,
}

/// One registration, and how it must end.
struct Case {
    name: &'static str,
    wanted: Wanted,
    outcome: &'static str,
}

/// What the peer's script reads.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    transport: String,
    host: &'static str,
    id_scope: String,
    registration_id: String,
    #[serde(flatten)]
    credential: Credential,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Credential {
    Group { group_key: String },
    X509 { cert_file: PathBuf, key_file: PathBuf },
}

/// What the peer's script prints.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Outcome {
    outcome: String,
    device_id: String,
    assigned_hub: String,
    error: String,
}

fn cases(
    transport: &str,
    emulator: &Emulator,
    certificates: &certificates::Certificates,
) -> [Case; 4] {
    // Base64 of a key that has nothing to do with the group's.
    const FOREIGN_KEY: &str = "Zm9yZWlnbiBrZXkgZm9yIHRoZSBwZWVycyBvZiBkcHM=";
    let case = |name, registration_id: &str, credential, outcome| Case {
        name,
        wanted: Wanted {
            transport: transport.to_string(),
            host: HOST,
            id_scope: emulator.id_scope.clone(),
            registration_id: registration_id.to_string(),
            credential,
        },
        outcome,
    };
    let by_key = |key: &str| Credential::Group { group_key: key.to_string() };
    let by_certificate = |identity: &certificates::Identity| Credential::X509 {
        cert_file: identity.chain.clone(),
        key_file: identity.key.clone(),
    };
    let (device, stranger) = (&certificates.device, &certificates.stranger);
    [
        case("symmetric_key", "peer-by-key", by_key(&emulator.group_key), "assigned"),
        case("x509", device.common_name, by_certificate(device), "assigned"),
        case("wrong_key", "peer-by-key", by_key(FOREIGN_KEY), "refused"),
        case("wrong_ca", stranger.common_name, by_certificate(stranger), "refused"),
    ]
}

fn install(peer: &Peer, scratch: &Path) -> Result<PathBuf> {
    let folder = scratch.join(peer.name);
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(Path::new("tests/peers").join(peer.name))? {
        let entry = entry?;
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    command(peer.install)?.dir(&folder).limit(Duration::from_secs(300)).run()?;
    Ok(folder)
}

fn emulate(folder: &Path, group_ca: &Path) -> Result<(Group, Emulator)> {
    Cmd::cargo(["build", "--locked", "--bin", "dps"]).run()?;
    let dps = Metadata::load()?.target_directory.join("debug/dps");
    let ports = PORTS.iter().flat_map(|(flag, port)| [flag.to_string(), port.to_string()]);
    let (running, ready) = Cmd::new(dps)
        .args(["emulate", "--group-ca"])
        .args([group_ca])
        .args(["--ca-out"])
        .args([folder.join("server-ca.pem")])
        .args(ports)
        .start_until_first_line(Duration::from_secs(30))?;
    let emulator = serde_json::from_str(&ready).map_err(|e| format!("{ready:?}: {e}"))?;
    Ok((running, emulator))
}

fn register(peer: &Peer, folder: &Path, case: &Case, emulator: &Emulator) -> Result {
    let file = folder.join(format!("{}.json", case.name));
    fs::write(&file, serde_json::to_string(&case.wanted)?)?;
    let printed = command(peer.register)?
        .args([&file])
        .dir(folder)
        .env(peer.ca_variable, &emulator.ca_file)
        .limit(Duration::from_secs(60))
        .read()?;
    let outcome = serde_json::from_str(&printed).map_err(|e| format!("{printed:?}: {e}"))?;
    Ok(judge(case, &outcome)?)
}

fn judge(case: &Case, outcome: &Outcome) -> Result<(), String> {
    let named =
        outcome.device_id == case.wanted.registration_id && !outcome.assigned_hub.is_empty();
    if outcome.outcome == case.outcome && (named || case.outcome != "assigned") {
        return Ok(());
    }
    Err(format!("should be {} and is {outcome:?}", case.outcome))
}

fn command(words: &[&str]) -> Result<Cmd> {
    let (program, arguments) = words.split_first().ok_or("a peer's command is empty")?;
    Ok(Cmd::new(program).args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(outcome: &'static str) -> Case {
        let wanted = Wanted {
            transport: "http".into(),
            host: HOST,
            id_scope: "0ne1".into(),
            registration_id: "a".into(),
            credential: Credential::Group { group_key: "key".into() },
        };
        Case { name: "n", wanted, outcome }
    }

    fn outcome(json: &str) -> Outcome {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_case_is_written_as_the_script_reads_it() {
        assert_eq!(
            serde_json::to_string(&case("assigned").wanted).unwrap(),
            r#"{"transport":"http","host":"localhost","idScope":"0ne1","registrationId":"a","groupKey":"key"}"#
        );
    }

    #[test]
    fn only_the_wanted_outcome_for_the_wanted_device_passes() {
        let assigned = outcome(r#"{"outcome":"assigned","deviceId":"a","assignedHub":"h"}"#);
        let refused = outcome(r#"{"outcome":"refused","error":"UnauthorizedError: no"}"#);
        assert!(judge(&case("assigned"), &assigned).is_ok());
        assert!(judge(&case("refused"), &refused).is_ok());
        assert!(judge(&case("refused"), &assigned).is_err());
        assert!(judge(&case("assigned"), &refused).is_err());
        for other in [
            r#"{"outcome":"assigned","deviceId":"b","assignedHub":"h"}"#,
            r#"{"outcome":"assigned","deviceId":"a"}"#,
            r#"{"outcome":"failed","error":"ECONNREFUSED"}"#,
            "{}",
        ] {
            assert!(judge(&case("assigned"), &outcome(other)).is_err(), "{other}");
            assert!(judge(&case("refused"), &outcome(other)).is_err(), "{other}");
        }
    }
}
