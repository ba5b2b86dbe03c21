//! `cargo xtask features`: a feature only adds. Every combination builds by itself, and what a user didn't ask for
//! isn't built.

use std::collections::BTreeSet;

use xshell::Shell;

use crate::{
    process::{Result, all_of, cargo, metadata, none_of},
    style::lint,
};

/// A crate, the features that it is built with, what proves that the row looks at something, and what must not be
/// there.
type Row = (&'static str, &'static str, &'static str, &'static [&'static [&'static str]]);

const HTTP: &[&str] = &["reqwest", "hyper", "hyper-util"];
const MQTT: &[&str] = &["rumqttc-v4-next", "mqtt-proto", "dps-mqtt"];
const AMQP: &[&str] = &["fe2o3-amqp", "fe2o3-amqp-types", "serde_amqp", "dps-amqp"];
const TPM: &[&str] = &["tpm2-protocol", "dps-tpm"];
const PKCS11: &[&str] = &["cryptoki", "cryptoki-sys", "libloading", "dps-pkcs11"];
/// It logs every frame with its content, tokens among it; and what only the emulator and the command need.
const NEVER: &[&str] =
    &["tokio-tungstenite", "tungstenite", "rcgen", "clap", "toml", "dps-emulator"];
const RUNTIME: &[&str] = &["tokio", "futures-core", "futures-util", "httpdate", "tracing"];
const TLS: &[&str] = &["rustls", "ring", "webpki-roots", "rustls-native-certs"];

const TABLE: &[Row] = &[
    ("dps-state-machine", "", "serde_json", &[RUNTIME, TLS, HTTP, MQTT, AMQP, TPM, PKCS11, NEVER]),
    ("dps-state-machine", "std", "tokio", &[TLS, HTTP, MQTT, AMQP, TPM, PKCS11, NEVER]),
    ("dps-client", "", "dps-state-machine", &[HTTP, MQTT, AMQP, TPM, PKCS11, NEVER]),
    ("dps-client", "http", "reqwest", &[MQTT, AMQP, TPM, PKCS11, NEVER]),
    ("dps-client", "mqtt", "dps-mqtt", &[HTTP, AMQP, TPM, PKCS11, NEVER]),
    ("dps-client", "mqtt,websocket", "dps-mqtt", &[HTTP, AMQP, TPM, PKCS11, NEVER]),
    ("dps-client", "amqp", "dps-amqp", &[HTTP, MQTT, TPM, PKCS11, NEVER]),
    ("dps-client", "tpm", "dps-tpm", &[HTTP, MQTT, AMQP, PKCS11, NEVER]),
    ("dps-client", "amqp,websocket", "dps-amqp", &[HTTP, MQTT, TPM, PKCS11, NEVER]),
    ("dps-client", "csr", "rustls-webpki", &[HTTP, MQTT, AMQP, TPM, PKCS11, NEVER]),
    ("dps-client", "pkcs11", "dps-pkcs11", &[HTTP, MQTT, AMQP, TPM, NEVER]),
    // It alone brings toml, which is never there otherwise.
    ("dps-client", "device-file", "toml", &[HTTP, MQTT, AMQP, TPM, PKCS11]),
];

/// They add modules that look at no other feature: each is linted by itself, and `cargo xtask clippy` lints all together.
const APART: &[&str] = &["csr", "device-file", "emulator", "hub", "pkcs11", "tpm"];

/// Holds the table against `cargo tree`, and lints every combination of features of every crate in `crates/`.
pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let mut faults = Vec::new();
    for row @ (name, features, ..) in TABLE {
        let what = format!("tree --locked --package {name} --no-default-features --features");
        let tree = cargo(shell, &what).arg(features);
        let tree = tree.args("--edges normal --target all --prefix none --format {p}".split(' '));
        faults.extend(tree_faults(&tree.read()?, row));
    }
    none_of(&faults)?;
    let metadata = metadata()?;
    let of_crates = metadata.workspace_packages().into_iter();
    let of_crates = of_crates.filter(|package| package.manifest_path.as_str().contains("/crates/"));
    all_of(of_crates.flat_map(|package| {
        let features = package.features.keys().map(String::as_str);
        let features: Vec<&str> = features.filter(|name| *name != "default").collect();
        let (apart, features): (Vec<&str>, Vec<&str>) =
            features.into_iter().partition(|name| APART.contains(name));
        let alone = apart.iter().map(|name| vec![*name]);
        let sets = powerset(&features).into_iter().chain(alone);
        sets.map(|set| lint(shell, &scope(&package.name, &set))).collect::<Vec<_>>()
    }))
}

/// Clippy's words for a crate with these features and no other.
fn scope(package: &str, features: &[&str]) -> String {
    let features: String = features.iter().map(|name| format!(" --features {name}")).collect();
    format!("--package {package} --no-default-features{features} --")
}

fn powerset<'a>(features: &[&'a str]) -> Vec<Vec<&'a str>> {
    features.iter().fold(vec![Vec::new()], |sets, feature| {
        let with = sets.iter().map(|set| [set.as_slice(), &[*feature]].concat()).collect();
        [sets, with].concat()
    })
}

/// Holds a row against a tree's lines, `crate version`.
fn tree_faults(tree: &str, (name, features, present, absent): &Row) -> Vec<String> {
    let built: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let who = format!("{name} [{features}]");
    println!("{who}: {} crates", built.len());
    let missing = (!built.contains(present)).then(|| format!("{who} should use {present}"));
    let extra = absent.iter().copied().flatten().filter(|name| built.contains(**name));
    extra.map(|name| format!("{who} pulls in {name}")).chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_powerset_has_every_combination_once() {
        assert_eq!(powerset(&[]), [Vec::<&str>::new()]);
        assert_eq!(powerset(&["a", "b"]), [vec![], vec!["a"], vec!["b"], vec!["a", "b"]]);
    }

    #[test]
    fn a_crate_too_many_and_one_too_few_fail() {
        let row: Row = ("ours", "http", "reqwest", &[MQTT, AMQP]);
        let fine = "ours v0.1.0 (/x)\nreqwest v0.13.0 (*)\n";
        assert_eq!(tree_faults(fine, &row), Vec::<String>::new());
        let extra = format!("{fine}serde_amqp v0.18.0\n");
        assert_eq!(tree_faults(&extra, &row), ["ours [http] pulls in serde_amqp"]);
        assert_eq!(tree_faults("", &row), ["ours [http] should use reqwest"]);
    }
}
