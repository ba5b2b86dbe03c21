//! Peers that go on to their hub: they register, connect, send a message, report a property and get the twin.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use xshell::Shell;

use super::{KNOWN, Peer, Script, emulate, judge, tell_outcome};
use crate::process::Result;

/// Base64 of the group's key.
const GROUP_KEY: &str = "SHViIGtleSBmb3IgdGhlIHBlZXJzIG9mIGRwcy4uLi4=";

/// The SDKs look the hub's name up: this one leads to the loopback on every machine.
const HUB: &str = "localhost";

/// Runs the peer's script for the hub by each transport and credential; what is wrong.
pub(super) fn run(
    shell: &Shell,
    name: &str,
    peer: &Peer,
    script: &str,
    folder: &Path,
) -> Result<Vec<String>> {
    let twin = "initial-twin = { properties = { desired = { rate = 7 } } }";
    let enrollment = |group: &str, known: &str| {
        format!("[[enrollment]]\ngroup = \"{group}\"\n{known}\nhub = \"{HUB}\"\n{twin}\n")
    };
    let by_key = enrollment("keys", &format!("symmetric-key = \"{GROUP_KEY}\""));
    let by_certificate = enrollment("certificates", "ca-file = \"known-root.pem\"");
    let config = folder.join("hub.toml");
    shell.write_file(&config, by_key + &by_certificate)?;
    let (_running, emulator) = emulate(shell, folder, "--config", &config)?;
    let case = Script { peer, folder, emulator: &emulator };
    let file = |ending| json!(folder.join(format!("{KNOWN}{ending}")));
    let mut faults = Vec::new();
    for transport in ["mqtt", "mqtt-ws"] {
        let certificate = json!({"certFile": file("-chain.pem"), "keyFile": file(".key")});
        for (credential_name, id, credential) in [
            ("symmetric_key", format!("hub-{transport}"), json!({"groupKey": GROUP_KEY})),
            ("x509", KNOWN.to_owned(), certificate),
        ] {
            let outcome = case
                .run(shell, script, transport, &id, credential)
                .and_then(|printed| judge(&printed, &id, "assigned").map(|()| printed))
                .and_then(|printed| has_been_at_its_hub(shell, &printed, &id, transport, folder));
            faults.extend(tell_outcome(
                &format!("{name}::hub::{transport}::{credential_name}"),
                outcome,
            ));
        }
    }
    Ok(faults)
}

/// Whether the twin says what it must, and the message has arrived.
fn has_been_at_its_hub(
    shell: &Shell,
    printed: &Value,
    id: &str,
    transport: &str,
    folder: &Path,
) -> Result {
    if !has(printed, "/desired/rate", &json!(7)) || !has(printed, "/reported/seen", &json!(1)) {
        return Err(format!("the twin should have what was set and reported: {printed}").into());
    }
    let mut connected = false;
    // The events are written by a thread of their own.
    for _ in 0..50 {
        let events = shell.read_file(folder.join("events.jsonl"))?;
        let events = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut events = events.filter(|event| has(event, "/registrationId", &json!(id)));
        connected = events.any(|event| {
            has(&event, "/event", &json!("hub-connected"))
                && has(&event, "/transport", &json!(transport))
        });
        let is_message = |event: Value| {
            has(&event, "/event", &json!("telemetry"))
                && has(&event, "/payload", &json!({"temperature": 21.5}))
                && has(&event, "/properties/level", &json!("info"))
        };
        if connected && events.any(is_message) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("no event tells of its message (connected: {connected})").into())
}

fn has(event: &Value, pointer: &str, value: &Value) -> bool {
    event.pointer(pointer) == Some(value)
}
