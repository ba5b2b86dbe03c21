//! `cargo xtask deps`: who depends on whom, one TLS stack, and what must never come in.
//!
//! What must not come in, and what in one version only, stands in deny.toml, which cargo-deny reads too.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{
    DependencyKind, Metadata,
    semver::{Version, VersionReq},
};
use serde::Deserialize;
use xshell::Shell;

use crate::process::{Result, deny_toml, metadata, none_of};

/// Which others of ours a crate may use, and which its tests may use besides. The root's manifest has an entry for each
/// crate in its metadata; a crate that isn't there fails the check.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MayUse {
    uses: BTreeSet<String>,
    #[serde(default)]
    tests: BTreeSet<String>,
}

type Map = BTreeMap<String, MayUse>;

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
    /// It has to be there, in one version only.
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

/// Fails when a rule is broken.
pub(crate) fn run(_: &Shell, _: &[String]) -> Result {
    let metadata = metadata()?;
    let ours: Vec<_> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    let arrows = arrows(&metadata);
    let map = Map::deserialize(metadata.workspace_metadata.get("may-use").ok_or("no may-use")?)?;
    let mut faults = arrow_faults(&map, &ours, &arrows);
    faults.extend(ban_faults(&deny_toml("bans", "deny")?, &arrows)?);
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

fn arrow_faults(map: &Map, ours: &[String], arrows: &[Arrow]) -> Vec<String> {
    let unknown = ours.iter().filter(|name| !map.contains_key(*name));
    let unknown = unknown.map(|name| format!("{name} is not in the map of who may use whom"));
    let wrong = arrows.iter().filter(|Arrow { user, used, dev, .. }| {
        let may =
            map.get(user).map(|may| may.uses.contains(used) || *dev && may.tests.contains(used));
        ours.contains(used) && may != Some(true)
    });
    let wrong = wrong.map(|Arrow { user, used, dev, .. }| {
        format!("{user} must not use {used}{}", if *dev { " in its tests" } else { "" })
    });
    unknown.chain(wrong).collect()
}

fn ban_faults(bans: &[Ban], arrows: &[Arrow]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for Ban { spec, wrappers, deny_multiple_versions, reason } in bans {
        let (name, versions) = spec.split_once(':').unwrap_or((spec, "*"));
        let versions = VersionReq::parse(versions)?;
        let found = |a: &&Arrow| a.used == name && versions.matches(&a.version);
        let mut found: Vec<&Arrow> = arrows.iter().filter(found).collect();
        if *deny_multiple_versions {
            let versions: BTreeSet<_> = found.iter().map(|arrow| &arrow.version).collect();
            if versions.is_empty() {
                faults.push(format!("{name} is not there: {reason}"));
            }
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
        let map = serde_json::from_value(metadata().unwrap().workspace_metadata["may-use"].clone());
        let map: Map = map.unwrap();
        let ours: Vec<String> = map.keys().cloned().collect();
        arrow_faults(&map, &ours, &arrows(lines))
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
            "dps-state-machine dps-emulator dev",
            "dps-http dps-mqtt",
            "dps-mqtt dps-http dev",
            "dps-emulator dps-connect",
        ];
        let faults = [
            "dps-state-machine must not use dps-emulator in its tests",
            "dps-http must not use dps-mqtt",
            "dps-mqtt must not use dps-http in its tests",
            "dps-emulator must not use dps-connect",
        ];
        assert_eq!(arrow_faults_of(&wrong), faults);
        let new = arrow_faults(&Map::new(), &["dps-new".to_owned()], &[]);
        assert_eq!(new, ["dps-new is not in the map of who may use whom"]);
    }

    /// The bans of the workspace, whose root is the folder above this package's.
    fn bans() -> Vec<Ban> {
        let text = include_str!("../../deny.toml");
        let file: toml::Table = toml::from_str(text).unwrap();
        file["bans"]["deny"].clone().try_into().unwrap()
    }

    fn ban_faults_of(lines: &[&str]) -> Vec<String> {
        let bans = bans();
        let given = arrows(lines);
        let is_missing = |ban: &&Ban| {
            ban.deny_multiple_versions && given.iter().all(|arrow| arrow.used != ban.spec)
        };
        let missing: Vec<String> =
            bans.iter().filter(is_missing).map(|ban| format!("ours {}@1.0.0", ban.spec)).collect();
        let lines: Vec<&str> =
            lines.iter().copied().chain(missing.iter().map(String::as_str)).collect();
        ban_faults(&bans, &arrows(&lines)).unwrap()
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
        let two = ban_faults_of(&["ours rustls@0.22.0", "reqwest rustls@0.23.0"]);
        assert!(
            two.contains(&"ours must not use rustls 0.22.0: one TLS stack".to_owned()),
            "{two:?}"
        );
        let bans = bans();
        let none = ban_faults(&bans, &[]).unwrap();
        assert!(none.contains(&"ring is not there: one TLS stack".to_owned()), "{none:?}");
    }

    #[test]
    fn a_crate_without_the_lints_fails() {
        assert!(lint_fault("ours", "[lints]\nworkspace = false").is_some());
        assert!(lint_fault("ours", "[package]\n\n[lints]\nworkspace = true\n").is_none());
    }
}
