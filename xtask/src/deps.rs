//! `cargo xtask deps`: who depends on whom, one TLS stack, and what must never come in.
//!
//! What must not come in, and what in one version only, stands in deny.toml, which cargo-deny reads too.

use std::collections::BTreeSet;

use cargo_metadata::{
    DependencyKind, Metadata,
    semver::{Version, VersionReq},
};
use serde::Deserialize;
use xshell::Shell;

use crate::process::{Result, metadata, none_of};

/// Our crates from the bottom up, and which others of ours each may use. A crate that isn't here fails the check.
const MAY_USE: &[(&str, &[&str])] = &[
    ("dps-state-machine", &[]),
    ("dps-attestation", &[MACHINE]),
    ("dps-tpm", &[MACHINE, ATTESTATION]),
    ("dps-connect", &[MACHINE, ATTESTATION]),
    ("dps-http", &[MACHINE, ATTESTATION, CONNECT]),
    ("dps-mqtt", &[MACHINE, ATTESTATION, CONNECT]),
    ("dps-amqp", &[MACHINE, ATTESTATION, CONNECT]),
    ("dps-client", &[MACHINE, ATTESTATION, CONNECT, "dps-http", "dps-mqtt", "dps-amqp"]),
    // The emulator shares no code of connections with the client.
    ("dps-emulator", &[MACHINE, ATTESTATION]),
    ("dps-cli", &["dps-client", "dps-emulator"]),
    ("dps-simulator", &["dps-state-machine"]),
    ("dps-conformance", &["dps-client", "dps-emulator", "dps-simulator"]),
    ("xtask", &[]),
];
const MACHINE: &str = "dps-state-machine";
const ATTESTATION: &str = "dps-attestation";
const CONNECT: &str = "dps-connect";

/// A transport never uses another one, not even in its tests.
const TRANSPORTS: &[&str] = &["dps-http", "dps-mqtt", "dps-amqp"];

/// Tests may use what lies beside their crate, but not these, which stand on top.
const TOPS: &[&str] = &["dps-client", "dps-cli", "dps-conformance", "xtask"];

/// Without these there is no TLS at all, and the bans would say nothing.
const NEEDED: &[&str] = &["rustls", "ring"];

/// An entry of deny.toml's `bans.deny`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Ban {
    /// A name, or `name:requirement of the version`.
    #[serde(rename = "crate")]
    spec: String,
    /// The crates that may use it all the same.
    #[serde(default)]
    wrappers: BTreeSet<String>,
    /// It may be there, but in one version only.
    #[serde(default)]
    deny_multiple_versions: bool,
    reason: String,
}

/// One package uses another directly.
#[derive(Debug)]
struct Arrow {
    user: String,
    used: String,
    version: Version,
    /// Only the user's tests do.
    dev: bool,
}

/// Prints the arrows between our crates; fails when a rule is broken.
pub(crate) fn run(_: &Shell, _: &[String]) -> Result {
    let metadata = metadata()?;
    let ours: Vec<_> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let arrows = arrows(&metadata);
    for name in &ours {
        let uses = arrows.iter().filter(|a| a.user == *name && !a.dev && ours.contains(&a.used));
        let used: BTreeSet<&str> = uses.map(|arrow| arrow.used.as_str()).collect();
        println!("{name:<18} -> {}", Vec::from_iter(used).join(", "));
    }
    let mut faults = arrow_faults(&ours, &arrows);
    faults.extend(ban_faults(&bans(&std::fs::read_to_string("deny.toml")?)?, &arrows)?);
    for package in metadata.workspace_packages() {
        faults.extend(lint_fault(&package.name, &std::fs::read_to_string(&package.manifest_path)?));
    }
    none_of(&faults)
}

fn arrows(metadata: &Metadata) -> Vec<Arrow> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let arrows = nodes.flat_map(|node| node.deps.iter().map(move |used| (node, used)));
    arrows
        .map(|(node, used)| Arrow {
            user: metadata[&node.id].name.to_string(),
            used: metadata[&used.pkg].name.to_string(),
            version: metadata[&used.pkg].version.clone(),
            dev: used.dep_kinds.iter().all(|kind| kind.kind == DependencyKind::Development),
        })
        .collect()
}

fn arrow_faults(ours: &[String], arrows: &[Arrow]) -> Vec<String> {
    let unknown = ours.iter().filter(|name| MAY_USE.iter().all(|(known, _)| known != name));
    let mut faults: Vec<String> =
        unknown.map(|name| format!("{name} is not in the map of who may use whom")).collect();
    for Arrow { user, used, dev, .. } in arrows.iter().filter(|a| ours.contains(&a.used)) {
        let (user, used) = (user.as_str(), used.as_str());
        let may = MAY_USE.iter().any(|(name, may_use)| *name == user && may_use.contains(&used));
        let two_transports = TRANSPORTS.contains(&user) && TRANSPORTS.contains(&used);
        let tests_may = *dev && !two_transports && !TOPS.contains(&used);
        if !may && !tests_may {
            let tests = if *dev { " in its tests" } else { "" };
            faults.push(format!("{user} must not use {used}{tests}"));
        }
    }
    faults
}

