//! `cargo xtask deps`: who depends on whom, one TLS stack, and what must never come in.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    licenses,
    metadata::{Metadata, Package},
    process::{Result, none_of},
};

/// Our crates from the bottom up, and which others of ours each may use. A crate that isn't here fails the check.
const MAY_USE: &[(&str, &[&str])] = &[
    ("dps-state-machine", &[]),
    ("dps-attestation", &["dps-state-machine"]),
    ("dps-tpm", &["dps-state-machine", "dps-attestation"]),
    ("dps-connect", &["dps-state-machine", "dps-attestation"]),
    ("dps-http", &["dps-state-machine", "dps-attestation", "dps-connect"]),
    ("dps-mqtt", &["dps-state-machine", "dps-attestation", "dps-connect"]),
    ("dps-amqp", &["dps-state-machine", "dps-attestation", "dps-connect"]),
    (
        "dps-client",
        &[
            "dps-state-machine",
            "dps-attestation",
            "dps-connect",
            "dps-http",
            "dps-mqtt",
            "dps-amqp",
        ],
    ),
    ("dps-emulator", &["dps-state-machine", "dps-attestation"]),
    ("dps-cli", &["dps-client", "dps-emulator"]),
    ("dps-simulator", &["dps-state-machine"]),
    ("dps-conformance", &["dps-client", "dps-emulator", "dps-simulator"]),
    ("xtask", &[]),
];

/// A transport never uses another one, not even in its tests.
const TRANSPORTS: &[&str] = &["dps-http", "dps-mqtt", "dps-amqp"];

/// Tests may use what lies beside their crate, but not these, which stand on top.
const TOPS: &[&str] = &["dps-client", "dps-cli", "dps-conformance", "xtask"];

/// Built in exactly one version, or not at all: two would be two stacks.
const ONE_VERSION: &[&str] = &[
    "rustls",
    "ring",
    "rustls-webpki",
    "rustls-pki-types",
    "tokio-rustls",
    "webpki-roots",
    "tokio",
    "http",
    "hyper",
    "tungstenite",
    "serde_json",
    "base64",
];

/// Without these there is no TLS at all, and the checks above would say nothing.
const NEEDED: &[&str] = &["rustls", "ring"];

struct Ban {
    name: &'static str,
    /// The versions it holds for, by how they begin; empty for all of them.
    versions: &'static [&'static str],
    /// Crates that may use it all the same.
    except: &'static [&'static str],
    why: &'static str,
}

const fn ban(name: &'static str, why: &'static str) -> Ban {
    Ban { name, versions: &[], except: &[], why }
}

const SECOND_STACK: &str = "a second TLS stack";

/// What must not come in, directly or through another crate. deny.toml says the same.
const BANNED: &[Ban] = &[
    ban("openssl", SECOND_STACK),
    ban("openssl-sys", SECOND_STACK),
    ban("native-tls", SECOND_STACK),
    ban("tokio-native-tls", SECOND_STACK),
    ban("boring", SECOND_STACK),
    ban("boring-sys", SECOND_STACK),
    ban("aws-lc-rs", "ring is the one provider"),
    ban("aws-lc-sys", "ring is the one provider"),
    ban("aws-lc-fips-sys", "ring is the one provider"),
    Ban {
        // Reads the certificate store of Windows; it shakes no hands here.
        except: &["rustls-native-certs"],
        ..ban("schannel", SECOND_STACK)
    },
    Ban {
        versions: &["0.100.", "0.101.", "0.102."],
        ..ban("rustls-webpki", "four advisories of 2026 on its certificate checks")
    },
    ban("rustls-pemfile", "unmaintained; rustls-pki-types reads PEM"),
    ban("rumqttc", "pins an old rustls-webpki; rumqttc-v4-next is maintained"),
    ban("rumqttd", "refuses filters that begin with $ and sees no client certificate"),
    Ban {
        // It encrypts for a TPM there, with public keys only.
        except: &["dps-emulator"],
        ..ban("rsa", "RUSTSEC-2023-0071: its private-key operations leak their timing")
    },
];

