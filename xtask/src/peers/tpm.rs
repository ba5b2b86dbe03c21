//! A peer with a TPM: which keys it and the service have in the end.

use std::path::Path;

use serde_json::{Value, json};
use xshell::{Shell, cmd};

use super::{Peer, Script, emulate, judge, skips, swtpm::Swtpm, tell_outcome};
use crate::process::{Result, build};

/// The device whose TPM the service knows, and the one that it knows with another TPM.
const KNOWN: &str = "peer-by-tpm";
const FOREIGN: &str = "peer-by-another-tpm";

/// The last second of tokens for the hub, far from now.
const EXPIRY: &str = "4102444800";

/// Registers over each transport; what went wrong.
pub(super) fn run(shell: &Shell, name: &str, peer: &Peer, folder: &Path) -> Result<Vec<String>> {
    let dps = build(shell, "dps", "cli")?;
    let swtpm = || Swtpm::start().ok_or("swtpm does not start");
    let (own, other) = (swtpm()?, swtpm()?);
    let mut known = String::new();
    for (id, tpm) in [(KNOWN, &own), (FOREIGN, &other)] {
        let address = tpm.address();
        let shown = cmd!(shell, "{dps} tpm show --json --tpm {address}").quiet().read()?;
        let shown: Value = serde_json::from_str(&shown)?;
        let key = text(&shown, "endorsementKey");
        known +=
            &format!("[[enrollment]]\nregistration-id = \"{id}\"\nendorsement-key = \"{key}\"\n");
    }
    let config = folder.join("tpms.toml");
    shell.write_file(&config, known)?;
    let (_running, emulator) = emulate(shell, folder, "--config", &config)?;
    let address = own.address();
    let register = |transport: &str, id: &str| {
        let tpm = json!({"tpmSocket": own.socket(), "expiry": EXPIRY});
        let script = Script { peer, folder, emulator: &emulator };
        script.run(shell, &peer.register, transport, id, tpm)
    };
    // The service's key for the hub stays the same. Once our own client has stored it, it must sign as before.
    let holds_hub_key = |registered: &Value| -> Result {
        let (scope, ca) = (text(&emulator, "idScope"), text(&emulator, "caFile"));
        let connection = ["--transport", "http", "--endpoint", "localhost", "--ca-file", ca];
        let identity = ["--id-scope", scope, "--registration-id", KNOWN, "--tpm", &address];
        cmd!(shell, "{dps} register {connection...} {identity...}")
            .quiet()
            .ignore_stdout()
            .run()?;
        let hub = text(registered, "assignedHub");
        let device = ["--hub", hub, "--device-id", KNOWN, "--expiry", EXPIRY];
        let token = cmd!(shell, "{dps} tpm sign --tpm {address} {device...}").quiet().read()?;
        if text(registered, "token") == token {
            return Ok(());
        }
        Err(format!("the key in the TPM is not the one for the hub: {registered}, {token}").into())
    };
    let mut faults = Vec::new();
    for transport in &peer.transports {
        let outcome = register(transport, KNOWN).and_then(|registered| {
            judge(&registered, KNOWN, "assigned").and_then(|()| holds_hub_key(&registered))
        });
        faults.extend(tell_outcome(&format!("{name}::{transport}::tpm"), outcome));
        let case = format!("{transport}::wrong_tpm");
        if !skips(name, peer, &case) {
            let refused = register(transport, FOREIGN);
            let outcome = refused.and_then(|refused| judge(&refused, FOREIGN, "refused"));
            faults.extend(tell_outcome(&format!("{name}::{case}"), outcome));
        }
    }
    Ok(faults)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