/// The bans of deny.toml.
fn bans(deny_toml: &str) -> Result<Vec<Ban>> {
    let file: toml::Table = toml::from_str(deny_toml)?;
    let deny = file.get("bans").and_then(|bans| bans.get("deny")).ok_or("deny.toml: no bans")?;
    Ok(deny.clone().try_into()?)
}

fn ban_faults(bans: &[Ban], arrows: &[Arrow]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for needed in NEEDED.iter().filter(|name| !arrows.iter().any(|arrow| arrow.used == **name)) {
        faults.push(format!("{needed} is not there"));
    }
    for Ban { spec, wrappers, deny_multiple_versions, reason } in bans {
        let (name, versions) = spec.split_once(':').unwrap_or((spec, "*"));
        let versions = VersionReq::parse(versions)?;
        let found = |a: &&Arrow| a.used == name && versions.matches(&a.version);
        let mut found: Vec<&Arrow> = arrows.iter().filter(found).collect();
        if *deny_multiple_versions {
            let versions: BTreeSet<_> = found.iter().map(|arrow| &arrow.version).collect();
            found.retain(|_| versions.len() > 1);
        }
        for Arrow { user, used, version, .. } in found {
            if !wrappers.contains(user) {
                faults.push(format!("{user} must not use {used} {version}: {reason}"));
            }
        }
    }
    Ok(faults)
}

/// Every crate of ours takes the workspace's lints, which forbid `unsafe` and panics.
fn lint_fault(name: &str, manifest: &str) -> Option<String> {
    let takes = manifest.contains("[lints]\nworkspace = true");
    (!takes).then(|| format!("{name} does not take the workspace's lints"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arrows written as `user used@version`, those of tests with `dev` behind.
    fn arrows(lines: &[&str]) -> Vec<Arrow> {
        let arrow = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            let (used, version) = words[1].split_once('@').unwrap_or((words[1], "0.1.0"));
            let version = version.parse().unwrap();
            Arrow { user: words[0].into(), used: used.into(), version, dev: words.len() > 2 }
        };
        lines.iter().map(arrow).collect()
    }

    fn arrow_faults_of(lines: &[&str]) -> Vec<String> {
        let ours: Vec<String> = MAY_USE.iter().map(|(name, _)| name.to_string()).collect();
        arrow_faults(&ours, &arrows(lines))
    }

    #[test]
    fn arrows_that_run_down_pass() {
        let fine = [
            "dps-connect dps-state-machine",
            "dps-connect rustls",
            "dps-http dps-connect",
            "dps-http dps-emulator dev",
            "dps-client dps-http",
        ];
        assert_eq!(arrow_faults_of(&fine), Vec::<String>::new());
    }

    #[test]
    fn arrows_that_run_up_or_across_fail() {
        let wrong = [
            "dps-state-machine dps-client dev",
            "dps-http dps-mqtt",
            "dps-mqtt dps-http dev",
            "dps-emulator dps-connect",
        ];
        let faults = [
            "dps-state-machine must not use dps-client in its tests",
            "dps-http must not use dps-mqtt",
            "dps-mqtt must not use dps-http in its tests",
            "dps-emulator must not use dps-connect",
        ];
        assert_eq!(arrow_faults_of(&wrong), faults);
        let new = arrow_faults(&["dps-new".to_owned()], &[]);
        assert_eq!(new, ["dps-new is not in the map of who may use whom"]);
    }

    fn ban_faults_of(lines: &[&str]) -> Vec<String> {
        let bans = bans(include_str!("../../deny.toml")).unwrap();
        let tls = ["reqwest rustls@0.23.0", "rustls ring@0.17.0"];
        ban_faults(&bans, &arrows(&[&tls[..], lines].concat())).unwrap()
    }

    #[test]
    fn a_banned_crate_fails_and_names_who_uses_it() {
        let faults = ban_faults_of(&["reqwest openssl@0.10.0"]);
        assert_eq!(faults, ["reqwest must not use openssl 0.10.0: a second TLS stack"]);
    }

    #[test]
    fn a_ban_holds_for_its_versions_and_not_for_its_exceptions() {
        let fine = ["rustls-native-certs schannel", "rustls rustls-webpki@0.103.1"];
        assert_eq!(ban_faults_of(&fine), Vec::<String>::new());
        assert_eq!(ban_faults_of(&["ours schannel", "rustls rustls-webpki@0.102.8"]).len(), 2);
    }

    #[test]
    fn two_versions_of_the_tls_stack_and_none_at_all_fail() {
        let two = ban_faults_of(&["ours rustls@0.22.0"]);
        assert!(
            two.iter().any(|fault| fault.contains("ours must not use rustls 0.22.0")),
            "{two:?}"
        );
        assert_eq!(ban_faults(&[], &[]).unwrap(), ["rustls is not there", "ring is not there"]);
    }

    #[test]
    fn a_crate_without_the_lints_fails() {
        assert!(lint_fault("ours", "[lints]\nworkspace = false").is_some());
        assert!(lint_fault("ours", "[package]\n\n[lints]\nworkspace = true\n").is_none());
    }
}