/// Prints the arrows between our crates and all crates in several versions; fails when a rule is broken.
pub(crate) fn run(_: &[String]) -> Result {
    let metadata = Metadata::load()?;
    for package in metadata.members() {
        let used: BTreeSet<&str> = ours_used_by(&metadata, package)
            .filter(|(_, dev)| !dev)
            .map(|(name, _)| name)
            .collect();
        println!("{:<18} -> {}", package.name, Vec::from_iter(used).join(", "));
    }
    for (name, versions) in versions(&metadata).into_iter().filter(|(_, v)| v.len() > 1) {
        println!("in {} versions: {name} {}", versions.len(), Vec::from_iter(versions).join(", "));
    }
    let mut faults = arrow_faults(&metadata);
    faults.extend(version_faults(&metadata));
    faults.extend(ban_faults(&metadata));
    faults.extend(deny_faults(&std::fs::read_to_string("deny.toml")?));
    faults.extend(lint_faults(&metadata));
    none_of(&faults)
}

/// The crates of ours that one of them uses, and whether only its tests do.
fn ours_used_by<'a>(
    metadata: &'a Metadata,
    package: &'a Package,
) -> impl Iterator<Item = (&'a str, bool)> {
    package
        .dependencies
        .iter()
        .filter(|used| metadata.members().any(|member| member.name == used.name))
        .map(|used| (used.name.as_str(), used.is_dev()))
}

fn arrow_faults(metadata: &Metadata) -> Vec<String> {
    let mut faults = Vec::new();
    for user in metadata.members() {
        let name = user.name.as_str();
        let Some((_, may_use)) = MAY_USE.iter().find(|(known, _)| *known == name) else {
            faults.push(format!("{name} is not in the map of who may use whom"));
            continue;
        };
        for (used, dev) in ours_used_by(metadata, user) {
            let two_transports = TRANSPORTS.contains(&name) && TRANSPORTS.contains(&used);
            let tests_may_use = dev && !two_transports && !TOPS.contains(&used);
            if !may_use.contains(&used) && !tests_may_use {
                let tests = if dev { " in its tests" } else { "" };
                faults.push(format!("{name} must not use {used}{tests}"));
            }
        }
    }
    faults
}

fn versions(metadata: &Metadata) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut versions = BTreeMap::<&str, BTreeSet<&str>>::new();
    for package in &metadata.packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    versions
}

fn version_faults(metadata: &Metadata) -> Vec<String> {
    let versions = versions(metadata);
    let count = |name: &&&str| versions.get(**name).map_or(0, BTreeSet::len);
    let many = ONE_VERSION.iter().filter(|name| count(name) > 1);
    let none = NEEDED.iter().filter(|name| count(name) == 0);
    many.map(|name| format!("{name} comes in more than one version"))
        .chain(none.map(|name| format!("{name} is not there")))
        .collect()
}

fn ban_faults(metadata: &Metadata) -> Vec<String> {
    let mut faults = Vec::new();
    for Ban { name, versions, except, why } in BANNED {
        for package in metadata.named(name) {
            let version = &package.version;
            if !versions.is_empty() && !versions.iter().any(|begin| version.starts_with(begin)) {
                continue;
            }
            for user in metadata.users_of(package).filter(|user| !except.contains(user)) {
                faults.push(format!("{name} {version} is banned ({why}); {user} uses it"));
            }
        }
    }
    faults
}

/// deny.toml is for those who have cargo-deny: it must know all that this file and the list of licenses do.
fn deny_faults(deny_toml: &str) -> Vec<String> {
    let bans = BANNED.iter().flat_map(|ban| ban.except.iter().chain([&ban.name]));
    bans.chain(licenses::ALLOWED)
        .filter(|word| !deny_toml.contains(&format!("\"{word}\"")))
        .filter(|word| !deny_toml.contains(&format!("\"{word}:")))
        .map(|word| format!("deny.toml does not name {word}"))
        .collect()
}

/// Every crate of ours takes the workspace's lints, which forbid `unsafe` and panics.
fn lint_faults(metadata: &Metadata) -> Vec<String> {
    metadata
        .members()
        .filter(|member| {
            let manifest = std::fs::read_to_string(&member.manifest_path).unwrap_or_default();
            !manifest.contains("[lints]\nworkspace = true")
        })
        .map(|member| format!("{} does not take the workspace's lints", member.name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::fake::workspace;

    #[test]
    fn arrows_that_run_down_pass() {
        let fine = workspace(
            5,
            &[
                ("dps-state-machine@0.1.0", &[]),
                ("dps-connect@0.1.0", &["dps-state-machine", "rustls"]),
                ("dps-http@0.1.0", &["dps-connect", "dev:dps-emulator"]),
                ("dps-emulator@0.1.0", &["dps-state-machine"]),
                ("dps-client@0.1.0", &["dps-http", "dev:dps-emulator"]),
                ("rustls@0.23.0", &[]),
            ],
        );
        assert_eq!(arrow_faults(&fine), Vec::<String>::new());
    }

    #[test]
    fn arrows_that_run_up_or_across_fail() {
        let wrong = workspace(
            5,
            &[
                ("dps-state-machine@0.1.0", &["dev:dps-client"]),
                ("dps-http@0.1.0", &["dps-mqtt"]),
                ("dps-mqtt@0.1.0", &["dev:dps-http"]),
                ("dps-client@0.1.0", &[]),
                ("dps-new@0.1.0", &[]),
            ],
        );
        assert_eq!(
            arrow_faults(&wrong),
            [
                "dps-state-machine must not use dps-client in its tests",
                "dps-http must not use dps-mqtt",
                "dps-mqtt must not use dps-http in its tests",
                "dps-new is not in the map of who may use whom",
            ]
        );
    }

    #[test]
    fn two_versions_of_the_tls_stack_and_none_at_all_fail() {
        let two =
            workspace(0, &[("rustls@0.22.0", &[]), ("rustls@0.23.0", &[]), ("ring@0.17.0", &[])]);
        assert_eq!(version_faults(&two), ["rustls comes in more than one version"]);
        let none = workspace(0, &[("rustls@0.23.0", &[])]);
        assert_eq!(version_faults(&none), ["ring is not there"]);
    }

    #[test]
    fn a_banned_crate_fails_and_names_who_uses_it() {
        let banned = workspace(
            1,
            &[
                ("dps-http@0.1.0", &["reqwest"]),
                ("reqwest@0.13.0", &["openssl"]),
                ("openssl@0.10.0", &[]),
            ],
        );
        assert_eq!(
            ban_faults(&banned),
            ["openssl 0.10.0 is banned (a second TLS stack); reqwest uses it"]
        );
    }

    #[test]
    fn a_ban_holds_for_its_versions_and_not_for_its_exceptions() {
        let fine = workspace(
            1,
            &[
                ("ours@0.1.0", &["rustls-native-certs", "rustls-webpki"]),
                ("rustls-native-certs@0.8.0", &["schannel"]),
                ("schannel@0.1.0", &[]),
                ("rustls-webpki@0.103.1", &[]),
            ],
        );
        assert_eq!(ban_faults(&fine), Vec::<String>::new());
        let wrong = workspace(
            1,
            &[
                ("ours@0.1.0", &["schannel", "rustls-webpki"]),
                ("schannel@0.1.0", &[]),
                ("rustls-webpki@0.102.8", &[]),
            ],
        );
        assert_eq!(ban_faults(&wrong).len(), 2);
    }

    #[test]
    fn deny_toml_must_name_every_ban_and_license() {
        assert!(deny_faults("").contains(&"deny.toml does not name MIT".to_string()));
        assert!(
            deny_faults("\"openssl-sys\"").contains(&"deny.toml does not name openssl".to_string())
        );
        assert_eq!(deny_faults(include_str!("../../deny.toml")), Vec::<String>::new());
    }

    #[test]
    fn a_crate_without_the_lints_fails() {
        let metadata = workspace(1, &[("ours@0.1.0", &[])]);
        assert_eq!(lint_faults(&metadata), ["ours does not take the workspace's lints"]);
    }
}
